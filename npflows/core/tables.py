"""What a table is: the one place that makes plain arrays of numbers of what users have, for every method.

Columns with names, as of data frames, structured arrays and mappings, are taken by name wherever a `Header` says which are
expected.  Masked entries, NA and None become NaN.  Units, dates, text and what is no table are refused.
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from npflows.core.columns import did_you_mean, listed
from npflows.core.interchange import interchange_column

TIMES = "; make numbers of it, for instance years since an epoch of your choice"
"""Advice for dates."""


@dataclass
class Header:
    """The columns that a table should have.

    Attributes
    ----------
    n : int
        How many.
    attribute : str
        Of the flow, which holds the names.
    names : list of str or None
        None for columns without names, which are told by their place.
    learned : bool
        Whether `fit` took the names from a table.
    extra : {"raise", "ignore"}
        Whether columns that are not expected are an error or are left out.
    """

    n: int
    attribute: str
    names: list[str] | None = None
    learned: bool = False
    extra: str = "raise"

    def give(self, names: list[str] | None, learned: bool = False) -> None:
        """Name the columns, or take their names away."""
        self.names, self.learned = names, learned and names is not None


class Headers(NamedTuple):
    """The columns that are expected of samples, and of conditions.

    Attributes
    ----------
    x, condition : Header
    """

    x: Header
    condition: Header

    @classmethod
    def of(cls, known: Headers, x: Any, condition: Any) -> Headers:
        """Those that a fit to two tables has: the names that are known, else those of the tables.

        Raises
        ------
        ValueError
            If names are to be taken from a table in which two columns have the same.
        """
        made = []
        for known_header, table, name in zip(known, (x, condition), cls._fields):
            header = copy.copy(known_header)
            if header.names is None and table is not None:
                header.give(_learned(table, header, name), learned=True)
            made.append(header)
        return cls(*made)

    def take(self, other: Headers) -> None:
        """Take the names of others."""
        for header, named in zip(self, other):
            header.give(named.names, named.learned)


class NamedColumns(NamedTuple):
    """The columns of a table that names them.

    Attributes
    ----------
    labels : list
        Their names, as the table has them.
    column : callable
        From the place of a column to its values; to a single one, where the table is a row.
    """

    labels: list[Any]
    column: Callable[[int], Any]


def named_columns(table: Any, *, rows: bool = True) -> NamedColumns | None:
    """The columns of whatever names them, None for all else.

    Parameters
    ----------
    table
        A data frame of pandas, polars or pyarrow, a table of astropy, a structured array, a mapping, or what has
        `columns` and `__array__`, or `__dataframe__`; or one row of any.
    rows : bool
        Whether a pandas Series whose index holds text is a row, and not a column.
    """
    if isinstance(table, (np.ndarray, np.void)):
        fields = table.dtype.names
        return None if fields is None else NamedColumns(list(fields), lambda i: table[fields[i]])
    kind = type(table)
    labels = getattr(table, "_fields", None) if isinstance(table, tuple) else None
    if labels is not None:  # a named tuple, as `itertuples` gives rows
        return NamedColumns(list(labels), table.__getitem__) if rows else None
    if isinstance(table, Mapping) and not hasattr(kind, "toarray"):  # which some sparse arrays are
        keys = list(table)
        return NamedColumns(keys, lambda i: table[keys[i]])
    if hasattr(kind, "column_names") and hasattr(kind, "column"):  # pyarrow
        return NamedColumns(list(table.column_names), table.column)
    if hasattr(kind, "colnames"):  # astropy
        names = list(table.colnames)
        return NamedColumns(names, lambda i: table[names[i]])
    if hasattr(kind, "get_columns") and hasattr(kind, "columns"):  # polars
        columns = table.get_columns()
        return NamedColumns(list(table.columns), columns.__getitem__)
    if hasattr(kind, "iloc") and _has_columns(table):  # pandas
        return NamedColumns(list(table.columns), lambda i: table.iloc[:, i])
    if hasattr(kind, "__array__") and _has_columns(table):
        array = np.asarray(table)
        return NamedColumns(list(table.columns), lambda i: array[:, i])
    if hasattr(kind, "__dataframe__"):
        frame = table.__dataframe__(allow_copy=True)
        return NamedColumns(list(frame.column_names()), lambda i: interchange_column(frame, i))
    if rows and hasattr(kind, "iloc") and hasattr(kind, "index"):  # a row of pandas
        labels = list(table.index)
        if labels and all(isinstance(label, str) for label in labels):
            return NamedColumns(labels, lambda i: table.iloc[i])
    return None


def names_of(table: Any) -> list[str] | None:
    """The names of a table's columns; None where it has none, or numbers them from 0."""
    named = None if type(table) is np.ndarray and table.dtype.names is None else named_columns(table, rows=False)
    if named is None or _is_numbered(named.labels):
        return None
    return [str(label) for label in named.labels]


