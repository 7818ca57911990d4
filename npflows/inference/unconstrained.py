"""The density of a flow after its bounded columns are mapped to the real line."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from npflows.core.underflow import ignore_underflow
from npflows.distribution.transformed import TransformedDistribution
from npflows.inference.drawing import draw
from npflows.support import Column, Interval, Periodic, Real
from npflows.support.groups import groups_of

PIECE_VALUES = 1 << 16
"""Values of the samples that are drawn at a time, about: few enough for a slow flow to show that it goes on."""


class UnconstrainedDensity:
    """The density of a flow at one condition, in coordinates t that are not bounded.

    Positive columns are mapped by their logarithm, intervals by logit.  Periodic columns are cut open and mapped like
    intervals, or stay periodic.  Integer columns stay what they are.

    Parameters
    ----------
    flow : TransformedDistribution
    condition : ndarray (1, condition_dim) or None
        Where the flow takes one.
    cut : bool
        Whether periodic columns are cut open.
    joint : bool
        Whether groups of columns are mapped as such, so that no coordinates are outside of them.  Then all columns are
        mapped together; else a column of a group is mapped as if it were alone.

    Attributes
    ----------
    columns : list of Column
        Where each column lives.
    integer : ndarray of bool (d,)
        Which columns are integers.
    bijections : list of Column or None
        The bijection to the real line of each column; None where the column stays what it is.
    """

    def __init__(self, flow: TransformedDistribution, condition: np.ndarray | None, cut: bool = True, joint: bool = False
    ) -> None:  # fmt: skip
        self.flow, self.condition = flow, condition
        given: list[Column] = list(flow.support or [Real()] * flow.latent_dim)
        self.columns: list[Column] = [column.alone for column in given]
        self._groups = groups_of(given)
        self._joint = self._groups if joint else []
        self.integer = np.array([column.is_integer for column in self.columns])
        self.bijections = [_bijection(column, cut) for column in self.columns]
        for _, where in self._joint:
            for d in where:
                self.bijections[d] = None

    def to_unconstrained(self, x: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Map values of some columns.

        Parameters
        ----------
        x : ndarray (n, k)
        which : ndarray of int (k,)
            Their columns.

        Returns
        -------
        t, log_slope : ndarray (n, k)
            The coordinates and log dt/dx.
        inside : ndarray of bool (n,)
            Whether the values lie in the support.
        """
        t, log_slope, inside = x.astype(np.float64), np.zeros(x.shape), np.ones(len(x), bool)
        for i, j in enumerate(which):
            column, bijection = self.columns[j], self.bijections[j]
            if isinstance(column, Periodic):
                inside &= np.isfinite(t[:, i])
                ends = np.nextafter(column.low, np.inf), np.nextafter(column.high, -np.inf)
                t[:, i] = np.clip(column.wrap(np.where(inside, t[:, i], column.low)), *ends)
            if bijection is not None:
                ok = bijection.contains(t[:, i])
                with np.errstate(all="ignore"):
                    t[:, i], log_slope[:, i] = bijection.to_unconstrained(np.where(ok, t[:, i], bijection.middle()), 1.0)
                inside &= ok
        for group, where in self._joint:
            values, ok = group.guarded(t[:, where])
            t[:, where], log_slope[:, where[0]] = group.to_unconstrained(values)
            inside &= ok
        return t, log_slope, inside

    def from_unconstrained(self, t: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map coordinates t (n, k) of some columns back: x (n, k) and log dx/dt (n, k)."""
        x, log_slope = t.copy(), np.zeros(t.shape)
        for i, j in enumerate(which):
            column, bijection = self.columns[j], self.bijections[j]
            if bijection is not None:
                with np.errstate(all="ignore"):
                    x[:, i], log_slope[:, i] = bijection.from_unconstrained(t[:, i], 1.0)
            elif isinstance(column, Periodic):
                x[:, i] = column.wrap(t[:, i])
        for group, where in self._joint:
            x[:, where], log_slope[:, where[0]] = group.from_unconstrained(t[:, where])
        return x, log_slope

    def pull_back(self, t: np.ndarray, dx: np.ndarray) -> np.ndarray:
        """The gradient with respect to coordinates t (n, d) of all columns, from that with respect to x."""
        dt = dx * np.exp(self.from_unconstrained(t, np.arange(t.shape[1]))[1])
        for group, where in self._joint:
            dt[:, where] = group.from_unconstrained_vjp(t[:, where], dx[:, where], np.zeros(len(t)))
        return dt

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Whether rows x (n, d) in the units of the data lie in the support, integers at whole numbers."""
        inside = np.ones(len(x), bool)
        for column, values in zip(self.columns, x.T):
            inside &= column.contains(values + 0.5 if column.is_integer else values)  # the middle of the integer's cell
        for group, where in self._groups:
            inside &= group.contains(x[:, where])
        return inside

    @ignore_underflow
    def log_prob(self, t: np.ndarray) -> np.ndarray:
        """Log-density (n,) of t (n, d); -inf where the flow has no density."""
        x, log_slope = self.from_unconstrained(t, np.arange(t.shape[1]))
        log_p = self.flow.log_prob(x, self.condition) + log_slope.sum(axis=1)
        return np.where(np.isnan(log_p), -math.inf, log_p)

    def sample_and_log_prob(
        self, n: int, rng: np.random.Generator, advance: Callable[[int], None] = lambda done: None
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Draw at most n samples t (m, d) and their log-densities (m,); those that are not finite are left out.

        `advance` is called with the number of samples of each piece that was drawn.
        """
        x, log_p = np.empty((n, self.flow.latent_dim)), np.empty(n)
        for piece in draw(self.flow, n, rng, self.condition, PIECE_VALUES):
            x[piece.rows], log_p[piece.rows] = piece.x.reshape(len(piece.x), -1), piece.log_prob
            advance(len(piece.x))
        t, log_slope, _ = self.to_unconstrained(x, np.arange(self.flow.latent_dim))
        log_p = log_p - log_slope.sum(axis=1)
        known = np.isfinite(t).all(axis=1) & np.isfinite(log_p)
        return (t, log_p) if known.all() else (t[known], log_p[known])

    def unrolled(self, t: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Repeat samples half a period beyond both ends of those columns that stay periodic.

        Parameters
        ----------
        t : ndarray (n, d)
        which : ndarray of int (k,)
            The columns along which samples are repeated.

        Returns
        -------
        t : ndarray (m, d)
            The samples and their copies.
        source : ndarray of int (m,)
            The sample that each is, or is a copy of.
        """
        source = np.arange(len(t))
        for j, column in ((j, self.columns[j]) for j in which):
            if not isinstance(column, Periodic) or self.bijections[j] is not None:
                continue
            period, middle = column.high - column.low, column.middle()
            copies = [t.copy(), t, t.copy()]
            copies[0][:, j] -= period
            copies[2][:, j] += period
            t, source = np.concatenate(copies), np.tile(source, 3)
            near = np.abs(t[:, j] - middle) < period
            t, source = t[near], source[near]
        return t, source


def _bijection(column: Column, cut: bool) -> Column | None:
    """The bijection of a column to the real line, None where it stays what it is."""
    if isinstance(column, Periodic):
        return Interval(column.low, column.high) if cut else None
    return None if isinstance(column, Real) or column.is_integer else column
