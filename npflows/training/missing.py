"""Missing entries of a table: the values that stand for them, and the rows that have any."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npflows.core.absent import MASKED, is_masked, matches
from npflows.core.checks import as_choice, warn_user
from npflows.core.columns import column_number, did_you_mean
from npflows.core.tables import Headers
from npflows.training.rows import MissingEntries, NoRowsError, Rows

MissingLike = float | str | Sequence[float | str] | np.ndarray | Mapping[Any, Any]
"""What stands for a missing entry, a number, "nan" or "masked", several of them, or a mapping of columns to them."""
NEIGHBORS = 10
"""Complete rows that stand in for an incomplete one."""
WORDS = {"nan": math.nan, "masked": MASKED}
"""What stands for missing entries that are no numbers: every NaN, those of masked entries included, or these alone."""


@dataclass
class Missing:
    """The values that stand for a missing entry, NaN or `MASKED` perhaps, and what is done about it.

    Attributes
    ----------
    values : sequence of tuple of float
        Those of each column.
    impute : bool
        Whether missing entries are to be filled in; otherwise rows that have any are left out.
    of_condition : sequence of tuple of float
        Those of each value of the condition.
    """

    values: Sequence[tuple[float, ...]]
    impute: bool
    of_condition: Sequence[tuple[float, ...]] = ()

    def entries(self, x: np.ndarray) -> np.ndarray:
        """Which of x (n, d) are missing."""
        return _entries(x, self.values)

    def condition_entries(self, condition: np.ndarray) -> np.ndarray:
        """Which of the condition (n, c) are missing."""
        return _entries(condition, self.of_condition)

    def apply(self, rows: Rows, name: str) -> Rows:
        """The rows without those that can't be used; warns of what was done."""
        counts = self._counts(rows)
        if name == "x":
            self._tell_unmatched(counts)
        if any(self.of_condition):
            rows = self._with_conditions(rows, name)
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
                raise NoRowsError(f"{name} has no row {kind}")
            kind = "no entry that is not missing" if self.impute else "missing entries"
            warn_user(f"{name}: dropped {useless.sum()} of {len(rows.x)} rows, which have {kind}{_shown(counts)}")
        index = rows.index
        rows = rows.part(np.delete(np.arange(len(rows)), places[useless]))
        if useless.all():
            return rows
        numbers, missing = index[places[~useless]], missing[~useless]
        warn_user(
            f"{name}: {missing.sum()} entries are missing in {len(missing)} of {len(rows.x)} rows; each time such a row is "
            f"used, they are those of a complete row, drawn from the {NEIGHBORS} nearest in the entries that it has"
            f"{_shown(counts)}"
        )
        return replace(rows, missing=MissingEntries(numbers, missing))

    def _counts(self, rows: Rows) -> dict[tuple[str, int, str], int]:
        """How many entries each mark matches, by table, column and the mark in words."""
        counts: dict[tuple[str, int, str], int] = {}
        for x, _, condition in rows.pieces():
            for table, values, declared in (("x", x, self.values), ("condition", condition, self.of_condition)):
                if values is None:
                    continue
                for d, marks in enumerate(declared):
                    for place, mark in enumerate(marks):
                        key = table, d, _word(mark)
                        counts[key] = counts.get(key, 0) + int(matches(values[:, d], mark, place).sum())
        return counts

    def _tell_unmatched(self, counts: dict[tuple[str, int, str], int]) -> None:
        """Warn of numbers that no entry is: a mark that is written wrongly lets what it stands for be fitted."""
        found: dict[str, int] = {}
        for (_, _, mark), n in counts.items():
            found[mark] = found.get(mark, 0) + n
        lost = [mark for mark, n in found.items() if not n and mark not in WORDS]
        if lost:
            warn_user(f"missing: no entry is {', '.join(lost)}; is it written as the table has it?")

    def _with_conditions(self, rows: Rows, name: str) -> Rows:
        """The rows whose conditions are complete."""
        lost = np.concatenate([self.condition_entries(c).any(axis=1) for _, _, c in rows.pieces() if c is not None])
        if not lost.any():
            return rows
        condition = "condition" if name == "x" else "validation_condition"
        if self.impute:
            raise ValueError(
                f'on_missing="impute" fills in entries of x alone, and {condition} has missing ones in {lost.sum()} of '
                f'{len(rows.x)} rows: pass on_missing="drop", or leave these rows out; to ask the flow about incomplete '
                f"conditions, replace what is missing yourself and add columns that say where"
            )
        if lost.all():
            raise NoRowsError(f"{condition} has no row without missing entries")
        warn_user(f"{condition}: dropped {lost.sum()} of {len(rows.x)} rows, which have missing entries")
        return rows.part(np.flatnonzero(~lost))


