"""The two compiled drivers that run any program over blocks of samples, each one call without the GIL.

`transport` carries samples through a program, `pullback` carries cotangents back through it.  Several threads call the
same driver at once and claim pieces of work from a shared counter; what a piece is depends on the samples and the
program alone, and no two pieces write to the same place, so the result has the same bits for any number of threads.

A *plan* (program.py makes it) is a vector of integers: the header, one record for each layer, then the specs.
"""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.calls import borrow, call, carve, doubles, fetch_add
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels.blocks import copy
from npflows.backends.cpu.link import LANE_MULTIPLE
from npflows.backends.cpu.standardization import (
    has_factor,
    load,
    load_cotangent,
    load_mixed,
    load_mixed_cotangent,
    load_standardized,
    store,
    store_condition_cotangent,
    store_cotangent,
    store_mixed,
    store_mixed_cotangent,
)
from npflows.core.operations import BASE_LAYER, EMBEDDING_LAYER

# header
(N_LAYERS, IN_ROWS, OUT_ROWS, BLOCK_ROWS, CONDITION_ROWS, CONTEXT_ROWS, TEMP_ROWS, STANDARDIZATION, ONE_LANE,
 BASE, BASE_VJP, BASE_SPEC, BASE_SPEC_END, BASE_THETA, BASE_THETA_END, BASE_TEMP, BASE_NETWORK_ROWS,
 EMBEDDING) = range(18)  # fmt: skip
# of the embedding, and of the network of the base: the places of the header from EMBEDDING or BASE_NETWORK on
(NETWORK, NETWORK_VJP, NETWORK_SPEC, NETWORK_SPEC_END, NETWORK_THETA, NETWORK_THETA_END, NETWORK_WORK,
 NETWORK_PLACES) = range(8)  # fmt: skip
BASE_NETWORK = EMBEDDING + NETWORK_PLACES
HEADER = BASE_NETWORK + NETWORK_PLACES
# record of a layer; ADDRESS and VJP are its kernels in the direction of the plan
# CHECKPOINT is where a layer's input is kept to run it again on the way back, or NONE: its work is kept
ADDRESS, VJP, LAYER_ROWS, SPEC, SPEC_END, THETA, THETA_END, WORK, WORK_ROWS, CHECKPOINT, RECORD = range(11)
NONE = -1
# where the float64 affine map from the user's units stands; 0: nowhere
FIRST, LAST = 1, 2


@inlined
def padded(n):
    return (n + LANE_MULTIPLE - 1) // LANE_MULTIPLE * LANE_MULTIPLE


@inlined
def entries_of_doubles(arena, n):
    """How many entries of the scratch memory n numbers of float64 take."""
    return n * 8 // arena.itemsize


@inlined
def layer_key(key, layer):
    """A key of each layer's own from that of the step; 0 stays 0."""
    return key * 1024 + layer if key > 0 else 0


@inlined
def run_network(plan, place, theta, context, key, layer, first, out, work, temp):
    """Fill out with what the network at a place of the header gives for the context, where there is one."""
    if plan[place + NETWORK] > 0:
        spec = plan[plan[place + NETWORK_SPEC] : plan[place + NETWORK_SPEC_END]]
        part = theta[plan[place + NETWORK_THETA] : plan[place + NETWORK_THETA_END]]
        call(plan[place + NETWORK], (spec, part, context, layer_key(key, layer), first, context, out, work, temp))


@inlined
def network_vjp(plan, place, theta, context, key, layer, first, dout, dcontext, work, temp, dtheta):
    """From the gradient of what it gave that of the context, and of the network's parameters."""
    if plan[place + NETWORK] > 0:
        spec = plan[plan[place + NETWORK_SPEC] : plan[place + NETWORK_SPEC_END]]
        part = theta[plan[place + NETWORK_THETA] : plan[place + NETWORK_THETA_END]]
        dpart = dtheta[plan[place + NETWORK_THETA] : plan[place + NETWORK_THETA_END]]
        call(plan[place + NETWORK_VJP], (spec, part, context, layer_key(key, layer), first, context, dout, dcontext, work,
                                         temp, dpart, dcontext))  # fmt: skip


@inlined
def load_condition(plan, theta, C, C_affine, a, width, key, first, condition, context, work, temp):
    """Fill condition from C, standardized, and context, what the layers see of it: its embedding, where there is one."""
    if plan[CONDITION_ROWS] == 0:
        return
    load_standardized(C, a, width, C_affine, condition)
    run_network(plan, EMBEDDING, theta, condition, key, EMBEDDING_LAYER, first, context, work, temp)


