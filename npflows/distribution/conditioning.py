"""Conditions: standardization, names and an embedding of what users give, and one-hot vectors of class labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.core.backend import IDENTITY
from npflows.core.checks import as_int, as_names, as_numeric
from npflows.core.parameters import writeable
from npflows.layers.standardize import affine_table
from npflows.networks.embedding import Embedding


class Conditioning:
    """The step between the user's conditions and the context of the layers: standardization, names and an embedding.

    Parameters
    ----------
    dim : int
        Values of a condition, 0 for a flow that takes none.
    embedding : Embedding, optional
        A network that the standardized condition goes through.

    Attributes
    ----------
    dim : int
    embedding : Embedding or None
    table : ndarray (3, dim), or (3, 0) until it is set
        Location, scale and logarithm of the scale of each value.
    """

    def __init__(self, dim: int, embedding: Embedding | None = None) -> None:
        self.dim, self.embedding = dim, embedding
        self.table = IDENTITY
        self._names: list[str] | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.table = writeable(self.table)

    @property
    def names(self) -> list[str] | None:
        """Names of the values of the condition, None where they have none."""
        return self._names

    @names.setter
    def names(self, names: Sequence[str] | None) -> None:
        self._names = as_names(names, self.dim, "condition_columns", "the condition")

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

    def standardize(self, loc: ArrayLike, scale: ArrayLike) -> None:
        """Set location and scale, after a check."""
        self.table = affine_table(loc, scale, self.dim)

    def forget(self) -> None:
        """Undo `standardize`."""
        self.table = IDENTITY

    def inner(self, condition: np.ndarray | None) -> np.ndarray | None:
        """A condition (n, dim) as the layers see it: standardized, and embedded where there is an embedding."""
        if condition is None:
            return None
        table = self.table
        values = (condition - table[0]) / table[1] if table.shape[1] else np.array(condition, np.float64)
        return values if self.embedding is None else self.embedding(values)


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
