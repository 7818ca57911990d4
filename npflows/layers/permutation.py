"""Fixed permutations of the values of a sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.core import operations
from npflows.core.checks import SeedLike, as_int, as_rng, given_order
from npflows.layers.layer import Layer


class Permutation(Layer):
    """y[:, k] = x[:, order[k]], with log_det 0.

    Parameters
    ----------
    input_dim : int
        Number of features.
    order : {"reverse", "random"} or array_like of int
        Reversed, drawn once from `rng`, or given.
    dtype : {"float32", "float64"}
    rng : int, numpy.random.Generator or None
    """

    def __init__(
        self,
        input_dim: int,
        order: ArrayLike = "reverse",
        *,
        dtype: DTypeLike = "float32",
        rng: SeedLike = None,
    ) -> None:
        n = as_int(input_dim, "input_dim")
        named = {"reverse": lambda: np.arange(n)[::-1].copy(), "random": lambda: as_rng(rng).permutation(n)}
        self.order = given_order(order, n, named)
        super().__init__(n, [], dtype=dtype)

    def keep_circles(self, circles: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return circles[self.order]

    def operation(self) -> operations.Permutation:
        return operations.Permutation(tuple(self.order.tolist()))
