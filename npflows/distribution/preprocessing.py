"""The step between the user's samples and the numbers that layers compute with, in float64."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from npflows.core.checks import SeedLike, as_int, as_names, as_rng, as_rows
from npflows.core.evaluation import Unconstrained
from npflows.core.tables import Header
from npflows.layers.standardize import Standardize
from npflows.support.cells import EDGE, CellBijection
from npflows.support.pixels import Pixels


class Preprocessing:
    """Support, places of whole numbers in their cells, standardization and names of the columns of samples.

    From the user's values x to what the layers see: whole numbers are placed in their cells (`center`, `scatter`,
    `cells`), `bijection` takes the values to the whole line, and `standardization` is the affine map from there, the first
    layer of every flow.  Samples come back by the inverse of these, and `round`.

    `to_unconstrained` and `from_unconstrained` go to the line and back.  `bijection` and `standardization.table` are what
    `npflows.core.evaluation` and backends take: these apply both chunk by chunk, so that no table is copied whole.

    Parameters
    ----------
    standardization : Standardize
    bijection : CellBijection, optional
        None where every column is the whole line already.
    names : sequence of str, optional
        Names of the columns.

    Attributes
    ----------
    standardization : Standardize
    is_standardized : bool
        Whether location and scale have been set from data, so that no later fit sets them.
    bijection : CellBijection or None
    periodic, integer : ndarray of bool (d,)
        The columns on circles, and those of whole numbers.
    has_support : bool
        Whether some column is not the whole line.
    has_integers : bool
        Whether there are any of the latter.
    is_image : bool
        Whether samples are images of whole-number pixels.
    bound : float
        Circles become the interval [-bound, bound] on the line.
    header : Header
        The names of the columns, and what is done where a table has others.
    """

    def __init__(
        self, standardization: Standardize, bijection: CellBijection | None = None, names: Sequence[str] | None = None
    ) -> None:
        n = standardization.input_dim
        self.standardization, self.is_standardized = standardization, False
        self.bijection = bijection
        self.periodic, self.integer = np.zeros((2, n), bool)
        self.bound = 1.0
        if bijection is not None:
            self.periodic, self.integer, self.bound = bijection.periodic, bijection.integer, bijection.bound
        self.has_support, self.has_integers = bijection is not None, bool(self.integer.any())
        self._whole = bijection if self.has_integers else None
        self.is_image = isinstance(bijection, Pixels)
        self.header = Header(n, "columns")
        self.names = as_names(names, n, "columns", "a sample")

    @property
    def names(self) -> list[str] | None:
        """Names of the columns, None where they have none."""
        return self.header.names

    @names.setter
    def names(self, names: Sequence[str] | None) -> None:
        self.header.give(as_names(names, self.header.n, "columns", "a sample"))

    @property
    def labels(self) -> list[str]:
        """Names of the columns for messages, by their numbers where they have none."""
        return self.names or [f"column {d}" for d in range(self.standardization.input_dim)]

    @property
    def pixel_dtype(self) -> str | None:
        """The dtype of samples that are images of whole numbers, as a string; None for all others."""
        dtype = None if self.bijection is None else self.bijection.dtype
        return None if dtype is None else dtype.str

    def mark_standardized(self, done: bool = True) -> None:
        """Say whether location and scale have been set from data, so that no later fit sets them."""
        self.is_standardized = done

    def remember(self, dtype: np.dtype) -> None:
        """Take note of the dtype of the training data, which images of whole numbers that are sampled have too."""
        if self.bijection is not None:
            self.bijection.remember(dtype)

    def forget(self) -> None:
        """Undo everything that was set from data."""
        self.standardization.set(0.0, 1.0)
        self.mark_standardized(False)
        self.header.forget()
        if self.bijection is not None:
            self.bijection.forget()

    def rows(self, x: ArrayLike, shape: tuple[int, ...], name: str = "x") -> tuple[np.ndarray, bool]:
        """(n, d) rows of samples of a shape, by name where they have names, and whether a single one came without its
        axis."""
        return as_rows(x, shape, name, self.header)

    def check(self, x: np.ndarray, name: str) -> None:
        """Refuse rows that can't be samples.  Rows outside the support are let through; their density is 0."""
        if self.bijection is not None:
            self.bijection.check(x, name)

    def outside(self, x: np.ndarray) -> dict[int, int]:
        """How many rows each column has outside its support, where there are any; NaN and infinity do not count."""
        return {} if self.bijection is None else self.bijection.outside(x)

    def center(self, x: np.ndarray) -> np.ndarray:
        """Rows with whole numbers in the middle of their cells."""
        return x if self._whole is None else self._whole.dequantize(x)

    def scatter(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Rows with whole numbers at random places of their cells, each for itself."""
        return x if self._whole is None else self._whole.scatter(x, rng)

    def cells(self, x: np.ndarray, draws: int, rng: SeedLike) -> Iterable[np.ndarray]:
        """The rows; with whole numbers, as many copies as `draws` with these at random places of their cells, the same
        for all rows."""
        return [x] if self._whole is None else self._whole.cells(x, as_int(draws, "draws"), as_rng(rng))

    def round(self, x: np.ndarray) -> np.ndarray:
        """Rows with the whole number of each cell, perhaps in place."""
        return x if self._whole is None else self._whole.quantize(x)

    def to_unconstrained(self, x: np.ndarray) -> Unconstrained:
        """Rows on the line, from rows with whole numbers placed in their cells already."""
        if self.bijection is None:
            return Unconstrained(x, np.zeros(len(x)), np.ones(len(x), bool))
        return self.bijection.to_unconstrained(x)

    def from_unconstrained(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows from the line, whole numbers somewhere in their cells (see `round`), with log |det dx/dt|."""
        if self.bijection is None:
            return t, np.zeros(len(t))
        return self.bijection.from_unconstrained(t)

    def on_line(self, x: np.ndarray, place: float = 0.5) -> np.ndarray:
        """Rows on the line, whole numbers from one place, between 0 and 1, of their cells."""
        if self.bijection is None:
            return x
        return self.bijection.to_unconstrained(self.bijection.dequantize(x, place)).t

    def ends_on_line(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows on the line, whole numbers from the lower ends of their cells, and from the upper ends."""
        return self.on_line(x, EDGE), self.on_line(x, 1 - EDGE)
