"""Coupling layers: some values are left unchanged and condition the map of the others (Dinh et al., arXiv:1605.08803)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.core import operations
from npflows.core.checks import SeedLike, as_choice, as_flag, as_mask, as_rng, as_widths
from npflows.core.operations import SCALE_ACTIVATIONS
from npflows.core.parameters import prefixed
from npflows.layers.actnorm import initial_rows
from npflows.layers.layer import Layer
from npflows.networks import convnet, mlp
from npflows.networks.options import DenseOptions
from npflows.transformers.scalar_maps import as_min_scale, first_parameters


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
        dtype: DTypeLike,
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
        first = (
            convnet.first_parameters(network, rng)
            if isinstance(network, operations.ConvNet)
            else mlp.first_parameters(network, rng)
        )
        super().__init__(
            mask.size,
            [*prefixed("network.", first), *first_parameters(transformer, len(moved))],
            condition_dim=network.condition_dim,
            dtype=dtype,
        )

    def operation(self) -> operations.Coupling:
        return self._operation

    def initialize(self, x: ArrayLike, sample_weight: ArrayLike | None = None, condition: ArrayLike | None = None) -> None:
        """Set the activation normalizations of a convolutional network from rows x (n, input_dim) that enter the layer;
        other networks have none."""
        network = self._operation.conditioner
        if not isinstance(network, operations.ConvNet):
            return
        rows, weight, context = initial_rows(self, self.sample_shape, x, sample_weight, condition)
        views = {name.removeprefix("network."): view for name, view in self.parameters.views().items()}
        convnet.initialize(network, views, rows[:, list(self._operation.kept)], weight, context)
        self.initialized = True


def features_of(mask: NDArray[np.int64], circular: NDArray[np.bool_]) -> int:
    """The number of inputs of a coupling's network: two of each kept value on a circle, one of the others."""
    return int((mask == 1).sum() + ((mask == 1) & circular).sum())


NETWORKS = ("dense", "conv")


def coupling_network(
    network: str,
    mask: NDArray[np.int64],
    hidden_dims: Sequence[int],
    multiplier: int,
    *,
    actnorm: bool,
    activation: str,
    condition_dim: int,
    residual_blocks: int = 0,
    dropout: float = 0.0,
) -> operations.Mlp | operations.ConvNet:
    """The network of a coupling that gives `multiplier` parameters for each moved value; the mask has the shape of a
    sample."""
    if network == "dense":
        n_kept = int(mask.sum())
        return mlp.dense(n_kept, hidden_dims, (mask.size - n_kept) * multiplier, activation=activation,
                         residual_blocks=residual_blocks, dropout=dropout, condition_dim=condition_dim)  # fmt: skip
    if mask.ndim != 3:
        raise ValueError(f"network='conv' needs a mask (height, width, channels), got one of shape {mask.shape}")
    if residual_blocks or dropout:
        raise ValueError("network='conv' has no residual_blocks and no dropout: leave both at 0")
    return convnet.convolutional(
        mask, hidden_dims, multiplier, activation=activation, actnorm=actnorm, condition_dim=condition_dim
    )


@dataclass(repr=False, eq=False)
class MaskCoupling(Coupling, DenseOptions, abstract=True):
    """A coupling of a given mask, whose network has given hidden layers.

    Parameters
    ----------
    mask : array_like of 0 and 1
        1: unchanged and conditions the others; 0: transformed.  At least one of each.
    hidden_dims : sequence of int
        Units of the network's hidden layers.
    activation, condition_dim, dtype, rng
        See `npflows.networks.options.NetworkOptions`.
    residual_blocks, dropout
        See `npflows.networks.options.DenseOptions`.
    """

    mask: ArrayLike
    hidden_dims: Sequence[int] = (128, 128)

    def __post_init__(self, *init_only: Any) -> None:
        super().__post_init__(*init_only)
        self.mask, self.hidden_dims = as_mask(self.mask), as_widths(self.hidden_dims)


@dataclass(repr=False, eq=False)
class CouplingLayer(MaskCoupling):
    """Affine coupling: y = x where the mask is 1, and y = x * exp(s) + t where it is 0.

    One network maps the unchanged values to s and t (Dinh et al. 2017, arXiv:1605.08803, equations 7 and 8).  The layer
    starts as the identity, but for a sigmoid.

    Parameters
    ----------
    mask : array_like of 0 and 1
        1: unchanged and conditions the others; 0: transformed.  At least one of each.  For images it may have their shape
        (height, width, channels), and must have for convolutions.
    hidden_dims : sequence of int
        Units of the network's hidden layers, or channels of its hidden convolutions.
    scale_activation : {"tanh", "tanh_gain", "none", "sigmoid", "softplus"}
        How the log-scale s is bounded: by tanh, by tanh times a learned gain for each value (for each channel where the
        network is convolutional), not at all but for one clamp where exp would overflow, or as the logarithm of
        sigmoid(r + 2) or softplus(r), with `min_scale` added.
    network : {"dense", "conv"}
        conv: a 3x3 convolution, 1x1 ones for all further `hidden_dims`, and a 3x3 one, which see 0 in the place of what is
        transformed.
    actnorm : bool
        Whether activation normalization follows each hidden convolution; see `ActNormLayer`.
    shift_first : bool
        y = (x - t) * exp(-s) instead.
    min_scale : float
        What is added to a sigmoid or softplus before its logarithm is taken, at least 0; with other scales it is 0.
    image_shape : (int, int, int), optional
        The shape (height, width, channels) of a mask that is given flat.
    activation, condition_dim, dtype, rng
        See `npflows.networks.options.NetworkOptions`.
    residual_blocks, dropout
        See `npflows.networks.options.DenseOptions`.
    """

    scale_activation: str = "tanh"
    _: KW_ONLY
    network: str = "dense"
    actnorm: bool = False
    shift_first: bool = False
    image_shape: Sequence[int] | None = None
    min_scale: float = 0.0

    def __post_init__(self, dtype: DTypeLike, rng: SeedLike) -> None:
        shape = np.shape(self.mask) if self.image_shape is None else tuple(self.image_shape)
        super().__post_init__()
        mask = np.asarray(self.mask)
        if len(shape) not in (1, 3) or math.prod(shape) != mask.size:
            raise ValueError(f"mask must have shape (dim,) or (height, width, channels), got {shape}")
        self.image_shape = shape if len(shape) == 3 else None
        self.network = as_choice(self.network, "network", NETWORKS)
        self.actnorm, self.shift_first = as_flag(self.actnorm, "actnorm"), as_flag(self.shift_first, "shift_first")
        self.scale_activation = as_choice(self.scale_activation, "scale_activation", SCALE_ACTIVATIONS)
        conditioner = coupling_network(self.network, mask.reshape(shape), self.hidden_dims, operations.Affine.multiplier,
                                       actnorm=self.actnorm, **self._network_arguments)  # fmt: skip
        n_gains = int((mask.reshape(shape) == 0).any(axis=(0, 1)).sum()) if self.network == "conv" else None
        self.min_scale = as_min_scale(self.min_scale, self.scale_activation)
        transformer = operations.Affine(self.scale_activation, shift_first=self.shift_first, n_gains=n_gains,
                                        least=self.min_scale)  # fmt: skip
        Coupling.__init__(self, mask, conditioner, transformer, dtype, rng=as_rng(rng))

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return (self.input_dim,) if self.image_shape is None else tuple(self.image_shape)
