"""Squeeze and split: what makes a flow of images multi-scale (Dinh et al. 2017, arXiv:1605.08803, sections 3.6 and 3.7)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from npflows.core import operations
from npflows.core.checks import as_choice, as_int
from npflows.layers.chain import Chain
from npflows.layers.coupling import CouplingLayer
from npflows.layers.image import ImageLayer, as_image_size
from npflows.layers.layer import Layer

SPLIT_PRIORS = ("learned", "standard")


class Rearrangement(ImageLayer, abstract=True):
    """A fixed permutation of the values of an image, which follows from its shape."""

    _draws = False

    def __init__(self, num_channels: int, *, image_size: Sequence[int] | None = None, dtype: DTypeLike = "float32") -> None:
        self.num_channels, self.image_size = as_int(num_channels, "num_channels"), as_image_size(image_size)
        self.order = self._order(self.sample_shape)
        super().__init__(self.order.size, [], dtype=dtype)

    def _order(self, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """order[k] is the value that comes k-th."""
        raise NotImplementedError

    def operation(self) -> operations.Permutation:
        return operations.Permutation(tuple(self.order.tolist()))


class Squeeze(Rearrangement):
    """Images (n, height, width, channels) to (n, height / 2, width / 2, 4 channels), with log_det 0.

    Channel 4 c + 2 dy + dx of a pixel is channel c of the pixel at row dy and column dx of a 2 x 2 patch.

    Parameters
    ----------
    num_channels : int
    image_size : (int, int), optional
        Height and width of the images, even numbers; see `ImageLayer`.
    dtype : {"float32", "float64"}
    """

    def _order(self, shape: tuple[int, ...]) -> NDArray[np.int64]:
        if len(shape) == 1:
            return np.arange(shape[0])
        height, width, channels = shape
        if height % 2 or width % 2:
            raise ValueError(f"needs images of even height and width, got {height} x {width}")
        index = np.arange(height * width * channels).reshape(height // 2, 2, width // 2, 2, channels)
        return index.transpose(0, 2, 4, 1, 3).ravel()

    @property
    def result_shape(self) -> tuple[int, ...]:
        if self.image_size is None:
            return (self.num_channels,)
        return (self.image_size[0] // 2, self.image_size[1] // 2, 4 * self.num_channels)

    @property
    def result_channels(self) -> int:
        return 4 * self.num_channels

    def input_shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2 * shape[0], 2 * shape[1], shape[2] // 4)


class _FirstChannels(Rearrangement):
    """The first half of the channels of all pixels before the second half."""

    def _order(self, shape: tuple[int, ...]) -> NDArray[np.int64]:
        index = np.arange(np.prod(shape)).reshape(-1, shape[-1])
        half = shape[-1] // 2
        return np.concatenate([index[:, :half].ravel(), index[:, half:].ravel()])

    @property
    def result_shape(self) -> tuple[int, ...]:
        return (self.order.size,)


class Split(ImageLayer, Chain):
    """Leave half of the channels behind; the first half goes on to the next layers of a flow.

    The values of a result are the first half of the channels, pixel by pixel, then the second half.  With
    `split_prior="learned"` the second half is standardized by a mean and a scale that one convolution gives from the first
    half, which is a normal density of what is left behind, given what goes on (Kingma and Dhariwal 2018, arXiv:1807.03039,
    and its code); it starts as the standard normal, and its scale is bounded: one that is linear in what goes on explodes
    far out.

    Parameters
    ----------
    num_channels : int
        Channels of the images, an even number.
    split_prior : {"learned", "standard"}
    image_size : (int, int), optional
        Height and width of the images; see `ImageLayer`.
    condition_dim : int
        Width of a condition that the learned mean and scale depend on too.
    dtype : {"float32", "float64"}
    """

    _draws = False

    def __init__(
        self,
        num_channels: int,
        split_prior: str = "learned",
        *,
        image_size: tuple[int, int] | None = None,
        condition_dim: int = 0,
        dtype: DTypeLike = "float32",
    ) -> None:
        self.num_channels = as_int(num_channels, "num_channels")
        self.image_size = as_image_size(image_size)
        self.split_prior = as_choice(split_prior, "split_prior", SPLIT_PRIORS)
        width = as_int(condition_dim, "condition_dim", 0)
        if self.num_channels % 2:
            raise ValueError(f"Split needs an even number of channels, got {self.num_channels}")
        parts: list[Layer] = [_FirstChannels(self.num_channels, image_size=self.image_size, dtype=dtype)]
        if self.split_prior == "learned":
            mask = np.zeros((*(self.image_size or (1, 1)), self.num_channels), int)
            mask[..., : self.num_channels // 2] = 1
            prior = CouplingLayer(
                mask, (), "tanh_gain", network="conv", shift_first=True, condition_dim=width, dtype=dtype, rng=0
            )  # fmt: skip
            parts = [prior, *parts]
        Chain.__init__(self, parts, ["prior", "order"][-len(parts) :])

    @property
    def onward_shape(self) -> tuple[int, ...]:
        half = self.num_channels // 2
        return (half,) if self.image_size is None else (*self.image_size, half)
