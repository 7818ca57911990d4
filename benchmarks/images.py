"""Flows of images, and their layers."""

from __future__ import annotations

import numpy as np

import npflows

from .common import DTYPES, GLOW, SMALL_GLOW, TrainStep, few, make_data, make_glow, perturbed
from .layers import METHODS, prepared

SIZES = {"4x4x4, width 16": ((4, 4), 4, (16, 16)), "16x16x12, width 64": ((16, 16), 12, (64, 64))}
"""Size of the images, channels, channels of the hidden convolutions."""
LAYERS = {
    "ActNormLayer": lambda channels, hidden, rng, **options: npflows.ActNormLayer(channels, **options),
    "InvertibleConv1x1": lambda channels, hidden, **options: npflows.InvertibleConv1x1(channels, **options),
    "AffineCouplingLayer": npflows.AffineCouplingLayer,
    "GlowBlock": npflows.GlowBlock,
    "Squeeze": lambda channels, hidden, rng, **options: npflows.Squeeze(channels, **options),
    "Split": lambda channels, hidden, rng, **options: npflows.Split(channels, **options),
}
GLOW_SIZES = few(SMALL_GLOW, GLOW)


class ImageLayers:
    """A layer's forward, inverse and their gradients, with respect to images and parameters."""

    params = (list(LAYERS), METHODS, few(*SIZES), few(32), few(*DTYPES))
    param_names = ("layer", "method", "size", "batch", "dtype")
    timeout = 300

    def setup(self, layer: str, method: str, size: str, batch: int, dtype: str) -> None:
        image_size, channels, hidden = SIZES[size]
        made = perturbed(LAYERS[layer](channels, hidden, image_size=image_size, dtype=dtype, rng=0))
        self.call = prepared(made, method, make_data(batch, channels * image_size[0] * image_size[1]))

    def time_call(self, layer: str, method: str, size: str, batch: int, dtype: str) -> None:
        self.call()


class GlowLogProb:
    """log_prob of a batch of images."""

    params = (GLOW_SIZES, few(32), few(*DTYPES))
    param_names = ("size", "batch", "dtype")
    timeout = 300

    def setup(self, size: str, batch: int, dtype: str) -> None:
        self.flow = make_glow(size, dtype)
        self.x = make_data(batch, self.flow.latent_dim)
        self.flow.log_prob(self.x)

    def time_log_prob(self, size: str, batch: int, dtype: str) -> None:
        self.flow.log_prob(self.x)


class GlowSample:
    """Drawing images."""

    params, param_names, timeout = GlowLogProb.params, GlowLogProb.param_names, 300

    def setup(self, size: str, batch: int, dtype: str) -> None:
        self.flow, self.rng = make_glow(size, dtype), np.random.default_rng(0)
        self.flow.sample(batch, rng=self.rng)

    def time_sample(self, size: str, batch: int, dtype: str) -> None:
        self.flow.sample(batch, rng=self.rng)


class GlowTrain:
    """A train step as `fit` takes it: gather, loss, gradient, clip, Adam."""

    params, param_names, timeout = GlowLogProb.params, GlowLogProb.param_names, 300

    def setup(self, size: str, batch: int, dtype: str) -> None:
        self.step = TrainStep(make_glow(size, dtype), batch, n_batches=4)
        self.step()

    def time_step(self, size: str, batch: int, dtype: str) -> None:
        self.step()
