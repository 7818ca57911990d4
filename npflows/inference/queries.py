"""Questions that a fitted flow answers: unit cube, mode, entropy and divergence; marginals and conditionals with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from npflows.core.checks import as_condition, as_int, as_rng, as_rows
from npflows.inference.grid_density import GridDensity, conditional, marginal
from npflows.inference.importance import PIECE, as_log_density
from npflows.inference.unconstrained import Line

if TYPE_CHECKING:
    from npflows.flow import NormalizingFlow

__all__ = [
    "Estimate",
    "GridDensity",
    "Mode",
    "conditional",
    "entropy",
    "from_unit_cube",
    "kl_divergence",
    "marginal",
    "mode",
    "to_unit_cube",
]

LOWEST, HIGHEST = float(np.finfo(np.float64).tiny), 1 - 2.0**-53
"""The nearest values to 0 and 1 that u is taken for instead."""
EDGE = 1e-6
"""Distance from 0 and 1 below which what u is mapped to is checked."""
TOWARDS_CENTER = [1 - 2.0**-24 * 4**i for i in range(12)] + [2.0 ** -(2**i) for i in range(10)] + [0.0]
"""Factors on the latent distance from the centre that are tried, in this order, where the flow's dtype gives out."""
CANDIDATES = 1 << 16
"""Samples whose best `mode` starts from."""


class Mode(NamedTuple):
    """Where a density is highest, and its logarithm there."""

    x: np.ndarray
    log_prob: float


class Estimate(NamedTuple):
    """A mean over samples and its standard error."""

    value: float
    error: float


def to_unit_cube(flow: NormalizingFlow, x: object, condition: object = None) -> np.ndarray:
    """Map x to the unit cube, where samples of the flow are uniform: the base's cumulative distribution of `forward`.

    The inverse of `from_unit_cube`.  log |det du/dx| is `log_prob`.  Whole numbers are taken for the middle of their cells.

    Parameters
    ----------
    x : array_like (n, input_dim), or (input_dim,)
    condition : array_like, optional
        One for all rows or one for each, where the flow takes one.

    Returns
    -------
    ndarray (n, input_dim)
        u, between 0 and 1.

    Raises
    ------
    NotImplementedError
        If the base distribution is one of your own without `cdf`.
    """
    z, _ = flow.forward(x, condition)
    return flow.base.cdf(z.reshape(-1, flow.latent_dim)).reshape(z.shape)


def from_unit_cube(flow: NormalizingFlow, u: object, condition: object = None) -> np.ndarray:
    """Map the unit cube to samples of the flow: `inverse` of the base's quantiles.

    As the prior transform of a nested sampler it makes the flow the prior, one u (input_dim,) or many at a time.

    Parameters
    ----------
    u : array_like (n, input_dim), or (input_dim,)
        Between 0 and 1.  0 and 1 are taken for the nearest numbers inside, about 2e-308 and 1 - 1e-16; and where x would
        leave what the flow's dtype can represent, for the nearest that does not.
    condition : array_like, optional
        One for all rows or one for each, where the flow takes one.

    Returns
    -------
    ndarray (n, input_dim)
        x, finite, and of finite log-density.

    Raises
    ------
    ValueError
        If u is outside the unit cube or NaN.
    NotImplementedError
        If the base distribution is one of your own without `ppf`.
    """
    rows, single = as_rows(u, flow.input_shape, "u")
    outside = ~((rows >= 0) & (rows <= 1))
    if outside.any():
        raise ValueError(f"u must lie between 0 and 1, got {rows[outside][0]}")
    context = as_condition(condition, len(rows), flow.condition_dim)
    reach = 1e30 if flow.dtype == np.float32 else 1e150
    z = np.clip(flow.base.ppf(np.clip(rows.astype(np.float64), LOWEST, HIGHEST)), -reach, reach)
    x = flow.inverse(z, context)[0].reshape(rows.shape)
    doubtful = np.flatnonzero(((rows < EDGE) | (rows > 1 - EDGE) | ~np.isfinite(x)).any(axis=1))
    for factor in TOWARDS_CENTER:
        doubtful = doubtful[~_has_density(flow, x[doubtful], context, doubtful)]
        if not len(doubtful):
            break
        inward = flow.base.center + factor * (z[doubtful] - flow.base.center)
        x[doubtful] = flow.inverse(inward, None if context is None else context[doubtful])[0].reshape(inward.shape)
    x = x.reshape(-1, *flow.input_shape)
    return x[0] if single else x


