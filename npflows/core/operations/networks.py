"""Networks: from inputs, and perhaps a condition, to outputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.core.operations.operation import Operation, Shapes, require

ACTIVATIONS = ("relu", "tanh", "silu", "elu", "leaky_relu")


@dataclass(frozen=True)
class _Dense(Operation):
    """Base class of dense networks.

    h_0 = x,  h_l = f(W_l h_{l-1} + b_l),  out = W_L h_{L-1} + b_L,  and for a condition c, V_l c is added in the layers
    `condition_layers`, by default in the first one.  With `residual`, layers 1 and 2, 3 and 4, ... are blocks
    z + W_b f(W_a f(z)) (He et al. 2016, arXiv:1603.05027).  The hidden layers in `linear` have no f.  With `gated`, what a
    block adds is multiplied by sigmoid(G_b c + g_b), its gate (Dauphin et al. 2017, arXiv:1612.08083).
    """

    hidden: tuple[int, ...]
    activation: str
    residual: bool = False
    dropout: float = 0.0
    condition_dim: int = 0

    n_in: int = 0
    n_out: int = 0
    linear: tuple[int, ...] = ()
    gated: bool = False
    condition_layers: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        require(self.activation in ACTIVATIONS, self, f"an activation of {', '.join(ACTIVATIONS)}")
        require(all(width >= 1 for width in self.hidden), self, "hidden layers of at least one unit")
        require(min(self.n_in, self.n_out, self.condition_dim) >= 0, self, "numbers of inputs, outputs and conditions")
        require(0 <= self.dropout < 1, self, "a dropout of at least 0 and below 1")
        require({*self.linear, *self.condition_layers} <= {0, *range(len(self.hidden))}, self, "numbers of hidden layers")
        blocks = len(self.hidden) % 2 == 1 and len(set(self.hidden)) == 1
        require(blocks or not self.residual, self, "an odd number of hidden layers of one width for residual blocks")
        require(
            not self.gated or (self.residual and self.condition_dim > 0), self, "residual blocks and a condition for gates"
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Rows of the input, of each hidden layer, and of the output."""
        return (self.n_in, *self.hidden, self.n_out)

    @property
    def shapes(self) -> Shapes:
        result: Shapes = {}
        for layer, (columns, rows) in enumerate(zip(self.widths[:-1], self.widths[1:])):
            result |= {f"weight_{layer}": (rows, columns), f"bias_{layer}": (rows,)}
            if self.sees_condition(layer):
                result[self.condition_weight(layer)] = (rows, self.condition_dim)
            if self.has_gate(layer):
                result |= {f"gate_weight_{layer}": (rows, self.condition_dim), f"gate_bias_{layer}": (rows,)}
        return result

    def sees_condition(self, layer: int) -> bool:
        """Whether a linear function of the condition is added in a layer."""
        return self.condition_dim > 0 and layer in self.condition_layers

    @staticmethod
    def condition_weight(layer: int) -> str:
        """The name of its weights."""
        return f"condition_weight_{layer}" if layer else "condition_weight"

    def has_gate(self, layer: int) -> bool:
        """Whether the layer's results are multiplied by a gate, as the last ones of a residual block are."""
        return self.gated and layer > 0 and layer % 2 == 0 and layer < len(self.hidden)


@dataclass(frozen=True)
class Mlp(_Dense):
    """A dense network of `n_in` inputs and `n_out` outputs."""


@dataclass(frozen=True)
class Made(_Dense):
    """The masked network of autoregressive layers (Germain et al. 2015, arXiv:1502.03509, equations 8 and 9).

    Features have positions 1..D in their order, hidden units degrees 0..D-1, in rising order: `hidden_degrees`, or as
    many of each as can be.  A unit of degree d sees
    the features of position <= d and units of degree <= d; the outputs of position p see units of degree < p.  A feature
    enters as `feature_rows` rows: two for the cosine and sine of a value on a circle.
    """

    multiplier: int = 1
    feature_rows: tuple[int, ...] = ()
    hidden_degrees: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        n, degrees = self.n_features, self.hidden_degrees
        require(
            set(self.feature_rows) <= {1, 2} and sum(self.feature_rows) == self.n_in, self, "n_in rows, 1 or 2 a feature"
        )
        require(self.multiplier >= 1 and self.n_out == n * self.multiplier, self, "n_out as the features times multiplier")
        if degrees:
            require(tuple(map(len, degrees)) == self.hidden, self, "a degree for each hidden unit")
            rising = all(list(layer) == sorted(layer) and layer[0] >= 0 and layer[-1] < max(n, 1) for layer in degrees)
            require(rising, self, "degrees that rise in each layer, below the number of features")
            skips = zip(degrees[:-2:2], degrees[2::2]) if self.residual else ()
            require(all(a <= b for pair in skips for a, b in zip(*pair)), self, "degrees that do not fall across a block")

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
        given = [np.array(degrees, np.int64) for degrees in self.hidden_degrees]
        return [
            np.repeat(positions, self.feature_rows),
            *(given or [lowest + np.arange(h) * (n - lowest) // h for h in self.hidden]),
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

    def __post_init__(self) -> None:
        require(self.activation in ACTIVATIONS, self, f"an activation of {', '.join(ACTIVATIONS)}")
        require(min(self.height, self.width) >= 1 and self.condition_dim >= 0, self, "a height and a width of at least 1")
        require(len(self.channels) >= 2 and min(self.channels) >= 1, self, "channels of at least 1, twice or more")
        for places, channels in ((self.in_places, self.channels[0]), (self.out_places, self.channels[-1])):
            inside = all(0 <= place < channels * self.height * self.width for place in places)
            require(inside and len(set(places)) == len(places) >= 1, self, "places within the images, each once")

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
