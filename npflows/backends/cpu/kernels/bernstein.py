"""Increasing Bernstein polynomials on [-B, B] (arXiv:2004.00464, equation 9), beyond which the map is a line.

With X = (x + B) / (2 B), coefficients c_i, their increments u_i = c_{i+1} - c_i and the basis b_i of degree N - 2

    y = sum_i b_i (c_i + (2 X - X^2) u_i + X^2 u_{i+1}),    dy/dX = N sum_i b_i ((1 - X) u_i + X u_{i+1})

in which all terms of sums but the c_i are positive, so that nothing cancels.  `forward` and `inverse` leave constrained
parameters in the raw rows.
"""

from __future__ import annotations

from npflows.backends.cpu.compiler.calls import as_real
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import spline, vecmath
from npflows.backends.cpu.kernels.newton import MOST_STEPS, newton_step, rounding_of
from npflows.backends.cpu.kernels.spline_lanes import within
from npflows.backends.cpu.link import KERNELS, MapKernels, bits
from npflows.core import operations

# spec: raw parameters of a value, the degree, whether the polynomial is onto [-B, B], the bits of float64 numbers
PARAMETERS, DEGREE, BOUNDED, BOUND, SHIFT = range(5)
# temp: scratch of softmax, the basis, gradients of the increments


@inlined(always=True)
def number(spec, i, like):
    """A float64 that lies in the spec as bits, in the dtype of `like`."""
    return like.dtype.type(as_real(spec[i]))


@inlined
def constrain(spec, rows, scratch):
    """Raw parameters of a value (parameters, lanes) in place: shares, or the first coefficient and increments."""
    if spec[BOUNDED] > 0:
        spline.softmax(rows, scratch)
        return
    shift = number(spec, SHIFT, rows)
    for j in range(1, rows.shape[0]):
        for t in range(rows.shape[1]):
            rows[j, t] = vecmath.softplus(rows[j, t] + shift)


@inlined(always=True)
def shared(spec, rows):
    """Of a bounded polynomial what the shares are shares of, and the increments at the ends."""
    real = rows.dtype.type
    around = real(2) * number(spec, BOUND, rows)
    end = around / real(spec[DEGREE])
    return around - real(4) * end, end


@inlined(always=True)
def increment(spec, rows, t, i):
    """u_i of 0..N-1."""
    if spec[BOUNDED] > 0:
        scale, end = shared(spec, rows)
        return rows[i - 2, t] * scale if 2 <= i < spec[DEGREE] - 2 else end
    return rows[min(max(i, 1), spec[PARAMETERS] - 1), t]


@inlined(always=True)
def first_coefficient(spec, rows, t):
    """c_0."""
    bound = number(spec, BOUND, rows)
    return -bound if spec[BOUNDED] > 0 else rows[0, t] - bound


@inlined(always=True)
def fill_basis(place, degree, basis, t):
    """The basis polynomials of a degree at X: b_i of n from those of n - 1, as (1 - X) b_i + X b_{i-1}."""
    one = basis.dtype.type(1)
    back = one - place
    basis[0, t] = one
    for n in range(1, degree + 1):
        basis[n, t] = place * basis[n - 1, t]
        for i in range(n - 1, 0, -1):
            basis[i, t] = back * basis[i, t] + place * basis[i - 1, t]
        basis[0, t] = back * basis[0, t]


@inlined(always=True)
def evaluate(spec, place, rows, t, basis):
    """y - c_0 at X, dy/dx and d(log dy/dx)/dx."""
    n, real = spec[DEGREE], rows.dtype.type
    one, two = real(1), real(2)
    fill_basis(place, n - 2, basis, t)
    rise, slope, turn, before = real(0), real(0), real(0), real(0)
    u = increment(spec, rows, t, 0)
    for i in range(n - 1):
        b, following = basis[i, t], increment(spec, rows, t, i + 1)
        rise += b * (before + place * (two - place) * u + place * place * following)
        slope += b * ((one - place) * u + place * following)
        turn += b * (following - u)
        before += u
        u = following
    around = two * number(spec, BOUND, rows)
    return rise, real(n) * slope / around, real(n - 1) * turn / (slope * around)


@inlined(always=True)
def place_of(spec, value, rows):
    """X of a value, from 0 to 1, and the value or the end that it lies beyond."""
    real, bound = rows.dtype.type, number(spec, BOUND, rows)
    inner = within(value, -bound, bound)
    return within((inner + bound) / (bound + bound), real(0), real(1)), inner


@inlined(always=True)
def is_identity(spec, value, like):
    """Whether a value lies where a bounded polynomial leaves it as it is."""
    bound = number(spec, BOUND, like)
    return spec[BOUNDED] > 0 and (value < -bound or value > bound)


@inlined
def forward_of(spec, value, rows, t, basis):
    """y and log dy/dx of any value."""
    if is_identity(spec, value, rows):
        return value, rows.dtype.type(0)
    place, inner = place_of(spec, value, rows)
    rise, slope, _ = evaluate(spec, place, rows, t, basis)
    return first_coefficient(spec, rows, t) + rise + slope * (value - inner), vecmath.log(slope)


