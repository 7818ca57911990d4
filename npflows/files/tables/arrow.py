"""Tables in the formats of Arrow: Parquet and Arrow IPC (Feather), one file or a folder of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from npflows.core.absent import MASKED
from npflows.core.checks import warn_user
from npflows.core.frames import arrow_unit
from npflows.core.numbers import plain_array
from npflows.core.times import Times, times_of
from npflows.files.tables.astronomy import astropy_masks, astropy_units
from npflows.files.tables.clocks import with_times
from npflows.files.tables.source import INDEX, MASK, Entry, Source, TableError, from_entries, package

PARQUET, ARROW = (".parquet", ".pq"), (".arrow", ".feather", ".ipc")
"""Suffixes of files in folders."""


def open_parquet(path: Path) -> Source:
    """A Parquet file."""
    arrow, parquet = package("pyarrow", "Parquet"), package("pyarrow.parquet", "Parquet")
    try:
        schema = parquet.read_schema(path)
    except (arrow.ArrowException, OSError) as error:
        raise _damaged(path, "Parquet", error) from None
    return _of_schema(path, schema, lambda names: parquet.read_table(path, columns=names, partitioning=None))


def open_ipc(path: Path) -> Source:
    """An Arrow IPC file, which Feather is too."""
    arrow, ipc = package("pyarrow", "Arrow"), package("pyarrow.ipc", "Arrow", "pyarrow")
    try:
        source = arrow.memory_map(str(path))
        opened = ipc.open_file(source) if _magic(path) == b"ARROW1" else ipc.open_stream(source)
        table = opened.read_all()
    except (arrow.ArrowException, OSError) as error:
        raise _damaged(path, "Arrow", error) from None
    return _of_schema(path, table.schema, table.select)


def open_folder(path: Path) -> Source:
    """A folder of Parquet or Arrow files, of one schema."""
    arrow, dataset = package("pyarrow", "a folder of Parquet files"), package("pyarrow.dataset", "a folder", "pyarrow")
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in (*PARQUET, *ARROW))
    if not files:
        is_zarr = any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zattrs"))
        what = (
            "a Zarr store: open it with xarray and pass what it gives"
            if is_zarr
            else "a folder without Parquet or Arrow files"
        )
        raise TableError(f"{path} is {what}")
    kind = "parquet" if files[0].suffix.lower() in PARQUET else "ipc"
    try:
        data = dataset.dataset([str(file) for file in files], format=kind)
        return _of_schema(path, data.schema, lambda names: data.to_table(columns=names))
    except (arrow.ArrowException, OSError) as error:
        raise _damaged(path, "a folder of Parquet or Arrow files", error) from None


def _magic(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(6)


def _damaged(path: Path, format: str, error: Exception) -> TableError:
    return TableError(f"{path} looks like {format}, and can't be read as {format.lower()} ({str(error).splitlines()[0]})")


def _of_schema(path: Path, schema: Any, read: Any, *, tell: bool = True) -> Source:
    """A source of the columns that a schema names."""
    arrow = package("pyarrow", "Arrow")
    names, metadata = list(schema.names), schema.metadata or {}
    note = metadata.get(b"table_meta_yaml", b"").decode("utf-8", "replace")
    index, masks, units = _index(metadata), astropy_masks(note, names), astropy_units(note)
    entries = []
    for i, name in enumerate(names):
        dtype = schema.field(i).type
        width = dtype.list_size if arrow.types.is_fixed_size_list(dtype) else None
        aside = INDEX if name in index or name.startswith("__index_level_") else MASK if name in masks.values() else ""
        entries.append(Entry(name, width, arrow_unit(schema.field(i)) or units.get(name), aside))
    kept = [entry.name for entry in entries if entry.aside == INDEX and not entry.name.startswith("__index_level_")]
    if kept and tell:
        warn_user(f"{path}: left out {', '.join(kept)}, the index of the data frame that the file was written from")

    def fetch(places: Sequence[int]) -> list[Any]:
        wanted = [names[i] for i in places]
        beside = [masks[name] for name in wanted if name in masks]
        try:
            table = read(list(dict.fromkeys([*wanted, *beside])))
        except (arrow.ArrowException, OSError) as error:
            raise _damaged(path, "Parquet", error) from None
        return [_values(table[name], entries[i].width, table[masks[name]] if name in masks else None)
                for i, name in zip(places, wanted)]  # fmt: skip

    return from_entries(str(path), *with_times(entries, fetch, note))


def _values(column: Any, width: int | None, mask: Any) -> np.ndarray | Times:
    """A column as an array; NaN where it is null, or where its mask says that it is masked."""
    if width is not None:
        column = column.combine_chunks()
        if column.null_count:
            raise TableError("a column of several values in each row has null entries, which can't be told apart")
        return np.asarray(column.flatten()).reshape(-1, width)
    if (clock := times_of(column)) is not None:
        return clock
    values = plain_array(column)
    if mask is not None:
        hidden = np.asarray(mask.to_numpy(), bool)
        if hidden.any():
            values = np.where(hidden, MASKED, values)
    return values


def _index(metadata: dict[bytes, bytes]) -> set[str]:
    """The columns that are the index of the pandas data frame that was written."""
    try:
        about = json.loads(metadata.get(b"pandas", b"{}"))
        return {name for name in about.get("index_columns", ()) if isinstance(name, str)}
    except (ValueError, AttributeError):
        return set()


Piece = tuple[int, Callable[[], Source]]
"""Rows of a part of a file, and what opens it."""


def parquet_pieces(path: Path) -> list[Piece]:
    """The row groups of a Parquet file, or of all in a folder; empty for what is neither."""
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in PARQUET) if path.is_dir() else [path]
    files = [file for file in files if path.is_dir() or _magic(file)[:4] == b"PAR1"]
    if not files:
        return []
    arrow, parquet = package("pyarrow", "Parquet"), package("pyarrow.parquet", "Parquet")

    def piece(file: Path, group: int) -> Source:
        with parquet.ParquetFile(file) as opened:
            schema = opened.schema_arrow

        def read(names: list[str]) -> Any:
            with parquet.ParquetFile(file) as opened:
                return opened.read_row_group(group, columns=names)

        return _of_schema(file, schema, read, tell=False)

    pieces: list[Piece] = []
    for file in files:
        try:
            about = parquet.read_metadata(file)
        except (arrow.ArrowException, OSError) as error:
            raise _damaged(file, "Parquet", error) from None
        pieces += [(about.row_group(i).num_rows, partial(piece, file, i)) for i in range(about.num_row_groups)]
    return pieces


def arrow_pieces(path: Path) -> list[Piece]:
    """The record batches of an Arrow IPC file, or of all in a folder; empty for what is neither."""
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in ARROW) if path.is_dir() else [path]
    files = [file for file in files if path.is_dir() or _magic(file) == b"ARROW1"]
    if not files:
        return []
    arrow, ipc = package("pyarrow", "Arrow"), package("pyarrow.ipc", "Arrow", "pyarrow")

    def batch(file: Path, i: int) -> Any:
        with arrow.OSFile(str(file)) as source:
            return arrow.Table.from_batches([ipc.open_file(source).get_batch(i)])

    pieces: list[Piece] = []
    for file in files:
        try:
            with arrow.OSFile(str(file)) as source:
                opened = ipc.open_file(source)
                schema, sizes = opened.schema, [opened.get_batch(i).num_rows for i in range(opened.num_record_batches)]
        except (arrow.ArrowException, OSError) as error:
            raise _damaged(file, "Arrow", error) from None

        def piece(file: Path = file, i: int = 0, schema: Any = schema) -> Source:
            return _of_schema(file, schema, lambda names: batch(file, i).select(names), tell=False)

        pieces += [(n, partial(piece, file, i, schema)) for i, n in enumerate(sizes)]
    return pieces
