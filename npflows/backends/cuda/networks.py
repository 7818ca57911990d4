"""Networks whose products are called in one place: a kernel contains the code of a product once for each place that calls
it, and takes longer to compile for each.

Each is a twin of a kernel of the CPU (mlp.py, made.py, autoregressive.py), of which it has the order of steps and calls the
formulas.
"""

from __future__ import annotations

from npflows.backends.cpu.compiler.calls import call, flat
from npflows.backends.cpu.kernels import autoregressive, made, mlp
from npflows.backends.cpu.kernels.autoregressive import (
    DIM,
    HEADER,
    MAP_SOLVE,
    MAP_TEMP,
    MAP_VJP,
    MULTIPLIER,
    N_SEEN,
    NETWORK_THETA,
    STEP_VJP,
    WEIGHTS,
    add_seen,
    map_of_value,
    map_spec_of_value,
    network_part,
    parts,
)
from npflows.backends.cpu.kernels.made import unlocked
from npflows.backends.cpu.kernels.matmul import matmul, matmul_transposed
from npflows.backends.cpu.kernels.mlp import (
    BIAS,
    COLUMN_PANELS,
    COLUMNS,
    CONDITION_WEIGHT,
    DGATE,
    FIRST_ROWS,
    GATE,
    GATE_BIAS,
    GATE_WEIGHT,
    GATED,
    GROUP,
    N_COLUMN_PANELS,
    N_CONDITION,
    N_DENSE,
    N_FEATURES,
    N_FIRST_ROWS,
    N_OUT,
    N_ROW_PANELS,
    OUTER_ADDRESS,
    PANEL,
    PRODUCT_ADDRESS,
    ROW_PANELS,
    ROWS,
    SEES_CONDITION,
    WEIGHT,
    activate,
    activation_vjp,
    add_lane_sums,
    add_skip,
    apply_dropout,
    apply_gate,
    gate_of,
    hidden,
    hidden_gradient,
    product_gradient,
    record,
)
from npflows.backends.cpu.kernels.outer import add_outer
from npflows.backends.cpu.kernels.tiles import FROM_BIAS, FROM_RESULT, FROM_ZERO


def finish_rows(spec, key, first, work, layer, r0, r1, y, before):
    """What comes after the products of rows r0 to r1 of a hidden layer."""
    if spec[record(spec, layer) + GATED] > 0:
        gate, ungated = gate_of(spec, work, GATE, layer)
        apply_gate(spec, layer, gate[r0:r1], ungated[r0:r1], y[r0:r1])
    add_skip(spec, work, layer, r0, r1, y, before)
    activate(spec, layer, y[r0:r1], before[r0:r1])
    apply_dropout(spec, key, first, layer, r0, y[r0:r1])


def forward(spec, theta, context, key, first, x, out, work, temp):
    """`mlp.forward`."""
    last, n = spec[N_DENSE] - 1, spec[N_CONDITION]
    h = x
    for layer in range(last + 1):
        r = record(spec, layer)
        y, before, rows = out, out, spec[r + ROWS]
        if layer < last:
            y, before = hidden(spec, work, layer)
        panels = spec[r + N_ROW_PANELS]
        for p in range(panels + 2):  # panels, then the condition, then the gate
            q = spec[r + ROW_PANELS] + 3 * min(p, panels - 1)
            row, columns, k = spec[q], spec[r + COLUMNS], spec[q + 2]
            height, weight, bias = spec[q + 1] - row, spec[r + WEIGHT] + row * columns, spec[r + BIAS] + row
            source, target, start = h, y[row:], FROM_BIAS
            if p >= panels:
                height, weight, start = rows * spec[r + SEES_CONDITION], spec[r + CONDITION_WEIGHT], FROM_RESULT
                source, target, columns, k = context, y, n, n
            if p > panels:
                height, weight, bias, start = rows * spec[r + GATED], spec[r + GATE_WEIGHT], spec[r + GATE_BIAS], FROM_BIAS
                target = gate_of(spec, work, GATE, layer)[0]
            if height > 0:
                matmul(spec[PRODUCT_ADDRESS], theta[weight:], columns, source, target, height, k, start, theta[bias:])
        if layer < last:
            finish_rows(spec, key, first, work, layer, 0, rows, y, before)
        h = y


