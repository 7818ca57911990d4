"""Multilayer perceptrons, dense or masked, on blocks of samples.

    h_0 = x,   h_l = f(W_l h_{l-1} + b_l),   out = W_L h_{L-1} + b_L,   and V c is added in the first of them

for a condition c.  A dense layer is stored as a table of *panels*: rectangles of W that are multiplied, one product each.
A full layer has one; a masked one has a few that cover its staircase (made.py), so that what the mask forbids costs
nothing.  What a panel covers beyond the mask is zero in theta, and its gradient is ignored by all who read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from npflows.backends.cpu.compiler.calls import call, flat
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels.activations import ACTIVATIONS, NEEDS_INPUT
from npflows.backends.cpu.kernels.dropout import dropout
from npflows.backends.cpu.kernels.matmul import PRODUCT, matmul, matmul_by_column, matmul_transposed
from npflows.backends.cpu.kernels.outer import OUTER, PANEL_ROWS, add_outer
from npflows.backends.cpu.kernels.tiles import FROM_BIAS, FROM_RESULT, FROM_ZERO
from npflows.backends.cpu.link import KERNELS, ONE_LANE_TWINS, Link, NetworkKernels, Scratch
from npflows.core import operations

# spec: a header, then a record for each dense layer, then the tables that the records point to
(N_DENSE, ACTIVATION, ACTIVATION_VJP, N_IN, N_OUT, N_CONDITION, CONDITION_WEIGHT, GROUP, PRODUCT_ADDRESS, OUTER_ADDRESS,
 RESIDUAL, DROPOUT, DROPOUT_ADDRESS, N_FEATURES, ENTERED, PANEL, HEADER) = range(17)  # fmt: skip
(WEIGHT, BIAS, ROWS, COLUMNS, H, BEFORE, DH, ROW_PANELS, N_ROW_PANELS, COLUMN_PANELS, N_COLUMN_PANELS,
 UNLOCKED, FIRST_ROWS, N_FIRST_ROWS, RECORD) = range(15)  # fmt: skip


@inlined
def record(spec, layer):
    """Where the record of a dense layer begins."""
    return HEADER + RECORD * layer


@inlined
def fill_rows(values, out):
    """out (rows, lanes) = a number for each row."""
    for u in range(out.shape[0]):
        value = values[u]
        for t in range(out.shape[1]):
            out[u, t] = value


@inlined(reassociate=True)
def add_lane_sums(d, out):
    """out (rows,) += the sum of d (rows, lanes) over its lanes."""
    for u in range(d.shape[0]):
        s = d.dtype.type(0)
        for t in range(d.shape[1]):
            s += d[u, t]
        out[u] += s


@inlined
def hidden(spec, work, layer):
    """The values of a hidden layer and the block that holds what they were before the activation."""
    r = record(spec, layer)
    h = work[spec[r + H] : spec[r + H] + spec[r + ROWS]]
    return h, work[spec[r + BEFORE] : spec[r + BEFORE] + spec[r + ROWS]]


@inlined
def apply_dropout(spec, key, first, layer, row, h):
    """Dropout of a hidden layer's rows, from `row` on, in training (key > 0) only."""
    if spec[DROPOUT] > 0 and key > 0:
        call(spec[DROPOUT_ADDRESS], (spec[DROPOUT], np.int64(key), np.int64(first), np.int64(layer), np.int64(row), h))


@inlined
def add_skip(spec, work, layer, r0, r1, y, before):
    """A residual block's second layer adds what entered the block; keeps the rows as they are before the activation."""
    if not spec[RESIDUAL]:
        return
    lanes = y.shape[1]
    if layer > 0 and layer % 2 == 0:
        _, skipped = hidden(spec, work, layer - 2)
        for u in range(r0, r1):
            for t in range(lanes):
                y[u, t] += skipped[u, t]
    for u in range(r0, r1):
        for t in range(lanes):
            before[u, t] = y[u, t]


