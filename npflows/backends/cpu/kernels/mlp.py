"""Multilayer perceptrons, dense or masked, on blocks of samples.

    h_0 = x,   h_l = f(W_l h_{l-1} + b_l),   out = W_L h_{L-1} + b_L,   and V_l c is added in some of them

for a condition c.  In a gated network what a residual block adds is multiplied by sigmoid(V_b c + g_b).  A dense layer is
stored as a table of *panels*: rectangles of W that are multiplied, one product each.  A full layer has one; a masked one
has a few that cover its staircase (made.py), so that what the mask forbids costs nothing.  What a panel covers beyond the
mask is zero in theta, and its gradient is ignored by all who read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from npflows.backends.cpu.compiler.calls import call, flat
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.kernels.activations import ACTIVATIONS, NEEDS_INPUT
from npflows.backends.cpu.kernels.dropout import dropout
from npflows.backends.cpu.kernels.matmul import PRODUCT, matmul, matmul_by_column, matmul_transposed
from npflows.backends.cpu.kernels.outer import OUTER, PANEL_ROWS, add_outer
from npflows.backends.cpu.kernels.tiles import FROM_BIAS, FROM_RESULT, FROM_ZERO
from npflows.backends.cpu.link import KERNELS, ONE_LANE_TWINS, Link, NetworkKernels, Scratch
from npflows.core import operations

# spec: a header, then a record for each dense layer, then the tables that the records point to
(N_DENSE, ACTIVATION, ACTIVATION_VJP, N_IN, N_OUT, N_CONDITION, GROUP, PRODUCT_ADDRESS, OUTER_ADDRESS,
 RESIDUAL, DROPOUT, DROPOUT_ADDRESS, N_FEATURES, ENTERED, PANEL, HEADER) = range(16)  # fmt: skip
(WEIGHT, BIAS, ROWS, COLUMNS, H, BEFORE, DH, ROW_PANELS, N_ROW_PANELS, COLUMN_PANELS, N_COLUMN_PANELS,
 UNLOCKED, FIRST_ROWS, N_FIRST_ROWS, ACTIVE, GATED, GATE_WEIGHT, GATE_BIAS, GATE, DGATE, SEES_CONDITION,
 CONDITION_WEIGHT, RECORD) = range(23)  # fmt: skip
# a gated layer has in work the gate and what it multiplies, in temp the gradients of the two, that of the gate's before its
# sigmoid


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
def activate(spec, layer, h, before):
    """The activation function of a hidden layer that has one."""
    if spec[record(spec, layer) + ACTIVE] > 0:
        call(spec[ACTIVATION], (h, before))


@inlined
def gate_of(spec, block, place, layer):
    """The two blocks of rows of a gated layer that lie one after the other at a place of its record."""
    r = record(spec, layer)
    first, n = spec[r + place], spec[r + ROWS]
    return block[first : first + n], block[first + n : first + 2 * n]


@inlined
def apply_gate(spec, layer, gate, ungated, y):
    """y, rows of a gated layer, times the sigmoid of `gate`, which is left there; y itself is kept in `ungated`."""
    for u in range(y.shape[0]):
        for t in range(y.shape[1]):
            share = vecmath.sigmoid(gate[u, t])
            gate[u, t], ungated[u, t] = share, y[u, t]
            y[u, t] *= share


@inlined
def gate_rows(spec, theta, context, work, layer, r0, r1, y):
    """Multiply rows r0 to r1 of a layer by their gates, if it has some."""
    r = record(spec, layer)
    if spec[r + GATED] > 0 and r1 > r0:
        gate, ungated = gate_of(spec, work, GATE, layer)
        n = spec[N_CONDITION]
        matmul(spec[PRODUCT_ADDRESS], theta[spec[r + GATE_WEIGHT] + r0 * n :], n, context, gate[r0:], r1 - r0, n,
               FROM_BIAS, theta[spec[r + GATE_BIAS] + r0 :])  # fmt: skip
        apply_gate(spec, layer, gate[r0:r1], ungated[r0:r1], y[r0:r1])


@inlined
def gate_vjp(spec, layer, r0, r1, d, work, temp):
    """From the gradient d of rows r0 to r1 of a layer, those of the gate and of what it multiplies, left in temp."""
    if spec[record(spec, layer) + GATED] > 0:
        gate, ungated = gate_of(spec, work, GATE, layer)
        dgate, dungated = gate_of(spec, temp, DGATE, layer)
        one = d.dtype.type(1)
        for u in range(r0, r1):
            for t in range(d.shape[1]):
                share, gradient = gate[u, t], d[u, t]
                dungated[u, t] = gradient * share
                dgate[u, t] = gradient * ungated[u, t] * share * (one - share)


@inlined
def product_gradient(spec, temp, layer):
    """The gradient of what a hidden layer's product with its weights gives: of the activation's input, or before a gate."""
    if spec[record(spec, layer) + GATED] > 0:
        return gate_of(spec, temp, DGATE, layer)[1]
    return hidden_gradient(spec, temp, layer)


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
        if spec[r + SEES_CONDITION] > 0:
            n = spec[N_CONDITION]
            matmul(address, theta[spec[r + CONDITION_WEIGHT] :], n, context, y, y.shape[0], n, FROM_RESULT, bias)
        if layer < last:
            gate_rows(spec, theta, context, work, layer, 0, y.shape[0], y)
            add_skip(spec, work, layer, 0, y.shape[0], y, before)
            activate(spec, layer, y, before)
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
        if spec[r + SEES_CONDITION] > 0:
            matmul_by_column(address, theta[spec[r + CONDITION_WEIGHT] :], context, y, rows, spec[N_CONDITION], FROM_RESULT,
                             bias)  # fmt: skip
        if layer < last:
            if spec[r + GATED] > 0:
                gate, ungated = gate_of(spec, work, GATE, layer)
                matmul_by_column(address, theta[spec[r + GATE_WEIGHT] :], context, gate, rows, spec[N_CONDITION], FROM_BIAS,
                                 theta[spec[r + GATE_BIAS] :])  # fmt: skip
                apply_gate(spec, layer, gate, ungated, y)
            add_skip(spec, work, layer, 0, rows, y, before)
            activate(spec, layer, y, before)
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
        if spec[r + SEES_CONDITION] > 0:
            n, offset = spec[N_CONDITION], spec[r + CONDITION_WEIGHT]
            matmul_transposed(spec[PRODUCT_ADDRESS], theta[offset:], n, d, dcontext, n, rows, FROM_RESULT)
        if spec[r + GATED] > 0:
            n, dgate = spec[N_CONDITION], gate_of(spec, temp, DGATE, layer)[0]
            matmul_transposed(
                spec[PRODUCT_ADDRESS], theta[spec[r + GATE_WEIGHT] :], n, dgate, dcontext, n, rows, FROM_RESULT
            )
        d = below
        if layer > 0:
            activation_vjp(spec, key, first, layer - 1, 0, columns, below, work, temp)
            d = product_gradient(spec, temp, layer - 1)


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
    if spec[record(spec, layer) + ACTIVE] > 0:
        rescale(spec, key, h[r0:r1], False)  # the derivative is told from the activation's own value
        call(spec[ACTIVATION_VJP], (h[r0:r1], before[r0:r1], below[r0:r1]))
        rescale(spec, key, h[r0:r1], True)
    if spec[RESIDUAL] and layer % 2 == 0 and layer + 2 < spec[N_DENSE] - 1:  # what skips the block that begins here
        skipped = hidden_gradient(spec, temp, layer + 2)
        for u in range(r0, r1):
            for t in range(below.shape[1]):
                below[u, t] += skipped[u, t]
    gate_vjp(spec, layer, r0, r1, below, work, temp)


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
            d = product_gradient(spec, temp, layer - 1)


@inlined
def weights_vjp(spec, theta, context, x, dout, work, temp, dtheta, dcontext):
    """Gradients of the parameters and of the condition, once those of all hidden layers lie in temp."""
    last = spec[N_DENSE] - 1
    h, panel = x, flat(temp[spec[PANEL] :])
    for layer in range(last + 1):
        r = record(spec, layer)
        d = product_gradient(spec, temp, layer) if layer < last else dout
        columns, rows = spec[r + COLUMNS], spec[r + ROWS]
        if spec[r + GATED] > 0:
            n, dgate = spec[N_CONDITION], gate_of(spec, temp, DGATE, layer)[0]
            matmul_transposed(
                spec[PRODUCT_ADDRESS], theta[spec[r + GATE_WEIGHT] :], n, dgate, dcontext, n, rows, FROM_RESULT
            )
            if dtheta.size > 0:
                offset = spec[r + GATE_WEIGHT]
                add_lane_sums(dgate, dtheta[spec[r + GATE_BIAS] : spec[r + GATE_BIAS] + rows])
                add_outer(spec[OUTER_ADDRESS], spec[:0], dgate, context, panel, dtheta[offset:], n, rows, n)
        if spec[r + SEES_CONDITION] > 0:
            n, offset = spec[N_CONDITION], spec[r + CONDITION_WEIGHT]
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
    n_dense, keeps, n_gates = len(widths) - 1, keeps_input(operation), gate_rows_of(operation)
    f, df = ACTIVATIONS[operation.activation]
    spec = [0] * (HEADER + RECORD * n_dense)
    spec[:HEADER] = [
        n_dense,
        link(f, "activation"),
        link(df, "activation_vjp") if link.gradient else 0,
        operation.n_in,
        operation.n_out,
        operation.condition_dim,
        group,
        link(*PRODUCT),
        link(*OUTER) if link.learns else 0,
        int(operation.residual),
        round(operation.dropout * 2**32),
        link(dropout, "dropout") if operation.dropout else 0,
        len(entered) - 1,
        0,
        sum(operation.hidden) + n_gates,
    ]
    row, gate = 0, 0
    for layer in range(n_dense):
        r = HEADER + RECORD * layer
        spec[r + WEIGHT], spec[r + BIAS] = offsets[f"weight_{layer}"], offsets[f"bias_{layer}"]
        spec[r + ROWS], spec[r + COLUMNS] = widths[layer + 1], widths[layer]
        if layer < n_dense - 1:
            spec[r + H], spec[r + DH] = row, row
            spec[r + BEFORE] = row + (sum(operation.hidden) if keeps else 0)
            row += widths[layer + 1]
            spec[r + ACTIVE] = int(layer not in operation.linear)
        if operation.sees_condition(layer):
            spec[r + SEES_CONDITION] = 1
            spec[r + CONDITION_WEIGHT] = offsets[operation.condition_weight(layer)]
        if operation.has_gate(layer):
            spec[r + GATED] = 1
            spec[r + GATE_WEIGHT], spec[r + GATE_BIAS] = offsets[f"gate_weight_{layer}"], offsets[f"gate_bias_{layer}"]
            spec[r + GATE] = sum(operation.hidden) * (2 if keeps else 1) + gate
            spec[r + DGATE] = sum(operation.hidden) + gate
            gate += 2 * widths[layer + 1]
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


def gate_rows_of(operation: Any) -> int:
    """Rows of all gates and of what they multiply."""
    return sum(2 * n for layer, n in enumerate(operation.hidden) if operation.has_gate(layer))


def rows(operation: Any) -> Scratch:
    """Scratch of the network: hidden values, twice where the input of activations is kept too, and gates; and the gradients
    of all, with a panel (outer.py)."""
    n_hidden, n_gates = sum(operation.hidden), gate_rows_of(operation)
    return Scratch(n_hidden * (2 if keeps_input(operation) else 1) + n_gates, n_hidden + n_gates + PANEL_ROWS)


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
