"""Masked autoregressive layers: the map of each value is conditioned on those before it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from npflows.core import operations
from npflows.core.checks import as_choice, as_dtype, as_int, as_order, as_widths
from npflows.core.operations import SCALE_ACTIVATIONS
from npflows.core.parameters import prefixed
from npflows.layers.layer import Layer
from npflows.networks import mlp
from npflows.networks.made import masked, warn_of_lost_dependence
from npflows.networks.options import network_options
from npflows.transformers.scalar_maps import first_parameters


class Autoregressive(Layer, abstract=True):
    """A masked autoregressive layer of any scalar map; `MAFLayer` and `IAFLayer` are the affine ones.

    `forward` takes the direction in which the network's input is known, unless `inverted`.  Values that the network takes
    for circular, in their order, are on circles: the interval [-bound, bound] whose ends are the same point.
    """

    def __init__(
        self,
        order: NDArray[np.int64],
        network: operations.Made,
        transformer: operations.Affine | operations.Spline,
        dtype: object,
        *,
        rng: np.random.Generator,
        inverted: bool = False,
        bound: float = 1.0,
    ) -> None:
        self.order = order
        self._operation = operations.Autoregressive(tuple(order.tolist()), network, transformer, inverted, bound)
        first = prefixed("network.", mlp.first_parameters(network, rng))
        super().__init__(len(order), [*first, *first_parameters(transformer, len(order))],
                         condition_dim=network.condition_dim, dtype=dtype)  # fmt: skip

    def operation(self) -> operations.Autoregressive:
        return self._operation


class _AffineAutoregressive(Autoregressive):
    _inverted: bool

    def __init__(
        self,
        input_dim: int,
        hidden_dims: Sequence[int] = (128, 128),
        order: object = None,
        scale_activation: str = "tanh_gain",
        *,
        activation: str = "relu",
        residual_blocks: int = 0,
        dropout: float = 0.0,
        condition_dim: int = 0,
        dtype: object = "float32",
        rng: object = None,
    ) -> None:
        n = as_int(input_dim, "input_dim")
        self.hidden_dims = as_widths(hidden_dims)
        order = np.arange(n) if order is None else as_order(order, n)
        self.scale_activation = as_choice(scale_activation, "scale_activation", SCALE_ACTIVATIONS)
        transformer = operations.Affine(self.scale_activation, shift_first=not self._inverted)
        options = network_options(self, activation, residual_blocks, dropout, condition_dim, rng)
        generator = options.pop("rng")
        network = masked(n, self.hidden_dims, transformer.multiplier, **options)
        warn_of_lost_dependence(network, order)
        super().__init__(order, network, transformer, as_dtype(dtype), rng=generator, inverted=self._inverted)


class MAFLayer(_AffineAutoregressive):
    """Masked autoregressive layer: z = (x - mu(x)) * exp(-log_scale(x)).

    mu and log_scale of a value depend on the values before it in the order (Papamakarios et al. 2017, arXiv:1705.07057,
    equations 3 and 4).  `inverse` and its gradient take one pass too.

    Parameters
    ----------
    input_dim : int
        Number of features, at least 1.
    hidden_dims : sequence of int
        Units of the masked network's hidden layers; input_dim - 1 or more in each, or a warning says what is lost.
    order : array_like of int, optional
        order[k] is the feature that comes k-th; 0, 1, 2, ... by default.
    scale_activation : {"tanh_gain", "tanh", "none"}
        How log_scale is bounded, so that a network that extrapolates gives no absurd density; see `CouplingLayer`.
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}
    residual_blocks : int
        Where above 0, each network has so many residual blocks of the one width in `hidden_dims` instead of plain layers.
    dropout : float
        Share of hidden values that are set to 0 in training only, at least 0 and below 1.
    condition_dim : int
        Width of a condition that every feature depends on.
    dtype : {"float32", "float64"}
        The compute dtype.
    rng : int, numpy.random.Generator or None
        Draws the network's first weights.  The layer starts as the identity.
    """

    _inverted = False


class IAFLayer(_AffineAutoregressive):
    """Inverse autoregressive layer: x = z * exp(log_scale(z)) + mu(z).

    mu and log_scale of a value depend on the latent values before it (Kingma et al. 2016, arXiv:1606.04934, equations 10
    to 12).  `forward`, data to latent, is the sequential direction; it and its gradient take one pass too.

    Parameters
    ----------
    input_dim, hidden_dims, order, scale_activation, activation, residual_blocks, dropout, condition_dim, dtype, rng
        As in `MAFLayer`.
    """

    _inverted = True
