"""Couplings: a network sees the values that are kept and gives the raw parameters of a scalar map of the others."""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.calls import as_real, call
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.kernels.blocks import gather, scatter
from npflows.backends.cpu.link import KERNELS, LayerKernels, Link, Scratch, bits, pack_map, scratch, temp_of_map
from npflows.core import operations

# spec: this header, then the indices of the values kept (those on circles last) and of those moved, the network's spec, the
# scalar map's
(N_LINE, N_CIRCLE, PER_BOUND, N_MOVED, MULTIPLIER, NETWORK_THETA, NETWORK_SPEC, MAP_SPEC, NETWORK_FORWARD, NETWORK_VJP,
 MAP_FORWARD, MAP_INVERSE, MAP_VJP, MAP_SOLVE, HEADER) = range(15)  # fmt: skip
# work: what the network sees of the kept values, the moved values before the map, the raw parameters, the network's own


@inlined
def n_features(spec):
    """Values that the network sees: one of each kept value on the line, cosine and sine of each on a circle."""
    return spec[N_LINE] + 2 * spec[N_CIRCLE]


@inlined
def start_of_moved(spec):
    """The place in the spec where the indices of the moved values begin."""
    return HEADER + spec[N_LINE] + spec[N_CIRCLE]


@inlined
def parts(spec, work):
    """kept (n_features, lanes), moved (n_moved, lanes), raw (n_moved * multiplier, lanes) and the network's work."""
    a = n_features(spec)
    b = a + spec[N_MOVED]
    c = b + spec[N_MOVED] * spec[MULTIPLIER]
    return work[:a], work[a:b], work[b:c], work[c:]


@inlined
def per_bound(spec, like):
    """1 / bound, for values on circles, which are the interval [-bound, bound]."""
    return like.dtype.type(as_real(spec[PER_BOUND]))


@inlined
def see(spec, block, kept):
    """kept = what the network sees of a block."""
    n, m = spec[N_LINE], spec[N_CIRCLE]
    gather(block, spec, HEADER, kept[:n])
    turn = per_bound(spec, block)
    for k in range(m):
        source, cosine, sine = block[spec[HEADER + n + k]], kept[n + k], kept[n + m + k]
        for t in range(source.size):
            cosine[t] = vecmath.cospi(source[t] * turn)
            sine[t] = vecmath.sinpi(source[t] * turn)


@inlined
def add_kept(spec, kept, dkept, dblock):
    """Add the gradient of what the network sees to that of the kept values."""
    n, m = spec[N_LINE], spec[N_CIRCLE]
    for k in range(n):
        target = dblock[spec[HEADER + k]]
        for t in range(dkept.shape[1]):
            target[t] += dkept[k, t]
    turn = per_bound(spec, dblock) * dblock.dtype.type(np.pi)
    for k in range(n, n + m):
        target = dblock[spec[HEADER + k]]
        for t in range(dkept.shape[1]):
            target[t] += turn * (kept[k, t] * dkept[m + k, t] - kept[m + k, t] * dkept[k, t])


@inlined
def condition_map(spec, theta, context, key, first, block, work, temp):
    """Fill kept and raw: the parameters of the map, from the values that are left unchanged."""
    kept, _, raw, network_work = parts(spec, work)
    see(spec, block, kept)
    call(spec[NETWORK_FORWARD], (spec[spec[NETWORK_SPEC] : spec[MAP_SPEC]], theta[: spec[NETWORK_THETA]], context, key,
                                 first, kept, raw, network_work, temp))  # fmt: skip


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    """y_moved = f(x_moved; network(x_kept)), y_kept = x_kept."""
    condition_map(spec, theta, context, key, first, block, work, temp)
    _, moved, raw, _ = parts(spec, work)
    y = temp[: spec[N_MOVED]]
    gather(block, spec, start_of_moved(spec), moved)
    gather(block, spec, start_of_moved(spec), y)
    call(spec[MAP_FORWARD], (spec[spec[MAP_SPEC] :], theta[spec[NETWORK_THETA] :], y, raw, log_det,
                             temp[spec[N_MOVED] :]))  # fmt: skip
    scatter(y, spec, start_of_moved(spec), block)