def _entries(x: np.ndarray, declared: Sequence[tuple[float, ...]]) -> np.ndarray:
    missing = np.zeros(x.shape, bool)
    for d, values in enumerate(declared):
        for place, value in enumerate(values):
            missing[:, d] |= matches(x[:, d], value, place)
    return missing


def _word(mark: float) -> str:
    """A mark in words."""
    return "masked" if is_masked(np.float64(mark)) else f"{mark:.9g}"


def by_column(entries: np.ndarray, names: Sequence[str] | None, table: str = "") -> list[str]:
    """How many of some entries (n, d) each column has, in words, where it has any."""
    labels = [f"column {d}" for d in range(entries.shape[1])] if names is None else list(map(repr, names))
    return [f"{n:,} in {label}{table}" for label, n in zip(labels, entries.sum(axis=0).tolist()) if n]


def _shown(counts: dict[tuple[str, int, str], int]) -> str:
    """How many entries each mark matches, in words."""
    by_mark: dict[str, int] = {}
    for (table, _, mark), n in counts.items():
        if table == "x":
            by_mark[mark] = by_mark.get(mark, 0) + n
    if len(by_mark) < 2:
        return ""
    return f" ({', '.join(f'{mark} in {n} entries' for mark, n in by_mark.items())})"


def as_missing(headers: Headers, missing: MissingLike | None, on_missing: str) -> Missing | None:
    """From the arguments of `fit`, after every check; None where nothing is declared missing."""
    impute = as_choice(on_missing, "on_missing", ("drop", "impute")) == "impute"
    if missing is None:
        if impute:
            raise ValueError('on_missing="impute" needs missing=, what stands for a missing entry: "nan", 99.0, ...')
        return None
    n, c = headers.x.n, headers.condition.n
    if not isinstance(missing, Mapping):
        return Missing([_as_values(missing)] * n, impute, [_as_values(missing)] * c)
    values: dict[str, list[tuple[float, ...]]] = {"x": [()] * n, "condition": [()] * c}
    for key, given in missing.items():
        table, i = _place(key, headers)
        values[table][i] = _as_values(given)
    return Missing(values["x"], impute, values["condition"])


def _place(key: Any, headers: Headers) -> tuple[str, int]:
    """The table of a column, "x" or "condition", and its number there."""
    x, condition = headers.x, headers.condition
    if isinstance(key, tuple) and len(key) == 2 and key[0] in ("x", "condition"):
        header = x if key[0] == "x" else condition
        return key[0], column_number(key[1], header.n, header.names, owner=f"missing: {key[0]}")
    if isinstance(key, str) and key in (condition.names or ()):
        if key in (x.names or ()):
            raise ValueError(
                f"missing: {key!r} is a column of x and of the condition; write ('x', {key!r}) or ('condition', {key!r})"
            )
        return "condition", condition.names.index(key) if condition.names else 0
    known = x.names if x.names is None or condition.names is None else [*x.names, *condition.names]
    if isinstance(key, str) and known is not None and key not in known:
        raise ValueError(f"missing has no column {key!r}; {did_you_mean(key, known)}")
    return "x", column_number(key, x.n, x.names, owner="missing")


def is_nan(given: MissingLike) -> bool:
    """Whether a NaN, or what is masked, is among what is declared to be missing."""
    several = _several(given)
    return any(value in WORDS if isinstance(value, str) else value is not None and value != value for value in several)


def _several(given: MissingLike) -> list:
    return list(given) if isinstance(given, (Sequence, np.ndarray)) and not isinstance(given, str) else [given]


def _as_values(given: MissingLike) -> tuple[float, ...]:
    several = _several(given)
    values = [WORDS.get(value, value) if isinstance(value, str) else value for value in several]
    if not values or any(isinstance(v, bool) or not isinstance(v, (int, float, np.number)) for v in values):
        raise ValueError(
            f'missing must be a number, "nan", "masked", several of them or a mapping of columns to them, got {given!r}'
        )
    return tuple(float(value) for value in values)
