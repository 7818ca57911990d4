"""Masked autoregressive layers: the map of each value is conditioned on those before it.

The direction in which the network's input is known (MAF: data -> latent) is one pass of the masked network; the other is
a nonlinear triangular solve that finishes one feature after another and uses every weight once (made.py), and so is the
gradient through it.  The network sees the cosine and sine of a value on a circle.
"""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.calls import as_real, call
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.kernels.blocks import gather, scatter
from npflows.backends.cpu.link import KERNELS, LayerKernels, Link, Scratch, bits, pack_map, scratch, temp_of_map
from npflows.core import operations

# spec: this header, then the order, where in what the network sees each value begins and where its scalar map's spec does,
# the network's spec, the scalar map's for all values and for one
(DIM, MULTIPLIER, NETWORK_THETA, THETA_PER_VALUE, NETWORK_SPEC, MAP_SPEC, NETWORK_FORWARD, NETWORK_VJP, STEP, STEP_VJP,
 WEIGHTS, MAP_FORWARD, MAP_INVERSE, MAP_VJP, MAP_SOLVE, SEEN, N_SEEN, PER_BOUND, MAP_TEMP, HEADER) = range(20)  # fmt: skip
# work: the input in order, what the network sees of it where that has circles, the raw parameters, the network's own


@inlined
def parts(spec, work):
    """x (dim, lanes) in order, what the network sees of it (n_seen, lanes), raw (dim * multiplier, lanes) and the network's
    work."""
    n = spec[DIM]
    a = spec[SEEN]
    b = a + spec[N_SEEN]
    c = b + n * spec[MULTIPLIER]
    return work[:n], work[a:b], work[b:c], work[c:]


@inlined
def place_of(spec, k):
    """The first row of the k-th value in what the network sees, and whether it has two, being on a circle."""
    first = spec[HEADER + spec[DIM] + k]
    return first, spec[HEADER + spec[DIM] + k + 1] - first > 1


@inlined
def per_bound(spec, like):
    """1 / bound, for values on circles, which are the interval [-bound, bound]."""
    return like.dtype.type(as_real(spec[PER_BOUND]))


@inlined
def see(spec, x, seen, k):
    """Put the k-th value where the network sees it, if that is not x itself, as it is without circles."""
    first, on_circle = place_of(spec, k)
    source, cosine, turn = x[k], seen[first], per_bound(spec, x)
    if on_circle:
        sine = seen[first + 1]
        for t in range(source.size):
            cosine[t] = vecmath.cospi(source[t] * turn)
            sine[t] = vecmath.sinpi(source[t] * turn)
    else:
        for t in range(source.size):
            cosine[t] = source[t]


@inlined
def add_seen(spec, seen, through, k, target):
    """Add the gradient that reaches the k-th value through the network, from that of what the network sees."""
    first, on_circle = place_of(spec, k)
    if on_circle:
        turn = per_bound(spec, seen) * seen.dtype.type(np.pi)
        cosine, sine, dcosine, dsine = seen[first], seen[first + 1], through[first], through[first + 1]
        for t in range(target.size):
            target[t] += turn * (cosine[t] * dsine[t] - sine[t] * dcosine[t])
    else:
        for t in range(target.size):
            target[t] += through[first, t]


@inlined
def network_part(spec, theta):
    """The network's spec and its parameters."""
    return spec[spec[NETWORK_SPEC] : spec[MAP_SPEC]], theta[: spec[NETWORK_THETA]]


@inlined
def map_spec_of_value(spec, k):
    """The scalar map's spec for the k-th value."""
    return spec[spec[HEADER + 2 * spec[DIM] + 1 + k] :]


@inlined
def map_of_value(spec, theta, k):
    """The scalar map's parameters for the k-th value."""
    start = spec[NETWORK_THETA] + k * spec[THETA_PER_VALUE]
    return theta[start : start + spec[THETA_PER_VALUE]]


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    """y_k = f(x_k; network(x_1 .. x_{k-1})) for all k at once, in the order."""
    x, seen, raw, network_work = parts(spec, work)
    inner, weights = network_part(spec, theta)
    y = temp[: spec[DIM]]
    gather(block, spec, HEADER, x)
    if spec[SEEN] > 0:
        for k in range(spec[DIM]):
            see(spec, x, seen, k)
    call(spec[NETWORK_FORWARD], (inner, weights, context, key, first, seen, raw, network_work, temp))
    gather(block, spec, HEADER, y)
    call(spec[MAP_FORWARD], (spec[spec[MAP_SPEC] :], theta[spec[NETWORK_THETA] :], y, raw, log_det,
                             temp[spec[DIM] :]))  # fmt: skip
    scatter(y, spec, HEADER, block)


