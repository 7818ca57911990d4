"""Monotone splines of each kind on [-B, B], beyond which the map is the identity or a line with the slope of the end.

`forward` and `inverse` leave constrained parameters in the raw rows: shares of the interval for widths and heights, which
sum to 1, derivatives, and what the kind has else; the vjp reads them there.  All else is done lane by lane
(spline_pieces.py has the formulas of a bin), with sums in the order of the bins.
"""

from __future__ import annotations

from npflows.backends.cpu.compiler.calls import as_real
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import spline, vecmath
from npflows.backends.cpu.kernels.newton import rounding_of
from npflows.backends.cpu.kernels.spline_lanes import within
from npflows.backends.cpu.kernels.spline_pieces import (
    CUBIC,
    LINEAR,
    QUADRATIC,
    RATIONAL_LINEAR,
    gradients_of,
    position_of,
    value_of,
)
from npflows.backends.cpu.link import KERNELS, MapKernels, bits
from npflows.core import operations

# spec: the kind, bins, rows of raw parameters of a value, those of derivatives, whether tails have the slope of the end,
# the bits of float64 numbers
(KIND, BINS, MULTIPLIER, N_SLOPES, SLOPED, BOUND, MIN_WIDTH, MIN_HEIGHT, MIN_DERIVATIVE, SHIFT, END_WEIGHT,
 LEAST_SHARE) = range(12)  # fmt: skip
# temp: scratch of softmax, then gradients of the widths, the heights and the slopes at all knots


@inlined(always=True)
def number(spec, i, like):
    """A float64 that lies in the spec as bits, in the dtype of `like`."""
    return like.dtype.type(as_real(spec[i]))


@inlined(always=True)
def first_height(spec):
    """The first row of heights, and of quadratic splines that of derivatives."""
    return 0 if spec[KIND] == LINEAR else spec[BINS]


@inlined(always=True)
def first_slope(spec):
    """The first row of derivatives."""
    return spec[BINS] if spec[KIND] == QUADRATIC else 2 * spec[BINS]


@inlined
def constrain(spec, rows, scratch):
    """Raw parameters of a value (multiplier, lanes) in place."""
    kind, k = spec[KIND], spec[BINS]
    spline.softmax(rows[:k], scratch)
    if kind != LINEAR and kind != QUADRATIC:
        spline.softmax(rows[k : 2 * k], scratch)
    one, least = rows.dtype.type(1), number(spec, MIN_DERIVATIVE, rows)
    shift, least_share = number(spec, SHIFT, rows), number(spec, LEAST_SHARE, rows)
    first = first_slope(spec)
    for j in range(first, first + spec[N_SLOPES]):
        for t in range(rows.shape[1]):
            value = rows[j, t] + shift
            if kind == CUBIC:
                rows[j, t] = least + (one - least - least) * vecmath.sigmoid(value)
            else:
                rows[j, t] = least + vecmath.softplus(value)
    if kind == RATIONAL_LINEAR:
        scale = one - least_share - least_share
        for j in range(first + spec[N_SLOPES], spec[MULTIPLIER]):
            for t in range(rows.shape[1]):
                rows[j, t] = least_share + scale * vecmath.sigmoid(rows[j, t])


@inlined(always=True)
def width(spec, rows, t, j):
    """The width of bin j."""
    one, bound = rows.dtype.type(1), number(spec, BOUND, rows)
    n = rows.dtype.type(spec[BINS])
    if spec[KIND] == LINEAR:
        return (bound + bound) / n
    least = number(spec, MIN_WIDTH, rows)
    return (bound + bound) * (least + (one - n * least) * rows[j, t])


@inlined(always=True)
def density(spec, rows, t, j, end):
    """The derivative of a quadratic spline at knot j before it is divided by the mean."""
    if spec[N_SLOPES] > spec[BINS]:
        return rows[spec[BINS] + j, t]
    return end if j == 0 or j == spec[BINS] else rows[spec[BINS] + j - 1, t]