def _learned(table: Any, header: Header, name: str) -> list[str] | None:
    """The names for a header that has none, from a table that a fit is given."""
    names = names_of(table)
    if names is None or len(names) != header.n:
        return None
    _check_unique(names, names, name)
    return names


def as_array(values: Any, name: str, header: Header | None = None) -> tuple[np.ndarray, list[str]]:
    """A plain array of numbers, without a copy where it is one already, and the names of the columns that were left out.

    Parameters
    ----------
    values
        What the user gave.
    name : str
        Of the argument, for messages.
    header : Header, optional
        The columns that are expected; by default all are taken in their order.

    Raises
    ------
    ValueError
        If a column is missing or not expected, or columns differ in length.
    TypeError
        If something is no number, or has a unit.
    """
    named = named_columns(values, rows=header is not None and header.names is not None)
    if named is None:
        return _numbers(values, name), []
    if not named.labels:
        raise ValueError(f"{name} has no columns")
    chosen, left_out = _chosen(named.labels, header, name)
    whole = _at_once(values, chosen)
    if whole is not None:
        return whole, left_out
    columns = [_column(named, i, name) for i in chosen]
    shapes = {column.shape for column in columns}
    if len(shapes) == 1 and columns[0].ndim <= 1:
        return np.stack(columns, axis=-1), left_out
    lengths = ", ".join(f"{named.labels[i]!s} {column.shape}" for i, column in zip(chosen[:4], columns))
    raise ValueError(f"the columns of {name} must be one-dimensional and of one length, got {lengths}")


def to_frame(x: np.ndarray, names: Sequence[str], kind: bool | str) -> Any:
    """Rows (n, d) as a data frame.

    Parameters
    ----------
    x : ndarray (n, d)
    names : sequence of str
    kind : {True, "pandas", "polars", "pyarrow", "astropy"}
        The library; True is pandas.

    Raises
    ------
    ImportError
        If the library is not installed.
    """
    columns = {name: np.ascontiguousarray(x[:, i]) for i, name in enumerate(names)}
    library = "pandas" if kind is True else kind
    try:
        if library == "pandas":
            import pandas

            return pandas.DataFrame(columns)
        if library == "polars":
            import polars

            return polars.DataFrame(columns)
        if library == "pyarrow":
            import pyarrow

            return pyarrow.table(columns)
        from astropy.table import Table
    except ImportError as error:
        raise ImportError(f"as_frame={kind!r} needs {library}: pip install {library}") from error
    return Table(columns)


FRAMES = ("pandas", "polars", "pyarrow", "astropy")
"""What `to_frame` can make."""


def _has_columns(table: Any) -> bool:
    columns = getattr(table, "columns", None)
    return columns is not None and not callable(columns) and getattr(table, "ndim", 2) == 2


def _is_numbered(labels: Sequence[Any]) -> bool:
    """Whether columns have no names but their numbers, in order."""
    return all(_is_int(label) and label == i for i, label in enumerate(labels))


