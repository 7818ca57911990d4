"""The bijection between the user's values and the line as a graph, in float64; formulas as in `npflows.support`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npflows.core.operations import SupportPart, Supports
from npflows.export import graph as g
from npflows.export.graph import Value

LARGEST, EPS, SMALLEST = float(np.finfo(np.float64).max), float(np.finfo(np.float64).eps), 5e-324


class OnLine(NamedTuple):
    """Values on the line, the log-determinant (1,), and whether they came from inside the support (1,)."""

    t: Value
    log_det: Value
    inside: Value


def to_line(operation: Supports, x: Value) -> OnLine:
    """From the user's values (d,), whole numbers placed in their cells; a row with NaN counts as inside."""
    values, log_det, outside = x, np.zeros(1), np.zeros(1)
    for part in operation.parts:
        given = g.take(x, part.columns)
        ok = _inside(part, given)
        known = (
            ok | (g.count(g.is_nan(given)) > 0) if len(part.columns) > 1 and part.kind != "pixels" else ok | g.is_nan(given)
        )
        outside = outside + g.count(~known)
        t, more = TO_LINE[part.kind](part, g.where(known, given, _middle(part)), operation.bound)
        values, log_det = _with(values, part.columns, t), log_det + more
    return OnLine(values, log_det, g.node(outside) < 0.5 if isinstance(outside, g.Node) else np.ones(1, bool))


def from_line(operation: Supports, t: Value) -> tuple[Value, Value]:
    """From the line to the user's values, whole numbers somewhere in their cells, with the log-determinant (1,)."""
    values, log_det = t, np.zeros(1)
    for part in operation.parts:
        x, more = FROM_LINE[part.kind](part, g.take(t, part.columns), operation.bound)
        values, log_det = _with(values, part.columns, x), log_det + more
    return values, log_det


def in_cells(operation: Supports, x: Value, places: Value) -> Value:
    """Whole numbers at places (columns of whole numbers,) of their cells; others of their columns are infinite."""
    if not operation.integer:
        return x
    cells = g.take(x, operation.integer)
    broken = g.is_finite(cells) & ~g.apply("equal", cells, g.floor(cells))
    return _with(x, operation.integer, g.where(broken, np.inf, cells + places))


def whole(operation: Supports, x: Value) -> Value:
    """The whole number of each cell."""
    if not operation.integer:
        return x
    cells = g.floor(g.take(x, operation.integer))
    return _with(x, operation.integer, g.clip(cells, 0.0, operation.levels - 1.0) if operation.levels else cells)


def _with(x: Value, columns: tuple[int, ...], values: Value) -> Value:
    n = g.shape_of(x)[0]
    rest = np.setdiff1d(np.arange(n), columns)
    parts = [g.take(x, rest), values] if len(rest) else [values]
    return g.place(g.concat(parts), [*rest, *columns], n)


def _inside(part: SupportPart, x: Value) -> Value:
    """Whether values are inside: each by itself, or all of a group (1,)."""
    low, high = part.numbers
    if part.kind == "positive":
        return (x > low) & g.is_finite(x)
    if part.kind == "below":
        return (x < high) & g.is_finite(x)
    if part.kind == "interval":
        return (x > low) & (x < high)
    if part.kind == "periodic":
        return g.is_finite(x)
    if part.kind == "pixels":
        return (x >= 0.0) & (x <= low)
    if part.kind == "simplex":
        return (g.count(~((x > 0.0) & g.is_finite(x))) < 0.5) & (low - g.total(x) > 0.0)
    k = len(part.columns)
    first, rest = g.take(x, [0]), g.take(x, np.arange(1, k))
    gaps = g.count(~(rest - g.take(x, np.arange(k - 1)) > 0.0)) < 0.5
    return gaps & (first > low) & (g.take(x, [k - 1]) < high) & (g.count(~g.is_finite(x)) < 0.5)


