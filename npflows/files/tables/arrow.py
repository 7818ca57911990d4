"""Tables in the formats of Arrow: Parquet and Arrow IPC (Feather), one file or a folder of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from npflows.core.absent import MASKED
from npflows.core.checks import warn_user
from npflows.core.columns import listed
from npflows.core.frames import arrow_unit
from npflows.core.numbers import plain_array
from npflows.core.times import Times, instant, times_of
from npflows.files.tables.astronomy import astropy_units
from npflows.files.tables.clocks import with_times
from npflows.files.tables.joining import File, joined
from npflows.files.tables.masks import hidden, masks_beside
from npflows.files.tables.source import INDEX, MASK, PARTITION, Entry, Source, TableError, from_entries, package

PARQUET, ARROW = (".parquet", ".pq"), (".arrow", ".feather", ".ipc")
"""Suffixes of files in folders."""
NOTHING = "__HIVE_DEFAULT_PARTITION__"
"""What the name of a folder says where the value is null."""


def open_parquet(path: Path) -> Source:
    """A Parquet file."""
    return _parquet(path, tell=True).whole


def open_ipc(path: Path) -> Source:
    """An Arrow IPC file, which Feather is too."""
    return _ipc(path, tell=True).whole


def open_folder(path: Path) -> Source:
    """A folder of Parquet or Arrow files."""
    return joined(str(path), [file.whole for file in files_of_folder(path, tell=True)])


def open_file(path: Path, *, tell: bool = False) -> File:
    """A Parquet or Arrow file; `tell` warns of an index that is left out."""
    is_parquet = _magic(path)[:4] == b"PAR1" or path.suffix.lower() in PARQUET
    return _parquet(path, tell) if is_parquet else _ipc(path, tell)


def files_of_folder(path: Path, *, tell: bool = False) -> list[File]:
    """The Parquet or Arrow files of a folder in the order of their names, without those that have no rows.

    What "year=2019" in the name of a folder says is a column of the files within.
    """
    names = _names_of_files(path)
    files: list[File] = []
    for name in names:
        file, said = open_file(name, tell=tell and not files), _said_by_folders(name.relative_to(path).parts[:-1])
        if sum(file.sizes):
            files.append(_with_columns(file, said))
    return files or [open_file(names[0], tell=tell)]


def _names_of_files(path: Path) -> list[Path]:
    """The files of a folder that hold a table, but for those that others pass over too."""
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in (*PARQUET, *ARROW) and file.is_file())
    hidden = [file for file in found if any(map(_is_hidden, file.relative_to(path).parts))]
    files = [file for file in found if file not in hidden]
    if not files:
        is_zarr = any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zattrs"))
        what = (
            "a Zarr store: open it with xarray and pass what it gives"
            if is_zarr
            else "a folder without Parquet or Arrow files"
        )
        raise TableError(f"{path} is {what}")
    if hidden:
        shown = listed([str(file.relative_to(path)) for file in hidden])
        warn_user(f"{path}: left out {shown}, as names that begin with . or _ are of what is not finished, or hidden")
    if len({file.suffix.lower() in PARQUET for file in files}) > 1:
        raise TableError(f"{path} holds both Parquet and Arrow files: keep those of one table in a folder of their own")
    return files


def _is_hidden(name: str) -> bool:
    """Whether Spark and Arrow pass over a file or folder of this name."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _said_by_folders(names: Sequence[str]) -> dict[str, str]:
    """The columns that names of folders like "year=2019" give to all rows in them, as Hive, Spark and Arrow write them."""
    parts = [name.partition("=") for name in names if "=" in name]
    return {unquote(key): unquote(value) for key, _, value in parts if key}


def _with_columns(file: File, said: dict[str, str]) -> File:
    """A file with columns of one value each, which are not taken unless they are asked for."""
    if not said:
        return file
    return File(
        _beside(file.whole, said, sum(file.sizes)),
        lambda: file.sizes,
        lambda i: _beside(file.piece(i), said, file.sizes[i]),
    )


def _beside(source: Source, said: dict[str, str], n: int) -> Source:
    """The n rows of a source with columns of one value beside those that it has itself."""
    names = [*source.names, *(name for name in said if name not in source.places)]
    d = len(source.names)

    def fetch(places: Sequence[int]) -> list[Any]:
        within = [i for i in places if i < d]
        found = dict(zip(within, source.fetch(within))) if within else {}
        return [found[i] if i < d else _repeated(said[names[i]], n) for i in places]

    return replace(
        source, names=names, fetch=fetch, aside={**source.aside, **dict.fromkeys(range(d, len(names)), PARTITION)}
    )


def _repeated(text: str, n: int) -> np.ndarray | Times:
    """A column of n times what a text says: a number, an instant, nothing, or else the text."""
    if text == NOTHING:
        return np.full(n, MASKED)
    if re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
        return np.full(n, int(text))
    if (moment := instant(text)) is not None:
        return Times(np.full(n, moment[0]), moment[1])
    try:
        return np.full(n, float(text))
    except ValueError:
        return np.full(n, text, object)


