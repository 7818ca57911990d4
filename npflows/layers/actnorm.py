"""Activation normalization (Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.core import operations
from npflows.core.checks import as_condition, as_int, as_rows, as_weights
from npflows.core.parameters import Parameter
from npflows.layers.image import ImageLayer, as_image_size
from npflows.layers.layer import Layer
from npflows.networks.convnet import normalization


class ActNormLayer(ImageLayer):
    """y = (x + bias) exp(logs) with a bias and a scale for each channel, set from data once, then trained.

    It is the identity until `initialize` has set it so that its output has mean 0 and variance 1 in each channel.  `fit`
    does that once, for all such layers of a flow that are not initialized; a loaded flow stays as it was saved.

    Parameters
    ----------
    num_channels : int
        Columns of the samples, or channels of images (n, height, width, num_channels).
    image_size : (int, int), optional
        Height and width of the images; see `ImageLayer`.
    dtype : {"float32", "float64"}
        The compute dtype.

    Attributes
    ----------
    initialized : bool
        Whether `initialize` has been called, so that `fit` leaves the parameters what they are.
    """

    _draws = False

    def __init__(
        self, num_channels: int, *, image_size: tuple[int, int] | None = None, dtype: DTypeLike = "float32"
    ) -> None:  # fmt: skip
        n = self.num_channels = as_int(num_channels, "num_channels")
        self.image_size = as_image_size(image_size)
        self.initialized = False
        dim = math.prod(self.sample_shape)
        parameters = [Parameter("logs", np.zeros(n)), Parameter("bias", np.zeros(n))]
        super().__init__(dim, parameters, dtype=dtype)

    def keep_circles(self, circles: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Bias and scale act on the other values alone; those of circles are fixed at 0 and 1."""
        if self.image_size is not None:
            return super().keep_circles(circles)
        self._fix_at_zero({"bias": circles, "logs": circles})
        return circles

    def operation(self) -> operations.ActNorm:
        return operations.ActNorm(self.input_dim, self.num_channels)

    def initialize(self, x: ArrayLike, sample_weight: ArrayLike | None = None, condition: ArrayLike | None = None) -> None:
        """Set bias and scale so that the output at x has mean 0 and variance 1 in each channel.

        Parameters
        ----------
        x : array_like (n, num_channels) or (n, height, width, num_channels)
            Finite values that enter the layer, at least one row.  A channel that is constant keeps its scale; where a few
            values would decide mean and variance, they are those of the others.
        sample_weight : array_like (n,), optional
        condition : None
            The layer takes none.

        Raises
        ------
        ValueError
            If x is empty, or not finite, or a shape does not fit.
        """
        shape = self._for(x, False).sample_shape
        rows, weight, _ = initial_rows(self, shape, x, sample_weight, condition)
        values = np.moveaxis(rows.reshape(len(rows), -1, self.num_channels), 2, 1)
        for first, (name, view) in zip(normalization(values, weight, self.dtype)[::-1], self.parameters.views().items()):
            np.copyto(view, first, where=self.parameters.views(self.parameters.free)[name])
        self.initialized = True


def initial_rows(
    layer: Layer, shape: tuple[int, ...], x: ArrayLike, sample_weight: ArrayLike | None, condition: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Rows (n, d), weights and conditions from which a layer is set, checked."""
    rows, _ = as_rows(x, shape, "x")
    rows = rows.astype(np.float64)
    if not len(rows) or not np.isfinite(rows).all():
        raise ValueError(f"{type(layer).__name__}.initialize needs at least one row, and finite values only")
    return rows, as_weights(sample_weight, len(rows)), as_condition(condition, len(rows), layer.condition_dim)


def normalized(layers: Sequence[Layer], image_shape: tuple[int, ...] | None = None) -> list[Layer]:
    """The layers, each with an ActNormLayer before it: of the channels of images (height, width, channels), or of every
    value."""

    def before(layer: Layer) -> Layer:
        if image_shape is None:
            return ActNormLayer(layer.input_dim, dtype=layer.dtype)
        height, width, channels = image_shape
        return ActNormLayer(channels, image_size=(height, width), dtype=layer.dtype)

    return [part for layer in layers for part in (before(layer), layer)]