def _middle(part: SupportPart) -> Any:
    """Values that are inside."""
    (low, high), k = part.numbers, len(part.columns)
    if part.kind == "positive":
        return low + 1.0
    if part.kind == "below":
        return high - 1.0
    if part.kind in ("interval", "periodic"):
        return 0.5 * (low + high)
    if part.kind == "pixels":
        return 0.5 * low
    if part.kind == "simplex":
        return np.full(k, low / (k + 1))
    if math.isfinite(low) and math.isfinite(high):
        return low + (high - low) * np.arange(1, k + 1) / (k + 1)
    if math.isfinite(high):
        return high - np.arange(k, 0, -1.0)
    return np.arange(1, k + 1) + (low if math.isfinite(low) else 0.0)


Map = Callable[[SupportPart, Value, float], tuple[Value, Value]]


def _positive(part: SupportPart, x: Value, bound: float) -> tuple[Value, Value]:
    t = g.log(x - part.numbers[0])
    return t, -t


def _from_positive(part: SupportPart, t: Value, bound: float) -> tuple[Value, Value]:
    low = part.numbers[0]
    return g.clip(low + g.exp(t), np.nextafter(low, np.inf), LARGEST), t


def _below(part: SupportPart, x: Value, bound: float) -> tuple[Value, Value]:
    t = -g.log(part.numbers[1] - x)
    return t, t


def _from_below(part: SupportPart, t: Value, bound: float) -> tuple[Value, Value]:
    high = part.numbers[1]
    return g.clip(high - g.exp(-t), -LARGEST, np.nextafter(high, -np.inf)), -t


def _interval(part: SupportPart, x: Value, bound: float) -> tuple[Value, Value]:
    low, high = part.numbers
    below, above = g.log(x - low), g.log(high - x)
    return below - above, math.log(high - low) - below - above


def _from_interval(part: SupportPart, t: Value, bound: float) -> tuple[Value, Value]:
    (low, high), width = part.numbers, part.numbers[1] - part.numbers[0]
    x = g.where(t < 0.0, low + width * g.sigmoid(t), high - width * g.sigmoid(-t))
    log_slope = math.log(width) - g.softplus(-t) - g.softplus(t)
    return g.clip(x, np.nextafter(low, high), np.nextafter(high, low)), log_slope


def _wrapped(part: SupportPart, x: Value) -> Value:
    low, high = part.numbers
    wrapped = low + g.mod(x - low, high - low)
    return g.where(wrapped >= high, low, wrapped)


def _periodic(part: SupportPart, x: Value, bound: float) -> tuple[Value, Value]:
    low, width = part.numbers[0], part.numbers[1] - part.numbers[0]
    return bound * (2.0 * (_wrapped(part, x) - low) / width - 1.0), np.array([math.log(2 * bound / width)])


def _from_periodic(part: SupportPart, t: Value, bound: float) -> tuple[Value, Value]:
    low, width = part.numbers[0], part.numbers[1] - part.numbers[0]
    x = _wrapped(part, low + width * (t + bound) / (2 * bound))
    return x, np.array([math.log(width / (2 * bound))])


def _pixels(part: SupportPart, x: Value, bound: float) -> tuple[Value, Value]:
    levels, alpha = part.numbers
    if not alpha:
        return x, np.zeros(1)
    u = alpha + (1 - 2 * alpha) * (x / levels)
    log_slope = math.log((1 - 2 * alpha) / levels) - g.log(u) - g.log1p(-u)
    return g.log(u) - g.log1p(-u), g.total(log_slope)


def _from_pixels(part: SupportPart, t: Value, bound: float) -> tuple[Value, Value]:
    levels, alpha = part.numbers
    if not alpha:
        return t, np.zeros(1)
    scale = levels / (1 - 2 * alpha)
    return scale * (g.sigmoid(t) - alpha), g.total(math.log(scale) - g.softplus(-t) - g.softplus(t))


def _log_ratios(parts: Value, rest: Value, whole_: float) -> tuple[Value, Value]:
    logs, log_rest = g.log(parts), g.log(rest)
    return logs - log_rest, math.log(whole_) - g.total(logs) - log_rest


def _shares(t: Value) -> tuple[Value, Value]:
    """The shares (k,) of parts whose log-ratios to the rest are t, and that of the rest (1,)."""
    top = g.maximum(g.highest(t), 0.0)
    parts, rest = g.exp(t - top), g.exp(-top)
    together = g.total(parts) + rest
    return parts / together, rest / together


