"""The rational-quadratic spline whose raw parameters are clipped softly, or whose values are turned, before.

With L = -log(least slope), raw widths and heights r become r / (1 + |2 r| / L), and derivatives exp(r / (1 + |r| / L)); a
turned value x is (x mod 2 B) - B.  Raw parameters stay as they are: what the spline's own kernels make of those of one
value lies in scratch memory, and is made again for gradients.
"""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import spline, vecmath
from npflows.backends.cpu.kernels.spline import BINS, BOUND, CLIP, CLIPPED_ROLES, MULTIPLIER, SCRATCH, SHIFT, TURNED, number

# temp: the spline's scratch, a turned value, raw parameters of one value as the spline has them


@inlined
def parts(spec, temp):
    """The spline's scratch, a row for a value and rows for its raw parameters."""
    first = SCRATCH + 1
    return spline.scratch_in(temp), temp[SCRATCH:first], temp[first : first + spec[MULTIPLIER]]


@inlined
def turn(spec, row):
    """x = (x mod 2 B) - B, which is its own inverse; NaN stays NaN."""
    if spec[TURNED] > 0:
        bound = number(spec, BOUND, row)
        around = bound + bound
        for t in range(row.size):
            row[t] = row[t] - around * np.floor(row[t] / around) - bound


@inlined
def clip(spec, raw, own):
    """own (multiplier, lanes): from raw parameters of one value those of the spline; a derivative d is the softplus of
    log(exp(d) - 1)."""
    limit, one = number(spec, CLIP, raw), raw.dtype.type(1)
    shift, n_sizes = number(spec, SHIFT, raw), 2 * spec[BINS]
    for k in range(raw.shape[0]):
        for t in range(raw.shape[1]):
            r = raw[k, t]
            if limit > 0 and k < n_sizes:
                r = r / (one + abs(r + r) / limit)
            elif limit > 0:
                d = vecmath.exp(r / (one + abs(r) / limit))
                r = d + vecmath.log(-vecmath.expm1(-d)) - shift
            own[k, t] = r


@inlined
def clip_vjp(spec, raw, own):
    """raw: raw parameters in, their gradient out, from that of the spline's in `own`.

    With s = r / (1 + |r| / b), ds/dr = 1 / (1 + |r| / b)^2; and of log(exp(d) - 1) with d = exp(s), the derivative by s is
    d / (1 - exp(-d)).
    """
    limit, one, n_sizes = number(spec, CLIP, raw), raw.dtype.type(1), 2 * spec[BINS]
    for k in range(raw.shape[0]):
        for t in range(raw.shape[1]):
            r, gradient = raw[k, t], own[k, t]
            if limit > 0 and k < n_sizes:
                share = one / (one + abs(r + r) / limit)
                gradient *= share * share
            elif limit > 0:
                share = one / (one + abs(r) / limit)
                d = vecmath.exp(r * share)
                gradient *= share * share * d / -vecmath.expm1(-d)
            raw[k, t] = gradient


@inlined
def own_of(spec, raw, i, own, scratch):
    """Raw parameters (multiplier, lanes) of the i-th value, from which `own` is filled, its sizes as probabilities."""
    rows = raw[i * spec[MULTIPLIER] : (i + 1) * spec[MULTIPLIER]]
    clip(spec, rows, own)
    spline.constrain(spec, own, scratch)
    return rows


@inlined
def turned(spec, x, value):
    """A copy (1, lanes) of a row of values, turned."""
    for t in range(x.size):
        value[0, t] = x[t]
    turn(spec, value[0])
    return value[0]


@kernel
def forward(spec, theta, x, raw, log_det, temp):
    """y = f(x) and log_det += log dy/dx; raw parameters stay."""
    scratch, _, own = parts(spec, temp)
    for i in range(x.shape[0]):
        own_of(spec, raw, i, own, scratch)
        turn(spec, x[i])
        spline.evaluate(spec, x[i : i + 1], own, log_det, scratch, True)


@kernel
def inverse(spec, theta, x, raw, log_det, temp):
    """x = f^-1(y) and log_det -= log dy/dx; raw parameters stay."""
    scratch, _, own = parts(spec, temp)
    for i in range(x.shape[0]):
        own_of(spec, raw, i, own, scratch)
        spline.evaluate_inverse(spec, x[i : i + 1], own, log_det, scratch, True)
        turn(spec, x[i])


@kernel
def forward_vjp(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """dx: dL/dy in, dL/dx out; raw: raw parameters in, their gradient out."""
    scratch, value, own = parts(spec, temp)
    for i in range(x.shape[0]):
        rows = own_of(spec, raw, i, own, scratch)
        spline.value_vjp(spec, turned(spec, x[i], value), own, 0, dx[i], dlog_det, scratch)
        clip_vjp(spec, rows, own)


@kernel
def solve(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """dx = (dx - dlog_det d(log dy/dx)/dx) / (dy/dx)."""
    scratch, value, own = parts(spec, temp)
    for i in range(x.shape[0]):
        own_of(spec, raw, i, own, scratch)
        spline.solve_value(spec, turned(spec, x[i], value), own, 0, dx[i], dlog_det, scratch)


CLIPPED_ROLES.update({"forward": forward, "inverse": inverse, "vjp": forward_vjp, "solve": solve})
