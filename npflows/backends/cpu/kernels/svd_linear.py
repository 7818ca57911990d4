"""Linear layers by their singular value decomposition, whose orthogonal factors are reflections (Tomczak and Welling 2016,
arXiv:1611.09630)."""

from __future__ import annotations

from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.kernels.blocks import copy, copy_negative, dot, scale_row, shift_row, total
from npflows.backends.cpu.kernels.householder import reflect, reflect_vjp
from npflows.backends.cpu.link import KERNELS, LayerKernels, Scratch
from npflows.core import operations

# spec: the dimension, the number of reflections of each factor; theta: vectors (reflections, dim) of Q_1, the logarithms of
# the diagonal (dim,), vectors of Q_2, a shift (dim,).  work: Q_2 x, then Q_1 D Q_2 x; temp: two rows, then
# twice dim rows


@inlined
def parts(spec, theta):
    """The vectors of Q_1, the logarithms of D, the vectors of Q_2 and the shift, flat."""
    n, k = spec[0], spec[0] * spec[1]
    return theta[:k], theta[k : k + n], theta[k + n : k + n + k], theta[k + n + k : k + n + k + n]


@inlined
def stretch(logs, sign, block):
    """block = D block, or with a sign of -1 D^-1 block."""
    for i in range(logs.size):
        scale_row(block, i, vecmath.exp(sign * logs[i]))


@inlined
def log_determinant(logs):
    """log |det|."""
    result = 0.0
    for i in range(logs.size):
        result += logs[i]
    return result


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    """y = Q_1 D Q_2 x + shift."""
    n = spec[0]
    left, logs, right, shift = parts(spec, theta)
    reflect(right, n, spec[1], False, block, temp[0])
    copy(block, work[:n])
    stretch(logs, theta.dtype.type(1), block)
    reflect(left, n, spec[1], False, block, temp[0])
    copy(block, work[n : 2 * n])
    for i in range(n):
        shift_row(block[i], shift[i])
    shift_row(log_det, log_determinant(logs))


@kernel
def inverse(spec, theta, context, key, first, block, log_det, work, temp):
    """x = Q_2^T D^-1 Q_1^T (y - shift)."""
    n = spec[0]
    left, logs, right, shift = parts(spec, theta)
    for i in range(n):
        shift_row(block[i], -shift[i])
    copy(block, work[n : 2 * n])
    reflect(left, n, spec[1], True, block, temp[0])
    stretch(logs, theta.dtype.type(-1), block)
    copy(block, work[:n])
    reflect(right, n, spec[1], True, block, temp[0])
    shift_row(log_det, -log_determinant(logs))


@inlined
def pull_back(spec, theta, dblock, dlog, work, temp, dtheta):
    """dx = Q_2^T D Q_1^T dy in `dblock`, and the gradients of parameters, from dL/dy and the sum of dL/dlog |det|."""
    n = spec[0]
    left, logs, right, _ = parts(spec, theta)
    dleft, dlogs, dright, dshift = parts(spec, dtheta)
    values = temp[2 : 2 + n]
    if dtheta.size > 0:
        for i in range(n):
            dshift[i] += total(dblock[i])
    copy(work[n : 2 * n], values)
    reflect_vjp(left, n, spec[1], False, values, dblock, temp[0], temp[1], dleft)
    stretch(logs, theta.dtype.type(1), dblock)
    if dtheta.size > 0:
        for i in range(n):
            dlogs[i] += dot(dblock[i], work[i]) + dlog
    copy(work[:n], values)
    reflect_vjp(right, n, spec[1], False, values, dblock, temp[0], temp[1], dright)


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """dx = Q_2^T D Q_1^T dy."""
    pull_back(spec, theta, dblock, total(dlog_det), work, temp, dtheta)


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """dy = Q_1 D^-1 Q_2 dx; parameters have the gradients of `forward` at x from -dy and -dlog_det."""
    n = spec[0]
    left, logs, right, _ = parts(spec, theta)
    reflect(right, n, spec[1], False, dblock, temp[0])
    stretch(logs, theta.dtype.type(-1), dblock)
    reflect(left, n, spec[1], False, dblock, temp[0])
    if dtheta.size > 0:
        negative = temp[2 + n : 2 + 2 * n]
        copy_negative(dblock, negative)
        pull_back(spec, theta, negative, -total(dlog_det), work, temp, dtheta)


KERNELS[operations.SVDLinear] = LayerKernels(
    lambda operation: (forward, inverse, forward_vjp, inverse_vjp),
    lambda operation, link: [operation.dim, operation.reflections],
    lambda operation: Scratch(2 * operation.dim, 2 * operation.dim + 2),
)
