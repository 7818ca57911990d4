"""Missing entries of a table: which they are, and what a fit makes of them.

A row with missing entries is left out, or used with the entries of a complete row that is like it where it was observed
(hot-deck imputation among nearest neighbours; Andridge and Little 2010, doi:10.1111/j.1751-5823.2010.00103.x), another
one each time, so that the fit averages over what they might have been.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from npflows.backends.cpu.threads.pool import get_num_threads
from npflows.core.checks import as_choice, warn_user
from npflows.core.columns import column_number
from npflows.training.data import PIECE, Rows
from npflows.training.initialization import moments, on_line

if TYPE_CHECKING:
    from npflows.flow import NormalizingFlow

NEIGHBOURS = 10
"""Complete rows that stand in for an incomplete one."""
POOL = 20000
"""Complete rows among which they are sought, at most; their places are kept in 16 bits."""
SLACK = 1.0
"""The k-th of them may be farther than the k-th nearest by this share; most are not by 1 %, in an eighth of the time."""
JITTER = 1e-6
"""Standard deviations by which rows differ that are alike, so that neighbours among them are chosen at random."""


@dataclass
class Missing:
    """What stands for a missing entry of each column, NaN perhaps, and what is done about it."""

    values: Sequence[tuple[float, ...]]
    impute: bool

    def entries(self, x: np.ndarray) -> np.ndarray:
        """Which of x (n, d) are missing."""
        missing = np.zeros(x.shape, bool)
        for d, values in enumerate(self.values):
            for value in values:
                missing[:, d] |= np.isnan(x[:, d]) if math.isnan(value) else x[:, d] == value
        return missing

    def apply(self, rows: Rows, name: str) -> Rows:
        """The rows without those that can't be used, and with their holes if they are to be filled; says what was done."""
        incomplete, parts, start = [], [], 0
        for x, _, _ in rows.pieces():
            missing = self.entries(x)
            incomplete.append(start + np.flatnonzero(missing.any(axis=1)))
            parts.append(missing[missing.any(axis=1)])
            start += len(x)
        places, missing = np.concatenate(incomplete), np.concatenate(parts)
        useless = missing.all(axis=1) if self.impute else np.ones(len(missing), bool)
        if useless.any():
            if useless.sum() == len(rows):
                kind = "with an entry that is not missing" if self.impute else "without missing entries"
                raise ValueError(f"{name} has no row {kind}")
            kind = "no entry that is not missing" if self.impute else "missing entries"
            warn_user(f"{name}: dropped {useless.sum()} of {len(rows.x)} rows, which have {kind}")
        index = rows.index
        rows = rows.part(np.delete(np.arange(len(rows)), places[useless]))
        if useless.all():
            return rows
        numbers, missing = index[places[~useless]], missing[~useless]
        warn_user(
            f"{name}: {missing.sum()} entries are missing in {len(missing)} of {len(rows.x)} rows; each time such a row is "
            f"used, they are those of a complete row, drawn from the {NEIGHBOURS} nearest in the entries that it has"
        )
        return replace(rows, holes=Holes(numbers, missing))


def as_missing(flow: NormalizingFlow, missing: object, on_missing: str) -> Missing | None:
    """What `fit` takes."""
    impute = as_choice(on_missing, "on_missing", ("drop", "impute")) == "impute"
    if missing is None:
        if impute:
            raise ValueError('on_missing="impute" needs missing=, what stands for a missing entry: "nan", 99.0, ...')
        return None
    n = flow.latent_dim
    if not isinstance(missing, Mapping):
        return Missing([_as_values(missing)] * n, impute)
    values: list[tuple[float, ...]] = [()] * n
    for key, given in missing.items():
        values[column_number(key, n, flow.columns, owner="missing")] = _as_values(given)
    return Missing(values, impute)


def is_nan(given: object) -> bool:
    """Whether NaN is among what is declared to be missing."""
    several = _several(given)
    return any(value == "nan" if isinstance(value, str) else value is not None and value != value for value in several)


def _several(given: object) -> list:
    return list(given) if isinstance(given, (Sequence, np.ndarray)) and not isinstance(given, str) else [given]


def _as_values(given: object) -> tuple[float, ...]:
    several = _several(given)
    values = [math.nan if isinstance(value, str) and value == "nan" else value for value in several]
    if not values or any(isinstance(v, bool) or not isinstance(v, (int, float, np.number)) for v in values):
        raise ValueError(f'missing must be a number, "nan", several of them or a mapping of columns to them, got {given!r}')
    return tuple(float(value) for value in values)


