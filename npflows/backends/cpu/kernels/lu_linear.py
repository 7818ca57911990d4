"""Linear layers by their LU factors (Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.2)."""

from __future__ import annotations

from npflows.backends.cpu.compiler.calls import flat
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.kernels.blocks import (
    add_row,
    copy,
    copy_negative,
    dot,
    gather,
    negate,
    scale_row,
    scatter,
    shift_row,
    total,
)
from npflows.backends.cpu.link import KERNELS, ONE_LANE_TWINS, LayerKernels, Scratch
from npflows.core import operations

# spec: the dimension, then the fixed permutation, then a sign of each value; theta: a matrix (dim, dim) whose strict lower
# part is that of L, whose strict upper part is that of U and whose diagonal is the logarithm of U's, then a shift (dim,)


@inlined
def log_diagonal(spec, theta):
    """log |det|."""
    n, result = spec[0], 0.0
    for i in range(n):
        result += theta[i * n + i]
    return result


@inlined
def multiply_upper(spec, theta, block):
    """block = U block."""
    n = spec[0]
    for i in range(n):
        scale_row(block, i, vecmath.exp(theta[i * n + i]))
        for j in range(i + 1, n):
            add_row(block, i, j, theta[i * n + j])


@inlined
def solve_upper(spec, theta, block):
    """block = U^-1 block."""
    n = spec[0]
    for i in range(n - 1, -1, -1):
        for j in range(i + 1, n):
            add_row(block, i, j, -theta[i * n + j])
        scale_row(block, i, vecmath.exp(-theta[i * n + i]))


@inlined
def multiply_upper_transposed(spec, theta, block):
    """block = U^T block."""
    n = spec[0]
    for j in range(n - 1, -1, -1):
        scale_row(block, j, vecmath.exp(theta[j * n + j]))
        for i in range(j):
            add_row(block, j, i, theta[i * n + j])


@inlined
def solve_upper_transposed(spec, theta, block):
    """block = U^-T block."""
    n = spec[0]
    for j in range(n):
        for i in range(j):
            add_row(block, j, i, -theta[i * n + j])
        scale_row(block, j, vecmath.exp(-theta[j * n + j]))


@inlined
def flip(spec, block):
    """block = S block."""
    n = spec[0]
    for i in range(n):
        if spec[1 + n + i] < 0:
            negate(block[i])


@inlined
def multiply_lower(spec, theta, block):
    """block = L block."""
    n = spec[0]
    for i in range(n - 1, -1, -1):
        for j in range(i):
            add_row(block, i, j, theta[i * n + j])


@inlined
def solve_lower(spec, theta, block):
    """block = L^-1 block."""
    n = spec[0]
    for i in range(n):
        for j in range(i):
            add_row(block, i, j, -theta[i * n + j])


@inlined
def parts(spec, work):
    """The permuted input and S U times it, which is what L then multiplies; both (dim, lanes)."""
    n = spec[0]
    return work[:n], work[n : 2 * n]


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    """y = L S U P x + shift."""
    n = spec[0]
    permuted, upper = parts(spec, work)
    gather(block, spec, 1, permuted)
    copy(permuted, upper)
    multiply_upper(spec, theta, upper)
    flip(spec, upper)
    copy(upper, block)
    multiply_lower(spec, theta, block)
    for i in range(n):
        shift_row(block[i], theta[n * n + i])
    shift_row(log_det, log_diagonal(spec, theta))


@kernel
def inverse(spec, theta, context, key, first, block, log_det, work, temp):
    """x = P^T U^-1 S L^-1 (y - shift)."""
    n = spec[0]
    permuted, upper = parts(spec, work)
    copy(block, upper)
    for i in range(n):
        shift_row(upper[i], -theta[n * n + i])
    solve_lower(spec, theta, upper)
    copy(upper, permuted)
    flip(spec, permuted)
    solve_upper(spec, theta, permuted)
    scatter(permuted, spec, 1, block)
    shift_row(log_det, -log_diagonal(spec, theta))


