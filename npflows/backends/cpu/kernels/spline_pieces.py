"""One bin of a spline of each kind, as numbers.

A bin is w wide and h high, and has the slopes d0 and d1 at its ends; `share` is where a rational-linear one is divided.  At
xi = (x - x0) / w, from 0 to 1, with s = h / w and back = 1 - xi, y - y0 is

    linear (arXiv:1808.03856, section 4.1)            h xi
    quadratic (the same, section 4.2)                 w (d0 xi + (d1 - d0) xi^2 / 2)
    cubic (arXiv:1906.02145, section 3)               w d0 xi back^2 + (3 h - w d1) xi^2 back + h xi^3
    rational-quadratic (arXiv:1906.04032, equation 4) h (s xi^2 + d0 xi back) / (s + (d0 + d1 - 2 s) xi back)
    rational-linear (arXiv:2001.05168, section 3)     H r u / (1 - u + r u), with sizes W and H of its own on each side

Of a rational-linear bin, weights are 1 at its left end, b = sqrt(d0 / d1) at its right one, and
c = (share d0 + (1 - share) d1 b) / s between; r is c on the left and b / c on the right.
"""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.jit import inlined
from npflows.backends.cpu.kernels.newton import MOST_STEPS, newton_step
from npflows.core import operations

RATIONAL_QUADRATIC, LINEAR, QUADRATIC, CUBIC, RATIONAL_LINEAR = map(
    operations.SPLINES.index, ("rational_quadratic", "linear", "quadratic", "cubic", "rational_linear")
)


@inlined(always=True)
def divided(right, w, h, d0, d1, share, one):
    """One side of a rational-linear bin: its width, its height, the ratio r of its weights; b, c, and the share of the
    height that is on the left."""
    b = np.sqrt(d0 / d1)
    c = (share * d0 + (one - share) * d1 * b) * w / h
    total = one - share + share * b
    low = share * b / total
    if right:
        return (one - share) * w, (one - share) / total * h, b / c, b, c, low
    return share * w, low * h, c, b, c, low


@inlined(always=True)
def value_of(kind, xi, w, h, d0, d1, share, one):
    """y - y0, dy/dx, and the derivative of log dy/dx by xi."""
    two = one + one
    s, back = h / w, one - xi
    if kind == LINEAR:
        return h * xi, s, one - one
    if kind == QUADRATIC:
        slope = d0 * back + d1 * xi
        return w * xi * (d0 + slope) / two, slope, (d1 - d0) / slope
    if kind == CUBIC:
        three = two + one
        middle = three * s - d0 - d1
        slope = d0 * back * back + two * middle * xi * back + d1 * xi * xi
        rise = w * d0 * xi * back * back + (three * h - w * d1) * xi * xi * back + h * xi * xi * xi
        return rise, slope, two * (middle * (one - two * xi) - d0 * back + d1 * xi) / slope
    if kind == RATIONAL_LINEAR:
        right = xi > share
        width, height, r, _, _, low = divided(right, w, h, d0, d1, share, one)
        part = one - share if right else share
        u = (xi - share) / part if right else xi / part
        below = one - u + r * u
        base = low * h if right else one - one
        return base + height * r * u / below, height / width * r / (below * below), two * (one - r) / (below * part)
    a, turn, curve = xi * back, one - two * xi, d0 + d1 - two * s
    below, m = s + curve * a, d1 * xi * xi + two * s * a + d0 * back * back
    ratio = s / below
    bend = two * (d1 * xi + s * turn - d0 * back) / m - two * curve * turn / below
    return h * (s * xi * xi + d0 * a) / below, m * ratio * ratio, bend


@inlined(always=True)
def root_of_cubic(eta, a, b, one, rounding):
    """xi of eta = a xi back^2 + (3 - b) xi^2 back + xi^3, which increases from 0 to 1, by Newton's method."""
    two = one + one
    three = two + one
    low, high, xi, last = one - one, one, eta, two + two
    for _ in range(MOST_STEPS):
        back = one - xi
        error = a * xi * back * back + (three - b) * xi * xi * back + xi * xi * xi - eta
        slope = a * back * back + two * (three - a - b) * xi * back + b * xi * xi
        new, low, high = newton_step(xi, error, slope, low, high, last, one)
        last, moved = abs(error), abs(new - xi)
        xi = new
        if moved <= rounding * xi:
            break
    return xi


