"""The monotone rational-quadratic spline (Durkan et al. 2019, arXiv:1906.04032, equations 4 to 8).

A bin has the left knot (x0, y0), the sizes w and h, and the derivatives d0 and d1 at its ends.  With xi = (x - x0) / w,
s = h / w and a = xi (1 - xi)

    N = s xi^2 + d0 a,    D = s + (d0 + d1 - 2 s) a,    M = d1 xi^2 + 2 s a + d0 (1 - xi)^2
    y = y0 + h N / D,    dy/dx = s^2 M / D^2

Constrained parameters (n, d, multiplier) are shares of the interval, which sum to 1, for the widths and for the heights of
the bins, and derivatives at the knots.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.backends.reference.common import softplus
from npflows.backends.reference.scalar_maps import (
    MapGradients,
    scalar_map,
    scalar_map_vjp,
    soft_clip,
    soft_clip_derivative,
)
from npflows.core.operations import Spline


class Bin(NamedTuple):
    """The bin of each value, arrays (n, d) all: its number, left knot, sizes, and derivatives at its ends."""

    number: NDArray
    x0: NDArray
    w: NDArray
    y0: NDArray
    h: NDArray
    d0: NDArray
    d1: NDArray


@scalar_map.register
def _(operation: Spline, theta: NDArray, x: NDArray, raw: NDArray, *, inverse: bool = False) -> tuple[NDArray, NDArray]:
    constrained = constrain(operation, clip(operation, raw))
    if not inverse:
        return evaluate(operation, turned(operation, x), constrained)
    result, log_slope = evaluate(operation, x, constrained, inverse=True)
    return turned(operation, result), log_slope


@scalar_map_vjp.register
def _(
    operation: Spline,
    theta: NDArray,
    x: NDArray,
    raw: NDArray,
    dy: NDArray,
    dlog: NDArray,
    *,
    inverse: bool = False,
) -> MapGradients:
    """The gradient of y = f(x; p), or of its inverse x = f^-1(y; p), whose log-slope is -log f'(x; p).

    As f(x; p) = y, changes obey f' x. + (df/dp) p. = y..  Cotangents dx and m of x and of its log-slope therefore give
    dy = -dY, where dY = (-dx - dL d(log f')/dx) / f' and dL = -m, and dp = what f gives for the cotangents dY and dL."""
    constrained = constrain(operation, clip(operation, raw))

    def of_raw(dconstrained: NDArray) -> NDArray:
        return clip_vjp(operation, raw, constrain_vjp(operation, constrained, dconstrained))

    if not inverse:
        dx, dconstrained = evaluate_vjp(operation, turned(operation, x), constrained, dy, dlog)
        return MapGradients(dx, of_raw(dconstrained), np.zeros(0))
    result, log_slope = evaluate(operation, x, constrained, inverse=True)
    bend, _ = evaluate_vjp(operation, result, constrained, np.zeros_like(dy), np.ones_like(dlog))
    solved = (-dy + dlog * bend) * np.exp(log_slope)
    _, dconstrained = evaluate_vjp(operation, result, constrained, solved, -dlog)
    return MapGradients(-solved, of_raw(dconstrained), np.zeros(0))


def turned(operation: Spline, x: NDArray) -> NDArray:
    """(x mod 2 bound) - bound where values are turned, which is its own inverse; else x."""
    b = operation.tail_bound
    return x - 2 * b * np.floor(x / (2 * b)) - b if operation.turned else x


def clip(operation: Spline, raw: NDArray) -> NDArray:
    """Raw parameters as splines without a least slope have them: sizes r / (1 + |2 r| / L) with L = -log(least_slope), and
    log(exp(d) - 1), whose softplus is d, of derivatives d = exp(r / (1 + |r| / L))."""
    if not operation.least_slope:
        return raw
    sizes, derivatives = np.split(raw, [2 * operation.num_bins], axis=-1)
    limit = -math.log(operation.least_slope)
    d = np.exp(soft_clip(derivatives, limit))
    return np.concatenate([soft_clip(sizes, limit / 2), d + np.log(-np.expm1(-d)) - operation.derivative_shift], axis=-1)


def clip_vjp(operation: Spline, raw: NDArray, gradient: NDArray) -> NDArray:
    """The gradient with respect to raw parameters from that with respect to what `clip` makes of them; the derivative of
    log(exp(d) - 1) by log d is d / (1 - exp(-d))."""
    if not operation.least_slope:
        return gradient
    sizes, derivatives = np.split(raw, [2 * operation.num_bins], axis=-1)
    dsizes, dderivatives = np.split(gradient, [2 * operation.num_bins], axis=-1)
    limit = -math.log(operation.least_slope)
    d = np.exp(soft_clip(derivatives, limit))
    dderivatives = dderivatives * d / -np.expm1(-d) * soft_clip_derivative(derivatives, limit)
    return np.concatenate([dsizes * soft_clip_derivative(sizes, limit / 2), dderivatives], axis=-1)


def constrain(operation: Spline, raw: NDArray) -> NDArray:
    """Raw parameters through softmax, for the widths and for the heights, and through softplus."""
    k = operation.num_bins
    widths, heights, derivatives = raw[..., :k], raw[..., k : 2 * k], raw[..., 2 * k :]
    slopes = operation.min_derivative + softplus(derivatives + operation.derivative_shift)
    return np.concatenate([_softmax(widths), _softmax(heights), slopes], axis=-1)


def constrain_vjp(operation: Spline, constrained: NDArray, gradient: NDArray) -> NDArray:
    """The gradient with respect to raw parameters.

    softmax: p_i (g_i - sum_j p_j g_j);  softplus: its derivative at r is sigmoid(r) = 1 - exp(-softplus(r)).
    """
    k = operation.num_bins
    parts = []
    for part in (slice(0, k), slice(k, 2 * k)):
        p, g = constrained[..., part], gradient[..., part]
        parts.append(p * (g - (p * g).sum(axis=-1, keepdims=True)))
    slopes, g = constrained[..., 2 * k :], gradient[..., 2 * k :]
    return np.concatenate([*parts, g * -np.expm1(operation.min_derivative - slopes)], axis=-1)


def evaluate(operation: Spline, x: NDArray, constrained: NDArray, *, inverse: bool = False) -> tuple[NDArray, NDArray]:
    """y (n, d) and log dy/dx (n, d) of x (n, d), or of the inverse."""
    b = operation.tail_bound
    outside = (x < -b) | (x > b)
    bin = find_bin(operation, x, constrained, by_height=inverse)
    if inverse:
        xi = _invert(bin, np.clip((x - bin.y0) / bin.h, 0.0, 1.0))
        result, sign = bin.x0 + bin.w * xi, -1.0
    else:
        xi = np.clip((x - bin.x0) / bin.w, 0.0, 1.0)
        n, d, _ = _polynomials(bin, xi)
        result, sign = bin.y0 + bin.h * n / d, 1.0
    _, d, m = _polynomials(bin, xi)
    log_slope = sign * np.log(m * (bin.h / bin.w / d) ** 2)
    return np.where(outside, x, np.clip(result, -b, b)), np.where(outside, 0.0, log_slope)


def _polynomials(bin: Bin, xi: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """N, D and M at xi."""
    s, a = bin.h / bin.w, xi * (1 - xi)
    return (
        s * xi**2 + bin.d0 * a,
        s + (bin.d0 + bin.d1 - 2 * s) * a,
        bin.d1 * xi**2 + 2 * s * a + bin.d0 * (1 - xi) ** 2,
    )


def _invert(bin: Bin, eta: NDArray) -> NDArray:
    """xi from eta = (y - y0) / h: the root of qa xi^2 + qb xi + qc = 0 (equations 6 to 8), of its two forms the one in
    which nothing cancels.

    The discriminant qb^2 - 4 qa qc is (d0 (1 - eta) - d1 eta)^2 + 4 s^2 eta (1 - eta), which is never negative.
    """
    s = bin.h / bin.w
    curve = eta * (bin.d0 + bin.d1 - 2 * s)
    qa, qb, qc = s - bin.d0 + curve, bin.d0 - curve, -s * eta
    root = np.sqrt((bin.d0 * (1 - eta) - bin.d1 * eta) ** 2 + 4 * s**2 * eta * (1 - eta))
    with np.errstate(all="ignore"):  # the form that is not taken may divide by 0
        xi = np.where(qb < 0, (root - qb) / (2 * qa), -2 * qc / (qb + root))
    return np.clip(xi, 0.0, 1.0)


def evaluate_vjp(
    operation: Spline, x: NDArray, constrained: NDArray, dy: NDArray, dlog: NDArray
) -> tuple[NDArray, NDArray]:  # fmt: skip
    """Gradients with respect to x (n, d) and to the constrained parameters, from those of y and log dy/dx.

    With log dy/dx = 2 log s + log M - 2 log D:  dN = dy h / D,  dD = -dy h N / D^2 - 2 dlog / D,  dM = dlog / M, and then
    by the chain rule, N, D and M being polynomials in xi, s, d0 and d1.
    """
    bin = find_bin(operation, x, constrained, by_height=False)
    w, h, d0, d1 = bin.w, bin.h, bin.d0, bin.d1
    xi = np.clip((x - bin.x0) / w, 0.0, 1.0)
    s, a, back, turn = h / w, xi * (1 - xi), 1 - xi, 1 - 2 * xi
    n, d, m = _polynomials(bin, xi)
    gn, gm = dy * h / d, dlog / m
    gd = -gn * n / d - 2 * dlog / d
    g_xi = gn * (2 * s * xi + d0 * turn) + gd * (d0 + d1 - 2 * s) * turn + 2 * gm * (d1 * xi + s * turn - d0 * back)
    g_s = gn * xi**2 + gd * (1 - 2 * a) + 2 * gm * a + 2 * dlog / s
    gradients = Bin(
        number=bin.number,
        x0=-g_xi / w,
        w=-(g_xi * xi + g_s * s) / w,
        y0=dy,
        h=g_s / w + dy * n / d,
        d0=(gn + gd) * a + gm * back**2,
        d1=gd * a + gm * xi**2,
    )
    outside = (x < -operation.tail_bound) | (x > operation.tail_bound)
    dconstrained = find_bin_vjp(operation, gradients)
    return np.where(outside, dy, g_xi / w), np.where(outside[..., None], 0.0, dconstrained)


def find_bin(operation: Spline, values: NDArray, constrained: NDArray, *, by_height: bool) -> Bin:
    """The bin that holds each value (n, d), which is an x, or a y."""
    k, b = operation.num_bins, operation.tail_bound
    w = 2 * b * (operation.min_bin_width + (1 - k * operation.min_bin_width) * constrained[..., :k])
    h = 2 * b * (operation.min_bin_height + (1 - k * operation.min_bin_height) * constrained[..., k : 2 * k])
    edges_x, edges_y = -b + np.cumsum(w, axis=-1), -b + np.cumsum(h, axis=-1)
    inner = (edges_y if by_height else edges_x)[..., :-1]
    index = (values[..., None] >= inner).sum(axis=-1)

    def of_bin(array: NDArray) -> NDArray:
        return np.take_along_axis(array, index[..., None], axis=-1)[..., 0]

    start = np.full((*values.shape, 1), -b)
    slopes = _slopes(operation, constrained)
    return Bin(
        index,
        of_bin(np.concatenate([start, edges_x], axis=-1)),
        of_bin(w),
        of_bin(np.concatenate([start, edges_y], axis=-1)),
        of_bin(h),
        of_bin(slopes[..., :-1]),
        of_bin(slopes[..., 1:]),
    )


def find_bin_vjp(operation: Spline, gradients: Bin) -> NDArray:
    """The gradient with respect to the constrained parameters from that with respect to what the bin holds: the size of a
    bin moves the left knots of all bins after it."""
    k, b = operation.num_bins, operation.tail_bound
    bins, index = np.arange(k), gradients.number[..., None]
    dw = np.where(bins < index, gradients.x0[..., None], 0.0) + np.where(bins == index, gradients.w[..., None], 0.0)
    dh = np.where(bins < index, gradients.y0[..., None], 0.0) + np.where(bins == index, gradients.h[..., None], 0.0)
    knots = np.arange(k + 1)
    dslopes = np.where(knots == index, gradients.d0[..., None], 0.0)
    dslopes += np.where(knots == index + 1, gradients.d1[..., None], 0.0)
    scale_w, scale_h = (2 * b * (1 - k * least) for least in (operation.min_bin_width, operation.min_bin_height))
    return np.concatenate([scale_w * dw, scale_h * dh, _slopes_vjp(operation, dslopes)], axis=-1)


def _slopes(operation: Spline, constrained: NDArray) -> NDArray:
    """The derivatives (n, d, K + 1) at all knots: at both ends 1 where they are not free, or for a value on a circle one
    parameter."""
    k = operation.num_bins
    derivatives = constrained[..., 2 * k :]
    if operation.free_ends:
        return derivatives
    one = np.ones((*derivatives.shape[:-1], 1))
    on_line = np.concatenate([one, derivatives[..., : k - 1], one], axis=-1)
    if not any(operation.circular):
        return on_line
    on_circle = np.concatenate([derivatives, derivatives[..., :1]], axis=-1)
    return np.where(np.array(operation.circular)[:, None], on_circle, on_line)


def _slopes_vjp(operation: Spline, dslopes: NDArray) -> NDArray:
    """The gradient with respect to the derivatives that are parameters."""
    inner = dslopes[..., 1:-1]
    if operation.free_ends:
        return dslopes
    if not any(operation.circular):
        return inner
    on_line = np.concatenate([inner, np.zeros_like(inner[..., :1])], axis=-1)
    on_circle = np.concatenate([dslopes[..., :1] + dslopes[..., -1:], inner], axis=-1)
    return np.where(np.array(operation.circular)[:, None], on_circle, on_line)


def _softmax(values: NDArray) -> NDArray:
    """exp(v_i) / sum_j exp(v_j) along the last axis."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
