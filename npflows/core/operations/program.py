"""Programs: operations in order; and what users add to the language."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from npflows.core.operations.networks import Made, Mlp
from npflows.core.operations.operation import Operation

EMBEDDING_LAYER = 1023
"""The number of the embedding among the layers, for the keys of random masks."""
BASE_LAYER = 1022
"""That of the network of a base distribution."""


@dataclass(frozen=True)
class Custom(Operation):
    """A layer or base distribution of the user's own, given as functions of one backend (`npflows.extend`)."""

    name: str
    dim: int
    kernels: tuple[Callable, ...]
    spec: Callable[..., list[int]]
    n_params: int
    work_rows: int = 0
    temp_rows: int = 0
    one_lane: bool = True

    @property
    def size(self) -> int:
        return self.n_params


class Placed(NamedTuple):
    """An operation, and where in the vector of all parameters its own begin."""

    operation: Any
    offset: int


@dataclass(frozen=True)
class Program:
    """Operations in order, in the direction from data to latent.

    Attributes
    ----------
    layers : tuple of Placed
    input_dim, output_dim : int
        Values of a sample and of a result.  A layer of fewer values works on the first ones and leaves the others alone.
    base : Placed, optional
        The base distribution, in which the program then ends.
    condition_dim : int
    embedding : Placed, optional
        The network (`Mlp`) that the condition goes through first.
    standardized : bool
        Whether a float64 affine map from the user's units, whose numbers are in the `State`, comes before the layers.
    """

    layers: tuple[Placed, ...]
    input_dim: int
    output_dim: int
    base: Placed | None = None
    condition_dim: int = 0
    embedding: Placed | None = None
    standardized: bool = False

    @property
    def base_network(self) -> Placed | None:
        """The network (`Mlp`) from what the layers see of the condition to the numbers of the base distribution, if these
        depend on it."""
        network = None if self.base is None else getattr(self.base.operation, "conditioner", None)
        return None if self.base is None or network is None else Placed(network, self.base.offset)

    @property
    def dropout(self) -> float:
        """The largest share of hidden values that one of the networks drops in training."""
        parts = (*self.layers, *filter(None, (self.embedding, self.base)))
        return max((network.dropout for part in parts if (network := _dense_network(part.operation))), default=0.0)

    def with_dropout(self, share: float) -> Program:
        """The same program, of which each dense or masked network drops this share of its hidden values in training."""
        layers = tuple(_with_dropout(part, share) for part in self.layers)
        embedding = None if self.embedding is None else _with_dropout(self.embedding, share)
        base = None if self.base is None else _with_dropout(self.base, share)
        return replace(self, layers=layers, embedding=embedding, base=base)


def _dense_network(operation: Any) -> Mlp | Made | None:
    """The network of an operation, or the operation if it is one itself; None where there is none that can drop values."""
    network = getattr(operation, "conditioner", operation)
    return network if isinstance(network, (Mlp, Made)) else None


def _with_dropout(part: Placed, share: float) -> Placed:
    network = _dense_network(part.operation)
    if network is None:
        return part
    changed: Any = replace(network, dropout=share)
    return part._replace(operation=changed if network is part.operation else replace(part.operation, conditioner=changed))
