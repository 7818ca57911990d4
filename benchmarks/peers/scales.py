"""The scalar maps of the peers as operations of npflows, forward and inverse only, so that weights can be carried over.

An affine map is y = x * s(r) + t (or x -> (x - t) / s(r) where the shift comes first), with s one of

    softplus(r + offset) + least,  sigmoid(r + offset) + least,  exp(r / (1 + |r / log least|)),  exp(r)

and zuko's spline has its own way from raw parameters to bins, after which it is npflows' spline.  Each is a subclass of an
operation of npflows, with an entry of its own in the table of kernels.
"""

from __future__ import annotations

import dataclasses
import math

from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import affine, spline, vecmath
from npflows.backends.cpu.kernels.spline import number, rows_of, scratch_in, softmax
from npflows.backends.cpu.link import KERNELS, Function, MapKernels, bits
from npflows.core import operations

SCALES = {"softplus": 0, "sigmoid": 1, "soft clip": 2, "exp": 3}
# spec of an affine map: which scale, then the bits of offset and least as float64
SCALE, OFFSET, LEAST = range(3)


@inlined
def scale_of(spec, r):
    """s(r), in the dtype of r."""
    real = r.dtype.type
    offset, least = number(spec, OFFSET, r), number(spec, LEAST, r)
    for t in range(r.size):
        if spec[SCALE] == 0:
            r[t] = vecmath.softplus(r[t] + offset) + least
        elif spec[SCALE] == 1:
            r[t] = vecmath.sigmoid(r[t] + offset) + least
        elif spec[SCALE] == 2:
            r[t] = vecmath.exp(r[t] / (real(1) + abs(r[t] / least)))
        else:
            r[t] = vecmath.exp(r[t])


@kernel
def multiply(spec, theta, x, raw, log_det, temp):
    """x = x * s + t."""
    for i in range(x.shape[0]):
        shift, scale = raw[2 * i], raw[2 * i + 1]
        scale_of(spec, scale)
        for t in range(x.shape[1]):
            x[i, t] = x[i, t] * scale[t] + shift[t]
            log_det[t] += vecmath.log(scale[t])


@kernel
def divide(spec, theta, x, raw, log_det, temp):
    """x = (x - t) / s."""
    for i in range(x.shape[0]):
        shift, scale = raw[2 * i], raw[2 * i + 1]
        scale_of(spec, scale)
        for t in range(x.shape[1]):
            x[i, t] = (x[i, t] - shift[t]) / scale[t]
            log_det[t] -= vecmath.log(scale[t])


@dataclasses.dataclass(frozen=True)
class PeerAffine(operations.Affine):
    """A peer's affine map; its gradient is not carried over."""

    scale_activation: str = "none"
    scale: str = "exp"
    offset: float = 0.0
    least: float = 0.0


def affine_roles(operation: PeerAffine) -> dict[str, Function]:
    forward, inverse = (divide, multiply) if operation.shift_first else (multiply, divide)
    return {"forward": forward, "inverse": inverse, "vjp": affine.apply_vjp, "solve": affine.apply_solve}


def pack_affine(operation: PeerAffine, value: int | None) -> list[int]:
    least = math.log(operation.least) if operation.scale == "soft clip" else operation.least
    return [SCALES[operation.scale], *bits(operation.offset, least)]


KERNELS[PeerAffine] = MapKernels(affine_roles, pack_affine, lambda operation, n: 2 * n)


@inlined
def soft_clip(rows, limit):
    """rows / (1 + |rows / limit|)."""
    one = rows.dtype.type(1)
    for k in range(rows.shape[0]):
        for t in range(rows.shape[1]):
            rows[k, t] = rows[k, t] / (one + abs(rows[k, t] / limit))


@inlined
def constrain(spec, raw, scratch):
    """zuko's: soft clips, then a softmax for sizes and an exponential for slopes.  The logarithm of the least slope lies in
    the place of npflows' least derivative."""
    limit = number(spec, spline.MIN_DERIVATIVE, raw)
    for i in range(raw.shape[0] // spec[spline.MULTIPLIER]):
        widths, heights, slopes = rows_of(spec, raw, i)
        for sizes in (widths, heights):
            soft_clip(sizes, limit / raw.dtype.type(2))
            softmax(sizes, scratch)
        soft_clip(slopes, limit)
        for k in range(slopes.shape[0]):
            for t in range(slopes.shape[1]):
                slopes[k, t] = vecmath.exp(slopes[k, t])


@kernel
def spline_forward(spec, theta, x, raw, log_det, temp):
    scratch = scratch_in(temp)
    constrain(spec, raw, scratch)
    spline.evaluate(spec, x, raw, log_det, scratch, False)


@kernel
def spline_inverse(spec, theta, x, raw, log_det, temp):
    scratch = scratch_in(temp)
    constrain(spec, raw, scratch)
    spline.evaluate_inverse(spec, x, raw, log_det, scratch, False)


@dataclasses.dataclass(frozen=True)
class ZukoSpline(operations.Spline):
    """zuko's spline, whose `min_derivative` is the slope that its soft clips let through at least; its gradient is not
    carried over."""

    min_bin_width: float = 0.0
    min_bin_height: float = 0.0
    min_derivative: float = 1e-3


def pack_spline(operation: ZukoSpline, value: int | None) -> list[int]:
    packed = spline.pack(operation, value)
    packed[spline.MIN_DERIVATIVE] = bits(math.log(operation.min_derivative))[0]
    return packed


SPLINE_ROLES = {**spline.ROLES, "forward": spline_forward, "inverse": spline_inverse}
KERNELS[ZukoSpline] = MapKernels(lambda operation: SPLINE_ROLES, pack_spline, lambda operation, n: spline.SCRATCH)
