"""What a table is: the one place that makes plain arrays of numbers of what users have, for every method.

Columns with names, as of data frames, structured arrays and mappings, are taken by name wherever a `Header` says which are
expected, and columns with units in the units that it has, times in those with an epoch.  Masked entries, NA and None become
NaN that `npflows.core.absent` tells from others.  Text and what is no table are refused.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from npflows.core.columns import did_you_mean, listed
from npflows.core.frames import NamedColumns, has_columns, is_int, is_numbered, named_columns, names_of
from npflows.core.numbers import numbers_of
from npflows.core.table import Table
from npflows.core.units import unit_of


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
    units : list of str or None, optional
        The unit of each column, None for one without; None where no column has any.
    learned_units : bool
        Whether `fit` took the units from a table.
    marks : sequence of tuple of float
        The values that stand for a missing entry of each column, in the unit of whatever table; empty for none.
    """

    n: int
    attribute: str
    names: list[str] | None = None
    learned: bool = False
    extra: str = "raise"
    units: list[str | None] | None = None
    learned_units: bool = False
    marks: Sequence[tuple[float, ...]] = ()

    def give(self, names: list[str] | None, learned: bool = False) -> None:
        """Name the columns, or take their names away."""
        self.names, self.learned = names, learned and names is not None

    def measure(self, units: Sequence[str | None] | None, learned: bool = False) -> None:
        """Give the columns units, or take them away."""
        self.units = None if units is None or not any(units) else [unit or None for unit in units]
        self.learned_units = learned and self.units is not None

    def forget(self) -> None:
        """Take away the names and units that a fit learned."""
        if self.learned:
            self.give(None)
        if self.learned_units:
            self.measure(None)

    def unit(self, i: int) -> str | None:
        """The unit of a column."""
        return None if self.units is None else self.units[i]

    @property
    def is_alike(self) -> bool:
        """Whether one unit, or none, and the same marks are those of all columns."""
        return len({*(self.units or [None])}) == 1 and len({*self.marks}) < 2

    @property
    def labels(self) -> list[str]:
        """The names of the columns, each with its unit; by their numbers where they have none."""
        names = self.names or [f"column {i}" for i in range(self.n)]
        return [name if self.unit(i) is None else f"{name} [{self.unit(i)}]" for i, name in enumerate(names)]


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
        """Those that a fit to two tables has: the names and units that are known, else those of the tables.

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
            if header.units is None and table is not None:
                header.measure(learned_units(table, header, name), learned=True)
            made.append(header)
        return cls(*made)

    def take(self, other: Headers) -> None:
        """Take the names and units of others."""
        for header, named in zip(self, other):
            header.give(named.names, named.learned)
            header.measure(named.units, named.learned_units)


def _learned(table: Any, header: Header, name: str) -> list[str] | None:
    """The names for a header that has none, from a table that a fit is given."""
    names = names_of(table)
    if names is None or len(names) != header.n:
        return None
    _check_unique(names, names, name)
    return names


def learned_units(table: Any, header: Header, name: str) -> list[str | None] | None:
    """The units for a header that has none, from a table that a fit is given; None where no column has any."""
    if type(table) is np.ndarray and table.dtype.names is None and table.dtype.kind not in "mMO":
        return None
    named = named_columns(table, rows=False)
    if named is None:
        unit = unit_of(table)
        return [unit] * header.n if unit else None
    chosen, _ = _chosen(named.labels, header, name)
    units = [_unit(named, i) for i in chosen]
    return units if len(chosen) == header.n and any(units) else None


def _unit(named: NamedColumns, i: int) -> str | None:
    """The unit of a column of a table that names it."""
    return named.unit(i) or unit_of(named.column(i))


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
        Or a unit does not convert into that of the header.
    TypeError
        If something is no number, or has a unit where the header has none.
    """
    named = named_columns(values, rows=header is not None and header.names is not None)
    n = 0 if header is None or header.is_alike else header.n
    if named is None and n and unit_of(values) is not None and np.shape(values)[-1:] == (n,):
        named = NamedColumns(list(range(n)), lambda i: values[..., i])  # one unit, and columns of several
    if named is None:
        if header is None or not header.is_alike:
            return numbers_of(values, name), []
        return numbers_of(values, name, wanted=header.unit(0), marks=header.marks[0] if header.marks else ()), []
    if not named.labels:
        raise ValueError(f"{name} has no columns")
    chosen, left_out = _chosen(named.labels, header, name)
    wanted = [None] * len(chosen) if header is None or header.units is None else header.units
    whole = _at_once(values, named, chosen, wanted)
    if whole is not None:
        return whole, left_out
    wanted = wanted if len(wanted) == len(chosen) else [None] * len(chosen)
    marks = [()] * len(chosen) if header is None or len(header.marks) != len(chosen) else header.marks
    columns = [_column(named, *about, name) for about in zip(chosen, wanted, marks)]
    shapes = {column.shape for column in columns}
    if len(shapes) == 1 and columns[0].ndim <= 1:
        return np.stack(columns, axis=-1), left_out
    lengths = ", ".join(f"{named.labels[i]!s} {column.shape}" for i, column in zip(chosen[:4], columns))
    raise ValueError(f"the columns of {name} must be one-dimensional and of one length, got {lengths}")


