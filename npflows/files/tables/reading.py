"""Reading tables: which columns of a source are values, condition and weights, and which rows are wanted."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from npflows.core.checks import as_positive, warn_user
from npflows.core.columns import column_number, listed
from npflows.core.numbers import numbers_of
from npflows.core.table import Table
from npflows.core.times import times_of, unit_for
from npflows.files.tables.formats import open_table
from npflows.files.tables.loading import module
from npflows.files.tables.roles import DOUBTFUL, LOG_WEIGHTS
from npflows.files.tables.source import INDEX, MASK, NOTED, OTHER, Source, TableError

VALUES_AT_ONCE = 1 << 15
"""Values that are put side by side together."""
Keys = Sequence[str | int]
"""Names or numbers of columns; a single name is one of them, and no row of letters."""


@dataclass
class Parts:
    """Which columns play which part.

    Attributes
    ----------
    columns : sequence of str or int, optional
        The values; all that play no other part by default.  A single name or number is one column.
    condition : sequence of str or int
    weights : str, int, False or None
        None for what the format says, False for none.
    log_weights : str or int, optional
    where : str, optional
    expected : sequence of str, optional
        Names of the values where `columns` does not say and the table has names.
    expected_condition : sequence of str
        Names of conditions before those of `condition`, where the table has names.
    """

    columns: Keys | int | None = None
    condition: Keys | int | None = ()
    weights: str | int | bool | None = None
    log_weights: str | int | None = None
    where: str | None = None
    expected: Sequence[str] | None = None
    expected_condition: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.columns = None if self.columns is None else _keys(self.columns, "columns")
        self.condition = _keys(self.condition, "condition")
        for name in ("weights", "log_weights"):
            key = getattr(self, name)
            if not (key is None or _is_key(key) or (name == "weights" and isinstance(key, bool))):
                raise TableError(
                    f"{name} must be the name or number of a column, got a {type(key).__name__}: pass your own to fit"
                )
        if not (self.where is None or isinstance(self.where, str)):
            raise TableError(
                f"where must be text such as 'z > 0 and abs(b) > 20', got a {type(self.where).__name__}: choose by "
                f"anything else from the table that was read"
            )


def _is_key(key: Any) -> bool:
    """Whether something names a column or numbers it."""
    return isinstance(key, (str, int, np.integer)) and not isinstance(key, bool)


def _keys(given: Any, what: str) -> tuple[str | int, ...]:
    """Names or numbers of columns, after a check; a single one is one column, and None none."""
    if given is None:
        return ()
    keys = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    wrong = [key for key in keys if not _is_key(key)]
    if wrong:
        raise TableError(f"{what} must be names or numbers of columns, got {wrong[0]!r:.60} among them")
    return keys


def read_table(
    source: Any,
    columns: Keys | int | None = None,
    *,
    condition: Keys | int | None = (),
    weights: str | int | bool | None = None,
    log_weights: str | int | None = None,
    where: str | None = None,
    burn_in: float = 0.0,
    table: str | int | None = None,
) -> Table:
    """Read a table from a file, a data frame or the result of a sampler, with its names, units and weights.

    Masked, null and empty entries become NaN, to be declared by `missing="masked"` in a fit, or by `missing="nan"` with all
    other NaN.  What is known to be no value is left out with a warning: the index of a data frame, log-likelihoods, columns
    named as weights, derived parameters.

    Parameters
    ----------
    source : path-like or object
        A file, whose format is told by what it begins with: text (csv, white space, with or without a header, compressed),
        .npy, .npz, Parquet, Arrow IPC; with the package that reads them FITS, VOTable and ECSV (astropy), HDF5 (h5py; the
        layouts of PyTables, pandas, astropy, emcee, ArviZ and AnnData too), ROOT (uproot), FCS (flowio), JSON of bilby.
        A folder of Parquet or Arrow files, whose columns are found by their names, in the units of the first; the root name
        of chains of GetDist or Cobaya.
        Or a data frame, a structured array, a mapping of arrays; a result of dynesty, nautilus, emcee, UltraNest, bilby or
        GetDist; a tree of ArviZ.
    columns : sequence of str or int, optional
        Names or numbers (from 0) of the values; by default all that play no other part.  A single one is one column.
    condition : sequence of str or int
        Those of the condition.
    weights, log_weights : str or int, optional
        The column of the rows' weights, or of their logarithms.  By default what the format says: chains have weights.
        False takes none.
    where : str, optional
        Which rows are wanted, for instance "z > 0 and abs(b) > 20"; names that are no Python names stand in backticks.
    burn_in : float
        Steps of each chain that are left out first; below 1 their share.
    table : str or int, optional
        Which table of a file that holds several: HDU (by name or number), group, dataset, tree or array.

    Returns
    -------
    Table
        `NormalizingFlow.fit` takes it with its weights and condition, other methods with its condition.

    Raises
    ------
    TableError
        If the file is damaged or of an unknown format, a column does not exist, holds no numbers, or does not fit that of
        another file of the folder.
    OSError
        If it can't be opened.
    ImportError
        If the package that reads the format is missing.
    """
    return take(open_source(source, table, burn_in), Parts(columns, condition, weights, log_weights, where))


def open_source(source: Any, table: str | int | None = None, burn_in: float = 0.0) -> Source:
    """A table, open: from a file, a folder, or an object."""
    try:
        burn_in = as_positive(burn_in, "burn_in", zero=True)
    except ValueError:
        raise TableError(f"burn_in must be a number of steps, or a share of them below 1, got {burn_in!r}") from None
    if isinstance(source, (str, os.PathLike)):
        return open_table(Path(source), table, burn_in)
    if table is not None:
        raise TableError(
            f"table= is for files that hold several tables, and a {type(source).__name__} is one: leave it out"
        )
    return module("results").of_object(source, burn_in)


def take(source: Source, parts: Parts, *, tell: bool = True) -> Table:
    """The columns of a source that play the parts; `tell` warns of those that play none."""
    x, condition = _values_and_condition(source, parts)
    weight, log_weight = _weights(source, parts)
    apart = [i for i in (weight, log_weight) if i is not None]
    if x is None:
        others = {*condition, *apart, *source.left_out, *_weight_columns(source)}
        x = [i for i in range(len(source.names)) if i not in others]
        _refuse_nameless(source, x)
        if tell:
            _doubt(source, x)
    if not x:
        keys = (*parts.expected_condition, *_keys(parts.condition, "condition"))
        shown = [str(key) for key in keys] + [source.names[i] for i in apart]
        beside = f" beside {', '.join(shown)}" if shown else " of values"
        raise TableError(f"{source.owner} has no columns{beside}")
    asked = [*x, *condition, *apart]
    if len(set(asked)) < len(asked):
        twice = next(i for i in asked if asked.count(i) > 1)
        what = repr(source.names[twice]) if source.has_names else str(twice)
        raise TableError(f"the same column of {source.owner} is asked for twice: {what}")
    left_out = {source.names[i]: why for i, why in source.left_out.items() if i not in asked and why != MASK}
    if tell and parts.columns is None and parts.expected is None:
        _tell(source, left_out)
    where = None if parts.where is None else module("where").RowCondition(parts.where)
    tested = {} if where is None else {name: _number(source, name) for name in where.names}
    block = source.block
    clocks: dict[int, np.ndarray] = {}
    if block is not None and block.dtype.kind in "biuf" and where is None and x == list(range(block.shape[1])):
        rest = _numeric(source, asked[len(x) :], clocks)
        values, columns = block, {i: rest[k] for k, i in enumerate(asked[len(x) :])}
    else:
        everything = list(dict.fromkeys([*asked, *tested.values()]))
        columns = dict(zip(everything, _numeric(source, everything, clocks)))
        if where is not None:
            kept = where({name: clocks.get(i, columns[i]) for name, i in tested.items()})
            columns = {i: columns[i][kept] for i in asked}
        values = _together(source, x, columns)
    return Table(
        values,
        _names(source, x),
        _units(source, x),
        _together(source, condition, columns) if condition else None,
        _names(source, condition) if condition else None,
        _units(source, condition),
        None if weight is None else _whole(source, weight, columns, len(values)),
        None if log_weight is None else _whole(source, log_weight, columns, len(values)),
        left_out,
    )


def _values_and_condition(source: Source, parts: Parts) -> tuple[list[int] | None, list[int]]:
    """The places of the values, None for what is left, and those of the condition."""
    named = [_number(source, name) for name in parts.expected_condition] if source.has_names else []
    condition = named + [i for key in _keys(parts.condition, "condition") for i in _numbers(source, key)]
    wanted = parts.columns if parts.columns is not None else parts.expected if source.has_names else None
    return None if wanted is None else [i for key in _keys(wanted, "columns") for i in _numbers(source, key)], condition


def _weights(source: Source, parts: Parts) -> tuple[int | None, int | None]:
    """The places of the weights, and of their logarithms."""
    if parts.log_weights is not None and parts.weights not in (None, False):
        raise TableError("give weights or log_weights, not both")
    if parts.log_weights is not None:
        return None, _number(source, parts.log_weights)
    if parts.weights is None or parts.weights is True:
        by_format = source.weight is not None or source.log_weight is not None
        return source.weight if by_format else source.roles.weight, source.log_weight
    return (None, None) if parts.weights is False else (_number(source, parts.weights), None)


def _weight_columns(source: Source) -> set[int]:
    """The columns that the format says are weights, which are no values even where they are not used."""
    return {i for i in (source.weight, source.log_weight, source.roles.weight) if i is not None}


def _numbers(source: Source, key: str | int) -> list[int]:
    """The place of a column, or the places of all parts of one of several values in each row: name[0], name[1], ..."""
    if isinstance(key, str) and key not in source.places and f"{key}[0]" in source.places:
        count = itertools.takewhile(lambda k: f"{key}[{k}]" in source.places, itertools.count())
        return [_number(source, f"{key}[{k}]") for k in count]
    return [_number(source, key)]


def _number(source: Source, key: str | int) -> int:
    """The place of a column by its name or number."""
    if isinstance(key, str) and key in source.places:
        if key in source.repeated:
            raise TableError(f"{source.owner} has more than one column named {key!r}; say which by its number, from 0")
        return source.places[key]
    names = source.names if source.has_names else None
    beside = [name for i, name in enumerate(source.names) if not source.has_names and name != str(i)]
    naming = f"beside them {listed(beside)}" if beside else ""
    return column_number(key, len(source.names), names, owner=source.owner, numerals=True, naming=naming, error=TableError)


def _refuse_nameless(source: Source, x: Sequence[int]) -> None:
    """Refuse columns that are told by their names and have none, or the same as another."""
    if not source.has_names:
        return
    names = [source.names[i] for i in x]
    if "" in names:
        place = x[names.index("")]
        raise TableError(
            f"{source.owner}: column {place} has no name (row numbers?); choose columns with columns= (--columns)"
        )
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise TableError(
            f"{source.owner} has more than one column named {twice!r}; choose columns by their numbers, from 0"
        )


def _doubt(source: Source, x: Sequence[int]) -> None:
    """Warn of values that may be none."""
    if source.doubt:
        warn_user(source.doubt)
    for name in (source.names[i] for i in source.roles.doubtful if i in x):
        what = DOUBTFUL[name.lower()]
        how = f"if so, pass weights={name!r} (--weights {name}); " if "weight" in what else ""
        warn_user(
            f"{source.owner}: {name} is taken for a value like the others, and may be {what}: {how}columns= (--columns) "
            f"says which columns are values"
        )


def _tell(source: Source, left_out: dict[str, str]) -> None:
    """Warn of columns that were left out, but for what has been told, or is to be expected."""
    told = {name: why for name, why in left_out.items() if why not in (INDEX, NOTED, OTHER)}
    if not told:
        return
    hint = "; ask for them by columns= (--columns)"
    weights = [name for name in told if "weight" in name.lower() or name.lower() in LOG_WEIGHTS]
    if weights:
        kind = "log-weights" if weights[0].lower() in LOG_WEIGHTS else "weights"
        hint = f"; pass {kind.replace('-', '_')}={weights[0]!r} (--{kind} {weights[0]}) if the rows have weights{hint}"
    warn_user(f"{source.owner}: left out {listed([f'{name} ({why})' for name, why in told.items()])}{hint}")


def _numeric(source: Source, places: Sequence[int], clocks: dict[int, np.ndarray]) -> list[np.ndarray]:
    """Some columns as plain numbers, each in its own unit; those that are times are entered in `clocks` as well."""
    found = []
    for i, values in zip(places, source.fetch(places)):
        where = f"column {source.names[i]!r} of {source.owner}"
        is_plain = type(values) is np.ndarray and values.dtype.kind in "biuf"
        if not is_plain and (times := times_of(values)) is not None:
            clocks[i], values = times.values, times
            source.units.setdefault(i, unit_for(times))
        unit = source.units.get(i)
        try:
            found.append(numbers_of(values, where, column=True, wanted=unit))
        except TypeError as error:
            raise TableError(str(error)) from None
    return found


def _together(source: Source, places: Sequence[int], columns: dict[int, np.ndarray]) -> np.ndarray:
    """Columns (n,) side by side (n, k)."""
    chosen = [columns[i] for i in places]
    shapes = {source.names[i]: columns[i].shape for i in places}
    if len(set(shapes.values())) > 1 or chosen[0].ndim != 1:
        shown = listed([f"{name} {shape}" for name, shape in shapes.items()])
        raise TableError(f"{source.owner}: the columns differ in length, or have several values in each row: {shown}")
    x = np.empty((len(chosen[0]), len(chosen)), np.result_type(*{column.dtype.newbyteorder("=") for column in chosen}))
    at_once = max(256, VALUES_AT_ONCE // len(chosen))
    for start in range(0, len(x), at_once):  # some rows of all columns, so that each row is written while the cache has it
        part = x[start : start + at_once]
        for i, column in enumerate(chosen):
            part[:, i] = column[start : start + at_once]
    return x


def _whole(source: Source, place: int, columns: dict[int, np.ndarray], n: int) -> np.ndarray:
    """The weights, one for each of n rows."""
    if columns[place].shape != (n,):
        raise TableError(f"{source.owner}: {source.names[place]} has shape {columns[place].shape}, and there are {n} rows")
    return columns[place]


def _names(source: Source, places: Sequence[int]) -> list[str] | None:
    """The names of columns, None where they have none but their numbers."""
    names = [source.names[i] for i in places]
    return names if source.has_names or any(name != str(i) for name, i in zip(names, places)) else None


def _units(source: Source, places: Sequence[int]) -> list[str | None] | None:
    """The units of columns, None where none has any."""
    units = [source.units.get(i) for i in places]
    return units if any(units) else None
