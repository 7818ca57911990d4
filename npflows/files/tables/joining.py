"""Tables of the same columns in several files, or pieces, as one: columns by their names, in the units of the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from npflows.core.numbers import numbers_of
from npflows.core.table import Table
from npflows.core.times import Times, since, times_of
from npflows.files.tables.source import Source, TableError

ROWS = ("x", "condition", "sample_weight", "log_weight")
"""Attributes of a table that have an entry for each row."""
ZONES = " has times with a time zone in some parts of the table alone: give all of them one, or none"


@dataclass
class File:
    """A file that can be read in pieces.

    Attributes
    ----------
    whole : Source
        All of it.
    count : callable
        Gives the rows of each piece.
    piece : callable
        From the number of a piece to a source of its columns.
    """

    whole: Source
    count: Callable[[], list[int]]
    piece: Callable[[int], Source]

    @cached_property
    def sizes(self) -> list[int]:
        """Rows of each piece."""
        return self.count()


def concatenated(tables: Sequence[Table]) -> Table:
    """Tables of the same columns, their rows one after the other."""
    some = [table for table in tables if len(table)] or [tables[0]]
    rows = {name: [getattr(table, name) for table in some] for name in ROWS}
    together: dict[str, Any] = {name: np.concatenate(of) for name, of in rows.items() if of[0] is not None}
    return replace(some[0], **together)


def joined(owner: str, sources: Sequence[Source]) -> Source:
    """Sources as one, their rows one after the other.

    It has the columns of all of them.  One that some lack, or have in units that do not convert, is refused where it is
    fetched, so that the others can be asked for.

    Parameters
    ----------
    owner : str
        Subject of messages: what they are together.
    """
    if len(sources) == 1:
        return replace(sources[0], owner=owner)
    first, names = sources[0], list(sources[0].names)
    units, aside = dict(first.units), dict(first.aside)
    for source in sources[1:]:
        for i, name in enumerate(source.names):
            if name not in first.places and name not in names:
                units.update({len(names): source.units[i]} if i in source.units else {})
                aside.update({len(names): source.aside[i]} if i in source.aside else {})
                names.append(name)
    header = replace(first, owner=owner, names=names, units=units, aside=aside, block=None)

    def fetch(places: Sequence[int]) -> list[Any]:
        found = [aligned(source, header).fetch(places) for source in sources]
        return [_one_after_the_other(f"column {names[i]!r} of {owner}", parts) for i, parts in zip(places, zip(*found))]

    header.fetch = fetch
    return header


def aligned(source: Source, header: Source) -> Source:
    """A source with the columns of another, found by their names, and in their units."""
    if (source.names, source.units, source.aside) == (header.names, header.units, header.aside):
        return source

    def fetch(places: Sequence[int]) -> list[Any]:
        theirs = [_place(source, header, header.names[i]) for i in places]
        return [
            _in_unit(values, f"column {header.names[i]!r} of {source.owner}", source.units.get(k), header.units.get(i))
            for i, k, values in zip(places, theirs, source.fetch(theirs))
        ]

    return replace(header, owner=source.owner, fetch=fetch, units=dict(header.units), block=None)


def _place(source: Source, header: Source, name: str) -> int:
    if name not in source.places:
        raise TableError(
            f"{source.owner} has no column {name!r}, which other parts of {header.owner} have: name those that all have in "
            f"columns= (--columns)"
        )
    if name in source.repeated:
        raise TableError(f"{source.owner} has more than one column named {name!r}; give each a name of its own")
    return source.places[name]


def _in_unit(values: Any, where: str, unit: str | None, wanted: str | None) -> Any:
    """The values of a column in the unit of other parts of the table; times as they are."""
    if unit == wanted or (unit is None and _is_null(values)):
        return values
    clock, known = times_of(values), since(wanted)
    if unit is None and clock is not None and clock.are_instants == (known is not None):
        if known is not None and known.zone != clock.zone:
            raise TableError(f"{where}{ZONES}")
        return values
    if unit is not None and wanted is not None:
        try:
            return numbers_of(values, where, column=True, unit=unit, wanted=wanted)
        except ValueError:
            pass
    given, other = (f"numbers in {name}" if name else "numbers without a unit" for name in (unit, wanted))
    given, other = "times" if clock is not None else given, "times" if known is not None else other
    raise TableError(f"{where} holds {given}, and {other} in other parts of the table: write all parts in one unit")


def _is_null(values: Any) -> bool:
    """Whether no value of a column is known."""
    return type(values) is np.ndarray and values.dtype.kind == "f" and bool(np.isnan(values).all())


def _one_after_the_other(where: str, parts: Sequence[Any]) -> Any:
    """The values of a column in all parts of a table."""
    clocks = [times_of(part) for part in parts]
    times = [clock for clock in clocks if clock is not None]
    if not times:
        return np.concatenate([np.asarray(part) for part in parts])
    zones, kinds = {clock.zone for clock in times}, {clock.values.dtype.kind for clock in times}
    if len(kinds) > 1 or not all(clock is not None or _is_null(part) for clock, part in zip(clocks, parts)):
        raise TableError(
            f"{where} holds instants, durations or numbers, not the same in all parts: write it as one of them"
        )
    if len(zones) > 1:
        raise TableError(f"{where}{ZONES}")
    unknown = np.array("NaT", times[0].values.dtype)
    values = [np.full(len(part), unknown) if clock is None else clock.values for clock, part in zip(clocks, parts)]
    return Times(np.concatenate(values), zones.pop())
