"""Groups of columns that live together: in rising order, or as parts of a whole."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from npflows.core.checks import as_positive
from npflows.support.columns import Below, Column, Interval, Positive, Real

EPS = float(np.finfo(np.float64).eps)


class Group(Column, abstract=True):
    """Several columns with one bijection; each of them is entered as the group.

    Parameters
    ----------
    columns : sequence of int, optional
        The numbers of the columns, in the order that the group has them; a flow sets them.
    """

    columns: list[int] | None

    def __init__(self, columns: Sequence[int] | None) -> None:
        self.columns = None if columns is None else [int(d) for d in columns]

    def of(self, columns: Sequence[int]) -> Group:
        """The same group, of these columns."""
        return type(self)(**{**self.arguments, "columns": list(columns)})

    def to_unconstrained(self, x: np.ndarray, bound: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """t (n, k) and log |det dt/dx| (n,) at x (n, k), which lies inside."""
        raise NotImplementedError

    def from_unconstrained(self, t: np.ndarray, bound: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """x (n, k), kept inside, and log |det dx/dt| (n,)."""
        raise NotImplementedError

    def to_unconstrained_vjp(self, x: np.ndarray, dt: np.ndarray, dlog_det: np.ndarray) -> np.ndarray:
        """The gradient with respect to x (n, k), from those with respect to both results of `to_unconstrained`."""
        raise NotImplementedError

    def from_unconstrained_vjp(self, t: np.ndarray, dx: np.ndarray, dlog_det: np.ndarray) -> np.ndarray:
        """The gradient with respect to t (n, k), from those with respect to both results of `from_unconstrained`."""
        raise NotImplementedError

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Whether rows (n, k) are inside; one with NaN is not."""
        with np.errstate(all="ignore"):
            return np.isfinite(x).all(axis=1) & (self.room(x) > 0).all(axis=1)

    def guarded(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows (n, k), those that are outside moved inside, and which are not outside; one with NaN stays as it is."""
        ok = self.contains(x) | np.isnan(x).any(axis=1)
        return (x if ok.all() else np.where(ok[:, None], x, self.middles(x.shape[1]))), ok

    def room(self, x: np.ndarray) -> np.ndarray:
        """How far each value (n, k) may move alone without leaving the group."""
        raise NotImplementedError

    def middles(self, k: int) -> np.ndarray:
        """Values (k,) that are inside."""
        raise NotImplementedError


class Ordered(Group):
    """Values in rising order, none of them equal, between `lower` and `upper` where these are given.

    The logarithms of the gaps between neighbors are free numbers; with both ends, those of the gaps' ratios to the last.
    """

    kind = "ordered"

    def __init__(
        self, columns: Sequence[int] | None = None, lower: float | None = None, upper: float | None = None
    ) -> None:
        super().__init__(columns)
        self.lower = None if lower is None else Positive(lower).lower
        self.upper = None if upper is None else Below(upper).upper
        if self.lower is not None and self.upper is not None:
            Interval(self.lower, self.upper)

    @property
    def alone(self) -> Column:
        if self.lower is None:
            return Real() if self.upper is None else Below(self.upper)
        return Positive(self.lower) if self.upper is None else Interval(self.lower, self.upper)

    def to_unconstrained(self, x: np.ndarray, bound: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        if self.lower is None and self.upper is not None:
            t, log_det = self._mirrored.to_unconstrained(-x[:, ::-1])
            return -t[:, ::-1], log_det
        gaps = self._gaps(x)
        if self.lower is not None and self.upper is not None:
            return _log_ratios(gaps, self.upper - x[:, -1], self.upper - self.lower)
        first = int(self.lower is None)
        t = np.log(gaps[:, first:])
        return np.concatenate([x[:, :first], t], axis=1), -_total(t)

    def from_unconstrained(self, t: np.ndarray, bound: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        if self.lower is None and self.upper is not None:
            x, log_det = self._mirrored.from_unconstrained(-t[:, ::-1])
            return -x[:, ::-1], log_det
        if self.lower is not None and self.upper is not None:
            (share, rest), log_det = _shares(t), _log_volume(t, self.upper - self.lower)
            below, above = np.cumsum(share, axis=1), np.cumsum(np.column_stack([rest, share[:, :0:-1]]), axis=1)[:, ::-1]
            width = self.upper - self.lower
            x = np.where(below < above, self.lower + width * below, self.upper - width * above)  # exact near either end
            return self._apart(x), log_det
        first = int(self.lower is None)
        with np.errstate(over="ignore"):
            gaps = np.concatenate([t[:, :first], np.exp(t[:, first:])], axis=1)
            x = np.cumsum(gaps, axis=1) + (0.0 if self.lower is None else self.lower)
        return self._apart(x), _total(t[:, first:])

    def to_unconstrained_vjp(self, x: np.ndarray, dt: np.ndarray, dlog_det: np.ndarray) -> np.ndarray:
        if self.lower is None and self.upper is not None:
            return -self._mirrored.to_unconstrained_vjp(-x[:, ::-1], -dt[:, ::-1], dlog_det)[:, ::-1]
        gaps = self._gaps(x)
        if self.lower is not None and self.upper is not None:
            dgaps = _log_ratios_vjp(gaps, self.upper - x[:, -1], dt, dlog_det)
        else:
            first = int(self.lower is None)
            dgaps = np.concatenate([dt[:, :first], (dt[:, first:] - dlog_det[:, None]) / gaps[:, first:]], axis=1)
        return dgaps - np.concatenate([dgaps[:, 1:], np.zeros((len(x), 1))], axis=1)

    def from_unconstrained_vjp(self, t: np.ndarray, dx: np.ndarray, dlog_det: np.ndarray) -> np.ndarray:
        if self.lower is None and self.upper is not None:
            return -self._mirrored.from_unconstrained_vjp(-t[:, ::-1], -dx[:, ::-1], dlog_det)[:, ::-1]
        dgaps = np.cumsum(dx[:, ::-1], axis=1)[:, ::-1]
        if self.lower is not None and self.upper is not None:
            return _shares_vjp(t, self.upper - self.lower, dgaps, dlog_det)
        first = int(self.lower is None)
        return np.concatenate([dgaps[:, :first], dgaps[:, first:] * np.exp(t[:, first:]) + dlog_det[:, None]], axis=1)

    def room(self, x: np.ndarray) -> np.ndarray:
        low, high = self.bounds
        before = np.concatenate([np.full((len(x), 1), low), x[:, :-1]], axis=1)
        after = np.concatenate([x[:, 1:], np.full((len(x), 1), high)], axis=1)
        return np.minimum(x - before, after - x)

    def middles(self, k: int) -> np.ndarray:
        if self.lower is not None and self.upper is not None:
            return self.lower + (self.upper - self.lower) * np.arange(1, k + 1) / (k + 1)
        if self.upper is not None:
            return self.upper - np.arange(k, 0, -1.0)
        return np.arange(1, k + 1) + (0.0 if self.lower is None else self.lower)

    @property
    def _mirrored(self) -> Ordered:
        """The group that the negative values have, in reversed order."""
        assert self.upper is not None
        return Ordered(lower=-self.upper)

    def _gaps(self, x: np.ndarray) -> np.ndarray:
        """The first value, counted from `lower` where there is one, and the gap before each other."""
        return np.concatenate([x[:, :1] - (self.lower or 0.0), np.diff(x, axis=1)], axis=1)

    def _apart(self, x: np.ndarray) -> np.ndarray:
        """The values with at least one number's distance between neighbors and from the ends, and finite."""
        low, high = self.bounds
        for k in range(x.shape[1]):
            x[:, k] = np.maximum(x[:, k], np.nextafter(low if k == 0 else x[:, k - 1], np.inf))
        for k in reversed(range(x.shape[1])):
            x[:, k] = np.minimum(x[:, k], np.nextafter(high if k == x.shape[1] - 1 else x[:, k + 1], -np.inf))
        return x


class Simplex(Group):
    """Positive values with a sum below `total`: the parts of a whole, of which the last is left out.

    A table with all parts has no density, as each is what the others leave; with all but one of them the density is that
    of the whole.  The logarithms of the ratios to the part that is left out are free numbers.
    """

    kind = "simplex"

    def __init__(self, columns: Sequence[int] | None = None, total: float = 1.0) -> None:
        super().__init__(columns)
        self.total = as_positive(total, "total")

    @property
    def alone(self) -> Column:
        return Interval(0.0, self.total)

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, self.total

    @property
    def numbers(self) -> tuple[float, float]:
        return self.total, 0.0

    def to_unconstrained(self, x: np.ndarray, bound: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        return _log_ratios(x, self._rest(x), self.total)

    def from_unconstrained(self, t: np.ndarray, bound: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        x = np.maximum(self.total * _shares(t)[0], np.nextafter(0.0, 1.0))
        full = self._rest(x) <= 0
        if full.any():
            x[full] *= 1 - 4 * (t.shape[1] + 1) * EPS
            x = np.maximum(x, np.nextafter(0.0, 1.0))
        return x, _log_volume(t, self.total)

    def to_unconstrained_vjp(self, x: np.ndarray, dt: np.ndarray, dlog_det: np.ndarray) -> np.ndarray:
        return _log_ratios_vjp(x, self._rest(x), dt, dlog_det)

    def from_unconstrained_vjp(self, t: np.ndarray, dx: np.ndarray, dlog_det: np.ndarray) -> np.ndarray:
        return _shares_vjp(t, self.total, dx, dlog_det)

    def room(self, x: np.ndarray) -> np.ndarray:
        return np.minimum(x, self._rest(x)[:, None])

    def middles(self, k: int) -> np.ndarray:
        return np.full(k, self.total / (k + 1))

    def _rest(self, x: np.ndarray) -> np.ndarray:
        """What the values leave of the total."""
        rest = np.full(len(x), self.total)
        for values in x.T:
            rest = rest - values
        return rest


def groups_of(columns: Sequence[Column]) -> list[tuple[Group, list[int]]]:
    """Each group among the columns of a table once, with the numbers of its columns."""
    return [
        (column, column.columns)
        for d, column in enumerate(columns)
        if isinstance(column, Group) and column.columns is not None and d == column.columns[0]
    ]


def ordered(lower: float | None = None, upper: float | None = None) -> Ordered:
    """Columns in rising order, between `lower` and `upper` where these are given.

    A group of columns: ``{("first", "second"): ordered()}``, or ``[ordered(), ordered(), real()]``, where equal ones are
    one group.  Ties have density 0.
    """
    return Ordered(None, lower, upper)


def simplex(total: float = 1.0) -> Simplex:
    """All but one of the positive parts of a whole, which is `total`; the last part is what the others leave.

    A group of columns, as `ordered` is: ``{("sand", "silt"): simplex()}`` for shares of sand, silt and clay.  Give a flow
    all parts but one, any of them: of all parts there is no density.
    """
    return Simplex(None, total)


def _total(values: np.ndarray) -> np.ndarray:
    """The sum of each row, column by column, whatever the layout in memory."""
    total = np.zeros(len(values))
    for column in values.T:
        total = total + column
    return total


def _log_ratios(parts: np.ndarray, rest: np.ndarray, whole: float) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the ratios of parts (n, k) to the rest (n,) of a whole, with the log-determinant."""
    logs, log_rest = np.log(parts), np.log(rest)
    return logs - log_rest[:, None], math.log(whole) - _total(logs) - log_rest


def _log_ratios_vjp(parts: np.ndarray, rest: np.ndarray, dt: np.ndarray, dlog_det: np.ndarray) -> np.ndarray:
    return (dt - dlog_det[:, None]) / parts + ((_total(dt) + dlog_det) / rest)[:, None]


def _shares(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shares (n, k) of parts whose log-ratios to the rest are t, and that of the rest (n,)."""
    highest = np.maximum(t.max(axis=1), 0.0)
    parts, rest = np.exp(t - highest[:, None]), np.exp(-highest)
    whole = _total(parts) + rest
    return parts / whole[:, None], rest / whole


def _log_volume(t: np.ndarray, whole: float) -> np.ndarray:
    """log |det| of the parts of a whole with respect to their log-ratios."""
    k, highest = t.shape[1], np.maximum(t.max(axis=1), 0.0)
    log_sum = highest + np.log(_total(np.exp(t - highest[:, None])) + np.exp(-highest))
    return k * math.log(whole) + _total(t) - (k + 1) * log_sum


def _shares_vjp(t: np.ndarray, whole: float, dparts: np.ndarray, dlog_det: np.ndarray) -> np.ndarray:
    share, _ = _shares(t)
    along = whole * share * dparts
    return along - share * _total(along)[:, None] + dlog_det[:, None] * (1 - (t.shape[1] + 1) * share)
