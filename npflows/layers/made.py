"""`MADE`, the masked network of the autoregressive layers, by itself (Germain et al. 2015, arXiv:1502.03509)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npflows.core import operations
from npflows.core.backend import Executable, State, select
from npflows.core.checks import as_condition, as_dtype, as_int, as_order, as_rows, as_widths
from npflows.core.configured import Configured
from npflows.core.evaluation import transport
from npflows.core.parameters import ParameterBuffer, Parametrised
from npflows.networks.made import masked, warn_of_lost_dependence
from npflows.networks.mlp import first_parameters
from npflows.networks.options import network_options


class MADE(Parametrised, Configured):
    """Masked autoencoder: output arrays whose column d depends only on the features before d in the order.

    Parameters
    ----------
    input_dim : int
        Number of features, at least 1.
    hidden_dims : sequence of int
        Units of the hidden layers; input_dim - 1 or more in each, or a warning says what is lost.
    output_multiplier : int
        How many arrays it gives.
    order : array_like of int, optional
        order[k] is the feature that comes k-th; 0, 1, 2, ... by default.
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}
    residual_blocks : int
        Where above 0, each network has so many residual blocks of the one width in `hidden_dims` instead of plain layers.
    dropout : float
        Share of hidden values that are set to 0 in training only, at least 0 and below 1.
    condition_dim : int
        Width of a condition that every output depends on.
    dtype : {"float32", "float64"}
        The compute dtype.
    rng : int, numpy.random.Generator or None
        Draws the first weights; the output layer starts at zero.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dims: Sequence[int] = (128, 128),
        output_multiplier: int = 2,
        order: object = None,
        *,
        activation: str = "relu",
        residual_blocks: int = 0,
        dropout: float = 0.0,
        condition_dim: int = 0,
        dtype: object = "float32",
        rng: object = None,
    ) -> None:
        n = self.input_dim = as_int(input_dim, "input_dim")
        self.hidden_dims, self.output_multiplier = (
            as_widths(hidden_dims),
            as_int(output_multiplier, "output_multiplier"),
        )
        self.order = np.arange(n) if order is None else as_order(order, n)
        options = network_options(self, activation, residual_blocks, dropout, condition_dim, rng)
        self.condition_dim = options["condition_dim"]
        generator = options.pop("rng")
        self._network = masked(n, self.hidden_dims, self.output_multiplier, **options)
        warn_of_lost_dependence(self._network, self.order)
        self.parameters = ParameterBuffer(first_parameters(self._network, generator), as_dtype(dtype))
        self._executable: Executable | None = None

    def operation(self) -> operations.MadeOutputs:
        """What it computes, for backends."""
        return operations.MadeOutputs(tuple(self.order.tolist()), self._network)

    def executable(self) -> Executable:
        """Its program, ready to run."""
        if self._executable is None:
            n_outputs = self.input_dim * self.output_multiplier
            placed = operations.Placed(self.operation(), 0)
            program = operations.Program((placed,), self.input_dim, n_outputs, condition_dim=self.condition_dim)
            self._executable = select().compile(program, self.dtype)
        return self._executable

    def __call__(self, x: object, condition: object = None) -> tuple[np.ndarray, ...]:
        """`output_multiplier` arrays (n, input_dim) for x (n, input_dim)."""
        rows, single = as_rows(x, (self.input_dim,), "x")
        context = as_condition(condition, len(rows), self.condition_dim)
        y = transport(self.executable(), State(self.parameters.theta), rows, context, log_det=False).y
        outputs = y.reshape(len(rows), self.output_multiplier, self.input_dim)
        return tuple(outputs[0, j] if single else outputs[:, j] for j in range(self.output_multiplier))

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_executable": None}
