"""Conditions: standardization, names and an embedding of what users give, and one-hot vectors of class labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.core.backend import IDENTITY
from npflows.core.checks import as_condition, as_int, as_names, as_numeric, as_rows
from npflows.core.parameters import writeable
from npflows.core.special import drawn_in
from npflows.core.table import condition_of
from npflows.core.tables import Header
from npflows.layers.standardize import affine_table
from npflows.networks.embedding import Embedding

FARTHEST = {"float32": 1e18, "float64": 1e150}
"""Standardized conditions beyond it, whose squares leave the range of the compute dtype, count as infinite."""
AT_ONCE, FEW = 65536, 64
"""Rows that are looked at together, and values that Python looks at faster than NumPy."""


class Conditioning:
    """The step between the user's conditions and the context of the layers: standardization, names and an embedding.

    Parameters
    ----------
    dim : int
        Values of a condition, 0 for a flow that takes none.
    embedding : Embedding, optional
        A network that the standardized condition goes through.
    dtype : numpy.dtype
        The compute dtype.

    Attributes
    ----------
    dim : int
    embedding : Embedding or None
    table : ndarray (3, dim), or (3, 0) until it is set
        Location and scale of each value, and the standardized value beyond which it is drawn in by a logarithm.
    header : Header
        The names of the values, and what is done where a table has others.
    """

    table: NDArray[np.float64]

    def __init__(self, dim: int, embedding: Embedding | None = None, dtype: DTypeLike = "float64") -> None:
        self.dim, self.embedding, self.dtype = dim, embedding, np.dtype(dtype)
        self._set(IDENTITY)
        self.header = Header(dim, "condition_columns")

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.table = writeable(self.table)

    def _set(self, table: NDArray[np.float64]) -> None:
        self.table = table
        loc, scale = self._affine
        reach = FARTHEST[self.dtype.name] * float(scale.min()) - float(np.abs(loc).max())
        self._reach = max(reach, 0.0)  # conditions of a smaller norm are near enough

    @property
    def names(self) -> list[str] | None:
        """Names of the values of the condition, None where they have none."""
        return self.header.names

    @names.setter
    def names(self, names: Sequence[str] | None) -> None:
        self.header.give(as_names(names, self.dim, "condition_columns", "the condition"))

    @property
    def labels(self) -> list[str]:
        """Names of the values for messages, by their numbers where they have none."""
        return self.names or [f"column {i}" for i in range(self.dim)]

    def rows(self, condition: ArrayLike | None, n: int, name: str = "condition") -> np.ndarray | None:
        """(n, dim) conditions, one row for all samples or one for each, by name where they have names; None where the flow
        takes none."""
        return as_condition(condition, n, self.dim, self.header, name)

    def of_rows(
        self, x: Any, condition: ArrayLike | None, n: int, name: str = "condition"
    ) -> np.ndarray | None:  # fmt: skip
        """(n, dim) conditions of the n samples of x: those given, else those that come with a `Table`."""
        if condition is None and self.dim:
            condition = condition_of(x, None)
        return as_condition(condition, n, self.dim, self.header, name)

    def finite_rows(self, condition: ArrayLike | None, n: int, what: str) -> np.ndarray | None:
        """The same for what has no answer where a condition is not finite.

        Raises
        ------
        ValueError
            If one is NaN, infinite or beyond the range of the compute dtype.
        """
        rows = self.rows(condition, n)
        self.check_finite(rows, what)
        return rows

    def each(self, condition: ArrayLike, what: str, name: str = "condition") -> np.ndarray:
        """(m, dim) finite conditions, of which there may be any number."""
        rows = self.any_rows(condition, name)
        self.check_finite(rows, what, name)
        return rows

    def any_rows(self, condition: ArrayLike, name: str = "condition") -> np.ndarray:
        """(m, dim) conditions, of which there may be any number."""
        return as_rows(condition, (self.dim,), name, self.header)[0]

    def check_finite(self, rows: np.ndarray | None, what: str, name: str = "condition") -> None:
        """Refuse conditions (n, dim) that are NaN, infinite or beyond the range of the compute dtype."""
        lost = self.lost(rows)
        if lost is None or rows is None:
            return
        bad = np.flatnonzero(lost)
        if rows.strides[0] == 0:
            bad = bad[:1]
        row = np.asarray(rows[bad[0]], np.float64)
        column = int(np.argmin(self._is_near(row)))
        far = f", beyond the range of {self.dtype.name}" if np.isfinite(row[column]) else ""
        more = f", and {len(bad) - 1} more rows have such values" if len(bad) > 1 else ""
        raise ValueError(
            f"{what} needs a finite {name}: {self.labels[column]} of row {bad[0]} is {row[column]:g}{far}{more}; leave "
            f"such rows out"
        )

    def lost(self, condition: np.ndarray | None) -> NDArray[np.bool_] | None:
        """Which of the conditions (n, dim) are NaN, infinite or beyond the range of the compute dtype; None for none."""
        if condition is None or not len(condition):
            return None
        if condition.size <= FEW and condition.dtype.kind == "f" and math.hypot(*condition.ravel().tolist()) < self._reach:
            return None
        rows = condition[:1] if condition.strides[0] == 0 else condition
        parts = [~self._is_near(rows[i : i + AT_ONCE]).all(axis=1) for i in range(0, len(rows), AT_ONCE)]
        lost = np.concatenate(parts)
        return np.broadcast_to(lost, len(condition)) if lost.any() else None

    def without(self, condition: np.ndarray | None, lost: np.ndarray) -> np.ndarray | None:
        """A copy with finite values in place of the rows that are lost."""
        return None if condition is None else np.where(lost[:, None], self._affine[0], condition)

    def _is_near(self, rows: np.ndarray) -> np.ndarray:
        """Which values (n, dim) are within the range of the compute dtype once they are standardized."""
        loc, scale = self._affine
        with np.errstate(all="ignore"):
            return np.abs(rows - loc) <= FARTHEST[self.dtype.name] * scale

    @property
    def _affine(self) -> np.ndarray:
        """Location and scale, one number each until they are set."""
        return self.table[:2] if self.table.shape[1] else np.array([[0.0], [1.0]])

    @property
    def loc(self) -> NDArray[np.float64] | None:
        """The location (dim,) of the standardization, 0 until it is set; None without a condition."""
        return self._row(0, 0.0)

    @property
    def scale(self) -> NDArray[np.float64] | None:
        """The scale (dim,) of the standardization, 1 until it is set; None without a condition."""
        return self._row(1, 1.0)

    def _row(self, row: int, unset: float) -> np.ndarray | None:
        if not self.dim:
            return None
        return self.table[row].copy() if self.table.shape[1] else np.full(self.dim, unset)

    def standardize(self, loc: ArrayLike, scale: ArrayLike, tails: ArrayLike = math.inf) -> None:
        """Set location, scale and where tails begin, after a check."""
        bounds = np.broadcast_to(np.asarray(tails, np.float64), (self.dim,))
        if not (bounds > 0).all():  # NaN is not
            raise ValueError(f"tails must be above 0, infinity for none, got {tails!r}")
        self._set(np.stack([*affine_table(loc, scale, self.dim)[:2], bounds]))

    def learned(self) -> NDArray[np.float64]:
        """The table to save, without tails where there are none; `standardize` takes its rows."""
        return self.table if np.isfinite(self.table[2]).any() else self.table[:2]

    def forget(self) -> None:
        """Undo everything that was set from data."""
        self._set(IDENTITY)
        self.header.forget()

    def inner(self, condition: np.ndarray | None) -> np.ndarray | None:
        """A condition (n, dim) as the layers see it: standardized, and embedded where there is an embedding."""
        if condition is None:
            return None
        table = self.table
        values = np.array(condition, np.float64)
        if table.shape[1]:
            values = drawn_in((values - table[0]) / table[1], table[2])
        return values if self.embedding is None else self.embedding(values)


def is_learned_table(table: NDArray, dim: int) -> bool:
    """Whether a table is what `Conditioning.learned` gives for so many values, or none."""
    if table.dtype.kind != "f" or table.shape not in ((2, 0), (2, dim), (3, dim)):
        return False
    return bool(np.isfinite(table[:2]).all() and (table[1:] > 0).all())


def one_hot(labels: ArrayLike, num_classes: int | None = None) -> NDArray[np.float64]:
    """Integer class labels as conditions: 1 in the column of the label, 0 elsewhere.

    Parameters
    ----------
    labels : array_like of int (n,)
        0, 1, ..., num_classes - 1; a single one as well.
    num_classes : int, optional
        By default one more than the largest label.

    Returns
    -------
    ndarray (n, num_classes), or (num_classes,) for a single label
    """
    values = as_numeric(labels, "labels")
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int64)
    if values.ndim > 1 or (values != whole).any():
        raise ValueError(f"labels must be whole numbers in one dimension, got {values.dtype} of shape {values.shape}")
    n_classes = int(whole.max(initial=-1)) + 1 if num_classes is None else as_int(num_classes, "num_classes")
    if whole.size and (whole.min() < 0 or whole.max() >= n_classes):
        wanted = "be at least 0" if num_classes is None else f"lie between 0 and {n_classes - 1}"
        raise ValueError(f"labels must {wanted}, got {whole.min()} to {whole.max()}")
    return (whole[..., None] == np.arange(n_classes)).astype(np.float64)
