"""Tables larger than memory: pieces of Parquet and Arrow files, memory-mapped and Dask arrays, read one at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from npflows.core.table import Table
from npflows.core.times import since
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
        self._units: dict[str, str] | None = None
        self.has_log_weight = parts.log_weights is not None

    def __len__(self) -> int:
        return sum(self.sizes)

    def read(self, i: int) -> Table:
        """One piece, times in the unit of the first one."""
        if i and self._units is None:
            self.read(0)
        source = self._open(i)
        source.units.update({source.places[name]: unit for name, unit in (self._units or {}).items()})
        table = take(source, self.parts, tell=self._units is None)
        if self._units is None:
            self.has_log_weight = table.log_weight is not None
            self._units = {source.names[i]: unit for i, unit in source.units.items() if since(unit) is not None}
        return table

    def __iter__(self) -> Iterator[Table]:
        return map(self.read, range(len(self.sizes)))

    def table(self) -> Table:
        """All pieces as one table."""
        parts = [part for part in self if len(part)] or [self.read(0)]
        first = parts[0]
        joined: dict[str, Any] = {
            name: None if getattr(first, name) is None else np.concatenate([getattr(part, name) for part in parts])
            for name in ("x", "condition", "sample_weight", "log_weight")
        }
        return replace(first, **joined)

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
        A Parquet or Arrow file, or a folder of them; an .npy file or a memory-mapped array; a Dask array or data frame.
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
        path = Path(source)
        if path.suffix.lower() == ".npy":
            return _of_npy(path, parts)
        arrow = module("arrow")
        pieces = arrow.parquet_pieces(path) or arrow.arrow_pieces(path)
        if not pieces:
            raise TableError(f"{path} can't be read in pieces: write it as Parquet, Arrow or .npy, or use read_table")
        return TableStream(str(path), [n for n, _ in pieces], lambda i: pieces[i][1](), parts)
    if hasattr(source, "dask") and hasattr(source, "partitions") and not hasattr(source, "chunks"):
        sizes = [int(n) for n in source.map_partitions(len).compute()]
        return TableStream(
            "the Dask data frame", sizes, lambda i: module("results").of_object(source.partitions[i].compute()), parts
        )
    if hasattr(source, "dask") and hasattr(source, "blocks"):
        x = source.rechunk({1: -1}) if source.ndim == 2 else source
        x = x.compute_chunk_sizes() if any(n != n for n in x.chunks[0]) else x
        return TableStream(
            "the Dask array", x.chunks[0], lambda i: module("arrays").of_array("x", np.asarray(x.blocks[i])), parts
        )
    if isinstance(source, np.memmap) and source.filename is not None and source.flags.c_contiguous:
        return _of_memmap(source, parts)
    raise TableError(f"a {type(source).__name__} can't be read in pieces: pass a file, a memory-mapped or a Dask array")


def is_of_dask(table: Any) -> bool:
    """Whether a table is a Dask array or data frame."""
    kind = type(table)
    return hasattr(kind, "dask") and (hasattr(kind, "partitions") or hasattr(kind, "blocks"))


def _sizes(n: int) -> list[int]:
    return [min(ROWS, n - start) for start in range(0, n, ROWS)]


def _of_npy(path: Path, parts: Parts) -> TableStream:
    n = len(np.load(path, mmap_mode="r", allow_pickle=False))

    def piece(i: int) -> Source:  # mapped anew, so that what was read does not stay in memory
        return module("arrays").of_array(
            str(path), np.array(np.load(path, mmap_mode="r", allow_pickle=False)[i * ROWS : (i + 1) * ROWS])
        )

    return TableStream(str(path), _sizes(n), piece, parts)


def _of_memmap(x: np.memmap, parts: Parts) -> TableStream:
    name, dtype, start, shape = x.filename, x.dtype, x.offset, x.shape

    def piece(i: int) -> Source:
        mapped = np.memmap(name, dtype, "r", start, shape)  # type: ignore[call-overload]
        return module("arrays").of_array("x", np.array(mapped[i * ROWS : (i + 1) * ROWS]))

    return TableStream("the memory-mapped array", _sizes(len(x)), piece, parts)
