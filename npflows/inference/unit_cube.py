"""The map between samples of a flow and the unit cube."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.core.checks import as_rows
from npflows.core.underflow import ignore_underflow
from npflows.distribution.transformed import TransformedDistribution

LOWEST, HIGHEST = float(np.finfo(np.float64).tiny), 1 - 2.0**-53
"""Bounds of u: the numbers next to 0 and 1."""
LARGEST = {np.dtype(np.float32): 1e30, np.dtype(np.float64): 1e150}
"""Largest latent value that is passed to a flow, by its dtype."""
TOWARDS_CENTER = [1 - 2.0**-24 * 4**i for i in range(12)] + [2.0 ** -(2**i) for i in range(10)] + [0.0]
"""Factors of the distance from the center of the base, tried in this order where x has no finite log-density."""


def to_unit_cube(
    flow: TransformedDistribution, x: ArrayLike, condition: ArrayLike | None = None
) -> NDArray[np.float64]:  # fmt: skip
    """Map x to the unit cube, where samples of the flow are uniform: the base's cumulative distribution of `forward`.

    The inverse of `from_unit_cube`.  log |det du/dx| is `log_prob`.  Integers are taken for the middle of their cells.

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
        If the base distribution is a custom one without `cdf`.
    """
    z, _ = flow.forward(x, condition)
    rows = z.reshape(-1, flow.latent_dim)
    return flow.base_under(flow.conditioning.of_rows(x, condition, len(rows))).cdf(rows).reshape(z.shape)


@ignore_underflow
def from_unit_cube(
    flow: TransformedDistribution, u: ArrayLike, condition: ArrayLike | None = None
) -> NDArray[Any]:  # fmt: skip
    """Map the unit cube to samples of the flow: `inverse` of the base's quantiles.

    Used as the prior transform of a nested sampler, it makes the flow the prior, for one u (input_dim,) or many at a time.

    Parameters
    ----------
    u : array_like (n, input_dim), or (input_dim,)
        Between 0 and 1.  0 and 1 are replaced by the nearest numbers inside, about 2e-308 and 1 - 1e-16.  Where x would
        leave the range of the flow's dtype, or have no density, u is replaced by a value nearer to the center for which it
        does not.
    condition : array_like, optional
        One for all rows or one for each, where the flow takes one; finite.

    Returns
    -------
    ndarray (n, input_dim)
        x, finite, and of finite log-density.

    Raises
    ------
    ValueError
        If u is outside the unit cube or NaN, or a condition NaN or infinite; or if the flow has no x of finite density
        there, nor at the center of its base.
    NotImplementedError
        If the base distribution is a custom one without `ppf`.
    """
    rows, single = as_rows(u, flow.input_shape, "u")
    outside = ~((rows >= 0) & (rows <= 1))
    if outside.any():
        raise ValueError(f"u must lie between 0 and 1, got {rows[outside][0]}")
    context = flow.conditioning.finite_rows(condition, len(rows), "from_unit_cube")
    largest = LARGEST[flow.dtype]
    base = flow.base_under(context)
    z = np.clip(base.ppf(np.clip(rows.astype(np.float64), LOWEST, HIGHEST)), -largest, largest)
    x = flow.inverse(z, context)[0].reshape(rows.shape)
    doubtful = np.flatnonzero(~_has_density(flow, x, context, np.arange(len(x))))
    for factor in TOWARDS_CENTER:
        if not len(doubtful):
            break
        center = np.broadcast_to(base.center, z.shape)[doubtful]
        inward = center + factor * (z[doubtful] - center)
        x[doubtful] = flow.inverse(inward, None if context is None else context[doubtful])[0].reshape(inward.shape)
        doubtful = doubtful[~_has_density(flow, x[doubtful], context, doubtful)]
    if len(doubtful):
        raise ValueError(
            f"the flow has no x of finite density for {len(doubtful)} of {len(x)} rows of u, the center of its base "
            f"included: its parameters are not those of a fit, or x leaves the range of {flow.dtype}"
        )
    x = x.reshape(-1, *flow.input_shape)
    return x[0] if single else x


def _has_density(flow: TransformedDistribution, x: np.ndarray, context: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
    """Whether x (m, d), which have these rows of the conditions, are finite and of finite log-density."""
    if not len(x):
        return np.ones(0, bool)
    log_p = flow.log_prob(x, None if context is None else context[rows])
    return np.isfinite(x).all(axis=1) & np.isfinite(log_p)
