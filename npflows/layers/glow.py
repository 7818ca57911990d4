"""The coupling and the block of Glow (Kingma and Dhariwal 2018, arXiv:1807.03039, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npflows.core.checks import as_choice, as_dtype, as_int, as_rng, as_widths
from npflows.core.operations import SCALE_ACTIVATIONS, Additive, Affine
from npflows.layers.actnorm import ActNormLayer
from npflows.layers.chain import Chain
from npflows.layers.conv1x1 import InvertibleConv1x1
from npflows.layers.coupling import NETWORKS, Coupling, coupling_network
from npflows.layers.image import ImageLayer, as_image_size, shape_of
from npflows.networks.options import network_options

COUPLINGS = ("affine", "additive")


class AffineCouplingLayer(ImageLayer, Coupling):
    """The first half of the channels is left unchanged and conditions the map of the second half, y = x * exp(s) + t.

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
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}
    actnorm : bool
        Whether activation normalisation follows each hidden convolution; see `ActNormLayer`.
    image_size : (int, int), optional
        Height and width of the images; see `ImageLayer`.
    condition_dim : int
        Width of a condition that the network sees too.
    dtype : {"float32", "float64"}
        The compute dtype.
    rng : int, numpy.random.Generator or None
        Draws the network's first weights.
    """

    def __init__(
        self,
        num_channels: int,
        hidden_dims: Sequence[int] = (512, 512),
        network: str = "conv",
        *,
        coupling: str = "affine",
        scale_activation: str = "tanh_gain",
        activation: str = "relu",
        actnorm: bool = True,
        image_size: tuple[int, int] | None = None,
        condition_dim: int = 0,
        dtype: object = "float32",
        rng: object = None,
    ) -> None:
        n = self.num_channels = as_int(num_channels, "num_channels", 2)
        self.hidden_dims, self.network = as_widths(hidden_dims), as_choice(network, "network", NETWORKS)
        self.coupling = as_choice(coupling, "coupling", COUPLINGS)
        self.scale_activation = as_choice(scale_activation, "scale_activation", SCALE_ACTIVATIONS)
        self.actnorm, self.image_size = bool(actnorm), as_image_size(image_size)
        shape = shape_of(self.image_size or (1, 1), n)
        mask = np.zeros(shape, int)
        mask[..., : n // 2] = 1
        moved = n - n // 2
        scalar_map = Affine(self.scale_activation, n_gains=moved) if self.coupling == "affine" else Additive()
        options = network_options(self, activation, 0, 0.0, condition_dim, rng)
        generator = options.pop("rng")
        conditioner = coupling_network(mask, self.hidden_dims, scalar_map.multiplier, self.network, self.actnorm, options)
        self.mask = mask.ravel()
        Coupling.__init__(self, self.mask, conditioner, scalar_map, as_dtype(dtype), rng=generator)

    def initialize(self, x: object, sample_weight: object = None, condition: object = None) -> None:
        """Set the activation normalisations of the network from rows x that enter the layer; see `ActNormLayer`."""
        layer = self._for(x, False)
        if layer is self:
            super().initialize(x, sample_weight, condition)
        else:
            layer.initialize(x, sample_weight, condition)
            self.initialized = layer.initialized


class GlowBlock(Chain):
    """One step of Glow: activation normalisation, an invertible 1x1 convolution, an affine coupling.

    Parameters
    ----------
    num_channels : int
        Columns of the samples, or channels of images (n, height, width, num_channels), at least 2.
    hidden_dims, network, coupling, scale_activation, activation, actnorm, image_size, condition_dim, dtype
        See `AffineCouplingLayer`.
    parameterization : {"plu", "full"}
        See `InvertibleConv1x1`.
    rng : int, numpy.random.Generator or None
        Draws the 1x1 convolution and the network's first weights.
    """

    def __init__(
        self,
        num_channels: int,
        hidden_dims: Sequence[int] = (512, 512),
        network: str = "conv",
        *,
        coupling: str = "affine",
        scale_activation: str = "tanh_gain",
        activation: str = "relu",
        actnorm: bool = True,
        parameterization: str = "plu",
        image_size: tuple[int, int] | None = None,
        condition_dim: int = 0,
        dtype: object = "float32",
        rng: object = None,
    ) -> None:
        generator, options = as_rng(rng), {"image_size": as_image_size(image_size), "dtype": dtype}
        convolution = InvertibleConv1x1(num_channels, parameterization, rng=generator, **options)
        step = AffineCouplingLayer(
            num_channels,
            hidden_dims,
            network,
            coupling=coupling,
            scale_activation=scale_activation,
            activation=activation,
            actnorm=actnorm,
            condition_dim=condition_dim,
            rng=generator,
            **options,
        )
        self.num_channels, self.image_size = step.num_channels, step.image_size
        self.hidden_dims, self.network, self.coupling = step.hidden_dims, step.network, step.coupling
        self.scale_activation, self.activation, self.actnorm = step.scale_activation, step.activation, step.actnorm
        self.parameterization = convolution.parameterization
        super().__init__(
            {"actnorm": ActNormLayer(num_channels, **options), "convolution": convolution, "coupling": step}, dtype=dtype
        )
        self.condition_dim = step.condition_dim
