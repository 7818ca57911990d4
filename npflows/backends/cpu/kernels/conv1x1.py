"""Invertible 1x1 convolutions: one matrix mixes the channels of every pixel (Kingma and Dhariwal 2018, arXiv:1807.03039,
section 3.2)."""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.calls import flat
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.kernels.blocks import copy, shift_row, total
from npflows.backends.cpu.kernels.matmul import PRODUCT, matmul, matmul_transposed
from npflows.backends.cpu.kernels.outer import OUTER, PANEL_ROWS, add_outer
from npflows.backends.cpu.kernels.tiles import FROM_ZERO
from npflows.backends.cpu.link import KERNELS, LANE_MULTIPLE, LayerKernels, Link, Scratch
from npflows.core import operations

# spec: the channels n, the parameterization, addresses of products
N, KIND, PRODUCT_ADDRESS, OUTER_ADDRESS = range(4)
PLU = operations.PARAMETERIZATIONS.index("plu")
# theta, plu: a matrix (n, n) whose strict lower part is that of L, whose strict upper part is that of U and whose diagonal
# is the logarithm of U's; full: the matrix itself.  work: x.  temp: three matrices (n, n), then a pixel (n, lanes), then
# a panel (outer.py)


@inlined
def parts(spec, temp):
    """Three matrices (n, n), flat, the channels of a pixel (n, lanes), and a panel (outer.py), flat."""
    n, rows = spec[N], (spec[N] * spec[N] + temp.shape[1] - 1) // temp.shape[1]
    end = 3 * rows + n
    matrix, inverse, third = flat(temp[:rows]), flat(temp[rows : 2 * rows]), flat(temp[2 * rows : 3 * rows])
    return matrix, inverse, third, temp[3 * rows : end], flat(temp[end:])


@inlined
def multiply_factors(theta, n, matrix):
    """matrix = L U."""
    for i in range(n):
        for j in range(n):
            s = theta[i * n + j] if i < j else theta.dtype.type(0)
            if i >= j:
                s = vecmath.exp(theta[j * n + j]) * (theta[i * n + j] if i > j else theta.dtype.type(1))
            for p in range(min(i, j)):
                s += theta[i * n + p] * theta[p * n + j]
            matrix[i * n + j] = s


@inlined
def solve_factors(theta, n, inverse):
    """inverse = U^-1 L^-1, two triangular solves for the columns of the unit matrix."""
    one, zero = theta.dtype.type(1), theta.dtype.type(0)
    for i in range(n):
        row = inverse[i * n : (i + 1) * n]
        for j in range(n):
            row[j] = one if i == j else zero
        for p in range(i):
            weight, other = theta[i * n + p], inverse[p * n : (p + 1) * n]
            for j in range(n):
                row[j] -= weight * other[j]
    for i in range(n - 1, -1, -1):
        row = inverse[i * n : (i + 1) * n]
        for p in range(i + 1, n):
            weight, other = theta[i * n + p], inverse[p * n : (p + 1) * n]
            for j in range(n):
                row[j] -= weight * other[j]
        scale = vecmath.exp(-theta[i * n + i])
        for j in range(n):
            row[j] *= scale


@inlined
def invert(matrix, n, inverse, scratch):
    """Gauss and Jordan's elimination with row pivoting; returns log |det|."""
    one, zero = matrix.dtype.type(1), matrix.dtype.type(0)
    result = 0.0
    for i in range(n * n):
        scratch[i] = matrix[i]
        inverse[i] = zero
    for i in range(n):
        inverse[i * n + i] = one
    for i in range(n):
        pivot = i
        for r in range(i + 1, n):
            if abs(scratch[r * n + i]) > abs(scratch[pivot * n + i]):
                pivot = r
        for j in range(n):
            a, b = scratch[i * n + j], scratch[pivot * n + j]
            scratch[i * n + j], scratch[pivot * n + j] = b, a
            a, b = inverse[i * n + j], inverse[pivot * n + j]
            inverse[i * n + j], inverse[pivot * n + j] = b, a
        result += np.log(abs(np.float64(scratch[i * n + i])))
        scale = one / scratch[i * n + i]
        for j in range(n):
            scratch[i * n + j] *= scale
            inverse[i * n + j] *= scale
        for r in range(n):
            if r != i:
                weight = scratch[r * n + i]
                for j in range(n):
                    scratch[r * n + j] -= weight * scratch[i * n + j]
                    inverse[r * n + j] -= weight * inverse[i * n + j]
    return result


@inlined
def sum_of_diagonal(theta, n):
    """The trace of an (n, n) matrix: log |det| of factors whose diagonal is in logarithms."""
    result = 0.0
    for i in range(n):
        result += theta[i * n + i]
    return result


@inlined
def assemble(spec, theta, matrix, inverse, scratch, want_matrix, want_inverse):
    """The matrix and its inverse, each if wanted; returns log |det|."""
    n = spec[N]
    if spec[KIND] == PLU:
        if want_matrix:
            multiply_factors(theta, n, matrix)
        if want_inverse:
            solve_factors(theta, n, inverse)
        return sum_of_diagonal(theta, n)
    for i in range(n * n):
        matrix[i] = theta[i]
    return invert(matrix, n, inverse, scratch)


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    """y = W x at every pixel."""
    n, pixels = spec[N], block.shape[0] // spec[N]
    matrix, inverse, scratch, _, _ = parts(spec, temp)
    log_abs_det = assemble(spec, theta, matrix, inverse, scratch, True, False)
    copy(block, work)
    for p in range(pixels):
        matmul(spec[PRODUCT_ADDRESS], matrix, n, work[p * n :], block[p * n :], n, n, FROM_ZERO, matrix[:0])
    shift_row(log_det, log_abs_det * pixels)


