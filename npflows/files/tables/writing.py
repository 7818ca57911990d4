"""Writing tables, in the formats that are read: in full or not at all."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from npflows.core.atomic import atomic_write, check_replaceable
from npflows.core.frames import to_frame
from npflows.core.times import instants, since
from npflows.files.tables.layout import MARKS, is_entry
from npflows.files.tables.source import TableError, package

ROWS_AT_ONCE = 65536
"""Rows turned into text together."""
Units = Sequence["str | None"]


def write_table(
    path: str | os.PathLike[str], values: np.ndarray, columns: Sequence[str], units: Sequence[str | None] | None = None
) -> None:
    """Write numbers (n, d), or (n,) of a single column, in the format of the suffix: in full or not at all.

    Names are kept by all formats but .npy, units by Parquet, Arrow, FITS, VOTable, ECSV, HDF5 and .npz.  Columns whose unit
    has an epoch are written as instants to text, Parquet, Arrow, FITS and ECSV.
    """
    path, names = Path(path), list(columns)
    write = _writer(path)
    with atomic_write(path) as file:
        write(file, values, names, list(units) if units is not None else [None] * len(names))


def check_writable(path: str | os.PathLike[str], *, table: bool = False) -> None:
    """Raise an error if a file (a table: of a known format) can't be written there; nothing is left behind."""
    path = Path(path)
    if table:
        needed = _NEEDED.get(_writer(path))
        if needed is not None:
            package(*needed)
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


class _Memory(io.BytesIO):
    """A file in memory for libraries that want to read, seek and close what they write to."""

    def close(self) -> None:
        """Keep what was written."""


def _rows(values: np.ndarray, columns: Sequence[str]) -> np.ndarray:
    return values.reshape(len(values), len(columns))


def _write_text(file: BinaryIO, values: np.ndarray, columns: list[str], units: Units, delimiter: str = ",") -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    broken = next((name for name in columns if "\n" in name or "\r" in name), None)
    if broken is not None:
        raise TableError(f"the column {broken!r} can't be written to text, where a line ends with its name: use Parquet")
    unsafe = {*MARKS, '"', *(" " if len(columns) == 1 else "")}
    in_quotes = any(is_entry(name) or name[:1] in "#%" or {*name} & unsafe for name in columns)
    quoting: Any = csv.QUOTE_ALL if in_quotes else csv.QUOTE_MINIMAL
    csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=quoting).writerow(columns)
    rows = _rows(values, columns)
    clocks = {i: unit for i, unit in enumerate(units) if since(unit) is not None}
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = rows[start : start + ROWS_AT_ONCE]
        fields = part.tolist()
        for i, unit in clocks.items():
            for row, field in zip(fields, _as_text(part[:, i], unit)):
                row[i] = field
        writer.writerows(fields)
    text.detach()


def _as_text(values: np.ndarray, unit: str | None) -> list[str]:
    """Instants as ISO 8601 writes them; empty where they are not known."""
    found = instants(values, unit)
    assert found is not None
    zone = "Z" if found.zone else ""
    return ["" if text == "NaT" else text + zone for text in np.datetime_as_string(found.values).tolist()]


def _write_npy(file: BinaryIO, values: np.ndarray, columns: list[str], units: Units) -> None:
    np.save(file, values)


def _write_npz(file: BinaryIO, values: np.ndarray, columns: list[str], units: Units) -> None:
    if values.ndim == 1:
        arrays: dict[str, Any] = {columns[0]: values}
    else:
        arrays = {"x": values, "columns": np.array(columns)}
        if any(units):
            arrays["units"] = np.array([unit or "" for unit in units])
    np.savez(file, **arrays)


def _write_parquet(file: BinaryIO, values: np.ndarray, columns: list[str], units: Units) -> None:
    package("pyarrow.parquet", "Parquet", "pyarrow").write_table(
        to_frame(_rows(values, columns), columns, "pyarrow", units), file
    )


