"""Activation normalization (Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.1)."""

from __future__ import annotations

from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.kernels.blocks import copy, dot, scale_row, shift_row, total
from npflows.backends.cpu.link import KERNELS, LayerKernels, Scratch
from npflows.core import operations

# spec: the number of channels n; theta: the logarithms of the scales (n,), the biases (n,); work: the latent values


@inlined
def sum_of_logs(spec, theta, rows):
    """log |det|."""
    result, n = 0.0, spec[0]
    for i in range(n):
        result += theta[i]
    return result * (rows // n)


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    """y = (x + bias) exp(logs)."""
    n, rows = spec[0], block.shape[0]
    for i in range(n):
        scale, bias = vecmath.exp(theta[i]), theta[n + i]
        for r in range(i, rows, n):
            for t in range(block.shape[1]):
                block[r, t] = (block[r, t] + bias) * scale
    copy(block, work)
    shift_row(log_det, sum_of_logs(spec, theta, rows))


@kernel
def inverse(spec, theta, context, key, first, block, log_det, work, temp):
    """x = y exp(-logs) - bias."""
    n, rows = spec[0], block.shape[0]
    copy(block, work)
    for i in range(n):
        scale, bias = vecmath.exp(-theta[i]), theta[n + i]
        for r in range(i, rows, n):
            for t in range(block.shape[1]):
                block[r, t] = block[r, t] * scale - bias
    shift_row(log_det, -sum_of_logs(spec, theta, rows))


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """dx = exp(logs) dy; dlogs = sum(dy y) + pixels sum(dlog_det), dbias = sum(dx)."""
    n, rows = spec[0], dblock.shape[0]
    dlog = total(dlog_det) * (rows // n)
    for i in range(n):
        scale = vecmath.exp(theta[i])
        if dtheta.size > 0:
            dtheta[i] += dlog
        for r in range(i, rows, n):
            if dtheta.size > 0:
                dtheta[i] += dot(dblock[r], work[r])
            scale_row(dblock, r, scale)
            if dtheta.size > 0:
                dtheta[n + i] += total(dblock[r])


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """dy = exp(-logs) dx; dlogs = -sum(dy y) - pixels sum(dlog_det), dbias = -sum(dx)."""
    n, rows = spec[0], dblock.shape[0]
    dlog = total(dlog_det) * (rows // n)
    for i in range(n):
        scale = vecmath.exp(-theta[i])
        if dtheta.size > 0:
            dtheta[i] -= dlog
        for r in range(i, rows, n):
            if dtheta.size > 0:
                dtheta[n + i] -= total(dblock[r])
            scale_row(dblock, r, scale)
            if dtheta.size > 0:
                dtheta[i] -= dot(dblock[r], work[r])


KERNELS[operations.ActNorm] = LayerKernels(
    lambda operation: (forward, inverse, forward_vjp, inverse_vjp),
    lambda operation, link: [operation.channels],
    lambda operation: Scratch(operation.dim, 0),
)
