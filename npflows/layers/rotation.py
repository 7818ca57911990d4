"""Rotations of values on circles."""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.calls import Link, as_real
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels.blocks import total
from npflows.core.checks import as_int, as_positive, as_rng
from npflows.core.parameters import Parameter
from npflows.layers.layer import Layer

# spec: the number of values that are on circles, the bits of half the circumference, their indices; theta: their angles


@inlined
def rotate(spec, theta, block, sign):
    """Turn the values on circles by their angles, and back into [-bound, bound)."""
    bound = block.dtype.type(as_real(spec[1]))
    half = block.dtype.type(0.5)
    around = bound + bound
    for k in range(spec[0]):
        row, angle = block[spec[2 + k]], sign * theta[k]
        for t in range(row.size):
            value = row[t] + angle
            row[t] = value - around * np.floor(value / around + half)


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    rotate(spec, theta, block, block.dtype.type(1))


@kernel
def inverse(spec, theta, context, key, first, block, log_det, work, temp):
    rotate(spec, theta, block, block.dtype.type(-1))


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    if dtheta.size > 0:
        for k in range(spec[0]):
            dtheta[k] += total(dblock[spec[2 + k]])


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    if dtheta.size > 0:
        for k in range(spec[0]):
            dtheta[k] -= total(dblock[spec[2 + k]])


class Rotation(Layer):
    """y = x + angle on circles, x elsewhere: moves the point at which circular splines have their seam.

    A circle is the interval [-bound, bound), whose ends are the same point.

    Parameters
    ----------
    circular : array_like of bool (input_dim,)
        Which values are on a circle.
    bound : float
        Half the circumference.
    angles : array_like, optional
        One for each value on a circle, to start from; drawn from `rng` by default.
    dtype : {"float32", "float64"}
        The compute dtype.
    rng : int, numpy.random.Generator or None
    """

    kernels = (forward, inverse, forward_vjp, inverse_vjp)

    def __init__(
        self, circular: object, bound: float, angles: object = None, *, dtype: object = "float32", rng: object = None
    ) -> None:  # fmt: skip
        self.circular, self.bound = np.asarray(circular, bool), as_positive(bound, "bound")
        n = as_int(self.circular.size, "the number of values in circular")
        self._where = np.flatnonzero(self.circular)
        drawn = angles is None
        if drawn:
            angles = as_rng(rng).uniform(-self.bound, self.bound, len(self._where))
        start = np.asarray(angles, np.float64)
        if self.circular.ndim != 1 or start.shape != self._where.shape or not np.isfinite(start).all():
            raise ValueError(f"angles must be a finite number for each of {len(self._where)} circles, got {angles!r}")
        self.angles = None if drawn else start
        super().__init__(n, [Parameter("angles", start)], work_rows=0, temp_rows=0, dtype=dtype)

    @property
    def circle_bound(self) -> float:
        return self.bound

    def keep_circles(self, circles: np.ndarray) -> np.ndarray:
        if (self.circular & ~circles).any():
            raise ValueError(f"{self!r} turns values that are not on circles, which are {np.flatnonzero(circles)}")
        return circles

    def spec(self, link: Link) -> list[int]:
        return [len(self._where), *np.array([self.bound]).view(np.int64).tolist(), *self._where.tolist()]
