"""The monotone rational-quadratic spline (Durkan et al. 2019, arXiv:1906.04032, equations 4 to 8).

On [-B, B] the map is given by K bins; outside it is the identity.  Raw parameters of a value are 3 K - 1 rows: K for the
widths and K for the heights, through softmax, and K - 1 for the derivatives at the inner knots, through softplus; the two
end derivatives are 1, so that the density is continuous, or K + 1 where they are free.  spline_lanes.py has the formulas,
clipped_spline.py what changes raw parameters and values before.

`forward` and `inverse` leave the softmax probabilities in the raw rows, and the raw parameters of the derivatives, of which
only those at the two knots of a value's bin are ever needed; the vjp reads them there.  All loops run along lanes: a bin is
found by comparing and selecting, four bins at a time, never by gathering.  The twins for blocks of one lane run along the
bins (spline_single.py).
"""

from __future__ import annotations

import math

from npflows.backends.cpu.compiler.calls import as_real, flat
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import spline_lanes, spline_single, vecmath
from npflows.backends.cpu.kernels.blocks import add_row_to, subtract_row_from
from npflows.backends.cpu.link import KERNELS, ONE_LANE_TWINS, MapKernels, bits
from npflows.core import operations

# spec: bins, rows of raw parameters of a value, the bits of float64 numbers, whether values are turned, then for each value
# (or for all) how many derivatives it has beside those at the inner knots
(BINS, MULTIPLIER, BOUND, MIN_WIDTH, MIN_HEIGHT, MIN_DERIVATIVE, SHIFT, CLIP, TURNED, N_ENDS, ENDS) = range(11)
ON_LINE, ON_CIRCLE, FREE = range(3)
# rows of scratch: the bin that holds each lane's value, then what the gradient needs
X0, W, Y0, H, D0, D1, INDEX, ONES, EDGE, SUM, TOP, SCRATCH = range(12)
AT_ONCE = 4
"""Bins that a loop along lanes goes through."""


@inlined
def number(spec, i, like):
    """A float64 that lies in the spec as bits, in the dtype of `like`."""
    return like.dtype.type(as_real(spec[i]))


@inlined
def ends_of(spec, i):
    """Derivatives of the i-th value at its ends: none, one for both on a circle, or two where they are free."""
    return spec[ENDS + min(i, spec[N_ENDS] - 1)]


@inlined
def rows_of(spec, raw, i):
    """Widths (K, lanes), heights (K, lanes) and derivatives (K - 1, K or K + 1, lanes) of the i-th value."""
    k, first = spec[BINS], i * spec[MULTIPLIER]
    end = first + 3 * k - 1 + ends_of(spec, i)
    return raw[first : first + k], raw[first + k : first + 2 * k], raw[first + 2 * k : end]


@inlined
def knot(spec, derivatives, scratch, k):
    """The row of derivatives at knot k of 0..K."""
    if derivatives.shape[0] == spec[BINS]:
        return derivatives[k % spec[BINS]]
    if derivatives.shape[0] > spec[BINS]:
        return derivatives[k]
    return scratch[ONES] if k == 0 or k == spec[BINS] else derivatives[k - 1]


@inlined
def single_derivative(spec, derivatives, k):
    """The derivative at knot k of 0..K for the one lane, from its raw parameter."""
    ends = derivatives.shape[0] - spec[BINS] + 1
    if ends == ON_LINE and (k == 0 or k == spec[BINS]):
        return derivatives.dtype.type(1)
    row = k - 1 if ends == ON_LINE else k % spec[BINS] if ends == ON_CIRCLE else k
    value = derivatives[row, 0] + number(spec, SHIFT, derivatives)
    return number(spec, MIN_DERIVATIVE, derivatives) + vecmath.softplus(value)


