"""Masked and inverse autoregressive flows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npflows.base.base import Base
from npflows.core.checks import as_choice, as_dtype, as_int, as_order, as_widths
from npflows.core.operations import SCALE_ACTIVATIONS
from npflows.flow import NormalizingFlow
from npflows.layers.actnorm import normalized
from npflows.layers.autoregressive import IAFLayer, MAFLayer
from npflows.networks.embedding import embedding_of
from npflows.networks.options import network_options


def layer_orders(
    n: int, num_layers: int, reverse_ordering: bool, orders: object, rng: np.random.Generator
) -> list[list[int]]:  # fmt: skip
    """The order of the features in each layer."""
    if orders is None:
        natural = list(range(n))
        return [natural[::-1] if reverse_ordering and i % 2 else natural for i in range(num_layers)]
    if isinstance(orders, str):
        as_choice(orders, "orders", ("random",))
        return [rng.permutation(n).tolist() for _ in range(num_layers)]
    given = list(orders)  # type: ignore[call-overload]
    if len(given) != num_layers:
        raise ValueError(f"orders must hold one order for each of the {num_layers} layers, got {len(given)}")
    return [as_order(order, n, "orders").tolist() for order in given]


class _AutoregressiveFlow(NormalizingFlow):
    _layer: type

    def __init__(
        self,
        input_dim: int,
        num_layers: int = 5,
        hidden_dims: Sequence[int] = (128, 128),
        reverse_ordering: bool = True,
        *,
        orders: object = None,
        scale_activation: str = "tanh_gain",
        activation: str = "relu",
        residual_blocks: int = 0,
        dropout: float = 0.0,
        actnorm: bool = False,
        base_distribution: str | Base = "normal",
        condition_dim: int = 0,
        embedding_dims: Sequence[int] = (),
        support: object = None,
        columns: Sequence[str] | None = None,
        dtype: object = "float32",
        rng: object = None,
    ) -> None:
        n = as_int(input_dim, "input_dim")
        self.embedding_dims = as_widths(embedding_dims, "embedding_dims")
        self.num_layers, self.hidden_dims = as_int(num_layers, "num_layers"), as_widths(hidden_dims)
        self.reverse_ordering = bool(reverse_ordering)
        self.scale_activation = as_choice(scale_activation, "scale_activation", SCALE_ACTIVATIONS)
        self.base_distribution, self.actnorm = base_distribution, bool(actnorm)
        options = network_options(self, activation, residual_blocks, dropout, condition_dim, rng, embedding_dims)
        self.orders = layer_orders(n, self.num_layers, self.reverse_ordering, orders, options["rng"])
        layers = [
            self._layer(n, self.hidden_dims, order, self.scale_activation, dtype=dtype, **options) for order in self.orders
        ]
        self._assemble(normalized(layers) if self.actnorm else layers, (n,), base_distribution, as_dtype(dtype),
                       embedding_of(self, condition_dim, options, as_dtype(dtype)), support=support,
                       columns=columns)  # fmt: skip


class MAF(_AutoregressiveFlow):
    """Masked autoregressive flow: accurate on tables, and here fast in both directions.

    Papamakarios et al. 2017, arXiv:1705.07057.

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
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}
    residual_blocks : int
        Where above 0, each network has so many residual blocks of the one width in `hidden_dims` instead of plain layers.
    dropout : float
        Share of hidden values that are set to 0 in training only, at least 0 and below 1.
    actnorm : bool
        Whether an `ActNormLayer`, set from the data by `fit`, comes before each layer.
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

    _layer = MAFLayer


class IAF(_AutoregressiveFlow):
    """Inverse autoregressive flow: conditions on the latent side (Kingma et al. 2016, arXiv:1606.04934).

    Parameters
    ----------
    input_dim, num_layers, hidden_dims, reverse_ordering, orders, scale_activation, activation, residual_blocks, dropout,
    actnorm, base_distribution, condition_dim, embedding_dims, support, columns, dtype, rng
        As in `MAF`.
    """

    _layer = IAFLayer
