"""Coupling layers: some values are left unchanged and condition the map of the others (Dinh et al., arXiv:1605.08803)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.core import operations
from npflows.core.checks import as_choice, as_dtype, as_mask, as_widths
from npflows.core.operations import SCALE_ACTIVATIONS
from npflows.core.parameters import prefixed
from npflows.layers.actnorm import initial_rows
from npflows.layers.layer import Layer
from npflows.networks import convnet, mlp
from npflows.networks.options import network_options
from npflows.transformers.scalar_maps import first_parameters


class Coupling(Layer, abstract=True):
    """A coupling of any conditioner and any scalar map; `CouplingLayer` is the affine one.

    Values that `circular` marks are on circles, the interval [-bound, bound] whose ends are the same point: the network,
    which has `features_of(mask, circular)` inputs, sees their cosine and sine.
    """

    def __init__(
        self,
        mask: NDArray[np.int64],
        network: operations.Mlp | operations.ConvNet,
        transformer: operations.ScalarMap,
        dtype: object,
        *,
        rng: np.random.Generator,
        circular: NDArray[np.bool_] | None = None,
        bound: float = 1.0,
    ) -> None:
        on_circle = np.zeros(mask.size, bool) if circular is None else circular
        line, circle = np.flatnonzero((mask == 1) & ~on_circle), np.flatnonzero((mask == 1) & on_circle)
        kept, moved = [*line.tolist(), *circle.tolist()], np.flatnonzero(mask == 0).tolist()
        self._operation = operations.Coupling(tuple(kept), tuple(moved), network, transformer, len(circle), bound)
        self.initialized = False if isinstance(network, operations.ConvNet) and network.actnorm else None
        convolutional = isinstance(network, operations.ConvNet)
        first = convnet.first_parameters(network, rng) if convolutional else mlp.first_parameters(network, rng)
        super().__init__(
            mask.size,
            [*prefixed("network.", first), *first_parameters(transformer, len(moved))],
            condition_dim=network.condition_dim,
            dtype=dtype,
        )

    def operation(self) -> operations.Coupling:
        return self._operation

    def initialize(self, x: object, sample_weight: object = None, condition: object = None) -> None:
        """Set the activation normalizations of a convolutional network from rows x (n, input_dim) that enter the layer;
        other networks have none."""
        network = self._operation.conditioner
        if not isinstance(network, operations.ConvNet):
            return
        rows, weight, context = initial_rows(self, self.sample_shape, x, sample_weight, condition)
        views = {name.removeprefix("network."): view for name, view in self.parameters.views().items()}
        convnet.initialize(network, views, rows[:, list(self._operation.kept)], weight, context)
        self.initialized = True


def features_of(mask: np.ndarray, circular: np.ndarray) -> int:
    """How many values the network of a coupling sees: two of each kept value on a circle."""
    return int((mask == 1).sum() + ((mask == 1) & circular).sum())


NETWORKS = ("dense", "conv")


def coupling_network(
    mask: np.ndarray, hidden_dims: Sequence[int], multiplier: int, network: str, actnorm: bool, options: dict[str, Any]
) -> operations.Mlp | operations.ConvNet:  # fmt: skip
    """The network of a coupling that gives `multiplier` parameters for each moved value; `options` as `network_options`
    gives them, the mask in the shape of a sample."""
    if network == "dense":
        n_kept = int(mask.sum())
        return mlp.dense(n_kept, hidden_dims, (mask.size - n_kept) * multiplier, **options)
    if mask.ndim != 3:
        raise ValueError(f"network='conv' needs a mask (height, width, channels), got one of shape {mask.shape}")
    options = dict(options)
    unsupported = options.pop("residual_blocks"), options.pop("dropout")
    if any(unsupported):
        raise ValueError("network='conv' has no residual_blocks and no dropout: leave both at 0")
    return convnet.convolutional(mask, hidden_dims, multiplier, actnorm=actnorm, **options)


class CouplingLayer(Coupling):
    """Affine coupling: y = x where the mask is 1, and y = x * exp(s) + t where it is 0.

    One network maps the unchanged values to s and t (Dinh et al. 2017, arXiv:1605.08803, equations 7 and 8).

    Parameters
    ----------
    mask : array_like of 0 and 1
        1: unchanged and conditions the others; 0: transformed.  At least one of each.  For images it may have their shape
        (height, width, channels), and must have for convolutions.
    hidden_dims : sequence of int
        Units of the network's hidden layers, or channels of its hidden convolutions.
    scale_activation : {"tanh", "tanh_gain", "none", "sigmoid"}
        How the log-scale s is bounded: by tanh, by tanh times a learned gain for each value (for each channel where the
        network is convolutional), not at all but for one clamp where exp would overflow, or as the logarithm of a sigmoid.
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}
    residual_blocks : int
        Where above 0, each network has so many residual blocks of the one width in `hidden_dims` instead of plain layers.
    dropout : float
        Share of hidden values that are set to 0 in training only, at least 0 and below 1.
    network : {"dense", "conv"}
        conv: a 3x3 convolution, 1x1 ones for all further `hidden_dims`, and a 3x3 one, which see 0 in the place of what is
        transformed.
    actnorm : bool
        Whether activation normalisation follows each hidden convolution; see `ActNormLayer`.
    shift_first : bool
        y = (x - t) * exp(-s) instead.
    image_shape : (int, int, int), optional
        The shape (height, width, channels) of a mask that is given flat.
    condition_dim : int
        Width of a condition that the network sees too.
    dtype : {"float32", "float64"}
        The compute dtype.
    rng : int, numpy.random.Generator or None
        Draws the network's first weights.  The layer starts as the identity, but for a sigmoid.
    """

    def __init__(
        self,
        mask: object,
        hidden_dims: Sequence[int] = (128, 128),
        scale_activation: str = "tanh",
        *,
        activation: str = "relu",
        residual_blocks: int = 0,
        dropout: float = 0.0,
        network: str = "dense",
        actnorm: bool = False,
        shift_first: bool = False,
        image_shape: Sequence[int] | None = None,
        condition_dim: int = 0,
        dtype: object = "float32",
        rng: object = None,
    ) -> None:
        self.mask, self.hidden_dims = as_mask(mask), as_widths(hidden_dims)
        shape = np.shape(mask) if image_shape is None else tuple(image_shape)
        if len(shape) not in (1, 3) or math.prod(shape) != self.mask.size:
            raise ValueError(f"mask must have shape (dim,) or (height, width, channels), got {shape}")
        self.image_shape = shape if len(shape) == 3 else None
        self.network = as_choice(network, "network", NETWORKS)
        self.actnorm, self.shift_first = bool(actnorm), bool(shift_first)
        self.scale_activation = as_choice(scale_activation, "scale_activation", SCALE_ACTIVATIONS)
        options = network_options(self, activation, residual_blocks, dropout, condition_dim, rng)
        generator = options.pop("rng")
        shaped = self.mask.reshape(shape)
        conditioner = coupling_network(
            shaped, self.hidden_dims, operations.Affine.multiplier, self.network, self.actnorm, options
        )
        n_gains = int((shaped == 0).any(axis=(0, 1)).sum()) if self.network == "conv" else None
        transformer = operations.Affine(self.scale_activation, shift_first=self.shift_first, n_gains=n_gains)
        super().__init__(self.mask, conditioner, transformer, as_dtype(dtype), rng=generator)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.image_shape or (self.input_dim,)