@kernel
def forward(spec, theta, context, key, first, x, out, work, temp):
    """out (n_out, lanes) = network of x (n_in, lanes); work keeps the hidden layers."""
    last, address = spec[N_DENSE] - 1, spec[PRODUCT_ADDRESS]
    h = x
    for layer in range(last + 1):
        r = record(spec, layer)
        y, before = out, out
        if layer < last:
            y, before = hidden(spec, work, layer)
        weight, bias, columns = theta[spec[r + WEIGHT] :], theta[spec[r + BIAS] :], spec[r + COLUMNS]
        for p in range(spec[r + N_ROW_PANELS]):
            q = spec[r + ROW_PANELS] + 3 * p
            r0, r1, k = spec[q], spec[q + 1], spec[q + 2]
            matmul(address, weight[r0 * columns :], columns, h, y[r0:], r1 - r0, k, FROM_BIAS, bias[r0:])
        if layer == 0 and spec[N_CONDITION] > 0:
            n = spec[N_CONDITION]
            matmul(address, theta[spec[CONDITION_WEIGHT] :], n, context, y, y.shape[0], n, FROM_RESULT, bias)
        if layer < last:
            add_skip(spec, work, layer, 0, y.shape[0], y, before)
            call(spec[ACTIVATION], (y, before))
            apply_dropout(spec, key, first, layer, 0, y)
        h = y


@kernel
def forward_by_column(spec, theta, context, key, first, x, out, work, temp):
    """The same for a block of one lane, outside training, where each matrix of weights lies by column: without panels, as
    what the mask forbids is zero."""
    last, address = spec[N_DENSE] - 1, spec[PRODUCT_ADDRESS]
    h = x
    for layer in range(last + 1):
        r = record(spec, layer)
        y, before = out, out
        if layer < last:
            y, before = hidden(spec, work, layer)
        rows, bias = spec[r + ROWS], theta[spec[r + BIAS] :]
        matmul_by_column(address, theta[spec[r + WEIGHT] :], h, y, rows, spec[r + COLUMNS], FROM_BIAS, bias)
        if layer == 0 and spec[N_CONDITION] > 0:
            matmul_by_column(
                address, theta[spec[CONDITION_WEIGHT] :], context, y, rows, spec[N_CONDITION], FROM_RESULT, bias
            )
        if layer < last:
            add_skip(spec, work, layer, 0, rows, y, before)
            call(spec[ACTIVATION], (y, before))
        h = y


@kernel
def forward_vjp(spec, theta, context, key, first, x, dout, dx, work, temp, dtheta, dcontext):
    """dx (n_in, lanes) = J^T dout; adds to dtheta and dcontext; temp keeps the gradients of the hidden layers."""
    backpropagate(spec, theta, key, first, dout, dx, work, temp)
    weights_vjp(spec, theta, context, x, dout, work, temp, dtheta, dcontext)


@kernel
def forward_vjp_of_one(spec, theta, context, key, first, x, dout, dx, work, temp, dtheta, dcontext):
    """The same for a block of one lane, without panels: narrow ones take as long as wide ones there."""
    d, last = dout, spec[N_DENSE] - 1
    for layer in range(last, -1, -1):
        r = record(spec, layer)
        below = hidden_gradient(spec, temp, layer - 1) if layer > 0 else dx
        columns, rows = spec[r + COLUMNS], spec[r + ROWS]
        matmul_transposed(spec[PRODUCT_ADDRESS], theta[spec[r + WEIGHT] :], columns, d, below, columns, rows, FROM_ZERO)
        if layer == 0 and spec[N_CONDITION] > 0:
            n = spec[N_CONDITION]
            matmul_transposed(spec[PRODUCT_ADDRESS], theta[spec[CONDITION_WEIGHT] :], n, d, dcontext, n, rows, FROM_RESULT)
        if layer > 0:
            activation_vjp(spec, key, first, layer - 1, 0, columns, below, work, temp)
        d = below


@inlined
def hidden_gradient(spec, temp, layer):
    """The gradient of what enters a hidden layer's activation."""
    r = record(spec, layer)
    return temp[spec[r + DH] : spec[r + DH] + spec[r + ROWS]]


