"""The loops over lanes of the rational-quadratic spline, each over rows that do not overlap.

A value's bin is kept in rows: left knot (x0, y0), sizes w and h, derivatives d0 and d1 at its ends, and its number.  With
xi = (x - x0) / w, s = h / w, a = xi (1 - xi)

    N = s xi^2 + d0 a,    D = s + (d0 + d1 - 2 s) a,    M = d1 xi^2 + 2 s a + d0 (1 - xi)^2
    y = y0 + h N / D,    log dy/dx = 2 log s + log M - 2 log D

Everything is read before it is chosen from, as a load that depends on a comparison would keep a loop from being vectorized.
"""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.jit import inlined
from npflows.backends.cpu.kernels import vecmath


@inlined
def within(x, low, high):
    """x, or the end that it lies beyond; in this order of arguments NaN survives."""
    return min(max(x, low), high)


@inlined(distinct=True)
def first_bin(
    width, height, left, right, x0, w, y0, h, d0, d1, edge_x, edge_y, index, bound, least_w, scale_w, least_h, scale_h
):  # fmt: skip
    """Every value is in bin 0, until `next_bin` finds it to the right of its end at edge_x, edge_y."""
    for t in range(index.size):
        size_w, size_h = least_w + scale_w * width[t], least_h + scale_h * height[t]
        x0[t], y0[t] = -bound, -bound
        w[t], h[t], d0[t], d1[t] = size_w, size_h, left[t], right[t]
        edge_x[t], edge_y[t] = size_w - bound, size_h - bound
        index[t] = 0


@inlined(distinct=True)
def next_bin(
    values, by_height, this, width, height, left, right, x0, w, y0, h, d0, d1, edge_x, edge_y, index, least_w, scale_w,
    least_h, scale_h,
):  # fmt: skip
    """Move the values that lie beyond the last edge into bin `this`."""
    for t in range(index.size):
        size_w, size_h = least_w + scale_w * width[t], least_h + scale_h * height[t]
        a, b, sl, sr = edge_x[t], edge_y[t], left[t], right[t]
        a0, w0, b0, h0, l0, r0, i0 = x0[t], w[t], y0[t], h[t], d0[t], d1[t], index[t]
        inside = values[t] >= (b if by_height else a)
        x0[t], y0[t] = (a if inside else a0), (b if inside else b0)
        w[t], h[t] = (size_w if inside else w0), (size_h if inside else h0)
        d0[t], d1[t] = (sl if inside else l0), (sr if inside else r0)
        index[t] = this if inside else i0
        edge_x[t], edge_y[t] = a + size_w, b + size_h


@inlined(distinct=True)
def forward(x, log_det, x0, w, y0, h, d0, d1, bound):
    """x = y in place."""
    zero, one, two = x.dtype.type(0), x.dtype.type(1), x.dtype.type(2)
    for t in range(x.size):
        value, inverse_w, size, base, sl, sr = x[t], one / w[t], h[t], y0[t], d0[t], d1[t]
        xi = within((value - x0[t]) * inverse_w, zero, one)
        s, a, back = size * inverse_w, xi * (one - xi), one - xi
        inverse_d = one / (s + (sl + sr - two * s) * a)
        m = sr * xi * xi + two * s * a + sl * back * back
        ratio = s * inverse_d
        log_slope = vecmath.log(m * ratio * ratio)
        y = within(base + size * (s * xi * xi + sl * a) * inverse_d, -bound, bound)  # edges are sums, and round
        outside = value < -bound or value > bound
        x[t] = value if outside else y
        log_det[t] += zero if outside else log_slope


@inlined(distinct=True)
def inverse(y, log_det, x0, w, y0, h, d0, d1, bound):
    """y = x in place: the root of qa xi^2 + qb xi + qc = 0, of its two forms the one in which nothing cancels.

    With eta = (y - y0) / h the discriminant is (d0 (1 - eta) - d1 eta)^2 + 4 s^2 eta (1 - eta), which is never negative.
    """
    zero, one, two = y.dtype.type(0), y.dtype.type(1), y.dtype.type(2)
    for t in range(y.size):
        value, width, size, base, sl, sr = y[t], w[t], h[t], x0[t], d0[t], d1[t]
        eta, s = within((value - y0[t]) / size, zero, one), size / width
        curve, e = eta * (sl + sr - two * s), sl * (one - eta) - sr * eta
        qa, qb, qc = s - sl + curve, sl - curve, -s * eta
        root = np.sqrt(e * e - two * two * s * qc * (one - eta))
        minus, plus = (root - qb) / (two * qa), -two * qc / (qb + root)
        xi = within(minus if qb < zero else plus, zero, one)
        a, back = xi * (one - xi), one - xi
        d = s + (sl + sr - two * s) * a
        m = sr * xi * xi + two * s * a + sl * back * back
        ratio = s / d
        log_slope = vecmath.log(m * ratio * ratio)
        x = within(base + width * xi, -bound, bound)
        outside = value < -bound or value > bound
        y[t] = value if outside else x
        log_det[t] -= zero if outside else log_slope