@inlined
def run_layer(plan, theta, context, key, first, layer, block, log_det, work, temp):
    r = HEADER + RECORD * layer
    arguments = (
        plan[plan[r + SPEC] : plan[r + SPEC_END]],
        theta[plan[r + THETA] : plan[r + THETA_END]],
        context,
        layer_key(key, layer),
        first,
        block[: plan[r + LAYER_ROWS]],
        log_det,
        work,
        temp,
    )
    call(plan[r + ADDRESS], arguments)


@inlined
def run_layers(plan, theta, context, key, first, block, log_det, arena, work_start, keep, temp):
    """All layers; `keep` keeps for the way back the work of each, or its input."""
    lanes = block.shape[1]
    for layer in range(plan[N_LAYERS]):
        r = HEADER + RECORD * layer
        start = work_start + (plan[r + WORK] * lanes if keep else 0)
        if keep and plan[r + CHECKPOINT] != NONE:
            rows = plan[r + LAYER_ROWS]
            copy(block[:rows], carve(arena, work_start + plan[r + CHECKPOINT] * lanes, rows, lanes))
        work = carve(arena, start, plan[r + WORK_ROWS], lanes)
        run_layer(plan, theta, context, key, first, layer, block, log_det, work, temp)


@inlined
def standardization_log_det(plan, X_affine):
    """log |det| of the affine map between the user's units and the program's."""
    total = 0.0
    for d in range(X_affine.shape[1]):
        total += X_affine[2, d]
    if plan[STANDARDIZATION] == FIRST:
        return -total
    return total if plan[STANDARDIZATION] == LAST else 0.0


@inlined
def base_rows(plan, block):
    """The rows of a block that hold what the network of the base gives: the last that the base is given."""
    end = plan[OUT_ROWS] + plan[BASE_TEMP]
    return block[end - plan[BASE_NETWORK_ROWS] : end]


@inlined
def add_base(plan, theta, z, log_prob):
    spec, part = plan[plan[BASE_SPEC] : plan[BASE_SPEC_END]], theta[plan[BASE_THETA] : plan[BASE_THETA_END]]
    call(plan[BASE], (spec, part, z[: plan[OUT_ROWS] + plan[BASE_TEMP]], log_prob))


@inlined
def settle(X, C, a, t, log_prob):
    """The log-density of a sample: NaN where it or its condition has NaN; -inf where numbers left the range of the
    compute dtype, infinite ones included."""
    if np.isfinite(log_prob):
        return log_prob
    for d in range(X.shape[1]):
        if np.isnan(X[a + t, d]):
            return np.nan
    for d in range(C.shape[1]):
        if np.isnan(C[a + t, d]):
            return np.nan
    return -np.inf


@inlined
def transport_block(
    plan, theta, X_affine, C_affine, X, C, a, width, lanes, key, origin, arena, Y, log_det, log_prob
):  # fmt: skip
    """Carry samples a to a + width of X through the program in one block; see `transport` for the rest."""
    mixed = has_factor(X_affine)
    sums = doubles(arena, 0, 1, lanes)[0]
    unmixed = doubles(arena, lanes, X_affine.shape[1] if mixed else 0, lanes)
    start = entries_of_doubles(arena, lanes + unmixed.size)
    block = carve(arena, start, plan[BLOCK_ROWS], lanes)
    start += block.size
    context = carve(arena, start, plan[CONTEXT_ROWS], lanes)
    start += context.size
    condition = context
    if plan[EMBEDDING] > 0:
        condition = carve(arena, start, plan[CONDITION_ROWS], lanes)
        start += condition.size
    temp = carve(arena, start, plan[TEMP_ROWS], lanes)
    start += temp.size
    if mixed and plan[STANDARDIZATION] == FIRST:
        load_mixed(X, a, width, X_affine, unmixed, block)
    else:
        load(X, a, width, X_affine, plan[STANDARDIZATION] == FIRST, block)
    load_condition(plan, theta, C, C_affine, a, width, key, origin + a, condition, context,
                   carve(arena, start, plan[EMBEDDING + NETWORK_WORK], lanes), temp)  # fmt: skip
    for t in range(lanes):
        sums[t] = standardization_log_det(plan, X_affine)
    run_layers(plan, theta, context, key, origin + a, block, sums, arena, start, False, temp)
    if log_det.size > 0:
        for t in range(width):
            log_det[a + t] = sums[t]
    if Y.shape[0] > 0 and mixed and plan[STANDARDIZATION] == LAST:
        store_mixed(block, a, width, X_affine, Y)
    elif Y.shape[0] > 0:
        store(block, a, width, X_affine, plan[STANDARDIZATION] == LAST, Y)
    if log_prob.size > 0:
        run_network(plan, BASE_NETWORK, theta, context, key, BASE_LAYER, origin + a, base_rows(plan, block),
                    carve(arena, start, plan[BASE_NETWORK + NETWORK_WORK], lanes), temp)  # fmt: skip
        add_base(plan, theta, block, sums)
        for t in range(width):
            log_prob[a + t] = settle(X, C, a, t, sums[t])


