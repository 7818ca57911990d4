"""The arguments that all constructors of networks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from npflows.core.checks import SeedLike, as_choice, as_int, as_order, as_positive, as_widths
from npflows.core.operations import ACTIVATIONS
from npflows.core.options import DtypeOptions


@dataclass(kw_only=True, repr=False, eq=False)
class NetworkOptions(DtypeOptions):
    """Keywords of every layer and model that has networks.

    Parameters
    ----------
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}
        The activation function of the hidden layers.
    condition_dim : int
        Width of the condition that every network sees too; 0 for none.  A flow standardizes it.
    dtype : {"float32", "float64"}
        The compute dtype.
    rng : int, numpy.random.Generator or None
        Draws the first weights, and all else that is random at first.
    """

    activation: str = "relu"
    condition_dim: int = 0
    rng: InitVar[SeedLike] = None

    def __post_init__(self, *init_only: Any) -> None:
        super().__post_init__(*init_only)
        self.activation = as_choice(self.activation, "activation", ACTIVATIONS)
        self.condition_dim = as_int(self.condition_dim, "condition_dim", 0)

    @property
    def _network_arguments(self) -> dict[str, Any]:
        """The keyword arguments of a network with these options."""
        return {"activation": self.activation, "condition_dim": self.condition_dim}


@dataclass(kw_only=True, repr=False, eq=False)
class DenseOptions(NetworkOptions):
    """Keywords of the layers and models that have dense or masked networks, beside those of `NetworkOptions`.

    Parameters
    ----------
    residual_blocks : int
        Where above 0, each network has so many residual blocks of the one width in `hidden_dims` instead of plain layers.
    dropout : float
        Share of hidden values that are set to 0 in training only, at least 0 and below 1.
    """

    residual_blocks: int = 0
    dropout: float = 0.0

    def __post_init__(self, *init_only: Any) -> None:
        super().__post_init__(*init_only)
        self.residual_blocks = as_int(self.residual_blocks, "residual_blocks", 0)
        given, self.dropout = self.dropout, as_positive(self.dropout, "dropout", zero=True)
        if self.dropout >= 1:
            raise ValueError(f"dropout must be below 1, got {given!r}")

    @property
    def _network_arguments(self) -> dict[str, Any]:
        return {**super()._network_arguments, "residual_blocks": self.residual_blocks, "dropout": self.dropout}


@dataclass(repr=False, eq=False)
class MaskedOptions(DenseOptions):
    """Arguments of everything that has one masked network, beside those of `DenseOptions`.

    Parameters
    ----------
    input_dim : int
        Number of features, at least 1.
    hidden_dims : sequence of int
        Units of the masked network's hidden layers; input_dim - 1 or more in each, or a warning says what is lost.
    order : array_like of int, optional
        order[k] is the feature that comes k-th; 0, 1, 2, ... by default.
    """

    input_dim: int
    hidden_dims: Sequence[int] = (128, 128)
    order: ArrayLike | None = None

    def __post_init__(self, *init_only: Any) -> None:
        super().__post_init__(*init_only)
        self.input_dim, self.hidden_dims = as_int(self.input_dim, "input_dim"), as_widths(self.hidden_dims)
        self.order = np.arange(self.input_dim) if self.order is None else as_order(self.order, self.input_dim)
