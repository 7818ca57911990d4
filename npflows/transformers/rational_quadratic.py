"""The monotone rational-quadratic spline (Durkan et al. 2019, arXiv:1906.04032, equations 4 to 8).

On [-B, B] the map is given by K bins; outside it is the identity.  Raw parameters of a value are 3 K - 1 rows: K for the
widths and K for the heights, through softmax, and K - 1 for the derivatives at the inner knots, through softplus; the two
end derivatives are 1, so that the density is continuous.  With xi = (x - x_k) / w, s = h / w, a = xi (1 - xi), in bin k

    N = s xi^2 + d0 a,    D = s + (d0 + d1 - 2 s) a,    M = d1 xi^2 + 2 s a + d0 (1 - xi)^2
    y = y_k + h N / D,    log dy/dx = 2 log s + log M - 2 log D

`forward` and `inverse` leave the softmax probabilities and the derivatives in the raw rows; the vjp reads them there.
All loops run along lanes: a bin is found by comparing and selecting, knot after knot, never by gathering.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from npflows.engine.params import Parameter
from npflows.kernels import vecmath
from npflows.kernels.jit import inlined, kernel
from npflows.validation import as_int, as_positive

# spec: bins, rows of raw parameters of a value, the bits of float64 numbers, then for each value (or for all) whether it
# is on a circle
BINS, MULTIPLIER, BOUND, MIN_WIDTH, MIN_HEIGHT, MIN_DERIVATIVE, SHIFT, N_CIRCULAR, CIRCULAR = range(9)
# rows of scratch: the bin that holds each lane's value, then what the gradient needs
X0, W, Y0, H, D0, D1, INDEX, ONES, EDGE_X, EDGE_Y, SUM, TOP, SCRATCH = range(13)


@inlined
def number(spec, i, like):
    """A float64 that lies in the spec as bits, in the dtype of `like`."""
    return like.dtype.type(spec[i : i + 1].view(np.float64)[0])


@inlined
def is_circular(spec, i):
    """Whether the i-th value is on a circle: 1 or 0."""
    return spec[CIRCULAR + min(i, spec[N_CIRCULAR] - 1)]


@inlined
def rows_of(spec, raw, i):
    """Widths (K, lanes), heights (K, lanes) and derivatives (K - 1, or K on a circle, lanes) of the i-th value."""
    k, first = spec[BINS], i * spec[MULTIPLIER]
    end = first + 3 * k - 1 + is_circular(spec, i)
    return raw[first : first + k], raw[first + k : first + 2 * k], raw[first + 2 * k : end]


@inlined
def knot(spec, derivatives, scratch, k):
    """The row of derivatives at knot k of 0..K."""
    if derivatives.shape[0] == spec[BINS]:
        return derivatives[k % spec[BINS]]
    return scratch[ONES] if k == 0 or k == spec[BINS] else derivatives[k - 1]


@inlined
def softmax(rows, scratch):
    """Softmax over the rows of each lane, in place."""
    top, total = scratch[TOP], scratch[SUM]
    lanes = rows.shape[1]
    for t in range(lanes):
        top[t] = rows[0, t]
        total[t] = 0
    for k in range(1, rows.shape[0]):
        for t in range(lanes):
            top[t] = rows[k, t] if rows[k, t] > top[t] else top[t]
    for k in range(rows.shape[0]):
        for t in range(lanes):
            rows[k, t] = vecmath.exp(rows[k, t] - top[t])
            total[t] += rows[k, t]
    for t in range(lanes):
        total[t] = rows.dtype.type(1) / total[t]
    for k in range(rows.shape[0]):
        for t in range(lanes):
            rows[k, t] *= total[t]


@inlined
def constrain(spec, raw, scratch):
    """Raw parameters of all values in place: probabilities for widths and heights, derivatives."""
    shift, least = number(spec, SHIFT, raw), number(spec, MIN_DERIVATIVE, raw)
    for i in range(raw.shape[0] // spec[MULTIPLIER]):
        widths, heights, derivatives = rows_of(spec, raw, i)
        softmax(widths, scratch)
        softmax(heights, scratch)
        for k in range(derivatives.shape[0]):
            for t in range(raw.shape[1]):
                derivatives[k, t] = least + vecmath.softplus(derivatives[k, t] + shift)


@inlined
def find_bin(spec, values, by_height, raw, i, scratch):
    """Fill scratch with the bin of each lane's value: left knot (X0, Y0), sizes (W, H), derivatives (D0, D1)."""
    widths, heights, derivatives = rows_of(spec, raw, i)
    n_bins, bound = spec[BINS], number(spec, BOUND, raw)
    one, two = raw.dtype.type(1), raw.dtype.type(2)
    least_w, least_h = number(spec, MIN_WIDTH, raw), number(spec, MIN_HEIGHT, raw)
    scale_w = two * bound * (one - raw.dtype.type(n_bins) * least_w)
    scale_h = two * bound * (one - raw.dtype.type(n_bins) * least_h)
    least_w, least_h = two * bound * least_w, two * bound * least_h
    x0, w, y0, h, d0, d1 = scratch[X0], scratch[W], scratch[Y0], scratch[H], scratch[D0], scratch[D1]
    edge_x, edge_y, index = scratch[EDGE_X], scratch[EDGE_Y], scratch[INDEX]
    left, right = knot(spec, derivatives, scratch, 0), knot(spec, derivatives, scratch, 1)
    for t in range(values.size):
        x0[t], y0[t] = -bound, -bound
        w[t], h[t] = least_w + scale_w * widths[0, t], least_h + scale_h * heights[0, t]
        d0[t], d1[t] = left[t], right[t]
        edge_x[t], edge_y[t] = w[t] - bound, h[t] - bound
        index[t] = 0
    for k in range(1, n_bins):
        left, right = right, knot(spec, derivatives, scratch, k + 1)
        this = raw.dtype.type(k)
        for t in range(values.size):
            wk, hk = least_w + scale_w * widths[k, t], least_h + scale_h * heights[k, t]
            inside = values[t] >= (edge_y[t] if by_height else edge_x[t])
            x0[t], y0[t] = (edge_x[t] if inside else x0[t]), (edge_y[t] if inside else y0[t])
            w[t], h[t] = (wk if inside else w[t]), (hk if inside else h[t])
            d0[t], d1[t] = (left[t] if inside else d0[t]), (right[t] if inside else d1[t])
            index[t] = this if inside else index[t]
            edge_x[t] += wk
            edge_y[t] += hk


