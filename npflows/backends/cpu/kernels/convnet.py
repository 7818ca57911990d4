"""Convolutional networks on blocks of samples: 3x3, then 1x1 ones, then 3x3 (Kingma and Dhariwal 2018, arXiv:1807.03039,
section 3.3).

    u_0 = W_0 * x + V c,   h_l = f((u_l + b_l) exp(s_l)),   u_l = W_l * h_{l-1},   out = W_L * h_{L-1} + b_L

for a condition c; without activation normalization s_l is 0.  Images lie in planes with a border of zeros
(convolution.py).  A table says where in the planes each value of the input lies, and another where each value of the
output does: so one network serves any mask of a coupling.
"""

from __future__ import annotations

import math

import numpy as np

from npflows.backends.cpu.compiler.calls import call, flat
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.kernels.activations import ACTIVATIONS, NEEDS_INPUT
from npflows.backends.cpu.kernels.blocks import copy, gather, scatter, total
from npflows.backends.cpu.kernels.convolution import CONVOLVE, CONVOLVE_OUTER, offsets
from npflows.backends.cpu.kernels.matmul import PRODUCT, matmul, matmul_transposed
from npflows.backends.cpu.kernels.outer import OUTER, PANEL_ROWS, add_outer
from npflows.backends.cpu.kernels.tiles import FROM_BIAS, FROM_RESULT, FROM_ZERO
from npflows.backends.cpu.link import KERNELS, LANE_MULTIPLE, Link, NetworkKernels, Scratch
from npflows.core import operations

# spec: a header, then a record for each convolution, then the tables that the two point to
(N_CONVOLUTIONS, ACTIVATION, ACTIVATION_VJP, HEIGHT, WIDTH, N_CONDITION, CONDITION_WEIGHT, IN_TABLE, OUT_TABLE, KEEPS_INPUT,
 CONVOLVE_ADDRESS, OUTER_ADDRESS, PRODUCT_ADDRESS, PRODUCT_OUTER_ADDRESS, SLOT_ROWS, HEADER) = range(16)  # fmt: skip
(WEIGHT, BIAS, LOGS, C_IN, C_OUT, AREA, TABLE, BACK_TABLE, X, H, BEFORE, RECORD) = range(12)
NONE = -1
"""Offset of what there is not."""


@inlined
def record(spec, layer):
    """Where the record of a convolution begins."""
    return HEADER + RECORD * layer


@inlined
def plane_rows(spec):
    """Rows of a block that a plane takes."""
    return (spec[HEIGHT] + 2) * (spec[WIDTH] + 2)


@inlined
def clear_border(spec, planes):
    """Zeros around every image."""
    height, width, lanes = spec[HEIGHT], spec[WIDTH], planes.shape[1]
    zero, row, rows = planes.dtype.type(0), width + 2, plane_rows(spec)
    for start in range(0, planes.shape[0], rows):
        for y in range(height + 2):
            step = 1 if y == 0 or y == height + 1 else width + 1
            for x in range(0, row, step):
                border = planes[start + y * row + x]
                for t in range(lanes):
                    border[t] = zero


@inlined
def parts(spec, temp):
    """Of temp: planes of the output, two slots for gradients of planes, and the rest, for weights."""
    a = spec[record(spec, spec[N_CONVOLUTIONS] - 1) + C_OUT] * plane_rows(spec)
    b, c = a + spec[SLOT_ROWS], a + 2 * spec[SLOT_ROWS]
    return temp[:a], temp[a:b], temp[b:c], temp[c:]


@inlined
def input_planes(spec, work, layer):
    """The planes that enter a convolution."""
    r = record(spec, layer)
    return work[spec[r + X] : spec[r + X] + spec[r + C_IN] * plane_rows(spec)]


@inlined
def hidden_planes(spec, work, layer):
    """The planes of a hidden convolution's result, and those that hold it before the activation."""
    r = record(spec, layer)
    n = spec[r + C_OUT] * plane_rows(spec)
    return work[spec[r + H] : spec[r + H] + n], work[spec[r + BEFORE] : spec[r + BEFORE] + n]


