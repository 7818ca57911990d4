"""An invertible linear layer by its LU factors (Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.core import operations
from npflows.core.checks import SeedLike, as_int, as_rng, given_order
from npflows.core.parameters import Parameter
from npflows.layers.layer import Layer


class LULinear(Layer):
    """y = L U P x + shift, with a fixed permutation P, a unit lower and an upper triangular factor.

    The determinant is the product of U's diagonal, which is kept positive by its logarithm, so the layer can't become
    singular (Oliva et al. 2018, arXiv:1801.09819; Kingma and Dhariwal 2018, arXiv:1807.03039, equation 11).  In a flow with
    columns on circles, P moves all values, and the rest acts on those of the line alone.

    Parameters
    ----------
    input_dim : int
        Number of features.
    order : {"random", "natural"} or array_like of int
        The permutation: drawn from `rng`, none, or given.
    dtype : {"float32", "float64"}
        The compute dtype.
    rng : int, numpy.random.Generator or None
        The layer starts as the permutation.
    """

    def __init__(
        self,
        input_dim: int,
        order: ArrayLike = "random",
        *,
        dtype: DTypeLike = "float32",
        rng: SeedLike = None,
    ) -> None:
        n = as_int(input_dim, "input_dim")
        self.order = given_order(order, n, {"random": lambda: as_rng(rng).permutation(n), "natural": lambda: np.arange(n)})
        parameters = [Parameter("matrix", np.broadcast_to(0.0, (n, n))), Parameter("shift", np.zeros(n))]
        super().__init__(n, parameters, dtype=dtype)

    def keep_circles(self, circles: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The matrix acts on the other values alone: the rows and columns of circles become those of the identity for
        good, and no parameters any more."""
        after = circles[self.order]
        self._fix_at_zero({"matrix": after[:, None] | after, "shift": after})
        return after

    def operation(self) -> operations.LULinear:
        return operations.LULinear(tuple(self.order.tolist()))
