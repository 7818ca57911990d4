"""Images of whole-number pixels as a support, in the formulas of `npflows.support.pixels`, for float64 tables of rows."""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.jit import inlined
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.kernels.column_supports import log_sigmoid, within


@inlined
def share(levels, alpha, x):
    """alpha + (1 - 2 alpha) x / levels."""
    return alpha + (1 - 2 * alpha) * (x / levels)


@inlined
def log_slope(levels, alpha, u):
    """The logarithm of dt/dx where the share is u."""
    return vecmath.log((1 - 2 * alpha) / levels) - vecmath.log(u) - vecmath.log1p(-u)


@inlined
def to_line(levels, alpha, t, log_det, inside):
    """t (n, d), which holds x in [0, levels]; log_det += log |det dt/dx|; inside becomes 0 where a row is outside."""
    for i in range(t.shape[0]):
        for d in range(t.shape[1]):
            x = t[i, d]
            if x < 0 or x > levels:
                inside[i] = 0.0
                x = 0.5 * levels
            if alpha > 0:
                u = share(levels, alpha, x)
                log_det[i] += log_slope(levels, alpha, u)
                x = vecmath.log(u) - vecmath.log1p(-u)
            t[i, d] = x


@inlined
def to_line_vjp(levels, alpha, x, dt, dlog_det, dx):
    """dx (n, d), from the gradients of t and log_det."""
    for i in range(x.shape[0]):
        for d in range(x.shape[1]):
            dx[i, d] = dt[i, d]
            if alpha > 0:
                u = within(share(levels, alpha, x[i, d]), alpha, 1 - alpha)
                bend = (1 - 2 * alpha) / levels * (1 / (1 - u) - 1 / u)
                dx[i, d] = dt[i, d] * vecmath.exp(log_slope(levels, alpha, u)) + dlog_det[i] * bend


@inlined
def from_line(levels, alpha, x, log_det):
    """x (n, d), which holds t: dequantized values, perhaps a little outside [0, levels]; log_det += log |det dx/dt|."""
    if alpha == 0:
        return
    scale = levels / (1 - 2 * alpha)
    for i in range(x.shape[0]):
        for d in range(x.shape[1]):
            t = x[i, d]
            log_det[i] += vecmath.log(scale) + log_sigmoid(t) + log_sigmoid(-t)
            x[i, d] = scale * (vecmath.sigmoid(t) - alpha)


@inlined
def from_line_vjp(levels, alpha, t, dx, dlog_det, dt):
    """dt (n, d), from the gradients of x and log_det."""
    for i in range(t.shape[0]):
        for d in range(t.shape[1]):
            dt[i, d] = dx[i, d]
            if alpha > 0:
                p = vecmath.sigmoid(t[i, d])
                dt[i, d] = dx[i, d] * (levels / (1 - 2 * alpha)) * p * (1 - p) + dlog_det[i] * (1 - 2 * p)


@inlined
def level_of(x, levels):
    """The level of a value, the nearest one where it lies outside."""
    if np.isnan(x):
        return 0.0
    return within(np.floor(x), 0.0, levels - 1.0)