@inlined(always=True)
def mean_density(spec, rows, t):
    """Of a quadratic spline the mean of its derivatives before they are divided by it, and that at its ends, which is the
    mean for an end weight of 1."""
    n, real = spec[BINS], rows.dtype.type
    one, two = real(1), real(2)
    bound = number(spec, BOUND, rows)
    around, end = bound + bound, one
    if spec[KIND] != QUADRATIC:
        return one, one
    if spec[N_SLOPES] < n:
        weight = number(spec, END_WEIGHT, rows)
        left, right = width(spec, rows, t, 0), width(spec, rows, t, n - 1)
        inner = weight * (left * rows[n, t] + right * rows[2 * n - 2, t])
        for j in range(1, n - 1):
            inner += width(spec, rows, t, j) * (rows[n + j - 1, t] + rows[n + j, t])
        end = inner / (two * around - weight * (left + right))
    total = real(0)
    for j in range(n):
        total += width(spec, rows, t, j) * (density(spec, rows, t, j, end) + density(spec, rows, t, j + 1, end))
    return total / (two * around), end


@inlined(always=True)
def slope_of_density(spec, rows, t, j, mean, end):
    """The derivative of a quadratic spline at knot j."""
    one, least = rows.dtype.type(1), number(spec, MIN_HEIGHT, rows)
    return least + (one - least) * density(spec, rows, t, j, end) / mean


@inlined(always=True)
def given_height(spec, rows, t, j):
    """The height of bin j where heights are parameters."""
    one, least, bound = rows.dtype.type(1), number(spec, MIN_HEIGHT, rows), number(spec, BOUND, rows)
    return (bound + bound) * (least + (one - rows.dtype.type(spec[BINS]) * least) * rows[first_height(spec) + j, t])


@inlined(always=True)
def height(spec, rows, t, j, mean, end):
    """The height of bin j."""
    if spec[KIND] == QUADRATIC:
        total = slope_of_density(spec, rows, t, j, mean, end) + slope_of_density(spec, rows, t, j + 1, mean, end)
        return width(spec, rows, t, j) * total / rows.dtype.type(2)
    return given_height(spec, rows, t, j)


@inlined(always=True)
def sizes(spec, rows, t, j):
    """Width and height of bin j where heights are parameters."""
    return width(spec, rows, t, j), given_height(spec, rows, t, j)


@inlined(always=True)
def slope_at(spec, rows, t, j, mean, end):
    """The derivative at knot j of 0..K."""
    kind, n, real = spec[KIND], spec[BINS], rows.dtype.type
    one = real(1)
    if kind == LINEAR:
        return one
    if kind == QUADRATIC:
        return slope_of_density(spec, rows, t, j, mean, end)
    if kind == CUBIC and (j == 0 or j == n):
        w, h = sizes(spec, rows, t, 0 if j == 0 else n - 1)
        return real(3) * rows[2 * n + (0 if j == 0 else 1), t] * h / w
    if kind == CUBIC:
        w0, h0 = sizes(spec, rows, t, j - 1)
        w1, h1 = sizes(spec, rows, t, j)
        s0, s1 = h0 / w0, h1 / w1
        least, middle = (s0 if s0 < s1 else s1) * real(2), (w1 * s0 + w0 * s1) / (w0 + w1)
        return least if least < middle else middle
    if spec[N_SLOPES] > n:
        return rows[2 * n + j, t]
    return one if j == 0 or j == n else rows[2 * n + j - 1, t]


@inlined(always=True)
def find(spec, value, by_height, rows, t):
    """The bin that holds a value: its number, left knot (x0, y0), sizes, slopes at its ends, and where it is divided."""
    mean, end = mean_density(spec, rows, t)
    bound, one = number(spec, BOUND, rows), rows.dtype.type(1)
    k, x0, y0, right, top = 0, -bound, -bound, -bound, -bound
    for j in range(1, spec[BINS]):
        right += width(spec, rows, t, j - 1)
        top += height(spec, rows, t, j - 1, mean, end)
        if value >= (top if by_height else right) or value >= bound:
            k, x0, y0 = j, right, top
    share = rows[spec[MULTIPLIER] - spec[BINS] + k, t] if spec[KIND] == RATIONAL_LINEAR else one
    return (k, x0, width(spec, rows, t, k), y0, height(spec, rows, t, k, mean, end), slope_at(spec, rows, t, k, mean, end),
            slope_at(spec, rows, t, k + 1, mean, end), share)  # fmt: skip


@inlined(always=True)
def place_in(spec, value, x0, w, rows):
    """xi of a value, exactly 1 at the right end, as edges are sums and round."""
    one = rows.dtype.type(1)
    return one if value >= number(spec, BOUND, rows) else within((value - x0) / w, one - one, one)