@inlined(distinct=True)
def forward_vjp(x, dx, dlog_det, x0, w, y0, h, d0, d1, bound):
    """dx: dL/dy in, dL/dx out; each row of the bin gives way to its own gradient."""
    zero, one, two = x.dtype.type(0), x.dtype.type(1), x.dtype.type(2)
    for t in range(x.size):
        value, dy, dl = x[t], dx[t], dlog_det[t]
        inverse_w, size, sl, sr = one / w[t], h[t], d0[t], d1[t]
        xi = within((value - x0[t]) * inverse_w, zero, one)
        s, a, back, turn = size * inverse_w, xi * (one - xi), one - xi, one - two * xi
        sum_d = sl + sr - two * s
        n, d = s * xi * xi + sl * a, s + sum_d * a
        m = sr * xi * xi + two * s * a + sl * back * back
        inverse_d, dl_m = one / d, dl / m
        quotient = n * inverse_d
        slope = dy * size * inverse_d  # dL/dN, and -quotient times it is dL/dD
        dd = -quotient * slope - two * dl * inverse_d
        g_xi = slope * (two * s * xi + sl * turn) + dd * sum_d * turn + dl_m * two * (sr * xi + s * turn - sl * back)
        g_s = slope * xi * xi + dd * (one - two * a) + dl_m * two * a + two * dl / s
        g_l = (slope + dd) * a + dl_m * back * back
        g_r = dd * a + dl_m * xi * xi
        outside = value < -bound or value > bound
        dx[t] = dy if outside else g_xi * inverse_w
        x0[t] = zero if outside else -g_xi * inverse_w
        w[t] = zero if outside else -(g_xi * xi + g_s * s) * inverse_w
        h[t] = zero if outside else g_s * inverse_w + dy * quotient
        y0[t] = zero if outside else dy
        d0[t] = zero if outside else g_l
        d1[t] = zero if outside else g_r


@inlined(distinct=True)
def add_mean(share, g_knot, g_size, index, mean, this):
    """mean += the share of bin `this` times the gradient of its size: a bin before that of the value moves its left knot,
    and so receives the knot's gradient, the bin itself that of its size."""
    zero = mean.dtype.type(0)
    for t in range(mean.size):
        i, knot, size = index[t], g_knot[t], g_size[t]
        mean[t] += share[t] * (knot if i > this else (size if i == this else zero))


@inlined(distinct=True)
def leave_softmax(share, g_knot, g_size, index, mean, this, scale):
    """share = the gradient of the raw parameter that it came from."""
    zero = mean.dtype.type(0)
    for t in range(mean.size):
        i, knot, size = index[t], g_knot[t], g_size[t]
        share[t] *= scale * ((knot if i > this else (size if i == this else zero)) - mean[t])


@inlined(distinct=True)
def leave_softplus(derivative, g0, g1, index, before, after, least):
    """derivative = the gradient of the raw parameter that it came from, at the knot between two bins."""
    zero, one = derivative.dtype.type(0), derivative.dtype.type(1)
    for t in range(derivative.size):
        i, sl, sr, value = index[t], g0[t], g1[t], derivative[t]
        d = (sr if i == before else zero) + (sl if i == after else zero)
        derivative[t] = d * (one - vecmath.exp(least - value))


@inlined(distinct=True)
def solve(x, dx, dlog_det, x0, w, h, d0, d1, bound):
    """dx = (dx - dlog_det d(log dy/dx)/dx) / (dy/dx)."""
    zero, one, two = x.dtype.type(0), x.dtype.type(1), x.dtype.type(2)
    for t in range(x.size):
        value, inverse_w, sl, sr, given = x[t], one / w[t], d0[t], d1[t], dx[t]
        xi = within((value - x0[t]) * inverse_w, zero, one)
        s, a, back, turn = h[t] * inverse_w, xi * (one - xi), one - xi, one - two * xi
        sum_d = sl + sr - two * s
        d, m = s + sum_d * a, sr * xi * xi + two * s * a + sl * back * back
        bend = two * ((sr * xi + s * turn - sl * back) / m - sum_d * turn / d) * inverse_w
        ratio = s / d
        solved = (given - dlog_det[t] * bend) / (m * ratio * ratio)
        outside = value < -bound or value > bound
        dx[t] = given if outside else solved
