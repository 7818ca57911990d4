"""A guess of the columns of a table, with its reasons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from npflows.core.checks import as_numeric
from npflows.core.frames import names_of
from npflows.support.columns import Below, Column, Integer, Interval, Positive, Real


class Inferred(list):
    """A list of columns that shows why each was taken for what it is."""

    def __init__(self, columns: Sequence[Column], names: Sequence[str], reasons: Sequence[str]) -> None:
        super().__init__(columns)
        self._guesses = list(zip(columns, names, reasons))

    def __repr__(self) -> str:
        return "\n".join(
            f"{name}: {column!r:<32} {why if column is guess else 'given'}"
            for column, (guess, name, why) in zip(self, self._guesses)
        )


def infer(x: ArrayLike, columns: Sequence[str] | None = None) -> Inferred:
    """A guess of where each column of a table lives, to look at, correct and pass on as `support=`.

    Columns of whole numbers with at most 100 different values are integers in their range; values that come close to 0
    from above and never reach it, beside others ten times as large, are positive, and such from below are below 0; values
    within (0, 1) that come close to both ends are an interval.  A circle can't be told from an interval, and groups of
    columns are not looked for: declare them.

    Parameters
    ----------
    x : array_like (n, d)
        NaN is ignored.
    columns : sequence of str, optional
        Names to show; those of a data frame by default.
    """
    names = columns if columns is not None else names_of(x)
    table = as_numeric(x, "x")
    if table.ndim != 2 or not len(table):
        raise ValueError(f"x must be a table (n, d) with at least one row, got shape {table.shape}")
    names = [f"column {d}" for d in range(table.shape[1])] if names is None else [str(name) for name in names]
    if len(names) != table.shape[1]:
        raise ValueError(f"columns must be {table.shape[1]} names, one for each column of x, got {names!r}")
    guesses = [_guess(column[np.isfinite(column)]) for column in table.T.astype(np.float64)]
    return Inferred([guess for guess, _ in guesses], names, [why for _, why in guesses])


def _guess(values: np.ndarray) -> tuple[Column, str]:
    if not len(values):
        return Real(), "no finite value"
    low, high = values.min(), values.max()
    different = np.unique(values[:100000])
    if (values == np.floor(values)).all() and 2 <= len(different) <= 100:
        return Integer(int(low), int(high)), f"whole numbers, {len(different)} different"
    if low > 0 and high < 1 and low < 0.05 and high > 0.95:
        return Interval(0.0, 1.0), f"between 0 and 1: {low:.3g} to {high:.3g}"
    if _spans_scales(values):
        return Positive(), f"above 0, of very different sizes: {low:.3g} to {high:.3g}"
    if _spans_scales(-values):
        return Below(), f"below 0, of very different sizes: {low:.3g} to {high:.3g}"
    return Real(), f"{low:.3g} to {high:.3g}"


def _spans_scales(values: np.ndarray) -> bool:
    """Whether values are all above 0, some of them near it and others far."""
    middle = np.median(values)
    return bool(values.min() > 0 and values.max() > 10 * middle and values.min() < 0.1 * middle)
