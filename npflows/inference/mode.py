"""The mode of a flow: the point of highest density."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.core.checks import SeedLike, as_int, as_rng
from npflows.core.optional import scipy
from npflows.core.underflow import ignore_underflow
from npflows.distribution.cost import warn_if_drawing_is_long
from npflows.distribution.transformed import TransformedDistribution
from npflows.inference.drawing import draw
from npflows.inference.unconstrained import UnconstrainedDensity

CANDIDATES = 1 << 16
"""Samples among which the starts are chosen."""


class Mode(NamedTuple):
    """The point where a density is highest, and its logarithm there."""

    x: NDArray[Any]
    log_prob: float


@ignore_underflow
def mode(
    flow: TransformedDistribution, condition: ArrayLike | None = None, *, starts: int | ArrayLike = 16, rng: SeedLike = None
) -> Mode:
    """Find the point of highest density from several starts.

    The density is that of x in its own units; in other coordinates the mode is elsewhere.

    Parameters
    ----------
    condition : array_like (condition_dim,), optional
        Where the flow takes one; finite.
    starts : int or array_like (m, input_dim)
        Number of starts, which are the best of 65,536 samples at some distance from each other; or the starts.  Of wide
        samples only as many as make about a million values are kept to choose from.
    rng : int, numpy.random.Generator or None

    Returns
    -------
    Mode
        x (input_dim,) and log_prob, which is no less than at any start or any sample that was drawn.

    Warns
    -----
    UserWarning
        If it will take long, with an estimate.
    """
    minimize = scipy("optimize", "flow.mode").minimize
    density = UnconstrainedDensity(flow, flow.conditioning.finite_rows(condition, 1, "mode"), cut=False, joint=True)
    every = np.arange(flow.latent_dim)
    warn_if_drawing_is_long(flow, CANDIDATES, "mode", context=density.condition)
    samples, log_p, typical = _candidates(flow, as_rng(rng), density.condition)
    best = [float(log_p[0]), samples[0]]
    candidates, *_ = density.to_unconstrained(samples, every)
    low, middle, high = np.quantile(density.to_unconstrained(typical, every)[0], (0.25, 0.5, 0.75), axis=0)
    scale = np.where(high > low, high - low, 1.0)
    if isinstance(starts, (int, np.integer)):
        points = _apart(candidates / scale, as_int(starts, "starts")) * scale
    else:
        points, _, inside = density.to_unconstrained(flow.preprocessing.rows(starts, flow.input_shape, "starts")[0], every)
        if not inside.all():
            raise ValueError("starts must lie inside the support of the flow")

    def loss(y: np.ndarray) -> tuple[float, np.ndarray]:
        """-log p and its gradient at scaled coordinates; a high constant where the flow has no density."""
        t = (middle + scale * y)[None]
        x, _ = density.from_unconstrained(t, every)
        x[:, density.integer] = np.round(x[:, density.integer])
        if not density.contains(x).all():
            return 1e3 - best[0], np.zeros(len(y))
        value, gradient = flow.log_prob_and_grad(x, density.condition)
        if not np.isfinite(value[0]):
            return 1e3 - best[0], np.zeros(len(y))
        if value[0] > best[0]:
            best[:] = float(value[0]), x[0]
        return -float(value[0]), -scale * density.pull_back(t, gradient.reshape(1, -1))[0]

    for point in points:
        minimize(loss, (point - middle) / scale, jac=True, method="L-BFGS-B")
    for _ in range(2):  # L-BFGS stops early where the slope jumps
        for method in ("Nelder-Mead", "L-BFGS-B"):
            start = (density.to_unconstrained(best[1][None], every)[0][0] - middle) / scale
            jac = method == "L-BFGS-B"
            minimize(loss if jac else lambda y: loss(y)[0], start, jac=jac, method=method)
    return Mode(best[1].reshape(flow.input_shape), best[0])


def _candidates(
    flow: TransformedDistribution, rng: np.random.Generator, condition: NDArray[Any] | None
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[Any]]:
    """The samples (m, d) of highest density among many, from the highest down, and their log-densities (m,): as many as a
    piece has.  Last, the samples of the first piece, which are like all others."""
    kept: tuple[NDArray[Any], NDArray[np.float64]] | None = None
    for piece in draw(flow, CANDIDATES, rng, condition):
        x, log_p = piece.x.reshape(len(piece.x), -1), piece.log_prob
        if kept is None:
            typical, most = x, len(x)
        else:
            x, log_p = np.concatenate([kept[0], x]), np.concatenate([kept[1], log_p])
        order = np.argsort(-log_p)[:most]
        kept = x[order], log_p[order]
    assert kept is not None
    return *kept, typical


def _apart(points: np.ndarray, n: int) -> np.ndarray:
    """Choose n of the points (m, d): each the first one at some distance from those before, then the first of the rest."""
    order, distance = [0], ((points - points[0]) ** 2).sum(axis=1)
    while len(order) < min(n, len(points)):
        far = np.flatnonzero(distance > 0.25 * points.shape[1])
        if not len(far):
            break
        order.append(int(far[0]))
        distance = np.minimum(distance, ((points - points[far[0]]) ** 2).sum(axis=1))
    taken = set(order)
    rest = [i for i in range(min(2 * n, len(points))) if i not in taken]
    return points[(order + rest)[:n]]