@kernel
def transport(arena, counter, plan, theta, X_affine, C_affine, X, C, key, origin, block_width, Y, log_det, log_prob):
    """Carry X (n, in_rows) through the program.

    `X_affine` (3, in_rows) or (3 + in_rows, in_rows) and `C_affine` (3, condition_rows) are the affine maps from the
    user's units that `npflows.core.backend.State` describes, or have no columns; C (n, condition_rows) is the condition,
    `origin` the number of the first sample, `block_width` the samples of a block (the last may have fewer).  Fills Y
    (n, out_rows), log_det (n,) and log_prob (n,), each unless it is empty.
    """
    plan, theta, arena, n = borrow(plan), borrow(theta), borrow(arena), X.shape[0]
    n_blocks = (n + block_width - 1) // block_width
    while True:
        b = fetch_add(counter, 0, 1)
        if b >= n_blocks:
            break
        a = b * block_width
        width = min(block_width, n - a)
        lanes = 1 if plan[ONE_LANE] else padded(width)
        transport_block(plan, theta, X_affine, C_affine, X, C, a, width, lanes, key, origin, arena, Y, log_det, log_prob)


@inlined
def pullback_block(
    plan, theta, forward_theta, X_affine, C_affine, X, C, a, width, lanes, key, origin, arena, dY, dlog, log_prob, dX, dC,
    dtheta,
):  # fmt: skip
    """Carry the cotangents of samples a to a + width of X back in one block; see `pullback` for the rest.

    `forward_theta` are the parameters on the way forward, which may lie in another order there (`Link.by_column`).
    """
    mixed = has_factor(X_affine)
    sums = doubles(arena, 0, 1, lanes)[0]
    unmixed = doubles(arena, lanes, X_affine.shape[1] if mixed else 0, lanes)
    start = entries_of_doubles(arena, lanes + unmixed.size)
    block = carve(arena, start, plan[BLOCK_ROWS], lanes)
    start += block.size
    dblock = carve(arena, start, plan[BLOCK_ROWS], lanes)
    start += block.size
    context = carve(arena, start, plan[CONTEXT_ROWS], lanes)
    start += context.size
    dcontext = carve(arena, start, plan[CONTEXT_ROWS], lanes)
    start += context.size
    condition, dcondition = context, dcontext
    if plan[EMBEDDING] > 0:
        condition = carve(arena, start, plan[CONDITION_ROWS], lanes)
        start += condition.size
        dcondition = carve(arena, start, plan[CONDITION_ROWS], lanes)
        start += condition.size
    embedding_work = carve(arena, start, plan[EMBEDDING + NETWORK_WORK], lanes)
    start += embedding_work.size
    base_work = carve(arena, start, plan[BASE_NETWORK + NETWORK_WORK], lanes)
    start += base_work.size
    dlog_det = arena[start : start + lanes]
    start += lanes
    temp = carve(arena, start, plan[TEMP_ROWS], lanes)
    start += temp.size

    if mixed and plan[STANDARDIZATION] == FIRST:
        load_mixed(X, a, width, X_affine, unmixed, block)
    else:
        load(X, a, width, X_affine, plan[STANDARDIZATION] == FIRST, block)
    load_condition(plan, forward_theta, C, C_affine, a, width, key, origin + a, condition, context, embedding_work, temp)
    dcontext[:, :] = 0
    for t in range(lanes):
        sums[t] = standardization_log_det(plan, X_affine)
        dlog_det[t] = dlog[a + t] if t < width else 0.0
    run_layers(plan, forward_theta, context, key, origin + a, block, sums, arena, start, True, temp)

    if plan[BASE] > 0:
        run_network(plan, BASE_NETWORK, forward_theta, context, key, BASE_LAYER, origin + a, base_rows(plan, block),
                    base_work, temp)  # fmt: skip
        add_base(plan, theta, block, sums)
        for t in range(width):
            log_prob[a + t] = settle(X, C, a, t, sums[t])
        for d in range(plan[OUT_ROWS]):
            for t in range(lanes):
                dblock[d, t] = block[d, t]
        copy(base_rows(plan, block), base_rows(plan, dblock))
        spec, part = plan[plan[BASE_SPEC] : plan[BASE_SPEC_END]], theta[plan[BASE_THETA] : plan[BASE_THETA_END]]
        dpart = dtheta[plan[BASE_THETA] : plan[BASE_THETA_END]]
        call(plan[BASE_VJP], (spec, part, dblock[: plan[OUT_ROWS] + plan[BASE_TEMP]], dlog_det, dpart))
        network_vjp(plan, BASE_NETWORK, theta, context, key, BASE_LAYER, origin + a, base_rows(plan, dblock), dcontext,
                    base_work, temp, dtheta)  # fmt: skip
    elif mixed and plan[STANDARDIZATION] == LAST:
        load_mixed_cotangent(dY, a, width, X_affine, unmixed, dblock)
    else:
        load_cotangent(dY, a, width, X_affine, plan[STANDARDIZATION] == LAST, dblock)

    for layer in range(plan[N_LAYERS] - 1, -1, -1):
        r = HEADER + RECORD * layer
        work = carve(arena, start + plan[r + WORK] * lanes, plan[r + WORK_ROWS], lanes)
        if plan[r + CHECKPOINT] != NONE:
            rows = plan[r + LAYER_ROWS]
            copy(carve(arena, start + plan[r + CHECKPOINT] * lanes, rows, lanes), block[:rows])
            run_layer(plan, forward_theta, context, key, origin + a, layer, block, sums, work, temp)
        arguments = (
            plan[plan[r + SPEC] : plan[r + SPEC_END]],
            theta[plan[r + THETA] : plan[r + THETA_END]],
            context,
            layer_key(key, layer),
            origin + a,
            dblock[: plan[r + LAYER_ROWS]],
            dlog_det,
            work,
            temp,
            dtheta[plan[r + THETA] : plan[r + THETA_END]],
            dcontext,
        )
        call(plan[r + VJP], arguments)
    network_vjp(plan, EMBEDDING, theta, condition, key, EMBEDDING_LAYER, origin + a, dcontext, dcondition, embedding_work,
                temp, dtheta)  # fmt: skip

    if dX.shape[0] > 0 and mixed and plan[STANDARDIZATION] == FIRST:
        store_mixed_cotangent(dblock, a, width, X_affine, unmixed, dX)
    elif dX.shape[0] > 0:
        store_cotangent(dblock, a, width, X_affine, plan[STANDARDIZATION] == FIRST, dX)
    if dC.shape[0] > 0:
        store_condition_cotangent(dcondition, C, a, width, C_affine, dC)


