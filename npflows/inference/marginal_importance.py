"""Importance-weighted marginal density estimation: integrals of a density over many columns, from its samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from npflows.inference.local_regression import WIDTH, LocalFit, LocalRegression, tree_of

LATTICE = 4
"""Points of the lattice through each sample at which the density is evaluated."""


def lattice(k: int) -> np.ndarray:
    """LATTICE points (LATTICE, k) of the unit cube, evenly spread, that are a group under addition modulo 1."""
    return np.arange(LATTICE)[:, None] * np.array([3**j % LATTICE for j in range(k)]) / LATTICE


def marginal_importance(
    log_density: Callable[[np.ndarray], np.ndarray],
    regression: LocalRegression,
    samples: np.ndarray,
    log_p: np.ndarray,
    points: np.ndarray,
    total: int,
    advance: Callable[[int], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Integrate a density over the free columns of a regression, at points of the fixed ones, by importance sampling.

    Samples x = (a, b) near a point c are moved along lines on which b follows a by regression.  Let f(a) be the density p
    on the line through a sample, V the volume of a box W of values of a, and L a lattice in W that goes through the
    sample's a and wraps around at the ends.  Then the mean over all samples of

        [a in W] f(c) / (V mean over L of f)

    is the integral.  These are the weights of Chen (1994, J. Am. Stat. Assoc. 89, 818), whose denominator is f(a) alone;
    the lattice bounds the weights where f(a) happens to be small.

    Parameters
    ----------
    log_density : callable
        From rows (n, d) to the log-density (n,).
    regression : LocalRegression
        Made from other samples; W is around the samples nearest to c.
    samples, log_p : ndarray (N, d), (N,)
        Independent samples of the density, and its logarithm there.
    points : ndarray (G, k)
    total : int
        N, or more where further samples were drawn that lie far from all points.
    advance : callable
        Called with 1 after each point.

    Returns
    -------
    log_integral, error : ndarray (G,)
        The logarithms of the integrals and their relative standard errors.
    """
    a, k = samples[:, regression.fixed], len(regression.fixed)
    tree, steps = tree_of(regression.whiten(a)), lattice(k)[1:]
    found, error = np.full(len(points), -math.inf), np.zeros(len(points))
    for g, point in enumerate(points):
        fit = regression.at(point)
        reach = 0.5 * WIDTH * math.sqrt(k) * np.linalg.norm(np.linalg.solve(regression.root, fit.root), 2)
        inside = np.array(tree.query_ball_point(regression.whiten(fit.center[None])[0], reach), np.int64)
        u = fit.whiten(a[inside])
        boxed = (np.abs(u) < 0.5 * WIDTH).all(1)
        u, inside = u[boxed], inside[boxed]
        b = samples[inside][:, regression.free] - u @ fit.slope

        def on_line(u: np.ndarray, fit: LocalFit = fit, b: np.ndarray = b) -> np.ndarray:
            return log_density(regression.joined(fit.center + u @ fit.root.T, b + u @ fit.slope))

        along = [on_line(((u / WIDTH + 0.5 + step) % 1 - 0.5) * WIDTH) for step in steps]
        log_mean = np.logaddexp.reduce([log_p[inside], *along], axis=0) - math.log(LATTICE)
        log_weights = on_line(fit.whiten(np.repeat(point[None], len(u), axis=0))) - log_mean
        top = log_weights.max(initial=-math.inf)
        if top > -math.inf:
            weights = np.exp(log_weights - top)
            mean = weights.sum() / total
            found[g] = top + math.log(mean) - k * math.log(WIDTH) - np.log(np.diag(fit.root)).sum()
            error[g] = math.sqrt(max((weights @ weights) / total / mean**2 - 1, 0.0) / total)
        advance(1)
    return found, error