@kernel
def inverse(spec, theta, context, key, first, block, log_det, work, temp):
    """x = W^-1 y at every pixel."""
    n, pixels = spec[N], block.shape[0] // spec[N]
    matrix, inverse_matrix, scratch, _, _ = parts(spec, temp)
    log_abs_det = assemble(spec, theta, matrix, inverse_matrix, scratch, False, True)
    for p in range(pixels):
        matmul(spec[PRODUCT_ADDRESS], inverse_matrix, n, block[p * n :], work[p * n :], n, n, FROM_ZERO, matrix[:0])
    copy(work, block)
    shift_row(log_det, -log_abs_det * pixels)


@inlined
def add_parameter_gradient(spec, theta, dmatrix, inverse, dlog, dtheta, upper):
    """From dL/dW and dL/dlog |det W|; `upper` (n, n) is scratch."""
    n = spec[N]
    if spec[KIND] != PLU:  # the gradient of log |det W| is W^-T
        for i in range(n):
            for j in range(n):
                dtheta[i * n + j] += dmatrix[i * n + j] + dlog * inverse[j * n + i]
        return
    zero, one = theta.dtype.type(0), theta.dtype.type(1)
    for i in range(n):  # dU = L^T dW
        for j in range(n):
            upper[i * n + j] = dmatrix[i * n + j]
        for p in range(i + 1, n):
            for j in range(i, n):
                upper[i * n + j] += theta[p * n + i] * dmatrix[p * n + j]
    for i in range(n):  # dL = dW U^T
        for j in range(i):
            s = zero
            for p in range(j + 1, n):
                s += dmatrix[i * n + p] * theta[j * n + p]
            dtheta[i * n + j] += s + dmatrix[i * n + j] * vecmath.exp(theta[j * n + j])
        dtheta[i * n + i] += upper[i * n + i] * vecmath.exp(theta[i * n + i]) + dlog * one
        for j in range(i + 1, n):
            dtheta[i * n + j] += upper[i * n + j]


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """dx = W^T dy and dL/dW = dy x^T, summed over the pixels."""
    n, pixels = spec[N], dblock.shape[0] // spec[N]
    matrix, inverse, dmatrix, dy, panel = parts(spec, temp)
    assemble(spec, theta, matrix, inverse, dmatrix, True, False)
    dmatrix[:] = 0
    for p in range(pixels):
        copy(dblock[p * n : (p + 1) * n], dy)
        if dtheta.size > 0:
            add_outer(spec[OUTER_ADDRESS], spec[:0], dy, work[p * n : (p + 1) * n], panel, dmatrix, n, n, n)
        matmul_transposed(spec[PRODUCT_ADDRESS], matrix, n, dy, dblock[p * n :], n, n, FROM_ZERO)
    if dtheta.size > 0:
        dlog = total(dlog_det) * pixels
        add_parameter_gradient(spec, theta, dmatrix, inverse, dlog, dtheta, matrix)


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """dy = W^-T dx and dL/dW = -dy x^T."""
    n, pixels = spec[N], dblock.shape[0] // spec[N]
    matrix, inverse, dmatrix, dx, panel = parts(spec, temp)
    assemble(spec, theta, matrix, inverse, dmatrix, False, True)
    dmatrix[:] = 0
    for p in range(pixels):
        dy = dblock[p * n : (p + 1) * n]
        copy(dy, dx)
        matmul_transposed(spec[PRODUCT_ADDRESS], inverse, n, dx, dy, n, n, FROM_ZERO)
        if dtheta.size > 0:
            add_outer(spec[OUTER_ADDRESS], spec[:0], dy, work[p * n : (p + 1) * n], panel, dmatrix, n, n, n)
    if dtheta.size > 0:
        for i in range(n * n):
            dmatrix[i] = -dmatrix[i]
        dlog = -total(dlog_det) * pixels
        add_parameter_gradient(spec, theta, dmatrix, inverse, dlog, dtheta, matrix)


def pack(operation: operations.Conv1x1, link: Link) -> list[int]:
    """Pack the spec of the convolution."""
    return [
        operation.channels,
        operations.PARAMETERIZATIONS.index(operation.parameterization),
        link(*PRODUCT),
        link(*OUTER) if link.gradient else 0,
    ]


def rows(operation: operations.Conv1x1) -> Scratch:
    """Scratch: the values that enter; three (n, n) matrices, the values of a pixel and a panel."""
    n = operation.channels
    return Scratch(operation.dim, 3 * -(-n * n // LANE_MULTIPLE) + n + PANEL_ROWS)


KERNELS[operations.Conv1x1] = LayerKernels(
    lambda operation: (forward, inverse, forward_vjp, inverse_vjp), pack, rows, lambda operation: False
)
