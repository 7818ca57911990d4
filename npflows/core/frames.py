"""What names its columns: data frames, tables, records and mappings of whatever library, and frames to give back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from npflows.core import times
from npflows.core.interchange import interchange_column
from npflows.core.optional import required
from npflows.core.table import Table


def _no_unit(i: int) -> str | None:
    return None


class NamedColumns(NamedTuple):
    """The columns of a table that names them.

    Attributes
    ----------
    labels : list
        Their names, as the table has them.
    column : callable
        From the place of a column to its values; to a single one, where the table is a row.
    unit : callable
        From the place of a column to its unit, where the table has it and the values do not.
    """

    labels: list[Any]
    column: Callable[[int], Any]
    unit: Callable[[int], str | None] = _no_unit


def named_columns(table: Any, *, rows: bool = True) -> NamedColumns | None:
    """The columns of whatever names them, None for all else.

    Parameters
    ----------
    table
        A data frame of pandas, polars, pyarrow or Dask, a table of astropy or npflows, a structured array, records of
        awkward, a mapping, an AnnData, or what has `columns` and `__array__`, or `__dataframe__`; or one row of any.
    rows : bool
        Whether a pandas Series whose index holds text is a row, and not a column.

    Raises
    ------
    TypeError
        If the table is a tree or dataset of xarray with the chains of a sampler, which `npflows.read_table` takes.
    """
    if isinstance(table, (np.ndarray, np.void)):
        fields = list(table.dtype.names or ())
        cells = [table.dtype[name].shape for name in fields]
        return None if table.dtype.names is None else _spread(NamedColumns(fields, lambda i: table[fields[i]]), cells)
    if isinstance(table, Table):
        columns, units = table.x, table.units or [None] * table.x.shape[1]
        return NamedColumns(table.columns or list(range(columns.shape[1])), lambda i: columns[:, i], units.__getitem__)
    kind = type(table)
    labels: Any = getattr(table, "_fields", None) if isinstance(table, tuple) else None
    if labels is not None:  # a named tuple, as `itertuples` gives rows
        return NamedColumns(list(labels), table.__getitem__) if rows else None
    if hasattr(kind, "data_vars") and ("posterior" in table or {"chain", "draw"} <= {*table.coords, *table.dims}):
        raise TypeError(f"a {kind.__name__} of chains is no table by itself: pass npflows.read_table of it")
    if isinstance(table, Mapping) and not hasattr(kind, "toarray"):  # which some sparse arrays are
        keys = list(table)
        return NamedColumns(keys, lambda i: table[keys[i]])
    is_named = has_columns(table) or getattr(getattr(table, "dtype", None), "names", None)
    if hasattr(kind, "dask") and hasattr(kind, "compute") and is_named:
        return named_columns(table.compute(), rows=rows)
    if hasattr(kind, "column_names") and hasattr(kind, "column"):  # pyarrow
        whole = NamedColumns(list(table.column_names), table.column, lambda i: arrow_unit(table.schema.field(i)))
        sizes = [getattr(table.schema.field(i).type, "list_size", None) for i in range(len(whole.labels))]
        return _spread(whole, [() if size is None else (size,) for size in sizes], _entry_of_arrow)
    if hasattr(kind, "colnames"):  # astropy
        names = list(table.colnames)
        cells = [getattr(table.columns[name], "shape", (0,))[1:] for name in names]
        of_table = [getattr(table.columns[name], "unit", None) for name in names]  # which entries of a row do not have
        unit = [None if unit is None else str(unit) for unit in of_table].__getitem__
        return _spread(NamedColumns(names, lambda i: table[names[i]], unit), cells)
    if hasattr(kind, "get_columns") and hasattr(kind, "columns"):  # polars
        columns = table.get_columns()
        cells = [getattr(column.dtype, "shape", ()) for column in columns]
        return _spread(NamedColumns(list(table.columns), columns.__getitem__), cells, _entry_of_polars)
    if hasattr(kind, "iloc") and has_columns(table):  # pandas
        return NamedColumns(list(table.columns), lambda i: table.iloc[:, i])
    if hasattr(kind, "__array__") and has_columns(table):
        array = np.asarray(table)
        return NamedColumns(list(table.columns), lambda i: array[:, i])
    if hasattr(kind, "to_numpy") and getattr(table, "fields", None) and hasattr(kind, "to_list"):  # awkward
        fields = list(table.fields)
        return NamedColumns(fields, lambda i: _of_awkward(table[fields[i]]))
    if hasattr(kind, "var_names") and hasattr(kind, "X"):  # AnnData
        return NamedColumns(list(table.var_names), lambda i: _vector(table.X[:, i]))
    if hasattr(kind, "__dataframe__"):
        frame = table.__dataframe__(allow_copy=True)
        return NamedColumns(list(frame.column_names()), lambda i: interchange_column(frame, i))
    if rows and hasattr(kind, "iloc") and hasattr(kind, "index"):  # a row of pandas
        labels = list(table.index)
        if labels and all(isinstance(label, str) for label in labels):
            return NamedColumns(labels, lambda i: table.iloc[i])
    return None


def _spread(
    named: NamedColumns,
    cells: Sequence[tuple[int, ...]],
    entry: Callable[[Any, int], Any] | None = None,
) -> NamedColumns:
    """Columns of which some have several values in each row, with each of these as a column: name[0], name[1], ...

    Parameters
    ----------
    named : NamedColumns
    cells : sequence of tuple of int
        The shape that one row of each column has.
    entry : callable, optional
        From a column and a number to the column of that entry; by default that of an array.
    """
    if not any(cells):
        return named
    places = [(i, k) for i, shape in enumerate(cells) for k in (range(math.prod(shape)) if shape else [None])]

    def column(place: int) -> Any:
        i, k = places[place]
        values = named.column(i)
        if k is None:
            return values
        if entry is not None:
            return entry(values, k)
        return values.reshape(*values.shape[: values.ndim - len(cells[i])], -1)[..., k]

    labels = [named.labels[i] if k is None else f"{named.labels[i]}[{k}]" for i, k in places]
    return NamedColumns(labels, column, lambda place: named.unit(places[place][0]))


def _entry_of_polars(column: Any, k: int) -> Any:
    """An entry of the arrays of one shape that a column of polars holds."""
    for place in np.unravel_index(k, column.dtype.shape):
        column = column.arr.get(int(place))
    return column


def _entry_of_arrow(column: Any, k: int) -> Any:
    """An entry of the lists of one length that a column of pyarrow holds."""
    return required("pyarrow.compute", "a column of lists", "pyarrow", "pip install pyarrow").list_element(column, k)


def _of_awkward(column: Any) -> np.ndarray:
    """A column of awkward as an array, of objects where its rows have different lengths."""
    try:
        return column.to_numpy()
    except ValueError:
        values = column.to_list()
        ragged = np.empty(len(values), object)
        ragged[:] = values
        return ragged


def names_of(table: Any) -> list[str] | None:
    """The names of a table's columns; None where it has none, or numbers them from 0."""
    named = None if type(table) is np.ndarray and table.dtype.names is None else named_columns(table, rows=False)
    if named is None or is_numbered(named.labels):
        return None
    return [str(label) for label in named.labels]