@inlined
def rescale(spec, key, h, back):
    """Undo, or do again, what dropout multiplied the values that it kept by; dropped ones stay 0."""
    if spec[DROPOUT] > 0 and key > 0:
        kept = 1.0 - spec[DROPOUT] / 4294967296.0
        factor = h.dtype.type(1.0 / kept if back else kept)
        for u in range(h.shape[0]):
            for t in range(h.shape[1]):
                h[u, t] *= factor


@inlined
def activation_vjp(spec, key, first, layer, r0, r1, below, work, temp):
    """Turn the gradient of a hidden layer's values, in rows r0 to r1, into that of what enters its activation."""
    h, before = hidden(spec, work, layer)
    apply_dropout(spec, key, first, layer, r0, below[r0:r1])
    rescale(spec, key, h[r0:r1], False)  # the derivative is told from the activation's own value
    call(spec[ACTIVATION_VJP], (h[r0:r1], before[r0:r1], below[r0:r1]))
    rescale(spec, key, h[r0:r1], True)
    if spec[RESIDUAL] and layer % 2 == 0 and layer + 2 < spec[N_DENSE] - 1:  # what skips the block that begins here
        skipped = hidden_gradient(spec, temp, layer + 2)
        for u in range(r0, r1):
            for t in range(below.shape[1]):
                below[u, t] += skipped[u, t]


@inlined
def backpropagate(spec, theta, key, first, dout, dx, work, temp):
    """Gradients of the hidden layers, left in temp, and dx: dh_{l-1} = f'(W_l^T dh_l), the last layer first."""
    last = spec[N_DENSE] - 1
    d = dout
    for layer in range(last, -1, -1):
        r = record(spec, layer)
        below = hidden_gradient(spec, temp, layer - 1) if layer > 0 else dx
        columns, rows = spec[r + COLUMNS], spec[r + ROWS]
        for p in range(spec[r + N_COLUMN_PANELS]):
            q = spec[r + COLUMN_PANELS] + 3 * p
            c0, c1, r0 = spec[q], spec[q + 1], spec[q + 2]
            matmul_transposed(spec[PRODUCT_ADDRESS], theta[spec[r + WEIGHT] + r0 * columns + c0 :], columns, d[r0:],
                              below[c0:], c1 - c0, rows - r0, FROM_ZERO)  # fmt: skip
        if layer > 0:
            activation_vjp(spec, key, first, layer - 1, 0, spec[r + COLUMNS], below, work, temp)
        d = below


@inlined
def weights_vjp(spec, theta, context, x, dout, work, temp, dtheta, dcontext):
    """Gradients of the parameters and of the condition, once those of all hidden layers lie in temp."""
    last = spec[N_DENSE] - 1
    h, panel = x, flat(temp[spec[PANEL] :])
    for layer in range(last + 1):
        r = record(spec, layer)
        d = hidden_gradient(spec, temp, layer) if layer < last else dout
        columns, rows = spec[r + COLUMNS], spec[r + ROWS]
        if layer == 0 and spec[N_CONDITION] > 0:
            n, offset = spec[N_CONDITION], spec[CONDITION_WEIGHT]
            matmul_transposed(spec[PRODUCT_ADDRESS], theta[offset:], n, d, dcontext, n, rows, FROM_RESULT)
            if dtheta.size > 0:
                add_outer(spec[OUTER_ADDRESS], spec[:0], d, context, panel, dtheta[offset:], n, rows, n)
        if dtheta.size > 0:
            add_lane_sums(d, dtheta[spec[r + BIAS] : spec[r + BIAS] + rows])
            first_rows = spec[spec[r + FIRST_ROWS] : spec[r + FIRST_ROWS] + spec[r + N_FIRST_ROWS]]
            weights = dtheta[spec[r + WEIGHT] :]
            add_outer(spec[OUTER_ADDRESS], first_rows, d, h, panel, weights, columns, rows, columns)
        if layer < last:
            h, _ = hidden(spec, work, layer)


Panel = tuple[int, int, int]