@inlined
def scale_weights(spec, theta, r, weights):
    """weights (c_out, area * c_in), then biases (c_out,): those of a convolution, times its scales."""
    m, k = spec[r + C_OUT], spec[r + AREA] * spec[r + C_IN]
    own, bias, logs = theta[spec[r + WEIGHT] :], theta[spec[r + BIAS] :], theta[spec[r + LOGS] :]
    for i in range(m):
        scale = vecmath.exp(logs[i])
        for p in range(k):
            weights[i * k + p] = own[i * k + p] * scale
        weights[m * k + i] = bias[i] * scale


@inlined
def start_from_condition(spec, theta, context, r, bias, planes, shift):
    """Fill planes with V c + b, scaled; `shift` (c_out, lanes) is scratch."""
    n, rows, lanes = spec[N_CONDITION], plane_rows(spec), planes.shape[1]
    matmul(spec[PRODUCT_ADDRESS], theta[spec[CONDITION_WEIGHT] :], n, context, shift, spec[r + C_OUT], n, FROM_ZERO, bias)
    for i in range(spec[r + C_OUT]):
        scale = vecmath.exp(theta[spec[r + LOGS] + i]) if spec[r + LOGS] != NONE else theta.dtype.type(1)
        for t in range(lanes):
            shift[i, t] = shift[i, t] * scale + bias[i]
        for j in range(rows):
            for t in range(lanes):
                planes[i * rows + j, t] = shift[i, t]


@kernel
def forward(spec, theta, context, key, first, x, out, work, temp):
    """out (n_out, lanes) = network of x (n_in, lanes); work keeps the planes."""
    last, lanes = spec[N_CONVOLUTIONS] - 1, x.shape[1]
    out_planes, slot, _, rest = parts(spec, temp)
    image = input_planes(spec, work, 0)
    flat(image)[:] = 0
    scatter(x, spec, spec[IN_TABLE], image)
    for layer in range(last + 1):
        r = record(spec, layer)
        m, k = spec[r + C_OUT], spec[r + AREA] * spec[r + C_IN]
        y, before = out_planes, out_planes
        if layer < last:
            y, before = hidden_planes(spec, work, layer)
        weights, bias = theta[spec[r + WEIGHT] :], theta[spec[r + BIAS] :]
        if spec[r + LOGS] != NONE:
            weights = flat(rest)
            bias = weights[m * k :]
            scale_weights(spec, theta, r, weights)
        start = FROM_BIAS
        if layer == 0 and spec[N_CONDITION] > 0:
            start_from_condition(spec, theta, context, r, bias, y, slot)
            start = FROM_RESULT
        call(spec[CONVOLVE_ADDRESS], (
            spec[spec[r + TABLE] :], weights, np.int64(k), np.int64(1), flat(input_planes(spec, work, layer)), flat(y),
            np.int64(m), np.int64(k), spec[HEIGHT], spec[WIDTH], np.int64(lanes), np.int64(start), bias,
        ))  # fmt: skip
        if layer < last:
            clear_border(spec, y)
            if spec[KEEPS_INPUT]:
                copy(y, before)
            call(spec[ACTIVATION], (y, before))
    gather(out_planes, spec, spec[OUT_TABLE], out)


@inlined(reassociate=True)
def sum_products(a, b):
    """Sum of a * b over everything."""
    result = a.dtype.type(0)
    for i in range(a.size):
        result += a[i] * b[i]
    return result