def _are_unnamed(labels: Sequence[Any], names: list[str]) -> bool:
    """Whether columns have no names but their numbers, and these are not the names that are expected."""
    return is_numbered(labels) and set(map(str, labels)) != set(names)


def _chosen(labels: list[Any], header: Header | None, name: str) -> tuple[list[int], list[str]]:
    """The places of the columns that are expected, in their order, and the names of the others."""
    n = len(labels)
    if header is None or (header.names is not None and n == header.n and _are_unnamed(labels, header.names)):
        return list(range(n)), []
    if header.names is None:
        if n == header.n and all(map(is_int, labels)) and sorted(labels) == list(range(n)):
            return [labels.index(i) for i in range(n)], []  # columns are told by their numbers
        return list(range(n)), []
    names, wanted = [str(label) for label in labels], header.names
    places = {label: i for i, label in reversed(list(enumerate(names)))}
    missing = [known for known in wanted if known not in places]
    if missing:
        kept = f"flow.{header.attribute} are {listed(wanted)}" + (", from the table of an earlier fit" * header.learned)
        more = "" if len(missing) == 1 else f" and {len(missing) - 1} more"
        raise ValueError(f"{name} has no column {missing[0]!r}{more}; {did_you_mean(missing[0], names)}; {kept}")
    _check_unique(names, wanted, name)
    taken = set(wanted)
    left_out = [given for given in names if given not in taken]
    if left_out and header.extra == "raise":
        raise ValueError(
            f"{name} has columns that the flow does not take: {listed(left_out)}; pass {name}[flow.{header.attribute}], or "
            f"set flow.on_extra_columns = 'ignore'"
        )
    return [places[known] for known in wanted], left_out


def _check_unique(names: list[str], wanted: list[str], name: str) -> None:
    counts = Counter(names)
    twice = [known for known in wanted if counts[known] > 1]
    if twice:
        raise ValueError(f"{name} has more than one column named {twice[0]!r}; give each a name of its own")


def _at_once(
    table: Any, named: NamedColumns, chosen: list[int], wanted: Sequence[str | None]
) -> np.ndarray | None:  # fmt: skip
    """All columns of one dtype of a table that holds them so, without a copy, unless a unit is to be looked at."""
    if isinstance(table, Table):
        if any(named.unit(i) not in (None, unit) for i, unit in zip(chosen, wanted)):
            return None
    else:
        dtypes = list(table.dtypes) if hasattr(type(table), "dtypes") and has_columns(table) else []
        first = dtypes[0] if dtypes else None
        if not isinstance(first, np.dtype) or first.kind not in "biuf" or any(dtype != first for dtype in dtypes):
            return None
    array = np.asarray(table)
    return array if chosen == list(range(array.shape[1])) else array[:, chosen]


def _column(named: NamedColumns, i: int, wanted: str | None, marks: Sequence[float], name: str) -> np.ndarray:
    """One column, or the value of it in a row, as numbers of a unit."""
    label = str(named.labels[i])
    where = f"column {label!r} of {name}"
    try:
        return numbers_of(
            named.column(i), where, f"{name}[{label!r}]", column=True, unit=named.unit(i), wanted=wanted, marks=marks
        )
    except TypeError as error:
        if str(error).startswith(where):
            raise
        raise TypeError(f"{where} can't be made into numbers ({error})") from None
