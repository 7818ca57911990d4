"""The bijection of a table, by columns and groups of them, from the user's values to numbers on the line, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npflows.core.evaluation import Unconstrained
from npflows.core.operations import SupportPart, Supports
from npflows.support.cells import CellBijection, with_unknown
from npflows.support.columns import Column, Real
from npflows.support.groups import Group, groups_of


class Support(CellBijection):
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
    groups : list of (Group, list of int)
        The groups and the numbers of their columns.
    """

    def __init__(self, columns: Sequence[Column], bound: float = 1.0) -> None:
        super().__init__(columns, bound)
        self.moved = [d for d, column in enumerate(self.columns) if not isinstance(column, (Real, Group))]
        self.groups = groups_of(self.columns)

    def operation(self) -> Supports:
        """The bijection as plain data, for backends: columns by themselves first, then groups."""
        alone = [SupportPart(self.columns[d].kind, (d,), self.columns[d].numbers) for d in self.moved]
        groups = [SupportPart(group.kind, tuple(where), group.numbers) for group, where in self.groups]
        return Supports(len(self.columns), (*alone, *groups), self.bound, self.integer_columns)

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
        for group, where in self.groups:
            values, ok = group.guarded(t[:, where])
            inside &= ok
            with np.errstate(all="ignore"):
                t[:, where], more = group.to_unconstrained(values, self.bound)
                log_det += more
        return Unconstrained(t, log_det, with_unknown(t, inside))

    def from_unconstrained(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From the line to the user's values, whole numbers somewhere in their cells, with log |det dx/dt|."""
        x, log_det = np.array(t, np.float64), np.zeros(len(t))
        for d in self.moved:
            with np.errstate(all="ignore"):
                x[:, d], more = self.columns[d].from_unconstrained(t[:, d], self.bound)
                log_det += more
        for group, where in self.groups:
            with np.errstate(all="ignore"):
                x[:, where], more = group.from_unconstrained(t[:, where], self.bound)
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
        for group, where in self.groups:
            values, _ = group.guarded(x[:, where].astype(np.float64))
            with np.errstate(all="ignore"):
                dx[:, where] = group.to_unconstrained_vjp(values, dt[:, where], dlog_det)
        return dx

    def from_unconstrained_vjp(self, t: np.ndarray, dx: np.ndarray, dlog_det: np.ndarray) -> np.ndarray:
        """The gradient with respect to t (n, d), from those with respect to x and log_det of `from_unconstrained`."""
        dt = np.array(dx)
        for d in self.moved:
            with np.errstate(all="ignore"):
                log_slope = self.columns[d].from_unconstrained(t[:, d], self.bound)[1]
                dt[:, d] = dx[:, d] * np.exp(log_slope) + dlog_det * self.columns[d].bend_back(t[:, d])
        for group, where in self.groups:
            with np.errstate(all="ignore"):
                dt[:, where] = group.from_unconstrained_vjp(t[:, where], dx[:, where], dlog_det)
        return dt

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
        for group, where in self.groups:
            values = x[:, where].astype(np.float64)
            ok = group.contains(values) | ~np.isfinite(values).all(axis=1)
            if not ok.all():
                counts |= dict.fromkeys(where, int((~ok).sum()))
        return counts
