"""Slow, obvious NumPy twins of the layers of images, with convolutions by SciPy; importing this registers them."""

import numpy as np
import scipy.signal
from naive import ACTIVATIONS, dependence, forward, inverse, mlp

from npflows import ActNormLayer, AffineCouplingLayer, CouplingLayer, InvertibleConv1x1
from npflows.layers import Chain
from npflows.layers.multiscale import Rearrangement


def convolution(x, weight):
    """Images (n, height, width, c_out) of x (n, height, width, c_in), zeros around them; weight (c_out, k, k, c_in)."""
    images = [
        sum(scipy.signal.correlate2d(image[..., i], kernel[..., i], "same") for i in range(image.shape[2]))
        for image in x
        for kernel in weight.astype(np.float64)
    ]
    return np.moveaxis(np.reshape(images, (len(x), len(weight), *x.shape[1:3])), 1, 3)


def conv_net(params, x, condition, activation):
    """The network of parameters network.weight_0, network.bias_0, ... at images x (n, height, width, c_in)."""
    params = {name.removeprefix("network."): value.astype(np.float64) for name, value in params.items()}
    last, h = sum(name.startswith("weight_") for name in params) - 1, x
    for i in range(last + 1):
        u = convolution(h, params[f"weight_{i}"]) + params[f"bias_{i}"]
        if i == 0 and condition is not None:
            u = u + (condition @ params["condition_weight"].T)[:, None, None]
        h = u if i == last else ACTIVATIONS[activation](u * np.exp(params.get(f"logs_{i}", np.zeros(1))))
    return h


def shift_and_scale(layer, x, condition, shape):
    """Of a coupling with convolutions, at each value (n, d); meaningless where the mask is 1."""
    mask = layer.mask.reshape(shape)
    seen = (np.where(layer.mask == 1, x, 0)).reshape(-1, *shape)[..., mask.any(axis=(0, 1))]
    moved = (mask == 0).any(axis=(0, 1))
    raw = conv_net(layer.named_params(), seen, condition, layer.activation)
    raw = raw.reshape(*raw.shape[:3], moved.sum(), -1)
    shift, log_scale = np.zeros((len(x), *shape)), np.zeros((len(x), *shape))
    shift[..., moved] = raw[..., 0]
    if raw.shape[-1] == 2:
        log_scale[..., moved] = log_scale_of(layer, raw[..., 1])
    return shift.reshape(len(x), -1), log_scale.reshape(len(x), -1)


def log_scale_of(layer, r):
    if layer.scale_activation == "none":
        return r
    if layer.scale_activation == "sigmoid":
        return -np.logaddexp(0, -(r + 2))
    gain = layer.named_params().get("gain", np.ones(1)).astype(np.float64)
    return gain * np.tanh(r)


def dense_shift_and_scale(layer, x, condition):
    params, moved = layer.named_params(), layer.mask == 0
    params.pop("gain", None)
    raw = mlp(params, x[:, ~moved], condition, layer.activation)
    raw = raw.reshape(len(x), moved.sum(), -1)
    shift, log_scale = np.zeros(x.shape), np.zeros(x.shape)
    shift[:, moved] = raw[..., 0]
    if raw.shape[-1] == 2:
        n = moved.sum() if layer.scale_activation != "tanh_gain" else len(layer.named_params()["gain"])
        log_scale[:, moved] = log_scale_of(layer, raw[..., 1].reshape(len(x), -1, n)).reshape(len(x), -1)
    return shift, log_scale


def _image_coupling(layer, x, condition, shape, back):
    if layer.network == "dense":
        shift, log_scale = dense_shift_and_scale(layer, x, condition)
    else:
        shift, log_scale = shift_and_scale(layer, x, condition, shape)
    moved = layer.mask == 0
    log_scale = np.where(moved, log_scale, 0)
    shift_first = getattr(layer, "shift_first", False)
    if shift_first:
        y = x * np.exp(log_scale) + shift if back else (x - shift) * np.exp(-log_scale)
    else:
        y = (x - shift) * np.exp(-log_scale) if back else x * np.exp(log_scale) + shift
    sign = -1 if shift_first != back else 1
    return np.where(moved, y, x), sign * log_scale.sum(1)


@forward.register
def _(layer: AffineCouplingLayer, x, condition=None):
    return _image_coupling(layer, x, condition, (*(layer.image_size or (1, 1)), layer.num_channels), False)


@inverse.register
def _(layer: AffineCouplingLayer, y, condition=None):
    return _image_coupling(layer, y, condition, (*(layer.image_size or (1, 1)), layer.num_channels), True)


