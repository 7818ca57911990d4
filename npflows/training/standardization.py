"""The standardization of samples and conditions, set once from the training rows, with a word on columns it can't suit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from npflows.core.checks import warn_user
from npflows.distribution.transformed import TransformedDistribution
from npflows.support.columns import Real
from npflows.training.correlations import Standardization, with_factor
from npflows.training.moments import LocationScale, Values, location_scale
from npflows.training.rows import Rows

MARGIN = 0.05
"""Share of a bounded base's support left free at either end."""
FAR = 10.0
"""Values so many scales from the location are far from all others."""
CONDITION_TAILS = 10.0
"""Standardized conditions beyond it are drawn in by a logarithm, as no network has learned what they do."""
WIDE = 100.0
"""Between the bounds of a base there is no room for values so many scales apart."""
FEW_STEPS = 16.0
"""A scale of so few steps between neighboring floating-point numbers is coarse; below `NO_STEPS` it is rounding alone."""
NO_STEPS = 2.0


def standardize_once(
    flow: TransformedDistribution, train: Rows, validation: Rows | None, kind: Standardization = "auto"
) -> list[str]:
    """Set the standardization of samples and conditions, unless it is set; returns the names of the columns of samples
    that it is robust for."""
    if flow.preprocessing.is_standardized:
        return []
    flow.robust_columns = []
    loc, scale = standardization(flow, train, validation)
    flow.standardize.set(*with_factor(flow, train, loc, scale, kind))
    robust = list(flow.robust_columns)
    if train.condition is not None:
        flow.standardize_condition(*_of_conditions(flow, train))
    flow.preprocessing.mark_standardized()
    return robust


def standardization(flow: TransformedDistribution, rows: Rows, validation: Rows | None) -> tuple[np.ndarray, np.ndarray]:
    """loc and scale that give the columns mean 0 and variance 1, or put all rows inside a bounded base's support; circles
    stay as they are.  Where a few rows would decide them, they are those of the others."""
    preprocessing, support = flow.preprocessing, flow.base.support
    channels = flow.input_shape[2] if len(flow.input_shape) == 3 else None
    labels = preprocessing.labels if channels is None else [f"channel {c}" for c in range(channels)]
    if support is not None:
        return _between(flow, rows, validation, support)

    def values(x: np.ndarray, condition: np.ndarray | None) -> np.ndarray:
        return preprocessing.on_line(x)

    found = location_scale(rows, values, channels)
    width = channels or flow.latent_dim
    circles = preprocessing.periodic[:width]
    scale = np.where(found.scale == 0, _cell_scale(flow, rows)[:width], found.scale)
    if ((scale == 0) & ~circles).any():
        _warn_of_constant(labels, (scale == 0) & ~circles)
    on_line = np.array([isinstance(column, Real) for column in flow.support]) if flow.support else np.ones(width, bool)
    _warn_of_rounding("x", labels, found, rows.x.dtype, on_line[:width] & ~circles)
    robust = found.is_robust & ~circles
    if robust.any():
        _warn_of_few("x", labels, robust, rows, values, found)
        flow.robust_columns += [labels[d] for d in np.flatnonzero(robust)]
    loc, scale = np.where(circles, 0.0, found.loc), np.where(circles | (scale == 0), 1.0, scale)
    repeats = flow.latent_dim // width
    return np.tile(loc, repeats), np.tile(scale, repeats)


def _of_conditions(flow: TransformedDistribution, rows: Rows) -> tuple[np.ndarray, np.ndarray, float]:
    """Location and scale of the conditions, and where tails begin.  One that is constant is standardized by its own size,
    or 1, so that other values are not far from it."""

    def values(x: np.ndarray, condition: np.ndarray | None) -> np.ndarray:
        assert condition is not None
        return condition

    found, labels = location_scale(rows, values), flow.condition_columns or _numbered(flow.condition_dim)
    dtype = rows.condition.dtype if rows.condition is not None else np.dtype(np.float64)
    steps = _steps(found, dtype)
    constant = (found.scale == 0) | (steps <= NO_STEPS)
    indicators = all(np.isin(ends, (0, 1)).all() for ends in (found.low, found.high))
    if constant.any() and not indicators:  # a class that no row has is no surprise
        warn_user(
            f"{_named(labels, constant)} of the condition has one value in the training rows, which say nothing about any "
            f"other: drop it, or train on several"
        )
    _warn_of_rounding("the condition", labels, found, dtype, ~constant)
    robust = found.is_robust & ~constant
    if robust.any():
        _warn_of_few("the condition", labels, robust, rows, values, found)
        flow.robust_columns += [f"condition {labels[d]}" for d in np.flatnonzero(robust)]
    return found.loc, np.where(constant, np.maximum(1.0, np.abs(found.loc)), found.scale), CONDITION_TAILS


