"""Convolutional networks on blocks of samples: 3x3, then 1x1 ones, then 3x3 (Kingma and Dhariwal 2018, arXiv:1807.03039,
section 3.3).

    u_0 = W_0 * x + V c,   h_l = f((u_l + b_l) exp(s_l)),   u_l = W_l * h_{l-1},   out = W_L * h_{L-1} + b_L

for a condition c; without activation normalisation s_l is 0.  Images lie in planes with a border of zeros
(convolution.py).  A table says where in the planes each value of the input lies, and another where each value of
the output does: so one network serves any mask of a coupling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from npflows.backends.cpu.compiler.calls import Link, call, flat
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.driver import LANE_MULTIPLE
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.kernels.activations import ACTIVATIONS, NEEDS_INPUT
from npflows.backends.cpu.kernels.blocks import copy, gather, scatter, total
from npflows.backends.cpu.kernels.convolution import CONVOLVE, CONVOLVE_OUTER, offsets
from npflows.backends.cpu.kernels.matmul import (
    FROM_BIAS,
    FROM_RESULT,
    FROM_ZERO,
    OUTER,
    PRODUCT,
    add_outer,
    matmul,
    matmul_transposed,
)
from npflows.core.parameters import Parameter, starts

# spec: a header, then a record for each convolution, then the tables that the two point to
(N_CONVOLUTIONS, ACTIVATION, ACTIVATION_VJP, HEIGHT, WIDTH, N_CONDITION, CONDITION_WEIGHT, IN_TABLE, OUT_TABLE, KEEPS_INPUT,
 CONVOLVE_ADDRESS, OUTER_ADDRESS, PRODUCT_ADDRESS, PRODUCT_OUTER_ADDRESS, SLOT_ROWS, HEADER) = range(16)  # fmt: skip
(WEIGHT, BIAS, LOGS, C_IN, C_OUT, AREA, TABLE, BACK_TABLE, X, H, BEFORE, RECORD) = range(12)
NONE = -1
"""Offset of what there is not."""
SMALLEST_SPREAD = 1e-6
"""A channel whose spread is smaller, relative to its size, is taken for constant."""


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
    """What enters a convolution."""
    r = record(spec, layer)
    return work[spec[r + X] : spec[r + X] + spec[r + C_IN] * plane_rows(spec)]


@inlined
def hidden_planes(spec, work, layer):
    """What a hidden convolution gives, and the planes that hold what it was before the activation."""
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
def normalisation_vjp(spec, theta, r, y, d, dtheta):
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
def condition_vjp(spec, theta, context, r, d, dtheta, dcontext, dshift):
    """Gradients of the condition and its weights; `dshift` (c_out, lanes) is scratch."""
    n, rows, m = spec[N_CONDITION], plane_rows(spec), spec[r + C_OUT]
    for i in range(m):
        for t in range(d.shape[1]):
            dshift[i, t] = 0
        for j in range(rows):
            for t in range(d.shape[1]):
                dshift[i, t] += d[i * rows + j, t]
    offset = spec[CONDITION_WEIGHT]
    matmul_transposed(spec[PRODUCT_ADDRESS], theta[offset:], n, dshift, dcontext, n, m, FROM_RESULT)
    if dtheta.size > 0:
        add_outer(spec[PRODUCT_OUTER_ADDRESS], dshift, context, dtheta[offset:], n, m, n)


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
            normalisation_vjp(spec, theta, r, before, d, dtheta)
        elif dtheta.size > 0:
            normalisation_vjp(spec, theta, r, d, d, dtheta)
        if dtheta.size > 0:
            call(spec[OUTER_ADDRESS], (
                spec[spec[r + TABLE] :], flat(d), flat(input_planes(spec, work, layer)), dtheta[spec[r + WEIGHT] :],
                np.int64(m), np.int64(area * n), spec[HEIGHT], spec[WIDTH], np.int64(lanes),
            ))  # fmt: skip
        if layer == 0 and spec[N_CONDITION] > 0:
            condition_vjp(spec, theta, context, r, d, dtheta, dcontext, rest[:m])
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


class ConvNet:
    """A convolutional network, the conditioner of coupling layers of images.

    Parameters
    ----------
    shape : tuple of int
        (height, width) of the images.
    n_channels_in, n_channels_out : int
        Channels that enter, and that leave.
    in_places, out_places : ndarray of int
        Where each of the n_in inputs, and n_out outputs, lies in images (channels, height, width), as a flat index; what no
        input fills is 0.
    hidden_dims : sequence of int
        Channels of the hidden convolutions: the first is 3x3, further ones are 1x1.  The output's is 3x3.
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}
    actnorm : bool
        Whether activation normalisation follows each hidden convolution; `initialize` sets it.
    condition_dim : int
        Width of a condition, which adds to each channel of the first convolution.
    rng : numpy.random.Generator
        Draws the weights; the output's start at zero.
    """

    one_lane = False  # convolutions take lanes in sixteens
    kernels = {"forward": (forward, "network"), "vjp": (forward_vjp, "network_vjp")}

    def __init__(
        self,
        shape: tuple[int, int],
        n_channels_in: int,
        n_channels_out: int,
        in_places: np.ndarray,
        out_places: np.ndarray,
        hidden_dims: Sequence[int],
        *,
        activation: str = "relu",
        actnorm: bool = True,
        condition_dim: int = 0,
        rng: np.random.Generator,
    ) -> None:
        self.shape, self.hidden_dims, self.activation = shape, tuple(hidden_dims), activation
        self.actnorm, self.condition_dim = actnorm and len(self.hidden_dims) > 0, condition_dim
        self._in_places, self._out_places = in_places, out_places
        self._channels = (n_channels_in, *self.hidden_dims, n_channels_out)
        self.n_in, self.n_out = len(in_places), len(out_places)
        last = len(self.hidden_dims)
        self._sizes = [3 if layer in (0, last) else 1 for layer in range(last + 1)]
        self.reach = sum(size // 2 for size in self._sizes)  # how many pixels away an input may lie from an output
        self.parameters = self._initial(rng)
        self._keeps_input = activation in NEEDS_INPUT or (self.actnorm and activation != "relu")
        rows, n_hidden = (shape[0] + 2) * (shape[1] + 2), sum(self.hidden_dims)
        self._rows, self._slot_rows = rows, max(rows * max(self._channels[:-1]), n_channels_out)
        self.work_rows = rows * (n_channels_in + n_hidden * (2 if self._keeps_input else 1))
        largest = max(p.value.size for p in self.parameters if p.name.startswith("weight")) + max(self._channels)
        self._weight_rows = max(-(-largest // LANE_MULTIPLE), max(self._channels))
        self.temp_rows = rows * n_channels_out + 2 * self._slot_rows + self._weight_rows

    @classmethod
    def for_mask(cls, mask: np.ndarray, hidden_dims: Sequence[int], multiplier: int, **options: Any) -> ConvNet:
        """The network of a coupling with a mask (height, width, channels), in the order of the mask's values: it sees those
        where the mask is 1 and gives `multiplier` parameters for each of the others."""
        kept, moved = (np.argwhere(mask == value) for value in (1, 0))
        from_channels, to_channels = np.unique(kept[:, 2]), np.unique(moved[:, 2])
        height, width, _ = mask.shape

        def places(channels: np.ndarray, pixels: np.ndarray) -> np.ndarray:
            return (channels * height + pixels[:, :1]) * width + pixels[:, 1:2]

        seen = places(np.searchsorted(from_channels, kept[:, 2:]), kept)
        first = np.searchsorted(to_channels, moved[:, 2:]) * multiplier
        given = places(first + np.arange(multiplier), moved)
        n_in, n_out = len(from_channels), len(to_channels) * multiplier
        return cls((height, width), n_in, n_out, seen.ravel(), given.ravel(), hidden_dims, **options)

    def _initial(self, rng: np.random.Generator) -> list[Parameter]:
        """Uniform weights and biases of variance 1 / (3 fan-in); those of the output are zero."""
        parameters, last = [], len(self._channels) - 2
        for layer, (n, m) in enumerate(zip(self._channels[:-1], self._channels[1:])):
            size, condition_dim = self._sizes[layer], self.condition_dim if layer == 0 else 0
            bound = 0.0 if layer == last else 1 / np.sqrt(size**2 * n + condition_dim)
            parameters.append(Parameter(f"weight_{layer}", bound * rng.uniform(-1, 1, (m, size, size, n))))
            normalised = self.actnorm and layer < last
            parameters.append(Parameter(f"bias_{layer}", (0.0 if normalised else bound) * rng.uniform(-1, 1, m)))
            if normalised:
                parameters.append(Parameter(f"logs_{layer}", np.zeros(m)))
            if condition_dim:
                parameters.append(Parameter("condition_weight", bound * rng.uniform(-1, 1, (m, condition_dim))))
        return parameters

    def spec(self, link: Link) -> list[int]:
        """The integers that the kernels read."""
        n, (height, width) = len(self._sizes), self.shape
        places = starts(self.parameters)
        f, df = ACTIVATIONS[self.activation]
        spec = [0] * (HEADER + RECORD * n)
        spec[:HEADER] = [
            n,
            link(f, "activation"),
            link(df, "activation_vjp") if link.gradient else 0,
            height,
            width,
            self.condition_dim,
            places.get("condition_weight", 0),
            len(spec),
            len(spec) + self.n_in,
            int(self._keeps_input),
            link(*CONVOLVE),
            link(*CONVOLVE_OUTER) if link.gradient else 0,
            link(*PRODUCT) if self.condition_dim else 0,
            link(*OUTER) if self.condition_dim and link.gradient else 0,
            self._slot_rows,
        ]
        spec += self._in_planes(self._in_places).tolist()
        spec += self._in_planes(self._out_places).tolist()
        rows = self._rows * self._channels[0]
        before = rows + self._rows * sum(self.hidden_dims)
        below = 0
        for layer, size in enumerate(self._sizes):
            r, (n_in, n_out) = HEADER + RECORD * layer, self._channels[layer : layer + 2]
            spec[r + WEIGHT], spec[r + BIAS] = places[f"weight_{layer}"], places[f"bias_{layer}"]
            spec[r + LOGS] = places.get(f"logs_{layer}", NONE)
            spec[r + C_IN], spec[r + C_OUT], spec[r + AREA] = n_in, n_out, size**2
            spec[r + X], spec[r + H] = below, rows
            spec[r + BEFORE] = before if self._keeps_input else rows
            below, rows, before = rows, rows + self._rows * n_out, before + self._rows * n_out
            spec[r + TABLE] = len(spec)
            spec += offsets(n_in, size, height, width).tolist()
            spec[r + BACK_TABLE] = len(spec)
            spec += offsets(n_out, size, height, width).tolist()
        return spec

    def _in_planes(self, places: np.ndarray) -> np.ndarray:
        """Rows of planes at which places in images (channels, height, width) lie."""
        height, width = self.shape
        channel, y, x = np.unravel_index(places, (max(self._channels), height, width))
        return channel * self._rows + (y + 1) * (width + 2) + x + 1

    def initialize(
        self, params: dict[str, np.ndarray], x: np.ndarray, weight: np.ndarray | None, condition: np.ndarray | None
    ) -> None:
        """Set, in `params`, biases and scales of the normalisations so that what follows them has mean 0 and variance 1
        in each channel when x (n, n_in) enters."""
        dtype = params["weight_0"].dtype
        h = np.zeros((len(x), self._channels[0] * self.shape[0] * self.shape[1]))
        h[:, self._in_places] = x
        h = h.reshape(len(x), self._channels[0], *self.shape)
        for layer in range(len(self.hidden_dims)):
            u = _convolve(h, params[f"weight_{layer}"].astype(np.float64))
            if layer == 0 and condition is not None:
                u += (condition @ params["condition_weight"].T.astype(np.float64))[:, :, None, None]
            bias, logs = normalisation(u.reshape(len(u), u.shape[1], -1), weight)
            params[f"bias_{layer}"][:], params[f"logs_{layer}"][:] = bias, logs
            h = (u + bias[:, None, None]) * np.exp(logs)[:, None, None]
            block = h.reshape(len(h), -1).astype(dtype)  # the activation is compiled for that already
            ACTIVATIONS[self.activation][0](block, block.copy())
            h = block.reshape(h.shape).astype(np.float64)


def normalisation(values: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Biases and log-scales (channels,) that give values (n, channels, pixels) mean 0 and variance 1 in each channel; a
    channel that is constant keeps its scale."""
    share = np.full(len(values), 1 / len(values)) if weight is None else weight / weight.sum()
    mean = share @ values.mean(axis=2)
    spread = np.sqrt(share @ ((values - mean[:, None]) ** 2).mean(axis=2))
    constant = spread <= SMALLEST_SPREAD * np.abs(values).max(axis=(0, 2))
    return -mean, -np.log(np.where(constant, 1.0, spread))


def _convolve(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Images (n, c_out, height, width) of x (n, c_in, height, width), for a weight (c_out, size, size, c_in)."""
    size, (n, _, height, width) = weight.shape[1], x.shape
    reach = size // 2
    padded = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    result = np.zeros((n, len(weight), height, width))
    for dy in range(size):
        for dx in range(size):
            part = padded[:, :, dy : dy + height, dx : dx + width]
            result += np.einsum("oi,niyx->noyx", weight[:, dy, dx], part, optimize=True)
    return result
