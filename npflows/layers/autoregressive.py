"""Masked autoregressive layers: the map of each value is conditioned on those before it."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from npflows.core import operations
from npflows.core.checks import SeedLike, as_choice, as_rng
from npflows.core.operations import SCALE_ACTIVATIONS
from npflows.core.parameters import prefixed
from npflows.layers.layer import Layer
from npflows.networks import mlp
from npflows.networks.made import masked, warn_of_lost_dependence
from npflows.networks.options import MaskedOptions
from npflows.transformers.scalar_maps import as_min_scale, first_parameters


class Autoregressive(Layer, abstract=True):
    """A masked autoregressive layer of any scalar map; `MAFLayer` and `IAFLayer` are the affine ones.

    `forward` is the direction in which the network's input is known, or the other one if `inverted`.  A value whose feature
    has two rows in the network, cosine and sine, is on a circle: the interval [-bound, bound], whose ends are one point.
    """

    def __init__(
        self,
        order: NDArray[np.int64],
        network: operations.Made,
        transformer: operations.Affine | operations.Spline,
        dtype: DTypeLike,
        *,
        rng: np.random.Generator,
        inverted: bool = False,
        bound: float = 1.0,
    ) -> None:
        self._operation = operations.Autoregressive(tuple(order.tolist()), network, transformer, inverted, bound)
        first = prefixed("network.", mlp.first_parameters(network, rng))
        super().__init__(len(order), [*first, *first_parameters(transformer, len(order))],
                         condition_dim=network.condition_dim, dtype=dtype)  # fmt: skip

    def operation(self) -> operations.Autoregressive:
        return self._operation


@dataclass(repr=False, eq=False)
class MaskedLayer(Autoregressive, MaskedOptions, abstract=True):
    """An autoregressive layer with a masked network of given hidden layers.

    Parameters
    ----------
    input_dim, hidden_dims, order
        See `npflows.networks.options.MaskedOptions`.
    activation, condition_dim, dtype, rng
        See `npflows.networks.options.NetworkOptions`.
    residual_blocks, dropout
        See `npflows.networks.options.DenseOptions`.
    """

    def _network(self, multiplier: int, circular: NDArray[np.bool_] | None = None) -> operations.Made:
        """The network with `multiplier` outputs for each feature."""
        network = masked(self.input_dim, self.hidden_dims, multiplier, circular=circular, **self._network_arguments)
        warn_of_lost_dependence(network, np.asarray(self.order))
        return network


@dataclass(repr=False, eq=False)
class _AffineAutoregressive(MaskedLayer):
    scale_activation: str = "tanh_gain"
    _: KW_ONLY
    shift_first: bool | None = None
    min_scale: float = 0.0
    _inverted: ClassVar[bool]

    def __post_init__(self, dtype: DTypeLike, rng: SeedLike) -> None:
        super().__post_init__()
        self.scale_activation = as_choice(self.scale_activation, "scale_activation", SCALE_ACTIVATIONS)
        self.shift_first = not self._inverted if self.shift_first is None else bool(self.shift_first)
        self.min_scale = as_min_scale(self.min_scale, self.scale_activation)
        transformer = operations.Affine(self.scale_activation, shift_first=self.shift_first, least=self.min_scale)
        network = self._network(transformer.multiplier)
        Autoregressive.__init__(
            self, np.asarray(self.order), network, transformer, dtype, rng=as_rng(rng), inverted=self._inverted
        )


class MAFLayer(_AffineAutoregressive):
    """Masked autoregressive layer: z = (x - mu(x)) * exp(-log_scale(x)).

    mu and log_scale of a value depend on the values before it in the order (Papamakarios et al. 2017, arXiv:1705.07057,
    equations 3 and 4).  `inverse` and its gradient take one pass too.  The layer starts as the identity.

    Parameters
    ----------
    input_dim, hidden_dims, order
        See `npflows.networks.options.MaskedOptions`.
    scale_activation : {"tanh_gain", "tanh", "none", "sigmoid", "softplus"}
        How log_scale is bounded, so that a network that extrapolates gives no absurd density; see `CouplingLayer`.
    shift_first : bool
        False: z = x * exp(log_scale(x)) + mu(x) instead.
    min_scale : float
        See `CouplingLayer`.
    activation, condition_dim, dtype, rng
        See `npflows.networks.options.NetworkOptions`.
    residual_blocks, dropout
        See `npflows.networks.options.DenseOptions`.
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
    shift_first : bool
        True: x = (z - mu(z)) * exp(-log_scale(z)) instead.
    min_scale : float
        See `CouplingLayer`.
    """

    _inverted = True
