"""Cells of whole numbers: the intervals of length 1 that they stand for in every bijection in front of a flow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from npflows.core.evaluation import Unconstrained
from npflows.core.operations import EDGE, Supports
from npflows.support.columns import Column


class CellBijection:
    """An exact map, in float64, between rows of the user's values, whole numbers placed in their cells, and the line.

    Parameters
    ----------
    columns : sequence of Column
    bound : float
        Circles become the interval [-bound, bound] on the line.

    Attributes
    ----------
    columns : list of Column
    periodic, integer : ndarray of bool (d,)
        The columns on circles, and those of whole numbers.
    """

    dtype: np.dtype | None = None
    """The dtype of samples where it is not float64."""

    def __init__(self, columns: Sequence[Column], bound: float = 1.0) -> None:
        self.columns, self.bound = list(columns), bound
        self.periodic = np.array([column.is_periodic for column in self.columns])
        self.integer = np.array([column.is_integer for column in self.columns])
        self._whole = slice(None) if self.integer.all() else self.integer  # the same columns, without a copy

    def operation(self) -> Supports:
        """The bijection as plain data, for backends."""
        raise NotImplementedError

    def to_unconstrained(self, x: np.ndarray) -> Unconstrained:
        """From the user's values (n, d), whole numbers placed in their cells, to the line."""
        raise NotImplementedError

    def from_unconstrained(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From the line to the user's values, whole numbers somewhere in their cells, with log |det dx/dt|."""
        raise NotImplementedError

    def to_unconstrained_vjp(self, x: np.ndarray, dt: np.ndarray, dlog_det: np.ndarray) -> np.ndarray:
        """The gradient with respect to x (n, d), from those with respect to t and log_det of `to_unconstrained`."""
        raise NotImplementedError

    def from_unconstrained_vjp(self, t: np.ndarray, dx: np.ndarray, dlog_det: np.ndarray) -> np.ndarray:
        """The gradient with respect to t (n, d), from those with respect to x and log_det of `from_unconstrained`."""
        raise NotImplementedError

    def outside(self, x: np.ndarray) -> dict[int, int]:
        """How many rows each column has outside, where there are any; NaN and infinity do not count."""
        raise NotImplementedError

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """The whole number of each cell, perhaps in place."""
        raise NotImplementedError

    def check(self, x: np.ndarray, name: str) -> None:
        """Refuse values that no sample can have.  Rows outside the support are let through; their density is 0."""

    def remember(self, dtype: np.dtype) -> None:
        """Take note of the dtype of the training data, where samples have it too."""

    def forget(self) -> None:
        """Undo `remember`."""

    @property
    def integer_columns(self) -> tuple[int, ...]:
        """The numbers of the columns of whole numbers."""
        return tuple(np.flatnonzero(self.integer).tolist())

    @property
    def has_integers(self) -> bool:
        return bool(self.integer.any())

    def dequantize(self, x: np.ndarray, place: np.ndarray | float = 0.5) -> np.ndarray:
        """Whole numbers at a place of their cells, from 0 to 1.  A value that is no whole number becomes
        infinite, which is outside."""
        if not self.has_integers:
            return x
        values = np.array(x, np.float64)
        cells = values[:, self._whole]
        values[:, self._whole] = np.where(np.isfinite(cells) & (cells != np.floor(cells)), np.inf, cells + place)
        return values

    def scatter(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Whole numbers at a random place of their cells, each for itself."""
        return self.dequantize(x, self.random_places(len(x), rng))

    def random_places(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Places in cells (n, integer columns) for n rows, each for itself."""
        return rng.uniform(EDGE, 1 - EDGE, (n, int(self.integer.sum())))

    def places(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n places in a cell (n, integer columns), one in each n-th part of every column's cell."""
        strata = rng.permuted(np.tile(np.arange(n), (int(self.integer.sum()), 1)), axis=1).T
        return np.clip((strata + rng.random(strata.shape)) / n, EDGE, 1 - EDGE)

    def cell_places(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """What `cells` draws: places in a cell (n, integer columns), and keys by which images turn them, or none."""
        return self.places(n, rng), np.zeros(0, np.uint64)

    def cells(self, x: np.ndarray, n: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """n copies of rows with whole numbers at random places of their cells, the same whatever rows are beside a row."""
        return (self.dequantize(x, place) for place in self.places(n, rng))


def with_unknown(t: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Which rows are inside where those with NaN are unknown and not outside: what is outside in them becomes NaN too."""
    if inside.all():
        return inside
    unknown = np.isnan(t).any(axis=1)
    t[unknown & ~inside] = np.nan
    return inside | unknown
