"""Glow: a multi-scale flow of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from npflows.base import Base, Normal
from npflows.core.checks import as_choice, as_dtype, as_int, as_rows, as_shape, as_widths
from npflows.core.operations import PARAMETERIZATIONS, SCALE_ACTIVATIONS
from npflows.flow import NormalizingFlow
from npflows.layers.coupling import NETWORKS
from npflows.layers.glow import COUPLINGS, GlowBlock
from npflows.layers.layer import Layer
from npflows.layers.multiscale import SPLIT_PRIORS, Split, Squeeze
from npflows.networks.embedding import embedding_of
from npflows.networks.options import network_options
from npflows.support.pixels import Pixels, as_alpha, as_levels


class Glow(NormalizingFlow):
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
        Where given, images are whole numbers 0, 1, ..., levels - 1: dequantised by uniform noise in training; `log_prob`
        is the logarithm of the mass of an image's cell, estimated with `draws=` points; samples are whole numbers too.  By
        default images are real-valued.
    alpha : float, optional
        With levels: a value x goes into the flow as logit(alpha + (1 - 2 alpha) x / levels), 0.05 for instance (Dinh et al.
        2017, arXiv:1605.08803, section 4.1); by default as it is.
    split_prior : {"learned", "standard"}
        Density of what is left behind: a normal one whose mean and scale depend on what goes on, with a normal base whose
        mean and scale of each latent value are learnt too; or the base distribution alone.
    network : {"conv", "dense"}
    coupling : {"affine", "additive"}
    scale_activation : {"tanh_gain", "tanh", "sigmoid", "none"}
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}
    actnorm : bool
        Whether activation normalisation follows each hidden convolution; see `AffineCouplingLayer` for these five.
    parameterization : {"plu", "full"}
        See `InvertibleConv1x1`.
    base_distribution : {"normal", "uniform", "student_t"} or Base
    condition_dim : int
        Width of the condition that every coupling and learned prior sees, standardised; 0 for none.
    embedding_dims : sequence of int
        Where given, a dense network with these hidden units, the last its output, is trained between the condition and
        the layers.
    dtype : {"float32", "float64"}
        The compute dtype.
    rng : int, numpy.random.Generator or None
        Draws the 1x1 convolutions and the first weights.

    Raises
    ------
    ValueError
        If height or width do not divide, or another argument does not fit.
    """

    parameter_aliases: ClassVar[dict[str, str]] = {"input_dim": "image_shape"}

    def __init__(
        self,
        image_shape: Sequence[int] = (32, 32, 3),
        num_scales: int = 3,
        blocks_per_scale: int = 6,
        hidden_dims: Sequence[int] = (512, 512),
        *,
        levels: int | None = None,
        alpha: float | None = None,
        split_prior: str = "learned",
        network: str = "conv",
        coupling: str = "affine",
        scale_activation: str = "tanh_gain",
        activation: str = "relu",
        actnorm: bool = True,
        parameterization: str = "plu",
        base_distribution: str | Base = "normal",
        condition_dim: int = 0,
        embedding_dims: Sequence[int] = (),
        dtype: object = "float32",
        rng: object = None,
    ) -> None:
        shape = as_shape(image_shape, "image_shape")
        self.num_scales = as_int(num_scales, "num_scales")
        self.blocks_per_scale = as_int(blocks_per_scale, "blocks_per_scale")
        self.hidden_dims = as_widths(hidden_dims)
        self.embedding_dims = as_widths(embedding_dims, "embedding_dims")
        self.levels, self.alpha = as_levels(levels), as_alpha(alpha, levels)
        self.split_prior = as_choice(split_prior, "split_prior", SPLIT_PRIORS)
        self.network, self.coupling = as_choice(network, "network", NETWORKS), as_choice(coupling, "coupling", COUPLINGS)
        self.scale_activation = as_choice(scale_activation, "scale_activation", SCALE_ACTIVATIONS)
        self.parameterization = as_choice(parameterization, "parameterization", PARAMETERIZATIONS)
        self.actnorm, self.base_distribution = bool(actnorm), base_distribution
        if len(shape) != 3:
            raise ValueError(f"image_shape must be (height, width, channels), got {image_shape!r}")
        factor = 2**self.num_scales
        if shape[0] % factor or shape[1] % factor:
            raise ValueError(
                f"image_shape={tuple(shape)}: height and width must be divisible by 2**num_scales = {factor}; pad the "
                f"images or take fewer scales"
            )
        self.image_shape = shape
        options = network_options(self, activation, 0, 0.0, condition_dim, rng, embedding_dims)
        inner = {"condition_dim": options["condition_dim"], "dtype": dtype}
        layers: list[Layer] = []
        (height, width), channels = shape[:2], shape[2]
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
                    activation=self.activation,
                    actnorm=self.actnorm,
                    parameterization=self.parameterization,
                    image_size=(height, width),
                    rng=options["rng"],
                    **inner,
                )
                for _ in range(self.blocks_per_scale)
            ]
            if scale < self.num_scales - 1:
                layers.append(Split(channels, self.split_prior, image_size=(height, width), **inner))
                channels //= 2
        base = base_distribution
        if self.split_prior == "learned" and base == "normal":
            base = Normal(math.prod(shape), learnable=True, dtype=dtype)
        pixels = None if self.levels is None else Pixels(math.prod(shape), self.levels, self.alpha)
        self._assemble(layers, shape, base, as_dtype(dtype),
                       embedding_of(self, condition_dim, options, as_dtype(dtype)), pixels=pixels)  # fmt: skip

    def interpolate(self, image_a: object, image_b: object, steps: int = 8, *, condition: object = None) -> np.ndarray:
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
        ends = [as_rows(image, self.input_shape, name) for image, name in ((image_a, "image_a"), (image_b, "image_b"))]
        if not all(single for _, single in ends):
            raise ValueError(f"interpolate takes one image and another, each of shape {self.input_shape}")
        z, _ = self.forward(np.concatenate([rows for rows, _ in ends]), condition)
        share = np.linspace(0.0, 1.0, n)[:, None]
        first, last = z.reshape(2, -1)
        images, _ = self.inverse((1 - share) * first + share * last, condition)
        return images
