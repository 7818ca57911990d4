"""Tables larger than memory: pieces of Parquet and Arrow files, memory-mapped and Dask arrays, read one at a time."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npflows.core.columns import listed
from npflows.core.table import Table
from npflows.files.tables.formats import kind_of
from npflows.files.tables.joining import File, aligned, concatenated, joined
from npflows.files.tables.loading import module
from npflows.files.tables.reading import Keys, Parts, take
from npflows.files.tables.source import Source, TableError

ROWS = 1 << 16
"""Rows of a piece of an array."""


class TableStream:
    """A table in pieces that are read when they are asked for; iterating gives them as `Table` in their order.

    Parameters
    ----------
    owner : str
        Subject of messages.
    sizes : sequence of int
        Rows of each piece, before a condition on rows is applied.
    open_piece : callable
        From the number of a piece to a source of its columns.
    parts : Parts
        Which columns play which part.
    """

    def __init__(self, owner: str, sizes: Sequence[int], open_piece: Callable[[int], Source], parts: Parts) -> None:
        if not sum(sizes):
            raise TableError(f"{owner} has no rows")
        self.owner, self.sizes, self._open, self.parts = owner, list(sizes), open_piece, parts
        self._header: Source | None = None
        self.has_log_weight = parts.log_weights is not None

    def __len__(self) -> int:
        return sum(self.sizes)

    def read(self, i: int) -> Table:
        """One piece: the columns of the first one, by their names, in its units."""
        if i and self._header is None:
            self.read(0)
        source, header = self._open(i), self._header
        if header is None:
            table = take(source, self.parts)
            self._header, self.has_log_weight = source, table.log_weight is not None
            return table
        source = aligned(source, header)
        table = take(source, self.parts, tell=False)
        changed = [name for name, k in header.places.items() if source.units.get(k) != header.units.get(k)]
        if changed:
            raise TableError(
                f"{source.owner}: {listed(changed)} holds times, and none in the first piece of {self.owner}: write it as "
                f"one of them"
            )
        return table

    def __iter__(self) -> Iterator[Table]:
        return map(self.read, range(len(self.sizes)))

    def table(self) -> Table:
        """All pieces as one table."""
        return concatenated(list(self))

    def __repr__(self) -> str:
        return f"TableStream({self.owner}: {len(self):,} rows in {len(self.sizes)} pieces)"


def stream_table(
    source: Any,
    columns: Keys | int | None = None,
    *,
    condition: Keys | int | None = (),
    weights: str | int | bool | None = None,
    log_weights: str | int | None = None,
    where: str | None = None,
) -> TableStream:
    """A table that is larger than memory, for `NormalizingFlow.fit`, or to go through piece by piece.

    Parameters
    ----------
    source : path-like, memmap or Dask array
        A Parquet or Arrow file, or a folder of them, as `read_table` takes it; an .npy file or a memory-mapped array;
        a Dask array or data frame.
    columns, condition, weights, log_weights, where
        As in `read_table`.

    Returns
    -------
    TableStream
        A fit to it goes through all pieces once to check every row, to hold out validation rows, equal ones on one side,
        and to draw 260,000 rows from which standardization and first layers are set.  Each epoch then takes the pieces in
        a random order and shuffles a million rows at a time, while a thread reads the next ones.  Tables of up to four
        million rows are read whole.

    Raises
    ------
    TableError
        If the source has no pieces that could be read one by one.
    """
    parts = Parts(columns, condition, weights, log_weights, where)
    if isinstance(source, (str, os.PathLike)):
        return stream_files([source], parts)
    if hasattr(source, "dask") and hasattr(source, "partitions") and not hasattr(source, "chunks"):
        sizes = [int(n) for n in source.map_partitions(len).compute()]
        return TableStream(
            "the Dask data frame", sizes, lambda i: module("results").of_object(source.partitions[i].compute()), parts
        )
    if hasattr(source, "dask") and hasattr(source, "blocks"):
        x = source.rechunk({1: -1}) if source.ndim == 2 else source
        x = x.compute_chunk_sizes() if any(n != n for n in x.chunks[0]) else x
        return TableStream("the Dask array", x.chunks[0], lambda i: _of_block(x.blocks[i].compute()), parts)
    if isinstance(source, np.memmap) and source.filename is not None:
        return _of_memmap(source, parts)
    raise TableError(f"a {type(source).__name__} can't be read in pieces: pass a file, a memory-mapped or a Dask array")


def is_of_dask(table: Any) -> bool:
    """Whether a table is a Dask array or data frame."""
    kind = type(table)
    return hasattr(kind, "dask") and (hasattr(kind, "partitions") or hasattr(kind, "blocks"))


def stream_files(paths: Sequence[str | os.PathLike[str]], parts: Parts) -> TableStream:
    """A table in one or more files or folders, one after the other, in pieces.

    Raises
    ------
    TableError
        If a file has no pieces that could be read one by one.
    """
    files = [file for path in paths for file in _in_pieces(Path(path))]
    owner = str(paths[0]) if len(paths) == 1 else f"{paths[0]}, ..."
    header = joined(owner, [file.whole for file in files])
    pieces = [(file, i) for file in files for i in range(len(file.sizes))]

    def piece(k: int) -> Source:
        file, i = pieces[k]
        return aligned(file.piece(i), header)

    return TableStream(owner, [file.sizes[i] for file, i in pieces], piece, parts)


def _in_pieces(path: Path) -> list[File]:
    """The files of a folder, or one file, which can be read in pieces."""
    if path.is_dir():
        return module("arrow").files_of_folder(path)
    kind = kind_of(path)
    if kind == "npy":
        return [_of_npy(path)]
    if kind in ("Parquet", "Arrow"):
        return [module("arrow").open_file(path)]
    raise TableError(
        f"{path} is {kind}, which can't be read in pieces: write it as Parquet, Arrow or .npy, or use read_table"
    )


def _of_npy(path: Path) -> File:
    x = module("arrays").mapped(path)
    if not x.ndim:
        raise TableError(f"{path} must hold a table of shape (rows, columns), got shape ()")

    def piece(i: int) -> Source:
        return _rows(str(path), module("arrays").mapped(path), i)  # anew, so that what was read does not stay in memory

    return File(module("arrays").of_array(str(path), x), lambda: _sizes(x), piece)


def _of_memmap(x: np.memmap, parts: Parts) -> TableStream:
    def piece(i: int) -> Source:
        source = _rows("x", x, i)
        if x.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):  # what was changed of a copy is in memory alone
            x._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
        return source

    return TableStream("the memory-mapped array", _sizes(x), piece, parts)


def _sizes(x: np.ndarray) -> list[int]:
    """The rows of each piece of an array."""
    records = x[:1].size if x.dtype.names else 1
    return [records * min(ROWS, len(x) - start) for start in range(0, len(x), ROWS)]


def _rows(owner: str, x: np.ndarray, i: int) -> Source:
    """A piece of an array, in memory."""
    return module("arrays").of_array(owner, np.array(x[i * ROWS : (i + 1) * ROWS]))


def _of_block(block: Any) -> Source:
    """A block of a Dask array, which may have a mask."""
    return module("arrays").of_array("x", block) if type(block) is np.ndarray else module("results").of_object(block)
