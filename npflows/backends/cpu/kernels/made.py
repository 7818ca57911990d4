"""The masked network of autoregressive layers, evaluated at once, or one feature after the other in the same cost.

Features have positions 1..D in their order, hidden units degrees 0..D-1.  A unit of degree d sees the features of
position <= d and units of degree <= d; the outputs of position p see units of degree < p (Germain et al. 2015,
arXiv:1502.03509, equations 8 and 9: only the output is strict).  Units are sorted by degree, so every mask is a staircase.
A feature on a circle enters as two rows of the same position, its cosine and sine.

`sequential_step` and `sequential_step_vjp` are one step of the sequential direction and of its gradient.  Step i of the
first makes final the units of degree i, which need the features before i alone, and the outputs of position i + 1: every
weight is used once.  The steps go in groups: what comes from before the group is one large product, and the steps inside
have small ones.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np

from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import mlp
from npflows.backends.cpu.kernels.matmul import matmul, matmul_transposed
from npflows.backends.cpu.kernels.mlp import (
    BIAS,
    COLUMNS,
    CONDITION_WEIGHT,
    ENTERED,
    GROUP,
    N_CONDITION,
    N_DENSE,
    N_FEATURES,
    N_OUT,
    PRODUCT_ADDRESS,
    ROLES,
    ROWS,
    SEES_CONDITION,
    UNLOCKED,
    WEIGHT,
    activate,
    activation_vjp,
    add_skip,
    apply_dropout,
    gate_rows,
    hidden,
    hidden_gradient,
    pack_network,
    product_gradient,
    record,
    rows,
)
from npflows.backends.cpu.kernels.outer import STEP
from npflows.backends.cpu.kernels.tiles import FROM_BIAS, FROM_RESULT, FROM_ZERO, HEIGHT
from npflows.backends.cpu.link import KERNELS, Link, NetworkKernels
from npflows.core import operations


@inlined
def unlocked(spec, layer, degree):
    """Units of a hidden layer with at most this degree; layer -1 is the input, where position stands for degree."""
    if degree < 0:
        return 0
    if layer < 0:
        return spec[spec[ENTERED] + min(degree, spec[N_FEATURES])]
    r = record(spec, layer)
    return spec[r + ROWS] if degree >= spec[N_FEATURES] else spec[spec[r + UNLOCKED] + degree]


@inlined
def multiply(spec, theta, layer, r0, r1, c0, c1, h, y, start):
    """y[r0:r1] = start + W[r0:r1, c0:c1] @ h[c0:c1]."""
    if r1 > r0:
        r = record(spec, layer)
        columns = spec[r + COLUMNS]
        matmul(spec[PRODUCT_ADDRESS], theta[spec[r + WEIGHT] + r0 * columns + c0 :], columns, h[c0:], y[r0:], r1 - r0,
               c1 - c0, start, theta[spec[r + BIAS] + r0 :])  # fmt: skip


@inlined
def multiply_transposed(spec, theta, layer, r0, r1, c0, c1, d, below, start):
    """below[c0:c1] = start + W[r0:r1, c0:c1].T @ d[r0:r1]."""
    if c1 > c0:
        r = record(spec, layer)
        columns = spec[r + COLUMNS]
        matmul_transposed(spec[PRODUCT_ADDRESS], theta[spec[r + WEIGHT] + r0 * columns + c0 :], columns, d[r0:],
                          below[c0:], c1 - c0, r1 - r0, start)  # fmt: skip


@kernel
def sequential_step(spec, theta, context, key, first, x, out, work, temp, i):
    """Given the features before i, finish the units of degree i and the rows of out that belong to feature i.  Steps go
    0, 1, 2, ..."""
    last, m = spec[N_DENSE] - 1, spec[N_OUT] // spec[N_FEATURES]
    g0 = i - i % spec[GROUP]
    g1 = min(g0 + spec[GROUP], spec[N_FEATURES])
    if i == g0:  # what the whole group takes from before it
        h = x
        for layer in range(last + 1):
            r0, r1, y = g0 * m, g1 * m, out
            if layer < last:
                r0, r1 = unlocked(spec, layer, g0 - 1), unlocked(spec, layer, g1 - 1)
                y, _ = hidden(spec, work, layer)
            multiply(spec, theta, layer, r0, r1, 0, unlocked(spec, layer - 1, g0 - 1), h, y, FROM_BIAS)
            r = record(spec, layer)
            if spec[r + SEES_CONDITION] > 0 and r1 > r0:
                n = spec[N_CONDITION]
                matmul(spec[PRODUCT_ADDRESS], theta[spec[r + CONDITION_WEIGHT] + r0 * n :], n, context, y[r0:], r1 - r0, n,
                       FROM_RESULT, theta)  # fmt: skip
            h = y
    h = x
    for layer in range(last + 1):
        c0, c1 = unlocked(spec, layer - 1, g0 - 1), unlocked(spec, layer - 1, i)
        if layer < last:
            y, before = hidden(spec, work, layer)
            r0, r1 = unlocked(spec, layer, i - 1), unlocked(spec, layer, i)
            multiply(spec, theta, layer, r0, r1, c0, c1, h, y, FROM_RESULT)
            gate_rows(spec, theta, context, work, layer, r0, r1, y)
            add_skip(spec, work, layer, r0, r1, y, before)
            activate(spec, layer, y[r0:r1], before[r0:r1])
            apply_dropout(spec, key, first, layer, r0, y[r0:r1])
            h = y
        else:
            multiply(spec, theta, layer, i * m, (i + 1) * m, c0, c1, h, out, FROM_RESULT)


@kernel
def sequential_step_vjp(spec, theta, context, key, first, dx, dout, work, temp, i):
    """Given the rows of dout that belong to features after i, finish the gradients of the units of degree i + 1 and
    put into its rows of dx what reaches feature i through the network.  Steps go D - 1, ..., 1, 0, -1."""
    last, m, n = spec[N_DENSE] - 1, spec[N_OUT] // spec[N_FEATURES], spec[N_FEATURES]
    g0, g1 = -1, 0
    if i >= 0:
        g0 = i - i % spec[GROUP]
        g1 = min(g0 + spec[GROUP], n)
    if i == g1 - 1:  # what the whole group takes from after it
        d = dout
        for layer in range(last, -1, -1):
            r0, r1 = (g1 * m, n * m) if layer == last else (unlocked(spec, layer, g1), unlocked(spec, layer, n))
            c0, c1 = unlocked(spec, layer - 1, g0), unlocked(spec, layer - 1, g1)
            below = hidden_gradient(spec, temp, layer - 1) if layer > 0 else dx
            multiply_transposed(spec, theta, layer, r0, r1, c0, c1, d, below, FROM_ZERO)
            if layer > 0:
                d = product_gradient(spec, temp, layer - 1)
    d = dout
    for layer in range(last, -1, -1):
        r0, r1 = (i + 1) * m, g1 * m
        if layer < last:
            r0, r1 = unlocked(spec, layer, i), unlocked(spec, layer, g1)
        c0, c1 = unlocked(spec, layer - 1, i), unlocked(spec, layer - 1, i + 1)
        below = hidden_gradient(spec, temp, layer - 1) if layer > 0 else dx
        multiply_transposed(spec, theta, layer, r0, r1, c0, c1, d, below, FROM_RESULT)
        if layer > 0:
            activation_vjp(spec, key, first, layer - 1, c0, c1, below, work, temp)
            d = product_gradient(spec, temp, layer - 1)


@kernel
def weights_vjp(spec, theta, context, key, first, x, dout, dx, work, temp, dtheta, dcontext):
    """Add the rest of the gradient, after the last `sequential_step_vjp`, to dtheta and dcontext."""
    mlp.weights_vjp(spec, theta, context, x, dout, work, temp, dtheta, dcontext)


CALL = 30
"""The cost of a product besides its multiplications, in multiplications for each lane."""


@functools.lru_cache(maxsize=256)  # the layers of a flow are alike, and this takes milliseconds
def staircase_panels(lengths: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
    """Cut rows of rising length into panels (first row, end row, longest) of equal height, as many as are cheapest."""
    n = len(lengths)
    best: tuple[tuple[int, int, int], ...] = ()
    least = np.inf
    for n_panels in range(1, max(2, n // 4)):
        edges = sorted({min(n, HEIGHT * round(n * p / n_panels / HEIGHT)) for p in range(n_panels)} | {n})
        panels = tuple((a, b, lengths[b - 1]) for a, b in itertools.pairwise(edges))
        cost = sum((b - a) * length + CALL for a, b, length in panels)
        if cost < least:
            best, least = panels, cost
    return best


def row_panels(operation: operations.Made, layer: int) -> list[tuple[int, int, int]]:
    """(first row, end row, leading columns) of the rectangles that cover a masked layer."""
    return list(staircase_panels(tuple(operation.mask(layer).sum(axis=1).tolist())))


def column_panels(operation: operations.Made, layer: int) -> list[tuple[int, int, int]]:
    """(first column, end column, first row) of the same, column by column."""
    heights = operation.mask(layer).sum(axis=0)  # rows at the bottom of each column, fewer and fewer
    n, n_rows = len(heights), operation.widths[layer + 1]
    mirrored = staircase_panels(tuple(heights[::-1].tolist()))
    return [(n - b, n - a, n_rows - height) for a, b, height in reversed(mirrored)]


def first_rows(operation: operations.Made, layer: int) -> list[int]:
    """For each STEP columns of a masked layer, the first row that one of them reaches."""
    of_columns, of_rows = operation.degrees[layer : layer + 2]  # which rise, so that the first of the columns reaches most
    return np.searchsorted(of_rows, of_columns[::STEP]).tolist()


def pack(operation: operations.Made, link: Link) -> list[int]:
    """Pack the spec of the network: its panels of weights that are free, and the units that each feature unlocks."""
    n, layers = operation.n_features, range(len(operation.hidden) + 1)
    return pack_network(
        operation,
        link,
        row_panels=[row_panels(operation, layer) for layer in layers],
        column_panels=[column_panels(operation, layer) for layer in layers],
        first_rows=[first_rows(operation, layer) for layer in layers],
        unlocked=[
            *(np.searchsorted(degrees, np.arange(n), side="right").tolist() for degrees in operation.degrees[1:-1]),
            [],
        ],
        entered=operation.entered,
        group=int(np.clip(np.sqrt(n), 4, 16)),
    )


KERNELS[operations.Made] = NetworkKernels(
    {
        **ROLES,
        "sequential_step": (sequential_step, "network_step"),
        "sequential_step_vjp": (sequential_step_vjp, "network_step"),
        "weights_vjp": (weights_vjp, "network_vjp"),
    },
    pack,
    rows,
    by_column=mlp.forward_by_column,
)
