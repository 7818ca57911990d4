"""The kernels around a wide network, in which a thread has a value of a lane (values.py), and between its products, in
which it has some units."""

from __future__ import annotations

import functools
from typing import Any

from npflows.backends.cpu.kernels import autoregressive, coupling, mlp
from npflows.backends.cuda import kernels
from npflows.backends.cuda.device import SIMULATED, cuda, kernel
from npflows.backends.cuda.kernels import key_of
from npflows.backends.cuda.link import Called
from npflows.backends.cuda.values import PLACES

UNITS = 2 if SIMULATED else 16
"""Units of a lane that a thread has: many, as the instructions before the first are as many as for twenty."""


def no_network(spec, theta, context, key, first, x, out, work, temp):
    """Stands for a network that runs between the launches."""


def take_network_vjp(spec, theta, context, key, first, x, dout, dx, work, temp, dtheta, dcontext):
    """Stands for its gradient, after it: takes what the network has left for the value's rows."""
    for k in range(dx.shape[0]):
        for t in range(dx.shape[1]):
            dx[k, t] = temp[spec[0] + k * spec[1], t]


def zero_network_vjp(spec, theta, context, key, first, x, dout, dx, work, temp, dtheta, dcontext):
    """Stands for its gradient, before it: none is there."""
    for k in range(dx.shape[0]):
        for t in range(dx.shape[1]):
            dx[k, t] = 0


def no_map(spec, theta, x, raw, log_det, temp):
    """Stands for a map that runs in the other launch."""


def no_map_vjp(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """Stands for its gradient."""


INSTEAD: dict[bool, tuple[kernels.Instead, kernels.Instead]] = {
    False: ((("network", no_network), ("transformer", no_map)), (("network", no_network),)),
    True: ((("network_vjp", zero_network_vjp),), (("network_vjp", take_network_vjp), ("transformer_vjp", no_map_vjp))),
}
"""What stands for networks and maps in the launches before and after the network, forward and for gradients."""


def parts_of_coupling(spec, work):
    """`coupling.parts` of a value."""
    p = spec[coupling.NETWORK_SPEC] - PLACES
    first, step, moved, raw = spec[p], spec[p + 1], spec[p + 2], spec[p + 3]
    n, m = spec[coupling.N_LINE] + 2 * spec[coupling.N_CIRCLE], spec[coupling.N_MOVED]
    kept = work[first : first + (n - 1) * step + 1 : step]
    return kept, work[moved : moved + m], work[raw : raw + m * spec[coupling.MULTIPLIER]], work[:0]


def parts_of_autoregressive(spec, work):
    """`autoregressive.parts` of a value."""
    p = spec[autoregressive.NETWORK_SPEC] - PLACES
    first, x, raw = spec[p], spec[p + 2], spec[p + 3]
    seen = work[first : first + spec[autoregressive.N_SEEN]]
    return work[x : x + 1], seen, work[raw : raw + spec[autoregressive.MULTIPLIER]], work[:0]


PARTS = {coupling.parts: parts_of_coupling, autoregressive.parts: parts_of_autoregressive}


@functools.cache
def make_values(function: Any, called: tuple[Called, ...], after: bool) -> Any:
    """The kernel of a layer's map before or after its network: a row of blocks of threads for each value."""
    instead = INSTEAD[False][after]
    run = kernels.texts_calling(called, instead, PARTS).again(function)

    def carry_values(specs, table, theta, start, end, context, key, first, block, log_det, work, temp, rows):
        t, v = cuda.grid(1), cuda.blockIdx.y
        if t < block.shape[1]:
            log_det[v, t] = 0
            run(specs[table[v, 0] : table[v, 1]], theta[start:end], context[:, t : t + 1], key_of(key), first + t,
                block[:, t : t + 1], log_det[v, t : t + 1], work[:, t : t + 1], temp[v * rows :, t : t + 1])  # fmt: skip

    return kernel(carry_values, kernels.made_of(function, called, instead))


@functools.cache
def make_values_vjp(function: Any, called: tuple[Called, ...], after: bool) -> Any:
    """The kernel of its gradient; where there are no own rows, no gradient of the map's parameters is wanted."""
    instead = INSTEAD[True][after]
    run = kernels.texts_calling(called, instead, PARTS).again(function)

    def carry_values_back(
        specs, table, theta, start, end, context, key, first, dblock, dlog_det, work, temp, rows, own, own_rows, dcontext
    ):
        t, v = cuda.grid(1), cuda.blockIdx.y
        if t < dblock.shape[1]:
            for i in range(table[v, 2], min(table[v, 3], own_rows)):
                own[i, t] = 0
            run(specs[table[v, 0] : table[v, 1]], theta[start:end], context[:, t : t + 1], key_of(key), first + t,
                dblock[:, t : t + 1], dlog_det[t : t + 1], work[:, t : t + 1], temp[v * rows :, t : t + 1],
                own[:own_rows, t], dcontext[:, t : t + 1])  # fmt: skip

    return kernel(carry_values_back, kernels.made_of(function, called, instead))


@kernel
def add_values(log_dets, log_det):
    """log_det (lanes,) += those of all values (values, lanes), in their order."""
    t = cuda.grid(1)
    if t < log_det.shape[0]:
        total = log_det[t]
        for v in range(log_dets.shape[0]):
            total += log_dets[v, t]
        log_det[t] = total


def units_text(spec, key, first, layer, r0, r1, work):
    """What follows the products of a hidden layer, in rows r0 to r1 of it."""
    y, before = mlp.hidden(spec, work, layer)
    if spec[mlp.record(spec, layer) + mlp.GATED] > 0:
        gate, ungated = mlp.gate_of(spec, work, mlp.GATE, layer)
        mlp.apply_gate(spec, layer, gate[r0:r1], ungated[r0:r1], y[r0:r1])
    mlp.add_skip(spec, work, layer, r0, r1, y, before)
    mlp.activate(spec, layer, y[r0:r1], before[r0:r1])
    mlp.apply_dropout(spec, key, first, layer, r0, y[r0:r1])


def units_vjp_text(spec, key, first, layer, r0, r1, work, temp):
    """What follows the products of its gradient."""
    mlp.activation_vjp(spec, key, first, layer, r0, r1, mlp.hidden_gradient(spec, temp, layer), work, temp)


@functools.cache
def make_units(called: tuple[Called, ...], backward: bool) -> Any:
    """The kernel of `units_text`, or of `units_vjp_text`."""
    texts = kernels.texts_calling(called)
    if backward:
        run_vjp = texts.again(units_vjp_text)

        def finish_vjp(spec, key, first, layer, rows, work, work_row, temp, temp_row):
            t, r0 = cuda.grid(1), cuda.blockIdx.y * UNITS
            if t < work.shape[1]:
                run_vjp(spec, key_of(key), first + t, layer, r0, min(r0 + UNITS, rows), work[work_row:, t : t + 1],
                        temp[temp_row:, t : t + 1])  # fmt: skip

        return kernel(finish_vjp, kernels.made_of(units_vjp_text, called))
    run = texts.again(units_text)

    def finish(spec, key, first, layer, rows, work, work_row):
        t, r0 = cuda.grid(1), cuda.blockIdx.y * UNITS
        if t < work.shape[1]:
            run(spec, key_of(key), first + t, layer, r0, min(r0 + UNITS, rows), work[work_row:, t : t + 1])

    return kernel(finish, kernels.made_of(units_text, called))


OF_UNITS = ("activation", "activation_vjp", "dropout")
OF_LAYERS = ("network", "network_vjp", "transformer", "transformer_vjp")
"""The kinds of functions that are called between products, and by a layer's own text."""
