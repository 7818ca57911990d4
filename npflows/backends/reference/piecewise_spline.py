"""Monotone splines of each kind; `npflows.core.operations.PiecewiseSpline` says what their raw parameters are.

In a bin with the left knot (x0, y0), sizes w and h, and slopes d0 and d1 at its ends, with xi = (x - x0) / w and s = h / w,
y - y0 is

    linear (arXiv:1808.03856, section 4.1)            h xi
    quadratic (the same, section 4.2)                 w (d0 xi + (d1 - d0) xi^2 / 2)
    cubic (arXiv:1906.02145, section 3)               w (d0 xi + (3 s - 2 d0 - d1) xi^2 + (d0 + d1 - 2 s) xi^3)
    rational-quadratic (arXiv:1906.04032, equation 4) h (s xi^2 + d0 xi (1 - xi)) / (s + (d0 + d1 - 2 s) xi (1 - xi))
    rational-linear (arXiv:2001.05168, section 3)     see `_rational_linear`
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.backends.reference.complex_step import register, sigmoid, softmax, softplus
from npflows.core.operations import PiecewiseSpline


class Knots(NamedTuple):
    """All bins of a spline: sizes (..., K), slopes at the knots (..., K + 1), and where rational-linear bins are
    divided."""

    w: NDArray
    h: NDArray
    d: NDArray
    shares: NDArray


class Bin(NamedTuple):
    """The bin of each value."""

    x0: NDArray
    y0: NDArray
    w: NDArray
    h: NDArray
    d0: NDArray
    d1: NDArray
    share: NDArray


def evaluate(operation: PiecewiseSpline, x: NDArray, raw: NDArray) -> tuple[NDArray, NDArray]:
    """y and log dy/dx."""
    b = operation.tail_bound
    below, above = x.real < -b, x.real > b
    inner = np.where(below, -b, np.where(above, b, x))
    bin = find_bin(knots_of(operation, raw), inner, b, by_height=False)
    xi = np.where(above, 1.0, (inner - bin.x0) / bin.w)  # edges are sums, and round
    rise, slope = piece(operation.kind, bin, xi)
    y, log_slope = bin.y0 + rise + slope * (x - inner), np.log(slope)
    if operation.sloped_tails:
        return y, log_slope
    return np.where(below | above, x, y), np.where(below | above, 0.0, log_slope)


def evaluate_inverse(operation: PiecewiseSpline, y: NDArray, raw: NDArray) -> tuple[NDArray, NDArray]:
    """x and log dx/dy; a bin is halved until there is no number between its ends."""
    b = operation.tail_bound
    below, above = y < -b, y > b
    inner = np.where(below, -b, np.where(above, b, y))
    bin = find_bin(knots_of(operation, raw), inner, b, by_height=True)
    xi = bisect(lambda xi: piece(operation.kind, bin, xi)[0], inner - bin.y0, np.zeros_like(y), np.ones_like(y))
    xi = np.where(below, 0.0, np.where(above, 1.0, xi))
    slope = piece(operation.kind, bin, xi)[1]
    x, log_slope = bin.x0 + bin.w * xi + (y - inner) / slope, -np.log(slope)
    if operation.sloped_tails:
        return x, log_slope
    return np.where(below | above, y, x), np.where(below | above, 0.0, log_slope)


def bisect(function, target: NDArray, low: NDArray, high: NDArray) -> NDArray:  # type: ignore[no-untyped-def]
    """Where an increasing function is `target`; NaN where that is NaN."""
    for _ in range(120):
        middle = 0.5 * (low + high)
        beyond = function(middle) > target
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return np.where(np.isnan(target), target, 0.5 * (low + high))


def knots_of(operation: PiecewiseSpline, raw: NDArray) -> Knots:
    """Sizes and slopes from raw parameters."""
    k, length = operation.num_bins, 2 * operation.tail_bound
    blocks = np.split(raw, np.arange(k, raw.shape[-1], k), axis=-1)
    if operation.kind == "linear":
        h = length * (operation.min_bin_height + (1 - k * operation.min_bin_height) * softmax(raw))
        return Knots(np.full_like(h, length / k), h, np.ones((*raw.shape[:-1], k + 1)), np.ones_like(h))
    w = length * (operation.min_bin_width + (1 - k * operation.min_bin_width) * softmax(blocks[0]))
    if operation.kind == "quadratic":
        d = _mean_of_one(operation, w / length, softplus(raw[..., k:]) + operation.least_density)
        return Knots(w, w * (d[..., :-1] + d[..., 1:]) / 2, d, np.ones_like(w))
    h = length * (operation.min_bin_height + (1 - k * operation.min_bin_height) * softmax(blocks[1]))
    n = operation.num_derivatives
    derivatives, rest, least = raw[..., 2 * k : 2 * k + n], raw[..., 2 * k + n :], operation.min_derivative
    if operation.kind == "cubic":
        share = least + (1 - 2 * least) * sigmoid(derivatives + operation.derivative_shift)
        return Knots(w, h, _steffen(w, h / w, 3 * share), np.ones_like(w))
    d = least + softplus(derivatives + operation.derivative_shift)
    one = np.ones((*raw.shape[:-1], 1))
    d = d if operation.free_ends else np.concatenate([one, d, one], axis=-1)
    if operation.kind == "rational_quadratic":
        return Knots(w, h, d, np.ones_like(w))
    return Knots(w, h, d, operation.least_share + (1 - 2 * operation.least_share) * sigmoid(rest))


def _mean_of_one(operation: PiecewiseSpline, w: NDArray, density: NDArray) -> NDArray:
    """Derivatives of a quadratic spline at all knots, for widths that sum to 1: the mean, by the trapezoidal rule, is 1."""
    if not operation.free_ends:
        e = operation.end_weight
        inner = (w[..., 1:-1] * (density[..., :-1] + density[..., 1:])).sum(axis=-1)
        inner = inner + e * (w[..., 0] * density[..., 0] + w[..., -1] * density[..., -1])
        end = (inner / (2 - e * (w[..., 0] + w[..., -1])))[..., None]
        density = np.concatenate([end, density, end], axis=-1)
    mean = (w * (density[..., :-1] + density[..., 1:])).sum(axis=-1, keepdims=True) / 2
    return operation.min_bin_height + (1 - operation.min_bin_height) * density / mean


def _steffen(w: NDArray, s: NDArray, ends: NDArray) -> NDArray:
    """Derivatives at the knots of a cubic spline: shares of the slopes of the first and the last bin, and between the
    smaller of twice the lesser slope and that of the parabola (Steffen 1990, Astronomy and Astrophysics 239, 443)."""
    s0, s1, w0, w1 = s[..., :-1], s[..., 1:], w[..., :-1], w[..., 1:]
    least, middle = 2 * np.where(s0.real < s1.real, s0, s1), (w1 * s0 + w0 * s1) / (w0 + w1)
    inner = np.where(least.real < middle.real, least, middle)
    return np.concatenate([ends[..., :1] * s[..., :1], inner, ends[..., 1:] * s[..., -1:]], axis=-1)


def find_bin(knots: Knots, values: NDArray, bound: float, *, by_height: bool) -> Bin:
    """The bin that holds each value, which is an x, or a y."""
    edges_x, edges_y = (-bound + np.cumsum(sizes, axis=-1) for sizes in (knots.w, knots.h))
    index = (values[..., None].real >= (edges_y if by_height else edges_x)[..., :-1].real).sum(axis=-1)
    index = np.where(values.real >= bound, knots.w.shape[-1] - 1, index)

    def of_bin(array: NDArray) -> NDArray:
        return np.take_along_axis(array, index[..., None], axis=-1)[..., 0]

    start = np.full((*values.shape, 1), -bound)
    return Bin(
        of_bin(np.concatenate([start, edges_x], axis=-1)),
        of_bin(np.concatenate([start, edges_y], axis=-1)),
        of_bin(knots.w),
        of_bin(knots.h),
        of_bin(knots.d[..., :-1]),
        of_bin(knots.d[..., 1:]),
        of_bin(knots.shares),
    )


def piece(kind: str, bin: Bin, xi: NDArray) -> tuple[NDArray, NDArray]:
    """y - y0 and dy/dx."""
    w, h, d0, d1 = bin.w, bin.h, bin.d0, bin.d1
    s, a, back = h / w, xi * (1 - xi), 1 - xi
    if kind == "linear":
        return h * xi, s
    if kind == "quadratic":
        return w * xi * (d0 + (d1 - d0) * xi / 2), d0 * back + d1 * xi
    if kind == "cubic":
        second, third = 3 * s - 2 * d0 - d1, d0 + d1 - 2 * s
        return w * xi * (d0 + second * xi + third * xi**2), d0 * back**2 + 2 * (3 * s - d0 - d1) * a + d1 * xi**2
    if kind == "rational_linear":
        return _rational_linear(bin, xi)
    below = s + (d0 + d1 - 2 * s) * a
    return h * (s * xi**2 + d0 * a) / below, s**2 * (d1 * xi**2 + 2 * s * a + d0 * back**2) / below**2


def _rational_linear(bin: Bin, xi: NDArray) -> tuple[NDArray, NDArray]:
    """Algorithm 1 of arXiv:2001.05168: weights 1 and b at the ends, c where the bin is divided, and the height there."""
    w, h, d0, d1, share = bin.w, bin.h, bin.d0, bin.d1, bin.share
    b = np.sqrt(d0 / d1)
    c = (share * d0 + (1 - share) * b * d1) * w / h
    middle = share * b * h / (1 - share + share * b)
    left = xi.real <= share.real
    above = np.where(left, c * middle * xi, c * middle * (1 - xi) + b * h * (xi - share))
    below = np.where(left, share - xi + c * xi, c * (1 - xi) + b * (xi - share))
    slope = np.where(left, c * share * middle, b * c * (1 - share) * (h - middle)) / (w * below**2)
    return above / below, slope


register(PiecewiseSpline, evaluate, evaluate_inverse)