@inlined(always=True)
def evaluate(spec, value, rows, t):
    """y, dy/dx and d(log dy/dx)/dx of a value in [-B, B]."""
    one, bound = rows.dtype.type(1), number(spec, BOUND, rows)
    _, x0, w, y0, h, d0, d1, share = find(spec, value, False, rows, t)
    xi = place_in(spec, value, x0, w, rows)
    rise, slope, bend = value_of(spec[KIND], xi, w, h, d0, d1, share, one)
    return within(y0 + rise, -bound, bound), slope, bend / w


@inlined(always=True)
def evaluate_inverse(spec, value, rows, t):
    """x and dy/dx of a value y in [-B, B]."""
    zero, one, bound = rows.dtype.type(0), rows.dtype.type(1), number(spec, BOUND, rows)
    _, x0, w, y0, h, d0, d1, share = find(spec, value, True, rows, t)
    rise = within(value - y0, zero, h)
    xi = within(position_of(spec[KIND], rise, w, h, d0, d1, share, one, rounding_of(rows)), zero, one)
    xi = one if value >= bound else xi
    _, slope, _ = value_of(spec[KIND], xi, w, h, d0, d1, share, one)
    return within(x0 + w * xi, -bound, bound), slope


@inlined
def forward_of(spec, value, rows, t):
    """y and log dy/dx of any value."""
    bound = number(spec, BOUND, rows)
    inner = within(value, -bound, bound)
    if spec[SLOPED] == 0 and (value < -bound or value > bound):
        return value, rows.dtype.type(0)
    y, slope, _ = evaluate(spec, inner, rows, t)
    return y + slope * (value - inner), vecmath.log(slope)


@inlined
def inverse_of(spec, value, rows, t):
    """x and log dy/dx of any value y."""
    bound = number(spec, BOUND, rows)
    inner = within(value, -bound, bound)
    if spec[SLOPED] == 0 and (value < -bound or value > bound):
        return value, rows.dtype.type(0)
    x, slope = evaluate_inverse(spec, inner, rows, t)
    return x + (value - inner) / slope, vecmath.log(slope)


@inlined
def clear(rows, t):
    """0 for all parameters of a lane."""
    for j in range(rows.shape[0]):
        rows[j, t] = 0


@inlined
def value_vjp(spec, value, rows, t, dy, dlog, dwidths, dheights, dslopes):
    """dL/dx; in place of constrained parameters the gradient of raw ones.

    Beyond B, y = f(B) + f'(B) (x - B): the gradient is that at B, with dL/dy f'(B) (x - B) added to that of log f'(B).
    """
    zero, one, bound = rows.dtype.type(0), rows.dtype.type(1), number(spec, BOUND, rows)
    outside = value < -bound or value > bound
    if spec[SLOPED] == 0 and outside:
        clear(rows, t)
        return dy
    inner = within(value, -bound, bound)
    k, x0, w, _, h, d0, d1, share = find(spec, inner, False, rows, t)
    xi = place_in(spec, inner, x0, w, rows)
    _, slope, _ = value_of(spec[KIND], xi, w, h, d0, d1, share, one)
    dlog = dlog + dy * slope * (value - inner)
    g_xi, g_w, g_h, g_0, g_1, g_share = gradients_of(spec[KIND], xi, w, h, d0, d1, share, dy, dlog, one)
    for j in range(spec[BINS]):
        dwidths[j, t] = -g_xi / w if j < k else g_w - g_xi * xi / w if j == k else zero
        dheights[j, t] = dy if j < k else g_h if j == k else zero
    for j in range(spec[BINS] + 1):
        dslopes[j, t] = g_0 if j == k else g_1 if j == k + 1 else zero
    leave(spec, rows, t, k, g_share, dwidths, dheights, dslopes)
    return dy * slope if outside else g_xi / w