@inlined
def new_scratch(raw):
    scratch = np.empty((SCRATCH, raw.shape[1]), raw.dtype)
    for t in range(raw.shape[1]):
        scratch[ONES, t] = 1
    return scratch


@inlined
def unit(x):
    """x within [0, 1]; NaN stays NaN."""
    x = x * 0 if x < 0 else x
    return x * 0 + 1 if x > 1 else x


@kernel
def forward(spec, theta, x, raw, log_det):
    scratch = new_scratch(raw)
    constrain(spec, raw, scratch)
    evaluate(spec, x, raw, log_det, scratch)


@inlined
def evaluate(spec, x, raw, log_det, scratch):
    """x = y in place, for constrained parameters."""
    bound = number(spec, BOUND, raw)
    zero, one, two = raw.dtype.type(0), raw.dtype.type(1), raw.dtype.type(2)
    x0, w, y0, h, d0, d1 = scratch[X0], scratch[W], scratch[Y0], scratch[H], scratch[D0], scratch[D1]
    for i in range(x.shape[0]):
        find_bin(spec, x[i], False, raw, i, scratch)
        for t in range(x.shape[1]):
            value = x[i, t]
            xi = unit((value - x0[t]) / w[t])
            s, a, back = h[t] / w[t], xi * (one - xi), one - xi
            n = s * xi * xi + d0[t] * a
            d = s + (d0[t] + d1[t] - two * s) * a
            m = d1[t] * xi * xi + two * s * a + d0[t] * back * back
            ratio = s / d
            outside = value < -bound or value > bound
            x[i, t] = value if outside else y0[t] + h[t] * n / d
            log_det[t] += zero if outside else vecmath.log(m * ratio * ratio)


@kernel
def inverse(spec, theta, x, raw, log_det):
    """The root of a xi^2 + b xi + c = 0 in the form without cancellation, its discriminant kept from below zero."""
    scratch = new_scratch(raw)
    constrain(spec, raw, scratch)
    evaluate_inverse(spec, x, raw, log_det, scratch)


@inlined
def evaluate_inverse(spec, x, raw, log_det, scratch):
    bound = number(spec, BOUND, raw)
    zero, one, two = raw.dtype.type(0), raw.dtype.type(1), raw.dtype.type(2)
    x0, w, y0, h, d0, d1 = scratch[X0], scratch[W], scratch[Y0], scratch[H], scratch[D0], scratch[D1]
    for i in range(x.shape[0]):
        find_bin(spec, x[i], True, raw, i, scratch)
        for t in range(x.shape[1]):
            value = x[i, t]
            eta = unit((value - y0[t]) / h[t])
            s = h[t] / w[t]
            curve = eta * (d0[t] + d1[t] - two * s)
            qa, qb, qc = s - d0[t] + curve, d0[t] - curve, -s * eta
            q = qb * qb - two * two * qa * qc
            q = q * zero if q < zero else q
            xi = unit(-two * qc / (qb + np.sqrt(q)))
            a, back = xi * (one - xi), one - xi
            d = s + (d0[t] + d1[t] - two * s) * a
            m = d1[t] * xi * xi + two * s * a + d0[t] * back * back
            ratio = s / d
            outside = value < -bound or value > bound
            x[i, t] = value if outside else x0[t] + w[t] * xi
            log_det[t] -= zero if outside else vecmath.log(m * ratio * ratio)


