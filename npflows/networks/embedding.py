"""A network in front of the condition, trained with the flow: all layers see its output instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npflows.backends.cpu.compiler.calls import Link
from npflows.backends.cpu.driver import LANE_MULTIPLE
from npflows.core.parameters import ParameterBuffer, Parametrised
from npflows.networks.mlp import MLP


class Embedding(Parametrised):
    """A dense network from the condition to what the layers see.

    Parameters
    ----------
    condition_dim : int
        Values of a condition.
    hidden_dims : sequence of int
        Units of its hidden layers, and last the width of its output.
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}
    dropout : float
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
        self._network = MLP(condition_dim, hidden, self.output_dim, activation=activation, dropout=dropout,
                            zero_output=False, rng=rng)  # fmt: skip
        self.work_rows, self.temp_rows = self._network.work_rows, self._network.temp_rows
        self.parameters = ParameterBuffer(self._network.parameters, dtype)

    @property
    def kernels(self) -> tuple[Callable, Callable]:
        return self._network.kernels["forward"][0], self._network.kernels["vjp"][0]

    @property
    def theta_size(self) -> int:
        return self.parameters.theta.size

    def spec(self, link: Link) -> list[int]:
        """The integers that the kernels read."""
        return self._network.spec(link)

    def __call__(self, condition: np.ndarray) -> np.ndarray:
        """The embedding (n, output_dim) of conditions (n, condition_dim)."""
        n = len(condition)
        lanes = -(-max(n, 1) // LANE_MULTIPLE) * LANE_MULTIPLE
        block = np.zeros((self.condition_dim, lanes), self.dtype)
        block[:, :n] = condition.T
        out, work, temp = (np.empty((m, lanes), self.dtype) for m in (self.output_dim, self.work_rows, self.temp_rows))
        forward, _ = self.kernels
        spec = np.array(self.spec(Link(self.dtype, (forward,))), np.int64)
        forward(spec, self.parameters.theta, block, 0, 0, block, out, work, temp)
        return out[:, :n].T.astype(np.float64)


def embedding_of(model: Any, condition_dim: int, network: dict[str, Any], dtype: np.dtype) -> Embedding | None:
    """The embedding of a model that has one, with the activation and dropout of its other networks."""
    if not model.embedding_dims:
        return None
    return Embedding(condition_dim, model.embedding_dims, activation=network["activation"], dropout=network["dropout"],
                     dtype=dtype, rng=network["rng"])  # fmt: skip
