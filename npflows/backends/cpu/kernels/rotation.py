"""Rotations of values on circles."""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.calls import as_real
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels.blocks import total
from npflows.backends.cpu.link import KERNELS, LayerKernels, Scratch, bits
from npflows.core import operations

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
    """y = x + angle, around the circle."""
    rotate(spec, theta, block, block.dtype.type(1))


@kernel
def inverse(spec, theta, context, key, first, block, log_det, work, temp):
    """x = y - angle, around the circle."""
    rotate(spec, theta, block, block.dtype.type(-1))


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """dx = dy and dangle = sum(dy)."""
    if dtheta.size > 0:
        for k in range(spec[0]):
            dtheta[k] += total(dblock[spec[2 + k]])


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """dy = dx and dangle = -sum(dx)."""
    if dtheta.size > 0:
        for k in range(spec[0]):
            dtheta[k] -= total(dblock[spec[2 + k]])


KERNELS[operations.Rotation] = LayerKernels(
    lambda operation: (forward, inverse, forward_vjp, inverse_vjp),
    lambda operation, link: [len(operation.places), *bits(operation.bound), *operation.places],
    lambda operation: Scratch(),
)