@inlined
def normalization_vjp(spec, theta, r, y, d, dtheta):
    """From d = dL/dy with y = (u + bias) exp(logs), in place dL/du; gradients of bias and logs."""
    rows, m = plane_rows(spec), spec[r + C_OUT]
    for i in range(m):
        of_channel = flat(d[i * rows : (i + 1) * rows])
        if spec[r + LOGS] != NONE:
            if dtheta.size > 0:
                dtheta[spec[r + LOGS] + i] += sum_products(of_channel, flat(y[i * rows : (i + 1) * rows]))
            scale = vecmath.exp(theta[spec[r + LOGS] + i])
            for j in range(of_channel.size):
                of_channel[j] *= scale
        if dtheta.size > 0:
            dtheta[spec[r + BIAS] + i] += total(of_channel)


@inlined
def transpose_weights(spec, theta, r, weights):
    """weights (c_in, area * c_out) of the convolution that carries gradients back: every offset is its opposite."""
    m, n, area = spec[r + C_OUT], spec[r + C_IN], spec[r + AREA]
    own = theta[spec[r + WEIGHT] :]
    for o in range(area):
        for i in range(m):
            for j in range(n):
                weights[(j * area + o) * m + i] = own[(i * area + area - 1 - o) * n + j]


@inlined
def condition_vjp(spec, theta, context, r, d, dtheta, dcontext, rest):
    """Gradients of the condition and its weights; `rest` is scratch."""
    n, rows, m = spec[N_CONDITION], plane_rows(spec), spec[r + C_OUT]
    dshift, panel = rest[:m], flat(rest[m:])
    for i in range(m):
        for t in range(d.shape[1]):
            dshift[i, t] = 0
        for j in range(rows):
            for t in range(d.shape[1]):
                dshift[i, t] += d[i * rows + j, t]
    offset = spec[CONDITION_WEIGHT]
    matmul_transposed(spec[PRODUCT_ADDRESS], theta[offset:], n, dshift, dcontext, n, m, FROM_RESULT)
    if dtheta.size > 0:
        add_outer(spec[PRODUCT_OUTER_ADDRESS], spec[:0], dshift, context, panel, dtheta[offset:], n, m, n)


@kernel
def forward_vjp(spec, theta, context, key, first, x, dout, dx, work, temp, dtheta, dcontext):
    """dx (n_in, lanes) = J^T dout; adds to dtheta and dcontext."""
    last, lanes, rows = spec[N_CONVOLUTIONS] - 1, x.shape[1], plane_rows(spec)
    d, slot, other, rest = parts(spec, temp)
    flat(d)[:] = 0
    scatter(dout, spec, spec[OUT_TABLE], d)
    for layer in range(last, -1, -1):
        r = record(spec, layer)
        m, n, area = spec[r + C_OUT], spec[r + C_IN], spec[r + AREA]
        if layer < last:
            h, before = hidden_planes(spec, work, layer)
            call(spec[ACTIVATION_VJP], (h, before, d))
            normalization_vjp(spec, theta, r, before, d, dtheta)
        elif dtheta.size > 0:
            normalization_vjp(spec, theta, r, d, d, dtheta)
        if dtheta.size > 0:
            call(spec[OUTER_ADDRESS], (
                spec[spec[r + TABLE] :], flat(d), flat(input_planes(spec, work, layer)), dtheta[spec[r + WEIGHT] :],
                np.int64(m), np.int64(area * n), spec[HEIGHT], spec[WIDTH], np.int64(lanes),
            ))  # fmt: skip
        if layer == 0 and spec[N_CONDITION] > 0:
            condition_vjp(spec, theta, context, r, d, dtheta, dcontext, rest)
        weights, below = flat(rest), slot[: n * rows]
        transpose_weights(spec, theta, r, weights)
        call(spec[CONVOLVE_ADDRESS], (
            spec[spec[r + BACK_TABLE] :], weights, np.int64(area * m), np.int64(1), flat(d), flat(below), np.int64(n),
            np.int64(area * m), spec[HEIGHT], spec[WIDTH], np.int64(lanes), np.int64(FROM_ZERO), weights[:0],
        ))  # fmt: skip
        clear_border(spec, below)
        d = below
        slot, other = other, slot
    gather(d, spec, spec[IN_TABLE], dx)


