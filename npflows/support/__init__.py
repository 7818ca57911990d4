"""Where columns live: the whole line, half-lines, intervals, circles, whole numbers.

A `Support` is an exact bijection between the users' values and numbers on the line, in float64, in front of a flow: log
for half-lines, logit for intervals, a rotation-invariant interval for circles (Rezende et al. 2020, arXiv:2002.02428).
Whole numbers are the intervals of length 1 above them, in which training and estimates place them at random
(dequantisation; Theis et al. 2016, arXiv:1511.01844).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from npflows.core.checks import as_numeric
from npflows.core.columns import column_number
from npflows.core.configured import Configured
from npflows.core.evaluation import Unconstrained

__all__ = [
    "Column",
    "Integer",
    "Interval",
    "Periodic",
    "Positive",
    "Real",
    "Support",
    "infer",
    "integer",
    "interval",
    "periodic",
    "positive",
    "real",
]

EDGE = 1e-6
"""Whole numbers are not placed closer than this to the ends of their cells."""


class Column(Configured, abstract=True):
    """Where one column lives."""

    is_periodic = False
    is_integer = False

    def to_unconstrained(self, x: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray | float]:
        """t and log dt/dx at x, which lies inside."""
        return x, 0.0

    def from_unconstrained(self, t: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray | float]:
        """x and log dx/dt."""
        return t, 0.0

    def bend(self, x: np.ndarray) -> np.ndarray | float:
        """d log(dt/dx) / dx."""
        return 0.0

    def bend_back(self, t: np.ndarray) -> np.ndarray | float:
        """d log(dx/dt) / dt."""
        return 0.0

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Whether values are inside; NaN is not."""
        return np.isfinite(x)

    def middle(self) -> float:
        """Some value inside."""
        return 0.0


class Real(Column):
    """The whole line."""

    def __init__(self) -> None: ...


