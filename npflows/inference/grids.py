"""Columns, points and axes of a grid on which a density is wanted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from npflows.core.checks import as_numeric
from npflows.core.columns import column_number
from npflows.support import Column, Periodic

ColumnsLike = int | str | Sequence[int | str] | np.ndarray
"""One column or several, by number or name."""
NEAR_END = 0.1
"""A default axis ends at this share of the distance of the samples from an open end: nearer, a density may be anything."""
POINTS = {1: 101, 2: 41}
"""Points along each axis of a default grid, by the number of columns."""


def as_column_numbers(columns: ColumnsLike, n: int, names: Sequence[str] | None, argument: str) -> np.ndarray:
    """Numbers of columns that are given by number or name, at least one and none twice."""
    several = columns if isinstance(columns, (Sequence, np.ndarray)) and not isinstance(columns, str) else [columns]
    numbers = [
        column_number(
            column, n, names, owner=f"{argument}: the flow", from_end=True, naming="set flow.columns to name them"
        )
        for column in several
    ]
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"{argument} must be at least one column, and none twice, got {columns!r}")
    return np.array(numbers, np.int64)


def as_grid(
    grid: ArrayLike | None, samples: np.ndarray, columns: Sequence[Column]
) -> tuple[np.ndarray | tuple[np.ndarray, ...], np.ndarray, tuple[int, ...]]:
    """Make a grid for some columns.

    Parameters
    ----------
    grid : array_like or None
        As in `marginal`.
    samples : ndarray (N, k)
        Samples of the columns, which a default grid covers.
    columns : sequence of Column
        Where the columns live.

    Returns
    -------
    grid : ndarray (n,), tuple of ndarray, or ndarray (n, k)
        The axis of one column, the axes of several, or points.
    points : ndarray (G, k)
    shape : tuple of int
        Shape of values on the grid.
    """
    k = samples.shape[1]
    if grid is None:
        if k not in POINTS:
            raise ValueError(f"grid must be given for {k} columns: a list of {k} axes, or an array of points (n, {k})")
        grid = [_covering(column, values, POINTS[k]) for column, values in zip(columns, samples.T)]
        grid = grid[0] if k == 1 else grid
    if k > 1 and isinstance(grid, (list, tuple)):
        if len(grid) != k:
            raise ValueError(f"grid must be a list of {k} axes or an array of points (n, {k}), got a list of {len(grid)}")
        axes = [_axis(axis) for axis in grid]
        return tuple(axes), np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, k), tuple(map(len, axes))
    if k == 1:
        axis = _axis(grid[:, 0] if isinstance(grid, np.ndarray) and grid.shape[1:] == (1,) else grid)
        return axis, axis[:, None], axis.shape
    points = as_numeric(grid, "grid").astype(np.float64)
    if points.ndim != 2 or points.shape[1] != k or not points.size or not np.isfinite(points).all():
        raise ValueError(f"grid must be a list of {k} axes or a finite array of points (n, {k}), got shape {points.shape}")
    return points, points, (len(points),)


def as_values(given: Sequence[ArrayLike]) -> np.ndarray:
    """Finite numbers (m,) at which columns are held."""
    values = np.empty(len(given))
    for i, value in enumerate(given):
        array = as_numeric(value, "a value in given")
        if array.ndim or not np.isfinite(array):
            raise ValueError(f"values in given must be finite numbers, got {value!r}")
        values[i] = array
    return values


def _covering(column: Column, values: np.ndarray, n: int) -> np.ndarray:
    """An axis of n points over the range of samples of a column, or over all of a periodic one."""
    if column.is_integer:
        return np.arange(values.min(), values.max() + 1)
    if isinstance(column, Periodic):
        return np.linspace(column.low, column.high, n)
    low, high = np.quantile(values, (0.001, 0.999))
    low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
    ends = column.bounds
    if np.isfinite(ends[0]):
        low = max(low, np.nextafter(ends[0], np.inf), ends[0] + NEAR_END * (values.min() - ends[0]))
    if np.isfinite(ends[1]):
        high = min(high, np.nextafter(ends[1], -np.inf), ends[1] - NEAR_END * (ends[1] - values.max()))
    return np.linspace(low, high, n)


def _axis(values: ArrayLike) -> np.ndarray:
    axis = np.atleast_1d(as_numeric(values, "grid")).astype(np.float64)
    if axis.ndim != 1 or not axis.size or not np.isfinite(axis).all():
        raise ValueError(f"an axis of grid must be finite numbers (n,), got shape {axis.shape}")
    return axis
