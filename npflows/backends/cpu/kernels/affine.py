"""The affine scalar map, as couplings use it and as masked autoregressive layers do.

Raw parameters of a value are two rows, (t, r), and s is the log-scale that r gives:

    scale first (RealNVP, arXiv:1605.08803, equation 8):   y = x * exp(s) + t,       log dy/dx = s
    shift first (MAF, arXiv:1705.07057, equation 4):       y = (x - t) * exp(-s),    log dy/dx = -s

s is clamped once, where exp would leave the range of the dtype, and the clamped value is used everywhere.  `forward` and
`inverse` leave in r's row what the vjp needs: tanh(r), the logarithm of a sigmoid or softplus and the least scale, or r
clipped or clamped.
"""

from __future__ import annotations

import math

from npflows.backends.cpu.compiler.calls import as_real, flat
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.link import KERNELS, ONE_LANE_TWINS, MapKernels, bits
from npflows.core import operations

NONE, TANH, TANH_GAIN, SIGMOID, SOFTPLUS = map(
    operations.SCALE_ACTIVATIONS.index, ("none", "tanh", "tanh_gain", "sigmoid", "softplus")
)
SOFT_CLIP, HARD_CLIP, TANH_CLIP, SIGMOID_CLIP, ATAN_CLIP = map(operations.SCALE_ACTIVATIONS.index, operations.CLIPS)
SIGMOID_AND_LEAST = len(operations.SCALE_ACTIVATIONS)
MULTIPLIER = operations.Affine.multiplier
OFFSET = operations.Affine.sigmoid_offset
# spec: the activation, how many gains there are, which the values take in turn, and the bits of the least scale, or of the
# bound of a clip, and of the largest log-scale
ACTIVATION, N_GAINS, LEAST, TOP = range(4)


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
def least_of(spec, like):
    """The least scale, in the dtype of `like`."""
    return like.dtype.type(as_real(spec[LEAST]))


@inlined
def top_of(spec, like):
    """The largest log-scale, in the dtype of `like`."""
    return like.dtype.type(as_real(spec[TOP]))


@inlined
def with_least(activation, r, least, top, offset):
    """log(softplus(r) + least), or log(sigmoid(r + 2) + least), but not above `top`; NaN stays NaN."""
    scale = vecmath.softplus(r) if activation == SOFTPLUS else vecmath.sigmoid(r + offset)
    s = vecmath.log(scale + least)
    return top if s > top else s


@inlined
def slope_with_least(activation, s, least, top, one):
    """ds/dr of the two, from s alone: with the scale u = exp(s) - least, (1 - exp(-u)) / exp(s), or u (1 - u) / exp(s); 0
    where s is `top`."""
    whole = vecmath.exp(s)
    u = whole - least
    slope = -vecmath.expm1(-u) / whole if activation == SOFTPLUS else u * (one - u) / whole
    return slope if s < top else one - one


@inlined
def soft_clip(r, bound, one):
    """r / (1 + |r| / bound); NaN stays NaN."""
    return r / (one + abs(r) / bound)


@inlined
def soft_clip_slope(s, bound, one):
    """ds/dr from s: (1 - |s| / bound)^2."""
    rest = one - abs(s) / bound
    return rest * rest


@inlined
def is_clip(spec):
    """Whether the activation is one of the clips after the soft one."""
    return HARD_CLIP <= spec[ACTIVATION] <= ATAN_CLIP


@inlined
def clip(activation, r, bound, top, one):
    """r between -bound and top, bound tanh(r), bound tanh(r / 2) or bound arctan(r); NaN stays NaN."""
    if activation == HARD_CLIP:
        s = top if r > top else r
        return -bound if s < -bound else s
    if activation == TANH_CLIP:
        return bound * vecmath.tanh(r)
    if activation == SIGMOID_CLIP:
        return bound * vecmath.tanh(r / (one + one))
    return bound * vecmath.arctan(r)


