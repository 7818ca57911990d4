"""Single columns of a support: half-lines, intervals and circles, in the formulas of `npflows.support.columns`.

All functions work on column d of a table of rows, in float64.
"""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.jit import inlined
from npflows.backends.cpu.kernels import vecmath
from npflows.core.operations import SUPPORT_KINDS

POSITIVE, BELOW, INTERVAL, PERIODIC = map(SUPPORT_KINDS.index, ("positive", "below", "interval", "periodic"))
LARGEST = float(np.finfo(np.float64).max)


@inlined
def within(x, low, high):
    """x kept between two ends; NaN stays NaN."""
    x = low if x < low else x
    return high if x > high else x


@inlined
def wrap(x, low, high):
    """The value on the circle in [low, high)."""
    wrapped = low + (x - low) % (high - low)
    return low if wrapped >= high else wrapped


@inlined
def contains(kind, low, high, x):
    """Whether a value is inside; NaN is not."""
    if kind == POSITIVE:
        return np.isfinite(x) and x > low
    if kind == BELOW:
        return np.isfinite(x) and x < high
    if kind == INTERVAL:
        return x > low and x < high
    return np.isfinite(x)


@inlined
def middle(kind, low, high):
    """Some value inside."""
    return low + 1.0 if kind == POSITIVE else high - 1.0 if kind == BELOW else 0.5 * (low + high)


@inlined
def bend(kind, low, high, x):
    """d log(dt/dx) / dx."""
    if kind == POSITIVE:
        return -1 / (x - low)
    if kind == BELOW:
        return 1 / (high - x)
    return 1 / (high - x) - 1 / (x - low) if kind == INTERVAL else 0.0


@inlined
def enter(kind, low, high, bound, log_width, x):
    """t and log dt/dx of a value inside; `log_width` is log(high - low), or on circles the logarithm of the slope."""
    if kind == POSITIVE:
        t = vecmath.log(x - low)
        return t, -t
    if kind == BELOW:
        t = -vecmath.log(high - x)
        return t, t
    if kind == INTERVAL:
        from_low, from_high = vecmath.log(x - low), vecmath.log(high - x)
        return from_low - from_high, log_width - from_low - from_high
    return bound * (2 * (wrap(x, low, high) - low) / (high - low) - 1), log_width


@inlined
def log_width_of(kind, low, high, bound):
    """What `enter` takes."""
    if kind == INTERVAL:
        return vecmath.log(high - low)
    return vecmath.log(2 * bound / (high - low)) if kind == PERIODIC else 0.0


@inlined
def to_line(kind, low, high, bound, d, t, log_det, inside):
    """t[:, d], which holds x; log_det += log dt/dx; inside becomes 0 where a value is outside."""
    log_width, instead = log_width_of(kind, low, high, bound), middle(kind, low, high)
    for i in range(t.shape[0]):
        x = t[i, d]
        if not contains(kind, low, high, x) and not np.isnan(x):
            inside[i] = 0.0
            x = instead
        t[i, d], more = enter(kind, low, high, bound, log_width, x)
        log_det[i] += more


@inlined
def to_line_vjp(kind, low, high, bound, d, x, dt, dlog_det, dx):
    """dx[:, d], from the gradients of t and log_det."""
    log_width, instead = log_width_of(kind, low, high, bound), middle(kind, low, high)
    for i in range(x.shape[0]):
        value = x[i, d] if contains(kind, low, high, x[i, d]) else instead
        _, log_slope = enter(kind, low, high, bound, log_width, value)
        dx[i, d] = dt[i, d] * vecmath.exp(log_slope) + dlog_det[i] * bend(kind, low, high, value)


@inlined
def log_sigmoid(t):
    """The logarithm of the logistic function."""
    return -vecmath.softplus(-t)


@inlined
def from_line(kind, low, high, bound, d, x, log_det):
    """x[:, d], which holds t, kept inside; log_det += log dx/dt."""
    width = high - low
    for i in range(x.shape[0]):
        t = x[i, d]
        if kind == POSITIVE:
            x[i, d] = within(low + vecmath.exp(t), np.nextafter(low, np.inf), LARGEST)
            log_det[i] += t
        elif kind == BELOW:
            x[i, d] = within(high - vecmath.exp(-t), -LARGEST, np.nextafter(high, -np.inf))
            log_det[i] -= t
        elif kind == INTERVAL:
            value = low + width * vecmath.sigmoid(t) if t < 0 else high - width * vecmath.sigmoid(-t)  # exact near its end
            x[i, d] = within(value, np.nextafter(low, high), np.nextafter(high, low))
            log_det[i] += vecmath.log(width) + log_sigmoid(t) + log_sigmoid(-t)
        else:
            x[i, d] = wrap(low + width * (t + bound) / (2 * bound), low, high)
            log_det[i] += vecmath.log(width / (2 * bound))


@inlined
def from_line_vjp(kind, low, high, bound, d, t, dx, dlog_det, dt):
    """dt[:, d], from the gradients of x and log_det."""
    width = high - low
    for i in range(t.shape[0]):
        value = t[i, d]
        log_slope, bend_back = value, 1.0
        if kind == BELOW:
            log_slope, bend_back = -value, -1.0
        elif kind == INTERVAL:
            log_slope = vecmath.log(width) + log_sigmoid(value) + log_sigmoid(-value)
            bend_back = -vecmath.tanh(0.5 * value)
        elif kind == PERIODIC:
            log_slope, bend_back = vecmath.log(width / (2 * bound)), 0.0
        dt[i, d] = dx[i, d] * vecmath.exp(log_slope) + dlog_det[i] * bend_back
