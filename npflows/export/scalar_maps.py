"""Scalar maps as graphs: y and log dy/dx of values (d,) with raw parameters (d, multiplier), in either direction."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.core.operations import CLIPS, Additive, Affine, Spline
from npflows.export import graph as g
from npflows.export.errors import NotExportableError
from npflows.export.graph import Value

LIMITS = {"float32": 87.0, "float64": 708.0}
"""The largest log-scale: its exponential neither overflows nor vanishes."""


@singledispatch
def scalar_map(
    operation: Any, theta: NDArray, x: Value, raw: Value, dtype: str, places: NDArray[np.int64], *, inverse: bool = False
) -> tuple[Value, Value]:
    """y (d,) and log dy/dx (d,) of x (d,), or of the inverse map; `places` are the numbers of the values among all that the
    map has parameters for."""
    raise NotExportableError(f"a scalar map {type(operation).__name__} can't be exported")


def column(raw: Value, number: int) -> Value:
    """One raw parameter of each value."""
    return g.reshape(g.take(raw, [number]), (g.shape_of(raw)[0],))


@scalar_map.register
def _(
    operation: Additive, theta: NDArray, x: Value, raw: Value, dtype: str, places: NDArray[np.int64], *,
    inverse: bool = False,
) -> tuple[Value, Value]:  # fmt: skip
    shift = column(raw, 0)
    return x - shift if inverse else x + shift, np.zeros(g.shape_of(x))


@scalar_map.register
def _(
    operation: Affine, theta: NDArray, x: Value, raw: Value, dtype: str, places: NDArray[np.int64], *, inverse: bool = False
) -> tuple[Value, Value]:  # fmt: skip
    """y = x exp(s) + t, or y = (x - t) exp(-s) where the shift comes first or the other is inverted."""
    shift, r = column(raw, 0), column(raw, 1)
    if operation.scale_activation == "softplus":
        r = _not_above(g.log(g.softplus(r) + operation.least), operation.most)
    elif operation.scale_activation == "sigmoid" and operation.least:
        r = _not_above(g.log(g.sigmoid(r + operation.sigmoid_offset) + operation.least), operation.most)
    elif operation.scale_activation == "sigmoid":
        r = -g.softplus(-(r + operation.sigmoid_offset))
    elif operation.scale_activation in CLIPS:
        r = _clip(operation, r)
    elif operation.scale_activation == "tanh":
        r = g.tanh(r)
    elif operation.scale_activation == "tanh_gain":
        r = theta[places % len(theta)] * g.tanh(r)
    s = g.clip(r, -LIMITS[dtype], LIMITS[dtype])
    if operation.shift_first == inverse:
        return x * g.exp(s) + shift, s
    return (x - shift) * g.exp(-s), -s


def _not_above(s: Value, most: float) -> Value:
    """s, or the logarithm of the largest scale where there is one and it is less."""
    return s if most == math.inf else g.minimum(s, math.log(most))


def _clip(operation: Affine, r: Value) -> Value:
    """r clipped between -b and b = -log(least), or log(most)."""
    bound = -math.log(operation.least)
    if operation.scale_activation == "hard_clip":
        return g.clip(r, -bound, math.log(operation.most))
    if operation.scale_activation == "tanh_clip":
        return bound * g.tanh(r)
    if operation.scale_activation == "sigmoid_clip":
        return bound * (2.0 * g.sigmoid(r) - 1.0)
    if operation.scale_activation == "atan_clip":
        return operation.atan_factor * bound * g.arctan(r)
    return soft_clip(r, bound)


def soft_clip(r: Value, bound: float) -> Value:
    """r / (1 + |r| / bound)."""
    return r / (1.0 + g.absolute(r) / bound)


@scalar_map.register
def _(
    operation: Spline, theta: NDArray, x: Value, raw: Value, dtype: str, places: NDArray[np.int64], *, inverse: bool = False
) -> tuple[Value, Value]:  # fmt: skip
    """The rational-quadratic spline (Durkan et al. 2019, arXiv:1906.04032, equations 4 to 8); names as in the reference.

    The bin of each value is found as a row of K truth values, with which sums over bins choose.
    """
    k, b, d = operation.num_bins, operation.tail_bound, g.shape_of(x)[0]
    x = x if inverse else _turned(operation, x)
    w = _sizes(operation, g.take(raw, np.arange(k)), operation.min_bin_width)
    h = _sizes(operation, g.take(raw, np.arange(k, 2 * k)), operation.min_bin_height)
    slopes = g.take(raw, np.arange(2 * k, g.shape_of(raw)[1]))
    if operation.least_slope:
        slopes = g.exp(soft_clip(slopes, -math.log(operation.least_slope)))
    else:
        slopes = operation.min_derivative + g.softplus(slopes + operation.derivative_shift)
    d0, d1 = _slopes(operation, slopes, places)
    edges_x, edges_y = g.cumsum(w) - b, g.cumsum(h) - b
    start = np.full((d, 1), -b)
    column = g.reshape(x, (d, 1))
    above = column >= g.take(edges_y if inverse else edges_x, np.arange(k - 1))
    always, never = np.ones((d, 1)), np.zeros((d, 1))
    at_least = g.concat([always, g.where(above, 1.0, 0.0, dtype)])
    beyond = g.concat([g.where(above, 1.0, 0.0, dtype), never])
    chosen = at_least > beyond

    def of_bin(values: Value) -> Value:
        return g.reshape(g.total(g.where(chosen, values, 0.0, dtype)), (d,))

    left = np.arange(k - 1)
    x0, y0 = (of_bin(g.concat([start, g.take(edges, left)])) for edges in (edges_x, edges_y))
    w, h, d0, d1 = of_bin(w), of_bin(h), of_bin(d0), of_bin(d1)
    outside = (x < -b) | (x > b)
    s = h / w
    if inverse:
        xi = solved(g.clip((x - y0) / h, 0.0, 1.0), s, d0, d1)
        result = x0 + w * xi
    else:
        xi = g.clip((x - x0) / w, 0.0, 1.0)
    a, back = xi * (1.0 - xi), 1.0 - xi
    denominator = s + (d0 + d1 - 2.0 * s) * a
    middle = d1 * xi * xi + 2.0 * s * a + d0 * back * back
    if not inverse:
        result = y0 + h * (s * xi * xi + d0 * a) / denominator
    ratio = s / denominator
    log_slope = g.log(middle * ratio * ratio)
    result = g.where(outside, x, g.clip(result, -b, b))
    return _turned(operation, result) if inverse else result, g.where(outside, 0.0, -log_slope if inverse else log_slope)


def _turned(operation: Spline, x: Value) -> Value:
    """(x mod 2 bound) - bound where values are turned, else x."""
    b = operation.tail_bound
    return x - 2 * b * g.floor(x / (2 * b)) - b if operation.turned else x


def solved(eta: Value, s: Value, d0: Value, d1: Value) -> Value:
    """The root of the quadratic equation of a bin, of its two forms the one in which nothing cancels."""
    bend = eta * (d0 + d1 - 2.0 * s)
    qa, qb, qc = s - d0 + bend, d0 - bend, -s * eta
    skew = d0 * (1.0 - eta) - d1 * eta
    root = g.sqrt(skew * skew + 4.0 * s * s * eta * (1.0 - eta))
    negative = qb < 0.0
    one = g.where(negative, (root - qb) / g.where(negative, 2.0 * qa, 1.0), -2.0 * qc / g.where(negative, 1.0, qb + root))
    return g.clip(one, 0.0, 1.0)


def _sizes(operation: Spline, raw: Value, least: float) -> Value:
    """Widths or heights (d, K) of bins."""
    if operation.least_slope:
        raw = soft_clip(raw, -math.log(operation.least_slope) / 2)
    return 2 * operation.tail_bound * shares(raw, operation.num_bins, least)


def shares(raw: Value, n: int, least: float) -> Value:
    """n shares of 1 (d, n), none below the least, by softmax."""
    powers = g.exp(raw - g.highest(raw))
    return least + (1 - n * least) * (powers / g.total(powers))


def _slopes(operation: Spline, slopes: Value, places: NDArray[np.int64]) -> tuple[Value, Value]:
    """The derivatives (d, K) at the left and the right ends of all bins: 1 at both ends of the interval, or for a value on
    a circle one parameter, or two where they are free."""
    k, d = operation.num_bins, len(places)
    if operation.free_ends:
        return g.take(slopes, np.arange(k)), g.take(slopes, np.arange(1, k + 1))
    one, inner = np.ones((d, 1)), np.arange(k - 1)
    left, right = g.concat([one, g.take(slopes, inner)]), g.concat([g.take(slopes, inner), one])
    if not any(operation.circular):
        return left, right
    flags = np.array(operation.circular)
    chosen = np.repeat((flags[places] if len(flags) > 1 else np.full(d, flags[0]))[:, None], k, axis=1)
    turned = g.concat([g.take(slopes, np.arange(1, k)), g.take(slopes, [0])])
    return g.where(chosen, slopes, left), g.where(chosen, turned, right)
