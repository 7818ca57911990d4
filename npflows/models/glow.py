"""Glow: a multi-scale flow of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.base import Normal
from npflows.core.checks import SeedLike, as_choice, as_flag, as_int, as_rng, as_shape, as_widths
from npflows.core.operations import PARAMETERIZATIONS, SCALE_ACTIVATIONS
from npflows.distribution.assembly import Assembly
from npflows.distribution.options import FlowOptions
from npflows.flow import NormalizingFlow
from npflows.layers.coupling import NETWORKS
from npflows.layers.glow import COUPLINGS, GlowBlock
from npflows.layers.layer import Layer
from npflows.layers.multiscale import SPLIT_PRIORS, Split, Squeeze
from npflows.support.pixels import Pixels, as_alpha, as_levels

ALPHA = 0.02
"""The room at either end of the pixels' range, in levels."""


@dataclass(repr=False, eq=False)
class Glow(NormalizingFlow, FlowOptions):
    """Multi-scale flow of images with invertible 1x1 convolutions (Kingma and Dhariwal 2018, arXiv:1807.03039).

    Each scale squeezes 2 x 2 pixels into the channels, then runs its blocks (`GlowBlock`); after each scale but the last
    half of the channels is left behind (`Split`).  On the latent side the values of an image are those of the last scale,
    then those left behind by the scale before it, and so on to the first.

    Parameters
    ----------
    image_shape : (int, int, int)
        (height, width, channels); height and width divisible by 2**num_scales.
    num_scales, blocks_per_scale : int
    hidden_dims : sequence of int
        Channels of the hidden convolutions of each coupling's network.
    levels : int, optional
        Where given, images are whole numbers 0, 1, ..., levels - 1: dequantized by uniform noise in training; `log_prob`
        is the logarithm of the mass of an image's cell, estimated with `draws=` points; samples are whole numbers too.  By
        default images are real-valued.
    alpha : float, "auto" or None
        With levels: a value x goes into the flow as logit(alpha + (1 - 2 alpha) x / levels) (Dinh et al. 2017,
        arXiv:1605.08803, section 4.1); "auto": with alpha = 0.02 / levels; None: as it is.
    split_prior : {"learned", "standard"}
        Density of what is left behind: a normal one whose mean and scale depend on what goes on, with a normal base whose
        mean and scale of each latent value are learned too; or the base distribution alone.
    network, coupling, scale_activation, actnorm
        See `npflows.layers.glow.ImageCouplingOptions`.
    parameterization : {"plu", "full"}
        See `InvertibleConv1x1`.
    activation, condition_dim, dtype, rng
        See `npflows.networks.options.NetworkOptions`; `rng` also draws the 1x1 convolutions.
    base_distribution, embedding_dims, log_tails
        See `npflows.distribution.options.FlowOptions`.

    Raises
    ------
    ValueError
        If height or width do not divide, or another argument does not fit.
    """

    parameter_aliases: ClassVar[dict[str, str]] = {"input_dim": "image_shape"}

    image_shape: Sequence[int] = (32, 32, 3)
    num_scales: int = 3
    blocks_per_scale: int = 6
    hidden_dims: Sequence[int] = (512, 512)
    _: KW_ONLY
    levels: int | None = None
    alpha: float | str | None = "auto"
    split_prior: str = "learned"
    network: str = "conv"
    coupling: str = "affine"
    scale_activation: str = "tanh_gain"
    actnorm: bool = True
    parameterization: str = "plu"

    def __post_init__(self, dtype: DTypeLike, rng: SeedLike) -> None:
        super().__post_init__()
        shape, generator = as_shape(self.image_shape, "image_shape"), as_rng(rng)
        self.num_scales = as_int(self.num_scales, "num_scales")
        self.blocks_per_scale = as_int(self.blocks_per_scale, "blocks_per_scale")
        self.hidden_dims = as_widths(self.hidden_dims)
        self.levels = as_levels(self.levels)
        if isinstance(self.alpha, str):
            as_choice(self.alpha, "alpha", ("auto",))
            self.alpha = None if self.levels is None else ALPHA / self.levels
        self.alpha = as_alpha(self.alpha, self.levels)
        self.split_prior = as_choice(self.split_prior, "split_prior", SPLIT_PRIORS)
        self.network = as_choice(self.network, "network", NETWORKS)
        self.coupling = as_choice(self.coupling, "coupling", COUPLINGS)
        self.scale_activation = as_choice(self.scale_activation, "scale_activation", SCALE_ACTIVATIONS)
        self.parameterization = as_choice(self.parameterization, "parameterization", PARAMETERIZATIONS)
        self.actnorm = as_flag(self.actnorm, "actnorm")
        if len(shape) != 3:
            raise ValueError(f"image_shape must be (height, width, channels), got {self.image_shape!r}")
        factor = 2**self.num_scales
        if shape[0] % factor or shape[1] % factor:
            raise ValueError(
                f"image_shape={tuple(shape)}: height and width must be divisible by 2**num_scales = {factor}; pad the "
                f"images or take fewer scales"
            )
        self.image_shape = shape
        layers, shared = self._layers(dtype, generator), self._assembly_arguments(dtype, generator)
        if self.split_prior == "learned" and self.base_distribution == "normal":
            shared["base"] = Normal(math.prod(shape), learnable=True, dtype=dtype)
        pixels = None if self.levels is None else Pixels(math.prod(shape), self.levels, self.alpha)
        Assembly.__init__(self, layers, shape, support=pixels, **shared)

    def _layers(self, dtype: DTypeLike, rng: np.random.Generator) -> list[Layer]:
        """The scales one after the other."""
        layers: list[Layer] = []
        height, width, channels = self.image_shape
        network = {**self._network_arguments, "dtype": dtype}
        for scale in range(self.num_scales):
            layers.append(Squeeze(channels, image_size=(height, width), dtype=dtype))
            height, width, channels = height // 2, width // 2, 4 * channels
            layers += [
                GlowBlock(
                    channels,
                    self.hidden_dims,
                    self.network,
                    coupling=self.coupling,
                    scale_activation=self.scale_activation,
                    actnorm=self.actnorm,
                    parameterization=self.parameterization,
                    image_size=(height, width),
                    rng=rng,
                    **network,
                )
                for _ in range(self.blocks_per_scale)
            ]
            if scale < self.num_scales - 1:
                split = {"condition_dim": network["condition_dim"], "dtype": dtype}
                layers.append(Split(channels, self.split_prior, image_size=(height, width), **split))
                channels //= 2
        return self._with_tails(layers, math.prod(self.image_shape), dtype)

    def interpolate(
        self, image_a: ArrayLike, image_b: ArrayLike, steps: int = 8, *, condition: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """Images on the straight line between the latent values of two images, both included.

        Parameters
        ----------
        image_a, image_b : array_like (height, width, channels)
        steps : int
            Images, at least 2.
        condition : array_like, optional
            One for all images.

        Returns
        -------
        ndarray (steps, height, width, channels)
        """
        n = as_int(steps, "steps", 2)
        self.conditioning.finite_rows(condition, n, "interpolate")
        ends = [
            self.preprocessing.rows(image, self.input_shape, name)
            for image, name in ((image_a, "image_a"), (image_b, "image_b"))
        ]
        if not all(single for _, single in ends):
            raise ValueError(f"interpolate takes one image and another, each of shape {self.input_shape}")
        z, _ = self.forward(np.concatenate([rows for rows, _ in ends]), condition)
        share = np.linspace(0.0, 1.0, n)[:, None]
        first, last = z.reshape(2, -1)
        images, _ = self.inverse((1 - share) * first + share * last, condition)
        return images