@inlined
def softmax(rows, scratch):
    """Softmax over the rows of each lane, in place."""
    top, total = scratch[TOP], scratch[SUM]
    lanes, last = rows.shape[1], rows.shape[0] - 1
    for t in range(lanes):
        top[t] = rows[0, t]
        total[t] = 0
    for k in range(1, rows.shape[0], AT_ONCE):
        spline_lanes.raise_top(rows[k], rows[min(k + 1, last)], rows[min(k + 2, last)], rows[min(k + 3, last)], top)
    whole = rows.shape[0] // AT_ONCE * AT_ONCE
    for k in range(0, whole, AT_ONCE):
        spline_lanes.four_exponentials(rows[k], rows[k + 1], rows[k + 2], rows[k + 3], top, total)
    for k in range(whole, rows.shape[0]):
        spline_lanes.exponential(rows[k], top, total)
    for t in range(lanes):
        total[t] = rows.dtype.type(1) / total[t]
    for k in range(0, whole, AT_ONCE):
        spline_lanes.scale_four(rows[k], rows[k + 1], rows[k + 2], rows[k + 3], total)
    for k in range(whole, rows.shape[0]):
        for t in range(lanes):
            rows[k, t] *= total[t]


@inlined
def constrain(spec, raw, scratch):
    """Raw parameters of the widths and heights of all values in place: probabilities."""
    for i in range(raw.shape[0] // spec[MULTIPLIER]):
        widths, heights, _ = rows_of(spec, raw, i)
        for shares in (widths, heights):
            softmax(shares, scratch)


@inlined
def find_bin(spec, values, by_height, raw, i, scratch):
    """Fill scratch with the bin of each lane's value: left knot (X0, Y0), sizes (W, H), number (INDEX), and the rows of
    derivatives at its knots (D0, D1)."""
    widths, heights, derivatives = rows_of(spec, raw, i)
    least_w, scale_w = sizes(spec, MIN_WIDTH, raw)
    least_h, scale_h = sizes(spec, MIN_HEIGHT, raw)
    x0, w, y0, h, edge, index = scratch[X0], scratch[W], scratch[Y0], scratch[H], scratch[EDGE], scratch[INDEX]
    shares, knots, lengths, least, scale = widths, x0, w, least_w, scale_w
    others, other_knots, other_lengths, other_least, other_scale = heights, y0, h, least_h, scale_h
    if by_height:
        shares, knots, lengths, least, scale = heights, y0, h, least_h, scale_h
        others, other_knots, other_lengths, other_least, other_scale = widths, x0, w, least_w, scale_w
    bound, n, real = number(spec, BOUND, raw), spec[BINS], raw.dtype.type
    for t in range(index.size):
        edge[t] = other_knots[t] = -bound
    whole = n // AT_ONCE * AT_ONCE
    for k in range(0, whole, AT_ONCE):
        spline_lanes.search_four(values, real(k), shares[k], shares[k + 1], shares[k + 2], shares[k + 3], knots, lengths,
                                 edge, index, -bound, least, scale)  # fmt: skip
    for k in range(whole, n):
        spline_lanes.search(values, real(k), shares[k], knots, lengths, edge, index, -bound, least, scale)
    for k in range(0, n, AT_ONCE):
        a, b, c = min(k + 1, n - 1), min(k + 2, n - 1), min(k + 3, n - 1)
        spline_lanes.follow(
            real(k), others[k], others[a], others[b], others[c], knot(spec, derivatives, scratch, k),
            knot(spec, derivatives, scratch, min(k + 1, n)), knot(spec, derivatives, scratch, min(k + 2, n)),
            knot(spec, derivatives, scratch, min(k + 3, n)), knot(spec, derivatives, scratch, min(k + 4, n)),
            other_knots, other_lengths, scratch[D0], scratch[D1], index, other_least, other_scale,
        )  # fmt: skip


@inlined
def constrain_ends(spec, raw, i, scratch):
    """Turn the rows D0 and D1 from raw parameters into derivatives."""
    ends = raw.dtype.type(-1 if ends_of(spec, i) > 0 else 0)
    last = raw.dtype.type(-1 if ends_of(spec, i) > 0 else spec[BINS] - 1)
    spline_lanes.constrain_ends(scratch[D0], scratch[D1], scratch[INDEX], ends, last, number(spec, SHIFT, raw),
                                number(spec, MIN_DERIVATIVE, raw))  # fmt: skip


@inlined
def constrain_one(spec, raw):
    """The same for one lane; derivatives are left for `find_bin_of_one`, which needs two of them."""
    for i in range(raw.shape[0] // spec[MULTIPLIER]):
        first = i * spec[MULTIPLIER]
        spline_single.softmax(flat(raw[first : first + 2 * spec[BINS]]))


@inlined
def find_bin_of_one(spec, values, by_height, raw, i, scratch):
    """Fill scratch as `find_bin` does, for one lane and derivatives that are not constrained yet."""
    widths, heights, derivatives = rows_of(spec, raw, i)
    least_w, scale_w = sizes(spec, MIN_WIDTH, raw)
    least_h, scale_h = sizes(spec, MIN_HEIGHT, raw)
    k, x0, w, y0, h = spline_single.find_bin(values[0], by_height, flat(widths), flat(heights), number(spec, BOUND, raw),
                                             least_w, scale_w, least_h, scale_h)  # fmt: skip
    scratch[X0, 0], scratch[W, 0], scratch[Y0, 0], scratch[H, 0], scratch[INDEX, 0] = x0, w, y0, h, k
    scratch[D0, 0] = single_derivative(spec, derivatives, k)
    scratch[D1, 0] = single_derivative(spec, derivatives, k + 1)


@inlined
def sizes(spec, least, raw):
    """Smallest size of a bin, and what its share of the rest is multiplied by."""
    width = raw.dtype.type(2) * number(spec, BOUND, raw)
    least = number(spec, least, raw)
    return width * least, width * (raw.dtype.type(1) - raw.dtype.type(spec[BINS]) * least)


@inlined
def scratch_in(temp):
    """Scratch (SCRATCH, lanes), in which the row ONES is 1."""
    for t in range(temp.shape[1]):
        temp[ONES, t] = 1
    return temp[:SCRATCH]


@kernel
def forward(spec, theta, x, raw, log_det, temp):
    """y = f(x) and log_det += log dy/dx; raw parameters become constrained ones."""
    scratch = scratch_in(temp)
    constrain(spec, raw, scratch)
    evaluate(spec, x, raw, log_det, scratch, True)


@inlined
def evaluate(spec, x, raw, log_det, scratch, raw_derivatives):
    """x = y in place, for constrained sizes."""
    for i in range(x.shape[0]):
        find_bin(spec, x[i], False, raw, i, scratch)
        if raw_derivatives:
            constrain_ends(spec, raw, i, scratch)
        spline_lanes.forward(x[i], scratch[X0], scratch[W], scratch[Y0], scratch[H], scratch[D0], scratch[D1],
                             number(spec, BOUND, raw))  # fmt: skip
        add_row_to(log_det, scratch[W])


@kernel
def forward_of_one(spec, theta, x, raw, log_det, temp):
    """The same for a block of one lane."""
    scratch = scratch_in(temp)
    constrain_one(spec, raw)
    for i in range(x.shape[0]):
        find_bin_of_one(spec, x[i], False, raw, i, scratch)
        spline_lanes.forward(x[i], scratch[X0], scratch[W], scratch[Y0], scratch[H], scratch[D0], scratch[D1],
                             number(spec, BOUND, raw))  # fmt: skip
        add_row_to(log_det, scratch[W])


@kernel
def inverse(spec, theta, x, raw, log_det, temp):
    """x = f^-1(y) and log_det -= log dy/dx; raw parameters become constrained ones."""
    scratch = scratch_in(temp)
    constrain(spec, raw, scratch)
    evaluate_inverse(spec, x, raw, log_det, scratch, True)


@inlined
def evaluate_inverse(spec, x, raw, log_det, scratch, raw_derivatives):
    """x = f^-1(x) in place, for constrained sizes."""
    for i in range(x.shape[0]):
        find_bin(spec, x[i], True, raw, i, scratch)
        if raw_derivatives:
            constrain_ends(spec, raw, i, scratch)
        spline_lanes.inverse(x[i], scratch[X0], scratch[W], scratch[Y0], scratch[H], scratch[D0], scratch[D1],
                             number(spec, BOUND, raw))  # fmt: skip
        subtract_row_from(log_det, scratch[W])


@kernel
def inverse_of_one(spec, theta, x, raw, log_det, temp):
    """The same for a block of one lane."""
    scratch = scratch_in(temp)
    constrain_one(spec, raw)
    for i in range(x.shape[0]):
        find_bin_of_one(spec, x[i], True, raw, i, scratch)
        spline_lanes.inverse(x[i], scratch[X0], scratch[W], scratch[Y0], scratch[H], scratch[D0], scratch[D1],
                             number(spec, BOUND, raw))  # fmt: skip
        subtract_row_from(log_det, scratch[W])


@kernel
def forward_vjp(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """dx: dL/dy in, dL/dx out; raw: what the map left there in, gradient of the raw parameters out."""
    scratch = scratch_in(temp)
    for i in range(x.shape[0]):
        value_vjp(spec, x[i], raw, i, dx[i], dlog_det, scratch)


@inlined
def value_vjp(spec, x, raw, i, dx, dlog_det, scratch):
    """The same for the i-th value, whose row is x."""
    find_bin(spec, x, False, raw, i, scratch)
    constrain_ends(spec, raw, i, scratch)
    spline_lanes.forward_vjp(x, dx, dlog_det, scratch[X0], scratch[W], scratch[Y0], scratch[H], scratch[D0], scratch[D1],
                             number(spec, BOUND, raw), number(spec, MIN_DERIVATIVE, raw))  # fmt: skip
    widths, heights, _ = rows_of(spec, raw, i)
    sizes_vjp(spec, widths, scratch[X0], scratch[W], scratch[INDEX], scratch[SUM], sizes(spec, MIN_WIDTH, raw)[1])
    sizes_vjp(spec, heights, scratch[Y0], scratch[H], scratch[INDEX], scratch[SUM], sizes(spec, MIN_HEIGHT, raw)[1])
    derivatives_vjp(spec, raw, i, scratch)


@kernel
def forward_vjp_of_one(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """The same for a block of one lane."""
    scratch = scratch_in(temp)
    for i in range(x.shape[0]):
        find_bin_of_one(spec, x[i], False, raw, i, scratch)
        spline_lanes.forward_vjp(x[i], dx[i], dlog_det, scratch[X0], scratch[W], scratch[Y0], scratch[H], scratch[D0],
                                 scratch[D1], number(spec, BOUND, raw), number(spec, MIN_DERIVATIVE, raw))  # fmt: skip
        widths, heights, derivatives = rows_of(spec, raw, i)
        k, n = int(scratch[INDEX, 0]), derivatives.shape[0]
        spline_single.sizes_vjp(flat(widths), k, scratch[X0, 0], scratch[W, 0], sizes(spec, MIN_WIDTH, raw)[1])
        spline_single.sizes_vjp(flat(heights), k, scratch[Y0, 0], scratch[H, 0], sizes(spec, MIN_HEIGHT, raw)[1])
        for j in range(i * spec[MULTIPLIER] + 2 * spec[BINS], (i + 1) * spec[MULTIPLIER]):
            raw[j, 0] = 0
        line, circular = n < spec[BINS], n == spec[BINS]
        if not line or k < n:
            derivatives[k if line else (k + 1) % n if circular else k + 1, 0] += scratch[D1, 0]
        if not line or k > 0:
            derivatives[k - 1 if line else k, 0] += scratch[D0, 0]


@inlined
def sizes_vjp(spec, shares, g_knot, g_size, index, mean, scale):
    """Turn the gradient of the bin that holds each lane's value into that of the raw parameters of all sizes."""
    for t in range(mean.size):
        mean[t] = 0
    last = spec[BINS] - 1
    for k in range(0, spec[BINS], AT_ONCE):  # a bin beyond the last has no gradient
        spline_lanes.add_mean(shares[k], shares[min(k + 1, last)], shares[min(k + 2, last)], shares[min(k + 3, last)],
                              g_knot, g_size, index, mean, mean.dtype.type(k))  # fmt: skip
    whole = spec[BINS] // AT_ONCE * AT_ONCE
    for k in range(0, whole, AT_ONCE):
        spline_lanes.leave_four(shares[k], shares[k + 1], shares[k + 2], shares[k + 3], g_knot, g_size, index, mean,
                                mean.dtype.type(k), scale)  # fmt: skip
    for k in range(whole, spec[BINS]):
        spline_lanes.leave_softmax(shares[k], g_knot, g_size, index, mean, mean.dtype.type(k), scale)


@inlined
def derivatives_vjp(spec, raw, i, scratch):
    """The same for the derivatives."""
    n_bins, real = spec[BINS], raw.dtype.type
    derivatives = rows_of(spec, raw, i)[2]
    for k in range(i * spec[MULTIPLIER] + 2 * n_bins + derivatives.shape[0], (i + 1) * spec[MULTIPLIER]):
        for t in range(raw.shape[1]):
            raw[k, t] = 0  # a derivative that only values on circles have
    ends = ends_of(spec, i)
    for j in range(derivatives.shape[0]):  # which is at the knot between two bins; a free end has one alone
        before = j if ends == ON_LINE else j - 1
        after = before + 1
        if ends != FREE:
            before, after = before % n_bins, after % n_bins
        spline_lanes.leave_derivative(derivatives[j], scratch[D0], scratch[D1], scratch[INDEX], real(before), real(after))


@kernel
def solve(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """dx = (dx - dlog_det d(log dy/dx)/dx) / (dy/dx): what an inverse's gradient needs."""
    scratch = scratch_in(temp)
    for i in range(x.shape[0]):
        solve_value(spec, x[i], raw, i, dx[i], dlog_det, scratch)


@inlined
def solve_value(spec, x, raw, i, dx, dlog_det, scratch):
    """The same for the i-th value, whose row is x."""
    find_bin(spec, x, False, raw, i, scratch)
    constrain_ends(spec, raw, i, scratch)
    spline_lanes.solve(x, dx, dlog_det, scratch[X0], scratch[W], scratch[H], scratch[D0], scratch[D1],
                       number(spec, BOUND, raw))  # fmt: skip


@kernel
def solve_of_one(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """The same for a block of one lane."""
    scratch = scratch_in(temp)
    for i in range(x.shape[0]):
        find_bin_of_one(spec, x[i], False, raw, i, scratch)
        spline_lanes.solve(x[i], dx[i], dlog_det, scratch[X0], scratch[W], scratch[H], scratch[D0], scratch[D1],
                           number(spec, BOUND, raw))  # fmt: skip


@kernel
def constrained(spec, x, raw, log_det, temp):
    """x (d, n) in place, for probabilities and derivatives in raw; log_det (n,) +=."""
    evaluate(spec, x, raw, log_det, scratch_in(temp), False)


@kernel
def constrained_inverse(spec, x, raw, log_det, temp):
    """The same for the inverse."""
    evaluate_inverse(spec, x, raw, log_det, scratch_in(temp), False)


def pack(operation: operations.Spline, value: int | None) -> list[int]:
    """Pack the spec of the map; a single flag stands for values that are all on circles, or all on the line."""
    flags = [FREE] if operation.free_ends else [ON_CIRCLE if flag else ON_LINE for flag in operation.circular]
    if value is not None:
        flags = [flags[min(value, len(flags) - 1)]]
    elif len(set(flags)) == 1:
        flags = flags[:1]
    clip = -math.log(operation.least_slope) if operation.least_slope else 0.0
    numbers = (operation.tail_bound, operation.min_bin_width, operation.min_bin_height, operation.min_derivative,
               operation.derivative_shift, clip)  # fmt: skip
    return [operation.num_bins, operation.multiplier, *bits(*numbers), int(operation.turned), len(flags), *flags]


ROLES = {"forward": forward, "inverse": inverse, "vjp": forward_vjp, "solve": solve}
CLIPPED_ROLES: dict = {}
"""Those of splines that are clipped or turned, which clipped_spline.py enters."""
KERNELS[operations.Spline] = MapKernels(
    lambda operation: CLIPPED_ROLES if operation.is_clipped else ROLES,
    pack,
    lambda operation, n: SCRATCH + (1 + operation.multiplier if operation.is_clipped else 0),
)
ONE_LANE_TWINS.update({forward: forward_of_one, inverse: inverse_of_one, forward_vjp: forward_vjp_of_one,
                       solve: solve_of_one})  # fmt: skip
