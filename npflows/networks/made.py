"""Masked networks, the conditioners of autoregressive layers (Germain et al. 2015, arXiv:1502.03509)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from npflows.core.checks import warn_user
from npflows.core.operations import Made
from npflows.networks.mlp import hidden_layers


def masked(
    n_features: int,
    hidden_dims: Sequence[int],
    multiplier: int,
    *,
    circular: NDArray[np.bool_] | None = None,
    activation: str = "relu",
    residual_blocks: int = 0,
    dropout: float = 0.0,
    condition_dim: int = 0,
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
    activation, residual_blocks, dropout, condition_dim
        See `npflows.networks.options.NetworkOptions`.  With a condition there are units of degree 0, which see it alone.

    Notes
    -----
    Weights of the first layer have their columns in the order of the features, not by their index.
    """
    rows = np.ones(n_features, int) if circular is None else 1 + np.asarray(circular, int)
    return Made.of(n_features, multiplier, hidden_layers(hidden_dims, residual_blocks), tuple(rows.tolist()),
                   activation=activation, residual=residual_blocks > 0, dropout=dropout,
                   condition_dim=condition_dim)  # fmt: skip


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
