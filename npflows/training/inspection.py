"""Tables that have no density: columns that determine each other, single values in many rows, coarse grids.

The likelihood of such a table grows without bound as a flow narrows on what is exact in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from npflows.core.checks import warn_user
from npflows.core.columns import listed
from npflows.core.location_scale import robust_location_scale, sample_places
from npflows.distribution.transformed import TransformedDistribution
from npflows.training.rows import MissingEntries, Rows

FEWEST_ROWS = 50
"""Different rows below which nothing is said."""
ATOM, HEAVY_ATOM = 0.05, 0.2
"""A value that more than this share of the rows has may be an atom; of the weight, where there are weights alone."""
ATOM_EXCESS = 10.0
"""It is one if it has so many times as many of them as each of the other values on average."""
MOST_ATOMS = 3
FEW_VALUES, FEW_REPEATS = 20, 10.0
"""At most so many different values, each in so many rows on average, are few."""
TIED = 0.5
"""Where values are rounded, this share of the rows at least has its value in common with another one,"""
COARSE = 300.0
"""and a scale has at most so many steps; finer ones do no harm.  Of few rows,"""
FEWEST_TIED = 300
"""fewer than these, too little can be learned of it."""
MOST_COLUMNS, MOST_PRODUCTS = 2000, 1 << 28
"""Linear dependences are sought among so many columns, and in so many products of two values, at most."""
ROWS_PER_COLUMN = 3
"""Rows for each column that it takes, at least."""
FAR = 100.0
"""Rows that are so many scales away in a column are left out."""
NEAR = 0.05
"""A column that is farther from what the others say, in scales, is certainly not determined by them."""
FLOAT_STEPS, GRID_STEPS = 4.0, 0.5
"""Deviations, in steps between floating-point numbers and in those of a grid, that are rounding."""
SMALLEST_RESIDUE = 1e-13
"""Deviations, in scales, that are rounding of the computation."""

WHOLE, GRID, ATOMS, DEPENDENT = "whole", "grid", "atom", "dependent"
REMEDIES = {
    WHOLE: "declare whole numbers by support=integer(low, high)",
    GRID: "add uniform noise of one step to rounded values, or divide by it and declare integer(low, high)",
    ATOMS: "fit rows with a repeated value apart, or let a condition say which they are",
    DEPENDENT: "drop columns that others determine",
}

PLURAL = {"is": "are", "has": "have", "holds": "hold"}
MOST_NAMES, MOST_FAULTS = 4, 6
"""Names and faults that are listed."""


@dataclass
class Look:
    """What a column looks like.

    Attributes
    ----------
    kind : str
        What is wrong with it, empty for nothing.
    text : str
        The same in words.
    step : float
        The step of the grid that its values are on, 0 for none.
    """

    kind: str = ""
    text: str = ""
    step: float = 0.0


def inspect_table(flow: TransformedDistribution, rows: Rows, told: Sequence[str] = ()) -> None:
    """Warn of columns that have no density, all in one sentence, from a sample of the rows.

    Whole numbers that the support declares have one; conditions need none.  Nothing is said about repeated values of the
    columns told of, which have sentinels or outliers.
    """
    if flow.preprocessing.is_image or len(rows) < FEWEST_ROWS:
        return
    if rows.missing is not None:
        unfilled = MissingEntries(rows.missing.rows, rows.missing.missing)
        rows = replace(rows, missing=unfilled)  # NaN where entries are missing
    x, weight, condition = rows.take(sample_places(len(rows), flow.latent_dim))
    if len(flow.input_shape) == 3:
        pixels = x.reshape(-1, flow.input_shape[2])
        pixels = pixels[sample_places(len(pixels), 1)]
        found = {f"channel {c}": _few(pixels[:, c]) for c in range(pixels.shape[1])}
        found = {name: look if look.kind else _look(pixels[:, c]) for c, (name, look) in enumerate(found.items())}
    else:
        labels, whole = flow.preprocessing.labels, flow.preprocessing.integer
        alone = flow.latent_dim == 1 and condition is None
        looks = [Look() if whole[d] else _few(x[:, d]) for d in range(flow.latent_dim)]
        atoms: dict[str, Look] = {}
        if not alone:
            x, condition, counts = _different(x, condition, _copies(weight, len(x)))
            atoms = _repeated_rows(x, counts)
        for d in np.flatnonzero(~whole):
            looks[d] = looks[d] if looks[d].kind else _look(x[:, d], weight if alone else None, alone)
        found = dict(zip(labels, looks))
        if not all(look.kind for look in np.array(looks)[~whole]):
            found.update(atoms)
        for name, text in _dependent(flow, x, condition, [look.step for look in looks]).items():
            found[name] = Look(DEPENDENT, text)
    _tell_of_identifiers(flow, x)
    wrong = {name: look for name, look in found.items() if look.kind and not (look.kind == ATOMS and name in told)}
    if wrong:
        kinds = {look.kind for look in wrong.values()}
        warn_user(
            f"x has no density, so that its likelihood grows without bound: {_listed(wrong)}; "
            f"{'; '.join(remedy for kind, remedy in REMEDIES.items() if kind in kinds)}"
        )


def _tell_of_identifiers(flow: TransformedDistribution, x: np.ndarray) -> None:
    """Warn of columns of whole numbers that are different in every row, as the numbers of objects are."""
    if len(flow.input_shape) == 3 or len(x) < FEWEST_ROWS:
        return
    names = []
    for d in np.flatnonzero(~flow.preprocessing.integer & ~flow.preprocessing.periodic):
        values = x[:, d][~np.isnan(x[:, d])]
        if flow.headers.x.unit(int(d)) is not None:
            continue  # a quantity, no number of an object
        if len(values) < FEWEST_ROWS or (values != np.floor(values)).any() or _is_too_large_for_fractions(values):
            continue
        if len(np.unique(values)) == len(values):
            names.append(flow.preprocessing.labels[d])
    if names:
        verb, them = ("holds", "it") if len(names) == 1 else ("hold", "them")
        warn_user(
            f"{listed(names)} {verb} whole numbers that are different in every row, as identifiers are: leave {them} out, "
            f"unless these are values"
        )


def _is_too_large_for_fractions(values: np.ndarray) -> bool:
    """Whether all numbers of that size are whole, in the dtype that the values have or had before they were widened."""
    if values.dtype.kind != "f":
        return False
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    dtype = narrow.dtype if values.dtype == np.float64 and (narrow == values).all() else values.dtype
    return float(np.spacing(np.abs(values).max().astype(dtype))) >= 1


def _listed(wrong: dict[str, Look]) -> str:
    """What is wrong with which columns, those with the same fault together."""
    names: dict[str, list[str]] = {}
    for name, look in wrong.items():
        names.setdefault(look.text, []).append(name)
    parts = []
    for text, several in names.items():
        verb, rest = text.split(" ", 1)
        more = f" and {len(several) - MOST_NAMES} more" if len(several) > MOST_NAMES else ""
        parts.append(f"{', '.join(several[:MOST_NAMES])}{more} {verb if len(several) == 1 else PLURAL[verb]} {rest}")
    return ", ".join(parts[:MOST_FAULTS]) + (f", and {len(parts) - MOST_FAULTS} more" if len(parts) > MOST_FAULTS else "")


def _copies(weight: np.ndarray | None, n: int) -> np.ndarray:
    """How many rows each of n rows stands for: its weight where all weights are whole numbers, as those of copies are."""
    return np.ones(n) if weight is None or (weight != np.floor(weight)).any() else weight


def _different(
    x: np.ndarray, condition: np.ndarray | None, copies: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """The rows, each once, and how many each stands for: what is repeated whole says nothing about its columns."""
    both = np.ascontiguousarray(x if condition is None else np.column_stack([x, condition]))
    rows = both.view(np.dtype((np.void, both.itemsize * both.shape[1])))
    _, first, which = np.unique(rows, return_index=True, return_inverse=True)
    if len(first) == len(x):
        return x, condition, copies
    return x[first], None if condition is None else condition[first], np.bincount(which.ravel(), copies)


def _repeated_rows(x: np.ndarray, counts: np.ndarray) -> dict[str, Look]:
    """Different rows that are atoms, as where all columns are 0 at once."""
    found = {}
    for i in _atoms(counts / counts.sum(), counts):
        shown = ", ".join(f"{v:.9g}" for v in x[i, :MOST_NAMES].astype(np.float64)) + ", ..." * (x.shape[1] > MOST_NAMES)
        found[f"the row ({shown})"] = Look(ATOMS, f"is {100 * counts[i] / counts.sum():.0f} % of all")
    return found


def _few(values: np.ndarray) -> Look:
    """What a column looks like that has few different values, in whatever rows; NaN is ignored."""
    values = values[~np.isnan(values)]
    different = np.unique(values)
    if not 2 <= len(different) <= min(FEW_VALUES, len(values) / FEW_REPEATS):
        return Look()
    whole, step = bool((different == np.floor(different)).all()), grid_step(different)
    shown = ", ".join(f"{v:.9g}" for v in different[:3].astype(np.float64)) + (", ..." if len(different) > 3 else "")
    return Look(WHOLE if whole else GRID if step else ATOMS, f"has {len(different)} different values ({shown})", step)


def _look(values: np.ndarray, weight: np.ndarray | None = None, alone: bool = False) -> Look:
    """What another column of different rows looks like; NaN is ignored.  One that is alone may have rows repeated."""
    weight = np.ones(len(values)) if weight is None else weight
    values, weight = values[~np.isnan(values)], weight[~np.isnan(values)]
    different, which = np.unique(values, return_inverse=True)
    counts = np.bincount(which.ravel(), _copies(weight, len(values)))
    if len(different) < 2 or len(values) < FEWEST_ROWS:
        return Look()
    whole, step = bool((different == np.floor(different)).all()), grid_step(different)
    shares = np.bincount(which.ravel(), weight) / weight.sum()
    atoms = _atoms(shares, counts)
    rest = np.delete(np.arange(len(different)), atoms)
    n_rest = counts[rest].sum()
    tied = len(values) >= FEWEST_TIED and counts[rest][counts[rest] > 1].sum() > TIED * n_rest
    low, high = different[rest][np.searchsorted(counts[rest].cumsum(), (0.16 * n_rest, 0.84 * n_rest))].astype(np.float64)
    if tied and step and high - low <= 2 * COARSE * step:
        text = "holds whole numbers" if whole and step == 1 else f"is rounded to steps of {step:.4g}"
        return Look(WHOLE if whole else GRID, text, step)
    if len(atoms):
        values_text = " and ".join(f"{float(different[i]):.9g} in {100 * shares[i]:.0f} %" for i in atoms)
        return Look(ATOMS, f"is {values_text} of the rows", step)
    if tied and not alone and ((different >= low) & (different <= high)).sum() <= 2 * COARSE:
        return Look(ATOMS, f"has {len(different)} different values in {len(values)} rows", step)
    return Look(step=step)


def _atoms(shares: np.ndarray, counts: np.ndarray) -> NDArray[np.int64]:
    """Which different values are atoms, from the shares of weight and the numbers of rows that they have."""
    largest = np.argsort(-shares, kind="stable")[:MOST_ATOMS]
    others = (1 - shares[largest].sum()) / max(len(shares) - len(largest), 1)
    least = np.where(counts[largest] > 1, ATOM, HEAVY_ATOM)
    return np.sort(largest[(shares[largest] > least) & (shares[largest] > ATOM_EXCESS * others)])


def grid_step(different: np.ndarray) -> float:
    """The step of the grid that sorted values, each once, are on; 0 where they are on none."""
    gaps = np.diff(different.astype(np.float64))
    if len(gaps) < 2:
        return 0.0
    step = gaps[gaps < 1.5 * gaps.min()].mean()
    numbers = np.rint(gaps / step).cumsum()
    step = (gaps.sum()) / numbers[-1]
    return float(step) if (np.abs(gaps.cumsum() - numbers * step) < 0.05 * step).all() else 0.0


def _dependent(
    flow: TransformedDistribution, x: np.ndarray, condition: np.ndarray | None, grids: Sequence[float]
) -> dict[str, str]:
    """The columns of x on the line that are, to within rounding, linear in columns before them or in the condition.

    The residue of a column is on the diagonal of the triangular factor of the standardized table (QR).
    """
    used = np.flatnonzero(~flow.preprocessing.periodic & ~flow.preprocessing.integer)
    width = flow.condition_dim + len(used)
    if width < 2 or width > MOST_COLUMNS:
        return {}
    names = [f"condition {name}" for name in flow.condition_columns or [f"column {i}" for i in range(flow.condition_dim)]]
    names += [flow.preprocessing.labels[d] for d in used]
    complete = ~np.isnan(x[:, used]).any(axis=1)
    most = max(4 * ROWS_PER_COLUMN * width, MOST_PRODUCTS // width**2)
    chosen = np.flatnonzero(complete)[:: max(1, complete.sum() // most)]
    if len(chosen) < ROWS_PER_COLUMN * width:
        return {}
    columns = [] if condition is None else list(condition[chosen].T)
    columns += list(x[np.ix_(chosen, used)].T)
    table = np.column_stack(columns).astype(np.float64)
    unit = np.abs(table).max(axis=0, initial=0.0)
    unit = np.where(unit > 0, unit, 1.0)
    near = _near(table / unit)
    table, unit = table[near], np.abs(table[near]).max(axis=0, initial=0.0)
    unit = np.where(unit > 0, unit, 1.0)
    table /= unit
    if len(table) < ROWS_PER_COLUMN * width:
        return {}
    steps = _rounding(columns, np.append(np.zeros(width - len(used)), np.array(grids)[used]), near) / unit
    scale = table.std(axis=0)
    varied = table.min(axis=0) < table.max(axis=0)
    scale = np.where(varied & (scale > 0), scale, 1.0)
    table, rounding = (table - table.mean(axis=0)) / scale, steps / scale
    triangle = np.linalg.qr(table, mode="r") / np.sqrt(len(table))
    kept: list[int] = []
    found: dict[str, str] = {}
    for j in np.flatnonzero(varied):
        if kept and abs(triangle[j, j]) < NEAR:
            factors = np.linalg.solve(triangle[np.ix_(kept, kept)], triangle[kept, j])
            room = np.hypot(rounding[j], np.sqrt((factors**2) @ rounding[kept] ** 2))
            room += SMALLEST_RESIDUE * (1 + np.abs(factors).sum())
            if abs(triangle[j, j]) <= room:
                if j >= width - len(used):
                    least = min(max(10 * room, 1e-3), 0.1 * np.abs(factors).max())
                    found[names[j]] = _in_words([names[k] for k, f in zip(kept, factors) if abs(f) > least])
                continue
        kept.append(int(j))
    return found


def _near(table: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The rows that are far from the others in no column."""
    _, scale, _, _ = robust_location_scale(table, None, table.mean(axis=0), table.std(axis=0))
    return np.all(np.abs(table - np.median(table, axis=0)) <= FAR * scale, axis=1)


def _in_words(others: Sequence[str]) -> str:
    if len(others) == 1:
        return f"is {others[0]} again, but for a factor and a constant"
    if len(others) > 4:
        return f"is a sum of {len(others)} others, times factors"
    return f"is a sum of {', '.join(others[:-1])} and {others[-1]}, times factors"


def _rounding(columns: Sequence[np.ndarray], grids: np.ndarray, near: np.ndarray) -> np.ndarray:
    """What rounding may change in each column: some steps of its dtype, that of narrower values it may have come from
    included, and of its grid."""
    steps = np.empty(len(columns))
    for j, column in enumerate(columns):
        values = column[near]
        if values.dtype.kind != "f":
            steps[j] = GRID_STEPS
            continue
        with np.errstate(over="ignore", under="ignore"):
            single = values.astype(np.float32)
        dtype = single.dtype if (single == values).all() else values.dtype
        largest = np.abs(values).max(initial=0).astype(dtype)
        steps[j] = np.hypot(FLOAT_STEPS * float(np.spacing(largest)), GRID_STEPS * grids[j])
    return steps
