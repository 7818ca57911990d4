"""Tables in files: text with a header (csv), npy, npz and, where pyarrow is installed, parquet."""

from __future__ import annotations

import csv
import io
import os
import tempfile
import zipfile
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from npflows.core.atomic import atomic_write, check_replaceable
from npflows.core.columns import column_number

ROWS_AT_ONCE = 65536
"""Rows turned into text together."""


class TableError(ValueError):
    """A table can't be read or written as asked; the message says why, and where in the table."""


@dataclass
class Table:
    """A table of numbers.

    Attributes
    ----------
    x : ndarray (n, d)
    columns : list of str or None
        Their names, where the file has any.
    beside : ndarray (n, c)
        Further columns, a condition or weights for instance.
    beside_columns : list of str or None
        Their names, where the file has any.
    """

    x: np.ndarray
    columns: list[str] | None
    beside: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    beside_columns: list[str] | None = None


def read_table(
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    *,
    expected: Sequence[str] | None = None,
    beside: Sequence[str] = (),
    beside_expected: Sequence[str] = (),
) -> Table:
    """Read columns of a table.

    Parameters
    ----------
    path : path-like
        .csv, .tsv, .txt: a header, then numbers, an empty field being NaN; .npy: a 2-D or a structured array; .npz: a
        2-D array `x`, or the only 2-D one, with names in `columns` if there are any, or 1-D arrays, one for each column;
        .parquet.
    columns : sequence of str, optional
        Names or numbers (from 0) of the columns to take, in this order; all that are not `beside` by default.
    expected : sequence of str, optional
        Names to take where `columns` does not say and the file has names.
    beside : sequence of str
        Names or numbers of further columns to take, a condition or weights.
    beside_expected : sequence of str
        Names of columns to take before those of `beside`, where the file has names.

    Raises
    ------
    TableError
        If something in it is no number, a column does not exist, or the file is damaged.
    OSError
        If it can't be opened.
    """
    path = Path(path)
    read, n_beside = _format(path).read, 0

    def select(names: Sequence[str] | None, n: int) -> list[int]:
        nonlocal n_beside
        apart = _choose(path, names, n, None, beside_expected) if beside_expected and names is not None else []
        apart += _choose(path, names, n, beside, None) if beside else []
        n_beside = len(apart)
        chosen = _choose(path, names, n, columns, expected, apart)
        both = chosen + apart
        if len(set(both)) < len(both):
            twice = next(i for i in both if both.count(i) > 1)
            what = f"{twice}" if names is None else f"{names[twice]!r}"
            raise TableError(f"the same column of {path} is asked for twice: {what}")
        if not chosen:
            raise TableError(f"{path} has no columns beside {', '.join([*beside_expected, *beside])}")
        return both

    table = read(path, select)
    if not n_beside:
        return Table(table.x, table.columns, np.empty((len(table.x), 0)))
    names = table.columns
    return Table(
        table.x[:, :-n_beside],
        None if names is None else names[:-n_beside],
        table.x[:, -n_beside:],
        None if names is None else names[-n_beside:],
    )


def write_table(path: str | os.PathLike[str], values: np.ndarray, columns: Sequence[str]) -> None:
    """Write numbers (n, d), or (n,) of a single column, in the format of the suffix: in full or not at all."""
    path = Path(path)
    write = _format(path).write
    with atomic_write(path) as file:
        write(file, values, list(columns))


def check_writable(path: str | os.PathLike[str], *, table: bool = False) -> None:
    """Raise an error if a file (a table: of a known format) can't be written there; nothing is left behind."""
    path = Path(path)
    if table and _format(path).name == "parquet":
        _pyarrow()
    if path.exists() and not path.is_file():
        raise TableError(f"can't write {path}: it is not a file")
    try:
        check_replaceable(path)
    except OSError as error:
        raise TableError(str(error)) from None
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise TableError(f"can't write {path}: {path.parent}: {error.strerror or error}") from None