@kernel
def inverse(spec, theta, context, key, first, block, log_det, work, temp):
    """x_moved = f^-1(y_moved; network(y_kept)), x_kept = y_kept."""
    condition_map(spec, theta, context, key, first, block, work, temp)
    _, moved, raw, _ = parts(spec, work)
    gather(block, spec, start_of_moved(spec), moved)
    call(spec[MAP_INVERSE], (spec[spec[MAP_SPEC] :], theta[spec[NETWORK_THETA] :], moved, raw, log_det, temp))
    scatter(moved, spec, start_of_moved(spec), block)


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """dx_moved = dy_moved df/dx, dx_kept = dy_kept + draw^T d network / dx_kept; draw = dL/d(the map's parameters)."""
    kept, moved, raw, network_work = parts(spec, work)
    a, b = spec[N_MOVED], spec[N_MOVED] + n_features(spec)
    dmoved, dkept = temp[:a], temp[a:b]
    gather(dblock, spec, start_of_moved(spec), dmoved)
    call(spec[MAP_VJP], (spec[spec[MAP_SPEC] :], theta[spec[NETWORK_THETA] :], moved, raw, dmoved, dlog_det,
                         dtheta[spec[NETWORK_THETA] :], temp[b:]))  # fmt: skip
    scatter(dmoved, spec, start_of_moved(spec), dblock)
    call(spec[NETWORK_VJP], (spec[spec[NETWORK_SPEC] : spec[MAP_SPEC]], theta[: spec[NETWORK_THETA]], context, key,
                             first, kept, raw, dkept, network_work, temp[b:], dtheta[: spec[NETWORK_THETA]],
                             dcontext))  # fmt: skip
    add_kept(spec, kept, dkept, dblock)


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """With y = f(x), cotangents (dx, m) of the inverse and dL = -m: solve J^T dY = -dx - dL grad log_det on the moved
    half, push (dY, dL) through the forward vjp, and dy = -dY."""
    kept, moved, raw, network_work = parts(spec, work)
    a = spec[N_MOVED]
    b, c = 2 * a, 2 * a + n_features(spec)
    dY, dmoved, dkept, dL = temp[:a], temp[a:b], temp[b:c], temp[c]
    map_spec, map_theta = spec[spec[MAP_SPEC] :], theta[spec[NETWORK_THETA] :]
    dmap_theta = dtheta[spec[NETWORK_THETA] :]
    gather(dblock, spec, start_of_moved(spec), dY)
    for t in range(dlog_det.size):
        dL[t] = -dlog_det[t]
        for k in range(a):
            dY[k, t] = -dY[k, t]
    call(spec[MAP_SOLVE], (map_spec, map_theta, moved, raw, dY, dL, dmap_theta, temp[c + 1 :]))
    for k in range(a):
        for t in range(dlog_det.size):
            dmoved[k, t] = dY[k, t]
            dY[k, t] = -dY[k, t]
    call(spec[MAP_VJP], (map_spec, map_theta, moved, raw, dmoved, dL, dmap_theta, temp[c + 1 :]))
    call(spec[NETWORK_VJP], (spec[spec[NETWORK_SPEC] : spec[MAP_SPEC]], theta[: spec[NETWORK_THETA]], context, key,
                             first, kept, raw, dkept, network_work, temp[c + 1 :], dtheta[: spec[NETWORK_THETA]],
                             dcontext))  # fmt: skip
    scatter(dY, spec, start_of_moved(spec), dblock)
    add_kept(spec, kept, dkept, dblock)


def pack(operation: operations.Coupling, link: Link) -> list[int]:
    """Pack the spec of the layer: header, indices, network, scalar map."""
    network, scalar_map = operation.conditioner, operation.transformer
    n_kept, n_moved = len(operation.kept), len(operation.moved)
    network_spec = HEADER + n_kept + n_moved
    inner = link.pack(network)
    return [
        n_kept - operation.n_circles,
        operation.n_circles,
        *bits(1 / operation.bound),
        n_moved,
        scalar_map.multiplier,
        network.size,
        network_spec,
        network_spec + len(inner),
        link.network(network, "forward", forward, inverse),
        link.network(network, "vjp", forward_vjp, inverse_vjp),
        link.scalar_map(scalar_map, "forward", forward),
        link.scalar_map(scalar_map, "inverse", inverse),
        link.scalar_map(scalar_map, "vjp", forward_vjp, inverse_vjp),
        link.scalar_map(scalar_map, "solve", inverse_vjp),
        *operation.kept,
        *operation.moved,
        *inner,
        *pack_map(scalar_map),
    ]


def rows(operation: operations.Coupling) -> Scratch:
    """Scratch of the layer and of its network."""
    network, n_moved, multiplier = operation.conditioner, len(operation.moved), operation.transformer.multiplier
    work, temp = scratch(network)
    temp = max(temp, temp_of_map(operation.transformer, n_moved))  # one after the other
    return Scratch(network.n_in + n_moved * (1 + multiplier) + work, network.n_in + 2 * n_moved + 1 + temp)


def functions(operation: operations.Coupling) -> tuple:
    """The four kernels; `inverted` exchanges the directions."""
    if operation.inverted:
        return inverse, forward, inverse_vjp, forward_vjp
    return forward, inverse, forward_vjp, inverse_vjp


KERNELS[operations.Coupling] = LayerKernels(
    functions,
    pack,
    rows,
    lambda operation: KERNELS[type(operation.conditioner)].one_lane,
)
