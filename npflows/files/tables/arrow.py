"""Tables in the formats of Arrow: Parquet and Arrow IPC (Feather), one file or a folder of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npflows.core.checks import warn_user
from npflows.core.frames import arrow_unit
from npflows.files.tables.astronomy import astropy_masks, astropy_times, astropy_units, refuse_times
from npflows.files.tables.source import INDEX, MASK, Entry, Source, TableError, from_entries, package


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
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in (".parquet", ".pq", ".arrow", ".feather"))
    if not files:
        raise TableError(f"{path} is a folder without Parquet or Arrow files")
    kind = "parquet" if files[0].suffix.lower() in (".parquet", ".pq") else "ipc"
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


def _of_schema(path: Path, schema: Any, read: Any) -> Source:
    """A source of the columns that a schema names."""
    arrow = package("pyarrow", "Arrow")
    names, metadata = list(schema.names), schema.metadata or {}
    note = metadata.get(b"table_meta_yaml", b"").decode("utf-8", "replace")
    index, masks, units, times = _index(metadata), astropy_masks(note, names), astropy_units(note), astropy_times(note)
    entries = []
    for i, name in enumerate(names):
        dtype = schema.field(i).type
        width = dtype.list_size if arrow.types.is_fixed_size_list(dtype) else None
        aside = INDEX if name in index or name.startswith("__index_level_") else MASK if name in masks.values() else ""
        entries.append(Entry(name, width, arrow_unit(schema.field(i)) or units.get(name), aside))
    kept = [entry.name for entry in entries if entry.aside == INDEX and not entry.name.startswith("__index_level_")]
    if kept:
        warn_user(f"{path}: left out {', '.join(kept)}, the index of the data frame that the file was written from")

    def fetch(places: Sequence[int]) -> list[Any]:
        wanted = [names[i] for i in places]
        for name in wanted:
            refuse_times(name, times, str(path))
        beside = [masks[name] for name in wanted if name in masks]
        try:
            table = read(list(dict.fromkeys([*wanted, *beside])))
        except (arrow.ArrowException, OSError) as error:
            raise _damaged(path, "Parquet", error) from None
        return [_values(table[name], entries[i].width, table[masks[name]] if name in masks else None)
                for i, name in zip(places, wanted)]  # fmt: skip

    return from_entries(str(path), entries, fetch)


def _values(column: Any, width: int | None, mask: Any) -> np.ndarray:
    """A column as an array; NaN where it is null, or where its mask says that it is masked."""
    if width is not None:
        column = column.combine_chunks()
        if column.null_count:
            raise TableError("a column of several values in each row has null entries, which can't be told apart")
        return np.asarray(column.flatten()).reshape(-1, width)
    values = column.to_numpy()
    if mask is not None:
        hidden = np.asarray(mask.to_numpy(), bool)
        if hidden.any():
            values = np.where(hidden, np.nan, values)
    return values


def _index(metadata: dict[bytes, bytes]) -> set[str]:
    """The columns that are the index of the pandas data frame that was written."""
    try:
        about = json.loads(metadata.get(b"pandas", b"{}"))
        return {name for name in about.get("index_columns", ()) if isinstance(name, str)}
    except (ValueError, AttributeError):
        return set()