def arrow_unit(field: Any) -> str | None:
    """The unit that the metadata of a field of Arrow give it."""
    unit = (field.metadata or {}).get(b"unit")
    return unit.decode("utf-8", "replace") if unit else None


def has_columns(table: Any) -> bool:
    """Whether a table lists its columns, as data frames do."""
    columns = getattr(table, "columns", None)
    return columns is not None and not callable(columns) and getattr(table, "ndim", 2) == 2


def is_numbered(labels: Sequence[Any]) -> bool:
    """Whether columns have no names but their numbers, in order."""
    return all(is_int(label) and label == i for i, label in enumerate(labels))


def is_int(label: Any) -> bool:
    """Whether a label is a whole number."""
    return isinstance(label, (int, np.integer)) and not isinstance(label, bool)


def to_frame(x: np.ndarray, names: Sequence[str], kind: bool | str, units: Sequence[str | None] | None = None) -> Any:
    """Rows (n, d) as a data frame.

    Parameters
    ----------
    x : ndarray (n, d)
    names : sequence of str
    kind : {True, "pandas", "polars", "pyarrow", "astropy"}
        The library; True is pandas.
    units : sequence of str or None, optional
        Those of the columns, which astropy and pyarrow keep.  Columns whose unit has an epoch become instants.

    Raises
    ------
    ImportError
        If the library is not installed.
    """
    columns: dict[str, Any] = {name: np.ascontiguousarray(x[:, i]) for i, name in enumerate(names)}
    library = "pandas" if kind is True else kind
    units = [None] * len(names) if units is None else units
    clocks = {name: found for name, unit in zip(names, units) if (found := times.instants(columns[name], unit)) is not None}
    try:
        if library == "pandas":
            import pandas

            series = {name: pandas.Series(found.values) for name, found in clocks.items()}
            aware = {name: values.dt.tz_localize("UTC") for name, values in series.items() if clocks[name].zone}
            return pandas.DataFrame({**columns, **series, **aware})
        if library == "polars":
            import polars

            series = {name: polars.Series(found.values) for name, found in clocks.items()}
            aware = {name: values.dt.replace_time_zone("UTC") for name, values in series.items() if clocks[name].zone}
            return polars.DataFrame({**columns, **series, **aware})
        if library == "pyarrow":
            import pyarrow

            arrays = {name: pyarrow.array(values) for name, values in columns.items()}
            for name, found in clocks.items():
                kind_of_time = pyarrow.timestamp(np.datetime_data(found.values.dtype)[0], found.zone or None)
                arrays[name] = pyarrow.array(found.values, kind_of_time)
            fields = [
                pyarrow.field(name, arrays[name].type, metadata={"unit": unit} if unit and name not in clocks else None)
                for name, unit in zip(names, units)
            ]
            return pyarrow.table(arrays, schema=pyarrow.schema(fields))
        from astropy.table import Table
        from astropy.time import Time
    except ImportError as error:
        raise ImportError(f"as_frame={kind!r} needs {library}: pip install {library}") from error
    for name, found in clocks.items():
        columns[name] = Time(found.values, format="datetime64", scale="utc" if found.zone else "local")
    return Table(columns, units={name: unit for name, unit in zip(names, units) if unit and name not in clocks})


FRAMES = ("pandas", "polars", "pyarrow", "astropy")
"""What `to_frame` can make."""


def _vector(column: Any) -> Any:
    """A column of a matrix (n, 1), or of an array, as (n,); sparse ones as they are."""
    return column if hasattr(column, "toarray") else np.asarray(column).ravel()