def _are_unnamed(labels: Sequence[Any], names: list[str]) -> bool:
    """Whether columns have no names but their numbers, and these are not the names that are expected."""
    return _is_numbered(labels) and set(map(str, labels)) != set(names)


def _is_int(label: Any) -> bool:
    return isinstance(label, (int, np.integer)) and not isinstance(label, bool)


def _chosen(labels: list[Any], header: Header | None, name: str) -> tuple[list[int], list[str]]:
    """The places of the columns that are expected, in their order, and the names of the others."""
    n = len(labels)
    if header is None or (header.names is not None and n == header.n and _are_unnamed(labels, header.names)):
        return list(range(n)), []
    if header.names is None:
        if n == header.n and all(map(_is_int, labels)) and sorted(labels) == list(range(n)):
            return [labels.index(i) for i in range(n)], []  # columns are told by their numbers
        return list(range(n)), []
    names, wanted = [str(label) for label in labels], header.names
    missing = [known for known in wanted if known not in names]
    if missing:
        kept = f"flow.{header.attribute} are {listed(wanted)}" + (", from the table of an earlier fit" * header.learned)
        more = "" if len(missing) == 1 else f" and {len(missing) - 1} more"
        raise ValueError(f"{name} has no column {missing[0]!r}{more}; {did_you_mean(missing[0], names)}; {kept}")
    _check_unique(names, wanted, name)
    left_out = [given for given in names if given not in wanted]
    if left_out and header.extra == "raise":
        raise ValueError(
            f"{name} has columns that the flow does not take: {listed(left_out)}; pass {name}[flow.{header.attribute}], or "
            f"set flow.on_extra_columns = 'ignore'"
        )
    return [names.index(known) for known in wanted], left_out


def _check_unique(names: list[str], wanted: list[str], name: str) -> None:
    twice = [known for known in wanted if names.count(known) > 1]
    if twice:
        raise ValueError(f"{name} has more than one column named {twice[0]!r}; give each a name of its own")


def _at_once(table: Any, chosen: list[int]) -> np.ndarray | None:
    """All columns of a pandas frame that are numbers of one dtype, without a copy where it holds them so."""
    dtypes = list(table.dtypes) if hasattr(type(table), "dtypes") and _has_columns(table) else []
    first = dtypes[0] if dtypes else None
    if not isinstance(first, np.dtype) or first.kind not in "biuf" or any(dtype != first for dtype in dtypes):
        return None
    array = np.asarray(table)
    return array if chosen == list(range(array.shape[1])) else array[:, chosen]


def _column(named: NamedColumns, i: int, name: str) -> np.ndarray:
    """One column, or the value of it in a row, as numbers."""
    label = str(named.labels[i])
    where = f"column {label!r} of {name}"
    try:
        return _numbers(named.column(i), where, f"{name}[{label!r}]", column=True)
    except TypeError as error:
        if str(error).startswith(where):
            raise
        raise TypeError(f"{where} can't be made into numbers ({error})") from None


def _numbers(values: Any, where: str, code: str = "", *, column: bool = False) -> np.ndarray:
    """A plain array of numbers from anything that does not name columns.

    Parameters
    ----------
    where : str
        Subject of the messages.
    code : str
        How to write the values in Python; by default as the subject.
    column : bool
        Whether it is one column of a table.
    """
    _refuse_units(values, where, code or where)
    advice = "; leave the column out, or make numbers of it" if column else ""
    try:
        if isinstance(values, (list, tuple)) and any(hasattr(type(value), "_fields") for value in values):
            raise TypeError(
                f"{where} must be an array of numbers, and is a list of named tuples, whose names would be lost: make a "
                f"data frame of it"
            )
        if isinstance(values, (list, tuple)) and any(map(_is_special, values)):
            values = [_numbers(value, where) for value in values]
        array = _plain(values)
    except (TypeError, ValueError) as error:
        if str(error).startswith(where):
            raise
        what = f"; {type(values).__name__} can't be made into one"
        raise TypeError(f"{where} must be an array of numbers{what}{advice}") from None
    if array.dtype.kind == "O":
        if hasattr(values, "toarray"):
            raise TypeError(f"{where} must be an array of numbers, and is sparse: pass {where}.toarray()")
        array = _from_objects(array, where, advice)
    if array.dtype.kind not in "biuf":
        if array.dtype.kind in "mM":
            advice = TIMES
        raise TypeError(f"{where} must be an array of numbers, got dtype {array.dtype}{advice}")
    return array


