"""Programs: operations in order; and what users add to the language."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from npflows.core.operations.operation import Operation

EMBEDDING_LAYER = 1023
"""The number of the embedding among the layers, for the keys of random masks."""


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
