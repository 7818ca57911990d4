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
    factor, least = correlation_factor(flow, rows, loc, scale)
    return factor if kind == "full" or least < THIN else None


def correlation_factor(
    flow: TransformedDistribution, rows: Rows, loc: NDArray[np.float64], scale: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """The factor (d, d) of the correlations of standardized columns on the line, and the smallest share of a column's
    variance that is left when the columns before it are known.

    Columns on circles, columns of whole numbers and columns that are functions of others are not mixed: the factor has
    the rows and columns of the identity there.

    Parameters
    ----------
    flow : TransformedDistribution
    rows : Rows
    loc, scale : ndarray (d,)
        Location and scale of each column.
    """
    d, step = rows.x.shape[1], -(-len(rows) // MOST_ROWS)
    x, weight, _ = rows.take(np.arange(0, len(rows), step))
    values = (flow.preprocessing.on_line(x) - loc) / scale
    mixed = ~(flow.preprocessing.periodic | flow.preprocessing.integer)
    near = (np.abs(values[:, mixed]) <= FAR).all(axis=1)
    values = values[np.ix_(near, mixed)]
    shares = np.full(len(values), 1.0) if weight is None else weight[near]
    factor, least = np.eye(d), 1.0
    if len(values) <= values.shape[1] or not shares.any():
        return factor, least
    shares = shares / shares.sum()
    centered = values - np.einsum("n,ni->i", shares, values)
    # einsum's own loops, as the sums of a BLAS follow its number of threads
    covariance = np.einsum("ni,nj->ij", centered * shares[:, None], centered)
    spread = np.sqrt(np.diag(covariance))
    alive = spread > 0
    correlations = covariance[np.ix_(alive, alive)] / np.outer(spread[alive], spread[alive])
    own, shares_left = _cholesky(correlations)
    places = np.flatnonzero(mixed)[alive]
    factor[np.ix_(places, places)] = own
    return factor, float(shares_left.min(initial=1.0))


def _cholesky(correlations: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lower triangular factor, and the share of each column's variance that those before it leave; degenerate columns
    are left out of both."""
    n = len(correlations)
    factor, left = np.eye(n), np.ones(n)
    used: list[int] = []
    for j in range(n):
        row = np.zeros(len(used))
        for i, k in enumerate(used):
            row[i] = (correlations[j, k] - factor[k, used[:i]] @ row[:i]) / factor[k, k]
        rest = 1.0 - (row**2).sum()
        if rest <= DEGENERATE:
            continue
        factor[j, used], factor[j, j], left[j] = row, np.sqrt(rest), rest
        used.append(j)
    return factor, left