@inlined
def leave(spec, rows, t, k, g_share, dwidths, dheights, dslopes):
    """From gradients of widths, heights and slopes those of raw parameters, in their place."""
    kind, n, one = spec[KIND], spec[BINS], rows.dtype.type(1)
    if kind == QUADRATIC:
        densities_vjp(spec, rows, t, dwidths, dheights, dslopes)
    elif kind == CUBIC:
        for j in range(k, k + 2):
            cubic_slope_vjp(spec, rows, t, j, dslopes[j, t], dwidths, dheights, dslopes)
    least, first = number(spec, MIN_DERIVATIVE, rows), first_slope(spec)
    for j in range(spec[N_SLOPES]):
        value = rows[first + j, t]
        if kind == CUBIC:
            share = (value - least) / (one - least - least)
            rows[first + j, t] = dslopes[j * n, t] * (value - least) * (one - share)
        else:
            knot = j if spec[N_SLOPES] > n else j + 1
            rows[first + j, t] = -dslopes[knot, t] * vecmath.expm1(least - value)
    if kind == RATIONAL_LINEAR:
        least_share, first = number(spec, LEAST_SHARE, rows), spec[MULTIPLIER] - n
        share = (rows[first + k, t] - least_share) / (one - least_share - least_share)
        g_share *= (rows[first + k, t] - least_share) * (one - share)
        for j in range(n):
            rows[first + j, t] = g_share if j == k else one - one
    if kind != LINEAR:
        shares_vjp(rows, 0, t, dwidths, scale_of(spec, MIN_WIDTH, rows))
    if kind != QUADRATIC:
        shares_vjp(rows, first_height(spec), t, dheights, scale_of(spec, MIN_HEIGHT, rows))


@inlined(always=True)
def scale_of(spec, least, rows):
    """What a share is multiplied by to give a size."""
    one, bound = rows.dtype.type(1), number(spec, BOUND, rows)
    return (bound + bound) * (one - rows.dtype.type(spec[BINS]) * number(spec, least, rows))


@inlined(always=True)
def shares_vjp(rows, first, t, gradient, scale):
    """From gradients of sizes those of raw parameters, in place of shares: p_j (g_j - sum_i p_i g_i)."""
    n = gradient.shape[0]
    mean = rows.dtype.type(0)
    for j in range(n):
        mean += rows[first + j, t] * gradient[j, t]
    for j in range(n):
        rows[first + j, t] *= scale * (gradient[j, t] - mean)


@inlined
def cubic_slope_vjp(spec, rows, t, j, gradient, dwidths, dheights, dslopes):
    """Add to gradients of widths and heights those through the slope at knot j; for an end leave that of its share."""
    n, real = spec[BINS], rows.dtype.type
    two, three = real(2), real(3)
    if j == 0 or j == n:
        place = 0 if j == 0 else n - 1
        w, h = sizes(spec, rows, t, place)
        share = rows[2 * n + (0 if j == 0 else 1), t]
        dheights[place, t] += gradient * three * share / w
        dwidths[place, t] -= gradient * three * share * h / (w * w)
        dslopes[j, t] = gradient * three * h / w
        return
    w0, h0 = sizes(spec, rows, t, j - 1)
    w1, h1 = sizes(spec, rows, t, j)
    s0, s1, total = h0 / w0, h1 / w1, w0 + w1
    least, middle = (s0 if s0 < s1 else s1) * two, (w1 * s0 + w0 * s1) / total
    if least < middle:
        g_0 = gradient * two if s0 < s1 else real(0)
        g_1 = gradient * two if not s0 < s1 else real(0)
    else:
        g_0, g_1 = gradient * w1 / total, gradient * w0 / total
        dwidths[j - 1, t] += gradient * (s1 - middle) / total
        dwidths[j, t] += gradient * (s0 - middle) / total
    dheights[j - 1, t] += g_0 / w0
    dheights[j, t] += g_1 / w1
    dwidths[j - 1, t] -= g_0 * s0 / w0
    dwidths[j, t] -= g_1 * s1 / w1