def _plain(values: Any) -> np.ndarray:
    """A plain array of any dtype, NaN where an entry is masked."""
    if isinstance(values, np.ndarray):
        if type(values) is np.ndarray:
            return values
        if isinstance(values, np.ma.MaskedArray) or hasattr(values, "unmasked"):
            bare = np.asarray(values.data if isinstance(values, np.ma.MaskedArray) else values.unmasked)
            mask = np.asarray(getattr(values, "mask", False))
            return np.where(mask, np.nan, bare) if mask.any() and bare.dtype.kind in "biuf" else bare
        return np.asarray(values)
    dtype = getattr(values, "dtype", None)
    kind = getattr(dtype, "kind", None)
    if kind is not None and not isinstance(dtype, np.dtype) and kind in "biuf" and hasattr(values, "to_numpy"):
        return values.to_numpy(np.float64, na_value=np.nan)  # pandas with NA
    return np.asarray(values)


def _is_special(value: Any) -> bool:
    """Whether a mask or a unit would be lost where the value becomes part of an array."""
    return isinstance(value, np.ndarray) and type(value) is not np.ndarray


def _from_objects(array: np.ndarray, where: str, advice: str) -> np.ndarray:
    """Numbers from an array of objects; NaN for None and NA."""
    numbers = np.empty(array.shape)
    flat = numbers.reshape(-1)
    for i, value in enumerate(array.reshape(-1)):
        if value is None or type(value).__name__ == "NAType" or value is np.ma.masked:
            flat[i] = np.nan
        elif isinstance(value, (Real, Decimal, np.bool_)):
            flat[i] = _as_float(value, where)
        else:
            what = "text" if isinstance(value, (str, bytes)) else f"a {type(value).__name__}"
            if isinstance(value, (datetime.date, datetime.time, datetime.timedelta)):
                what, advice = "dates or times", TIMES
            else:
                _refuse_units(value, where, where)
            if hasattr(value, "collect") and hasattr(value, "columns"):
                advice = f"; pass {where}.collect()"
            shown = f" ({value!r})" if isinstance(value, (str, bytes)) and len(value) < 40 else ""
            raise TypeError(f"{where} must be an array of numbers, and holds {what}{shown}{advice}")
    return numbers


def _as_float(value: Any, where: str) -> float:
    """A number as a float, which a whole number of 400 digits can't be."""
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{where} holds a number beyond the range of float64, about 1.8e308: give its logarithm") from None


def _refuse_units(values: Any, where: str, code: str) -> None:
    """Refuse quantities that are not dimensionless: of astropy, pint, unyt, or columns that have a unit."""
    kind, dtype = type(values), getattr(values, "dtype", None)
    if kind is np.ndarray:
        return
    if hasattr(kind, "unit") or hasattr(kind, "units"):
        unit = getattr(values, "unit", None) if hasattr(kind, "unit") else values.units
    else:
        unit = None if isinstance(dtype, np.dtype) else getattr(dtype, "units", None)
    if unit is None:
        return
    is_unity = getattr(unit, "is_unity", None)
    if not (is_unity() if callable(is_unity) else str(unit) in ("", "dimensionless")):
        through = "" if hasattr(kind, "to_value") else ".quantity" if hasattr(kind, "quantity") else None
        how = f"{code}.to_value({str(unit)!r})" if through == "" else f"{code}.quantity.to_value({str(unit)!r})"
        how = "its magnitudes in a unit of your choice" if through is None else how
        raise TypeError(f"{where} has the unit {unit}, and flows take plain numbers: pass {how}")
