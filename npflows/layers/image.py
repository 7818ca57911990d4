"""Layers of images: made for a number of channels, they serve images of any height and width."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.core.backend import Cotangents
from npflows.core.checks import as_numeric
from npflows.layers.layer import Layer


def as_image_size(value: Any) -> tuple[int, int] | None:
    """(height, width), or None."""
    if value is None:
        return None
    ok = isinstance(value, (tuple, list)) and len(value) == 2
    if not ok or any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1 for n in value):
        raise ValueError(f"image_size must be (height, width), two whole numbers of at least 1, got {value!r}")
    return int(value[0]), int(value[1])


def shape_of(image_size: tuple[int, int] | None, num_channels: int) -> tuple[int, ...]:
    """The shape of a sample: (height, width, channels), or (channels,) where there is no size."""
    return (num_channels,) if image_size is None else (*image_size, num_channels)


class ImageLayer(Layer, abstract=True):
    """A layer of images (height, width, num_channels) whose parameters do not depend on height and width.

    With `image_size` it is made for one height and width; without, it takes vectors (n, num_channels), and alone also
    images (n, height, width, num_channels) of any size.  A flow makes it for the size that it has there.  A subclass keeps
    `num_channels` and `image_size` among its constructor's arguments.
    """

    num_channels: int
    image_size: tuple[int, int] | None
    _sized: dict[tuple[int, ...], ImageLayer] | None = None

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return shape_of(self.image_size, self.num_channels)

    def for_shape(self, shape: tuple[int, ...]) -> Layer:
        if self.image_size is not None or len(shape) != 3 or shape[2] != self.num_channels:
            return super().for_shape(shape)
        if self._sized is None:
            self._sized = {}
        if shape not in self._sized:
            arguments: dict[str, Any] = {name: getattr(self, name) for name in self.arguments}
            options = {"rng": 0} if self._draws else {}
            sized = type(self)(**{**arguments, "image_size": shape[:2], **options})
            if sized.theta_size != self.theta_size:
                raise ValueError(f"needs image_size={shape[:2]} to take images {shape}, as its parameters depend on it")
            sized.share(self)
            self._sized[shape] = sized
        return self._sized[shape]

    _draws = True
    """Whether the constructor takes a generator."""

    def _for(self, x: ArrayLike, inverse: bool) -> Layer:
        """The layer for samples like x."""
        if self.image_size is not None:
            return self
        name = "y" if inverse else "x"
        given = as_numeric(x, name).shape
        if len(given) < 3:
            return self
        channels = self.result_channels if inverse else self.num_channels
        if given[-1] != channels:
            raise ValueError(f"{name} must be images (n, height, width, {channels}), got {given}")
        try:
            return self.for_shape(self.input_shape_of(given[-3:]) if inverse else given[-3:])
        except ValueError as error:
            raise ValueError(f"{type(self).__name__} {error}") from None

    def initialize(self, x: ArrayLike, sample_weight: ArrayLike | None = None, condition: ArrayLike | None = None) -> None:
        """Set what starts from data, from rows or images x that enter the layer; see `ActNormLayer.initialize`."""
        layer = self._for(x, False)
        if layer is self:
            super().initialize(x, sample_weight, condition)
        else:
            layer.initialize(x, sample_weight, condition)
            self.initialized = layer.initialized

    @property
    def result_channels(self) -> int:
        """Channels of images on the latent side."""
        return self.num_channels

    def input_shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of samples on the data side, from that on the latent side."""
        return shape

    def _transport(
        self, x: ArrayLike, condition: ArrayLike | None, inverse: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        layer = self._for(x, inverse)
        return super()._transport(x, condition, inverse) if layer is self else layer._transport(x, condition, inverse)

    def _pullback(
        self, x: ArrayLike, dy: ArrayLike, dlog_det: ArrayLike, condition: ArrayLike | None, inverse: bool
    ) -> Cotangents:
        layer = self._for(x, inverse)
        if layer is self:
            return super()._pullback(x, dy, dlog_det, condition, inverse)
        return layer._pullback(x, dy, dlog_det, condition, inverse)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_sized": None}
