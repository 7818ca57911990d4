"""Convolutional networks, the conditioners of coupling layers of images: their operation and their first parameters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from npflows.core.backend import select
from npflows.core.checks import as_flag
from npflows.core.location_scale import robust_location_scale, sample_places
from npflows.core.operations import ConvNet
from npflows.core.parameters import Parameter

ROUNDINGS = 8.0
"""A channel whose values differ by so many roundings of the largest one at most is taken for constant."""
MOST_PIXELS = 2000
"""Pixels, at most, whose quantiles tell whether a few of them decide a channel's mean and variance."""


def convolutional(
    mask: NDArray[np.int64],
    hidden_dims: Sequence[int],
    multiplier: int,
    *,
    activation: str = "relu",
    actnorm: bool = True,
    condition_dim: int = 0,
) -> ConvNet:
    """The network of a coupling of images: a 3x3 convolution, 1x1 ones, a 3x3 one.

    Parameters
    ----------
    mask : ndarray (height, width, channels)
        The network sees the values where it is 1, in their order, and gives `multiplier` parameters for each of the
        others.
    hidden_dims : sequence of int
        Channels of the hidden convolutions.
    multiplier : int
    activation : str
    actnorm : bool
        Whether activation normalization follows each hidden convolution; `initialize` sets it.
    condition_dim : int
        Width of a condition, which adds to each channel of the first convolution.
    """
    actnorm = as_flag(actnorm, "actnorm") and len(hidden_dims) > 0
    kept, moved = (np.argwhere(mask == value) for value in (1, 0))
    from_channels, to_channels = np.unique(kept[:, 2]), np.unique(moved[:, 2])
    height, width, _ = mask.shape

    def places(channels: NDArray, pixels: NDArray) -> tuple[int, ...]:
        return tuple(((channels * height + pixels[:, :1]) * width + pixels[:, 1:2]).ravel().tolist())

    seen = places(np.searchsorted(from_channels, kept[:, 2:]), kept)
    first = np.searchsorted(to_channels, moved[:, 2:]) * multiplier
    given = places(first + np.arange(multiplier), moved)
    channels = (len(from_channels), *hidden_dims, len(to_channels) * multiplier)
    return ConvNet(height, width, channels, seen, given, activation, actnorm, condition_dim)


def first_parameters(operation: ConvNet, rng: np.random.Generator) -> list[Parameter]:
    """Uniform weights and biases of variance 1 / (3 fan-in); those of the output are zero."""
    parameters, channels, sizes = [], operation.channels, operation.kernel_sizes
    last = len(sizes) - 1
    for layer, (n, m) in enumerate(itertools.pairwise(channels)):
        size, condition_dim = sizes[layer], operation.condition_dim if layer == 0 else 0
        bound = 0.0 if layer == last else 1 / np.sqrt(size**2 * n + condition_dim)
        parameters.append(Parameter(f"weight_{layer}", bound * rng.uniform(-1, 1, (m, size, size, n))))
        normalized = operation.actnorm and layer < last
        parameters.append(Parameter(f"bias_{layer}", (0.0 if normalized else bound) * rng.uniform(-1, 1, m)))
        if normalized:
            parameters.append(Parameter(f"logs_{layer}", np.zeros(m)))
        if condition_dim:
            parameters.append(Parameter("condition_weight", bound * rng.uniform(-1, 1, (m, condition_dim))))
    return parameters


def initialize(
    operation: ConvNet, params: dict[str, NDArray], x: NDArray, weight: NDArray | None, condition: NDArray | None
) -> None:
    """Set, in `params`, biases and scales of the normalizations so that what follows them has mean 0 and variance 1 in
    each channel when x (n, n_in) enters."""
    dtype = params["weight_0"].dtype
    values = np.zeros((len(x), operation.channels[0] * operation.height * operation.width))
    values[:, list(operation.in_places)] = x
    h: NDArray = values.reshape(len(x), operation.channels[0], operation.height, operation.width)
    for layer in range(len(operation.channels) - 2):
        u = _convolve(h, params[f"weight_{layer}"].astype(np.float64))
        if layer == 0 and condition is not None:
            u += (condition @ params["condition_weight"].T.astype(np.float64))[:, :, None, None]
        bias, logs = normalization(u.reshape(len(u), u.shape[1], -1), weight, dtype)
        params[f"bias_{layer}"][:], params[f"logs_{layer}"][:] = bias, logs
        h = (u + bias[:, None, None]) * np.exp(logs)[:, None, None]
        block = h.reshape(len(h), -1).astype(dtype)  # the activation is compiled for that already
        select().activate(operation.activation, block)
        h = block.reshape(h.shape).astype(np.float64)


def normalization(
    values: NDArray[np.float64], weight: NDArray[np.float64] | None, dtype: np.dtype
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Biases and log-scales (channels,) that give values (n, channels, pixels) mean 0 and variance 1 in each channel.

    A channel that is constant, to within rounding in the compute dtype, keeps its scale; where a few values would decide
    mean and variance, they are those of the others.
    """
    if weight is not None:
        values, weight = values[weight > 0], weight[weight > 0]
    share = np.full(len(values), 1 / len(values)) if weight is None else weight / weight.sum()
    mean = share @ values.mean(axis=2)
    spread = np.sqrt(share @ ((values - mean[:, None]) ** 2).mean(axis=2))
    low, high = values.min(axis=(0, 2)), values.max(axis=(0, 2))
    constant = high - low <= ROUNDINGS * np.finfo(dtype).eps * np.maximum(np.abs(low), np.abs(high))
    n_pixels = values.shape[2]
    chosen = sample_places(len(values) * n_pixels, len(mean), MOST_PIXELS)
    row, pixel = np.divmod(chosen, n_pixels)
    found = robust_location_scale(values[row, :, pixel], share[row], mean, np.where(constant, 0.0, spread))
    return -found.loc, -np.log(np.where(constant, 1.0, found.scale))


def _convolve(x: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Images (n, c_out, height, width) of x (n, c_in, height, width), for a weight (c_out, size, size, c_in)."""
    c_out, size, _, c_in = weight.shape
    reach, (n, _, height, width) = size // 2, x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3)).transpose(4, 5, 1, 0, 2, 3)
    result = weight.reshape(c_out, -1) @ patches.reshape(size * size * c_in, -1)  # one product, as BLAS waits after each
    return np.ascontiguousarray(result.reshape(c_out, n, height, width).swapaxes(0, 1))