@inlined
def densities_vjp(spec, rows, t, dwidths, dheights, dslopes):
    """Of a quadratic spline: add to gradients of widths those through heights and slopes, and leave in dslopes those of the
    derivatives before they are divided by their mean."""
    n, real = spec[BINS], rows.dtype.type
    one, two = real(1), real(2)
    mean, end = mean_density(spec, rows, t)
    bound, least = number(spec, BOUND, rows), number(spec, MIN_HEIGHT, rows)
    around = two * (bound + bound)
    for j in range(n):
        w = width(spec, rows, t, j)
        total = slope_of_density(spec, rows, t, j, mean, end) + slope_of_density(spec, rows, t, j + 1, mean, end)
        dwidths[j, t] += dheights[j, t] * total / two
        dslopes[j, t] += dheights[j, t] * w / two
        dslopes[j + 1, t] += dheights[j, t] * w / two
    g_mean = real(0)
    for j in range(n + 1):
        dslopes[j, t] *= (one - least) / mean
        g_mean -= dslopes[j, t] * density(spec, rows, t, j, end) / mean
    for j in range(n):
        total = density(spec, rows, t, j, end) + density(spec, rows, t, j + 1, end)
        w = width(spec, rows, t, j)
        dwidths[j, t] += g_mean * total / around
        dslopes[j, t] += g_mean * w / around
        dslopes[j + 1, t] += g_mean * w / around
    if spec[N_SLOPES] > n:
        return
    weight = number(spec, END_WEIGHT, rows)
    below = around - weight * (width(spec, rows, t, 0) + width(spec, rows, t, n - 1))
    g_inner = (dslopes[0, t] + dslopes[n, t]) / below
    for j in range(n):
        factor = weight if j == 0 or j == n - 1 else one
        if j > 0:
            dslopes[j, t] += g_inner * factor * width(spec, rows, t, j)
        if j < n - 1:
            dslopes[j + 1, t] += g_inner * factor * width(spec, rows, t, j)
        left = density(spec, rows, t, j, end) if j > 0 else end
        right = density(spec, rows, t, j + 1, end) if j < n - 1 else end
        dwidths[j, t] += g_inner * factor * (left + right)


@kernel
def forward(spec, theta, x, raw, log_det, temp):
    """y = f(x) and log_det += log dy/dx; raw parameters become constrained ones."""
    m = spec[MULTIPLIER]
    for i in range(x.shape[0]):
        rows = raw[i * m : (i + 1) * m]
        constrain(spec, rows, temp[: spline.SCRATCH])
        for t in range(x.shape[1]):
            x[i, t], log_slope = forward_of(spec, x[i, t], rows, t)
            log_det[t] += log_slope


@kernel
def inverse(spec, theta, x, raw, log_det, temp):
    """x = f^-1(y) and log_det -= log dy/dx; raw parameters become constrained ones."""
    m = spec[MULTIPLIER]
    for i in range(x.shape[0]):
        rows = raw[i * m : (i + 1) * m]
        constrain(spec, rows, temp[: spline.SCRATCH])
        for t in range(x.shape[1]):
            x[i, t], log_slope = inverse_of(spec, x[i, t], rows, t)
            log_det[t] -= log_slope


@kernel
def forward_vjp(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """dx: dL/dy in, dL/dx out; raw: constrained parameters in, the gradient of the raw ones out."""
    m, a = spec[MULTIPLIER], spline.SCRATCH
    b, c = a + spec[BINS], a + 2 * spec[BINS]
    dwidths, dheights, dslopes = temp[a:b], temp[b:c], temp[c : c + spec[BINS] + 1]
    for i in range(x.shape[0]):
        rows = raw[i * m : (i + 1) * m]
        for t in range(x.shape[1]):
            dx[i, t] = value_vjp(spec, x[i, t], rows, t, dx[i, t], dlog_det[t], dwidths, dheights, dslopes)


@kernel
def solve(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """dx = (dx - dlog_det d(log dy/dx)/dx) / (dy/dx): what an inverse's gradient needs."""
    m, bound = spec[MULTIPLIER], number(spec, BOUND, raw)
    for i in range(x.shape[0]):
        rows = raw[i * m : (i + 1) * m]
        for t in range(x.shape[1]):
            value = x[i, t]
            outside = value < -bound or value > bound
            if outside and spec[SLOPED] == 0:
                continue
            _, slope, bend = evaluate(spec, within(value, -bound, bound), rows, t)
            dx[i, t] = dx[i, t] / slope if outside else (dx[i, t] - dlog_det[t] * bend) / slope


def pack(operation: operations.PiecewiseSpline, value: int | None) -> list[int]:
    """Pack the spec of the map."""
    least = operation.least_density if operation.kind == "quadratic" else operation.min_derivative
    numbers = (operation.tail_bound, operation.min_bin_width, operation.min_bin_height, least,
               operation.derivative_shift, operation.end_weight, operation.least_share)  # fmt: skip
    return [operations.SPLINES.index(operation.kind), operation.num_bins, operation.multiplier, operation.num_derivatives,
            int(operation.sloped_tails), *bits(*numbers)]  # fmt: skip


ROLES = {"forward": forward, "inverse": inverse, "vjp": forward_vjp, "solve": solve}
KERNELS[operations.PiecewiseSpline] = MapKernels(
    lambda operation: ROLES, pack, lambda operation, n: spline.SCRATCH + 3 * operation.num_bins + 1
)
