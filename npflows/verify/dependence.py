"""The dependences that a layer's order or mask allows."""

from __future__ import annotations

import numpy as np

from npflows.core.operations import ConvNet
from npflows.layers import (
    ActNormLayer,
    Autoregressive,
    Coupling,
    Elementwise,
    InvertibleConv1x1,
    LogTails,
    Permutation,
    Rotation,
    Standardize,
)
from npflows.layers.layer import Layer
from npflows.layers.multiscale import Rearrangement


def promised_dependence(layer: Layer) -> np.ndarray | None:
    """The results (rows) of a layer's `forward` that may depend on each value (column); None where nothing is promised."""
    n = layer.input_dim
    if isinstance(layer, Autoregressive):
        place = np.argsort(layer.operation().order)
        return place[:, None] >= place
    if isinstance(layer, Coupling):
        kept, conditioner = np.isin(np.arange(n), layer.operation().kept), layer.operation().conditioner
        seen = np.outer(~kept, kept)
        if isinstance(conditioner, ConvNet):
            seen &= near(conditioner, n)
        return np.eye(n, dtype=bool) | seen
    if isinstance(layer, (Permutation, Rearrangement)):
        return np.eye(n, dtype=bool)[layer.order]
    if isinstance(layer, InvertibleConv1x1):
        pixel = np.arange(n) // layer.num_channels
        return pixel[:, None] == pixel
    if isinstance(layer, Standardize) and layer.factor is not None:
        return np.linalg.inv(layer.factor) != 0
    if isinstance(layer, (Standardize, ActNormLayer, Elementwise, LogTails, Rotation)):
        return np.eye(n, dtype=bool)
    return None


def near(network: ConvNet, n: int) -> np.ndarray:
    """Which of the n values of an image lie so close to each other that the network's convolutions connect them."""
    reach = sum(size // 2 for size in network.kernel_sizes)
    y, x, _ = np.indices((network.height, network.width, n // (network.height * network.width))).reshape(3, -1)
    return (np.abs(y[:, None] - y) <= reach) & (np.abs(x[:, None] - x) <= reach)
