"""Masked and inverse autoregressive flows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from npflows.core.checks import as_choice, as_flag, as_int, as_order, as_rng, as_widths
from npflows.core.operations import SCALE_ACTIVATIONS
from npflows.core.parameters import count
from npflows.distribution.assembly import Assembly
from npflows.distribution.options import TableOptions
from npflows.flow import NormalizingFlow
from npflows.layers.actnorm import normalized
from npflows.layers.autoregressive import IAFLayer, MAFLayer


def layer_orders(
    n: int,
    num_layers: int,
    reverse_ordering: bool,
    orders: Sequence[ArrayLike] | str | None,
    rng: np.random.Generator,
) -> list[list[int]]:
    """The order of the features in each layer."""
    if orders is None:
        natural = list(range(n))
        return [natural[::-1] if reverse_ordering and i % 2 else natural for i in range(num_layers)]
    if isinstance(orders, str):
        as_choice(orders, "orders", ("random",))
        count(n * num_layers)
        return [rng.permutation(n).tolist() for _ in range(num_layers)]
    given = list(orders)
    if len(given) != num_layers:
        raise ValueError(f"orders must hold one order for each of the {num_layers} layers, got {len(given)}")
    return [as_order(order, n, "orders").tolist() for order in given]


@dataclass(repr=False, eq=False)
class _AutoregressiveFlow(NormalizingFlow, TableOptions):
    input_dim: InitVar[int] = field()
    num_layers: int = 5
    hidden_dims: Sequence[int] = (128, 128)
    reverse_ordering: bool = True
    _: KW_ONLY
    orders: Sequence[ArrayLike] | str | None = None
    scale_activation: str = "tanh_gain"
    _layer: ClassVar[type[MAFLayer | IAFLayer]]

    def __post_init__(self, *init_only: Any) -> None:
        super().__post_init__(*init_only)
        dtype, rng, support, columns, input_dim = init_only
        n, generator = as_int(input_dim, "input_dim"), as_rng(rng)
        self.num_layers, self.hidden_dims = as_int(self.num_layers, "num_layers"), as_widths(self.hidden_dims)
        self.reverse_ordering = as_flag(self.reverse_ordering, "reverse_ordering")
        self.scale_activation = as_choice(self.scale_activation, "scale_activation", SCALE_ACTIVATIONS)
        orders = self.orders = layer_orders(n, self.num_layers, self.reverse_ordering, self.orders, generator)
        network = {**self._network_arguments, "dtype": dtype, "rng": generator}
        layers = [self._layer(n, self.hidden_dims, order, self.scale_activation, **network) for order in orders]
        given = self._with_tails(normalized(layers) if self.actnorm else layers, n, dtype, support, columns)
        shared = self._assembly_arguments(dtype, generator)
        Assembly.__init__(self, given, (n,), support=support, columns=columns, **shared)


class MAF(_AutoregressiveFlow):
    """Masked autoregressive flow: accurate on tables, and here fast in both directions.

    Papamakarios et al. 2017, arXiv:1705.07057.  The flow starts as the identity.

    Parameters
    ----------
    input_dim : int
        Number of features, at least 1.
    num_layers : int
    hidden_dims : sequence of int
        Units of the hidden layers of each masked network.
    reverse_ordering : bool
        Whether every other layer takes the features in reversed order.
    orders : "random" or sequence of array_like, optional
        Instead: an order drawn from `rng` for each layer, or one given for each; orders[i][k] is the feature that comes
        k-th in layer i.
    scale_activation : {"tanh_gain", "tanh", "none"}
        See `MAFLayer`.
    activation, condition_dim, dtype, rng
        See `npflows.networks.options.NetworkOptions`.
    residual_blocks, dropout, residual_activations, gated, condition_in
        See `npflows.networks.options.DenseOptions`.
    base_distribution, embedding_dims, log_tails
        See `npflows.distribution.options.FlowOptions`.
    actnorm, support, columns
        See `npflows.distribution.options.TableOptions`.
    """

    _layer = MAFLayer


class IAF(_AutoregressiveFlow):
    """Inverse autoregressive flow: conditions on the latent side (Kingma et al. 2016, arXiv:1606.04934).

    Parameters
    ----------
    input_dim, num_layers, hidden_dims, reverse_ordering, orders, scale_activation, activation, residual_blocks, dropout,
    residual_activations, gated, condition_in, actnorm, base_distribution, condition_dim, embedding_dims, log_tails,
    support, columns, dtype, rng
        As in `MAF`.
    """

    _layer = IAFLayer
