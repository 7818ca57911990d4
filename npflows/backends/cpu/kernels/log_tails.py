"""Tails that are drawn in by a logarithm."""

from __future__ import annotations

import math

import numpy as np

from npflows.backends.cpu.compiler.calls import as_real
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.kernels.blocks import copy
from npflows.backends.cpu.link import KERNELS, LayerKernels, Scratch, bits
from npflows.core import operations

# spec: the bits of the bound, the number of values that have tails, their indices; work: the latent values

BOUND, COUNT, PLACES = range(3)
LN2 = math.log(2)
LARGE = 1e8  # beyond it arsinh(u) is log(2 u) in both dtypes


@inlined
def reaches(row, bound):
    """Whether any value lies beyond the bound; most blocks have none."""
    farthest = row.dtype.type(0)
    for t in range(row.size):
        farthest = max(farthest, abs(row[t]))
    return not farthest <= bound


@inlined
def arsinh(u):
    """arsinh(u) for u >= 0, without overflow."""
    real = type(u)
    small = min(u, real(LARGE))
    square = small * small
    near = vecmath.log1p(small + square / (real(1) + np.sqrt(real(1) + square)))
    return vecmath.log(u) + real(LN2) if u > real(LARGE) else near


@inlined
def sinh(v):
    """sinh(v) for v >= 0."""
    real = type(v)
    p = vecmath.expm1(v)
    return real(0.5) * (p + p / (real(1) + p)) if p < real(LARGE) else real(0.5) * p


@inlined
def log_cosh(v):
    """log cosh(v) for v >= 0."""
    real = type(v)
    return v + vecmath.log1p(vecmath.exp(real(-2) * v)) - real(LN2) if v > real(0) else real(0)


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    """y = sign(x) (bound + v) with v = arsinh(|x| - bound), and log_det -= log cosh(v)."""
    zero, bound = block.dtype.type(0), block.dtype.type(as_real(spec[BOUND]))
    for k in range(spec[COUNT]):
        row = block[spec[PLACES + k]]
        if reaches(row, bound):
            for t in range(row.size):
                x = row[t]
                v = arsinh(max(abs(x) - bound, zero))
                y = bound + v
                row[t] = (y if x > zero else -y) if abs(x) > bound else x
                log_det[t] -= log_cosh(v)
    copy(block, work)


@kernel
def inverse(spec, theta, context, key, first, block, log_det, work, temp):
    """x = sign(y) (bound + sinh(v)) with v = |y| - bound, and log_det += log cosh(v)."""
    zero, bound = block.dtype.type(0), block.dtype.type(as_real(spec[BOUND]))
    copy(block, work)
    for k in range(spec[COUNT]):
        row = block[spec[PLACES + k]]
        if reaches(row, bound):
            for t in range(row.size):
                y = row[t]
                v = max(abs(y) - bound, zero)
                x = bound + sinh(v)
                row[t] = (x if y > zero else -x) if abs(y) > bound else y
                log_det[t] += log_cosh(v)


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """dx = (dy - sign(x) tanh(v) dlog_det) / cosh(v)."""
    zero, bound = dblock.dtype.type(0), dblock.dtype.type(as_real(spec[BOUND]))
    for k in range(spec[COUNT]):
        row, drow = work[spec[PLACES + k]], dblock[spec[PLACES + k]]
        if reaches(row, bound):
            for t in range(row.size):
                v = max(abs(row[t]) - bound, zero)
                tanh = vecmath.tanh(v)
                slope = vecmath.exp(-log_cosh(v))
                drow[t] = (drow[t] - (tanh if row[t] > zero else -tanh) * dlog_det[t]) * slope


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """dy = dx cosh(v) + sign(y) tanh(v) dlog_det."""
    zero, bound = dblock.dtype.type(0), dblock.dtype.type(as_real(spec[BOUND]))
    for k in range(spec[COUNT]):
        row, drow = work[spec[PLACES + k]], dblock[spec[PLACES + k]]
        if reaches(row, bound):
            for t in range(row.size):
                v = max(abs(row[t]) - bound, zero)
                tanh = vecmath.tanh(v)
                drow[t] = drow[t] * vecmath.exp(log_cosh(v)) + (tanh if row[t] > zero else -tanh) * dlog_det[t]


KERNELS[operations.LogTails] = LayerKernels(
    lambda operation: (forward, inverse, forward_vjp, inverse_vjp),
    lambda operation, link: [*bits(operation.bound), len(operation.places), *operation.places],
    lambda operation: Scratch(operation.dim, 0),
)
