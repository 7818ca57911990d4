"""A flow of columns that are bounded, on circles or whole numbers, as a density of numbers on the line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from npflows.support import Column, Interval, Periodic, Real

if TYPE_CHECKING:
    from npflows.flow import NormalizingFlow


class Line:
    """A flow whose columns all go on forever: positive ones by their logarithm, intervals and circles, which are cut open,
    by logit.  Whole numbers stay as they are, and circles do where they are not to be cut."""

    def __init__(self, flow: NormalizingFlow, context: np.ndarray | None, cut: bool = True) -> None:
        self.flow, self.context = flow, context
        self.columns: list[Column] = list(flow.support or [Real()] * flow.latent_dim)
        self.whole = np.array([column.is_integer for column in self.columns])
        self.bent = [_bent(column, cut) for column in self.columns]

    def to_unconstrained(self, x: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """t (n, k) at these columns' values x (n, k), log dt/dx (n, k), and which rows (n,) lie in the support."""
        t, log_slope, inside = x.astype(np.float64), np.zeros(x.shape), np.ones(len(x), bool)
        for i, j in enumerate(which):
            column, bent = self.columns[j], self.bent[j]
            if isinstance(column, Periodic):
                inside &= np.isfinite(t[:, i])
                ends = np.nextafter(column.low, np.inf), np.nextafter(column.high, -np.inf)
                t[:, i] = np.clip(column.wrap(np.where(inside, t[:, i], column.low)), *ends)
            if bent is not None:
                ok = bent.contains(t[:, i])
                t[:, i], log_slope[:, i] = bent.to_unconstrained(np.where(ok, t[:, i], bent.middle()), 1.0)
                inside &= ok
        return t, log_slope, inside

    def from_unconstrained(self, t: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x (n, k) and log dx/dt (n, k)."""
        x, log_slope = t.copy(), np.zeros(t.shape)
        for i, j in enumerate(which):
            column, bent = self.columns[j], self.bent[j]
            if bent is not None:
                x[:, i], log_slope[:, i] = bent.from_unconstrained(t[:, i], 1.0)
            elif isinstance(column, Periodic):
                x[:, i] = column.wrap(t[:, i])
        return x, log_slope

    def log_density(self, t: np.ndarray) -> np.ndarray:
        """Of t (n, d)."""
        x, log_slope = self.from_unconstrained(t, np.arange(t.shape[1]))
        log_p = self.flow.log_prob(x, self.context) + log_slope.sum(axis=1)
        return np.where(np.isnan(log_p), -math.inf, log_p)

    def beyond(self, t: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Samples with copies of them half a turn beyond both ends of these columns, where they are circles, and whose
        they are."""
        of = np.arange(len(t))
        for j, column in ((j, self.columns[j]) for j in which if self.columns[j].is_periodic and self.bent[j] is None):
            turn, middle = column.high - column.low, column.middle()  # type: ignore[attr-defined]
            moved = [t.copy(), t, t.copy()]
            moved[0][:, j] -= turn
            moved[2][:, j] += turn
            t, of = np.concatenate(moved), np.tile(of, 3)
            near = np.abs(t[:, j] - middle) < turn
            t, of = t[near], of[near]
        return t, of

    def draw(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Samples t (n, d) and their log-densities."""
        x, log_p = self.flow.sample_and_log_prob(n, rng, condition=self.context)
        t, log_slope, _ = self.to_unconstrained(x.reshape(n, -1), np.arange(self.flow.latent_dim))
        log_p = log_p - log_slope.sum(axis=1)
        known = np.isfinite(t).all(axis=1) & np.isfinite(log_p)
        return (t, log_p) if known.all() else (t[known], log_p[known])


def _bent(column: Column, cut: bool) -> Column | None:
    """What takes a column to the line, None where it stays as it is."""
    if isinstance(column, Periodic):
        return Interval(column.low, column.high) if cut else None
    return None if isinstance(column, Real) or column.is_integer else column
