"""The affine scalar map, as couplings use it and as masked autoregressive layers do.

Raw parameters of a value are two rows, (t, r), and s is the log-scale that r gives (`SCALE_ACTIVATIONS`):

    scale first (RealNVP, arXiv:1605.08803, equation 8):   y = x * exp(s) + t,       log dy/dx = s
    shift first (MAF, arXiv:1705.07057, equation 4):       y = (x - t) * exp(-s),    log dy/dx = -s

s is clamped once, where exp would leave the range of the dtype, and the clamped value is used everywhere.  `forward` and
`inverse` leave in r's row what the vjp needs: tanh(r), or r clamped.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from npflows.engine.params import Parameter
from npflows.kernels import vecmath
from npflows.kernels.jit import inlined, kernel

NONE, TANH, TANH_GAIN = range(3)
SCALE_ACTIVATIONS = {"none": NONE, "tanh": TANH, "tanh_gain": TANH_GAIN}
MULTIPLIER = 2
FIRST_GAIN = 3.0
"""Where learned gains start: wide enough for sharp tables, and bounded, so that no outlier gets an absurd density."""


@inlined
def limit_of(array):
    """The largest log-scale: exp neither overflows nor vanishes."""
    return array.dtype.type(87.0 if array.itemsize == 4 else 708.0)


@inlined
def clamp(s, limit):
    """s within +-limit; NaN stays NaN."""
    s = limit if s > limit else s
    return -limit if s < -limit else s


@inlined
def activate_scales(spec, raw):
    """Every second row of raw, the r, becomes tanh(r), or r clamped."""
    limit = limit_of(raw)
    for i in range(raw.shape[0] // MULTIPLIER):
        row = raw[2 * i + 1]
        if spec[0] == NONE:
            for t in range(row.size):
                row[t] = clamp(row[t], limit)
        else:
            for t in range(row.size):
                row[t] = vecmath.tanh(row[t])


@inlined
def gain_of(spec, theta, i):
    """What an activated row is multiplied by to give s."""
    return theta[i] if spec[0] == TANH_GAIN else theta.dtype.type(1)


@kernel
def apply(spec, theta, x, raw, log_det):
    """x = x * exp(s) + t."""
    activate_scales(spec, raw)
    limit = limit_of(x)
    for i in range(x.shape[0]):
        gain, shift, scale = gain_of(spec, theta, i), raw[2 * i], raw[2 * i + 1]
        for t in range(x.shape[1]):
            s = clamp(gain * scale[t], limit)
            x[i, t] = x[i, t] * vecmath.exp(s) + shift[t]
            log_det[t] += s


@kernel
def undo(spec, theta, x, raw, log_det):
    """x = (x - t) * exp(-s)."""
    activate_scales(spec, raw)
    limit = limit_of(x)
    for i in range(x.shape[0]):
        gain, shift, scale = gain_of(spec, theta, i), raw[2 * i], raw[2 * i + 1]
        for t in range(x.shape[1]):
            s = clamp(gain * scale[t], limit)
            x[i, t] = (x[i, t] - shift[t]) * vecmath.exp(-s)
            log_det[t] -= s


@inlined
def scale_vjp(spec, theta, dtheta, i, scale, ds):
    """Turn ds (lanes,), the gradient of s, into that of r, left in `scale`; the gain's gradient goes to dtheta."""
    gain, limit = gain_of(spec, theta, i), limit_of(scale)
    zero, one = theta.dtype.type(0), theta.dtype.type(1)
    total = zero
    for t in range(scale.size):
        d = ds[t] if abs(gain * scale[t]) < limit else zero
        if spec[0] == NONE:
            scale[t] = d
        else:
            total += d * scale[t]
            scale[t] = d * gain * (one - scale[t] * scale[t])
    if spec[0] == TANH_GAIN and dtheta.size > 0:
        dtheta[i] += total


@kernel
def apply_vjp(spec, theta, x, raw, dx, dlog_det, dtheta):
    """dx: dL/dy in, dL/dx out; raw: its gradient on return; x is what went in."""
    ds, limit = np.empty_like(dlog_det), limit_of(x)
    for i in range(x.shape[0]):
        gain, shift, scale = gain_of(spec, theta, i), raw[2 * i], raw[2 * i + 1]
        for t in range(x.shape[1]):
            dy = dx[i, t]
            shift[t] = dy
            dx[i, t] = dy * vecmath.exp(clamp(gain * scale[t], limit))
            ds[t] = dx[i, t] * x[i, t] + dlog_det[t]
        scale_vjp(spec, theta, dtheta, i, scale, ds)


@kernel
def undo_vjp(spec, theta, x, raw, dx, dlog_det, dtheta):
    """The same for `undo`."""
    ds, limit = np.empty_like(dlog_det), limit_of(x)
    for i in range(x.shape[0]):
        gain, shift, scale = gain_of(spec, theta, i), raw[2 * i], raw[2 * i + 1]
        for t in range(x.shape[1]):
            d = dx[i, t] * vecmath.exp(-clamp(gain * scale[t], limit))
            ds[t] = -d * (x[i, t] - shift[t]) - dlog_det[t]
            dx[i, t] = d
            shift[t] = -d
        scale_vjp(spec, theta, dtheta, i, scale, ds)


@kernel
def apply_solve(spec, theta, x, raw, dx, dlog_det, dtheta):
    """dx = dx / (dy/dx): what an inverse's gradient needs; log dy/dx does not depend on x, so dlog_det has no part."""
    limit = limit_of(x)
    for i in range(x.shape[0]):
        gain, scale = gain_of(spec, theta, i), raw[2 * i + 1]
        for t in range(x.shape[1]):
            dx[i, t] *= vecmath.exp(-clamp(gain * scale[t], limit))


@kernel
def undo_solve(spec, theta, x, raw, dx, dlog_det, dtheta):
    """The same for `undo`."""
    limit = limit_of(x)
    for i in range(x.shape[0]):
        gain, scale = gain_of(spec, theta, i), raw[2 * i + 1]
        for t in range(x.shape[1]):
            dx[i, t] *= vecmath.exp(clamp(gain * scale[t], limit))


class Affine:
    """The affine scalar map.

    Parameters
    ----------
    scale_activation : {"tanh", "tanh_gain", "none"}
        How the log-scale comes from the raw parameter: its tanh, that times a learned gain for each value, or itself.
    shift_first : bool
        y = (x - t) * exp(-s) instead of y = x * exp(s) + t.
    """

    multiplier = MULTIPLIER

    def __init__(self, scale_activation: str, *, shift_first: bool = False) -> None:
        self.scale_activation, self.shift_first = scale_activation, shift_first

    @property
    def kernels(self) -> dict[str, Callable]:
        chosen = (undo, apply, undo_vjp, undo_solve) if self.shift_first else (apply, undo, apply_vjp, apply_solve)
        return dict(zip(("forward", "inverse", "vjp", "solve"), chosen))

    def parameters(self, n: int) -> list[Parameter]:
        """Parameters of the map of n values, besides those that a conditioner gives."""
        return [Parameter("gain", np.full(n, FIRST_GAIN))] if self.scale_activation == "tanh_gain" else []

    @property
    def theta_per_value(self) -> int:
        return 1 if self.scale_activation == "tanh_gain" else 0

    def spec(self, value: int | None = None) -> list[int]:
        """The integers that the kernels read, for all values or for one of them."""
        return [SCALE_ACTIVATIONS[self.scale_activation]]