_flat_forward, _flat_inverse = forward.dispatch(CouplingLayer), inverse.dispatch(CouplingLayer)


@forward.register
def _(layer: CouplingLayer, x, condition=None):
    if layer.network == "dense":
        return _flat_forward(layer, x, condition)
    return _image_coupling(layer, x, condition, layer.image_shape, False)


@inverse.register
def _(layer: CouplingLayer, y, condition=None):
    if layer.network == "dense":
        return _flat_inverse(layer, y, condition)
    return _image_coupling(layer, y, condition, layer.image_shape, True)


@forward.register
def _(layer: InvertibleConv1x1, x, condition=None):
    pixels = x.reshape(len(x), -1, layer.num_channels)
    log_det = pixels.shape[1] * np.linalg.slogdet(layer.matrix)[1]
    return (pixels @ layer.matrix.T).reshape(x.shape), np.full(len(x), log_det)


@inverse.register
def _(layer: InvertibleConv1x1, y, condition=None):
    pixels = y.reshape(len(y), -1, layer.num_channels)
    log_det = pixels.shape[1] * np.linalg.slogdet(layer.matrix)[1]
    return (pixels @ np.linalg.inv(layer.matrix).T).reshape(y.shape), np.full(len(y), -log_det)


@forward.register
def _(layer: ActNormLayer, x, condition=None):
    params = layer.named_params()
    pixels = x.reshape(len(x), -1, layer.num_channels)
    y = (pixels + params["bias"]) * np.exp(params["logs"].astype(float))
    return y.reshape(x.shape), np.full(len(x), pixels.shape[1] * params["logs"].astype(float).sum())


@inverse.register
def _(layer: ActNormLayer, y, condition=None):
    params = layer.named_params()
    pixels = y.reshape(len(y), -1, layer.num_channels)
    x = pixels * np.exp(-params["logs"].astype(float)) - params["bias"]
    return x.reshape(y.shape), np.full(len(y), -pixels.shape[1] * params["logs"].astype(float).sum())


@forward.register
def _(layer: Rearrangement, x, condition=None):
    return x[:, layer.order], np.zeros(len(x))


@inverse.register
def _(layer: Rearrangement, y, condition=None):
    return y[:, np.argsort(layer.order)], np.zeros(len(y))


@forward.register
def _(layer: Chain, x, condition=None):
    log_det = np.zeros(len(x))
    for part in layer.parts.values():
        x, more = forward(part, x, condition if part.condition_dim else None)
        log_det = log_det + more
    return x, log_det


@inverse.register
def _(layer: Chain, y, condition=None):
    log_det = np.zeros(len(y))
    for part in reversed(layer.parts.values()):
        y, more = inverse(part, y, condition if part.condition_dim else None)
        log_det = log_det + more
    return y, log_det


@dependence.register
def _(layer: AffineCouplingLayer, direction="forward"):
    mask, size = layer.mask, layer.image_size or (1, 1)
    seen = np.outer(mask == 0, mask == 1)
    return np.eye(layer.input_dim, dtype=bool) | (seen if layer.network == "dense" else seen & near(layer, size))


_flat_dependence = dependence.dispatch(CouplingLayer)


@dependence.register
def _(layer: CouplingLayer, direction="forward"):
    if layer.network == "dense":
        return _flat_dependence(layer, direction)
    seen = np.outer(layer.mask == 0, layer.mask == 1)
    return np.eye(layer.input_dim, dtype=bool) | (seen & near(layer, layer.image_shape[:2]))


def near(layer, size):
    """Whether two values are of pixels that the network's convolutions connect: 3x3, or two of these."""
    reach = 2 if layer.hidden_dims else 1
    channels = layer.input_dim // (size[0] * size[1])
    y, x, _ = np.indices((*size, channels)).reshape(3, -1)
    return (abs(y[:, None] - y) <= reach) & (abs(x[:, None] - x) <= reach)


@dependence.register
def _(layer: InvertibleConv1x1, direction="forward"):
    pixel = np.arange(layer.input_dim) // layer.num_channels
    return pixel[:, None] == pixel


@dependence.register
def _(layer: ActNormLayer, direction="forward"):
    return np.eye(layer.input_dim, dtype=bool)


@dependence.register
def _(layer: Rearrangement, direction="forward"):
    return np.eye(layer.input_dim, dtype=bool)[layer.order if direction == "forward" else np.argsort(layer.order)]


@dependence.register
def _(layer: Chain, direction="forward"):
    parts = list(layer.parts.values())
    seen = np.eye(layer.input_dim, dtype=bool)
    for part in parts if direction == "forward" else parts[::-1]:
        seen = dependence(part, direction) @ seen
    return seen
