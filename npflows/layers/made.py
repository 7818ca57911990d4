"""`MADE`, the masked network of the autoregressive layers, by itself (Germain et al. 2015, arXiv:1502.03509)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.core import operations
from npflows.core.checks import SeedLike, as_condition, as_dtype, as_int, as_order, as_rng, as_rows, as_widths
from npflows.core.configured import Configured
from npflows.core.evaluation import transport
from npflows.core.parameters import ParameterBuffer
from npflows.core.runnable import Runnable
from npflows.networks.made import masked, warn_of_lost_dependence
from npflows.networks.mlp import first_parameters
from npflows.networks.options import DenseOptions


@dataclass(repr=False, eq=False)
class MADE(Runnable, Configured, DenseOptions):
    """Masked autoencoder: output arrays whose column d depends only on the features before d in the order.

    The output layer starts at zero.

    Parameters
    ----------
    input_dim, hidden_dims, order
        See `npflows.networks.options.MaskedOptions`.
    output_multiplier : int
        How many arrays it gives.
    activation, condition_dim, dtype, rng
        See `npflows.networks.options.NetworkOptions`.
    residual_blocks, dropout, residual_activations, gated, condition_in
        See `npflows.networks.options.DenseOptions`.
    """

    input_dim: int
    hidden_dims: Sequence[int] = (128, 128)
    output_multiplier: int = 2
    order: ArrayLike | None = None

    def __post_init__(self, dtype: DTypeLike, rng: SeedLike) -> None:
        super().__post_init__()
        n = self.input_dim = as_int(self.input_dim, "input_dim")
        self.hidden_dims = as_widths(self.hidden_dims)
        self.output_multiplier = as_int(self.output_multiplier, "output_multiplier")
        order = self.order = np.arange(n) if self.order is None else as_order(self.order, n)
        network = masked(n, self.hidden_dims, self.output_multiplier, **self._network_arguments)
        warn_of_lost_dependence(network, order)
        self._operation = operations.MadeOutputs(tuple(order.tolist()), network)
        self.parameters = ParameterBuffer(first_parameters(network, as_rng(rng)), as_dtype(dtype))

    def operation(self) -> operations.MadeOutputs:
        """The description of the outputs that backends run."""
        return self._operation

    def program(self) -> operations.Program:
        """The network alone as a program."""
        n_outputs, placed = self.input_dim * self.output_multiplier, operations.Placed(self.operation(), 0)
        return operations.Program((placed,), self.input_dim, n_outputs, condition_dim=self.condition_dim)

    def __call__(self, x: ArrayLike, condition: ArrayLike | None = None) -> tuple[NDArray, ...]:
        """`output_multiplier` arrays (n, input_dim) for x (n, input_dim)."""
        rows, single = as_rows(x, (self.input_dim,), "x")
        context = as_condition(condition, len(rows), self.condition_dim)
        y = transport(self.executable(), self.state(), rows, context, log_det=False).y
        outputs = y.reshape(len(rows), self.output_multiplier, self.input_dim)
        return tuple(outputs[0, j] if single else outputs[:, j] for j in range(self.output_multiplier))
