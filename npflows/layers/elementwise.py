"""A scalar map of each value by itself, its parameters learned directly: no conditioner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from npflows.core import operations
from npflows.core.checks import as_flag, as_int
from npflows.core.options import DtypeOptions
from npflows.core.parameters import Parameter
from npflows.layers.circles import CircleLayer, check_map
from npflows.transformers.scalar_maps import first_parameters


class Elementwise(CircleLayer):
    """Any scalar map of each value by itself: one saved layer; `SplineLayer` is the one of splines.

    Parameters
    ----------
    input_dim : int
        Number of values.
    transformer : scalar map
        One of `npflows.transformers`; its raw parameters are learned directly, and start at 0.  The circles of a spline are
        the interval [-tail_bound, tail_bound], whose ends are the same point.
    dtype : {"float32", "float64"}
        The compute dtype.
    inverted : bool
        Whether `forward` is the inverse of the map.

    Raises
    ------
    ValueError
        If the scalar map has circles for another number of values.
    """

    def __init__(
        self, input_dim: int, transformer: operations.ScalarMap, dtype: DTypeLike = "float32", *, inverted: bool = False
    ) -> None:  # fmt: skip
        n, self.inverted = as_int(input_dim, "input_dim"), as_flag(inverted, "inverted")
        flags, self.bound = np.zeros(n, bool), 1.0
        if isinstance(transformer, operations.Spline):
            flags, self.bound = np.resize(transformer.circular, n), transformer.tail_bound
        check_map(transformer, flags, self.bound)
        self.transformer, self.circular = transformer, flags if flags.any() else None
        raw = Parameter("raw", np.broadcast_to(0.0, (n, transformer.multiplier)))
        super().__init__(n, [raw, *first_parameters(transformer, n)], dtype=dtype)

    def operation(self) -> operations.Elementwise:
        return operations.Elementwise(self.input_dim, self.transformer, self.inverted)


@dataclass(repr=False, eq=False)
class OfColumns(Elementwise, DtypeOptions, abstract=True):
    """A layer without a network, whose first argument is the number of columns."""

    input_dim: int