@dataclass
class Holes:
    """Missing entries of some rows of a table, and what stands in for them.

    Attributes
    ----------
    rows : ndarray of int (m,)
        Numbers of the incomplete rows, sorted.
    missing : ndarray of bool (m, d)
    pool : Pool, optional
        Complete rows; without it NaN stands in the holes.
    neighbours : ndarray of uint16 (m, k)
        Which rows of the pool are like each row.
    place : ndarray (m,)
        What chooses among them, between 0 and 1, where nothing is to be drawn.
    """

    rows: np.ndarray
    missing: np.ndarray
    pool: Pool | None = None
    neighbours: np.ndarray | None = None
    place: np.ndarray | None = None

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

    def fill(self, x: np.ndarray, numbers: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """x (n, d), the rows of these numbers, with something in the holes."""
        which, places = self.find(numbers)
        if self.pool is None:
            x = x.astype(np.float64)
            x[which] = np.where(self.missing[places], np.nan, x[which])
        elif len(which):
            nearest = self.neighbours[places]
            shares = self.pool.weight[nearest].cumsum(axis=1)
            place = self.place[places] if rng is None else rng.random(len(places))
            chosen = (shares[:, :-1] <= (place * shares[:, -1])[:, None]).sum(axis=1)
            x[which] = np.where(self.missing[places], self.pool.x[nearest[np.arange(len(places)), chosen]], x[which])
        return x


class Pool:
    """Complete rows that stand in for others.

    Parameters
    ----------
    flow : NormalizingFlow
    rows : Rows
        Those that the flow is trained on.
    """

    def __init__(self, flow: NormalizingFlow, rows: Rows) -> None:
        self.flow, rng = flow, np.random.default_rng(0)
        complete = np.arange(len(rows))
        if rows.holes is not None:
            complete = np.delete(complete, rows.holes.find(rows.index)[0])
        if not len(complete):
            raise ValueError("x has no complete row among those to train on, from which missing entries could be taken")
        if len(complete) > POOL:
            complete = np.sort(rng.choice(complete, POOL, replace=False))
        self.x, weight, condition = rows.take(complete)
        self.weight = np.ones(len(self.x)) if weight is None else weight
        circles = np.zeros(flow.latent_dim, bool) if flow._support is None else flow._support.periodic
        self._line, self._circle = np.flatnonzero(~circles), np.flatnonzero(circles)
        features = self._features(self.x, condition)
        self._loc, scale = moments(lambda: iter([(features, None)]), len(features))
        self._scale = np.where(scale == 0, 1.0, scale)
        self._table = self._standardised(features, rng)

    def _features(self, x: np.ndarray, condition: np.ndarray | None) -> np.ndarray:
        """What rows are compared by: columns on the line, cosine and sine of those on circles, conditions."""
        t = on_line(self.flow, x)
        turn = t[:, self._circle] * (np.pi / self.flow._support.bound if len(self._circle) else 1.0)
        return np.column_stack([t[:, self._line], np.cos(turn), np.sin(turn), *([] if condition is None else [condition])])

    def _standardised(self, features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.column_stack([(features - self._loc) / self._scale, JITTER * rng.standard_normal(len(features))])

    def stand_in(self, rows: Rows) -> Rows:
        """The rows with complete ones for those of them that are incomplete."""
        from scipy.spatial import cKDTree

        if rows.holes is None:
            return rows
        mine = np.isin(rows.holes.rows, rows.index)
        if not mine.any():
            return replace(rows, holes=None)
        numbers, missing, rng = rows.holes.rows[mine], rows.holes.missing[mine], np.random.default_rng(0)
        blank = replace(rows, index=numbers, holes=Holes(numbers, missing))
        neighbours = np.empty((len(numbers), min(NEIGHBOURS, len(self.x))), np.uint16)
        patterns, which, counts = np.unique(missing, axis=0, return_inverse=True, return_counts=True)
        groups = np.split(np.argsort(which.ravel(), kind="stable"), counts.cumsum()[:-1])
        for pattern, group in zip(patterns, groups):
            hidden = np.concatenate([pattern[self._line], pattern[self._circle], pattern[self._circle]])
            seen = np.append(np.flatnonzero(~hidden), np.arange(len(hidden), self._table.shape[1]))
            tree = cKDTree(self._table[:, seen], balanced_tree=False)
            for start in range(0, len(group), PIECE):
                part = group[start : start + PIECE]
                x, _, condition = blank.take(part)
                table = self._standardised(self._features(x, condition), rng)
                k = np.arange(1, neighbours.shape[1] + 1)
                neighbours[part] = tree.query(table[:, seen], k, eps=SLACK, workers=get_num_threads())[1]
        return replace(rows, holes=Holes(numbers, missing, self, neighbours, rng.random(len(numbers))))


def filled(flow: NormalizingFlow, train: Rows, validation: Rows | None) -> tuple[Rows, Rows | None]:
    """Training and validation rows with complete training rows that stand in for the incomplete ones."""
    if all(rows is None or rows.holes is None for rows in (train, validation)):
        return train, validation
    pool = Pool(flow, train)
    return pool.stand_in(train), validation and pool.stand_in(validation)
