"""Single columns: the whole line, half-lines, intervals, circles, whole numbers, and the maps from there to the line.

The logarithm for half-lines, the logit for intervals, a rotation-invariant interval for circles (Rezende et al. 2020,
arXiv:2002.02428).  Whole numbers are the intervals of length 1 above them.
"""

from __future__ import annotations

import math

import numpy as np

from npflows.core.configured import Configured
from npflows.core.special import expit, log_expit


class Column(Configured, abstract=True):
    """Where one column lives."""

    is_periodic = False
    is_integer = False
    kind = ""
    """What `npflows.core.operations.SupportPart` calls it; nothing for the whole line."""

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

    @property
    def bounds(self) -> tuple[float, float]:
        """The ends between which values lie, infinite where there are none."""
        low, high = (getattr(self, name, None) for name in ("low", "high"))
        low = getattr(self, "lower", None) if low is None else low
        high = getattr(self, "upper", None) if high is None else high
        return -math.inf if low is None else low, math.inf if high is None else high

    @property
    def numbers(self) -> tuple[float, float]:
        """The numbers of its `npflows.core.operations.SupportPart`."""
        return self.bounds

    @property
    def alone(self) -> Column:
        """Where the values live if nothing is known of other columns."""
        return self


class Real(Column):
    """The whole line."""

    def __init__(self) -> None: ...