def _log_volume(t: Value, whole_: float) -> Value:
    k, top = g.shape_of(t)[0], g.maximum(g.highest(t), 0.0)
    return k * math.log(whole_) + g.total(t) - (k + 1) * (top + g.log(g.total(g.exp(t - top)) + g.exp(-top)))


def _simplex(part: SupportPart, x: Value, bound: float) -> tuple[Value, Value]:
    return _log_ratios(x, part.numbers[0] - g.total(x), part.numbers[0])


def _from_simplex(part: SupportPart, t: Value, bound: float) -> tuple[Value, Value]:
    whole_, k = part.numbers[0], len(part.columns)
    x = g.maximum(whole_ * _shares(t)[0], SMALLEST)
    full = whole_ - g.total(x) <= 0.0
    return g.where(full, g.maximum(x * (1 - 4 * (k + 1) * EPS), SMALLEST), x), _log_volume(t, whole_)


def _reversed(x: Value) -> Value:
    return g.take(x, np.arange(g.shape_of(x)[0])[::-1])


def _mirrored(part: SupportPart) -> SupportPart:
    """The group that the negative values have, in reversed order."""
    return SupportPart("ordered", part.columns, (-part.numbers[1], math.inf))


def _ordered(part: SupportPart, x: Value, bound: float) -> tuple[Value, Value]:
    (low, high), k = part.numbers, len(part.columns)
    if math.isinf(low) and math.isfinite(high):
        t, log_det = _ordered(_mirrored(part), -_reversed(x), bound)
        return -_reversed(t), log_det
    start = g.take(x, [0]) - (0.0 if math.isinf(low) else low)
    gaps = g.concat([start, g.take(x, np.arange(1, k)) - g.take(x, np.arange(k - 1))])
    if math.isfinite(low) and math.isfinite(high):
        return _log_ratios(gaps, high - g.take(x, [k - 1]), high - low)
    first = int(math.isinf(low))
    t = g.log(g.take(gaps, np.arange(first, k)))
    return g.concat([g.take(x, np.arange(first)), t]), -g.total(t)


def _from_ordered(part: SupportPart, t: Value, bound: float) -> tuple[Value, Value]:
    (low, high), k = part.numbers, len(part.columns)
    if math.isinf(low) and math.isfinite(high):
        x, log_det = _from_ordered(_mirrored(part), -_reversed(t), bound)
        return -_reversed(x), log_det
    if math.isfinite(low) and math.isfinite(high):
        (share, rest), width = _shares(t), high - low
        below = g.cumsum(share)
        above = _reversed(g.cumsum(g.concat([rest, g.take(share, np.arange(k - 1, 0, -1))])))
        x = g.where(below < above, low + width * below, high - width * above)
        return _apart(x, low, high), _log_volume(t, width)
    first = int(math.isinf(low))
    logs = g.take(t, np.arange(first, k))
    x = g.cumsum(g.concat([g.take(t, np.arange(first)), g.exp(logs)])) + (0.0 if math.isinf(low) else low)
    return _apart(x, low, high), g.total(logs)


def _apart(x: Value, low: float, high: float) -> Value:
    """The values with a distance of rounding, at least, between neighbors and from the ends, and finite."""
    k = g.shape_of(x)[0]
    values = [g.take(x, [i]) for i in range(k)]
    for i in range(k):
        least = np.nextafter(low, np.inf) if i == 0 else values[i - 1] + (g.absolute(values[i - 1]) * EPS + SMALLEST)
        values[i] = g.maximum(values[i], least)
    for i in reversed(range(k)):
        most = np.nextafter(high, -np.inf) if i == k - 1 else values[i + 1] - (g.absolute(values[i + 1]) * EPS + SMALLEST)
        values[i] = g.minimum(values[i], most)
    return g.concat(values)


TO_LINE: dict[str, Map] = {
    "positive": _positive,
    "below": _below,
    "interval": _interval,
    "periodic": _periodic,
    "pixels": _pixels,
    "simplex": _simplex,
    "ordered": _ordered,
}
FROM_LINE: dict[str, Map] = {
    "positive": _from_positive,
    "below": _from_below,
    "interval": _from_interval,
    "periodic": _from_periodic,
    "pixels": _from_pixels,
    "simplex": _from_simplex,
    "ordered": _from_ordered,
}
