"""RealNVP: affine couplings with alternating masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from npflows.base.base import Base
from npflows.core.checks import as_choice, as_dtype, as_int, as_shape, as_widths
from npflows.core.operations import SCALE_ACTIVATIONS
from npflows.flow import NormalizingFlow
from npflows.layers.actnorm import normalized
from npflows.layers.coupling import NETWORKS, CouplingLayer
from npflows.networks.embedding import embedding_of
from npflows.networks.options import network_options

MASK_TYPES = ("checkerboard", "channel-wise", "half")


def coupling_mask(shape: tuple[int, ...], mask_type: str) -> np.ndarray:
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


class RealNVP(NormalizingFlow):
    """Affine coupling flow: fast in both directions (Dinh et al. 2017, arXiv:1605.08803).

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
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}
    residual_blocks : int
        Where above 0, each network has so many residual blocks of the one width in `hidden_dims` instead of plain layers.
    dropout : float
        Share of hidden values that are set to 0 in training only, at least 0 and below 1.
    network : {"dense", "conv"}
        conv, for images: each coupling's network is a 3x3 convolution, 1x1 ones for all further `hidden_dims`, and a 3x3
        one, with activation normalisation where `actnorm` is set.
    actnorm : bool
        Whether an `ActNormLayer`, set from the data by `fit`, comes before each coupling: of each value, or with
        convolutions of each channel.
    base_distribution : {"normal", "uniform", "student_t"} or Base
    condition_dim : int
        Width of the condition that every layer sees, standardised; 0 for none.
    embedding_dims : sequence of int
        Where given, a dense network with these hidden units, the last its output, is trained between the condition and
        the layers.
    support : sequence or mapping of npflows.support columns, optional
        Where each column lives; see `NormalizingFlow`.
    columns : sequence of str, optional
        Names of the columns.
    dtype : {"float32", "float64"}
        The compute dtype.
    rng : int, numpy.random.Generator or None
        Draws the first weights.  The flow starts as the identity.
    """

    parameter_aliases: ClassVar[dict[str, str]] = {"num_layers": "num_coupling_layers"}

    def __init__(
        self,
        input_dim: int | Sequence[int],
        num_coupling_layers: int = 8,
        hidden_dims: Sequence[int] = (128, 128),
        mask_type: str = "checkerboard",
        *,
        scale_activation: str = "tanh_gain",
        activation: str = "relu",
        residual_blocks: int = 0,
        dropout: float = 0.0,
        network: str = "dense",
        actnorm: bool = False,
        base_distribution: str | Base = "normal",
        condition_dim: int = 0,
        embedding_dims: Sequence[int] = (),
        support: object = None,
        columns: Sequence[str] | None = None,
        dtype: object = "float32",
        rng: object = None,
    ) -> None:
        shape = as_shape(input_dim, "input_dim")
        self.embedding_dims = as_widths(embedding_dims, "embedding_dims")
        self.num_coupling_layers = as_int(num_coupling_layers, "num_coupling_layers")
        self.hidden_dims = as_widths(hidden_dims)
        self.mask_type = as_choice(mask_type, "mask_type", MASK_TYPES)
        self.scale_activation = as_choice(scale_activation, "scale_activation", SCALE_ACTIVATIONS)
        self.base_distribution, self.actnorm = base_distribution, bool(actnorm)
        mask = coupling_mask(shape, self.mask_type)
        options = network_options(self, activation, residual_blocks, dropout, condition_dim, rng, embedding_dims)
        if mask.all() or not mask.any():
            raise ValueError(
                f"RealNVP with mask_type={self.mask_type!r} can't split input_dim={input_dim!r}: a coupling needs values "
                f"on both sides; for one column use MAF"
            )
        self.network = as_choice(network, "network", NETWORKS)
        if self.network == "conv" and len(shape) != 3:
            raise ValueError(f"network='conv' needs input_dim=(height, width, channels), got {input_dim!r}")
        if self.network == "conv":
            options |= {"network": "conv", "actnorm": self.actnorm, "image_shape": shape}
        layers = [
            CouplingLayer(1 - mask if i % 2 else mask, self.hidden_dims, self.scale_activation, dtype=dtype, **options)
            for i in range(self.num_coupling_layers)
        ]  # fmt: skip
        if self.actnorm:
            layers = normalized(layers, shape if self.network == "conv" else None)
        self._assemble(layers, shape, base_distribution, as_dtype(dtype),
                       embedding_of(self, condition_dim, options, as_dtype(dtype)), support=support,
                       columns=columns)  # fmt: skip

    @property
    def arguments(self) -> dict:
        shape = self.input_shape
        return {**super().arguments, "input_dim": shape[0] if len(shape) == 1 else list(shape)}