@kernel
def pullback(arena, counter, plan, theta, X_affine, C_affine, X, C, key, origin, block_width, dY, dlog, log_prob, dX, dC,
             n_blocks, first, n_pieces, gradients):  # fmt: skip
    """Carry cotangents back through the program at X (n, in_rows).

    With a base in the plan, dlog (n,) are the cotangents of log_prob, which is filled on the way; without one they are
    those of log_det, and dY (n, out_rows) those of the result.  Fills dX (n, in_rows) and dC (n, condition_rows) unless
    empty.  All `n_blocks` blocks are dealt to `n_pieces` pieces, of which those here begin with `first`, as X does with
    its first sample; the g-th of them puts its gradient into gradients[g], unless that has no columns.
    """
    plan, theta, arena, gradients, n = borrow(plan), borrow(theta), borrow(arena), borrow(gradients), X.shape[0]
    before = first * n_blocks // n_pieces
    while True:
        g = fetch_add(counter, 0, 1)
        if g >= gradients.shape[0]:
            break
        dtheta = gradients[g]
        dtheta[:] = 0
        for b in range((first + g) * n_blocks // n_pieces, (first + g + 1) * n_blocks // n_pieces):
            a = (b - before) * block_width
            width = min(block_width, n - a)
            lanes = 1 if plan[ONE_LANE] else padded(width)
            pullback_block(plan, theta, theta, X_affine, C_affine, X, C, a, width, lanes, key, origin, arena, dY, dlog,
                           log_prob, dX, dC, dtheta)  # fmt: skip
