"""Compiled loops around single kernels, so that what is timed is the kernel and not the call from Python."""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.calls import call
from npflows.backends.cpu.compiler.jit import kernel
from npflows.backends.cpu.kernels.blocks import copy
from npflows.backends.cpu.kernels.matmul import matmul, matmul_transposed
from npflows.backends.cpu.kernels.outer import add_outer
from npflows.backends.cpu.kernels.tiles import FROM_ZERO
from npflows.backends.cpu.kernels.vecmath import exp, log, softplus, tanh

FUNCTIONS = ("exp", "log", "tanh", "softplus")


@kernel
def own_function(which, x, out, repeats):
    """out (n,) = FUNCTIONS[which] of x (n,)."""
    for _ in range(repeats):
        if which == 0:
            for i in range(x.size):
                out[i] = exp(x[i])
        elif which == 1:
            for i in range(x.size):
                out[i] = log(x[i])
        elif which == 2:
            for i in range(x.size):
                out[i] = tanh(x[i])
        else:
            for i in range(x.size):
                out[i] = softplus(x[i])


@kernel
def own_product(address, a, b, c, repeats):
    """c (m, lanes) = a (m, k) @ b (k, lanes)."""
    (m, k), flat = a.shape, a.reshape(a.size)
    for _ in range(repeats):
        matmul(address, flat, k, b, c, m, k, FROM_ZERO, flat[:0])


@kernel
def own_transposed(address, a, b, c, repeats):
    """c (m, lanes) = a (k, m).T @ b (k, lanes)."""
    (k, m), flat = a.shape, a.reshape(a.size)
    for _ in range(repeats):
        matmul_transposed(address, flat, m, b, c, m, k, FROM_ZERO)


@kernel
def own_outer(address, first_rows, a, b, panel, c, repeats):
    """c (m, k) += a (m, lanes) @ b (k, lanes).T."""
    (m, k), flat = c.shape, c.reshape(c.size)
    for _ in range(repeats):
        add_outer(address, first_rows, a, b, panel, flat, k, m, k)


@kernel
def own_convolution(address, table, a, b, c, m, k, height, width, lanes, repeats):
    """c (m planes) = a (m, k) times the planes of b, shifted as the table says; see kernels/convolution.py."""
    for _ in range(repeats):
        call(address, (table, a, k, 1, b, c, m, k, height, width, lanes, FROM_ZERO, a[:0]))


@kernel
def own_convolution_outer(address, table, a, b, c, m, k, height, width, lanes, repeats):
    """c (m, k) += the planes of a times those of b, shifted as the table says, summed over pixels and lanes."""
    for _ in range(repeats):
        call(address, (table, a, b, c, m, k, height, width, lanes))


@kernel
def own_map(address, spec, theta, x, raw, y, used, log_det, temp, repeats):
    """y (d, lanes) = a scalar map of x, whose parameters it overwrites: `used`, a fresh copy of `raw` for each repeat.

    Address 0: the copies alone.
    """
    for _ in range(repeats):
        copy(x, y)
        copy(raw, used)
        if address != 0:
            call(address, (spec, theta, y, used, log_det, temp))


@kernel
def own_map_vjp(address, spec, theta, x, raw, dy, dlog_det, dx, used, dtheta, temp, repeats):
    """dx (d, lanes) and `used`, the gradients of x and of the raw parameters, from what the map left in `raw`."""
    for _ in range(repeats):
        copy(dy, dx)
        copy(raw, used)
        if address != 0:
            call(address, (spec, theta, x, used, dx, dlog_det, dtheta, temp))


@kernel
def scipy_product(a, b, c, repeats):
    for _ in range(repeats):
        np.dot(a, b, c)


@kernel
def scipy_transposed(a, b, c, repeats):
    for _ in range(repeats):
        np.dot(a.T, b, c)


@kernel
def scipy_outer(a, b, c, repeats):
    for _ in range(repeats):
        np.dot(a, b.T, c)