def _has_density(flow: NormalizingFlow, x: np.ndarray, context: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
    """Whether x (m, d), of these rows of the context, are finite and of finite log-density."""
    if not len(x):
        return np.ones(0, bool)
    log_p = flow.log_prob(x, None if context is None else context[rows])
    return np.isfinite(x).all(axis=1) & np.isfinite(log_p)


def mode(flow: NormalizingFlow, condition: object = None, *, starts: object = 16, rng: object = None) -> Mode:
    """The point of highest density that is found from several starts.

    It is highest in the units of x: another parametrisation has its mode elsewhere.

    Parameters
    ----------
    condition : array_like (condition_dim,), optional
        Where the flow takes one.
    starts : int or array_like (m, input_dim)
        How many of the best of 65,536 samples, some way apart, to climb from; or other points to climb from.
    rng : int, numpy.random.Generator or None

    Returns
    -------
    Mode
        x (input_dim,) and log_prob.  No less than at any sample that was drawn and any start.
    """
    from scipy.optimize import minimize

    line, every = Line(flow, as_condition(condition, 1, flow.condition_dim), cut=False), np.arange(flow.latent_dim)
    samples, log_p = flow.sample_and_log_prob(CANDIDATES, as_rng(rng), condition=line.context)
    samples = samples.reshape(CANDIDATES, -1)
    order = np.argsort(-log_p)
    best = [float(log_p[order[0]]), samples[order[0]]]
    candidates, *_ = line.to_unconstrained(samples[order], every)
    low, middle, high = np.quantile(candidates, (0.25, 0.5, 0.75), axis=0)
    scale = np.where(high > low, high - low, 1.0)
    if isinstance(starts, (int, np.integer)):
        points = _apart(candidates / scale, as_int(starts, "starts")) * scale
    else:
        points, _, inside = line.to_unconstrained(as_rows(starts, flow.input_shape, "starts")[0], every)
        if not inside.all():
            raise ValueError("starts must lie inside the support of the flow")

    def climb(y: np.ndarray) -> tuple[float, np.ndarray]:
        x, log_slope = line.from_unconstrained((middle + scale * y)[None], every)
        x[:, line.whole] = np.round(x[:, line.whole])
        if flow.preprocessing.outside(x):
            return 1e3 - best[0], np.zeros(len(y))
        value, gradient = flow.log_prob_and_grad(x, line.context)
        if not np.isfinite(value[0]):
            return 1e3 - best[0], np.zeros(len(y))
        if value[0] > best[0]:
            best[:] = float(value[0]), x[0]
        return -float(value[0]), -scale * np.exp(log_slope[0]) * gradient.reshape(-1)

    for point in points:
        minimize(climb, (point - middle) / scale, jac=True, method="L-BFGS-B")
    for _ in range(2):  # where the slope jumps, L-BFGS stops early
        for method in ("Nelder-Mead", "L-BFGS-B"):
            start = (line.to_unconstrained(best[1][None], every)[0][0] - middle) / scale
            jac = method == "L-BFGS-B"
            minimize(climb if jac else lambda y: climb(y)[0], start, jac=jac, method=method)
    return Mode(best[1].reshape(flow.input_shape), best[0])


def _apart(points: np.ndarray, n: int) -> np.ndarray:
    """The first n points (m, d) that are some way from all taken before, and then the first of the others."""
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


def entropy(flow: NormalizingFlow, n_samples: int = 100_000, rng: object = None, condition: object = None) -> Estimate:
    """Differential entropy of the flow, in nats: the mean of -log p over samples.

    Parameters
    ----------
    n_samples : int
        At least 2.
    rng : int, numpy.random.Generator or None
    condition : array_like, optional
        One for all samples; or one for each, and it is the mean over them.

    Returns
    -------
    Estimate
        value and error.
    """
    _, log_p = flow.sample_and_log_prob(as_int(n_samples, "n_samples", 2), as_rng(rng), condition=condition)
    return _mean(-log_p)


def kl_divergence(
    flow: NormalizingFlow,
    other: NormalizingFlow | Callable,
    n_samples: int = 100_000,
    rng: object = None,
    condition: object = None,
) -> Estimate:
    """Kullback and Leibler's divergence of another density from the flow, in nats: the mean of log flow - log other over
    samples of the flow.

    Parameters
    ----------
    other : NormalizingFlow or callable
        A flow, which gets the same condition if it takes one, or x (n, input_dim) to a normalised log-density (n,).
    n_samples : int
        At least 2.
    rng : int, numpy.random.Generator or None
    condition : array_like, optional
        As in `entropy`.

    Returns
    -------
    Estimate
        value and error; infinity and NaN where the other density is 0 at a sample.

    Raises
    ------
    ValueError
        If the other flow has other dimensions, or a callable gives NaN or a wrong shape.
    """
    from npflows.flow import NormalizingFlow

    n, is_flow = as_int(n_samples, "n_samples", 2), isinstance(other, NormalizingFlow)
    if is_flow and other.latent_dim != flow.latent_dim:
        raise ValueError(f"other has {other.latent_dim} columns where this flow has {flow.latent_dim}")
    if not is_flow and not callable(other):
        raise TypeError(f"other must be a flow or a function from x to its log-density, got {type(other).__name__}")
    x, log_p = flow.sample_and_log_prob(n, as_rng(rng), condition=condition)
    rows = x.reshape(n, flow.latent_dim)
    if is_flow:
        log_q = other.log_prob(rows, condition if other.condition_dim else None)
    else:
        log_q = np.concatenate([as_log_density(other, rows[i : i + PIECE]) for i in range(0, n, PIECE)])
    if np.isneginf(log_q).any():
        return Estimate(math.inf, math.nan)
    return _mean(log_p - log_q)


def _mean(values: np.ndarray) -> Estimate:
    return Estimate(float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))))
