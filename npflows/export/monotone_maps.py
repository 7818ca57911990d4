"""Splines of every kind, Bernstein polynomials and mixtures of logistics as graphs; names as in the reference backend."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.core.operations import Bernstein, LogisticMixture, PiecewiseSpline
from npflows.export import graph as g
from npflows.export.errors import NotExportableError
from npflows.export.graph import Value
from npflows.export.scalar_maps import column, scalar_map, shares, soft_clip, solved


def _by_steps(what: str) -> NotExportableError:
    return NotExportableError(
        f"the inverse of {what} is found by Newton's method in as many steps as it takes, which no file holds; export the "
        f"other direction"
    )


class Bin(NamedTuple):
    """The bin of each value, with xi from 0 to 1."""

    xi: Value
    w: Value
    h: Value
    d0: Value
    d1: Value
    share: Value


@scalar_map.register
def _(
    operation: PiecewiseSpline, theta: NDArray, x: Value, raw: Value, dtype: str, places: NDArray[np.int64], *,
    inverse: bool = False,
) -> tuple[Value, Value]:  # fmt: skip
    """The bin of each value is found as a row of K truth values, with which sums over bins choose."""
    if inverse and operation.kind == "cubic":
        raise _by_steps("cubic splines")
    k, b, d = operation.num_bins, operation.tail_bound, g.shape_of(x)[0]
    w, h, slopes, share = _knots(operation, raw)
    inner = g.clip(x, -b, b)
    edges_x, edges_y = g.cumsum(w) - b, g.cumsum(h) - b
    above = g.reshape(inner, (d, 1)) >= g.take(edges_y if inverse else edges_x, np.arange(k - 1))
    beyond = g.where(above, 1.0, 0.0, dtype)
    chosen = g.concat([np.ones((d, 1)), beyond]) > g.concat([beyond, np.zeros((d, 1))])

    def of_bin(values: Value) -> Value:
        return g.reshape(g.total(g.where(chosen, values, 0.0, dtype)), (d,))

    left = np.arange(k - 1)
    x0, y0 = (of_bin(g.concat([np.full((d, 1), -b), g.take(edges, left)])) for edges in (edges_x, edges_y))
    bin = Bin(np.zeros(d), of_bin(w), of_bin(h), of_bin(g.take(slopes, np.arange(k))),
              of_bin(g.take(slopes, np.arange(1, k + 1))), of_bin(share))  # fmt: skip
    rise = g.maximum(inner - y0, 0.0)
    xi = _position(operation.kind, rise, bin, dtype) if inverse else (inner - x0) / bin.w
    xi = g.where(x >= b, 1.0, g.clip(xi, 0.0, 1.0))
    rise, slope = _piece(operation.kind, bin._replace(xi=xi), dtype)
    rest = (x - inner) / slope if inverse else (x - inner) * slope
    result, log_slope = g.clip(x0 + bin.w * xi if inverse else y0 + rise, -b, b) + rest, g.log(slope)
    log_slope = -log_slope if inverse else log_slope
    if operation.sloped_tails:
        return result, log_slope
    outside = (x < -b) | (x > b)
    return g.where(outside, x, result), g.where(outside, 0.0, log_slope)


def _knots(operation: PiecewiseSpline, raw: Value) -> tuple[Value, Value, Value, Value]:
    """Sizes (d, K), slopes at the knots (d, K + 1) and where bins are divided (d, K)."""
    k, length, d = operation.num_bins, 2 * operation.tail_bound, g.shape_of(raw)[0]
    first, second = g.take(raw, np.arange(k)), np.arange(k, 2 * k)
    ones = np.ones((d, k))
    if operation.kind == "linear":
        return length / k * ones, length * shares(first, k, operation.min_bin_height), np.ones((d, k + 1)), ones
    w = length * shares(first, k, operation.min_bin_width)
    if operation.kind == "quadratic":
        density = g.softplus(g.take(raw, np.arange(k, k + operation.num_derivatives))) + operation.least_density
        slopes = _mean_of_one(operation, w / length, density)
        return w, w * (g.take(slopes, np.arange(k)) + g.take(slopes, np.arange(1, k + 1))) / 2.0, slopes, ones
    h, n = length * shares(g.take(raw, second), k, operation.min_bin_height), operation.num_derivatives
    given = g.take(raw, np.arange(2 * k, 2 * k + n)) + operation.derivative_shift
    if operation.kind == "cubic":
        least = operation.min_derivative
        return w, h, _steffen(w, h / w, 3.0 * (least + (1 - 2 * least) * g.sigmoid(given))), ones
    slopes, one = operation.min_derivative + g.softplus(given), np.ones((d, 1))
    slopes = slopes if operation.free_ends else g.concat([one, slopes, one])
    if operation.kind == "rational_quadratic":
        return w, h, slopes, ones
    divided = g.sigmoid(g.take(raw, np.arange(2 * k + n, 3 * k + n)))
    return w, h, slopes, operation.least_share + (1 - 2 * operation.least_share) * divided


def _mean_of_one(operation: PiecewiseSpline, w: Value, density: Value) -> Value:
    k, e = operation.num_bins, operation.end_weight
    if not operation.free_ends:
        ends = e * (g.take(w, [0]) * g.take(density, [0]) + g.take(w, [k - 1]) * g.take(density, [k - 2]))
        if k > 2:
            pairs = g.take(density, np.arange(k - 2)) + g.take(density, np.arange(1, k - 1))
            ends = ends + g.total(g.take(w, np.arange(1, k - 1)) * pairs)
        end = ends / (2.0 - e * (g.take(w, [0]) + g.take(w, [k - 1])))
        density = g.concat([end, density, end])
    mean = g.total(w * (g.take(density, np.arange(k)) + g.take(density, np.arange(1, k + 1)))) / 2.0
    return operation.min_bin_height + (1 - operation.min_bin_height) * density / mean


def _steffen(w: Value, s: Value, ends: Value) -> Value:
    k = g.shape_of(s)[1]
    before, after = np.arange(k - 1), np.arange(1, k)
    s0, s1, w0, w1 = g.take(s, before), g.take(s, after), g.take(w, before), g.take(w, after)
    inner = g.minimum(2.0 * g.minimum(s0, s1), (w1 * s0 + w0 * s1) / (w0 + w1))
    return g.concat([g.take(ends, [0]) * g.take(s, [0]), inner, g.take(ends, [1]) * g.take(s, [k - 1])])


def _divided(bin: Bin) -> tuple[Value, Value, Value]:
    """Of rational-linear bins the weights b and c, and the share of the height on the left."""
    b = g.sqrt(bin.d0 / bin.d1)
    c = (bin.share * bin.d0 + (1.0 - bin.share) * b * bin.d1) * bin.w / bin.h
    return b, c, bin.share * b / (1.0 - bin.share + bin.share * b)


def _piece(kind: str, bin: Bin, dtype: str) -> tuple[Value, Value]:
    """y - y0 and dy/dx."""
    xi, w, h, d0, d1, share = bin
    s, back = h / w, 1.0 - xi
    a = xi * back
    if kind == "linear":
        return h * xi, s
    if kind == "quadratic":
        slope = d0 * back + d1 * xi
        return w * xi * (d0 + slope) / 2.0, slope
    if kind == "cubic":
        rise = w * d0 * a * back + (3.0 * h - w * d1) * a * xi + h * xi * xi * xi
        return rise, d0 * back * back + 2.0 * (3.0 * s - d0 - d1) * a + d1 * xi * xi
    if kind == "rational_linear":
        b, c, low = _divided(bin)
        right = xi > share
        below = g.where(right, c * back + b * (xi - share), share - xi + c * xi, dtype)
        above = g.where(right, c * low * back + b * (xi - share), c * low * xi, dtype)
        slope = g.where(right, b * c * (1.0 - share) * (1.0 - low), c * share * low, dtype)
        return h * above / below, s * slope / (below * below)
    below = s + (d0 + d1 - 2.0 * s) * a
    ratio = s / below
    return h * (s * xi * xi + d0 * a) / below, (d1 * xi * xi + 2.0 * s * a + d0 * back * back) * ratio * ratio


def _position(kind: str, rise: Value, bin: Bin, dtype: str) -> Value:
    """xi from y - y0."""
    _, w, h, d0, d1, share = bin
    if kind == "linear":
        return rise / h
    if kind == "quadratic":
        eta = rise / w
        return 2.0 * eta / (d0 + g.sqrt(g.maximum(d0 * d0 + 2.0 * (d1 - d0) * eta, 0.0)))
    if kind == "rational_linear":
        b, c, low = _divided(bin)
        v = rise / h
        right = v > low
        part = g.where(right, (v - low) / (1.0 - low), v / low, dtype)
        r = g.where(right, b / c, c, dtype)
        u = part / (r * (1.0 - part) + part)
        return g.where(right, share + (1.0 - share) * u, share * u, dtype)
    return solved(g.clip(rise / h, 0.0, 1.0), h / w, d0, d1)


@scalar_map.register
def _(
    operation: Bernstein, theta: NDArray, x: Value, raw: Value, dtype: str, places: NDArray[np.int64], *,
    inverse: bool = False,
) -> tuple[Value, Value]:  # fmt: skip
    if inverse:
        raise _by_steps("Bernstein polynomials")
    b, n, p, d = operation.tail_bound, operation.degree, operation.num_parameters, g.shape_of(x)[0]
    if operation.bounded:
        first, ends = np.full((d, 1), -b), np.full((d, 2), 2 * b / n)
        increments = g.concat([ends, (2 * b - 8 * b / n) * shares(raw, p, 0.0), ends])
    else:
        inner = g.softplus(g.take(raw, np.arange(1, p)) + operation.increment_shift)
        first = g.take(raw, [0]) - b
        increments = g.concat([g.take(inner, [0]), inner, g.take(inner, [p - 2])])
    coefficients = g.concat([first, first + g.cumsum(increments)])
    inner = g.clip(x, -b, b)
    place = g.reshape(inner + b, (d, 1)) / (2 * b)
    y = g.reshape(g.total(coefficients * _basis(n, place)), (d,))
    slope = g.reshape(g.total(increments * _basis(n - 1, place)), (d,)) * (n / (2 * b))
    y, log_slope = y + slope * (x - inner), g.log(slope)
    if not operation.bounded:
        return y, log_slope
    outside = (x < -b) | (x > b)
    return g.where(outside, x, y), g.where(outside, 0.0, log_slope)


def _basis(n: int, place: Value) -> Value:
    """The n + 1 basis polynomials (d, n + 1) of degree n at X (d, 1)."""
    one, back = np.ones(g.shape_of(place)), 1.0 - place
    powers, rest = [one], [one]
    for _ in range(n):
        powers.append(powers[-1] * place)
        rest.append(rest[-1] * back)
    return g.concat([float(math.comb(n, i)) * powers[i] * rest[n - i] for i in range(n + 1)])


@scalar_map.register
def _(
    operation: LogisticMixture, theta: NDArray, x: Value, raw: Value, dtype: str, places: NDArray[np.int64], *,
    inverse: bool = False,
) -> tuple[Value, Value]:  # fmt: skip
    if inverse:
        raise _by_steps("mixtures of logistics")
    k, d = operation.num_components, g.shape_of(x)[0]
    p, m, s = (g.take(raw, np.arange(2 + j * k, 2 + (j + 1) * k)) for j in range(3))
    shift, a, s = column(raw, 0), soft_clip(column(raw, 1), operation.limit), soft_clip(s, operation.limit)
    z = (g.reshape(x, (d, 1)) - m - np.array(operation.offsets)) * g.exp(-s)
    down, up = g.softplus(-z), g.softplus(z)
    below, above, inside, total = (_log_total(v, d) for v in (p - down, p - up, p - s - down - up, p))
    return (below - above) * g.exp(a) + shift, inside - below - above + total + a


def _log_total(values: Value, d: int) -> Value:
    """log sum_k exp(v_k) (d,)."""
    top = g.highest(values)
    return g.reshape(top + g.log(g.total(g.exp(values - top))), (d,))
