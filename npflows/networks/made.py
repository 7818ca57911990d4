"""Masked networks, the conditioners of autoregressive layers (Germain et al. 2015, arXiv:1502.03509)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from npflows.core.checks import as_flag, as_int, warn_user
from npflows.core.operations import Made
from npflows.networks.mlp import condition_layers, hidden_layers, linear_layers


def masked(
    n_features: int,
    hidden_dims: Sequence[int],
    multiplier: int,
    *,
    circular: NDArray[np.bool_] | None = None,
    activation: str = "relu",
    residual_blocks: int = 0,
    dropout: float = 0.0,
    residual_activations: str = "all",
    gated: bool = False,
    condition_in: str = "first",
    condition_dim: int = 0,
    hidden_degrees: Sequence[Sequence[int]] | None = None,
) -> Made:
    """The masked network of some features with `multiplier` outputs each.

    Parameters
    ----------
    n_features : int
    hidden_dims : sequence of int
    multiplier : int
        Outputs of a feature; row k * multiplier + j of the result is output j of the k-th feature in order.
    circular : array_like of bool (n_features,), optional
        Whether the k-th feature in order enters as two rows, cosine and sine.
    activation, residual_blocks, dropout, residual_activations, gated, condition_in, condition_dim
        See `npflows.networks.options.DenseOptions`.  With a condition there are units of degree 0, which see it alone.
    hidden_degrees
        See `npflows.networks.options.MaskedOptions`.

    Notes
    -----
    Weights of the first layer have their columns in the order of the features, not by their index.
    """
    rows = np.ones(n_features, int) if circular is None else np.array([1 + as_flag(own, "circular") for own in circular])
    hidden = hidden_layers(hidden_dims, residual_blocks)
    degrees = () if hidden_degrees is None else as_degrees(hidden_degrees, hidden, n_features, residual_blocks > 0)
    return Made.of(n_features, multiplier, hidden, tuple(rows.tolist()), activation=activation,
                   residual=residual_blocks > 0, dropout=dropout, condition_dim=condition_dim,
                   linear=linear_layers(residual_blocks, residual_activations), gated=as_flag(gated, "gated"),
                   hidden_degrees=degrees,
                   condition_layers=condition_layers(residual_blocks, condition_in))  # fmt: skip


def as_degrees(
    given: Sequence[Sequence[int]], hidden: tuple[int, ...], n_features: int, residual: bool
) -> tuple[tuple[int, ...], ...]:
    """The degrees of the units of all hidden layers, after a check."""
    layers = [[as_int(degree, "hidden_degrees", 0) for degree in layer] for layer in given]
    if [len(layer) for layer in layers] != list(hidden):
        raise ValueError(f"hidden_degrees must have one degree for each unit of the hidden layers, {hidden} of them, got "
                         f"{[len(layer) for layer in layers]}")  # fmt: skip
    if any(layer != sorted(layer) or layer[-1] >= max(n_features, 1) for layer in layers):
        raise ValueError(f"hidden_degrees must rise in each layer and lie below the number of features, {n_features}")
    skips = zip(layers[:-2:2], layers[2::2]) if residual else ()
    if any(before > after for pair in skips for before, after in zip(*pair)):
        raise ValueError("hidden_degrees must not fall from the unit that enters a residual block to that which leaves it")
    return tuple(map(tuple, layers))


def reach(network: Made) -> NDArray[np.int64]:
    """How many features, the first ones in order, the outputs of each position see (n_features,).

    An output that sees a unit sees all that the unit sees, and a unit of a higher degree sees no less, so that the unit of
    the highest degree allowed in each layer leads to everything.
    """
    seen = np.arange(network.n_features)
    for degrees in reversed(network.degrees[1:-1]):
        allowed = np.searchsorted(degrees, seen, side="right")  # degrees rise
        seen = np.where(allowed > 0, degrees[allowed - 1], 0)
    return seen


def warn_of_lost_dependence(network: Made, order: NDArray[np.int64]) -> None:
    """Warn if too few hidden units leave some output without a feature that it should see."""
    seen = reach(network)
    n_lost = int((np.arange(len(seen)) - seen).sum())
    if n_lost:
        lost = itertools.islice(((p, q) for p, first in enumerate(seen) for q in range(first, p)), 5)
        pairs = ", ".join(f"{order[p]} on {order[q]}" for p, q in lost) + (", ..." if n_lost > 5 else "")
        needed = network.n_features - (0 if network.condition_dim else 1)
        warn_user(
            f"hidden_dims={network.hidden} is too narrow for {network.n_features} features: {n_lost} dependences are "
            f"lost (feature {pairs}); use at least {needed} units in every hidden layer"
        )