def forward_vjp(spec, theta, context, key, first, x, dout, dx, work, temp, dtheta, dcontext):
    """`mlp.forward_vjp`."""
    d, last, n = dout, spec[N_DENSE] - 1, spec[N_CONDITION]
    for layer in range(last, -1, -1):
        r = record(spec, layer)
        below = hidden_gradient(spec, temp, layer - 1) if layer > 0 else dx
        panels, rows = spec[r + N_COLUMN_PANELS], spec[r + ROWS]
        for p in range(panels + 2):  # panels, then the condition, then the gate
            q = spec[r + COLUMN_PANELS] + 3 * min(p, panels - 1)
            column, columns, row = spec[q], spec[r + COLUMNS], spec[q + 2]
            m, k, weight, start = spec[q + 1] - column, rows - row, spec[r + WEIGHT] + row * columns + column, FROM_ZERO
            source, target = d[row:], below[column:]
            if p >= panels:
                m, k, weight, start = n * spec[r + SEES_CONDITION], rows, spec[r + CONDITION_WEIGHT], FROM_RESULT
                source, target, columns = d, dcontext, n
            if p > panels:
                m, weight, source = n * spec[r + GATED], spec[r + GATE_WEIGHT], gate_of(spec, temp, DGATE, layer)[0]
            if m > 0:
                matmul_transposed(spec[PRODUCT_ADDRESS], theta[weight:], columns, source, target, m, k, start)
        if layer > 0:
            activation_vjp(spec, key, first, layer - 1, 0, spec[r + COLUMNS], below, work, temp)
            d = product_gradient(spec, temp, layer - 1)
    sums_over_samples(spec, context, x, dout, work, temp, dtheta)


def sums_over_samples(spec, context, x, dout, work, temp, dtheta):
    """The gradients of parameters, once those of all hidden layers lie in temp."""
    last = spec[N_DENSE] - 1
    h, panel, n = x, flat(temp[spec[PANEL] :]), spec[N_CONDITION]
    for layer in range(last + 1):
        r = record(spec, layer)
        d = product_gradient(spec, temp, layer) if layer < last else dout
        columns, rows = spec[r + COLUMNS], spec[r + ROWS]
        if dtheta.size > 0:
            if spec[r + GATED] > 0:
                dgate, bias = gate_of(spec, temp, DGATE, layer)[0], spec[r + GATE_BIAS]
                add_lane_sums(dgate, dtheta[bias : bias + rows])
                weights = dtheta[spec[r + GATE_WEIGHT] :]
                add_outer(spec[OUTER_ADDRESS], spec[:0], dgate, context, panel, weights, n, rows, n)
            if spec[r + SEES_CONDITION] > 0:
                weights = dtheta[spec[r + CONDITION_WEIGHT] :]
                add_outer(spec[OUTER_ADDRESS], spec[:0], d, context, panel, weights, n, rows, n)
            add_lane_sums(d, dtheta[spec[r + BIAS] : spec[r + BIAS] + rows])
            first_rows = spec[spec[r + FIRST_ROWS] : spec[r + FIRST_ROWS] + spec[r + N_FIRST_ROWS]]
            weights = dtheta[spec[r + WEIGHT] :]
            add_outer(spec[OUTER_ADDRESS], first_rows, d, h, panel, weights, columns, rows, columns)
        if layer < last:
            h, _ = hidden(spec, work, layer)


def sequential_step(spec, theta, context, key, first, x, out, work, temp, i):
    """`made.sequential_step`."""
    last, m, n = spec[N_DENSE] - 1, spec[N_OUT] // spec[N_FEATURES], spec[N_CONDITION]
    g0 = i - i % spec[GROUP]
    g1 = min(g0 + spec[GROUP], spec[N_FEATURES])
    for own in range(1 if i > g0 else 0, 2):  # what the whole group takes from before it, then the step's own
        h, from_unit, to_unit = x, (i if own else g0), (i + 1 if own else g1)
        for layer in range(last + 1):
            r = record(spec, layer)
            y, before, r0, r1 = out, out, from_unit * m, to_unit * m
            if layer < last:
                y, before = hidden(spec, work, layer)
                r0, r1 = unlocked(spec, layer, from_unit - 1), unlocked(spec, layer, to_unit - 1)
            known = unlocked(spec, layer - 1, g0 - 1)
            for p in range(2):  # the weights, then the group's condition or the step's gate
                c0, c1 = (known, unlocked(spec, layer - 1, i)) if own else (0, known)
                columns, k, height = spec[r + COLUMNS], c1 - c0, r1 - r0
                weight, bias, start = spec[r + WEIGHT] + c0, spec[r + BIAS] + r0, FROM_RESULT if own else FROM_BIAS
                source, target = h[c0:], y[r0:]
                if p > 0:
                    source, columns, k, start = context, n, n, FROM_BIAS if own else FROM_RESULT
                    height *= spec[r + GATED] if own else spec[r + SEES_CONDITION]
                    weight = spec[r + GATE_WEIGHT] if own else spec[r + CONDITION_WEIGHT]
                    bias = spec[r + GATE_BIAS] + r0
                    if own:
                        target = gate_of(spec, work, GATE, layer)[0][r0:]
                if height > 0:
                    matmul(spec[PRODUCT_ADDRESS], theta[weight + r0 * columns :], columns, source, target, height, k, start,
                           theta[bias:])  # fmt: skip
            if own and layer < last:
                finish_rows(spec, key, first, work, layer, r0, r1, y, before)
            h = y


