"""The arguments that all constructors of networks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from npflows.core.checks import SeedLike, as_choice, as_flag, as_int, as_order, as_positive, as_widths
from npflows.core.operations import ACTIVATIONS
from npflows.core.options import DtypeOptions
from npflows.networks.mlp import CONDITION_LAYERS, RESIDUAL_ACTIVATIONS


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
    residual_activations : {"all", "blocks", "inner"}
        Where a network with residual blocks has activations: before both layers of each block and before the output, before
        the layers of blocks alone, or between the two layers of a block alone.
    gated : bool
        Whether what each residual block adds is multiplied by a gate, the sigmoid of a linear function of the condition
        (Dauphin et al. 2017, arXiv:1612.08083).
    condition_in : {"first", "blocks"}
        Where a linear function of the condition is added: in the first layer of a network, or in the first layer of each
        residual block too.
    """

    residual_blocks: int = 0
    dropout: float = 0.0
    residual_activations: str = "all"
    gated: bool = False
    condition_in: str = "first"

    def __post_init__(self, *init_only: Any) -> None:
        super().__post_init__(*init_only)
        self.residual_blocks = as_int(self.residual_blocks, "residual_blocks", 0)
        given, self.dropout = self.dropout, as_positive(self.dropout, "dropout", zero=True)
        if self.dropout >= 1:
            raise ValueError(f"dropout must be below 1, got {given!r}")
        self.residual_activations = as_choice(self.residual_activations, "residual_activations", RESIDUAL_ACTIVATIONS)
        self.gated = as_flag(self.gated, "gated")
        self.condition_in = as_choice(self.condition_in, "condition_in", CONDITION_LAYERS)
        if self.residual_activations != "all" and not self.residual_blocks:
            raise ValueError(f"residual_activations={self.residual_activations!r} needs residual_blocks above 0")
        if self.condition_in == "blocks" and not (self.residual_blocks and self.condition_dim):
            raise ValueError("condition_in='blocks' needs residual_blocks and condition_dim above 0")
        if self.gated and not (self.residual_blocks and self.condition_dim):
            raise ValueError("gated=True needs residual_blocks and condition_dim above 0")

    @property
    def _network_arguments(self) -> dict[str, Any]:
        names = ("residual_blocks", "dropout", "residual_activations", "gated", "condition_in")
        return {**super()._network_arguments, **{name: getattr(self, name) for name in names}}


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
    hidden_degrees : sequence of sequences of int, optional
        For each hidden layer the degrees of its units, in rising order: a unit of degree d sees the first d features in
        order, and all units of the layer before that have at most its degree.  By default as many units of each degree as
        can be.
    """

    input_dim: int
    hidden_dims: Sequence[int] = (128, 128)
    order: ArrayLike | None = None
    hidden_degrees: Sequence[Sequence[int]] | None = field(default=None, kw_only=True)

    def __post_init__(self, *init_only: Any) -> None:
        super().__post_init__(*init_only)
        self.input_dim, self.hidden_dims = as_int(self.input_dim, "input_dim"), as_widths(self.hidden_dims)
        self.order = np.arange(self.input_dim) if self.order is None else as_order(self.order, self.input_dim)
