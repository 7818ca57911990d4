"""The arguments about networks that layers and models have in common."""

from __future__ import annotations

from typing import Any

from npflows.core.checks import as_choice, as_int, as_positive, as_rng, as_widths
from npflows.core.operations import ACTIVATIONS


def network_options(
    owner: Any,
    activation: object,
    residual_blocks: object,
    dropout: object,
    condition_dim: object,
    rng: object,
    embedding_dims: object = (),
) -> dict[str, Any]:
    """Check them, keep them as attributes of the layer or model, and give them as keyword arguments of a network."""
    owner.activation = as_choice(activation, "activation", ACTIVATIONS)
    owner.residual_blocks = as_int(residual_blocks, "residual_blocks", 0)
    owner.dropout = as_positive(dropout, "dropout", zero=True)
    if owner.dropout >= 1:
        raise ValueError(f"dropout must be below 1, got {dropout!r}")
    width = as_int(condition_dim, "condition_dim", 0)
    dims = as_widths(embedding_dims, "embedding_dims")
    if dims and not width:
        raise ValueError(f"embedding_dims={dims} embed a condition, and condition_dim is 0")
    return {
        "activation": owner.activation,
        "residual_blocks": owner.residual_blocks,
        "dropout": owner.dropout,
        "condition_dim": dims[-1] if dims else width,
        "rng": as_rng(rng),
    }
