"""Rows of a table: never copied whole, gathered batch by batch, missing entries filled in."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from npflows.core.statistics import effective_sample_size
from npflows.training.sharing import SharedTable

PIECE = 65536
"""Rows looked at together at most."""
PIECE_VALUES = 1 << 23
"""Values looked at together, about."""


class NoRowsError(ValueError):
    """A table has no row that could be used."""


class Donors(NamedTuple):
    """Complete rows that stand in for incomplete ones.

    Attributes
    ----------
    x : ndarray (p, d)
    weight : ndarray (p,)
    neighbors : ndarray of uint16 (m, k)
        The donors that are like each incomplete row.
    place : ndarray (m,)
        Chooses among them, between 0 and 1, where nothing is to be drawn.
    """

    x: np.ndarray
    weight: np.ndarray
    neighbors: np.ndarray
    place: np.ndarray


@dataclass
class MissingEntries:
    """Missing entries of some rows of a table, and the complete rows that stand in for them.

    Attributes
    ----------
    rows : ndarray of int (m,)
        Numbers of the incomplete rows, sorted.
    missing : ndarray of bool (m, d)
    donors : Donors, optional
        Without them NaN stands for what is missing.
    """

    rows: np.ndarray
    missing: np.ndarray
    donors: Donors | None = None

    def find(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of some rows are incomplete, and where in `rows` they stand."""
        places = np.minimum(np.searchsorted(self.rows, numbers), len(self.rows) - 1)
        which = np.flatnonzero(self.rows[places] == numbers)
        return which, places[which]

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """Which entries (n, d) of some rows are missing."""
        missing = np.zeros((len(numbers), self.missing.shape[1]), bool)
        which, places = self.find(numbers)
        missing[which] = self.missing[places]
        return missing

    def draw(self, numbers: np.ndarray, rng: np.random.Generator | None) -> np.ndarray | None:
        """What chooses the rows that stand in for the incomplete ones among rows of these numbers; None without `rng`."""
        return None if rng is None or self.donors is None else rng.random(len(self.find(numbers)[0]))

    def fill(self, x: np.ndarray, numbers: np.ndarray, drawn: np.ndarray | None) -> np.ndarray:
        """x (n, d), the rows of these numbers, with values in place of the missing ones."""
        which, places = self.find(numbers)
        if self.donors is None:
            x = x.astype(np.float64)
            x[which] = np.where(self.missing[places], np.nan, x[which])
        elif len(which):
            nearest = self.donors.neighbors[places]
            shares = self.donors.weight[nearest].cumsum(axis=1)
            place = self.donors.place[places] if drawn is None else drawn
            chosen = (shares[:, :-1] <= (place * shares[:, -1])[:, None]).sum(axis=1)
            x[which] = np.where(self.missing[places], self.donors.x[nearest[np.arange(len(places)), chosen]], x[which])
        return x


@dataclass
class Rows:
    """Some rows of a table, with their weights (mean 1, None: all 1) and conditions.

    Attributes
    ----------
    x : ndarray (n, d)
        The user's own array, of any layout and dtype; or what lies on several ranks.
    index : ndarray of int
        The numbers of those of its rows that are meant.
    missing : MissingEntries, optional
        Entries that are missing, and the values that stand in for them.
    """

    x: np.ndarray | SharedTable
    index: np.ndarray
    weight: np.ndarray | None = None
    condition: np.ndarray | SharedTable | None = None
    missing: MissingEntries | None = None

    def __len__(self) -> int:
        return len(self.index)

    def take(
        self, which: np.ndarray, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """x, weight and condition of some of the rows, by their place in `index`.

        Missing entries are drawn from `rng`; without one they are the same each time.
        """
        rows = self.index[which]
        weight = None if self.weight is None else self.weight[rows]
        # take would first copy the whole of an array in another order
        x = self.x.take(rows, axis=0) if isinstance(self.x, np.ndarray) and self.x.flags.c_contiguous else self.x[rows]
        if self.missing is not None:
            x = self.missing.fill(x, rows, self.missing.draw(rows, rng))
        return x, weight, None if self.condition is None else self.condition[rows]

    def pieces(self) -> Iterator[tuple[np.ndarray, np.ndarray | None, np.ndarray | None]]:
        """All rows, in pieces."""
        for start in range(0, len(self), self.at_once):
            yield self.take(np.arange(start, min(start + self.at_once, len(self))))

    def each(self, function: Callable[[np.ndarray, np.ndarray | None], np.ndarray], at_once: int) -> np.ndarray:
        """What a function of x and condition gives for each row (n, ...), which follows from that row alone; each of
        several ranks computes it for the rows that it has."""
        if isinstance(self.x, SharedTable) and self.missing is None and (np.diff(self.index) > 0).all():
            first, last = self.x.mine
            start, stop = np.searchsorted(self.index, [first, last])
            condition = self.condition.shard if isinstance(self.condition, SharedTable) else None
            here = Rows(self.x.shard, self.index[start:stop] - first, None, condition)
            return self.x.joined(here.each(function, at_once))
        pieces = (
            self.take(np.arange(start, min(start + at_once, len(self)))) for start in range(0, max(len(self), 1), at_once)
        )
        return np.concatenate([function(x, condition) for x, _, condition in pieces])

    @property
    def at_once(self) -> int:
        """Rows of a piece."""
        return max(1, min(PIECE, PIECE_VALUES // self.x.shape[1]))

    def checksum(self) -> int:
        """A number that tells other data apart."""
        total = _crc(self.index, 0)
        for start in range(0, len(self.x), PIECE):
            for array in (self.x, self.weight, self.condition):
                if array is not None:
                    total = _crc(array[start : start + PIECE], total)
        if self.missing is not None:
            total = _crc(self.missing.missing, _crc(self.missing.rows, total))
        return total

    @property
    def effective(self) -> float:
        """How many rows of equal weight these are worth: (sum of weights)^2 / (sum of their squares) (Kish 1965)."""
        return float(len(self)) if self.weight is None else effective_sample_size(np.log(self.weight[self.index]), log=True)

    def part(self, which: np.ndarray) -> Rows:
        """Some of the rows, by their place in `index`."""
        return replace(self, index=self.index[which])

    def normalized(self) -> Rows:
        """The same with weights of mean 1 over these rows."""
        if self.weight is None:
            return self
        mean = self.weight[self.index].mean()
        if mean <= 0:
            raise ValueError("all rows on one side of the validation split have weight 0; give validation_data instead")
        with np.errstate(over="ignore", under="ignore"):  # of rows that are not meant
            return replace(self, weight=self.weight / mean)


def _crc(array: np.ndarray, total: int) -> int:
    """The checksum of what came before and of an array."""
    return zlib.crc32(np.ascontiguousarray(array).data, total)
