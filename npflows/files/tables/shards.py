"""A table in several files as one, and the part of it that one process out of many reads."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npflows.core.table import Table
from npflows.files.tables.joining import ROWS, concatenated
from npflows.files.tables.reading import Parts, open_source, take
from npflows.files.tables.source import TableError
from npflows.files.tables.streams import stream_files

ABOUT = ("columns", "units", "condition_columns", "condition_units")
"""Those that the files of one table have in common."""


class Piece(NamedTuple):
    """A part of a table that is read at once.

    Attributes
    ----------
    owner : str
        Its file.
    size : int
        About how much it is, in the same unit as others: rows, or bytes.
    read : callable
        Gives it.
    """

    owner: str
    size: int
    read: Callable[[], Table]


def is_pattern(source: str) -> bool:
    """Whether this is a pattern of names of files, and not the name of one."""
    return glob.has_magic(source) and not os.path.exists(source)


def matching_files(source: str) -> list[str]:
    """The files of a pattern like "shards/*.parquet", sorted by their names; a single file or folder is itself.

    Raises
    ------
    TableError
        If there is none.
    """
    if not is_pattern(source):
        return [source]
    found = sorted(glob.glob(source, recursive=True))
    if not found:
        raise TableError(f"no file is called {source}")
    return found


def read_shard(
    source: str, rank: int, size: int, parts: Parts, table: str | None = None, burn_in: float = 0.0
) -> Table:  # fmt: skip
    """The part of a table that the rank of this number, of `size`, reads: row groups, record batches or whole files.

    The parts of all ranks, one after the other, are the rows of all files in the order of their names.

    Parameters
    ----------
    source : str
        A file, a folder, or a pattern.
    rank, size : int
    parts : Parts
        Which columns play which part.
    table, burn_in
        As in `npflows.read_table`.

    Raises
    ------
    TableError
        If a file can't be read, or its columns are not those of the others.
    """
    files = matching_files(source)
    pieces = _row_groups(files, parts) if table is None and not burn_in else None
    if pieces is None:
        pieces = [Piece(file, _bytes(file), partial(_whole, file, parts, table, burn_in)) for file in files]
    starts = np.cumsum([0, *(piece.size for piece in pieces)])
    middles = (starts[:-1] + starts[1:]) / 2
    mine = [piece for piece, middle in zip(pieces, middles) if int(middle * size / max(starts[-1], 1)) == rank]
    if not mine:
        first = pieces[0].read()
        return replace(first, **{name: rows[:0] for name in ROWS if (rows := getattr(first, name)) is not None})
    return _joined([(piece.owner, piece.read()) for piece in mine])


def _row_groups(files: Sequence[str], parts: Parts) -> list[Piece] | None:
    """The pieces of files that are read in pieces; None where one of them is not."""
    try:
        stream = stream_files(files, parts)
    except TableError:
        return None
    return [Piece(stream.owner, n, partial(stream.read, i)) for i, n in enumerate(stream.sizes)]


def _whole(file: str, parts: Parts, table: str | None, burn_in: float) -> Table:
    return take(open_source(file, table, burn_in), parts)


def _bytes(file: str) -> int:
    path = Path(file)
    return path.stat().st_size if path.is_file() else 1


def _joined(parts: Sequence[tuple[str, Table]]) -> Table:
    """Tables one after the other."""
    owner, first = parts[0]
    for other, table in parts[1:]:
        for name in ABOUT:
            ours, theirs = getattr(first, name), getattr(table, name)
            if ours != theirs and len(table):
                raise TableError(f"{other} has other {name.replace('_', ' ')} than {owner}: {theirs}, and {ours}")
    return concatenated([table for _, table in parts])
