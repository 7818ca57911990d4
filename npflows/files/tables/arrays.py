"""Tables in NumPy's files: one array in .npy, several by name in .npz."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from npflows.core.columns import listed
from npflows.files.tables.roles import NO_VALUES
from npflows.files.tables.source import (
    BESIDE,
    NO_NUMBERS,
    OBJECTS,
    OTHER,
    Entry,
    Source,
    TableError,
    flat,
    from_entries,
    from_matrix,
    with_columns,
)

TABLES = ("x", "samples", "data", "X")
"""Names by which one of several two-dimensional arrays is the table."""
ARCHIVES = {
    "xl/": "an Excel file", "word/": "a Word file", "content.xml": "an OpenDocument file", "data.pkl": "a file of PyTorch",
}  # fmt: skip
"""What a zip archive is by the names within it."""
DAMAGE = zipfile.BadZipFile, EOFError, ValueError, AttributeError, TypeError, NotImplementedError, KeyError
"""What damaged files raise, of zipfile and NumPy."""


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
        return from_entries(owner, entries, lambda places: [flat(rows[names[i]]) for i in places])
    _numeric(owner, x)
    return from_matrix(owner, x)


def _numeric(owner: str, x: np.ndarray) -> None:
    if x.dtype.kind not in "biufmM":
        raise TableError(f"{owner} must hold numbers, got dtype {x.dtype}")


class Arrays(Mapping[str, np.ndarray]):
    """The arrays of an .npz file, each read when it is asked for; what their headers say is known before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            if not all(member.endswith(".npy") for member in members):
                raise TableError(f"{path} {_what_it_is(members)}")
            for name in members:
                with archive.open(name) as member:
                    version = np.lib.format.read_magic(member)
                    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                    shape, _, dtype = read(member)
                    self.about[name.removesuffix(".npy")] = (shape, dtype)

    def __getitem__(self, name: str) -> np.ndarray:
        if self.about[name][1].hasobject:
            raise TableError(
                f"{self.path}: the array {name!r} holds Python objects, which are not loaded, as that may run anything: "
                f"save it as numbers"
            )
        try:
            with open(self.path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                return file[name]
        except DAMAGE as error:
            raise _incomplete(self.path, error) from None

    def __contains__(self, name: object) -> bool:
        return name in self.about

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.about)

    def __len__(self) -> int:
        return len(self.about)

    def texts(self, name: str) -> list[str] | None:
        """An array of text as a list; None where there is none of this name."""
        return self[name].ravel().tolist() if name in self and self.about[name][1].kind == "U" else None

    def numeric(self, axes: int) -> dict[str, tuple[int, ...]]:
        """The shapes of the arrays of numbers of so many axes."""
        return {name: shape for name, (shape, dtype) in self.about.items() if len(shape) == axes and dtype.kind in "biuf"}


def _what_it_is(members: list[str]) -> str:
    """What a zip archive without arrays is, and what to do with it."""
    for mark, what in ARCHIVES.items():
        if any(member.startswith(mark) or member.endswith(f"/{mark}") or member == mark for member in members):
            return f"looks like {what}, which is no format of tables here: write it as csv or Parquet"
    return f"is a zip archive of {listed(members[:3])}, and no .npz file of arrays: unpack it first"


def open_npz(path: Path, table: str | None = None) -> Source:
    """An .npz file: one table, with further columns beside it perhaps, or an array for each column."""
    try:
        arrays = Arrays(path)
        if {"about", "theta"} <= set(arrays):
            raise TableError(f"{path} holds a flow, not a table")
        chosen = table or _table(path, arrays)
        if chosen is None:
            return _columns(path, arrays)
        if chosen not in arrays:
            raise TableError(f"{path} has no array {chosen!r}; there are {', '.join(arrays)}")
        x = arrays[chosen]
        if x.dtype.names:
            return with_columns(of_array(str(path), x), _beside(path, arrays, len(x), {chosen}))
        _numeric(f"{path}, array {chosen!r},", x)
        owner = str(path) if x.ndim == 2 else f"{path}, array {chosen!r},"
        source = from_matrix(owner, x, arrays.texts("columns"), units=arrays.texts("units"))
        return with_columns(source, _beside(path, arrays, len(x), {chosen}))
    except DAMAGE as error:
        raise error if isinstance(error, TableError) else _incomplete(path, error) from None


