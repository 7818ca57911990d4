"""The bijection of a table, column by column, from the user's values to numbers on the line, in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from npflows.core.evaluation import Unconstrained
from npflows.support.columns import Column, Real

EDGE = 1e-6
"""Whole numbers are not placed closer than this to the ends of their cells."""


class Support:
    """The columns of a table.

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
        self.moved = [d for d, column in enumerate(self.columns) if not isinstance(column, Real)]
        self.periodic = np.array([column.is_periodic for column in self.columns])
        self.integer = np.array([column.is_integer for column in self.columns])

    def check(self, x: np.ndarray, name: str) -> None:
        """Refuse values that no sample can have.  Rows outside the support are let through; their density is 0."""

    def remember(self, dtype: np.dtype) -> None:
        """Take note of the dtype of the training data, which samples of `Pixels` have too."""

    def forget(self) -> None:
        """Undo `remember`."""

    @property
    def has_integers(self) -> bool:
        return bool(self.integer.any())

    def to_unconstrained(self, x: np.ndarray) -> Unconstrained:
        """From the user's values (n, d), whole numbers placed in their cells, to the line."""
        t = np.array(x, np.float64)
        log_det, inside = np.zeros(len(t)), np.ones(len(t), bool)
        for d in self.moved:
            column = self.columns[d]
            ok = column.contains(t[:, d])
            if not ok.all():
                inside &= ok | np.isnan(t[:, d])  # NaN stays what it is
                t[:, d] = np.where(ok | np.isnan(t[:, d]), t[:, d], column.middle())
            with np.errstate(all="ignore"):
                t[:, d], more = column.to_unconstrained(t[:, d], self.bound)
                log_det += more
        if not inside.all():
            unknown = np.isnan(t).any(axis=1)
            t[unknown & ~inside] = np.nan
            inside |= unknown
        return Unconstrained(t, log_det, inside)

    def from_unconstrained(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From the line to the user's values, whole numbers somewhere in their cells, with log |det dx/dt|."""
        x, log_det = np.array(t, np.float64), np.zeros(len(t))
        for d in self.moved:
            with np.errstate(all="ignore"):
                x[:, d], more = self.columns[d].from_unconstrained(t[:, d], self.bound)
                log_det += more
        return x, log_det

    def to_unconstrained_vjp(self, x: np.ndarray, dt: np.ndarray, dlog_det: np.ndarray) -> np.ndarray:
        """The gradient with respect to x (n, d), from those with respect to t and log_det of `to_unconstrained`."""
        dx = np.array(dt)
        for d in self.moved:
            column = self.columns[d]
            value = np.where(column.contains(x[:, d]), x[:, d], column.middle())
            with np.errstate(all="ignore"):
                log_slope = column.to_unconstrained(value, self.bound)[1]
                dx[:, d] = dt[:, d] * np.exp(log_slope) + dlog_det * column.bend(value)
        return dx

    def from_unconstrained_vjp(self, t: np.ndarray, dx: np.ndarray, dlog_det: np.ndarray) -> np.ndarray:
        """The gradient with respect to t (n, d), from those with respect to x and log_det of `from_unconstrained`."""
        dt = np.array(dx)
        for d in self.moved:
            with np.errstate(all="ignore"):
                log_slope = self.columns[d].from_unconstrained(t[:, d], self.bound)[1]
                dt[:, d] = dx[:, d] * np.exp(log_slope) + dlog_det * self.columns[d].bend_back(t[:, d])
        return dt

    def dequantize(self, x: np.ndarray, place: np.ndarray | float = 0.5) -> np.ndarray:
        """Whole numbers at a place of their cells, from 0 to 1.  A value that is no whole number becomes
        infinite, which is outside."""
        if not self.has_integers:
            return x
        values = np.array(x, np.float64)
        cells = values[:, self.integer]
        values[:, self.integer] = np.where(np.isfinite(cells) & (cells != np.floor(cells)), np.inf, cells + place)
        return values

    def scatter(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Whole numbers at a random place of their cells, each for itself."""
        return self.dequantize(x, rng.uniform(EDGE, 1 - EDGE, (len(x), int(self.integer.sum()))))

    def places(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n places in a cell (n, integer columns), one in each n-th part of every column's cell."""
        strata = rng.permuted(np.tile(np.arange(n), (int(self.integer.sum()), 1)), axis=1).T
        return np.clip((strata + rng.random(strata.shape)) / n, EDGE, 1 - EDGE)

    def cells(self, x: np.ndarray, n: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """n copies of rows with whole numbers at random places of their cells, the same whatever rows are beside a row."""
        return (self.dequantize(x, place) for place in self.places(n, rng))

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """The whole number of each cell, in place."""
        x[:, self.integer] = np.floor(x[:, self.integer])
        return x

    def outside(self, x: np.ndarray) -> dict[int, int]:
        """How many rows each column has outside, where there are any; NaN and infinity do not count."""
        counts = {}
        for d in self.moved:
            values, column = x[:, d].astype(np.float64), self.columns[d]
            ok = column.contains(values + 0.5 if column.is_integer else values)
            if column.is_integer:
                ok &= values == np.floor(values)
            ok |= ~np.isfinite(values)
            if not ok.all():
                counts[d] = int((~ok).sum())
        return counts
