"""Tables in NumPy's files: one array in .npy, several by name in .npz."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from npflows.files.tables.source import Entry, Source, TableError, from_entries, from_matrix

TABLES = ("x", "samples", "data", "X")
"""Names by which one of several two-dimensional arrays is the table."""


def open_npy(path: Path) -> Source:
    """An .npy file: a two-dimensional array, or a structured one."""
    return of_array(str(path), mapped(path))


def mapped(path: Path) -> np.ndarray:
    """The array of an .npy file, mapped into memory."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise TableError(f"{path} can't be read as .npy ({error})") from None


def of_array(owner: str, x: np.ndarray) -> Source:
    """An array as a source: two-dimensional, or structured."""
    if x.dtype.names:
        names, rows = x.dtype.names, x.reshape(-1)
        widths = [None if x.dtype[i].shape == () else int(np.prod(x.dtype[i].shape)) for i in range(len(names))]
        entries = [Entry(name, width) for name, width in zip(names, widths)]
        return from_entries(owner, entries, lambda places: [_flat(rows[names[i]]) for i in places])
    _numeric(owner, x)
    return from_matrix(owner, x)


def _flat(values: np.ndarray) -> np.ndarray:
    """Values of a field (n, ...) as (n,) or (n, k)."""
    return values if values.ndim == 1 else values.reshape(len(values), -1)


def _numeric(owner: str, x: np.ndarray) -> None:
    if x.dtype.kind not in "biufmM":
        raise TableError(f"{owner} must hold numbers, got dtype {x.dtype}")


class Arrays(Mapping[str, np.ndarray]):
    """The arrays of an .npz file, each read when it is asked for; what their headers say is known before."""

    def __init__(self, path: Path) -> None:
        self.path, self.about = path, {}
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    version = np.lib.format.read_magic(member)
                    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                    shape, _, dtype = read(member)
                    self.about[name.removesuffix(".npy")] = (shape, dtype)

    def __getitem__(self, name: str) -> np.ndarray:
        with open(self.path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return file[name]

    def __contains__(self, name: object) -> bool:
        return name in self.about

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.about)

    def __len__(self) -> int:
        return len(self.about)


def open_npz(path: Path, table: str | None = None) -> Source:
    """An .npz file: one table, with further columns beside it perhaps, or an array for each column."""
    try:
        arrays = Arrays(path)
        about = {name: (shape, dtype) for name, (shape, dtype) in arrays.about.items() if dtype.kind != "O"}
        if {"about", "theta"} <= set(about):
            raise TableError(f"{path} holds a flow, not a table")
        names = arrays["columns"] if "columns" in about and about["columns"][1].kind == "U" else None
        units = arrays["units"].ravel().tolist() if "units" in about and about["units"][1].kind == "U" else None
        tables = [name for name, (shape, dtype) in about.items() if len(shape) == 2 and dtype.kind in "biuf"]
        found = [name for name in TABLES if name in tables]
        chosen = table or (tables[0] if len(tables) == 1 else found[0] if found else None)
        if chosen is not None:
            if chosen not in arrays:
                raise TableError(f"{path} has no array {chosen!r}; there are {', '.join(arrays)}")
            x = arrays[chosen]
            _numeric(f"{path}, array {chosen!r},", x)
            beside = {
                name: arrays[name]
                for name, (shape, dtype) in about.items()
                if name != chosen and dtype.kind in "biuf" and len(shape) == 1 and shape == (len(x),)
            }
            return from_matrix(str(path), x, None if names is None else names.ravel().tolist(), beside=beside, units=units)
        return _columns(path, arrays, about, tables, units)
    except (zipfile.BadZipFile, EOFError, ValueError, AttributeError, TypeError, NotImplementedError, KeyError) as error:
        if isinstance(error, TableError):
            raise
        raise TableError(f"{path} is not a complete .npz file of arrays ({error})") from None


def _columns(path: Path, arrays: Arrays, about: dict, tables: list[str], units: list[str] | None) -> Source:
    """A table whose columns are separate arrays."""
    if tables:
        raise TableError(f"{path} holds several 2-D arrays ({', '.join(tables)}), none of them named {' or '.join(TABLES)}")
    structured = [name for name, (_, dtype) in about.items() if dtype.names]
    if len(structured) == 1:
        return of_array(str(path), arrays[structured[0]])
    deep = {name: shape for name, (shape, dtype) in about.items() if len(shape) > 2 and dtype.kind in "biuf"}
    if len(deep) == 1:
        from_matrix(f"{path}, array {next(iter(deep))!r},", arrays[next(iter(deep))])  # says how to reshape it
    known = {name for name in ("columns", "units") if name in about and about[name][1].kind == "U"}
    names = [name for name in about if name not in known and len(about[name][0]) <= 1 and about[name][1].kind != "O"]
    if not names:
        raise TableError(f"{path} holds no arrays of numbers" if len(arrays) else f"{path} holds no arrays")
    entries = [Entry(name, unit=unit) for name, unit in zip(names, units or [""] * len(names))]
    return from_entries(str(path), entries, lambda places: [arrays[names[i]] for i in places])