@kernel
def forward_vjp(spec, theta, x, raw, dx, dlog_det, dtheta):
    """dx: dL/dy in, dL/dx out; raw: constrained parameters in, gradient of the raw ones out."""
    scratch = new_scratch(raw)
    n_bins, bound = spec[BINS], number(spec, BOUND, raw)
    zero, one, two = raw.dtype.type(0), raw.dtype.type(1), raw.dtype.type(2)
    least_w, least_h = number(spec, MIN_WIDTH, raw), number(spec, MIN_HEIGHT, raw)
    scale_w = two * bound * (one - raw.dtype.type(n_bins) * least_w)
    scale_h = two * bound * (one - raw.dtype.type(n_bins) * least_h)
    x0, w, y0, h, d0, d1 = scratch[X0], scratch[W], scratch[Y0], scratch[H], scratch[D0], scratch[D1]
    for i in range(x.shape[0]):
        find_bin(spec, x[i], False, raw, i, scratch)
        # each row of the bin gives way to its own gradient
        for t in range(x.shape[1]):
            value, dy, dl = x[i, t], dx[i, t], dlog_det[t]
            left, inverse_w = x0[t], one / w[t]
            xi = unit((value - left) * inverse_w)
            s, a, back, turn = h[t] * inverse_w, xi * (one - xi), one - xi, one - two * xi
            sum_d = d0[t] + d1[t] - two * s
            n, d = s * xi * xi + d0[t] * a, s + sum_d * a
            m = d1[t] * xi * xi + two * s * a + d0[t] * back * back
            inverse_d, dl_m = one / d, dl / m
            quotient = n * inverse_d
            slope = dy * h[t] * inverse_d  # dL/dN, and -quotient times it is dL/dD
            dd = -quotient * slope - two * dl * inverse_d
            g_xi = slope * (two * s * xi + d0[t] * turn) + dd * sum_d * turn + dl_m * two * (
                d1[t] * xi + s * turn - d0[t] * back)  # fmt: skip
            g_s = slope * xi * xi + dd * (one - two * a) + dl_m * two * a + two * dl / s
            g_d0 = (slope + dd) * a + dl_m * back * back
            g_d1 = dd * a + dl_m * xi * xi
            outside = value < -bound or value > bound
            dx[i, t] = dy if outside else g_xi * inverse_w
            x0[t] = zero if outside else -g_xi * inverse_w
            w[t] = zero if outside else -(g_xi * xi + g_s * s) * inverse_w
            h[t] = zero if outside else g_s * inverse_w + dy * quotient
            y0[t] = zero if outside else dy
            d0[t] = zero if outside else g_d0
            d1[t] = zero if outside else g_d1
        spread_gradient(spec, raw, i, scratch, scale_w, scale_h)


@inlined
def spread_gradient(spec, raw, i, scratch, scale_w, scale_h):
    """Turn the gradient of the bin that holds each lane's value into that of all raw parameters, in their place.

    A bin before that one moves its left knot, so it receives the knot's gradient; the bin itself that of its size.
    """
    widths, heights, derivatives = rows_of(spec, raw, i)
    n_bins, zero, one = spec[BINS], raw.dtype.type(0), raw.dtype.type(1)
    least = number(spec, MIN_DERIVATIVE, raw)
    gx, gw, gy, gh, g0, g1 = scratch[X0], scratch[W], scratch[Y0], scratch[H], scratch[D0], scratch[D1]
    index, mean_w, mean_h = scratch[INDEX], scratch[SUM], scratch[TOP]
    lanes = index.size
    for t in range(lanes):
        mean_w[t], mean_h[t] = zero, zero
    for k in range(n_bins):
        this = raw.dtype.type(k)
        for t in range(lanes):
            mean_w[t] += widths[k, t] * (gx[t] if index[t] > this else (gw[t] if index[t] == this else zero))
            mean_h[t] += heights[k, t] * (gy[t] if index[t] > this else (gh[t] if index[t] == this else zero))
    for k in range(n_bins):
        this = raw.dtype.type(k)
        for t in range(lanes):
            dw = gx[t] if index[t] > this else (gw[t] if index[t] == this else zero)
            dh = gy[t] if index[t] > this else (gh[t] if index[t] == this else zero)
            widths[k, t] *= scale_w * (dw - mean_w[t])
            heights[k, t] *= scale_h * (dh - mean_h[t])
    for k in range(i * spec[MULTIPLIER] + 2 * n_bins + derivatives.shape[0], (i + 1) * spec[MULTIPLIER]):
        for t in range(lanes):
            raw[k, t] = zero  # a derivative that only values on circles have
    for j in range(derivatives.shape[0]):  # at the knot between bins `before` and `after`
        first = j - 1 if is_circular(spec, i) else j
        before, after = raw.dtype.type(first % n_bins), raw.dtype.type((first + 1) % n_bins)
        for t in range(lanes):
            d = (g1[t] if index[t] == before else zero) + (g0[t] if index[t] == after else zero)
            derivatives[j, t] = d * (one - vecmath.exp(least - derivatives[j, t]))