def sequential_step_vjp(spec, theta, context, key, first, dx, dout, work, temp, i):
    """`made.sequential_step_vjp`."""
    last, m, n = spec[N_DENSE] - 1, spec[N_OUT] // spec[N_FEATURES], spec[N_FEATURES]
    g0, g1 = -1, 0
    if i >= 0:
        g0 = i - i % spec[GROUP]
        g1 = min(g0 + spec[GROUP], n)
    for own in range(1 if i < g1 - 1 else 0, 2):  # what the whole group takes from after it, then the step's own
        d, after, end = dout, (i + 1 if own else g1), (g1 if own else n)
        for layer in range(last, -1, -1):
            r0, r1, columns = after * m, end * m, spec[record(spec, layer) + COLUMNS]
            if layer < last:
                r0, r1 = unlocked(spec, layer, after - own), unlocked(spec, layer, end)
            c0, c1 = unlocked(spec, layer - 1, i if own else g0), unlocked(spec, layer - 1, i + 1 if own else g1)
            below = hidden_gradient(spec, temp, layer - 1) if layer > 0 else dx
            if c1 > c0:
                weight = theta[spec[record(spec, layer) + WEIGHT] + r0 * columns + c0 :]
                matmul_transposed(spec[PRODUCT_ADDRESS], weight, columns, d[r0:], below[c0:], c1 - c0, r1 - r0,
                                  FROM_RESULT if own else FROM_ZERO)  # fmt: skip
            if layer > 0:
                if own:
                    activation_vjp(spec, key, first, layer - 1, c0, c1, below, work, temp)
                d = product_gradient(spec, temp, layer - 1)


def weights_vjp(spec, theta, context, key, first, x, dout, dx, work, temp, dtheta, dcontext):
    """`made.weights_vjp`."""
    n = spec[N_CONDITION]
    for layer in range(spec[N_DENSE] if n > 0 else 0):
        r = record(spec, layer)
        d = product_gradient(spec, temp, layer) if layer < spec[N_DENSE] - 1 else dout
        for gated in range(2):
            present, weight, source = spec[r + SEES_CONDITION], spec[r + CONDITION_WEIGHT], d
            if gated:
                present, weight, source = spec[r + GATED], spec[r + GATE_WEIGHT], gate_of(spec, temp, DGATE, layer)[0]
            if present:
                matmul_transposed(
                    spec[PRODUCT_ADDRESS], theta[weight:], n, source, dcontext, n, spec[r + ROWS], FROM_RESULT
                )
    sums_over_samples(spec, context, x, dout, work, temp, dtheta)


def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """`autoregressive.inverse_vjp`."""
    x, seen, raw, network_work = parts(spec, work)
    inner, weights = network_part(spec, theta)
    n, m, end = spec[DIM], spec[MULTIPLIER], spec[N_SEEN]
    through, direct, dY, dL = temp[:end], temp[end : end + 1], temp[end + 1 : end + 2], temp[end + 2]
    map_temp, network_temp = temp[end + 3 :], temp[end + 3 + spec[MAP_TEMP] :]
    for t in range(dlog_det.size):
        dL[t] = -dlog_det[t]
    for k in range(n - 1, -2, -1):
        call(spec[STEP_VJP], (inner, weights, context, key, first, through, raw, network_work, network_temp, k))
        if k >= 0:
            value, draw, target = x[k : k + 1], raw[k * m : (k + 1) * m], dblock[spec[HEADER + k]]
            map_spec, map_theta = map_spec_of_value(spec, k), map_of_value(spec, theta, k)
            dmap_theta = map_of_value(spec, dtheta, k)
            add_seen(spec, seen, through, k, target)
            for t in range(target.size):
                dY[0, t] = -target[t]
            call(spec[MAP_SOLVE], (map_spec, map_theta, value, draw, dY, dL, dmap_theta, map_temp))
            for t in range(target.size):
                direct[0, t] = dY[0, t]
                target[t] = -dY[0, t]
            call(spec[MAP_VJP], (map_spec, map_theta, value, draw, direct, dL, dmap_theta, map_temp))
    call(spec[WEIGHTS], (inner, weights, context, key, first, seen, raw, through, network_work, network_temp,
                         dtheta[: spec[NETWORK_THETA]], dcontext))  # fmt: skip


TWINS = {
    mlp.forward: forward,
    mlp.forward_vjp: forward_vjp,
    made.sequential_step: sequential_step,
    made.sequential_step_vjp: sequential_step_vjp,
    made.weights_vjp: weights_vjp,
    autoregressive.inverse_vjp: inverse_vjp,
}
"""What stands for kernels of the CPU."""