def _magic(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(6)


def _damaged(path: Path, format: str, error: Exception) -> TableError:
    return TableError(f"{path} looks like {format}, and can't be read as {format.lower()} ({str(error).splitlines()[0]})")


def _of_schema(path: Path, format: str, schema: Any, read: Any, tell: bool) -> Source:
    """A source of the columns that a schema names."""
    arrow = package("pyarrow", format)
    names, metadata = list(schema.names), schema.metadata or {}
    note = metadata.get(b"table_meta_yaml", b"").decode("utf-8", "replace")
    masks = masks_beside(names, {field.name for field in schema if _is_boolean(arrow, field.type)})
    index, units = _index(metadata), astropy_units(note)
    entries = []
    for i, name in enumerate(names):
        aside = INDEX if name in index or name.startswith("__index_level_") else MASK if name in masks.values() else ""
        entries.append(Entry(name, _width(schema.field(i).type), arrow_unit(schema.field(i)) or units.get(name), aside))
    kept = [entry.name for entry in entries if entry.aside == INDEX and not entry.name.startswith("__index_level_")]
    if kept and tell:
        warn_user(f"{path}: left out {', '.join(kept)}, the index of the data frame that the file was written from")

    def fetch(places: Sequence[int]) -> list[Any]:
        wanted = [names[i] for i in places]
        twice = [name for name in wanted if names.count(name) > 1]
        if twice:
            raise TableError(f"{path} has more than one column named {twice[0]!r}; give each a name of its own")
        beside = [masks[name] for name in wanted if name in masks]
        try:
            table = read(list(dict.fromkeys([*wanted, *beside])))
            return [_values(table[name], entries[i].width, table[masks[name]] if name in masks else None)
                    for i, name in zip(places, wanted)]  # fmt: skip
        except (arrow.ArrowException, OSError) as error:
            raise _damaged(path, format, error) from None

    return from_entries(str(path), *with_times(entries, fetch, note))


def _is_boolean(arrow: Any, dtype: Any) -> bool:
    while (inner := _within(dtype)) is not None:
        dtype = inner[1]
    return bool(arrow.types.is_boolean(dtype))


def _width(dtype: Any) -> int | None:
    """How many values a type has in each row, where that is the same in all of them; None for a single one."""
    width = None
    while (inner := _within(dtype)) is not None:
        width, dtype = (width or 1) * inner[0], inner[1]
    return width


def _within(dtype: Any) -> tuple[int, Any] | None:
    """The length of lists, and the type of what they hold; None for all else."""
    dtype = getattr(dtype, "storage_type", dtype)  # of a tensor
    return (dtype.list_size, dtype.value_type) if hasattr(dtype, "list_size") else None


def _values(column: Any, width: int | None, mask: Any) -> np.ndarray | Times:
    """A column as an array; NaN where it is null, or where its mask says that it is masked."""
    values: np.ndarray
    if width is not None:
        column = column.combine_chunks()
        while _within(column.type) is not None:
            column = getattr(column, "storage", column)
            if column.null_count:
                raise TableError("a column of several values in each row has null entries, which can't be told apart")
            column = column.flatten()
        values = np.asarray(column).reshape(-1, width)
    elif (clock := times_of(column)) is not None:
        return clock
    elif len(column) and len(column) == column.null_count:
        values = np.full(len(column), MASKED)
    else:
        values = plain_array(column)
    return values if mask is None else hidden(values, _values(mask, width, None))


def _index(metadata: dict[bytes, bytes]) -> set[str]:
    """The columns that are the index of the pandas data frame that was written."""
    try:
        about = json.loads(metadata.get(b"pandas", b"{}"))
        return {name for name in about.get("index_columns", ()) if isinstance(name, str)}
    except (ValueError, AttributeError):
        return set()


def _parquet(path: Path, tell: bool) -> File:
    """A Parquet file, whose pieces are its row groups."""
    arrow, parquet = package("pyarrow", "Parquet"), package("pyarrow.parquet", "Parquet")
    try:
        with parquet.ParquetFile(path) as opened:
            schema, about = opened.schema_arrow, opened.metadata
    except (arrow.ArrowException, OSError) as error:
        raise _damaged(path, "Parquet", error) from None

    def group(i: int, names: list[str]) -> Any:
        with parquet.ParquetFile(path) as opened:
            return opened.read_row_group(i, columns=names)

    return File(
        _of_schema(path, "Parquet", schema, lambda names: parquet.read_table(path, columns=names, partitioning=None), tell),
        lambda: [about.row_group(i).num_rows for i in range(about.num_row_groups)],
        lambda i: _of_schema(path, "Parquet", schema, partial(group, i), False),
    )


def _ipc(path: Path, tell: bool) -> File:
    """An Arrow IPC file, whose pieces are its record batches, or a stream, which is one piece."""
    arrow, ipc = package("pyarrow", "Arrow"), package("pyarrow.ipc", "Arrow", "pyarrow")
    is_file = _magic(path) == b"ARROW1"

    def opened() -> Any:
        source = arrow.memory_map(str(path))
        return ipc.open_file(source) if is_file else ipc.open_stream(source)

    def rows() -> list[int]:
        file = opened()
        return [file.get_batch(i).num_rows for i in range(file.num_record_batches)] if is_file else [len(file.read_all())]

    def batch(i: int, names: list[str]) -> Any:
        return (arrow.Table.from_batches([opened().get_batch(i)]) if is_file else opened().read_all()).select(names)

    def readable(act: Callable[[], Any]) -> Any:
        try:
            return act()
        except (arrow.ArrowException, OSError) as error:
            raise _damaged(path, "Arrow", error) from None

    schema = readable(lambda: opened().schema)
    return File(
        _of_schema(path, "Arrow", schema, lambda names: opened().read_all().select(names), tell),
        lambda: readable(rows),
        lambda i: _of_schema(path, "Arrow", schema, partial(batch, i), False),
    )
