"""Equal rows of a table: copies of each other, to be merged, or what a table of few cells has anyway.

A Metropolis chain repeats a row whenever it rejects, resampling with replacement and merged catalogs repeat rows too.
Rows that are drawn at random for validation would then also be rows to train on.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from npflows.core.checks import warn_user
from npflows.distribution.transformed import TransformedDistribution
from npflows.training.rows import Rows

NOTABLE = 5e-3
"""Share of rows that equal others from which on a user is told; fewer may do so by chance, and cost nothing."""
NOTABLE_SHARED = 1e-3
"""The same for validation rows that equal rows to train on."""
MOST_ROWS = 1 << 17
"""Rows that cells of a grid are taken apart into at most."""
STEPS = 2
"""Rows are neighbors on a grid if they differ by so many steps at most in every column."""
SHORT_STEP = 0.05
"""A step is a difference of neighboring values that this share of the differences does not reach."""
NEAR = 0.2
"""Neighbors are no farther, in steps of all columns together, than this share of the distance of any two rows."""
FEW_LEVELS, FILLED = 20, 10
"""A table is of few cells if no column has more values than the first, and a cell the second number of rows on average."""
PROBES = 200
"""Rows whose neighbors are looked for."""
HASHED = 1 << 15
"""Values that are hashed together, about: they stay in the cache."""
COMPARED = 1 << 24
"""Values that are looked at for it, at most."""


def row_keys(rows: Rows) -> NDArray[np.uint64]:
    """A number for each row, the same for equal ones: those of equal x, condition and missing entries.

    0 equals -0, and missing entries equal each other whatever stands for them.
    """
    return rows.each(_hash, max(1, HASHED // (rows.x.shape[1] + 1)))


def _hash(*tables: NDArray | None) -> NDArray[np.uint64]:
    """A hash of each row of some tables that lie side by side."""
    keys: NDArray[np.uint64] | None = None
    for number, table in enumerate(tables):
        if table is None:
            continue
        values = np.add(table, 0.0, dtype=np.float64, order="C")  # -0 becomes 0
        with np.errstate(invalid="ignore", over="ignore"):
            holes = np.isnan(values.sum())
        if holes:
            values[np.isnan(values)] = np.nan
        bits = values.view(np.uint64)
        bits ^= bits >> np.uint64(31)
        found = bits @ _odd_numbers(number, table.shape[1])
        keys = found if keys is None else keys + found
    assert keys is not None
    return keys


def _odd_numbers(seed: int, n: int) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, 1 << 63, n, np.uint64) * np.uint64(2) + np.uint64(1)


def first_equals(rows: Rows, keys: NDArray[np.uint64]) -> NDArray[np.intp] | None:
    """For each row the place of the first one that equals it; None if all rows are different."""
    ordered = np.sort(keys)
    if not (ordered[1:] == ordered[:-1]).any():
        return None
    order = np.argsort(keys, kind="stable")
    same = np.append(False, keys[order[1:]] == keys[order[:-1]])
    starts = np.flatnonzero(~same)
    first = np.empty(len(keys), np.intp)
    first[order] = order[np.repeat(starts, np.diff(np.append(starts, len(keys))))]
    copies = np.flatnonzero(first != np.arange(len(keys)))
    for start in range(0, len(copies), rows.at_once):
        part = copies[start : start + rows.at_once]
        (x, _, condition), (first_x, _, first_condition) = rows.take(part), rows.take(first[part])
        for one, other in ((x, first_x), (condition, first_condition)):
            if one is not None and other is not None:
                differ = ~((one == other) | ((one != one) & (other != other))).all(axis=1)
                first[part[differ]] = part[differ]  # the same number by chance
    return first if (first != np.arange(len(keys))).any() else None


def merged(rows: Rows, first: NDArray[np.intp]) -> Rows:
    """The distinct rows, each with the total weight of those that equal it."""
    kept = np.flatnonzero(first == np.arange(len(rows)))
    total = np.bincount(first, None if rows.weight is None else rows.weight[rows.index], len(rows))
    weight = np.zeros(len(rows.x))
    weight[rows.index[kept]] = total[kept]
    return replace(rows, index=rows.index[kept], weight=weight)


def without_copies(flow: TransformedDistribution, rows: Rows, keys: NDArray[np.uint64], name: str) -> Rows:
    """The rows with equal ones merged into weights, unless equal ones are to be expected; warns where there are many."""
    first = first_equals(rows, keys)
    if first is None:
        return rows
    distinct = merged(rows, first)
    counts = np.bincount(first)
    if equal_rows_are_expected(flow, distinct, counts[counts > 0]):
        return rows
    copies = len(rows) - len(distinct)
    if copies >= NOTABLE * len(rows):
        warn_user(
            f"{name}: {copies} of {len(rows)} rows equal rows before them; equal rows are merged into one with their total "
            f"weight, so that none is both trained on and validated with, and {len(distinct)} distinct rows are left"
        )
    return distinct


def distinct_rows(table: NDArray, weight: NDArray[np.float64]) -> tuple[NDArray, NDArray[np.float64]]:
    """The distinct rows of a table, sorted, and the total weight of each; rows of weight 0 are left out."""
    rows = Rows(table, np.flatnonzero(weight), weight)
    first = first_equals(rows, row_keys(rows))
    if first is not None:
        rows = merged(rows, first)
    x, total, _ = rows.take(np.arange(len(rows)))
    assert total is not None
    order = np.lexsort(x.T[::-1])
    return x[order] + 0.0, total[order]  # -0 becomes 0


def as_many_rows(flow: TransformedDistribution, rows: Rows) -> Rows:
    """Distinct rows as often as their weights say, where equal rows are to be expected: a cell of a grid then has rows to
    train on and rows to validate with.  Otherwise the rows as they are.

    A row of weight w becomes the next whole number of rows of equal weight; the result depends on the rows and their
    weights alone.
    """
    assert rows.weight is not None
    weight = rows.weight[rows.index]
    times = np.ceil(weight * min(1.0, MOST_ROWS / weight.sum())).astype(np.int64)
    if (times == 1).all() or not equal_rows_are_expected(flow, rows, times):
        return rows
    each = np.repeat(rows.index, times)
    x, condition = rows.x[each], None if rows.condition is None else rows.condition[each]
    return Rows(x, np.arange(len(each)), np.repeat(weight / times, times), condition)


def warn_of_shared(
    flow: TransformedDistribution, rows: Rows, keys: NDArray[np.uint64], validation: Rows, name: str
) -> None:
    """Warn of validation rows that equal rows to train on, unless equal ones are to be expected."""
    order, theirs = np.argsort(keys, kind="stable"), row_keys(validation)
    places = order[np.minimum(np.searchsorted(keys, theirs, sorter=order), len(order) - 1)]
    shared = np.flatnonzero(keys[places] == theirs)
    if len(shared) < max(1, NOTABLE_SHARED * len(validation)):
        return
    counts = np.ones(len(rows), np.int64)
    counts[places[shared]] += 1
    if equal_rows_are_expected(flow, rows, counts):
        return
    which = ", ".join(map(str, validation.index[shared[:5]])) + (", ..." if len(shared) > 5 else "")
    warn_user(
        f"{name}: {len(shared)} of {len(validation)} rows ({which}) are also rows of x, so that the validation loss "
        f"promises more than new rows will give; take them out of one of the two"
    )


def equal_rows_are_expected(flow: TransformedDistribution, distinct: Rows, counts: NDArray[np.int64]) -> bool:
    """Whether rows equal others by the nature of the table, and not because they are copies.

    That is so if all columns are declared to be whole numbers, or pixels; or if the table has few cells; or if rows that
    have equals also have neighbors, a step or two of each column away, as on a grid that the rows fill.

    Parameters
    ----------
    flow : TransformedDistribution
    distinct : Rows
        The distinct rows.
    counts : ndarray of int (n,)
        How many rows equal each of them, itself included.
    """
    return not _has_undeclared(flow) or _lie_on_a_grid(flow, distinct, counts)


def _has_undeclared(flow: TransformedDistribution) -> bool:
    """Whether a column may hold more than whole numbers, or there is a condition."""
    return not flow.preprocessing.integer.all() or flow.condition_dim > 0


def _lie_on_a_grid(flow: TransformedDistribution, rows: Rows, counts: NDArray[np.int64]) -> bool:
    """Whether distinct rows fill a grid around those that have equals."""
    rng = np.random.default_rng(0)
    distinct, equal = np.arange(len(rows)), np.flatnonzero(counts > 1)
    if len(equal) > PROBES:
        equal = rng.choice(equal, PROBES, replace=False)
    width = rows.x.shape[1] + flow.condition_dim
    most = max(PROBES, COMPARED // width)
    some = distinct if len(distinct) <= most else np.sort(rng.choice(distinct, most, replace=False))
    table, probes = (_columns(flow, rows, which) for which in (some, equal))
    table, probes = (part[np.isfinite(part).all(axis=1)] for part in (table, probes))
    if not len(probes) or len(table) < 2:
        return len(distinct) < 2
    levels = [np.unique(column) for column in table.T]
    most_levels = max(map(len, levels))
    if most_levels == 1 or (most_levels <= FEW_LEVELS and counts.sum() >= FILLED * len(distinct)):
        return True
    step = np.array([_step(values) for values in levels])
    finest = max(range(len(levels)), key=lambda j: len(levels[j]))
    table = table[np.argsort(table[:, finest], kind="stable")]
    room = STEPS * step * (1 + 1e-6)
    typical = np.abs(table[rng.integers(0, len(table), (2, 4 * PROBES))] / np.where(step > 0, step, 1.0))
    spread = np.median(np.abs(typical[0] - typical[1]).sum(axis=1))
    near = 0
    for probe in probes:
        low, high = np.searchsorted(table[:, finest], [probe[finest] - room[finest], probe[finest] + room[finest]])
        away = np.abs(table[low : high + 1] - probe)
        away = away[(away <= room).all(axis=1) & (away > 0).any(axis=1)]
        steps = np.round((away / np.where(step > 0, step, 1.0)).sum(axis=1))
        near += bool((steps <= max(STEPS, NEAR * spread)).any())
    return 2 * near > len(probes)


def _columns(flow: TransformedDistribution, rows: Rows, which: NDArray[np.intp]) -> NDArray[np.float64]:
    """The values (n, k) by which equal rows are judged: without those of columns declared as whole numbers if all are."""
    parts = []
    for start in range(0, len(which), rows.at_once):
        x, _, condition = rows.take(which[start : start + rows.at_once])
        if flow.preprocessing.integer.all():
            x = x[:, :0]
        parts.append(np.column_stack([x.astype(np.float64), *([] if condition is None else [condition])]))
    return np.concatenate(parts) if parts else np.empty((0, rows.x.shape[1]))


def _step(values: NDArray[np.float64]) -> float:
    """The step of a grid on which a column's distinct values (m,), sorted, may lie; 0 for a single value."""
    differences = np.diff(values)
    differences = np.sort(differences[differences > 1e-9 * (values[-1] - values[0])])  # the others are rounding
    return float(differences[int(SHORT_STEP * (len(differences) - 1))]) if len(differences) else 0.0