@inlined
def inverse_of(spec, value, rows, t, basis):
    """x and log dy/dx of any value y."""
    if is_identity(spec, value, rows):
        return value, rows.dtype.type(0)
    zero, one, rounding = rows.dtype.type(0), rows.dtype.type(1), rounding_of(rows)
    bound, total, first = number(spec, BOUND, rows), zero, first_coefficient(spec, rows, t)
    around = bound + bound
    for i in range(spec[DEGREE]):
        total += increment(spec, rows, t, i)
    rise = value - first
    inner = within(rise, zero, total)
    place, low, high, last = inner / total, zero, one, total + total
    for _ in range(MOST_STEPS):
        found, slope, _ = evaluate(spec, place, rows, t, basis)
        new, low, high = newton_step(place, found - inner, slope * around, low, high, last, one)
        last, moved = abs(found - inner), abs(new - place)
        place = new
        if moved <= rounding * place:
            break
    _, slope, _ = evaluate(spec, place, rows, t, basis)
    return within(around * place - bound, -bound, bound) + (rise - inner) / slope, vecmath.log(slope)


@inlined
def value_vjp(spec, value, rows, t, dy, dlog, basis, gradient):
    """dL/dx; in place of constrained parameters the gradient of raw ones.

    With the basis b of degree N - 1, dy/du_j is the sum of the basis of degree N beyond j, d(dy/dX)/du_j = N b_j.
    """
    n, p, real = spec[DEGREE], spec[PARAMETERS], rows.dtype.type
    zero, one = real(0), real(1)
    if is_identity(spec, value, rows):
        for j in range(p):
            rows[j, t] = zero
        return dy
    place, inner = place_of(spec, value, rows)
    _, slope, bend = evaluate(spec, place, rows, t, basis)
    bound = number(spec, BOUND, rows)
    outside = value < -bound or value > bound
    dx = dy * slope if outside else dy * slope + dlog * bend
    of_slope = (dlog / slope + dy * (value - inner)) * real(n) / (bound + bound)
    fill_basis(place, n - 1, basis, t)
    beyond = zero
    for j in range(n - 1, -1, -1):
        beyond += place * basis[j, t] + ((one - place) * basis[j + 1, t] if j < n - 1 else zero)
        gradient[j, t] = dy * beyond + of_slope * basis[j, t]
    leave(spec, rows, t, dy, gradient)
    return dx


@inlined
def leave(spec, rows, t, dy, gradient):
    """From the gradient of increments that of raw parameters, in their place."""
    n, p, real = spec[DEGREE], spec[PARAMETERS], rows.dtype.type
    if spec[BOUNDED] > 0:
        scale, _ = shared(spec, rows)
        mean = real(0)
        for j in range(p):
            mean += rows[j, t] * gradient[j + 2, t]
        for j in range(p):
            rows[j, t] *= scale * (gradient[j + 2, t] - mean)
        return
    gradient[1, t] += gradient[0, t]
    gradient[n - 2, t] += gradient[n - 1, t]
    rows[0, t] = dy
    for j in range(1, p):
        rows[j, t] = -gradient[j, t] * vecmath.expm1(-rows[j, t])


@kernel
def forward(spec, theta, x, raw, log_det, temp):
    """y = f(x) and log_det += log dy/dx; raw parameters become constrained ones."""
    p, basis = spec[PARAMETERS], temp[spline.SCRATCH :]
    for i in range(x.shape[0]):
        rows = raw[i * p : (i + 1) * p]
        constrain(spec, rows, temp[: spline.SCRATCH])
        for t in range(x.shape[1]):
            x[i, t], log_slope = forward_of(spec, x[i, t], rows, t, basis)
            log_det[t] += log_slope


@kernel
def inverse(spec, theta, x, raw, log_det, temp):
    """x = f^-1(y) and log_det -= log dy/dx; raw parameters become constrained ones."""
    p, basis = spec[PARAMETERS], temp[spline.SCRATCH :]
    for i in range(x.shape[0]):
        rows = raw[i * p : (i + 1) * p]
        constrain(spec, rows, temp[: spline.SCRATCH])
        for t in range(x.shape[1]):
            x[i, t], log_slope = inverse_of(spec, x[i, t], rows, t, basis)
            log_det[t] -= log_slope


@kernel
def forward_vjp(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """dx: dL/dy in, dL/dx out; raw: constrained parameters in, the gradient of the raw ones out."""
    p, a = spec[PARAMETERS], spline.SCRATCH
    b = a + spec[DEGREE]
    for i in range(x.shape[0]):
        rows = raw[i * p : (i + 1) * p]
        for t in range(x.shape[1]):
            dx[i, t] = value_vjp(spec, x[i, t], rows, t, dx[i, t], dlog_det[t], temp[a:b], temp[b:])


@kernel
def solve(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """dx = (dx - dlog_det d(log dy/dx)/dx) / (dy/dx): what an inverse's gradient needs."""
    p, basis, bound = spec[PARAMETERS], temp[spline.SCRATCH :], number(spec, BOUND, raw)
    for i in range(x.shape[0]):
        rows = raw[i * p : (i + 1) * p]
        for t in range(x.shape[1]):
            value = x[i, t]
            if not is_identity(spec, value, raw):
                place, _ = place_of(spec, value, rows)
                _, slope, bend = evaluate(spec, place, rows, t, basis)
                outside = value < -bound or value > bound
                dx[i, t] = dx[i, t] / slope if outside else (dx[i, t] - dlog_det[t] * bend) / slope


def pack(operation: operations.Bernstein, value: int | None) -> list[int]:
    """Pack the spec of the map."""
    numbers = bits(operation.tail_bound, operation.increment_shift)
    return [operation.num_parameters, operation.degree, int(operation.bounded), *numbers]


ROLES = {"forward": forward, "inverse": inverse, "vjp": forward_vjp, "solve": solve}
KERNELS[operations.Bernstein] = MapKernels(
    lambda operation: ROLES, pack, lambda operation, n: spline.SCRATCH + 2 * operation.degree
)
