"""Differences: of what should be equal, of functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

ULPS = 4
"""Units in the last place that a number may be off by on its own."""


def apart(a: np.ndarray, b: np.ndarray, period: np.ndarray | float = np.inf) -> np.ndarray:
    """a - b, the short way round where a column is a circle."""
    with np.errstate(invalid="ignore"):
        difference = a - b
        turns = np.where(np.isfinite(period), np.rint(difference / period), 0.0)
        return difference - np.where(turns != 0, turns * np.where(np.isfinite(period), period, 0.0), 0.0)


def column_scale(x: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """How wide each column is, outliers aside (d,); the given numbers where all its values are the same."""
    if not len(x):
        return otherwise
    first, third = np.quantile(x, (0.25, 0.75), axis=0)
    spread, middle = x.std(axis=0), (third - first) / 1.349
    scale = np.where(middle > 0, np.minimum(spread, middle), spread)
    return np.where((scale > 0) & np.isfinite(scale), scale, otherwise)


def off(found: np.ndarray, wanted: np.ndarray, scale: np.ndarray, period: np.ndarray | float) -> np.ndarray:
    """By how much each number (n, d) is off beyond its own rounding, in the column's scale or, where that is larger, its
    distance from the column's middle."""
    if not len(wanted):
        return np.zeros(wanted.shape)
    rounding = ULPS * np.finfo(np.float64).eps * np.abs(wanted)
    size = np.maximum(scale, np.abs(wanted - np.median(wanted, axis=0)))
    with np.errstate(invalid="ignore"):
        return np.maximum(np.abs(apart(found, wanted, period)) - rounding, 0) / size


def largest(values: np.ndarray) -> float:
    """The largest, NaN where one is NaN, 0 of none."""
    return float(np.max(values, initial=0))


def median(values: np.ndarray) -> float:
    """The median, 0 of none."""
    return float(np.median(values)) if len(values) else 0.0


def shifted(
    function: Callable,
    x: np.ndarray,
    condition: np.ndarray | None,
    steps: np.ndarray,
    which: np.ndarray | slice = slice(None),
) -> tuple[np.ndarray, np.ndarray]:
    """x (n, d) with one value after the other of k columns moved by its step (n, d): (n, k, d), and where `forward` or
    `inverse` takes it."""
    n, d = x.shape
    ends = x[:, None] + steps[:, None] * np.eye(d)[which]
    repeated = None if condition is None else np.repeat(condition, ends.shape[1], axis=0)
    return ends, np.reshape(function(ends.reshape(-1, d), repeated)[0], (n, ends.shape[1], -1))


def log_abs_det(
    function: Callable, x: np.ndarray, condition: np.ndarray | None, steps: np.ndarray, period: np.ndarray | float
) -> np.ndarray:  # fmt: skip
    """log |det| (n,) of the Jacobian of `forward` or `inverse` by central differences of half-steps (n, d).

    `period` is that of the results; where the differences are not finite, it is NaN.
    """
    right, above = shifted(function, x, condition, steps)
    left, below = shifted(function, x, condition, -steps)
    with np.errstate(all="ignore"):
        width = np.diagonal(right - left, axis1=1, axis2=2)
        jacobian = apart(above, below, period) / width[:, :, None]
        good = np.isfinite(jacobian).all(axis=(1, 2))
        result = np.full(len(x), np.nan)
        result[good] = np.linalg.slogdet(jacobian[good])[1]
    return result


def changes(
    function: Callable, x: np.ndarray, condition: np.ndarray | None, which: np.ndarray | slice = slice(None)
) -> np.ndarray:  # fmt: skip
    """How much each result (row) of `forward` or `inverse` changes at most when one value (column, of those wanted) moves
    by its column's scale, relative to the result's size."""
    at_rest = np.reshape(function(x, condition)[0], (len(x), -1))
    steps = np.broadcast_to(column_scale(x, np.ones(x.shape[1])), x.shape)
    moved = shifted(function, x, condition, steps, which)[1]
    size = np.maximum(1e-300, np.abs(at_rest).max(axis=0))
    return (np.abs(moved - at_rest[:, None]).max(axis=0) / size).T
