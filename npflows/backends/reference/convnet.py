"""The convolutional network of images (Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from npflows.backends.reference.activations import ACTIVATIONS
from npflows.backends.reference.common import Given, Gradients, packed
from npflows.backends.reference.networks import network, network_vjp
from npflows.core.operations import ConvNet


@network.register
def _(operation: ConvNet, theta: NDArray, x: NDArray, given: Given) -> NDArray:
    """u_0 = W_0 * x + V c,  h_l = f((u_l + b_l) exp(s_l)),  u_l = W_l * h_{l-1},  out = W_L * h_{L-1} + b_L."""
    params = operation.views(theta)
    entering, _ = _hidden_layers(operation, params, x, given)
    last = len(entering) - 1
    images = _convolution(operation, params, last, entering[last], given) + _of_channels(params[f"bias_{last}"])
    return images.reshape(len(x), -1)[:, list(operation.out_places)]


@network_vjp.register
def _(operation: ConvNet, theta: NDArray, x: NDArray, dout: NDArray, given: Given) -> Gradients:
    """With g = dL/d((u + b) exp(s)) for a hidden layer:  dL/ds = g (u + b) exp(s),  dL/du = dL/db = g exp(s)."""
    params = operation.views(theta)
    entering, before = _hidden_layers(operation, params, x, given)
    _, derivative = ACTIVATIONS[operation.activation]
    last, gradients = len(before), {}
    d = _as_images(operation, operation.channels[-1], operation.out_places, dout)
    for layer in range(last, -1, -1):
        weight = params[f"weight_{layer}"]
        if layer < last:
            d = d * derivative(before[layer])
            if operation.actnorm:
                gradients[f"logs_{layer}"] = (d * before[layer]).sum(axis=(0, 2, 3))
                d = d * _of_channels(np.exp(params[f"logs_{layer}"]))
        gradients[f"bias_{layer}"] = d.sum(axis=(0, 2, 3))
        gradients[f"weight_{layer}"] = convolve_weight_vjp(entering[layer], weight.shape[1], d)
        below = convolve_input_vjp(weight, d)
        if layer > 0:
            d = below
    dcontext = np.zeros_like(given.context)
    if operation.condition_dim:
        dshift = d.sum(axis=(2, 3))
        gradients["condition_weight"] = dshift.T @ given.context
        dcontext = dshift @ params["condition_weight"]
    dx = below.reshape(len(x), -1)[:, list(operation.in_places)]
    return Gradients(dx, packed(operation.shapes, gradients), dcontext)


def _hidden_layers(
    operation: ConvNet, params: dict[str, NDArray], x: NDArray, given: Given
) -> tuple[list[NDArray], list[NDArray]]:
    """The images that enter each convolution, and those of each hidden layer before its activation."""
    function, _ = ACTIVATIONS[operation.activation]
    entering: list[NDArray] = [_as_images(operation, operation.channels[0], operation.in_places, x)]
    before: list[NDArray] = []
    for layer in range(len(operation.channels) - 2):
        u = _convolution(operation, params, layer, entering[layer], given) + _of_channels(params[f"bias_{layer}"])
        if operation.actnorm:
            u = u * _of_channels(np.exp(params[f"logs_{layer}"]))
        before.append(u)
        entering.append(function(u))
    return entering, before


def _convolution(
    operation: ConvNet, params: dict[str, NDArray], layer: int, images: NDArray, given: Given
) -> NDArray:  # fmt: skip
    """W * images, with V c in the first layer."""
    u = convolve(images, params[f"weight_{layer}"])
    if layer == 0 and operation.condition_dim:
        u = u + (given.context @ params["condition_weight"].T)[:, :, None, None]
    return u


def _as_images(operation: ConvNet, channels: int, places: tuple[int, ...], values: NDArray) -> NDArray:
    """Images (n, channels, height, width) with the values (n, k) in their places, and 0 elsewhere."""
    images = np.zeros((len(values), channels * operation.height * operation.width))
    images[:, list(places)] = values
    return images.reshape(len(values), channels, operation.height, operation.width)


def _of_channels(values: NDArray) -> NDArray:
    """One number for each channel, to go with images (n, channels, height, width)."""
    return values[None, :, None, None]


def convolve(x: NDArray, weight: NDArray) -> NDArray:
    """y[n, o, r, c] = sum over i, p, q of weight[o, p, q, i] x[n, i, r + p - reach, c + q - reach], x being 0 outside, for
    a kernel of 2 reach + 1 rows and columns."""
    padded, result = _padded(x, weight.shape[1]), np.zeros((len(x), len(weight), *x.shape[2:]))
    for p, q, window in _windows(weight.shape[1], *x.shape[2:]):
        result += np.einsum("oi,nirc->norc", weight[:, p, q], padded[window], optimize=True)
    return result


def convolve_input_vjp(weight: NDArray, dy: NDArray) -> NDArray:
    """The gradient of `convolve` with respect to x: every shift of its sum is undone."""
    size, reach, (height, width) = weight.shape[1], weight.shape[1] // 2, dy.shape[2:]
    dpadded = np.zeros((len(dy), weight.shape[3], height + 2 * reach, width + 2 * reach))
    for p, q, window in _windows(size, height, width):
        dpadded[window] += np.einsum("oi,norc->nirc", weight[:, p, q], dy, optimize=True)
    return dpadded[:, :, reach : reach + height, reach : reach + width]


def convolve_weight_vjp(x: NDArray, size: int, dy: NDArray) -> NDArray:
    """The gradient of `convolve` with respect to the weight (c_out, size, size, c_in)."""
    padded, dweight = _padded(x, size), np.zeros((dy.shape[1], size, size, x.shape[1]))
    for p, q, window in _windows(size, *x.shape[2:]):
        dweight[:, p, q] = np.einsum("norc,nirc->oi", dy, padded[window], optimize=True)
    return dweight


def _padded(x: NDArray, size: int) -> NDArray:
    """Images with as many zeros around them as a kernel reaches."""
    reach = size // 2
    return np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)))


def _windows(size: int, height: int, width: int) -> Iterator[tuple[int, int, tuple[slice, ...]]]:
    """Each place (p, q) in a kernel, with the part of the padded images that it is multiplied with."""
    for p in range(size):
        for q in range(size):
            yield p, q, (slice(None), slice(None), slice(p, p + height), slice(q, q + width))