class Positive(Column):
    """Values above `lower`."""

    kind = "positive"

    def __init__(self, lower: float = 0.0) -> None:
        self.lower = _finite(lower, "lower")

    def to_unconstrained(self, x: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
        """t = log(x - lower), and log dt/dx = -t."""
        t = np.log(x - self.lower)
        return t, -t

    def from_unconstrained(self, t: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
        """x = lower + exp(t), kept above lower and finite, and log dx/dt = t."""
        with np.errstate(over="ignore"):
            x = self.lower + np.exp(t)
        return np.clip(x, np.nextafter(self.lower, np.inf), np.finfo(np.float64).max), t

    def bend(self, x: np.ndarray) -> np.ndarray:
        """d log(dt/dx) / dx = -1 / (x - lower)."""
        return -1 / (x - self.lower)

    def bend_back(self, t: np.ndarray) -> float:
        """d log(dx/dt) / dt = 1."""
        return 1.0

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Whether values are finite and above `lower`."""
        return np.isfinite(x) & (x > self.lower)

    def middle(self) -> float:
        """lower + 1."""
        return self.lower + 1.0


class Below(Column):
    """Values below `upper`."""

    kind = "below"

    def __init__(self, upper: float = 0.0) -> None:
        self.upper = _finite(upper, "upper")

    def to_unconstrained(self, x: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
        """t = -log(upper - x), and log dt/dx = t."""
        t = -np.log(self.upper - x)
        return t, t

    def from_unconstrained(self, t: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
        """x = upper - exp(-t), kept below upper and finite, and log dx/dt = -t."""
        with np.errstate(over="ignore"):
            x = self.upper - np.exp(-t)
        return np.clip(x, np.finfo(np.float64).min, np.nextafter(self.upper, -np.inf)), -t

    def bend(self, x: np.ndarray) -> np.ndarray:
        """d log(dt/dx) / dx = 1 / (upper - x)."""
        return 1 / (self.upper - x)

    def bend_back(self, t: np.ndarray) -> float:
        """d log(dx/dt) / dt = -1."""
        return -1.0

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Whether values are finite and below `upper`."""
        return np.isfinite(x) & (x < self.upper)

    def middle(self) -> float:
        """upper - 1."""
        return self.upper - 1.0


class Interval(Column):
    """Values between `low` and `high`, neither of which is one."""

    kind = "interval"

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = _ends(low, high, "; half-lines are positive(lower) and below(upper)")

    def to_unconstrained(self, x: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
        """t = log((x - low) / (high - x)), and log dt/dx = log((high - low) / ((x - low) (high - x)))."""
        below, above = np.log(x - self.low), np.log(self.high - x)
        return below - above, math.log(self.high - self.low) - below - above

    def from_unconstrained(self, t: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
        """x = low + (high - low) expit(t), kept inside, and log dx/dt."""
        width = self.high - self.low
        from_low, from_high = self.low + width * expit(t), self.high - width * expit(-t)  # each exact near its own end
        x = np.where(t < 0, from_low, from_high)
        x = np.clip(x, np.nextafter(self.low, self.high), np.nextafter(self.high, self.low))
        return x, math.log(width) + log_expit(t) + log_expit(-t)

    def bend(self, x: np.ndarray) -> np.ndarray:
        """d log(dt/dx) / dx = 1 / (high - x) - 1 / (x - low)."""
        return 1 / (self.high - x) - 1 / (x - self.low)

    def bend_back(self, t: np.ndarray) -> np.ndarray:
        """d log(dx/dt) / dt = -tanh(t / 2)."""
        return -np.tanh(0.5 * t)

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Whether values are strictly between the ends."""
        return (x > self.low) & (x < self.high)

    def middle(self) -> float:
        """(low + high) / 2."""
        return 0.5 * (self.low + self.high)


class Periodic(Column):
    """Values on a circle: `low` and `high` are the same point, and any value is taken to the one in [low, high)."""

    is_periodic = True
    kind = "periodic"

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = _ends(low, high)

    def wrap(self, x: np.ndarray) -> np.ndarray:
        """The value in [low, high)."""
        wrapped = self.low + np.mod(x - self.low, self.high - self.low)
        return np.where(wrapped >= self.high, self.low, wrapped)

    def to_unconstrained(self, x: np.ndarray, bound: float) -> tuple[np.ndarray, float]:
        """t in [-bound, bound), in proportion to the wrapped x, and log dt/dx = log(2 bound / (high - low))."""
        width = self.high - self.low
        return bound * (2 * (self.wrap(x) - self.low) / width - 1), math.log(2 * bound / width)

    def from_unconstrained(self, t: np.ndarray, bound: float) -> tuple[np.ndarray, float]:
        """x in [low, high), in proportion to t, and log dx/dt = log((high - low) / (2 bound))."""
        width = self.high - self.low
        return self.wrap(self.low + width * (t + bound) / (2 * bound)), math.log(width / (2 * bound))

    def middle(self) -> float:
        """(low + high) / 2."""
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

    @property
    def numbers(self) -> tuple[float, float]:
        """The ends of the cells."""
        return self._cells.bounds

    def to_unconstrained(self, x: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
        """t and log dt/dx of the interval of length 1 above each number, in which x lies."""
        return self._cells.to_unconstrained(x, bound)

    def from_unconstrained(self, t: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
        """x in [low, high + 1) and log dx/dt."""
        return self._cells.from_unconstrained(t, bound)

    def bend(self, x: np.ndarray) -> np.ndarray:
        """d log(dt/dx) / dx in the interval from low to high + 1."""
        return self._cells.bend(x)

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Whether values are strictly between low and high + 1."""
        return self._cells.contains(x)

    def middle(self) -> float:
        """The middle of the interval from low to high + 1."""
        return self._cells.middle()


def real() -> Real:
    """The whole line."""
    return Real()


def positive(lower: float = 0.0) -> Positive:
    """Values above `lower`."""
    return Positive(lower)


def below(upper: float = 0.0) -> Below:
    """Values below `upper`."""
    return Below(upper)


def interval(low: float, high: float) -> Interval:
    """Values between `low` and `high`, neither of which is one."""
    return Interval(low, high)


def periodic(low: float, high: float) -> Periodic:
    """Values on a circle on which `low` and `high` are the same point, angles for instance."""
    return Periodic(low, high)


def integer(low: int, high: int) -> Integer:
    """Whole numbers from `low` to `high`, both included."""
    return Integer(low, high)


def _finite(value: object, name: str, hint: str = "") -> float:
    """A finite number as float, after a check."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}{hint}")
    return float(value)


def _ends(low: object, high: object, hint: str = "") -> tuple[float, float]:
    """Two finite numbers in rising order, after a check."""
    a, b = _finite(low, "low", hint), _finite(high, "high", hint)
    if not a < b:
        raise ValueError(f"low must be below high, got {low!r} and {high!r}")
    return a, b
