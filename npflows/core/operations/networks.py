"""Networks: from inputs, and perhaps a condition, to outputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.core.operations.operation import Operation, Shapes

ACTIVATIONS = ("relu", "tanh", "silu", "elu", "leaky_relu")


@dataclass(frozen=True)
class _Dense(Operation):
    """Base class of dense networks.

    h_0 = x,  h_l = f(W_l h_{l-1} + b_l),  out = W_L h_{L-1} + b_L,  and V c is added in the first of them for a
    condition c.  With `residual`, layers 1 and 2, 3 and 4, ... are blocks z + W_b f(W_a f(z)) (He et al. 2016,
    arXiv:1603.05027).
    """

    hidden: tuple[int, ...]
    activation: str
    residual: bool = False
    dropout: float = 0.0
    condition_dim: int = 0

    n_in: int = 0
    n_out: int = 0

    @property
    def widths(self) -> tuple[int, ...]:
        """Rows of the input, of each hidden layer, and of the output."""
        return (self.n_in, *self.hidden, self.n_out)

    @property
    def shapes(self) -> Shapes:
        result: Shapes = {}
        for layer, (columns, rows) in enumerate(zip(self.widths[:-1], self.widths[1:])):
            result |= {f"weight_{layer}": (rows, columns), f"bias_{layer}": (rows,)}
            if layer == 0 and self.condition_dim:
                result["condition_weight"] = (rows, self.condition_dim)
        return result


@dataclass(frozen=True)
class Mlp(_Dense):
    """A dense network of `n_in` inputs and `n_out` outputs."""


@dataclass(frozen=True)
class Made(_Dense):
    """The masked network of autoregressive layers (Germain et al. 2015, arXiv:1502.03509, equations 8 and 9).

    Features have positions 1..D in their order, hidden units degrees 0..D-1, in rising order.  A unit of degree d sees
    the features of position <= d and units of degree <= d; the outputs of position p see units of degree < p.  A feature
    enters as `feature_rows` rows: two for the cosine and sine of a value on a circle.
    """

    multiplier: int = 1
    feature_rows: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, n_features: int, multiplier: int, hidden: tuple[int, ...], feature_rows: tuple[int, ...], **options: Any
    ) -> Made:
        """The network of so many features with `multiplier` outputs each."""
        return cls(hidden, n_in=sum(feature_rows), n_out=n_features * multiplier, multiplier=multiplier,
                   feature_rows=feature_rows, **options)  # fmt: skip

    @property
    def n_features(self) -> int:
        return len(self.feature_rows)

    @cached_property
    def degrees(self) -> list[NDArray]:
        """The degrees of all rows, one array for the input, for each hidden layer and for the output.

        A weight is free where the degree of its column is at most that of its row.  An input row has the position of its
        feature as degree, an output row that position less 1: it sees the features before its own.
        """
        n = self.n_features
        lowest = 0 if self.condition_dim or n == 1 else 1
        positions = np.arange(1, n + 1)
        return [
            np.repeat(positions, self.feature_rows),
            *(lowest + np.arange(h) * (n - lowest) // h for h in self.hidden),
            np.repeat(positions, self.multiplier) - 1,  # the outputs see positions below their own
        ]

    def mask(self, layer: int) -> NDArray[np.bool_]:
        """Which weights of a dense layer (rows, columns) are free."""
        return self.degrees[layer][None, :] <= self.degrees[layer + 1][:, None]

    @property
    def entered(self) -> list[int]:
        """Input rows of the first 0, 1, 2, ... features."""
        return np.append(0, np.cumsum(self.feature_rows)).tolist()


@dataclass(frozen=True)
class ConvNet(Operation):
    """Convolutions of images: a 3x3 one, 1x1 ones, a 3x3 one (Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.3).

    u_0 = W_0 * x + V c,  h_l = f((u_l + b_l) exp(s_l)),  u_l = W_l * h_{l-1},  out = W_L * h_{L-1} + b_L, with zeros around
    every image; without `actnorm`, s_l is 0.  `in_places` and `out_places` say where each of the inputs and outputs lies in
    images (channels, height, width), as a flat index; what no input fills is 0.
    """

    height: int
    width: int
    channels: tuple[int, ...]
    in_places: tuple[int, ...]
    out_places: tuple[int, ...]
    activation: str
    actnorm: bool = False
    condition_dim: int = 0

    @property
    def n_in(self) -> int:
        return len(self.in_places)

    @property
    def n_out(self) -> int:
        return len(self.out_places)

    @property
    def kernel_sizes(self) -> tuple[int, ...]:
        """Height and width of each convolution's kernel."""
        last = len(self.channels) - 2
        return tuple(3 if layer in (0, last) else 1 for layer in range(last + 1))

    @property
    def shapes(self) -> Shapes:
        result: Shapes = {}
        last = len(self.channels) - 2
        for layer, (n, m) in enumerate(zip(self.channels[:-1], self.channels[1:])):
            size = self.kernel_sizes[layer]
            result |= {f"weight_{layer}": (m, size, size, n), f"bias_{layer}": (m,)}
            if self.actnorm and layer < last:
                result[f"logs_{layer}"] = (m,)
            if layer == 0 and self.condition_dim:
                result["condition_weight"] = (m, self.condition_dim)
        return result


Network = Mlp | Made | ConvNet
