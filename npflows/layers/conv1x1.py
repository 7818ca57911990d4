"""Invertible 1x1 convolutions: one matrix that mixes the channels of every pixel (Kingma and Dhariwal 2018,
arXiv:1807.03039, section 3.2)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike, NDArray

from npflows.core import operations
from npflows.core.checks import SeedLike, as_choice, as_int, as_rng
from npflows.core.factors import lu, qr
from npflows.core.operations import PARAMETERIZATIONS
from npflows.core.parameters import Parameter
from npflows.layers.image import ImageLayer, as_image_size


class InvertibleConv1x1(ImageLayer):
    """y = W x for the channels x of every pixel, with log_det = height * width * log |det W|.

    W starts as a random orthogonal matrix, from a QR decomposition.  With "plu", W = P L U with a unit lower and an upper
    triangular factor (Kingma and Dhariwal 2018, arXiv:1807.03039, equation 11), and is never singular: the diagonal of U is
    kept positive by its logarithm, log |det W| is the sum of these, and the inverse takes two triangular solves.  The rows
    of the orthogonal matrix are put in such an order, with such signs, that P is the unit matrix.  With "full", the entries
    of W are the parameters.

    Parameters
    ----------
    num_channels : int
        Columns of the samples, or channels of images (n, height, width, num_channels).
    parameterization : {"plu", "full"}
    image_size : (int, int), optional
        Height and width of the images; see `ImageLayer`.
    dtype : {"float32", "float64"}
        The compute dtype.
    rng : int, numpy.random.Generator or None
        Draws the orthogonal matrix.
    """

    def __init__(
        self,
        num_channels: int,
        parameterization: str = "plu",
        *,
        image_size: tuple[int, int] | None = None,
        dtype: DTypeLike = "float32",
        rng: SeedLike = None,
    ) -> None:
        n = self.num_channels = as_int(num_channels, "num_channels")
        self.parameterization = as_choice(parameterization, "parameterization", PARAMETERIZATIONS)
        self.image_size = as_image_size(image_size)
        matrix = first_matrix(n, as_rng(rng), factors=self.parameterization == "plu")
        dim = math.prod(self.sample_shape)
        super().__init__(
            dim,
            [Parameter("matrix", matrix)],
            dtype=dtype,
        )

    def operation(self) -> operations.Conv1x1:
        return operations.Conv1x1(self.input_dim, self.num_channels, self.parameterization)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """W (num_channels, num_channels)."""
        values = self.parameters.views()["matrix"].astype(np.float64)
        if self.parameterization == "full":
            return values
        lower = np.tril(values, -1) + np.eye(len(values))
        return lower @ (np.triu(values, 1) + np.diag(np.exp(np.diag(values))))


def first_matrix(n: int, rng: np.random.Generator, *, factors: bool) -> NDArray[np.float64]:
    """A random orthogonal matrix, or its factors L and U in one, with the logarithm of U's diagonal."""
    normal = rng.standard_normal((n, n))
    orthogonal = qr(normal) if normal.any() else np.eye(n)
    permutation, lower, upper = lu(orthogonal)
    signs = np.sign(np.diag(upper))
    if not factors:
        return signs[:, None] * (permutation.T @ orthogonal)
    lower = signs[:, None] * lower * signs
    return np.tril(lower, -1) + np.triu(signs[:, None] * upper, 1) + np.diag(np.log(np.abs(np.diag(upper))))