def _write_arrow(file: BinaryIO, values: np.ndarray, columns: list[str], units: Units) -> None:
    table = to_frame(_rows(values, columns), columns, "pyarrow", units)
    with package("pyarrow.ipc", "Arrow", "pyarrow").new_file(file, table.schema) as writer:
        writer.write_table(table)


def _write_astropy(file: BinaryIO, values: np.ndarray, columns: list[str], units: Units, format: str) -> None:
    table = to_frame(_rows(values, columns), columns, "astropy", units)
    if format == "votable" and any(since(unit) is not None for unit in units):
        raise TableError("times can't be written to VOTable: use FITS, ECSV or Parquet")
    if format in ("fits", "votable"):
        memory = _Memory()
        table.write(memory, format=format)
        file.write(memory.getvalue())
        return
    package("yaml", "ECSV", "pyyaml")
    text = io.StringIO()
    table.write(text, format=format, delimiter=",")
    file.write(text.getvalue().encode("utf-8"))


def _write_hdf5(file: BinaryIO, values: np.ndarray, columns: list[str], units: Units) -> None:
    rows = _rows(values, columns)
    with package("h5py", "HDF5").File(file, "w", track_order=True) as made:
        for i, (name, unit) in enumerate(zip(columns, units)):
            if "/" in name:
                raise TableError(
                    f"the column {name!r} can't be written to HDF5, where a slash separates groups: use Parquet"
                )
            made.create_dataset(name, data=np.ascontiguousarray(rows[:, i]))
            if unit:
                made[name].attrs["units"] = unit


def _write_root(file: BinaryIO, values: np.ndarray, columns: list[str], units: Units) -> None:
    rows = _rows(values, columns)
    uproot = package("uproot", "ROOT")
    memory = _Memory()
    with uproot.recreate(memory) as made:
        made.mktree("tree", dict.fromkeys(columns, np.float64))
        made["tree"].extend({name: np.ascontiguousarray(rows[:, i]) for i, name in enumerate(columns)})
    file.write(memory.getvalue())


def _write_fcs(file: BinaryIO, values: np.ndarray, columns: list[str], units: Units) -> None:
    rows = _rows(values, columns)
    with np.errstate(over="ignore"):
        narrow = rows.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise TableError("FCS holds finite numbers of float32 alone: use Parquet")
    memory = _Memory()
    package("flowio", "FCS").create_fcs(memory, narrow.ravel().tolist(), columns)
    file.write(memory.getvalue())


_Write = Callable[[BinaryIO, np.ndarray, list[str], Units], None]
_FITS, _VOTABLE, _ECSV = (partial(_write_astropy, format=name) for name in ("fits", "votable", "ascii.ecsv"))
_WRITERS: dict[str, _Write] = {
    ".csv": _write_text, ".txt": _write_text, ".tsv": partial(_write_text, delimiter="\t"), ".npy": _write_npy,
    ".npz": _write_npz, ".parquet": _write_parquet, ".pq": _write_parquet, ".arrow": _write_arrow, ".feather": _write_arrow,
    ".fits": _FITS, ".fit": _FITS, ".vot": _VOTABLE, ".xml": _VOTABLE, ".ecsv": _ECSV, ".h5": _write_hdf5,
    ".hdf5": _write_hdf5, ".root": _write_root, ".fcs": _write_fcs,
}  # fmt: skip
_NEEDED: dict[Any, tuple[str, ...]] = {
    _write_parquet: ("pyarrow", "Parquet"), _write_arrow: ("pyarrow", "Arrow"), _FITS: ("astropy", "FITS"),
    _VOTABLE: ("astropy", "VOTable"), _ECSV: ("astropy", "ECSV"), _write_hdf5: ("h5py", "HDF5"),
    _write_root: ("uproot", "ROOT"), _write_fcs: ("flowio", "FCS"),
}  # fmt: skip
"""The package that writes a format."""


def _writer(path: Path) -> _Write:
    if path.suffix.lower() not in _WRITERS:
        raise TableError(f"{path}: the format of a table is told by its suffix, one of {', '.join(_WRITERS)}")
    return _WRITERS[path.suffix.lower()]
