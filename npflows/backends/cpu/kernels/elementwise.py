"""A scalar map of each value by itself, its raw parameters learned directly: no conditioner."""

from __future__ import annotations

from npflows.backends.cpu.compiler.calls import call
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels.blocks import copy
from npflows.backends.cpu.kernels.mlp import add_lane_sums, fill_rows
from npflows.backends.cpu.link import KERNELS, LayerKernels, Link, Scratch, pack_map, temp_of_map
from npflows.core import operations

# spec: this header, then the scalar map's; theta: raw parameters of all values, then the map's own
DIM, MULTIPLIER, MAP_FORWARD, MAP_INVERSE, MAP_VJP, MAP_SOLVE, HEADER = range(7)
# work: the values before the map, the raw parameters


@inlined
def parts(spec, work):
    """x (dim, lanes) and raw (dim * multiplier, lanes)."""
    n = spec[DIM]
    return work[:n], work[n : n + n * spec[MULTIPLIER]]


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    """y_k = f(x_k; raw_k)."""
    x, raw = parts(spec, work)
    fill_rows(theta, raw)
    copy(block, x)
    call(spec[MAP_FORWARD], (spec[HEADER:], theta[raw.shape[0] :], block, raw, log_det, temp))


@kernel
def inverse(spec, theta, context, key, first, block, log_det, work, temp):
    """x_k = f^-1(y_k; raw_k)."""
    x, raw = parts(spec, work)
    fill_rows(theta, raw)
    call(spec[MAP_INVERSE], (spec[HEADER:], theta[raw.shape[0] :], block, raw, log_det, temp))
    copy(block, x)


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """dx_k = dy_k df/dx + dlog_det d(log df/dx)/dx; draw_k is summed over the lanes."""
    x, raw = parts(spec, work)
    own = raw.shape[0]
    call(spec[MAP_VJP], (spec[HEADER:], theta[own:], x, raw, dblock, dlog_det, dtheta[own:], temp))
    if dtheta.size > 0:
        add_lane_sums(raw, dtheta[:own])


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """With dL = -dlog_det: solve for dY, push (dY, dL) through the forward vjp, and dy = -dY."""
    x, raw = parts(spec, work)
    own, n = raw.shape[0], spec[DIM]
    direct, dL, rest = temp[:n], temp[n], temp[n + 1 :]
    for t in range(dL.size):
        dL[t] = -dlog_det[t]
        for k in range(n):
            dblock[k, t] = -dblock[k, t]
    call(spec[MAP_SOLVE], (spec[HEADER:], theta[own:], x, raw, dblock, dL, dtheta[own:], rest))
    copy(dblock, direct)
    call(spec[MAP_VJP], (spec[HEADER:], theta[own:], x, raw, direct, dL, dtheta[own:], rest))
    if dtheta.size > 0:
        add_lane_sums(raw, dtheta[:own])
    for k in range(n):
        for t in range(dL.size):
            dblock[k, t] = -dblock[k, t]


def pack(operation: operations.Elementwise, link: Link) -> list[int]:
    """Pack the spec of the layer: header, scalar map."""
    scalar_map = operation.transformer
    return [
        operation.dim,
        scalar_map.multiplier,
        link.scalar_map(scalar_map, "forward", forward),
        link.scalar_map(scalar_map, "inverse", inverse),
        link.scalar_map(scalar_map, "vjp", forward_vjp, inverse_vjp),
        link.scalar_map(scalar_map, "solve", inverse_vjp),
        *pack_map(scalar_map),
    ]


def rows(operation: operations.Elementwise) -> Scratch:
    """Scratch of the layer and of its scalar map."""
    scalar_map = operation.transformer
    return Scratch(operation.dim * (1 + scalar_map.multiplier), operation.dim + 1 + temp_of_map(scalar_map, operation.dim))


def functions(operation: operations.Elementwise) -> tuple:
    """The four kernels; `inverted` exchanges the directions."""
    if operation.inverted:
        return inverse, forward, inverse_vjp, forward_vjp
    return forward, inverse, forward_vjp, inverse_vjp


KERNELS[operations.Elementwise] = LayerKernels(
    functions,
    pack,
    rows,
)
