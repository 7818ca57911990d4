"""A network in front of the condition, trained with the flow: all layers see its output instead."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from npflows.core.backend import select
from npflows.core.parameters import ParameterBuffer, Parametrized
from npflows.networks.mlp import dense, first_parameters


class Embedding(Parametrized):
    """A dense network from the condition to what the layers see.

    Parameters
    ----------
    condition_dim : int
        Values of a condition.
    hidden_dims : sequence of int
        Units of its hidden layers, and last the width of its output.
    activation, dropout
        See `npflows.networks.options.DenseOptions`.
    dtype : numpy.dtype
    rng : numpy.random.Generator
    """

    def __init__(
        self,
        condition_dim: int,
        hidden_dims: Sequence[int],
        *,
        activation: str = "silu",
        dropout: float = 0.0,
        dtype: np.dtype,
        rng: np.random.Generator,
    ) -> None:
        *hidden, self.output_dim = hidden_dims
        self.condition_dim, self.activation = condition_dim, activation
        self.operation = dense(condition_dim, hidden, self.output_dim, activation=activation, dropout=dropout)
        self.parameters = ParameterBuffer(first_parameters(self.operation, rng, zero_output=False), dtype)

    def __call__(self, condition: NDArray) -> NDArray:
        """The embedding (n, output_dim) of conditions (n, condition_dim)."""
        return select().network(self.operation, self.parameters.theta, condition)
