"""The coupling and the block of Glow (Kingma and Dhariwal 2018, arXiv:1807.03039, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npflows.core.checks import SeedLike, as_choice, as_flag, as_int, as_rng, as_widths
from npflows.core.operations import SCALE_ACTIVATIONS, Additive, Affine
from npflows.layers.actnorm import ActNormLayer
from npflows.layers.chain import Chain
from npflows.layers.conv1x1 import InvertibleConv1x1
from npflows.layers.coupling import NETWORKS, Coupling, coupling_network
from npflows.layers.image import ImageLayer, as_image_size, shape_of
from npflows.networks.options import NetworkOptions

COUPLINGS = ("affine", "additive")


@dataclass(repr=False, eq=False)
class ImageCouplingOptions(NetworkOptions):
    """Arguments of the couplings of images and of the blocks that have one, beside those of `NetworkOptions`.

    Parameters
    ----------
    num_channels : int
        Columns of the samples, or channels of images (n, height, width, num_channels), at least 2.
    hidden_dims : sequence of int
        Channels of the hidden convolutions, or units of the hidden layers.
    network : {"conv", "dense"}
        conv: a 3x3 convolution, 1x1 ones for all further `hidden_dims`, and a 3x3 one that starts at zero; dense: a network
        of the flattened first half, for one `image_size` only.
    coupling : {"affine", "additive"}
        additive: y = x + t.
    scale_activation : {"tanh_gain", "tanh", "sigmoid", "none"}
        How the log-scale s comes from the network: its tanh, times a learned gain for each channel perhaps, the logarithm
        of a sigmoid, or itself.
    actnorm : bool
        Whether activation normalization follows each hidden convolution; see `ActNormLayer`.
    image_size : (int, int), optional
        Height and width of the images; see `ImageLayer`.
    """

    num_channels: int
    hidden_dims: Sequence[int] = (512, 512)
    network: str = "conv"
    _: KW_ONLY
    coupling: str = "affine"
    scale_activation: str = "tanh_gain"
    actnorm: bool = True
    image_size: tuple[int, int] | None = None

    def __post_init__(self, *init_only: Any) -> None:
        super().__post_init__(*init_only)
        self.num_channels, self.hidden_dims = as_int(self.num_channels, "num_channels", 2), as_widths(self.hidden_dims)
        self.network = as_choice(self.network, "network", NETWORKS)
        self.coupling = as_choice(self.coupling, "coupling", COUPLINGS)
        self.scale_activation = as_choice(self.scale_activation, "scale_activation", SCALE_ACTIVATIONS)
        self.actnorm, self.image_size = as_flag(self.actnorm, "actnorm"), as_image_size(self.image_size)


@dataclass(repr=False, eq=False)
class AffineCouplingLayer(ImageLayer, Coupling, ImageCouplingOptions):
    """The first half of the channels is left unchanged and conditions the map of the second half, y = x * exp(s) + t.

    Parameters
    ----------
    num_channels, hidden_dims, network, coupling, scale_activation, actnorm, image_size
        See `npflows.layers.glow.ImageCouplingOptions`.
    activation, condition_dim, dtype, rng
        See `npflows.networks.options.NetworkOptions`.
    """

    def __post_init__(self, dtype: DTypeLike, rng: SeedLike) -> None:
        super().__post_init__()
        mask, kept = np.zeros(shape_of(self.image_size or (1, 1), self.num_channels), int), self.num_channels // 2
        mask[..., :kept] = 1
        n_gains = self.num_channels - kept
        scalar_map = Affine(self.scale_activation, n_gains=n_gains) if self.coupling == "affine" else Additive()
        conditioner = coupling_network(self.network, mask, self.hidden_dims, scalar_map.multiplier, actnorm=self.actnorm,
                                       **self._network_arguments)  # fmt: skip
        self.mask = mask.ravel()
        Coupling.__init__(self, self.mask, conditioner, scalar_map, dtype, rng=as_rng(rng))


@dataclass(repr=False, eq=False)
class GlowBlock(ImageLayer, Chain, ImageCouplingOptions):
    """One step of Glow: activation normalization, an invertible 1x1 convolution, an affine coupling.

    Parameters
    ----------
    num_channels, hidden_dims, network, coupling, scale_activation, actnorm, image_size
        See `npflows.layers.glow.ImageCouplingOptions`.
    parameterization : {"plu", "full"}
        See `InvertibleConv1x1`.
    activation, condition_dim, dtype, rng
        See `npflows.networks.options.NetworkOptions`.
    """

    _: KW_ONLY
    parameterization: str = "plu"

    def __post_init__(self, dtype: DTypeLike, rng: SeedLike) -> None:
        super().__post_init__()
        n, size, generator = self.num_channels, self.image_size, as_rng(rng)
        convolution = InvertibleConv1x1(n, self.parameterization, image_size=size, dtype=dtype, rng=generator)
        coupling = AffineCouplingLayer(
            n,
            self.hidden_dims,
            self.network,
            coupling=self.coupling,
            scale_activation=self.scale_activation,
            activation=self.activation,
            actnorm=self.actnorm,
            image_size=size,
            condition_dim=self.condition_dim,
            dtype=dtype,
            rng=generator,
        )
        self.parameterization = convolution.parameterization
        actnorm = ActNormLayer(n, image_size=size, dtype=dtype)
        Chain.__init__(self, [actnorm, convolution, coupling], ["actnorm", "convolution", "coupling"])
