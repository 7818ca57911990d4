"""The scalar maps of the peers as kernels of npflows: forward and inverse only, so that weights can be carried over.

An affine map is y = x * s(r) + t (or x -> (x - t) / s(r) where the shift comes first), with s one of

    softplus(r + offset) + least,  sigmoid(r + offset) + least,  exp(r / (1 + |r / log least|)),  exp(r)

and zuko's spline has its own way from raw parameters to bins, after which it is npflows' spline.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from npflows.transformers.affine import Affine
from npflows.transformers.rational_quadratic import RationalQuadratic, new_scratch, number, rows_of, softmax

from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.transformers import affine, rational_quadratic

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
def multiply(spec, theta, x, raw, log_det):
    """x = x * s + t."""
    for i in range(x.shape[0]):
        shift, scale = raw[2 * i], raw[2 * i + 1]
        scale_of(spec, scale)
        for t in range(x.shape[1]):
            x[i, t] = x[i, t] * scale[t] + shift[t]
            log_det[t] += vecmath.log(scale[t])


@kernel
def divide(spec, theta, x, raw, log_det):
    """x = (x - t) / s."""
    for i in range(x.shape[0]):
        shift, scale = raw[2 * i], raw[2 * i + 1]
        scale_of(spec, scale)
        for t in range(x.shape[1]):
            x[i, t] = (x[i, t] - shift[t]) / scale[t]
            log_det[t] -= vecmath.log(scale[t])


class PeerAffine(Affine):
    """A peer's affine map; its gradient is not carried over."""

    def __init__(self, scale: str, offset: float, least: float, shift_first: bool = False) -> None:
        super().__init__("none", shift_first=shift_first)
        self.scale, self.offset = scale, offset
        self.least = math.log(least) if scale == "soft clip" else least

    @property
    def kernels(self) -> dict[str, Callable]:
        forward, inverse = (divide, multiply) if self.shift_first else (multiply, divide)
        return {"forward": forward, "inverse": inverse, "vjp": affine.apply_vjp, "solve": affine.apply_solve}

    def spec(self, value: int | None = None) -> list[int]:
        return [SCALES[self.scale], *np.array([self.offset, self.least]).view(np.int64).tolist()]


@inlined
def soft_clip(rows, limit):
    """rows / (1 + |rows / limit|)."""
    one = rows.dtype.type(1)
    for k in range(rows.shape[0]):
        for t in range(rows.shape[1]):
            rows[k, t] = rows[k, t] / (one + abs(rows[k, t] / limit))


@inlined
def constrain(spec, raw, scratch):
    """zuko's: soft clips, then a softmax for sizes and an exponential for slopes.  Its logarithm of the least slope lies in
    the place of npflows' least derivative."""
    limit = number(spec, rational_quadratic.MIN_DERIVATIVE, raw)
    for i in range(raw.shape[0] // spec[rational_quadratic.MULTIPLIER]):
        widths, heights, slopes = rows_of(spec, raw, i)
        for sizes in (widths, heights):
            soft_clip(sizes, limit / raw.dtype.type(2))
            softmax(sizes, scratch)
        soft_clip(slopes, limit)
        for k in range(slopes.shape[0]):
            for t in range(slopes.shape[1]):
                slopes[k, t] = vecmath.exp(slopes[k, t])


@kernel
def spline_forward(spec, theta, x, raw, log_det):
    scratch = new_scratch(raw)
    constrain(spec, raw, scratch)
    rational_quadratic.evaluate(spec, x, raw, log_det, scratch)


@kernel
def spline_inverse(spec, theta, x, raw, log_det):
    scratch = new_scratch(raw)
    constrain(spec, raw, scratch)
    rational_quadratic.evaluate_inverse(spec, x, raw, log_det, scratch)


class ZukoSpline(RationalQuadratic):
    """zuko's spline; its gradient is not carried over."""

    kernels = {**RationalQuadratic.kernels, "forward": spline_forward, "inverse": spline_inverse}

    def __init__(self, bins: int, bound: float, slope: float) -> None:
        super().__init__(bins, bound)
        self.min_bin_width = self.min_bin_height = 0.0
        self.min_derivative = math.log(slope)

    @property
    def derivative_shift(self) -> float:
        return 0.0
