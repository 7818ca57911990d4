"""What every format gives: the names of its columns, what is known of them, and a way to fetch some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from npflows.core.optional import required
from npflows.files.tables.roles import Roles, roles_of

BESIDE, NOTED = "beside the table", "noted by the sampler"
OTHER, NO_NUMBERS, OBJECTS = "of another shape than the table", "no numbers", "Python objects"
INDEX, MASK = "the index of the data frame", "the mask of another column"
PARTITION = "what the names of the folders say"
"""Why a column is not taken unless it is asked for."""


class TableError(ValueError):
    """A table can't be read or written as asked; the message says why, and where in the table."""


@dataclass
class Source:
    """The columns of a table that is open.

    Attributes
    ----------
    owner : str
        Subject of messages: the file, or what was given.
    names : list of str
        Names of the columns; their numbers where they have none.
    fetch : callable
        From numbers of columns to their values, of any kind that `npflows.core.numbers` takes.
    has_names : bool
        Whether the columns of the table have names.  Weights beside a table without names have them all the same.
    units : dict of int to str
        Units of those columns that have one.
    aside : dict of int to str
        Columns that the format says are not to be taken unless they are asked for, and why; `left_out` has all of them.
    weight, log_weight : int or None
        The column that the format says is the weight of the rows, or its logarithm.
    block : ndarray (n, d), optional
        The first d columns, where they lie in one array.
    doubt : str
        A warning where all columns are taken for values.
    """

    owner: str
    names: list[str]
    fetch: Callable[[Sequence[int]], Sequence[Any]]
    has_names: bool = True
    units: dict[int, str] = field(default_factory=dict)
    aside: dict[int, str] = field(default_factory=dict)
    weight: int | None = None
    log_weight: int | None = None
    block: np.ndarray | None = None
    doubt: str = ""

    @cached_property
    def roles(self) -> Roles:
        """What the names of the columns say, those apart that the format knows better."""
        if not self.has_names:
            return Roles({}, None, [])
        known = {self.weight, self.log_weight, *self.aside}
        free = [i for i in range(len(self.names)) if i not in known]
        found = roles_of([self.names[i] for i in free])
        weight = None if found.weight is None else free[found.weight]
        return Roles({free[i]: why for i, why in found.aside.items()}, weight, [free[i] for i in found.doubtful])

    @property
    def left_out(self) -> dict[int, str]:
        """Columns that are not taken unless they are asked for, and why: by the format, else by their names."""
        return dict(sorted({**self.roles.aside, **self.aside}.items()))

    @cached_property
    def places(self) -> dict[str, int]:
        """The first column of each name."""
        return {name: i for i, name in reversed(list(enumerate(self.names)))}

    @cached_property
    def repeated(self) -> set[str]:
        """Names that more than one column has."""
        return {name for name, n in Counter(self.names).items() if n > 1}


class Entry(NamedTuple):
    """A column as a file has it, of one value in each row or of several.

    Attributes
    ----------
    name : str
    width : int or None
        How many values it has in each row; None for a single one.
    unit : str or None
    aside : str
        Why it is not taken unless it is asked for; empty for columns that are.
    """

    name: str
    width: int | None = None
    unit: str | None = None
    aside: str = ""


def from_entries(
    owner: str, entries: Sequence[Entry], fetch: Callable[[Sequence[int]], Sequence[Any]], **more: Any
) -> Source:  # fmt: skip
    """A source of columns that may hold several values in each row: name[0], name[1], ...

    Parameters
    ----------
    fetch : callable
        From places in `entries` to the values (n,) or (n, width) there.
    """
    names: list[str] = []
    places: list[tuple[int, int | None]] = []
    units: dict[int, str] = {}
    aside: dict[int, str] = {}
    for number, entry in enumerate(entries):
        for part in [None] if entry.width is None else range(entry.width):
            if entry.unit:
                units[len(names)] = entry.unit
            if entry.aside:
                aside[len(names)] = entry.aside
            names.append(entry.name if part is None else f"{entry.name}[{part}]")
            places.append((number, part))

    def chosen(which: Sequence[int]) -> list[Any]:
        needed = sorted({places[i][0] for i in which})
        by_number = dict(zip(needed, fetch(needed)))
        parts = [(by_number[places[i][0]], places[i][1]) for i in which]
        return [whole if part is None else whole[:, part] for whole, part in parts]

    return Source(owner, names, chosen, units=units, aside=aside, **more)


def from_matrix(
    owner: str,
    x: np.ndarray,
    names: Sequence[str] | None = None,
    *,
    beside: Mapping[str, np.ndarray] | None = None,
    weight: np.ndarray | None = None,
    log_weight: np.ndarray | None = None,
    aside: Mapping[str, str] | None = None,
    units: Sequence[str | None] | None = None,
) -> Source:
    """A source of an array (n, d), with the names of its columns if there are any.

    Parameters
    ----------
    beside : mapping of str to ndarray (n,), optional
        Further columns, which are taken if they are asked for alone.
    weight, log_weight : ndarray (n,), optional
        The weights of the rows, or their logarithms.
    aside : mapping of str to str, optional
        Names of columns that are not taken unless they are asked for, and why.
    """
    if x.ndim != 2:
        hint = ""
        if x.ndim == 3:
            hint = f": reshape chains (draw, chain, {x.shape[2]}) to (-1, {x.shape[2]})"
        raise TableError(f"{owner} must hold a table of shape (rows, columns), got shape {x.shape}{hint}")
    d = x.shape[1]
    if names is not None and len(names) != d:
        raise TableError(f"{owner} names {len(names)} columns, but has {d}")
    more = dict(beside or {})
    why = {**dict.fromkeys(more, BESIDE), **(aside or {})}
    for name, values in (("weight", weight), ("log_weight", log_weight)):
        if values is not None:
            more[name] = values
    columns = [*(map(str, names) if names is not None else map(str, range(d))), *more]
    beyond = list(more.values())
    return Source(
        owner,
        columns,
        lambda places: [x[:, i] if i < d else beyond[i - d] for i in places],
        has_names=names is not None,
        units={i: unit for i, unit in enumerate(units or ()) if unit},
        aside={i: why[name] for i, name in enumerate(columns) if name in why},
        weight=columns.index("weight", d) if weight is not None else None,
        log_weight=columns.index("log_weight", d) if log_weight is not None else None,
        block=x,
    )


def with_columns(table: Source, more: Source) -> Source:
    """A table with further columns beside it, which have names even where its own have none."""
    d = len(table.names)

    def fetch(places: Sequence[int]) -> list[Any]:
        own, others = [i for i in places if i < d], [i for i in places if i >= d]
        found = dict(zip(own, table.fetch(own)))
        found |= zip(others, more.fetch([i - d for i in others]))
        return [found[i] for i in places]

    return replace(
        table,
        names=[*table.names, *more.names],
        fetch=fetch,
        units={**table.units, **{i + d: unit for i, unit in more.units.items()}},
        aside={**table.aside, **{i + d: why for i, why in more.aside.items()}},
    )


def flat(values: np.ndarray) -> np.ndarray:
    """The values (n, ...) of a column as (n,) or (n, k)."""
    return values if values.ndim == 1 else values.reshape(len(values), -1)


def package(module: str, format: str, name: str | None = None) -> Any:
    """A package that reads a format, or a sentence that says how to install it."""
    name = name or module.partition(".")[0]
    return required(module, format, name, f"pip install {name}")
