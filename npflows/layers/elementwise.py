"""A scalar map of each value by itself, its parameters learned directly: no conditioner."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from npflows.core import operations
from npflows.core.parameters import Parameter
from npflows.layers.layer import Layer
from npflows.transformers.scalar_maps import first_parameters


class Elementwise(Layer, abstract=True):
    """A scalar map of each of n values, with raw parameters of its own that start at zero."""

    def __init__(self, n: int, transformer: operations.Affine | operations.Spline, dtype: DTypeLike) -> None:
        self._transformer = transformer
        raw = Parameter("raw", np.broadcast_to(0.0, (n, transformer.multiplier)))
        super().__init__(n, [raw, *first_parameters(transformer, n)], dtype=dtype)

    def operation(self) -> operations.Elementwise:
        return operations.Elementwise(self.input_dim, self._transformer)