_Select = Callable[[Sequence[str] | None, int], list[int]]
"""The numbers of the columns to take, from the names of all (None where they have none) and their number."""


def _choose(
    path: Path,
    names: Sequence[str] | None,
    n: int,
    columns: Sequence[str] | None,
    expected: Sequence[str] | None,
    without: Sequence[int] = (),
) -> list[int]:
    """The numbers of the columns that are chosen or expected; without either, of all but those of `without`."""
    if names is not None:
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise TableError(f"{path} has more than one column named {sorted(repeated)[0]!r}")
    wanted = columns if columns is not None else expected if names is not None else None
    if wanted is None:
        rest = [i for i in range(n) if i not in without]
        if names is not None and "" in [names[i] for i in rest]:
            raise TableError(f"{path}: column {names.index('')} has no name (row numbers?); choose columns with --columns")
        return rest
    numerals = columns is not None
    return [column_number(name, n, names, owner=str(path), numerals=numerals, error=TableError) for name in wanted]


def _read_text(path: Path, select: _Select) -> Table:
    values = array("d")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=first.count))
            names = [name.strip() for name in next(reader, [])]
            if not names:
                raise TableError(f"{path} is empty; it should start with a line of column names")
            if all(map(_is_number, names)) and names != [str(i) for i in range(len(names))]:
                raise TableError(f"{path} has no header: its first line holds only numbers; add a line of column names")
            chosen = select(names, len(names))
            everything = chosen == list(range(len(names)))
            for row in reader:
                if not row:
                    continue
                if len(row) != len(names):
                    raise TableError(f"{path}, line {reader.line_num}: {len(row)} fields, the header has {len(names)}")
                fields = row if everything else [row[i] for i in chosen]
                try:
                    values.extend([float(field) for field in fields])
                except ValueError:
                    where = f"{path}, line {reader.line_num}"
                    values.extend([_number(row[i], where, names[i]) for i in chosen])
    except (UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path} is no csv text ({error})") from None
    return Table(np.array(values).reshape(-1, len(chosen)), [names[i] for i in chosen])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(field: str, where: str, column: str) -> float:
    """The number in a field; an empty one is missing."""
    if not field.strip():
        return float("nan")
    if not _is_number(field):
        raise TableError(f"{where}, column {column}: {field!r} is not a number")
    return float(field)


def _write_text(file: BinaryIO, values: np.ndarray, columns: list[str], delimiter: str = ",") -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    rows = values.reshape(len(values), len(columns))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        writer.writerows(rows[start : start + ROWS_AT_ONCE].tolist())
    text.detach()


def _matrix(path: Path, x: np.ndarray, names: Sequence[str] | None, select: _Select) -> Table:
    if x.ndim != 2:
        raise TableError(f"{path} must hold a table of shape (rows, columns), got shape {x.shape}")
    if x.dtype.kind not in "biuf":
        raise TableError(f"{path} must hold numbers, got dtype {x.dtype}")
    n = x.shape[1]
    if names is not None and len(names) != n:
        raise TableError(f"{path} names {len(names)} columns, but has {n}")
    chosen = select(names, n)
    x = x if chosen == list(range(n)) else x[:, chosen]
    return Table(x, None if names is None else [names[i] for i in chosen])


def _stack(path: Path, arrays: Mapping[str, np.ndarray], select: _Select) -> Table:
    """A table whose columns are separate arrays."""
    names = list(arrays)
    chosen = [names[i] for i in select(names, len(names))]
    wrong = [name for name in chosen if arrays[name].ndim != 1 or arrays[name].dtype.kind not in "biuf"]
    if wrong:
        array = arrays[wrong[0]]
        raise TableError(f"{path}, column {wrong[0]}: {array.dtype} of shape {array.shape} is not a column of numbers")
    lengths = {name: len(arrays[name]) for name in chosen}
    if len(set(lengths.values())) > 1:
        raise TableError(f"{path}: the columns differ in length: {lengths}")
    return Table(np.column_stack([arrays[name] for name in chosen]), chosen)


