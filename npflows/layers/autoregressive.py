"""Masked autoregressive layers: the map of each value is conditioned on those before it."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.core import operations
from npflows.core.checks import SeedLike, as_choice, as_flag, as_order, as_positive, as_rng
from npflows.core.operations import SCALE_ACTIVATIONS
from npflows.core.parameters import prefixed
from npflows.layers.circles import CircleLayer, check_map
from npflows.networks import mlp
from npflows.networks.made import masked, warn_of_lost_dependence
from npflows.networks.options import MaskedOptions
from npflows.transformers.scalar_maps import as_max_scale, as_min_scale, first_parameters


class Autoregressive(CircleLayer):
    """A masked autoregressive layer of any scalar map: one saved layer; `MAFLayer` and `IAFLayer` are the affine ones.

    The masked network makes the raw parameters of the map of each value of the values before it in the order (Papamakarios
    et al. 2017, arXiv:1705.07057).

    Parameters
    ----------
    order : array_like of int (input_dim,)
        order[k] is the value that comes k-th.
    conditioner : network
        Of `npflows.networks.masked`, with a feature for each value and `transformer.multiplier` outputs for each feature.
        A value whose feature has two rows, cosine and sine, is on a circle: the interval [-bound, bound], whose ends are
        the same point.
    transformer : scalar map
        One of `npflows.transformers`.
    dtype : {"float32", "float64"}
        The compute dtype.
    rng : int, numpy.random.Generator or None
        Draws the first weights; those of the network's last layer are 0.
    inverted : bool
        Whether `forward`, data to latent, is the sequential direction, in which the network sees the latent values.
    bound : float
        Half the circumference of the circles, above 0.

    Raises
    ------
    ValueError
        If network, scalar map and order don't fit together.
    """

    order: ArrayLike | None

    def __init__(
        self,
        order: ArrayLike,
        conditioner: operations.Made,
        transformer: operations.ScalarMap,
        dtype: DTypeLike = "float32",
        *,
        rng: SeedLike = None,
        inverted: bool = False,
        bound: float = 1.0,
    ) -> None:
        n, multiplier = len(np.atleast_1d(order)), getattr(transformer, "multiplier", 0)
        if not isinstance(conditioner, operations.Made):
            raise TypeError(f"conditioner must be a masked network of npflows.networks, got {conditioner!r}")
        places = as_order(order, n)
        self.order, self.inverted, self.bound = places, as_flag(inverted, "inverted"), as_positive(bound, "bound")
        self.conditioner, self.transformer = conditioner, transformer
        in_order = np.array(conditioner.feature_rows) == 2
        check_map(transformer, in_order, self.bound)
        if (conditioner.n_features, conditioner.multiplier) != (n, multiplier):
            raise ValueError(f"the network of this layer needs {n} features and {multiplier} outputs for each, got "
                             f"{conditioner.n_features} and {conditioner.multiplier}")  # fmt: skip
        if sum(map(math.prod, transformer.shapes(n).values())) != n * transformer.theta_per_value:
            raise ValueError(f"{transformer!r} has learned parameters that values share: leave n_gains at None")
        on_circle = in_order[np.argsort(places)]
        self.circular = on_circle if on_circle.any() else None
        self._operation = operations.Autoregressive(tuple(places.tolist()), conditioner, transformer, self.inverted,
                                                    self.bound)  # fmt: skip
        first = prefixed("network.", mlp.first_parameters(conditioner, as_rng(rng)))
        parameters = [*first, *first_parameters(transformer, n)]
        super().__init__(n, parameters, condition_dim=conditioner.condition_dim, dtype=dtype)

    def operation(self) -> operations.Autoregressive:
        return self._operation


@dataclass(repr=False, eq=False)
class MaskedLayer(Autoregressive, MaskedOptions, abstract=True):
    """An autoregressive layer with a masked network of given hidden layers.

    Parameters
    ----------
    input_dim, hidden_dims, order, hidden_degrees
        See `npflows.networks.options.MaskedOptions`.
    activation, condition_dim, dtype, rng
        See `npflows.networks.options.NetworkOptions`.
    residual_blocks, dropout, residual_activations, gated, condition_in
        See `npflows.networks.options.DenseOptions`.
    """

    def _network(self, multiplier: int, circular: NDArray[np.bool_] | None = None) -> operations.Made:
        """The network with `multiplier` outputs for each feature."""
        network = masked(self.input_dim, self.hidden_dims, multiplier, circular=circular,
                         hidden_degrees=self.hidden_degrees, **self._network_arguments)  # fmt: skip
        if self.hidden_degrees is None:
            warn_of_lost_dependence(network, np.asarray(self.order))
        return network


@dataclass(repr=False, eq=False)
class _AffineAutoregressive(MaskedLayer):
    scale_activation: str = "tanh_gain"
    _: KW_ONLY
    shift_first: bool | None = None
    min_scale: float = 0.0
    max_scale: float | None = None
    _inverted: ClassVar[bool]

    def __post_init__(self, dtype: DTypeLike, rng: SeedLike) -> None:
        super().__post_init__()
        self.scale_activation = as_choice(self.scale_activation, "scale_activation", SCALE_ACTIVATIONS)
        self.shift_first = not self._inverted if self.shift_first is None else as_flag(self.shift_first, "shift_first")
        self.min_scale = as_min_scale(self.min_scale, self.scale_activation)
        self.max_scale, most = as_max_scale(self.max_scale, self.min_scale, self.scale_activation)
        transformer = operations.Affine(
            self.scale_activation, shift_first=self.shift_first, least=self.min_scale, most=most
        )
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
    input_dim, hidden_dims, order, hidden_degrees
        See `npflows.networks.options.MaskedOptions`.
    scale_activation : {"tanh_gain", "tanh", "none", "sigmoid", "softplus", "soft_clip", "hard_clip", "tanh_clip", \
"sigmoid_clip", "atan_clip"}
        How log_scale is bounded, so that a network that extrapolates gives no absurd density; see `CouplingLayer`.
    shift_first : bool
        False: z = x * exp(log_scale(x)) + mu(x) instead.
    min_scale, max_scale : float
        See `CouplingLayer`.
    activation, condition_dim, dtype, rng
        See `npflows.networks.options.NetworkOptions`.
    residual_blocks, dropout, residual_activations, gated, condition_in
        See `npflows.networks.options.DenseOptions`.
    """

    _inverted = False


class IAFLayer(_AffineAutoregressive):
    """Inverse autoregressive layer: x = z * exp(log_scale(z)) + mu(z).

    mu and log_scale of a value depend on the latent values before it (Kingma et al. 2016, arXiv:1606.04934, equations 10
    to 12).  `forward`, data to latent, is the sequential direction; it and its gradient take one pass too.

    Parameters
    ----------
    input_dim, hidden_dims, order, hidden_degrees, scale_activation, activation, residual_blocks, dropout
        As in `MAFLayer`.
    residual_activations, gated, condition_in, condition_dim, dtype, rng
        As in `MAFLayer`.
    shift_first : bool
        True: x = (z - mu(z)) * exp(-log_scale(z)) instead.
    min_scale, max_scale : float
        See `CouplingLayer`.
    """

    _inverted = True