def _between(
    flow: TransformedDistribution, rows: Rows, validation: Rows | None, support: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Location and scale that put all rows inside a bounded base's support."""
    preprocessing, labels = flow.preprocessing, flow.preprocessing.labels
    low, high = np.full((2, flow.latent_dim), [[np.inf], [-np.inf]])
    for x, _, _ in rows.pieces() if validation is None else itertools.chain(rows.pieces(), validation.pieces()):
        lower, upper = preprocessing.ends_on_line(x)
        low, high = np.minimum(low, lower.min(axis=0)), np.maximum(high, upper.max(axis=0))
    if (high <= low).any():
        _warn_of_constant(labels, high <= low)
    found = location_scale(rows, lambda x, condition: preprocessing.on_line(x))
    lost = (high - low > WIDE * found.scale) & (found.scale > 0) & ~preprocessing.periodic
    if lost.any():
        which = ", ".join(f"{labels[d]} ({found.low[d]:.4g} to {found.high[d]:.4g})" for d in np.flatnonzero(lost))
        warn_user(
            f"a few rows of x are so far from the others that these are all but one point between the bounds of the base: "
            f"{which}; remove such rows, transform the column, or take a base without bounds"
        )
    room = (support[1] - support[0]) * (1 - 2 * MARGIN)
    scale = np.where(high > low, (high - low) / room, 1.0)
    return 0.5 * (low + high) - scale * 0.5 * (support[0] + support[1]), scale


def _cell_scale(flow: TransformedDistribution, rows: Rows) -> np.ndarray:
    """The standard deviation (d,) of points in the cells of a row's whole numbers, 0 in other columns: the scale of a
    column that is the same whole number in all rows."""
    x, _, _ = rows.take(np.arange(1))
    x = x.astype(np.float64)  # False and True can't be subtracted
    quarters = [flow.preprocessing.on_line(x, place)[0] for place in (0.25, 0.75)]
    return np.where(flow.preprocessing.integer, (quarters[1] - quarters[0]) / math.sqrt(3), 0.0)


def _warn_of_constant(labels: Sequence[str], which: np.ndarray) -> None:
    verb, it = ("are", "them") if which.sum() > 1 else ("is", "it")
    warn_user(
        f"{_named(labels, which)} of x {verb} constant in the training rows, with no density, and standardized by 1: "
        f"drop {it}"
    )


def _warn_of_few(
    name: str, labels: Sequence[str], which: NDArray[np.bool_], rows: Rows, values: Values, found: LocationScale
) -> None:
    """Say which columns have values far from all others, how many, and what they are."""
    columns, width = [int(d) for d in np.flatnonzero(which)], len(found.loc)
    total, far, same = 0, np.zeros(width, int), np.zeros(width, int)
    farthest, shared, distance = np.zeros((3, width))
    for x, _, condition in rows.pieces():
        inner = values(x, condition).reshape(-1, width)
        given = (x if name == "x" else inner).reshape(-1, width)
        total += len(inner)
        for d in columns:
            away = np.abs(inner[:, d] - found.loc[d]) / found.scale[d]
            far[d] += (away > FAR).sum()
            if away.max() > distance[d]:
                distance[d], farthest[d] = away.max(), given[np.argmax(away), d]
            alike = inner[:, d] == found.sentinel[d]
            if alike.any():
                same[d], shared[d] = same[d] + alike.sum(), given[np.argmax(alike), d]
    parts = []
    for d in columns:
        if same[d]:
            text = f"{same[d]} of {total} are {shared[d]:g}: if it stands for what is missing, pass missing="
        else:
            text = f"{far[d]} of {total} beyond {FAR:g} of these scales, the farthest is {farthest[d]:.3g}"
        parts.append(f"{labels[d]} ({text})")
    warn_user(
        f"the standard deviation of {name} would come from a few values far from all others, so that location and scale "
        f"are those of the others: {', '.join(parts)}; remove such rows, or transform the column"
    )


def _steps(found: LocationScale, dtype: np.dtype) -> np.ndarray:
    """How many steps between neighboring numbers of the column's size and dtype its scale is long."""
    if dtype.kind != "f":
        return np.full(len(found.scale), np.inf)
    largest = np.maximum(np.abs(found.low), np.abs(found.high))
    largest = np.where(found.is_robust, np.abs(found.loc) + found.scale, largest)
    return found.scale / np.abs(np.spacing(largest.astype(dtype)).astype(np.float64))


def _warn_of_rounding(
    name: str, labels: Sequence[str], found: LocationScale, dtype: np.dtype, which: NDArray[np.bool_]
) -> None:
    """Name the columns whose values differ by few steps of their dtype."""
    coarse = which & (found.scale > 0) & (_steps(found, dtype) <= FEW_STEPS)
    if coarse.any():
        warn_user(
            f"{name} varies in {_named(labels, coarse)} by little more than the rounding of {dtype}, which is then what is "
            f"learned: give float64, or subtract a constant before rounding"
        )


def _named(labels: Sequence[str], which: np.ndarray) -> str:
    return ", ".join(label for label, named in zip(labels, which) if named)


def _numbered(n: int) -> list[str]:
    return [f"column {i}" for i in range(n)]