class Positive(Column):
    """Values above `lower`."""

    def __init__(self, lower: float = 0.0) -> None:
        self.lower = _finite(lower, "lower")

    def to_unconstrained(self, x: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
        t = np.log(x - self.lower)
        return t, -t

    def from_unconstrained(self, t: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(over="ignore"):
            x = self.lower + np.exp(t)
        return np.clip(x, np.nextafter(self.lower, np.inf), np.finfo(np.float64).max), t

    def bend(self, x: np.ndarray) -> np.ndarray:
        return -1 / (x - self.lower)

    def bend_back(self, t: np.ndarray) -> float:
        return 1.0

    def contains(self, x: np.ndarray) -> np.ndarray:
        return np.isfinite(x) & (x > self.lower)

    def middle(self) -> float:
        return self.lower + 1.0


class Interval(Column):
    """Values between `low` and `high`, neither of which is one."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = _ends(low, high)

    def to_unconstrained(self, x: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
        below, above = np.log(x - self.low), np.log(self.high - x)
        return below - above, math.log(self.high - self.low) - below - above

    def from_unconstrained(self, t: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
        from scipy.special import expit, log_expit

        width = self.high - self.low
        from_low, from_high = self.low + width * expit(t), self.high - width * expit(-t)  # each exact near its own end
        x = np.where(t < 0, from_low, from_high)
        x = np.clip(x, np.nextafter(self.low, self.high), np.nextafter(self.high, self.low))
        return x, math.log(width) + log_expit(t) + log_expit(-t)

    def bend(self, x: np.ndarray) -> np.ndarray:
        return 1 / (self.high - x) - 1 / (x - self.low)

    def bend_back(self, t: np.ndarray) -> np.ndarray:
        return -np.tanh(0.5 * t)

    def contains(self, x: np.ndarray) -> np.ndarray:
        return (x > self.low) & (x < self.high)

    def middle(self) -> float:
        return 0.5 * (self.low + self.high)


class Periodic(Column):
    """Values on a circle: `low` and `high` are the same point, and any value is taken to the one in [low, high)."""

    is_periodic = True

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = _ends(low, high)

    def wrap(self, x: np.ndarray) -> np.ndarray:
        """The value in [low, high)."""
        wrapped = self.low + np.mod(x - self.low, self.high - self.low)
        return np.where(wrapped >= self.high, self.low, wrapped)

    def to_unconstrained(self, x: np.ndarray, bound: float) -> tuple[np.ndarray, float]:
        width = self.high - self.low
        return bound * (2 * (self.wrap(x) - self.low) / width - 1), math.log(2 * bound / width)

    def from_unconstrained(self, t: np.ndarray, bound: float) -> tuple[np.ndarray, float]:
        width = self.high - self.low
        return self.wrap(self.low + width * (t + bound) / (2 * bound)), math.log(width / (2 * bound))

    def middle(self) -> float:
        return 0.5 * (self.low + self.high)


class Integer(Interval):
    """Whole numbers from `low` to `high`, both included."""

    is_integer = True

    def __init__(self, low: int, high: int) -> None:
        a, b = _ends(low, high)
        if a != math.floor(a) or b != math.floor(b):
            raise ValueError(f"integer(low, high) needs whole numbers, got {low!r} and {high!r}")
        self.low, self.high = int(low), int(high)
        self._cells = Interval(self.low, self.high + 1)

    def to_unconstrained(self, x: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
        return self._cells.to_unconstrained(x, bound)

    def from_unconstrained(self, t: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
        return self._cells.from_unconstrained(t, bound)

    def bend(self, x: np.ndarray) -> np.ndarray:
        return self._cells.bend(x)

    def contains(self, x: np.ndarray) -> np.ndarray:
        return self._cells.contains(x)

    def middle(self) -> float:
        return self._cells.middle()


def real() -> Real:
    """The whole line."""
    return Real()


def positive(lower: float = 0.0) -> Positive:
    """Values above `lower`."""
    return Positive(lower)


def interval(low: float, high: float) -> Interval:
    """Values between `low` and `high`, neither of which is one."""
    return Interval(low, high)


def periodic(low: float, high: float) -> Periodic:
    """Values on a circle on which `low` and `high` are the same point, angles for instance."""
    return Periodic(low, high)


def integer(low: int, high: int) -> Integer:
    """Whole numbers from `low` to `high`, both included."""
    return Integer(low, high)


class Support:
    """The columns of a table.

    Parameters
    ----------
    columns : sequence of Column
    bound : float
        Circles become the interval [-bound, bound] on the line.
    """

    def __init__(self, columns: Sequence[Column], bound: float = 1.0) -> None:
        self.columns, self.bound = list(columns), bound
        self.moved = [d for d, column in enumerate(self.columns) if not isinstance(column, Real)]
        self.periodic = np.array([column.is_periodic for column in self.columns])
        self.integer = np.array([column.is_integer for column in self.columns])

    def check(self, x: np.ndarray, name: str) -> None:
        """Refuse what can't be samples; rows outside the support can, their density is 0."""

    def remember(self, dtype: np.dtype) -> None:
        """What the training data come in, which samples of pixels then do too."""

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
        """The gradient with respect to x (n, d), from those with respect to t and log_det of `enter`."""
        dx = np.array(dt)
        for d in self.moved:
            column = self.columns[d]
            value = np.where(column.contains(x[:, d]), x[:, d], column.middle())
            with np.errstate(all="ignore"):
                log_slope = column.to_unconstrained(value, self.bound)[1]
                dx[:, d] = dt[:, d] * np.exp(log_slope) + dlog_det * column.bend(value)
        return dx

    def from_unconstrained_vjp(self, t: np.ndarray, dx: np.ndarray, dlog_det: np.ndarray) -> np.ndarray:
        """The gradient with respect to t (n, d), from those with respect to x and log_det of `leave`."""
        dt = np.array(dx)
        for d in self.moved:
            with np.errstate(all="ignore"):
                log_slope = self.columns[d].from_unconstrained(t[:, d], self.bound)[1]
                dt[:, d] = dx[:, d] * np.exp(log_slope) + dlog_det * self.columns[d].bend_back(t[:, d])
        return dt

    def dequantise(self, x: np.ndarray, place: np.ndarray | float = 0.5) -> np.ndarray:
        """Whole numbers at a place of their cells, from 0 to 1.  What is no whole number becomes infinite, which is
        outside."""
        if not self.has_integers:
            return x
        values = np.array(x, np.float64)
        cells = values[:, self.integer]
        values[:, self.integer] = np.where(np.isfinite(cells) & (cells != np.floor(cells)), np.inf, cells + place)
        return values

    def scatter(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Whole numbers at a random place of their cells, each for itself."""
        return self.dequantise(x, rng.uniform(EDGE, 1 - EDGE, (len(x), int(self.integer.sum()))))

    def places(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n places in a cell (n, integer columns), one in each n-th part of every column's cell."""
        strata = rng.permuted(np.tile(np.arange(n), (int(self.integer.sum()), 1)), axis=1).T
        return np.clip((strata + rng.random(strata.shape)) / n, EDGE, 1 - EDGE)

    def cells(self, x: np.ndarray, n: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """n copies of rows with whole numbers at random places of their cells, the same whatever rows are beside a row."""
        return (self.dequantise(x, place) for place in self.places(n, rng))

    def quantise(self, x: np.ndarray) -> np.ndarray:
        """The whole number of each cell, in place."""
        x[:, self.integer] = np.floor(x[:, self.integer])
        return x

    def outside(self, x: np.ndarray) -> dict[int, int]:
        """How many rows each column has outside, where there are any; what is not finite does not count."""
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


def as_columns(given: object, n: int, names: Sequence[str] | None = None) -> list[Column] | None:
    """One `Column` for each of n, from a list, or a mapping by index or name that leaves the others on the line."""
    if given is None:
        return None
    if isinstance(given, Mapping):
        columns: list[Column] = [Real() for _ in range(n)]
        for key, column in given.items():
            columns[column_number(key, n, names, owner="support", naming="pass columns= to name them")] = column
    elif isinstance(given, Sequence) and not isinstance(given, str):
        columns = list(given)
    else:
        raise TypeError(f"support must be a list of npflows.support columns or a mapping to them, got {given!r}")
    if len(columns) != n or not all(isinstance(column, Column) for column in columns):
        raise ValueError(
            f"support must hold one of npflows.support.real(), positive(), interval(), periodic(), integer() for each of "
            f"the {n} columns, got {given!r}"
        )
    return columns


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


def infer(x: object, columns: Sequence[str] | None = None) -> Inferred:
    """A guess of where each column of a table lives, to look at, correct and pass on as `support=`.

    Columns of whole numbers with at most 100 different values are integers in their range; values that come close to 0
    from above and never reach it, beside others ten times as large, are positive; values within (0, 1) that come close to
    both ends are an interval.  A circle can't be told from an interval: declare it.

    Parameters
    ----------
    x : array_like (n, d)
        NaN is ignored.
    columns : sequence of str, optional
        Names to show; those of a data frame by default.
    """
    names = columns if columns is not None else getattr(x, "columns", None)
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
    if low > 0 and high > 10 * np.median(values) and low < 0.1 * np.median(values):
        return Positive(), f"above 0, of very different sizes: {low:.3g} to {high:.3g}"
    return Real(), f"{low:.3g} to {high:.3g}"


def _finite(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def _ends(low: object, high: object) -> tuple[float, float]:
    a, b = _finite(low, "low"), _finite(high, "high")
    if not a < b:
        raise ValueError(f"low must be below high, got {low!r} and {high!r}")
    return a, b
