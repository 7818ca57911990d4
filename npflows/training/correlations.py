"""The factor of a full standardization: the Cholesky factor of the columns' correlations, in float64."""

from __future__ import annotations

from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from npflows.core.checks import as_choice
from npflows.distribution.transformed import TransformedDistribution
from npflows.training.rows import Rows

Standardization = Literal["auto", "diagonal", "full"]
MOST_MIXED = 256
"""Columns of a table that is looked at for strong correlations, at most."""
MOST_ROWS = 20_000
"""Rows that correlations are taken from at most, evenly spaced."""
FAR = 8.0
"""Rows with a value so many scales from its location tell nothing about correlations."""
THIN = 0.01
"""A column is thin if this share of its variance, or less, is left when the columns before it are known."""
DEGENERATE = 1e-12
"""A column with a smaller share left is a function of the others, up to rounding: it is not mixed with them."""


def as_standardization(standardize: object, flow: TransformedDistribution) -> Standardization | None:
    """The kind of standardization from the argument of `fit`, after a check; None for none."""
    if isinstance(standardize, (bool, np.bool_)):
        return "auto" if standardize else None
    kind = cast(Standardization, as_choice(standardize, "standardize", ("auto", "diagonal", "full")))
    if kind == "full" and not _can_mix(flow):
        what = "images" if len(flow.input_shape) > 1 else f"a base with bounds, {flow.base!r}"
        raise ValueError(f'standardize="full" mixes columns, which does not go with {what}: use "diagonal"')
    return kind


def _can_mix(flow: TransformedDistribution) -> bool:
    return len(flow.input_shape) == 1 and flow.base.support is None


def wanted_factor(
    flow: TransformedDistribution, rows: Rows, loc: np.ndarray, scale: np.ndarray, kind: Standardization
) -> np.ndarray | None:
    """The factor of the columns' correlations, where it is wanted or the table is thin; None for none."""
    if kind == "diagonal" or not _can_mix(flow) or (kind == "auto" and flow.latent_dim > MOST_MIXED):
        return None
    factor = correlation_factor(flow, rows, loc, scale, 1.0 if kind == "full" else THIN)
    return factor if kind == "full" or (factor != np.eye(len(factor))).any() else None


def correlation_factor(
    flow: TransformedDistribution,
    rows: Rows,
    loc: NDArray[np.float64],
    scale: NDArray[np.float64],
    most_left: float = 1.0,
) -> NDArray[np.float64]:
    """The factor F (d, d) of standardized columns u on the line: the y with F y = u are u without what the columns before
    say of each, over the square root of what is left of its variance.

    Columns on circles, columns of whole numbers and columns that are functions of others are left out, and those with a
    larger share of their variance left than `most_left`: F has the rows of the identity there.  With 1 the others become
    uncorrelated, and F is the Cholesky factor of their correlations.

    Parameters
    ----------
    flow : TransformedDistribution
    rows : Rows
    loc, scale : ndarray (d,)
        Location and scale of each column.
    most_left : float
    """
    d, step = rows.x.shape[1], -(-len(rows) // MOST_ROWS)
    x, weight, _ = rows.take(np.arange(0, len(rows), step))
    values = (flow.preprocessing.on_line(x) - loc) / scale
    mixed = ~(flow.preprocessing.periodic | flow.preprocessing.integer)
    near = (np.abs(values[:, mixed]) <= FAR).all(axis=1)
    values = values[np.ix_(near, mixed)]
    shares = np.full(len(values), 1.0) if weight is None else weight[near]
    factor = np.eye(d)
    if len(values) <= values.shape[1] or not shares.any():
        return factor
    shares = shares / shares.sum()
    centered = values - np.einsum("n,ni->i", shares, values)
    # einsum's own loops, as the sums of a BLAS follow its number of threads
    covariance = np.einsum("ni,nj->ij", centered * shares[:, None], centered)
    spread = np.sqrt(np.diag(covariance))
    alive = spread > 0
    places = np.flatnonzero(mixed)[alive]
    correlations = covariance[np.ix_(alive, alive)] / np.outer(spread[alive], spread[alive])
    factor[np.ix_(places, places)] = _factor(correlations, most_left)
    return factor


def _factor(correlations: NDArray[np.float64], most_left: float) -> NDArray[np.float64]:
    """The factor of columns with these correlations."""
    n = len(correlations)
    factor, used = np.eye(n), np.zeros(n, bool)
    of_y = correlations.copy()  # between each y that there is and the others' u
    for j in range(n):
        before = np.flatnonzero(used)
        among = of_y[np.ix_(before, before)]
        coefficients = np.linalg.lstsq(among, of_y[before, j], rcond=None)[0]
        left = 1.0 - of_y[before, j] @ coefficients
        if left <= DEGENERATE:
            continue
        used[j] = True
        if left <= most_left and len(before):
            root = np.sqrt(left)
            factor[j, before], factor[j, j] = coefficients, root
            of_y[j] = (of_y[j] - coefficients @ of_y[before]) / root
            of_y[:, j] = of_y[j]
            of_y[j, j] = 1.0
            of_y[before, j] = of_y[j, before] = 0.0
    return factor
