"""The affine map from the user's units, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.core.backend import State
from npflows.core.checks import as_int
from npflows.core.operations import Program
from npflows.core.parameters import writeable
from npflows.layers.layer import Layer


class Standardize(Layer):
    """y = (x - loc) / scale for each column, computed in float64 before anything is narrowed to the compute dtype.

    As the first layer of a flow it is part of the flow's density, so that log_prob is in the user's units.  `loc` and
    `scale` are no parameters: `fit` sets them once from the training data.

    Parameters
    ----------
    input_dim : int
        Number of columns.
    loc, scale : float or array_like (input_dim,)
        Location and (positive) scale of each column.
    dtype : {"float32", "float64"}
    """

    table: NDArray[np.float64]
    _circles: NDArray[np.bool_] | bool = False

    def __init__(
        self, input_dim: int, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0, *, dtype: DTypeLike = "float32"
    ) -> None:
        n = as_int(input_dim, "input_dim")
        super().__init__(n, [], dtype=dtype)
        self.table = affine_table(loc, scale, n)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.table = writeable(self.table)

    def set(self, loc: ArrayLike, scale: ArrayLike) -> None:
        """Set location and scale; columns on circles take 0 and 1 alone."""
        table = affine_table(loc, scale, self.input_dim)
        moved = np.flatnonzero(((table[0] != 0) | (table[1] != 1)) & self._circles)
        if len(moved):
            which = ", ".join(map(str, moved))
            raise ValueError(f"column {which} is on a circle: loc must be 0 and scale 1, got loc={loc!s}, scale={scale!s}")
        self.table = table

    @property
    def loc(self) -> NDArray[np.float64]:
        """Location of each column, a copy."""
        return self.table[0].copy()

    @property
    def scale(self) -> NDArray[np.float64]:
        """Scale of each column, a copy."""
        return self.table[1].copy()

    def keep_circles(self, circles: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The same circles, whose columns must have location 0 and scale 1."""
        self._circles = circles
        self.set(self.loc, self.scale)
        return circles

    def state(self) -> State:
        """The parameters, of which there are none, and the table of locations and scales."""
        return State(self.parameters.theta, self.table)

    def program(self) -> Program:
        """A program without operations that standardizes."""
        return Program((), self.input_dim, self.input_dim, standardized=True)


def affine_table(loc: ArrayLike, scale: ArrayLike, n: int) -> NDArray[np.float64]:
    """Location, scale and its logarithm (3, n), after a check."""
    loc, scale = (np.broadcast_to(np.asarray(v, np.float64), (n,)) for v in (loc, scale))
    if not (np.isfinite(loc).all() and np.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError(f"loc must be finite and scale finite and positive, got loc={loc}, scale={scale}")
    return np.stack([loc, scale, np.log(scale)])
