"""Where the columns of a flow live, and maps from there to the line and to the unit cube."""

from __future__ import annotations

import math

import numpy as np

from npflows.core.special import expit, log_expit
from npflows.distribution.transformed import TransformedDistribution
from npflows.support import Real
from npflows.support.groups import groups_of


class Space:
    """Where x lives, column by column: on the whole line, above or below a bound, or between two.

    Parameters
    ----------
    low, high : ndarray (d,)
        The bounds, infinite where there is none.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self.low, self.high = low, high
        self.below, self.above = np.isfinite(low), np.isfinite(high)

    def room(self, x: np.ndarray) -> np.ndarray:
        """The distance of each value (n, d) from its nearer bound."""
        return np.minimum(x - self.low, self.high - x)

    def slope(self, x: np.ndarray) -> np.ndarray:
        """dx/dt (n, d) of each value, t being its place on the line."""
        return np.where(
            self.below & self.above,
            (x - self.low) * (self.high - x) / np.where(self.below & self.above, self.high - self.low, 1.0),
            np.where(self.below | self.above, self.room(x), 1.0),
        )

    def to_unconstrained(self, x: np.ndarray) -> np.ndarray:
        """Numbers on the line (n, d) for x inside, by log and logit."""
        t = x.copy()
        for j, (low, high) in enumerate(zip(self.low, self.high)):
            if self.below[j] and self.above[j]:
                t[:, j] = np.log(x[:, j] - low) - np.log(high - x[:, j])
            elif self.below[j]:
                t[:, j] = np.log(x[:, j] - low)
            elif self.above[j]:
                t[:, j] = -np.log(high - x[:, j])
        return t

    def from_unconstrained(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The way back: x (n, d) and log |dx/dt| (n,)."""
        x, log_slope = t.copy(), np.zeros(len(t))
        for j, (low, high) in enumerate(zip(self.low, self.high)):
            v = t[:, j]
            if self.below[j] and self.above[j]:
                x[:, j] = np.where(v < 0, low + (high - low) * expit(v), high - (high - low) * expit(-v))
                log_slope += math.log(high - low) + log_expit(v) + log_expit(-v)
            elif self.below[j]:
                x[:, j], log_slope = low + np.exp(v), log_slope + v
            elif self.above[j]:
                x[:, j], log_slope = high - np.exp(-v), log_slope - v
        return x, log_slope


class Axes:
    """Maps the unit cube onto a space, column by column: wherever a column goes on forever, its far ends are drawn
    together.  The samples (n, d) say where the middle of each column is and how wide it is."""

    def __init__(self, samples: np.ndarray, space: Space) -> None:
        self.space = space
        first, self.middle, third = np.quantile(samples, (0.25, 0.5, 0.75), axis=0)
        self.width = np.where(third > first, third - first, 1.0)

    def x(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x (n, d) and log |dx/du| (n,) for u (n, d) inside the unit cube."""
        x, log_slope = np.empty_like(u), np.empty_like(u)
        for j, (low, high, w) in enumerate(zip(self.space.low, self.space.high, self.width)):
            v = u[:, j]
            if self.space.below[j] and self.space.above[j]:
                x[:, j], log_slope[:, j] = low + (high - low) * v, math.log(high - low)
            elif self.space.below[j]:
                x[:, j], log_slope[:, j] = low + w * v / (1 - v), math.log(w) - 2 * np.log1p(-v)
            elif self.space.above[j]:
                x[:, j], log_slope[:, j] = high - w * (1 - v) / v, math.log(w) - 2 * np.log(v)
            else:
                angle = math.pi * (v - 0.5)
                x[:, j] = self.middle[j] + w * np.tan(angle)
                log_slope[:, j] = math.log(math.pi * w) - 2 * np.log(np.cos(angle))
        return x, log_slope.sum(axis=1)

    def u(self, x: np.ndarray) -> np.ndarray:
        """The way back."""
        u = np.empty_like(x)
        for j, (low, high, w) in enumerate(zip(self.space.low, self.space.high, self.width)):
            if self.space.below[j] and self.space.above[j]:
                u[:, j] = (x[:, j] - low) / (high - low)
            elif self.space.below[j]:
                u[:, j] = (x[:, j] - low) / (w + x[:, j] - low)
            elif self.space.above[j]:
                u[:, j] = w / (w + high - x[:, j])
            else:
                u[:, j] = np.arctan((x[:, j] - self.middle[j]) / w) / math.pi + 0.5
        return u


class Columns:
    """Where the columns of a flow live, as `flow.support` says.

    Attributes
    ----------
    space, line : Space
        The region to integrate over; the same with circles opened to lines.
    period, latent_period : ndarray (d,)
        Of the columns that lie on circles, on either side; infinite for the others.
    whole : ndarray of bool (d,)
        Which columns hold whole numbers.
    groups : list of (Group, list of int)
        The groups and the numbers of their columns.
    """

    def __init__(self, flow: TransformedDistribution) -> None:
        d = flow.latent_dim
        columns = list(flow.support or [Real()] * d)
        low, high = np.array([column.bounds for column in columns], np.float64).T
        circle = np.array([column.is_periodic for column in columns])
        latent_circle = np.broadcast_to(getattr(flow.base, "periodic", False), (d,))
        self.space = Space(low, high)
        self.line = Space(np.where(circle, -np.inf, self.space.low), np.where(circle, np.inf, self.space.high))
        self.period = np.where(circle, self.space.high - self.space.low, np.inf)
        self.latent_period = np.where(latent_circle, 2 * float(getattr(flow.base, "bound", np.inf)), np.inf)
        self.whole = np.array([column.is_integer for column in columns])
        self.groups = groups_of(columns)

    def outside(self, x: np.ndarray) -> np.ndarray:
        """Which rows (n,) have a value where its column can't have any."""
        room = self.line.room(x)
        outside = np.any(np.where(self.whole, (room < 0) | (x != np.floor(x)), room <= 0), axis=1)
        for group, where in self.groups:
            outside |= (group.room(x[:, where]) <= 0).any(axis=1)
        return outside

    def slope(self, x: np.ndarray) -> np.ndarray:
        """The slope of each value (n, d) as of `line`, or its room in a group where that is less."""
        slope = self.line.slope(x)
        for group, where in self.groups:
            slope[:, where] = np.minimum(slope[:, where], group.room(x[:, where]))
        return slope
