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
    """y = (x - loc) / scale for each column, computed in float64 before anything is narrowed to the compute dtype; with a
    factor F, the y for which F y is that.

    As the first layer of a flow it is part of the flow's density, so that log_prob is in the user's units.  `loc`,
    `scale` and `factor` are no parameters: `fit` sets them once from the training data.

    Parameters
    ----------
    input_dim : int
        Number of columns.
    loc, scale : float or array_like (input_dim,)
        Location and (positive) scale of each column.
    factor : array_like (input_dim, input_dim), optional
        A lower triangular matrix with a positive diagonal: the Cholesky factor of the columns' correlations makes them
        uncorrelated.
    dtype : {"float32", "float64"}
    """

    table: NDArray[np.float64]
    _circles: NDArray[np.bool_] | bool = False

    def __init__(
        self,
        input_dim: int,
        loc: ArrayLike = 0.0,
        scale: ArrayLike = 1.0,
        factor: ArrayLike | None = None,
        *,
        dtype: DTypeLike = "float32",
    ) -> None:
        n = as_int(input_dim, "input_dim")
        super().__init__(n, [], dtype=dtype)
        self.table = _with_factor(affine_table(loc, scale, n), factor)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.table = writeable(self.table)

    def set(self, loc: ArrayLike, scale: ArrayLike, factor: ArrayLike | None = None) -> None:
        """Set location, scale and perhaps the factor; columns on circles take 0 and 1 alone, and mix with no other."""
        table = _with_factor(affine_table(loc, scale, self.input_dim), factor)
        moved = np.flatnonzero(((table[0] != 0) | (table[1] != 1)) & self._circles)
        if len(moved):
            which = ", ".join(map(str, moved))
            raise ValueError(f"column {which} is on a circle: loc must be 0 and scale 1, got loc={loc!s}, scale={scale!s}")
        circles = np.broadcast_to(self._circles, (self.input_dim,))
        mixed = np.flatnonzero(circles & (coupled(table[3:]) if len(table) > 3 else False))
        if len(mixed):
            raise ValueError(f"column {', '.join(map(str, mixed))} is on a circle: factor must not mix it with others")
        self.table = table

    @property
    def loc(self) -> NDArray[np.float64]:
        """Location of each column, a copy."""
        return self.table[0].copy()

    @property
    def scale(self) -> NDArray[np.float64]:
        """Scale of each column, a copy."""
        return self.table[1].copy()

    @property
    def factor(self) -> NDArray[np.float64] | None:
        """The lower triangular matrix, a copy; None where columns are not mixed."""
        return self.table[3:].copy() if len(self.table) > 3 else None

    @property
    def arguments(self) -> dict[str, Any]:
        values = super().arguments
        if values["factor"] is None:
            del values["factor"]  # older versions read what they can
        return values

    def learned(self) -> NDArray[np.float64]:
        """Location, scale and the factor's rows, where there is one, as a table to save; `set` takes its parts."""
        return np.delete(self.table, 2, axis=0)

    def set_learned(self, table: NDArray) -> None:
        """Set what `learned` gave."""
        self.set(table[0], table[1], table[2:] if len(table) > 2 else None)

    def keep_circles(self, circles: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The same circles, whose columns must have location 0 and scale 1."""
        self._circles = circles
        self.set(self.loc, self.scale, self.factor)
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


def is_learned(table: NDArray, n: int) -> bool:
    """Whether a table is what `Standardize.learned` gives for n columns."""
    if table.dtype.kind != "f" or table.shape not in ((2, n), (2 + n, n)) or not np.isfinite(table).all():
        return False
    return bool((table[1] > 0).all()) and (len(table) == 2 or _is_factor(table[2:]))


def _is_factor(factor: NDArray) -> bool:
    return bool((np.diag(factor) > 0).all() and not np.triu(factor, 1).any())


def _with_factor(table: NDArray[np.float64], factor: ArrayLike | None) -> NDArray[np.float64]:
    """The table (3 + n, n) with a factor, after a check; as it is without one."""
    if factor is None:
        return table
    n, rows = table.shape[1], np.asarray(factor, np.float64)
    if rows.shape != (n, n) or not np.isfinite(rows).all() or not _is_factor(rows):
        raise ValueError(f"factor must be a lower triangular ({n}, {n}) matrix with a positive diagonal, got {factor!r}")
    table = np.concatenate([table, rows])
    table[2] += np.log(np.diag(rows))
    return table


def coupled(factor: NDArray) -> NDArray[np.bool_]:
    """The columns that a factor mixes with others, or stretches."""
    moves = factor != np.eye(len(factor))
    return moves.any(axis=0) | moves.any(axis=1)