@inlined
def clip_slope(activation, s, bound, top, one):
    """ds/dr of these from s: 1 within the ends, bound (1 - (s / bound)^2) or half of it, bound cos(s / bound)^2."""
    if activation == HARD_CLIP:
        return one if -bound < s < top else one - one
    if activation == ATAN_CLIP:
        two = one + one
        cosine = vecmath.cospi(s / (bound * two * two * vecmath.arctan(one)))  # of s / bound, as arctan(1) = pi / 4
        return bound * cosine * cosine
    slope = bound * (one - (s / bound) * (s / bound))
    return slope if activation == TANH_CLIP else slope / (one + one)


@inlined
def activate_scales(spec, raw):
    """Every second row of raw, the r, becomes tanh(r), log sigmoid(r + 2) or what there is with a least scale, or r
    clipped or clamped."""
    limit, offset = limit_of(raw), raw.dtype.type(OFFSET)
    for i in range(raw.shape[0] // MULTIPLIER):
        row = raw[2 * i + 1]
        if spec[ACTIVATION] == NONE:
            for t in range(row.size):
                row[t] = clamp(row[t], limit)
        elif spec[ACTIVATION] == SIGMOID:
            for t in range(row.size):
                row[t] = -vecmath.softplus(-(row[t] + offset))
        elif spec[ACTIVATION] == SOFT_CLIP:
            bound, one = least_of(spec, raw), raw.dtype.type(1)
            for t in range(row.size):
                row[t] = soft_clip(row[t], bound, one)
        elif is_clip(spec):
            bound, top, one = least_of(spec, raw), top_of(spec, raw), raw.dtype.type(1)
            for t in range(row.size):
                row[t] = clip(spec[ACTIVATION], row[t], bound, top, one)
        elif spec[ACTIVATION] >= SOFTPLUS:
            least, top = least_of(spec, raw), top_of(spec, raw)
            for t in range(row.size):
                row[t] = with_least(spec[ACTIVATION], row[t], least, top, offset)
        else:
            for t in range(row.size):
                row[t] = vecmath.tanh(row[t])


@inlined
def gain_of(spec, theta, i):
    """The factor that takes an activated row to s."""
    return theta[i if i < spec[N_GAINS] else i % spec[N_GAINS]] if spec[ACTIVATION] == TANH_GAIN else theta.dtype.type(1)


@inlined(distinct=True)
def apply_row(x, shift, scale, log_det, gain, limit):
    """x = x * exp(s) + t for one value, s = gain * scale clamped; log_det += s."""
    for t in range(x.size):
        s = clamp(gain * scale[t], limit)
        x[t] = x[t] * vecmath.exp(s) + shift[t]
    for t in range(x.size):  # a loop of its own: numbers of two widths are vectorized for the wider ones
        log_det[t] += clamp(gain * scale[t], limit)


@inlined(distinct=True)
def undo_row(x, shift, scale, log_det, gain, limit):
    """x = (x - t) * exp(-s) for one value, s = gain * scale clamped; log_det -= s."""
    for t in range(x.size):
        s = clamp(gain * scale[t], limit)
        x[t] = (x[t] - shift[t]) * vecmath.exp(-s)
    for t in range(x.size):
        log_det[t] -= clamp(gain * scale[t], limit)


@kernel
def apply(spec, theta, x, raw, log_det, temp):
    """x = x * exp(s) + t."""
    activate_scales(spec, raw)
    for i in range(x.shape[0]):
        apply_row(x[i], raw[2 * i], raw[2 * i + 1], log_det, gain_of(spec, theta, i), limit_of(x))


@kernel
def undo(spec, theta, x, raw, log_det, temp):
    """x = (x - t) * exp(-s)."""
    activate_scales(spec, raw)
    for i in range(x.shape[0]):
        undo_row(x[i], raw[2 * i], raw[2 * i + 1], log_det, gain_of(spec, theta, i), limit_of(x))


@inlined(distinct=True)
def apply_row_vjp(x, shift, scale, dx, dlog_det, ds, gain, limit):
    """dx = dy exp(s), dt = dy (left in `shift`), ds = dx x + dlog_det, or 0 where s is clamped."""
    zero = x.dtype.type(0)
    for t in range(x.size):
        dy, s = dx[t], gain * scale[t]
        d = dy * vecmath.exp(clamp(s, limit))
        shift[t], dx[t] = dy, d
        ds[t] = d * x[t] + dlog_det[t] if abs(s) < limit else zero


@inlined(distinct=True)
def undo_row_vjp(x, shift, scale, dx, dlog_det, ds, gain, limit):
    """dx = dy exp(-s), dt = -dx (left in `shift`), ds = -dx (x - t) - dlog_det, or 0 where s is clamped."""
    zero = x.dtype.type(0)
    for t in range(x.size):
        s = gain * scale[t]
        d = dx[t] * vecmath.exp(-clamp(s, limit))
        ds[t] = -d * (x[t] - shift[t]) - dlog_det[t] if abs(s) < limit else zero
        shift[t], dx[t] = -d, d


@inlined(distinct=True, reassociate=True)
def tanh_row_vjp(scale, ds, gain):
    """From the gradient of gain * tanh(r) that of r, left in `scale`; returns that of the gain."""
    total, one = scale.dtype.type(0), scale.dtype.type(1)
    for t in range(scale.size):
        d, value = ds[t], scale[t]
        total += d * value
        scale[t] = d * gain * (one - value * value)
    return total


@inlined
def scale_vjp(spec, theta, dtheta, i, scale, ds):
    """Turn ds (lanes,), the gradient of s, into that of r, left in `scale`; the gain's gradient goes to dtheta."""
    one = scale.dtype.type(1)
    if spec[ACTIVATION] == NONE:
        for t in range(scale.size):
            scale[t] = ds[t]
    elif spec[ACTIVATION] == SIGMOID:
        for t in range(scale.size):
            scale[t] = ds[t] * (one - vecmath.exp(scale[t]))
    elif spec[ACTIVATION] == SOFT_CLIP:
        bound = least_of(spec, scale)
        for t in range(scale.size):
            scale[t] = ds[t] * soft_clip_slope(scale[t], bound, one)
    elif is_clip(spec):
        bound, top = least_of(spec, scale), top_of(spec, scale)
        for t in range(scale.size):
            scale[t] = ds[t] * clip_slope(spec[ACTIVATION], scale[t], bound, top, one)
    elif spec[ACTIVATION] >= SOFTPLUS:
        least, top = least_of(spec, scale), top_of(spec, scale)
        for t in range(scale.size):
            scale[t] = ds[t] * slope_with_least(spec[ACTIVATION], scale[t], least, top, one)
    else:
        total = tanh_row_vjp(scale, ds, gain_of(spec, theta, i))
        if spec[ACTIVATION] == TANH_GAIN and dtheta.size > 0:
            dtheta[i % spec[N_GAINS]] += total


@kernel
def apply_vjp(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """dx: dL/dy in, dL/dx out; raw: its gradient on return; x is what went in."""
    ds = temp[0]
    for i in range(x.shape[0]):
        apply_row_vjp(x[i], raw[2 * i], raw[2 * i + 1], dx[i], dlog_det, ds, gain_of(spec, theta, i), limit_of(x))
        scale_vjp(spec, theta, dtheta, i, raw[2 * i + 1], ds)


@kernel
def undo_vjp(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """The same for `undo`."""
    ds = temp[0]
    for i in range(x.shape[0]):
        undo_row_vjp(x[i], raw[2 * i], raw[2 * i + 1], dx[i], dlog_det, ds, gain_of(spec, theta, i), limit_of(x))
        scale_vjp(spec, theta, dtheta, i, raw[2 * i + 1], ds)


@kernel
def apply_solve(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """dx = dx / (dy/dx): what an inverse's gradient needs; log dy/dx does not depend on x, so dlog_det has no part."""
    limit = limit_of(x)
    for i in range(x.shape[0]):
        gain, scale = gain_of(spec, theta, i), raw[2 * i + 1]
        for t in range(x.shape[1]):
            dx[i, t] *= vecmath.exp(-clamp(gain * scale[t], limit))


@kernel
def undo_solve(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """The same for `undo`."""
    limit = limit_of(x)
    for i in range(x.shape[0]):
        gain, scale = gain_of(spec, theta, i), raw[2 * i + 1]
        for t in range(x.shape[1]):
            dx[i, t] *= vecmath.exp(clamp(gain * scale[t], limit))


@inlined(distinct=True)
def scales_of_one(spec, theta, raw, s, limit):
    """s, clamped, of all values of the one lane, of which raw has (t, r) side by side; r is activated in place."""
    offset = raw.dtype.type(OFFSET)
    if spec[ACTIVATION] == NONE:
        for i in range(s.size):
            raw[2 * i + 1] = clamp(raw[2 * i + 1], limit)
    elif spec[ACTIVATION] == SIGMOID:
        for i in range(s.size):
            raw[2 * i + 1] = -vecmath.softplus(-(raw[2 * i + 1] + offset))
    elif spec[ACTIVATION] == SOFT_CLIP:
        bound, one = least_of(spec, raw), raw.dtype.type(1)
        for i in range(s.size):
            raw[2 * i + 1] = soft_clip(raw[2 * i + 1], bound, one)
    elif is_clip(spec):
        bound, top, one = least_of(spec, raw), top_of(spec, raw), raw.dtype.type(1)
        for i in range(s.size):
            raw[2 * i + 1] = clip(spec[ACTIVATION], raw[2 * i + 1], bound, top, one)
    elif spec[ACTIVATION] >= SOFTPLUS:
        least, top = least_of(spec, raw), top_of(spec, raw)
        for i in range(s.size):
            raw[2 * i + 1] = with_least(spec[ACTIVATION], raw[2 * i + 1], least, top, offset)
    else:
        for i in range(s.size):
            raw[2 * i + 1] = vecmath.tanh(raw[2 * i + 1])
    scaled(spec, theta, raw, s)
    for i in range(s.size):
        s[i] = clamp(s[i], limit)


@inlined(distinct=True)
def scaled(spec, theta, raw, s):
    """s of all values of the one lane, from activated rows, not clamped."""
    if spec[ACTIVATION] == TANH_GAIN and spec[N_GAINS] >= s.size:
        for i in range(s.size):
            s[i] = theta[i] * raw[2 * i + 1]
    else:
        for i in range(s.size):
            s[i] = gain_of(spec, theta, i) * raw[2 * i + 1]


@inlined(distinct=True)
def map_one(x, raw, s, log_det, forward):
    """x exp(s) + t, or (x - t) exp(-s), of the values of the one lane; log_det += s, or -= s, in their order."""
    if forward:
        for i in range(x.size):
            x[i] = x[i] * vecmath.exp(s[i]) + raw[2 * i]
        for i in range(x.size):
            log_det[0] += s[i]
    else:
        for i in range(x.size):
            x[i] = (x[i] - raw[2 * i]) * vecmath.exp(-s[i])
        for i in range(x.size):
            log_det[0] -= s[i]


@kernel
def apply_of_one(spec, theta, x, raw, log_det, temp):
    """`apply` for a block of one lane."""
    s = flat(temp[: x.shape[0]])
    scales_of_one(spec, theta, flat(raw), s, limit_of(x))
    map_one(flat(x), flat(raw), s, log_det, True)


@kernel
def undo_of_one(spec, theta, x, raw, log_det, temp):
    """`undo` for a block of one lane."""
    s = flat(temp[: x.shape[0]])
    scales_of_one(spec, theta, flat(raw), s, limit_of(x))
    map_one(flat(x), flat(raw), s, log_det, False)


@inlined(distinct=True)
def slopes_of_one(x, raw, s, dx, ds, dlog_det, limit, forward):
    """`apply_row_vjp`, or `undo_row_vjp`, for the values of the one lane."""
    zero, m = x.dtype.type(0), dlog_det[0]
    if forward:
        for i in range(x.size):
            dy = dx[i]
            d = dy * vecmath.exp(clamp(s[i], limit))
            raw[2 * i], dx[i] = dy, d
            ds[i] = d * x[i] + m if abs(s[i]) < limit else zero
    else:
        for i in range(x.size):
            d = dx[i] * vecmath.exp(-clamp(s[i], limit))
            ds[i] = -d * (x[i] - raw[2 * i]) - m if abs(s[i]) < limit else zero
            raw[2 * i], dx[i] = -d, d


@inlined(distinct=True)
def scales_vjp_of_one(spec, theta, raw, ds):
    """`scale_vjp` for the values of the one lane, without gradients of gains."""
    one = raw.dtype.type(1)
    if spec[ACTIVATION] == NONE:
        for i in range(ds.size):
            raw[2 * i + 1] = ds[i]
    elif spec[ACTIVATION] == SIGMOID:
        for i in range(ds.size):
            raw[2 * i + 1] = ds[i] * (one - vecmath.exp(raw[2 * i + 1]))
    elif spec[ACTIVATION] == SOFT_CLIP:
        bound = least_of(spec, raw)
        for i in range(ds.size):
            raw[2 * i + 1] = ds[i] * soft_clip_slope(raw[2 * i + 1], bound, one)
    elif is_clip(spec):
        bound, top = least_of(spec, raw), top_of(spec, raw)
        for i in range(ds.size):
            raw[2 * i + 1] = ds[i] * clip_slope(spec[ACTIVATION], raw[2 * i + 1], bound, top, one)
    elif spec[ACTIVATION] >= SOFTPLUS:
        least, top = least_of(spec, raw), top_of(spec, raw)
        for i in range(ds.size):
            raw[2 * i + 1] = ds[i] * slope_with_least(spec[ACTIVATION], raw[2 * i + 1], least, top, one)
    elif spec[ACTIVATION] == TANH_GAIN and spec[N_GAINS] >= ds.size:
        for i in range(ds.size):
            value = raw[2 * i + 1]
            raw[2 * i + 1] = ds[i] * theta[i] * (one - value * value)
    else:
        for i in range(ds.size):
            value = raw[2 * i + 1]
            raw[2 * i + 1] = ds[i] * gain_of(spec, theta, i) * (one - value * value)


@inlined
def map_vjp_of_one(spec, theta, x, raw, dx, dlog_det, temp, forward):
    """The gradients of the one lane."""
    n = x.shape[0]
    s, ds = flat(temp[:n]), flat(temp[n : 2 * n])
    scaled(spec, theta, flat(raw), s)
    slopes_of_one(flat(x), flat(raw), s, flat(dx), ds, dlog_det, limit_of(x), forward)
    scales_vjp_of_one(spec, theta, flat(raw), ds)


@kernel
def apply_vjp_of_one(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """`apply_vjp` for a block of one lane."""
    map_vjp_of_one(spec, theta, x, raw, dx, dlog_det, temp, True)


@kernel
def undo_vjp_of_one(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """`undo_vjp` for a block of one lane."""
    map_vjp_of_one(spec, theta, x, raw, dx, dlog_det, temp, False)


SHIFT_FIRST = {"forward": undo, "inverse": apply, "vjp": undo_vjp, "solve": undo_solve}
SCALE_FIRST = {"forward": apply, "inverse": undo, "vjp": apply_vjp, "solve": apply_solve}


def pack(operation: operations.Affine, value: int | None) -> list[int]:
    """Pack the spec of the map; where each value has a gain of its own, their number is one that no index reaches."""
    activation = operations.SCALE_ACTIVATIONS.index(operation.scale_activation)
    if activation == SIGMOID and operation.least:
        activation = SIGMOID_AND_LEAST
    number = -math.log(operation.least) if operation.scale_activation in operations.CLIPS else operation.least
    if activation == ATAN_CLIP:
        number *= operation.atan_factor
    return [activation, operation.n_gains or 1 << 40, *bits(number, math.log(operation.most))]


KERNELS[operations.Affine] = MapKernels(
    lambda operation: SHIFT_FIRST if operation.shift_first else SCALE_FIRST, pack, lambda operation, n: 2 * n
)
ONE_LANE_TWINS.update({apply: apply_of_one, undo: undo_of_one, apply_vjp: apply_vjp_of_one, undo_vjp: undo_vjp_of_one})
