"""Tails that are drawn in by a logarithm."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

from npflows.core import operations
from npflows.core.checks import as_int, as_positive
from npflows.layers.layer import Layer


class LogTails(Layer):
    """y = x where abs(x) <= bound, and sign(x) (bound + arsinh(abs(x) - bound)) beyond it, for each value by itself.

    As the last layer of a flow it keeps single samples from getting absurd densities: a latent value of 400 costs as much
    as one of 11.6 would, where a normal base alone gives it a log-density of -80,000.  Few samples of a normal base ever
    reach `bound`, so it changes nothing else.  The map is exact and has two continuous derivatives.  Values on circles
    stay as they are.

    Parameters
    ----------
    input_dim : int
        Number of values.
    bound : float
        Where the tails begin; above 0.
    dtype : {"float32", "float64"}
        The compute dtype.
    """

    takes_all_values = True

    def __init__(self, input_dim: int, bound: float = 5.0, *, dtype: DTypeLike = "float32") -> None:
        n, self.bound = as_int(input_dim, "input_dim"), as_positive(bound, "bound")
        self._circles = np.zeros(n, bool)
        super().__init__(n, [], dtype=dtype)

    def keep_circles(self, circles: NDArray[np.bool_]) -> NDArray[np.bool_]:
        self._circles = np.asarray(circles, bool)
        return circles

    def operation(self) -> operations.LogTails:
        return operations.LogTails(self.input_dim, tuple(np.flatnonzero(~self._circles).tolist()), self.bound)
