"""Where the columns of a table live, as users say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from npflows.core.columns import column_number
from npflows.support.columns import Column, Real
from npflows.support.groups import Group

SupportLike = Sequence[Column] | Mapping[Any, Column]
"""Where columns live: one for each, or by number or name for some; several names or numbers, in a tuple, for a group."""
KINDS = "real(), positive(), below(), interval(), periodic(), integer(), ordered(), simplex()"


def as_columns(given: SupportLike | None, n: int, names: Sequence[str] | None = None) -> list[Column] | None:
    """One `Column` for each of n, from a list, or a mapping by index or name that leaves the others on the line.

    A group is entered at each of its columns, and knows their numbers.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        return _from_mapping(given, n, names)
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise TypeError(f"support must be a list of npflows.support columns or a mapping to them, got {given!r}")
    columns = list(given)
    if len(columns) != n or not all(isinstance(column, Column) for column in columns):
        raise ValueError(f"support must hold one of npflows.support.{KINDS} for each of the {n} columns, got {given!r}")
    return _with_groups(columns)


def _from_mapping(given: Mapping[Any, Column], n: int, names: Sequence[str] | None) -> list[Column]:
    columns: list[Column | None] = [None] * n
    for key, column in given.items():
        if not isinstance(column, Column):
            raise ValueError(f"support must hold npflows.support.{KINDS}, got {column!r} for {key!r}")
        several = isinstance(key, tuple)
        if several and not isinstance(column, Group):
            raise ValueError(f"a tuple of columns is for ordered() and simplex(), got {key!r}: {column!r}")
        if isinstance(column, Group) and column.columns is None and not several:
            raise ValueError(f"{column!r} is of several columns: give it with a tuple of them, got {key!r}")
        keys = key if several else (key,)
        numbers = [column_number(k, n, names, owner="support", naming="pass columns= to name them") for k in keys]
        if several and isinstance(column, Group):
            column = column.of(numbers)
        for d in numbers:
            if columns[d] is not None:
                raise ValueError(f"support says twice where column {d if names is None else names[d]} lives")
            columns[d] = column
    return _with_groups([Real() if column is None else column for column in columns])


def _with_groups(columns: list[Column]) -> list[Column]:
    """The columns with every group complete; equal groups that know no columns yet are one."""
    result = list(columns)
    for d, group in enumerate(columns):
        if not isinstance(group, Group):
            continue
        alike = [e for e, other in enumerate(columns) if type(other) is type(group) and other.arguments == group.arguments]
        numbers = alike if group.columns is None else group.columns
        if sorted(numbers) != alike or len(numbers) < 2:
            raise ValueError(
                f"{group!r} must be given for all of its columns, two or more and none twice, got it for {alike}"
            )
        result[d] = group if group.columns is not None else group.of(numbers)
    return result
