"""Neural spline flows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npflows.base.base import Base
from npflows.core.checks import as_choice, as_dtype, as_int, as_order, as_widths
from npflows.flow import NormalizingFlow
from npflows.layers.actnorm import normalized
from npflows.layers.layer import Layer
from npflows.layers.linear import LULinear
from npflows.layers.permutation import Permutation
from npflows.layers.rotation import Rotation
from npflows.layers.spline import SplineAutoregressiveLayer, SplineCouplingLayer, SplineLayer
from npflows.models.realnvp import coupling_mask
from npflows.networks.embedding import embedding_of
from npflows.networks.options import network_options
from npflows.support.columns import Column, as_columns

CONDITIONERS = ("coupling", "autoregressive")
LINEARS = ("lu", "permutation", "reverse")


class NeuralSplineFlow(NormalizingFlow):
    """Rational-quadratic splines with a linear layer before each: the most accurate model for tables.

    Durkan et al. 2019, arXiv:1906.04032.  One column gets splines without a network.

    Parameters
    ----------
    input_dim : int
        Number of features, at least 1.
    num_layers : int
    hidden_dims : sequence of int
        Units of the hidden layers of each network.
    num_bins : int
        Bins of each spline, at least 2.
    tail_bound : float
        The splines act on [-tail_bound, tail_bound] of the standardised data and are the identity outside.
    conditioner : {"coupling", "autoregressive"}
        One half of the values conditions the splines of the other, or each value is conditioned on those before it.
    linear : {"lu", "permutation", "reverse"}
        What mixes the values before each spline layer: a learned matrix by its LU factors after a random permutation,
        that permutation alone, or a reversal.  With periodic columns a `Rotation` comes after it, and "lu" is refused.
    min_bin_width, min_bin_height, min_derivative : float
        See `RationalQuadraticSplineTransform`.
    orders : sequence of array_like, optional
        The permutation before each layer instead of one from `rng`.
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}
    residual_blocks : int
        Where above 0, each network has so many residual blocks of the one width in `hidden_dims` instead of plain layers.
    dropout : float
        Share of hidden values that are set to 0 in training only, at least 0 and below 1.
    actnorm : bool
        Whether an `ActNormLayer`, set from the data by `fit`, comes before each spline layer.
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
        Draws permutations and first weights.  The flow starts as a permutation.
    """

    def __init__(
        self,
        input_dim: int,
        num_layers: int = 8,
        hidden_dims: Sequence[int] = (128, 128),
        num_bins: int = 8,
        tail_bound: float = 3.0,
        conditioner: str = "coupling",
        *,
        linear: str = "lu",
        min_bin_width: float = 1e-3,
        min_bin_height: float = 1e-3,
        min_derivative: float = 1e-3,
        orders: Sequence | None = None,
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
        self.conditioner = as_choice(conditioner, "conditioner", CONDITIONERS)
        self.linear = as_choice(linear, "linear", LINEARS)
        self.num_bins, self.tail_bound = num_bins, tail_bound
        self.base_distribution, self.actnorm = base_distribution, bool(actnorm)
        self.min_bin_width, self.min_bin_height, self.min_derivative = min_bin_width, min_bin_height, min_derivative
        network = network_options(self, activation, residual_blocks, dropout, condition_dim, rng, embedding_dims)
        generator = network["rng"]
        spline = {
            "num_bins": num_bins,
            "tail_bound": tail_bound,
            "min_bin_width": min_bin_width,
            "min_bin_height": min_bin_height,
            "min_derivative": min_derivative,
            "dtype": dtype,
        }
        if orders is None:
            orders = [
                np.arange(n)[::-1] if self.linear == "reverse" else generator.permutation(n)
                for _ in range(self.num_layers)
            ]  # fmt: skip
        elif len(orders) != self.num_layers:
            raise ValueError(f"orders must hold one order for each of the {self.num_layers} layers, got {len(orders)}")
        self.orders = [as_order(order, n, "orders").tolist() for order in orders]
        circles = self._circles(n, as_columns(support, n, columns))
        layers: list[Layer] = []
        mask = first = coupling_mask((n,), "checkerboard")
        for i, order in enumerate(self.orders):
            if n > 1:
                layers.append(
                    LULinear(n, order, dtype=dtype) if self.linear == "lu" else Permutation(n, order, dtype=dtype)
                )
            if circles.any():
                circles = circles[order]
                layers.append(Rotation(circles, tail_bound, dtype=dtype, rng=generator))
            spline["circular"] = circles
            if n == 1 and not condition_dim:
                layer: Layer = SplineLayer(n, **spline)
            elif n == 1 or self.conditioner == "autoregressive":
                layer = SplineAutoregressiveLayer(n, self.hidden_dims, **spline, **network)
            else:
                alternating = 1 - first if i % 2 else first
                # after a reversal what was moved before is kept, wherever it is now
                mask = 1 - mask[order] if self.linear == "reverse" and i else alternating
                layer = SplineCouplingLayer(mask, self.hidden_dims, **spline, **network)
            layers += normalized([layer]) if self.actnorm else [layer]
        self._assemble(layers, (n,), base_distribution, as_dtype(dtype),
                       embedding_of(self, condition_dim, network, as_dtype(dtype)), support=support,
                       columns=columns)  # fmt: skip

    def _circles(self, n: int, columns: Sequence[Column] | None) -> np.ndarray:
        """Which columns are on circles, after checking that what lies between the splines can keep them."""
        circles = np.zeros(n, bool) if columns is None else np.array([column.is_periodic for column in columns])
        which = ", ".join(map(str, np.flatnonzero(circles)))
        if circles.any() and n > 1 and self.linear == "lu":
            raise ValueError(f"linear='lu' can't keep column {which} on a circle: pass linear='permutation'")
        if circles.any() and self.actnorm:
            raise ValueError(f"actnorm=True can't keep column {which} on a circle: pass actnorm=False")
        return circles
