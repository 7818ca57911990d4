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
def raise_top(row_0, row_1, row_2, row_3, top):
    """top = the largest of it and four rows; where one is NaN, so are the exponentials later."""
    for t in range(top.size):
        largest = top[t]
        for value in (row_0[t], row_1[t], row_2[t], row_3[t]):
            largest = value if value > largest else largest
        top[t] = largest


@inlined(distinct=True)
def exponential(row, top, total):
    """row = exp(row - top), and total += row."""
    for t in range(total.size):
        row[t] = vecmath.exp_of_negative(row[t] - top[t])
        total[t] += row[t]


@inlined(distinct=True)
def four_exponentials(row_0, row_1, row_2, row_3, top, total):
    """The same for four rows."""
    for t in range(total.size):
        largest = top[t]
        a, b = vecmath.exp_of_negative(row_0[t] - largest), vecmath.exp_of_negative(row_1[t] - largest)
        c, d = vecmath.exp_of_negative(row_2[t] - largest), vecmath.exp_of_negative(row_3[t] - largest)
        row_0[t], row_1[t], row_2[t], row_3[t] = a, b, c, d
        total[t] = total[t] + a + b + c + d


@inlined(distinct=True)
def scale_four(row_0, row_1, row_2, row_3, factor):
    """Four rows times a factor."""
    for t in range(factor.size):
        by = factor[t]
        row_0[t], row_1[t], row_2[t], row_3[t] = row_0[t] * by, row_1[t] * by, row_2[t] * by, row_3[t] * by


@inlined(distinct=True)
def search_four(values, first, share_0, share_1, share_2, share_3, knot, size, edge, index, low, least, scale):
    """Go through bins `first` to first + 3, from their left edge on, and leave each value in the last one that it reaches;
    what is below `low`, the left edge of bin 0, is in that."""
    one = edge.dtype.type(1)
    second, third, fourth = first + one, first + one + one, first + one + one + one
    for t in range(index.size):
        value, right, found, length, number = values[t], edge[t], knot[t], size[t], index[t]
        value = value if value > low else low
        for this, share in ((first, share_0[t]), (second, share_1[t]), (third, share_2[t]), (fourth, share_3[t])):
            here, inside = least + scale * share, value >= right
            found, length = (right if inside else found), (here if inside else length)
            number = this if inside else number
            right += here
        edge[t], knot[t], size[t], index[t] = right, found, length, number


@inlined(distinct=True)
def search(values, this, share, knot, size, edge, index, low, least, scale):
    """The same for one bin."""
    for t in range(index.size):
        value, right, found, length, number = values[t], edge[t], knot[t], size[t], index[t]
        value = value if value > low else low
        here, inside = least + scale * share[t], value >= right
        found, length = (right if inside else found), (here if inside else length)
        number = this if inside else number
        edge[t], knot[t], size[t], index[t] = right + here, found, length, number


@inlined(distinct=True)
def follow(
    first, share_0, share_1, share_2, share_3, knot_0, knot_1, knot_2, knot_3, knot_4, knot, size, d0, d1, index, least,
    scale,
):  # fmt: skip
    """Of the same bins, in the other direction: add up the sizes of those before each value's, and keep the size of its own
    and what its two knots have for derivatives."""
    zero, one = knot.dtype.type(0), knot.dtype.type(1)
    for t in range(index.size):
        found, length, left, right, number = knot[t], size[t], d0[t], d1[t], index[t]
        a, b, c, d, e = knot_0[t], knot_1[t], knot_2[t], knot_3[t], knot_4[t]
        this = first
        for share, before, after in ((share_0[t], a, b), (share_1[t], b, c), (share_2[t], c, d), (share_3[t], d, e)):
            here, mine = least + scale * share, this == number
            found += here if this < number else zero
            length = here if mine else length
            left, right = (before if mine else left), (after if mine else right)
            this += one
        knot[t], size[t], d0[t], d1[t] = found, length, left, right


@inlined(distinct=True)
def constrain_ends(d0, d1, index, first, last, shift, least):
    """Derivatives at the two knots from their raw parameters; 1 to the left of bin `first` and to the right of `last`."""
    one = d0.dtype.type(1)
    for t in range(index.size):
        left, right, number = least + vecmath.softplus(d0[t] + shift), least + vecmath.softplus(d1[t] + shift), index[t]
        d0[t], d1[t] = (one if number == first else left), (one if number == last else right)


