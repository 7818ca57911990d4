"""Linear layers by their QR factors, Q by reflections (Tomczak and Welling 2016, arXiv:1611.09630)."""

from __future__ import annotations

from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.kernels.blocks import copy, copy_negative, dot, shift_row, total
from npflows.backends.cpu.kernels.householder import reflect, reflect_vjp
from npflows.backends.cpu.kernels.lu_linear import (
    log_diagonal,
    multiply_upper,
    multiply_upper_transposed,
    solve_upper,
    solve_upper_transposed,
)
from npflows.backends.cpu.link import KERNELS, LayerKernels, Scratch
from npflows.core import operations

# spec: the dimension, the number of reflections; theta: a matrix (dim, dim) whose strict upper part is that of R and whose
# diagonal is the logarithm of R's, vectors (reflections, dim), a shift (dim,).  work: x, then Q R x; temp: two rows, then
# twice dim rows


@inlined
def parts(spec, theta):
    """The vectors and the shift, flat."""
    start, end = spec[0] * spec[0], spec[0] * (spec[0] + spec[1])
    return theta[start:end], theta[end : end + spec[0]]


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    """y = Q R x + shift."""
    n = spec[0]
    vectors, shift = parts(spec, theta)
    copy(block, work[:n])
    multiply_upper(spec, theta, block)
    reflect(vectors, n, spec[1], False, block, temp[0])
    copy(block, work[n : 2 * n])
    for i in range(n):
        shift_row(block[i], shift[i])
    shift_row(log_det, log_diagonal(spec, theta))


@kernel
def inverse(spec, theta, context, key, first, block, log_det, work, temp):
    """x = R^-1 Q^T (y - shift)."""
    n = spec[0]
    vectors, shift = parts(spec, theta)
    for i in range(n):
        shift_row(block[i], -shift[i])
    copy(block, work[n : 2 * n])
    reflect(vectors, n, spec[1], True, block, temp[0])
    solve_upper(spec, theta, block)
    copy(block, work[:n])
    shift_row(log_det, -log_diagonal(spec, theta))


@inlined
def pull_back(spec, theta, dblock, dlog, work, temp, dtheta):
    """dx = R^T Q^T dy in `dblock`, and the gradients of parameters, from dL/dy and the sum of dL/dlog |det|."""
    n = spec[0]
    vectors, _ = parts(spec, theta)
    dvectors, dshift = parts(spec, dtheta)
    values = temp[2 : 2 + n]
    if dtheta.size > 0:
        for i in range(n):
            dshift[i] += total(dblock[i])
    copy(work[n : 2 * n], values)
    reflect_vjp(vectors, n, spec[1], False, values, dblock, temp[0], temp[1], dvectors)
    if dtheta.size > 0:
        for i in range(n):
            dtheta[i * n + i] += vecmath.exp(theta[i * n + i]) * dot(dblock[i], work[i]) + dlog
            for j in range(i + 1, n):
                dtheta[i * n + j] += dot(dblock[i], work[j])
    multiply_upper_transposed(spec, theta, dblock)


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """dx = R^T Q^T dy."""
    pull_back(spec, theta, dblock, total(dlog_det), work, temp, dtheta)


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """dy = Q R^-T dx; parameters have the gradients of `forward` at x from -dy and -dlog_det."""
    n = spec[0]
    vectors, _ = parts(spec, theta)
    solve_upper_transposed(spec, theta, dblock)
    reflect(vectors, n, spec[1], False, dblock, temp[0])
    if dtheta.size > 0:
        negative = temp[2 + n : 2 + 2 * n]
        copy_negative(dblock, negative)
        pull_back(spec, theta, negative, -total(dlog_det), work, temp, dtheta)


KERNELS[operations.QRLinear] = LayerKernels(
    lambda operation: (forward, inverse, forward_vjp, inverse_vjp),
    lambda operation, link: [operation.dim, operation.reflections],
    lambda operation: Scratch(2 * operation.dim, 2 * operation.dim + 2),
)
