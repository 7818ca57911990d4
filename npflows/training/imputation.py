"""Complete rows that stand in for incomplete ones in a fit.

A row with missing entries is used with the entries of a complete row that is like it where it was observed (hot-deck
imputation among nearest neighbors; Andridge and Little 2010, doi:10.1111/j.1751-5823.2010.00103.x), another one each
time, so that the fit averages over what they might have been.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from npflows.core.location_scale import robust_location_scale
from npflows.core.optional import scipy
from npflows.core.threads import get_num_threads
from npflows.core.underflow import ignore_underflow
from npflows.distribution.transformed import TransformedDistribution
from npflows.support.groups import groups_of
from npflows.training.missing import NEIGHBORS
from npflows.training.moments import moments
from npflows.training.rows import PIECE, Donors, MissingEntries, Rows

MOST_DONORS = 20000
"""Complete rows among which neighbors are sought, at most; their places are kept in 16 bits."""
SLACK = 1.0
"""The k-th of them may be farther than the k-th nearest by this share; most are not by 1 %, in an eighth of the time."""
JITTER = 1e-6
"""Standard deviations by which rows differ that are alike, so that neighbors among them are chosen at random."""


class DonorRows:
    """Complete rows that stand in for others.

    Parameters
    ----------
    flow : NormalizingFlow
    rows : Rows
        Those that the flow is trained on.
    """

    def __init__(self, flow: TransformedDistribution, rows: Rows) -> None:
        self.flow, rng = flow, np.random.default_rng(0)
        complete = np.arange(len(rows))
        if rows.missing is not None:
            complete = np.delete(complete, rows.missing.find(rows.index)[0])
        if not len(complete):
            raise ValueError("x has no complete row among those to train on, from which missing entries could be taken")
        if len(complete) > MOST_DONORS:
            complete = np.sort(rng.choice(complete, MOST_DONORS, replace=False))
        self.x, weight, condition = rows.take(complete)
        self.weight = np.ones(len(self.x)) if weight is None else weight
        circles = flow.preprocessing.periodic
        self._line, self._circle = np.flatnonzero(~circles), np.flatnonzero(circles)
        features = self._features(self.x, condition)
        found = moments(lambda: iter([(features, None)]), len(features))
        self._loc, scale, _, _ = robust_location_scale(features, None, found.loc, found.scale)
        self._scale = np.where(scale == 0, 1.0, scale)
        self._table = self._standardized(features, rng)

    def _features(self, x: np.ndarray, condition: np.ndarray | None) -> np.ndarray:
        """The numbers by which rows are compared: columns on the line, cosine and sine of those on circles, conditions."""
        t = self.flow.preprocessing.on_line(x)
        turn = t[:, self._circle] * (np.pi / self.flow.preprocessing.bound)
        return np.column_stack([t[:, self._line], np.cos(turn), np.sin(turn), *([] if condition is None else [condition])])

    def _standardized(self, features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.column_stack([(features - self._loc) / self._scale, JITTER * rng.standard_normal(len(features))])

    def stand_in(self, rows: Rows) -> Rows:
        """The rows with complete ones for those of them that are incomplete."""
        if rows.missing is None:
            return rows
        mine = np.isin(rows.missing.rows, rows.index)
        if not mine.any():
            return replace(rows, missing=None)
        _refuse_parts_of_groups(self.flow, rows.missing.missing[mine])
        spatial = scipy("spatial", 'on_missing="impute"')
        numbers, missing, rng = rows.missing.rows[mine], rows.missing.missing[mine], np.random.default_rng(0)
        blank = replace(rows, index=numbers, missing=MissingEntries(numbers, missing))
        neighbors = np.empty((len(numbers), min(NEIGHBORS, len(self.x))), np.uint16)
        patterns, which, counts = np.unique(missing, axis=0, return_inverse=True, return_counts=True)
        groups = np.split(np.argsort(which.ravel(), kind="stable"), counts.cumsum()[:-1])
        for pattern, group in zip(patterns, groups):
            hidden = np.concatenate([pattern[self._line], pattern[self._circle], pattern[self._circle]])
            seen = np.append(np.flatnonzero(~hidden), np.arange(len(hidden), self._table.shape[1]))
            tree = spatial.cKDTree(self._table[:, seen], balanced_tree=False)
            for start in range(0, len(group), PIECE):
                part = group[start : start + PIECE]
                x, _, condition = blank.take(part)
                table = self._standardized(self._features(x, condition), rng)
                k = np.arange(1, neighbors.shape[1] + 1)
                neighbors[part] = tree.query(table[:, seen], k, eps=SLACK, workers=get_num_threads())[1]
        place = rng.random(len(numbers))
        return replace(rows, missing=MissingEntries(numbers, missing, Donors(self.x, self.weight, neighbors, place)))


def _refuse_parts_of_groups(flow: TransformedDistribution, missing: np.ndarray) -> None:
    """Refuse rows that lack some columns of a group but not all: what another row has there need not fit theirs."""
    for group, where in groups_of(flow.support or ()):
        lacking = missing[:, where]
        n = int((lacking.any(axis=1) & ~lacking.all(axis=1)).sum())
        if n:
            raise ValueError(
                f"{n} rows have missing entries in some columns of {group!r}, but not in all of them, and can't be filled: "
                f"leave these rows out"
            )


@ignore_underflow
def filled(flow: TransformedDistribution, train: Rows, validation: Rows | None) -> tuple[Rows, Rows | None]:
    """Training and validation rows with complete training rows that stand in for the incomplete ones."""
    if all(rows is None or rows.missing is None for rows in (train, validation)):
        return train, validation
    donors = DonorRows(flow, train)
    return donors.stand_in(train), validation and donors.stand_in(validation)