def pack_network(
    operation: operations.Mlp | operations.Made,
    link: Link,
    *,
    row_panels: Sequence[Sequence[Panel]],
    column_panels: Sequence[Sequence[Panel]],
    first_rows: Sequence[Sequence[int]],
    unlocked: Sequence[Sequence[int]],
    entered: Sequence[int],
    group: int,
) -> list[int]:
    """The spec of a network.

    Parameters
    ----------
    row_panels : sequence of sequences of (first row, end row, leading columns)
        For each dense layer the rectangles that cover it.
    column_panels : sequence of sequences of (first column, end column, first row)
        The same, column by column; they cover every column.
    first_rows : sequence of sequences of int
        For each dense layer, and each `outer.STEP` columns of it, the first row that one of them reaches; all rows where
        there are none.
    unlocked : sequence of sequences of int
        For each dense layer how many units have at most the degree 0, 1, 2, ...
    entered : sequence of int
        Input rows of the first 0, 1, 2, ... features.
    group : int
        Sequential steps of a group.
    """
    offsets, widths = operation.offsets, operation.widths
    n_dense, keeps = len(widths) - 1, keeps_input(operation)
    f, df = ACTIVATIONS[operation.activation]
    spec = [0] * (HEADER + RECORD * n_dense)
    spec[:HEADER] = [
        n_dense,
        link(f, "activation"),
        link(df, "activation_vjp") if link.gradient else 0,
        operation.n_in,
        operation.n_out,
        operation.condition_dim,
        offsets.get("condition_weight", 0),
        group,
        link(*PRODUCT),
        link(*OUTER) if link.learns else 0,
        int(operation.residual),
        round(operation.dropout * 2**32),
        link(dropout, "dropout") if operation.dropout else 0,
        len(entered) - 1,
        0,
        sum(operation.hidden),
    ]
    row = 0
    for layer in range(n_dense):
        r = HEADER + RECORD * layer
        spec[r + WEIGHT], spec[r + BIAS] = offsets[f"weight_{layer}"], offsets[f"bias_{layer}"]
        spec[r + ROWS], spec[r + COLUMNS] = widths[layer + 1], widths[layer]
        if layer < n_dense - 1:
            spec[r + H], spec[r + DH] = row, row
            spec[r + BEFORE] = row + (sum(operation.hidden) if keeps else 0)
            row += widths[layer + 1]
        spec[r + ROW_PANELS], spec[r + N_ROW_PANELS] = len(spec), len(row_panels[layer])
        spec += [i for panel in row_panels[layer] for i in panel]
        spec[r + COLUMN_PANELS], spec[r + N_COLUMN_PANELS] = len(spec), len(column_panels[layer])
        spec += [i for panel in column_panels[layer] for i in panel]
        spec[r + UNLOCKED] = len(spec)
        spec += unlocked[layer]
        spec[r + FIRST_ROWS], spec[r + N_FIRST_ROWS] = len(spec), len(first_rows[layer])
        spec += first_rows[layer]
    spec[ENTERED] = len(spec)
    return [*spec, *entered]


def keeps_input(operation: Any) -> bool:
    """Whether what enters an activation is kept beside what it gives."""
    return operation.activation in NEEDS_INPUT or operation.residual


def rows(operation: Any) -> Scratch:
    """Scratch of the network: hidden values, twice where the input of activations is kept too; and their gradients, with
    a panel (outer.py)."""
    n_hidden = sum(operation.hidden)
    return Scratch(n_hidden * (2 if keeps_input(operation) else 1), n_hidden + PANEL_ROWS)


def pack(operation: operations.Mlp, link: Link) -> list[int]:
    """Pack the spec of the network: one panel of all weights for each layer."""
    layers = list(zip(operation.widths[:-1], operation.widths[1:]))
    return pack_network(
        operation,
        link,
        row_panels=[[(0, rows, columns)] for columns, rows in layers],
        column_panels=[[(0, columns, 0)] for columns, _ in layers],
        first_rows=[[]] * len(layers),
        unlocked=[[]] * len(layers),
        entered=[0],
        group=0,
    )


ONE_LANE_TWINS[forward_vjp] = forward_vjp_of_one
ROLES = {"forward": (forward, "network"), "vjp": (forward_vjp, "network_vjp")}
KERNELS[operations.Mlp] = NetworkKernels(ROLES, pack, rows, by_column=forward_by_column)
