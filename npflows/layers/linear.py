"""An invertible linear layer by its LU factors (Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.core import operations
from npflows.core.checks import SeedLike, as_int, as_rng, given_order
from npflows.core.parameters import Parameter
from npflows.layers.layer import Layer


class LULinear(Layer):
    """y = L S U P x + shift, with a fixed permutation P, a unit lower and an upper triangular factor, and fixed signs S.

    The determinant is the product of U's diagonal, which is kept positive by its logarithm, so the layer can't become
    singular (Oliva et al. 2018, arXiv:1801.09819; Kingma and Dhariwal 2018, arXiv:1807.03039, equation 11).  Its sign is
    that of P and S.  In a flow with columns on circles, P moves all values, and the rest acts on those of the line alone.

    Parameters
    ----------
    input_dim : int
        Number of features.
    order : {"random", "natural"} or array_like of int
        The permutation: drawn from `rng`, none, or given.
    signs : array_like of int (input_dim,), optional
        The diagonal of S, each 1 or -1; all 1 by default.
    dtype : {"float32", "float64"}
        The compute dtype.
    rng : int, numpy.random.Generator or None
        The layer starts as the permutation and the signs.
    """

    def __init__(
        self,
        input_dim: int,
        order: ArrayLike = "random",
        signs: ArrayLike | None = None,
        *,
        dtype: DTypeLike = "float32",
        rng: SeedLike = None,
    ) -> None:
        n = as_int(input_dim, "input_dim")
        self.order = given_order(order, n, {"random": lambda: as_rng(rng).permutation(n), "natural": lambda: np.arange(n)})
        self.signs = None if signs is None else _as_signs(signs, n)
        parameters = [Parameter("matrix", np.broadcast_to(0.0, (n, n))), Parameter("shift", np.zeros(n))]
        super().__init__(n, parameters, dtype=dtype)

    def keep_circles(self, circles: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The matrix acts on the other values alone: the rows and columns of circles become those of the identity for
        good, and no parameters any more.

        Raises
        ------
        ValueError
            If the sign of a circle is -1.
        """
        after = circles[self.order]
        if self.signs is not None and (self.signs[after] < 0).any():
            raise ValueError(f"{self!r} changes the sign of a value on a circle: give circles a sign of 1")
        self._fix_at_zero({"matrix": after[:, None] | after, "shift": after})
        return after

    def operation(self) -> operations.LULinear:
        signs = () if self.signs is None else tuple(self.signs.tolist())
        return operations.LULinear(tuple(self.order.tolist()), signs)


def _as_signs(signs: ArrayLike, n: int) -> NDArray[np.int64]:
    """A sign 1 or -1 for each of n values, after a check."""
    values = np.asarray(signs)
    if values.shape != (n,) or values.dtype.kind not in "iuf" or not np.isin(values, (1, -1)).all():
        raise ValueError(f"signs must be 1 or -1 for each of {n} values, got {signs!r}")
    return values.astype(np.int64)