def _read_npy(path: Path, select: _Select) -> Table:
    try:
        x = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(x, np.ndarray):
            raise TableError(f"{path} is an .npz file: name it so")
    except (ValueError, EOFError) as error:
        raise error if isinstance(error, TableError) else TableError(f"{path} can't be read ({error})") from None
    if x.dtype.names:
        return _stack(path, {name: x[name] for name in x.dtype.names}, select)
    return _matrix(path, x, None, select)


def _write_npy(file: BinaryIO, values: np.ndarray, columns: list[str]) -> None:
    np.save(file, values)


def _read_npz(path: Path, select: _Select) -> Table:
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, EOFError, ValueError, AttributeError, TypeError, NotImplementedError) as error:
        raise TableError(f"{path} is not a complete .npz file of arrays ({error})") from None
    if {"about", "theta"} <= set(arrays):
        raise TableError(f"{path} holds a flow, not a table")
    names = arrays.pop("columns", None) if getattr(arrays.get("columns"), "dtype", np.dtype("f4")).kind == "U" else None
    tables = [name for name, array in arrays.items() if array.ndim == 2]
    name = "x" if "x" in tables else tables[0] if len(tables) == 1 else None
    if name is not None:
        return _matrix(path, arrays[name], None if names is None else names.ravel().tolist(), select)
    if tables or not arrays:
        what = f"several 2-D arrays ({', '.join(tables)}), none of them named x" if tables else "no arrays"
        raise TableError(f"{path} holds {what}")
    return _stack(path, arrays, select)


def _write_npz(file: BinaryIO, values: np.ndarray, columns: list[str]) -> None:
    if values.ndim == 1:
        arrays: dict[str, Any] = {columns[0]: values}
        np.savez(file, **arrays)
    else:
        np.savez(file, x=values, columns=np.array(columns))


def _pyarrow() -> tuple:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise TableError("parquet needs pyarrow: pip install pyarrow") from None
    return pyarrow, pyarrow.parquet


def _read_parquet(path: Path, select: _Select) -> Table:
    arrow, parquet = _pyarrow()
    try:
        with open(path, "rb") as file:
            names = [name for name in parquet.read_schema(file).names if not name.startswith("__index_level_")]
            chosen = [names[i] for i in select(names, len(names))]
            table = parquet.read_table(file, columns=chosen)
    except arrow.ArrowException as error:
        raise TableError(f"{path} can't be read as parquet ({error})") from None
    return _stack(path, {name: table[name].to_numpy() for name in chosen}, lambda _, n: list(range(n)))


def _write_parquet(file: BinaryIO, values: np.ndarray, columns: list[str]) -> None:
    arrow, parquet = _pyarrow()
    rows = values.reshape(len(values), len(columns))
    parquet.write_table(arrow.table({name: rows[:, i] for i, name in enumerate(columns)}), file)


@dataclass
class _Format:
    name: str
    read: Callable[[Path, _Select], Table]
    write: Callable[[BinaryIO, np.ndarray, list[str]], None]


_TEXT, _PARQUET = _Format("text", _read_text, _write_text), _Format("parquet", _read_parquet, _write_parquet)
_FORMATS = {
    ".csv": _TEXT,
    ".txt": _TEXT,
    ".tsv": _Format("text", _read_text, partial(_write_text, delimiter="\t")),
    ".npy": _Format("npy", _read_npy, _write_npy),
    ".npz": _Format("npz", _read_npz, _write_npz),
    ".parquet": _PARQUET,
    ".pq": _PARQUET,
}


def _format(path: Path) -> _Format:
    if path.suffix.lower() not in _FORMATS:
        raise TableError(f"{path}: the format of a table is told by its suffix, one of {', '.join(_FORMATS)}")
    return _FORMATS[path.suffix.lower()]