def keeps_input(operation: operations.ConvNet) -> bool:
    """Whether what enters an activation is kept beside what it gives."""
    return operation.activation in NEEDS_INPUT or (operation.actnorm and operation.activation != "relu")


def slot_rows(operation: operations.ConvNet) -> int:
    """Rows of the planes of any convolution's input."""
    rows_of_plane = (operation.height + 2) * (operation.width + 2)
    return max(rows_of_plane * max(operation.channels[:-1]), operation.channels[-1])


def rows(operation: operations.ConvNet) -> Scratch:
    """Scratch of the network: planes of the input and of hidden values; of the output, two gradients, and weights."""
    channels, plane = operation.channels, (operation.height + 2) * (operation.width + 2)
    n_hidden = sum(channels[1:-1])
    weights = [math.prod(shape) for name, shape in operation.shapes.items() if name.startswith("weight")]
    largest = max(weights) + max(channels)
    weight_rows = max(-(-largest // LANE_MULTIPLE), max(channels) + PANEL_ROWS)
    return Scratch(
        plane * (channels[0] + n_hidden * (2 if keeps_input(operation) else 1)),
        plane * channels[-1] + 2 * slot_rows(operation) + weight_rows,
    )


def in_planes(operation: operations.ConvNet, places: tuple[int, ...]) -> list[int]:
    """Rows of planes at which places in images (channels, height, width) lie."""
    height, width = operation.height, operation.width
    channel, y, x = np.unravel_index(np.array(places, np.int64), (max(operation.channels), height, width))
    return (channel * (height + 2) * (width + 2) + (y + 1) * (width + 2) + x + 1).tolist()


def pack(operation: operations.ConvNet, link: Link) -> list[int]:
    """Pack the spec of the network: header, a record for each convolution, places, tables of offsets."""
    channels, height, width = operation.channels, operation.height, operation.width
    sizes, keeps, places = operation.kernel_sizes, keeps_input(operation), operation.offsets
    n, plane = len(sizes), (height + 2) * (width + 2)
    f, df = ACTIVATIONS[operation.activation]
    spec = [0] * (HEADER + RECORD * n)
    spec[:HEADER] = [
        n,
        link(f, "activation"),
        link(df, "activation_vjp") if link.gradient else 0,
        height,
        width,
        operation.condition_dim,
        places.get("condition_weight", 0),
        len(spec),
        len(spec) + operation.n_in,
        int(keeps),
        link(*CONVOLVE),
        link(*CONVOLVE_OUTER) if link.gradient else 0,
        link(*PRODUCT) if operation.condition_dim else 0,
        link(*OUTER) if operation.condition_dim and link.gradient else 0,
        slot_rows(operation),
    ]
    spec += in_planes(operation, operation.in_places)
    spec += in_planes(operation, operation.out_places)
    above = plane * channels[0]
    before = above + plane * sum(channels[1:-1])
    below = 0
    for layer, size in enumerate(sizes):
        r, (n_in, n_out) = HEADER + RECORD * layer, channels[layer : layer + 2]
        spec[r + WEIGHT], spec[r + BIAS] = places[f"weight_{layer}"], places[f"bias_{layer}"]
        spec[r + LOGS] = places.get(f"logs_{layer}", NONE)
        spec[r + C_IN], spec[r + C_OUT], spec[r + AREA] = n_in, n_out, size**2
        spec[r + X], spec[r + H] = below, above
        spec[r + BEFORE] = before if keeps else above
        below, above, before = above, above + plane * n_out, before + plane * n_out
        spec[r + TABLE] = len(spec)
        spec += offsets(n_in, size, height, width).tolist()
        spec[r + BACK_TABLE] = len(spec)
        spec += offsets(n_out, size, height, width).tolist()
    return spec


KERNELS[operations.ConvNet] = NetworkKernels(
    {"forward": (forward, "network"), "vjp": (forward_vjp, "network_vjp")}, pack, rows, one_lane=False
)