@kernel
def inverse(spec, theta, context, key, first, block, log_det, work, temp):
    """x_k = f^-1(y_k; network(x_1 .. x_{k-1})), one k after the other, in the order."""
    x, seen, raw, network_work = parts(spec, work)
    inner, weights = network_part(spec, theta)
    m = spec[MULTIPLIER]
    for k in range(spec[DIM]):
        call(spec[STEP], (inner, weights, context, key, first, seen, raw, network_work, temp, k))
        value, target = x[k : k + 1], block[spec[HEADER + k]]
        for t in range(target.size):
            value[0, t] = target[t]
        call(spec[MAP_INVERSE], (map_spec_of_value(spec, k), map_of_value(spec, theta, k), value,
                                 raw[k * m : (k + 1) * m], log_det, temp))  # fmt: skip
        if spec[SEEN] > 0:
            see(spec, x, seen, k)
        for t in range(target.size):
            target[t] = value[0, t]


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """dx = the gradient through each map itself, plus that through the network, draw^T d network / dx."""
    x, seen, raw, network_work = parts(spec, work)
    inner, weights = network_part(spec, theta)
    n, end = spec[DIM], spec[DIM] + spec[N_SEEN]
    direct, through = temp[:n], temp[n:end]
    gather(dblock, spec, HEADER, direct)
    call(spec[MAP_VJP], (spec[spec[MAP_SPEC] :], theta[spec[NETWORK_THETA] :], x, raw, direct, dlog_det,
                         dtheta[spec[NETWORK_THETA] :], temp[end:]))  # fmt: skip
    call(spec[NETWORK_VJP], (inner, weights, context, key, first, seen, raw, through, network_work, temp[end:],
                             dtheta[: spec[NETWORK_THETA]], dcontext))  # fmt: skip
    for k in range(n):
        add_seen(spec, seen, through, k, direct[k])
    scatter(direct, spec, HEADER, dblock)


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """With y = f(x), cotangents (dx, m) of the inverse and dL = -m: solve J^T dY = -dx - dL grad log_det by
    back-substitution, the last value first, while the gradients of the units that it unlocks become final;
    the parameters' gradients are those of the forward vjp at (dY, dL), and dy = -dY."""
    x, seen, raw, network_work = parts(spec, work)
    inner, weights = network_part(spec, theta)
    n, m, end = spec[DIM], spec[MULTIPLIER], spec[N_SEEN]
    through, direct, dY, dL = temp[:end], temp[end : end + 1], temp[end + 1 : end + 2], temp[end + 2]
    map_temp, network_temp = temp[end + 3 :], temp[end + 3 + spec[MAP_TEMP] :]
    for t in range(dlog_det.size):
        dL[t] = -dlog_det[t]
    for k in range(n - 1, -1, -1):
        call(spec[STEP_VJP], (inner, weights, context, key, first, through, raw, network_work, network_temp, k))
        value, draw, target = x[k : k + 1], raw[k * m : (k + 1) * m], dblock[spec[HEADER + k]]
        map_spec, map_theta, dmap_theta = map_spec_of_value(spec, k), map_of_value(spec, theta, k), map_of_value(
            spec, dtheta, k)  # fmt: skip
        add_seen(spec, seen, through, k, target)
        for t in range(target.size):
            dY[0, t] = -target[t]
        call(spec[MAP_SOLVE], (map_spec, map_theta, value, draw, dY, dL, dmap_theta, map_temp))
        for t in range(target.size):
            direct[0, t] = dY[0, t]
            target[t] = -dY[0, t]
        call(spec[MAP_VJP], (map_spec, map_theta, value, draw, direct, dL, dmap_theta, map_temp))
    call(spec[STEP_VJP], (inner, weights, context, key, first, through, raw, network_work, network_temp, -1))
    call(spec[WEIGHTS], (inner, weights, context, key, first, seen, raw, through, network_work, network_temp,
                         dtheta[: spec[NETWORK_THETA]], dcontext))  # fmt: skip


def seen_from(operation: operations.Autoregressive) -> int:
    """The row of work from which on the network sees values: x itself, unless it sees more rows."""
    return operation.dim if operation.conditioner.n_in > operation.dim else 0


def pack(operation: operations.Autoregressive, link: Link) -> list[int]:
    """Pack the spec of the layer: header, order, places, network, scalar map."""
    network, scalar_map, n = operation.conditioner, operation.transformer, operation.dim
    inner, map_specs = link.pack(network), pack_map(scalar_map)
    network_spec = HEADER + 3 * n + 1
    map_spec = network_spec + len(inner)
    starts: dict[tuple[int, ...], int] = {}
    for k in range(n):  # values of a kind share one
        one = tuple(pack_map(scalar_map, k))
        if one not in starts:
            starts[one] = map_spec + len(map_specs)
            map_specs += one
    return [
        n,
        scalar_map.multiplier,
        network.size,
        scalar_map.theta_per_value,
        network_spec,
        map_spec,
        link.network(network, "forward", forward),
        link.network(network, "vjp", forward_vjp),
        link.network(network, "sequential_step", inverse),
        link.network(network, "sequential_step_vjp", inverse_vjp),
        link.network(network, "weights_vjp", inverse_vjp),
        link.scalar_map(scalar_map, "forward", forward),
        link.scalar_map(scalar_map, "inverse", inverse),
        link.scalar_map(scalar_map, "vjp", forward_vjp, inverse_vjp),
        link.scalar_map(scalar_map, "solve", inverse_vjp),
        seen_from(operation),
        network.n_in,
        *bits(1 / operation.bound),
        temp_of_map(scalar_map, 1),
        *operation.order,
        *network.entered,
        *(starts[tuple(pack_map(scalar_map, k))] for k in range(n)),
        *inner,
        *map_specs,
    ]


def rows(operation: operations.Autoregressive) -> Scratch:
    """Scratch of the layer and of its network."""
    network, n, multiplier = operation.conditioner, operation.dim, operation.transformer.multiplier
    work, temp = scratch(network)
    temp += temp_of_map(operation.transformer, n)
    return Scratch(seen_from(operation) + network.n_in + n * multiplier + work, n + network.n_in + 3 + temp)


def functions(operation: operations.Autoregressive) -> tuple:
    """The four kernels; `inverted` exchanges the directions."""
    if operation.inverted:
        return inverse, forward, inverse_vjp, forward_vjp
    return forward, inverse, forward_vjp, inverse_vjp


KERNELS[operations.Autoregressive] = LayerKernels(functions, pack, rows)
