"""Dense networks, the conditioners of coupling layers: their operation and their first parameters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from npflows.core.checks import as_flag
from npflows.core.operations import Made, Mlp
from npflows.core.parameters import Parameter


def hidden_layers(hidden_dims: Sequence[int], residual_blocks: int) -> tuple[int, ...]:
    """Units of each hidden layer: as given, or those of the first layer and of two in each residual block."""
    if not residual_blocks:
        return tuple(hidden_dims)
    if len(set(hidden_dims)) != 1:
        raise ValueError(f"residual blocks need hidden_dims of one width, for instance (128,), got {tuple(hidden_dims)}")
    return (hidden_dims[0],) * (1 + 2 * residual_blocks)


RESIDUAL_ACTIVATIONS = ("all", "blocks", "inner")


def linear_layers(residual_blocks: int, residual_activations: str) -> tuple[int, ...]:
    """The hidden layers that have no activation; see `npflows.networks.options.DenseOptions`."""
    if not residual_blocks or residual_activations == "all":
        return ()
    ends = range(0, 2 * residual_blocks + 1, 2)
    return tuple(ends) if residual_activations == "inner" else (ends[-1],)


CONDITION_LAYERS = ("first", "blocks")


def condition_layers(residual_blocks: int, where: str) -> tuple[int, ...]:
    """The dense layers that a condition is added in; see `npflows.networks.options.DenseOptions`."""
    return (0, *(range(1, 2 * residual_blocks, 2) if where == "blocks" else ()))


def dense(
    n_in: int,
    hidden_dims: Sequence[int],
    n_out: int,
    *,
    activation: str = "relu",
    residual_blocks: int = 0,
    dropout: float = 0.0,
    residual_activations: str = "all",
    gated: bool = False,
    condition_in: str = "first",
    condition_dim: int = 0,
) -> Mlp:
    """A dense network.

    Parameters
    ----------
    n_in, n_out : int
        Numbers of inputs and outputs; `n_in` may be 0, as a condition may be all there is.
    hidden_dims : sequence of int
        Units of each hidden layer; none makes the network linear.
    activation, residual_blocks, dropout, residual_activations, gated, condition_in, condition_dim
        See `npflows.networks.options.DenseOptions`.
    """
    return Mlp(hidden_layers(hidden_dims, residual_blocks), activation, residual_blocks > 0, dropout, condition_dim,
               n_in=n_in, n_out=n_out, linear=linear_layers(residual_blocks, residual_activations),
               gated=as_flag(gated, "gated"), condition_layers=condition_layers(residual_blocks, condition_in))  # fmt: skip


def first_parameters(operation: Mlp | Made, rng: np.random.Generator, *, zero_output: bool = True) -> list[Parameter]:
    """Uniform weights and biases of variance 1 / (3 fan-in), fan-in counted after the mask.

    The biases matter: without them the kinks of all units lie at zero to begin with, and a few inputs are hardly bent.

    Parameters
    ----------
    operation : Mlp or Made
    rng : numpy.random.Generator
    zero_output : bool
        Whether the output layer starts at zero, so that a flow starts as the identity.
    """
    parameters, widths = [], operation.widths
    last = len(widths) - 2
    for layer, (columns, rows) in enumerate(itertools.pairwise(widths)):
        drawn = rng.uniform(-1, 1, (rows, columns))
        mask = operation.mask(layer) if isinstance(operation, Made) else None
        fan_in = np.full(rows, columns) if mask is None else mask.sum(1)
        if operation.sees_condition(layer):
            fan_in = fan_in + operation.condition_dim
        bound = (0.0 if layer == last and zero_output else 1.0) / np.sqrt(np.maximum(fan_in, 1))[:, None]
        parameters.append(Parameter(f"weight_{layer}", bound * drawn, mask))
        parameters.append(Parameter(f"bias_{layer}", bound[:, 0] * rng.uniform(-1, 1, rows)))
        if operation.sees_condition(layer):
            first = bound * rng.uniform(-1, 1, (rows, operation.condition_dim))
            parameters.append(Parameter(operation.condition_weight(layer), first))
        if operation.has_gate(layer):
            shape = (rows, operation.condition_dim)
            parameters.append(
                Parameter(f"gate_weight_{layer}", rng.uniform(-1, 1, shape) / np.sqrt(operation.condition_dim))
            )
            parameters.append(Parameter(f"gate_bias_{layer}", np.zeros(rows)))
    return parameters
