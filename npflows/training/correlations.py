"""The factor of a full standardization: the Cholesky factor of the columns' correlations, in float64."""

from __future__ import annotations

from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from npflows.core.checks import as_choice, warn_user
from npflows.core.location_scale import robust_location_scale
from npflows.distribution.transformed import TransformedDistribution
from npflows.layers.standardize import coupled
from npflows.training.rows import Rows

Standardization = Literal["auto", "diagonal", "full"]
MOST_MIXED = 256
"""Columns of a table that is looked at for strong correlations, at most."""
MOST_ROWS = 20_000
"""Rows that correlations are taken from at most, evenly spaced."""
MOST_TRIMS = 5
"""Times that rows off the others are looked for, at most."""
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
    if flow.preprocessing.is_standardized and kind == ("full" if flow.standardize.factor is None else "diagonal"):
        warn_user(
            f"the flow goes on in the units of an earlier fit, which were not standardize={kind!r}: reset() it to set them "
            f"anew"
        )
    return kind


def _can_mix(flow: TransformedDistribution) -> bool:
    return len(flow.input_shape) == 1 and flow.base.support is None


def with_factor(
    flow: TransformedDistribution,
    rows: Rows,
    loc: NDArray[np.float64],
    scale: NDArray[np.float64],
    kind: Standardization,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]:
    """Location, scale and the factor of the columns' correlations, where it is wanted or the table is thin; None for none.

    Where rows are left out of the correlations, location and scale of the columns that are mixed are those of the others:
    of thin columns, small errors of these are many times as wide as what is left.
    """
    if kind == "diagonal" or not _can_mix(flow) or (kind == "auto" and flow.latent_dim > MOST_MIXED):
        return loc, scale, None
    found = correlations(flow, rows, loc, scale, 1.0 if kind == "full" else THIN)
    if kind == "full" or coupled(found[2]).any():
        return found
    return loc, scale, None


def correlations(
    flow: TransformedDistribution,
    rows: Rows,
    loc: NDArray[np.float64],
    scale: NDArray[np.float64],
    most_left: float = 1.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Location, scale and the factor F (d, d) of standardized columns u on the line: the y with F y = u are u without what
    the columns before say of each, over the square root of what is left of its variance.

    Columns on circles, columns of whole numbers and columns that are functions of others are left out, and those with a
    larger share of their variance left than `most_left`: F has the rows of the identity there.  With 1 the others become
    uncorrelated, and F is the Cholesky factor of their correlations.  Rows far out in some u are left out; so are rows far
    out in a y whose standard deviation they decide.

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
    near: NDArray[np.bool_] = np.all(np.abs(values[:, mixed]) <= FAR, axis=1)
    shares = np.full(len(values), 1.0) if weight is None else weight
    trimmed = not near.all()
    for _ in range(MOST_TRIMS):
        if near.sum() <= mixed.sum() or not shares[near].any():
            return loc, scale, np.eye(d)
        given = shares[near] / shares[near].sum()
        mean, spread, factor = _of_near(values[np.ix_(near, mixed)], given, mixed, 1.0)
        y = np.linalg.solve(factor, ((values[near] - mean) / spread).T).T
        bulk = robust_location_scale(y, given, np.zeros(d), (factor != np.eye(d)).any(axis=1).astype(float))
        decided = bulk.is_robust & ((np.diag(factor) * bulk.scale) ** 2 <= most_left)
        if not decided.any():
            break
        near[near] = (np.abs(y - bulk.loc) <= FAR * bulk.scale)[:, decided].all(axis=1)
        trimmed = True
    mean, spread, factor = _of_near(values[np.ix_(near, mixed)], shares[near] / shares[near].sum(), mixed, most_left)
    if trimmed:
        moved = coupled(factor)
        loc, scale = np.where(moved, loc + scale * mean, loc), np.where(moved, scale * spread, scale)
    return loc, scale, factor


def _of_near(
    values: NDArray[np.float64], shares: NDArray[np.float64], mixed: NDArray[np.bool_], most_left: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (d,) of values (n, m) of the columns that may be mixed, 0 and 1 in others; the factor."""
    d = len(mixed)
    mean, spread, factor = np.zeros(d), np.ones(d), np.eye(d)
    mean[mixed] = np.einsum("n,ni->i", shares, values)
    centered = values - mean[mixed]
    # einsum's own loops, as the sums of a BLAS follow its number of threads
    covariance = np.einsum("ni,nj->ij", centered * shares[:, None], centered)
    deviation = np.sqrt(np.diag(covariance))
    alive = deviation > 0
    places = np.flatnonzero(mixed)[alive]
    spread[places] = deviation[alive]
    normalized = covariance[np.ix_(alive, alive)] / np.outer(deviation[alive], deviation[alive])
    factor[np.ix_(places, places)] = _factor(normalized, most_left)
    return mean, spread, factor


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