@kernel
def solve(spec, theta, x, raw, dx, dlog_det, dtheta):
    """dx = (dx - dlog_det d(log dy/dx)/dx) / (dy/dx): what an inverse's gradient needs."""
    scratch = new_scratch(raw)
    bound, one, two = number(spec, BOUND, raw), raw.dtype.type(1), raw.dtype.type(2)
    x0, w, h, d0, d1 = scratch[X0], scratch[W], scratch[H], scratch[D0], scratch[D1]
    for i in range(x.shape[0]):
        find_bin(spec, x[i], False, raw, i, scratch)
        for t in range(x.shape[1]):
            value = x[i, t]
            inverse_w = one / w[t]
            xi = unit((value - x0[t]) * inverse_w)
            s, a, back, turn = h[t] * inverse_w, xi * (one - xi), one - xi, one - two * xi
            sum_d = d0[t] + d1[t] - two * s
            d, m = s + sum_d * a, d1[t] * xi * xi + two * s * a + d0[t] * back * back
            bend = two * ((d1[t] * xi + s * turn - d0[t] * back) / m - sum_d * turn / d) * inverse_w
            ratio = s / d
            outside = value < -bound or value > bound
            dx[i, t] = dx[i, t] if outside else (dx[i, t] - dlog_det[t] * bend) / (m * ratio * ratio)


class RationalQuadratic:
    """The monotone rational-quadratic spline as a scalar map.

    Parameters
    ----------
    num_bins : int
        At least 2.
    tail_bound : float
        B: the map is the identity outside [-B, B].
    min_bin_width, min_bin_height : float
        Least share of [-B, B] that a bin has; below 1 / num_bins.
    min_derivative : float
        Least derivative at a knot; below 1.
    circular : bool or sequence of bool
        The end derivatives are one free parameter instead of 1, for values on a circle: for all values, or said for each.
    """

    kernels = {"forward": forward, "inverse": inverse, "vjp": forward_vjp, "solve": solve}
    theta_per_value = 0

    def __init__(
        self,
        num_bins: int = 8,
        tail_bound: float = 3.0,
        min_bin_width: float = 1e-3,
        min_bin_height: float = 1e-3,
        min_derivative: float = 1e-3,
        *,
        circular: bool | Sequence[bool] = False,
    ) -> None:
        self.num_bins, self.tail_bound = as_int(num_bins, "num_bins", 2), as_positive(tail_bound, "tail_bound")
        for name, size in (("min_bin_width", min_bin_width), ("min_bin_height", min_bin_height)):
            if as_positive(size, name) * num_bins >= 1:
                raise ValueError(f"{name} must be below 1 / num_bins = {1 / num_bins:g}, got {size!r}")
        if as_positive(min_derivative, "min_derivative") >= 1:
            raise ValueError(f"min_derivative must be below 1, got {min_derivative!r}")
        self.min_bin_width, self.min_bin_height = float(min_bin_width), float(min_bin_height)
        self.min_derivative = float(min_derivative)
        self.circular = np.atleast_1d(np.asarray(circular, bool))

    @property
    def multiplier(self) -> int:
        return 3 * self.num_bins - (0 if self.circular.any() else 1)

    @property
    def derivative_shift(self) -> float:
        """What is added to a raw derivative, so that 0 gives 1: its softplus is 1 - min_derivative."""
        return math.log(math.expm1(1 - self.min_derivative))

    def parameters(self, n: int) -> list[Parameter]:
        return []

    def spec(self) -> list[int]:
        sizes = (self.tail_bound, self.min_bin_width, self.min_bin_height, self.min_derivative, self.derivative_shift)
        numbers = np.array(sizes)
        flags = self.circular.astype(int).tolist()
        return [self.num_bins, self.multiplier, *numbers.view(np.int64).tolist(), len(flags), *flags]