@inlined
def position_of(kind, rise, w, h, d0, d1, share, one, rounding):
    """xi from y - y0, of two forms of a root the one in which nothing cancels."""
    two, zero = one + one, one - one
    if kind == LINEAR:
        return rise / h
    if kind == QUADRATIC:
        eta = rise / w
        square = d0 * d0 + two * (d1 - d0) * eta
        return two * eta / (d0 + np.sqrt(zero if square < zero else square))
    if kind == CUBIC:
        return root_of_cubic(rise / h, w * d0 / h, w * d1 / h, one, rounding)
    if kind == RATIONAL_LINEAR:
        low = divided(False, w, h, d0, d1, share, one)[1]
        right = rise > low
        _, height, r, _, _, _ = divided(right, w, h, d0, d1, share, one)
        v = (rise - low if right else rise) / height
        u = v / (r * (one - v) + v)
        return share + (one - share) * u if right else share * u
    eta, s = rise / h, h / w
    curve, skew = eta * (d0 + d1 - two * s), d0 * (one - eta) - d1 * eta
    qa, qb, qc = s - d0 + curve, d0 - curve, -s * eta
    root = np.sqrt(skew * skew - two * two * s * qc * (one - eta))
    return (root - qb) / (two * qa) if qb < zero else -two * qc / (qb + root)


@inlined
def gradients_of(kind, xi, w, h, d0, d1, share, dy, dlog, one):
    """Gradients with respect to xi, w, h, d0, d1 and share, each by itself, from those of y - y0 and log dy/dx."""
    two, zero = one + one, one - one
    s, back = h / w, one - xi
    if kind == LINEAR:
        return dy * h, -dlog / w, dy * xi + dlog / h, zero, zero, zero
    if kind == QUADRATIC:
        slope, half = d0 * back + d1 * xi, xi * xi / two
        g_xi = dy * w * slope + dlog * (d1 - d0) / slope
        g_w = dy * xi * (d0 + slope) / two
        return g_xi, g_w, zero, dy * w * (xi - half) + dlog * back / slope, dy * w * half + dlog * xi / slope, zero
    if kind == CUBIC:
        three = two + one
        middle, a = three * s - d0 - d1, xi * back
        slope = d0 * back * back + two * middle * a + d1 * xi * xi
        g_m = dlog / slope
        g_s = g_m * two * three * a
        g_xi = dy * w * slope + g_m * two * (middle * (one - two * xi) - d0 * back + d1 * xi)
        g_w = dy * a * (d0 * back - d1 * xi) - g_s * s / w
        g_h = dy * xi * xi * (three - two * xi) + g_s / w
        g_0 = dy * w * a * back + g_m * back * (one - three * xi)
        return g_xi, g_w, g_h, g_0, g_m * xi * (three * xi - two) - dy * w * a * xi, zero
    if kind == RATIONAL_LINEAR:
        return gradients_of_divided(xi, w, h, d0, d1, share, dy, dlog, one)
    a, turn, curve = xi * back, one - two * xi, d0 + d1 - two * s
    n, below = s * xi * xi + d0 * a, s + curve * a
    g_n, g_m = dy * h / below, dlog / (d1 * xi * xi + two * s * a + d0 * back * back)
    g_d = -g_n * n / below - two * dlog / below
    g_xi = g_n * (two * s * xi + d0 * turn) + g_d * curve * turn + two * g_m * (d1 * xi + s * turn - d0 * back)
    g_s = g_n * xi * xi + g_d * (one - two * a) + two * g_m * a + two * dlog / s
    return (g_xi, -g_s * s / w, g_s / w + dy * n / below, (g_n + g_d) * a + g_m * back * back, g_d * a + g_m * xi * xi,
            zero)  # fmt: skip


@inlined
def gradients_of_divided(xi, w, h, d0, d1, share, dy, dlog, one):
    """The same of a rational-linear bin.

    Of a side with f = r u / below and below = 1 - u + r u, y - y0 is H f, plus the height on the left if it is the right
    one, and log dy/dx is log H - log W + log r - 2 log below.
    """
    two, right = one + one, xi > share
    width, height, r, b, c, low = divided(right, w, h, d0, d1, share, one)
    rest = one - share
    part = rest if right else share
    u = (xi - share) / part if right else xi / part
    below = one - u + r * u
    g_u = dy * height * r / (below * below) - two * dlog * (r - one) / below
    g_r = dy * height * u * (one - u) / (below * below) + dlog * (one / r - two * u / below)
    g_height, g_width = dy * r * u / below + dlog / height, -dlog / width
    g_xi, g_w = g_u / part, g_width * part
    if right:
        g_share = g_u * (u - one) / part - g_width * w
        g_low, g_h = (dy - g_height) * h, g_height * (one - low) + dy * low
        g_b, g_c = g_r / c, -g_r * r / c
    else:
        g_share = g_width * w - g_u * u / part
        g_low, g_h = g_height * h, g_height * low
        g_b, g_c = one - one, g_r
    total = rest + share * b
    g_share += g_low * b / (total * total) + g_c * (d0 - d1 * b) * w / h
    g_b += g_low * share * rest / (total * total) + g_c * rest * d1 * w / h
    g_w += g_c * c / w
    g_h -= g_c * c / h
    g_0 = g_c * share * w / h + g_b * b / (two * d0)
    g_1 = g_c * rest * b * w / h - g_b * b / (two * d1)
    return g_xi, g_w, g_h, g_0, g_1, g_share