def _incomplete(path: Path, error: Exception) -> TableError:
    return TableError(f"{path} is not a complete .npz file of arrays ({error})")


def _table(path: Path, arrays: Arrays) -> str | None:
    """The array that is the table; None where each column has an array of its own.

    No table are log-densities and weights by their names, and what has a value for each step of chains (step, chain, d).
    """
    vectors, matrices = arrays.numeric(1), arrays.numeric(2)
    deep = {name: shape for axes in (3, 4, 5) for name, shape in arrays.numeric(axes).items()}
    steps = {shape[:2] for shape in deep.values()}
    tables = {name: shape for name, shape in matrices.items() if name.lower() not in NO_VALUES and shape not in steps}
    if not (tables or deep or vectors):
        tables = matrices
    found = [name for name in TABLES if name in tables]
    wide = [name for name, shape in tables.items() if shape[1] != 1]
    if found or len(wide) == 1:
        return (found or wide)[0]
    if deep:
        return next((name for name in TABLES if name in deep), next(iter(deep)))  # to be told how it is reshaped
    if wide:
        raise TableError(f"{path} holds several 2-D arrays ({', '.join(wide)}), none of them named {' or '.join(TABLES)}")
    structured = [name for name, (_, dtype) in arrays.about.items() if dtype.names]
    if len(structured) == 1:
        return structured[0]
    return next(iter(tables)) if len(tables) == 1 and not vectors else None


def _columns(path: Path, arrays: Arrays) -> Source:
    """A table whose columns are separate arrays, (n,) or (n, 1); single values are none."""
    known = {name for name in ("columns", "units") if arrays.texts(name) is not None}
    is_column = {
        name: len(shape) == 1 or shape[1:] == (1,) for name, (shape, dtype) in arrays.about.items() if not dtype.hasobject
    }
    names = [name for name in arrays if is_column.get(name) and name not in known]
    if not names:
        raise TableError(f"{path} holds no arrays of numbers" if len(arrays) else f"{path} holds no arrays")
    units = arrays.texts("units") or [""] * len(names)
    entries = [Entry(name, unit=unit) for name, unit in zip(names, units)]
    source = from_entries(str(path), entries, lambda places: [arrays[names[i]].reshape(-1) for i in places])
    return with_columns(source, _beside(path, arrays, arrays.about[names[0]][0][0], {*names}))


def _beside(path: Path, arrays: Arrays, n: int, taken: set[str]) -> Source:
    """All other arrays beside a table of n rows; what can't be columns of it is refused where it is asked for."""
    names = [name for name in arrays if name not in taken and not (name in ("columns", "units") and arrays.texts(name))]
    entries = []
    for name in names:
        shape, dtype = arrays.about[name]
        why = OTHER if shape[:1] != (n,) or len(shape) > 2 else OBJECTS if dtype.hasobject else BESIDE
        why = NO_NUMBERS if why == BESIDE and dtype.kind not in "biufmM" else why
        entries.append(Entry(name, shape[1] if why == BESIDE and shape[1:] not in ((), (1,)) else None, aside=why))

    def column(name: str) -> np.ndarray:
        values = arrays[name]
        if values.shape[:1] != (n,) or values.ndim > 2:
            raise TableError(f"{path}: the array {name!r} has shape {values.shape}, and the table has {n} rows")
        return values[:, 0] if values.shape[1:] == (1,) else values

    return from_entries(str(path), entries, lambda places: [column(names[i]) for i in places])
