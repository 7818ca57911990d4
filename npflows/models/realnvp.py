"""RealNVP: affine couplings with alternating masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from npflows.core.checks import as_choice, as_int, as_rng, as_shape, as_widths
from npflows.core.operations import SCALE_ACTIVATIONS
from npflows.distribution.assembly import Assembly
from npflows.distribution.options import TableOptions
from npflows.flow import NormalizingFlow
from npflows.layers.actnorm import normalized
from npflows.layers.coupling import NETWORKS, CouplingLayer
from npflows.layers.layer import Layer

MASK_TYPES = ("checkerboard", "channel-wise", "half")


def coupling_mask(shape: tuple[int, ...], mask_type: str) -> NDArray[np.int64]:
    """The first layer's mask (flat); every other layer has its complement.

    Parameters
    ----------
    shape : tuple of int
        (dim,) or (height, width, channels).
    mask_type : {"checkerboard", "channel-wise", "half"}
        checkerboard: parity of the index, on an image of row + column; channel-wise: the first half of the channels, on a
        vector the first half; half: the first half of all values.
    """
    if mask_type == "half" or (mask_type == "channel-wise" and len(shape) == 1):
        dim = math.prod(shape)
        return (np.arange(dim) < dim // 2).astype(int)
    index = np.indices(shape)
    if mask_type == "channel-wise":
        return (index[-1] < shape[-1] // 2).astype(int).ravel()
    parity = index[0] if len(shape) == 1 else index[0] + index[1]
    return ((parity + 1) % 2).ravel()


@dataclass(repr=False, eq=False)
class RealNVP(NormalizingFlow, TableOptions):
    """Affine coupling flow: fast in both directions (Dinh et al. 2017, arXiv:1605.08803).

    The flow starts as the identity.

    Parameters
    ----------
    input_dim : int or tuple of int
        Number of features, at least 2; or the shape (height, width, channels) of an image.
    num_coupling_layers : int
    hidden_dims : sequence of int
        Units of the hidden layers of each coupling's network, which gives both scale and shift.
    mask_type : {"checkerboard", "channel-wise", "half"}
        Which values condition the others in the first layer; the next has the complement, and so on.
        checkerboard: even indices, or even row + column of an image; channel-wise: the first half of an image's channels;
        half: the first half of the values.
    scale_activation : {"tanh", "tanh_gain", "none"}
        See `CouplingLayer`.
    network : {"dense", "conv"}
        conv, for images: each coupling's network is a 3x3 convolution, 1x1 ones for all further `hidden_dims`, and a 3x3
        one, with activation normalization where `actnorm` is set.
    actnorm : bool
        Whether an `ActNormLayer`, set from the data by `fit`, comes before each coupling: of each value, or with
        convolutions of each channel.
    activation, condition_dim, dtype, rng
        See `npflows.networks.options.NetworkOptions`.
    residual_blocks, dropout, residual_activations, gated, condition_in
        See `npflows.networks.options.DenseOptions`.
    base_distribution, embedding_dims, log_tails
        See `npflows.distribution.options.FlowOptions`.
    support, columns
        See `npflows.distribution.options.TableOptions`.
    """

    parameter_aliases: ClassVar[dict[str, str]] = {"num_layers": "num_coupling_layers"}

    input_dim: InitVar[int | Sequence[int]] = field()
    num_coupling_layers: int = 8
    hidden_dims: Sequence[int] = (128, 128)
    mask_type: str = "checkerboard"
    _: KW_ONLY
    scale_activation: str = "tanh_gain"
    network: str = "dense"

    def __post_init__(self, *init_only: Any) -> None:
        super().__post_init__(*init_only)
        dtype, rng, support, columns, input_dim = init_only
        shape, generator = as_shape(input_dim, "input_dim"), as_rng(rng)
        self.num_coupling_layers = as_int(self.num_coupling_layers, "num_coupling_layers")
        self.hidden_dims = as_widths(self.hidden_dims)
        self.mask_type = as_choice(self.mask_type, "mask_type", MASK_TYPES)
        self.scale_activation = as_choice(self.scale_activation, "scale_activation", SCALE_ACTIVATIONS)
        self.network = as_choice(self.network, "network", NETWORKS)
        mask = coupling_mask(shape, self.mask_type)
        if mask.all() or not mask.any():
            raise ValueError(
                f"RealNVP with mask_type={self.mask_type!r} can't split input_dim={input_dim!r}: a coupling needs values "
                f"on both sides; for one column use MAF"
            )
        options = {**self._network_arguments, "dtype": dtype, "rng": generator}
        if self.network == "conv":
            if len(shape) != 3:
                raise ValueError(f"network='conv' needs input_dim=(height, width, channels), got {input_dim!r}")
            options |= {"network": "conv", "actnorm": self.actnorm, "image_shape": shape}
        layers: list[Layer] = [
            CouplingLayer(1 - mask if i % 2 else mask, self.hidden_dims, self.scale_activation, **options)
            for i in range(self.num_coupling_layers)
        ]
        if self.actnorm:
            layers = normalized(layers, shape if self.network == "conv" else None)
        layers = self._with_tails(layers, math.prod(shape), dtype, support, columns)
        shared = self._assembly_arguments(dtype, generator)
        Assembly.__init__(self, layers, shape, support=support, columns=columns, **shared)

    @property
    def arguments(self) -> dict[str, Any]:
        shape = self.input_shape
        return {**super().arguments, "input_dim": shape[0] if len(shape) == 1 else list(shape)}