@inlined
def add_parameter_gradient(spec, theta, permuted, upper, dy, du, dlog_det, dtheta):
    """From dL/dy and du = dL/d(U P x)."""
    n, dlog = spec[0], total(dlog_det)
    for i in range(n):
        for j in range(i):
            dtheta[i * n + j] += dot(dy[i], upper[j])
        dtheta[i * n + i] += vecmath.exp(theta[i * n + i]) * dot(du[i], permuted[i]) + dlog
        for j in range(i + 1, n):
            dtheta[i * n + j] += dot(du[i], permuted[j])
        dtheta[n * n + i] += total(dy[i])


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """du = S L^T dy and dx = P^T U^T du."""
    n = spec[0]
    permuted, upper = parts(spec, work)
    du = temp[:n]
    copy(dblock, du)
    for j in range(n):
        for i in range(j + 1, n):
            add_row(du, j, i, theta[i * n + j])
    flip(spec, du)
    if dtheta.size > 0:
        add_parameter_gradient(spec, theta, permuted, upper, dblock, du, dlog_det, dtheta)
    multiply_upper_transposed(spec, theta, du)
    scatter(du, spec, 1, dblock)


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """With dL = -dlog_det and J = L S U P: J^T dY = -dx, whose first step gives du = U^-T (-P dx); dy = -dY."""
    n = spec[0]
    permuted, upper = parts(spec, work)
    du, dy, dlog = temp[:n], temp[n : 2 * n], temp[2 * n]
    gather(dblock, spec, 1, du)
    solve_upper_transposed(spec, theta, du)
    for i in range(n):
        negate(du[i])
    for t in range(dlog_det.size):
        dlog[t] = -dlog_det[t]
    copy(du, dy)
    flip(spec, dy)
    for j in range(n - 1, -1, -1):
        for i in range(j + 1, n):
            add_row(dy, j, i, -theta[i * n + j])
    if dtheta.size > 0:
        add_parameter_gradient(spec, theta, permuted, upper, dy, du, dlog, dtheta)
    copy_negative(dy, dblock)


@kernel
def forward_of_one(spec, theta, context, key, first, block, log_det, work, temp):
    """`forward` for a block of one lane."""
    n = spec[0]
    permuted, upper = parts(spec, work)
    gather(block, spec, 1, permuted)
    x, u, y = flat(permuted), flat(upper), flat(block)
    for i in range(n):
        value = x[i] * vecmath.exp(theta[i * n + i])
        for j in range(i + 1, n):
            value += theta[i * n + j] * x[j]
        u[i] = -value if spec[1 + n + i] < 0 else value
    for i in range(n):
        value = u[i]
        for j in range(i):
            value += theta[i * n + j] * u[j]
        y[i] = value + theta[n * n + i]
    log_det[0] += log_diagonal(spec, theta)


@kernel
def forward_vjp_of_one(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """`forward_vjp` for a block of one lane, without gradients of parameters."""
    n = spec[0]
    du, dy = flat(temp[:n]), flat(dblock)
    for j in range(n):
        value = dy[j]
        for i in range(j + 1, n):
            value += theta[i * n + j] * dy[i]
        du[j] = -value if spec[1 + n + j] < 0 else value
    for j in range(n - 1, -1, -1):
        value = du[j] * vecmath.exp(theta[j * n + j])
        for i in range(j):
            value += theta[i * n + j] * du[i]
        du[j] = value
    scatter(temp[:n], spec, 1, dblock)


ONE_LANE_TWINS.update({forward: forward_of_one, forward_vjp: forward_vjp_of_one})
KERNELS[operations.LULinear] = LayerKernels(
    lambda operation: (forward, inverse, forward_vjp, inverse_vjp),
    lambda operation, link: [operation.dim, *operation.order, *(operation.signs or (1,) * operation.dim)],
    lambda operation: Scratch(2 * operation.dim, 2 * operation.dim + 1),
)