@inlined(distinct=True)
def forward(x, x0, w, y0, h, d0, d1, bound):
    """x = y in place; the logarithm of dy/dx is left in `w`."""
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
        x[t], w[t] = (value if outside else y), (zero if outside else log_slope)


@inlined(distinct=True)
def inverse(y, x0, w, y0, h, d0, d1, bound):
    """y = x in place, and the logarithm of dy/dx is left in `w`.

    x is the root of qa xi^2 + qb xi + qc = 0, of its two forms the one in which nothing cancels.

    With eta = (y - y0) / h the discriminant is (d0 (1 - eta) - d1 eta)^2 + 4 s^2 eta (1 - eta), which is never negative.
    """
    zero, one, two = y.dtype.type(0), y.dtype.type(1), y.dtype.type(2)
    for t in range(y.size):
        value, width, size, base, sl, sr = y[t], w[t], h[t], x0[t], d0[t], d1[t]
        eta, s = within((value - y0[t]) / size, zero, one), size / width
        curve, e = eta * (sl + sr - two * s), sl * (one - eta) - sr * eta
        qa, qb, qc = s - sl + curve, sl - curve, -s * eta
        root = np.sqrt(e * e - two * two * s * qc * (one - eta))
        falls = qb < zero
        xi = within((root - qb if falls else -two * qc) / (two * qa if falls else qb + root), zero, one)
        a, back = xi * (one - xi), one - xi
        d = s + (sl + sr - two * s) * a
        m = sr * xi * xi + two * s * a + sl * back * back
        ratio = s / d
        log_slope = vecmath.log(m * ratio * ratio)
        x = within(base + width * xi, -bound, bound)
        outside = value < -bound or value > bound
        y[t], w[t] = (value if outside else x), (zero if outside else log_slope)


@inlined(distinct=True)
def forward_vjp(x, dx, dlog_det, x0, w, y0, h, d0, d1, bound, least):
    """dx: dL/dy in, dL/dx out; each row of the bin gives way to its own gradient, those of derivatives to the gradient of
    their raw parameters."""
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
        d0[t] = zero if outside else g_l * (one - vecmath.exp(least - sl))
        d1[t] = zero if outside else g_r * (one - vecmath.exp(least - sr))


@inlined(distinct=True)
def add_mean(share_0, share_1, share_2, share_3, g_knot, g_size, index, mean, first):
    """mean += the shares of bins `first` to first + 3 times the gradients of their sizes: a bin before that of the value
    moves its left knot, and so receives the knot's gradient, the bin itself that of its size."""
    zero, one = mean.dtype.type(0), mean.dtype.type(1)
    for t in range(mean.size):
        number, knot, size, total, this = index[t], g_knot[t], g_size[t], mean[t], first
        for share in (share_0[t], share_1[t], share_2[t], share_3[t]):
            total += share * (knot if number > this else (size if number == this else zero))
            this += one
        mean[t] = total


@inlined(distinct=True)
def leave_softmax(share, g_knot, g_size, index, mean, this, scale):
    """share = the gradient of the raw parameter that it came from."""
    zero = mean.dtype.type(0)
    for t in range(mean.size):
        number, knot, size = index[t], g_knot[t], g_size[t]
        share[t] *= scale * ((knot if number > this else (size if number == this else zero)) - mean[t])


@inlined(distinct=True)
def leave_four(share_0, share_1, share_2, share_3, g_knot, g_size, index, mean, first, scale):
    """The same for bins `first` to first + 3."""
    zero, one = mean.dtype.type(0), mean.dtype.type(1)
    second, third, fourth = first + one, first + one + one, first + one + one + one
    for t in range(mean.size):
        number, knot, size, middle = index[t], g_knot[t], g_size[t], mean[t]
        a, b, c, d = share_0[t], share_1[t], share_2[t], share_3[t]
        share_0[t] = a * (scale * ((knot if number > first else (size if number == first else zero)) - middle))
        share_1[t] = b * (scale * ((knot if number > second else (size if number == second else zero)) - middle))
        share_2[t] = c * (scale * ((knot if number > third else (size if number == third else zero)) - middle))
        share_3[t] = d * (scale * ((knot if number > fourth else (size if number == fourth else zero)) - middle))


@inlined(distinct=True)
def leave_derivative(derivative, g0, g1, index, before, after):
    """derivative = the gradient of the raw parameter of the knot between two bins, from that of each value's two knots."""
    zero = derivative.dtype.type(0)
    for t in range(derivative.size):
        number, left, right = index[t], g0[t], g1[t]
        derivative[t] = (right if number == before else zero) + (left if number == after else zero)


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
