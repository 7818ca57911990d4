"""Tables of astronomy, by astropy: FITS, VOTable and ECSV."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from npflows.core.absent import MASKED
from npflows.core.checks import warn_user
from npflows.core.columns import did_you_mean, listed
from npflows.files.tables.clocks import OTHER_SCALES, SCALES, of_fits, with_times
from npflows.files.tables.masks import with_masks
from npflows.files.tables.packed import DAMAGE, unpacked
from npflows.files.tables.source import Entry, Source, TableError, flat, from_entries, package

UNREADABLE = (OSError, TypeError, ValueError, KeyError, IndexError, *DAMAGE)
"""What damage makes astropy and the packages of compression raise."""


def open_fits(path: Path, table: str | None = None) -> Source:
    """A table of a FITS file: the first one, or that of a name or number."""
    fits = package("astropy.io.fits", "FITS")
    try:
        with _hdus(path, fits) as file:
            hdus = list(file)
            number = _hdu(path, hdus, table, (fits.BinTableHDU, fits.TableHDU))
            several = [
                hdu.name or str(i) for i, hdu in enumerate(hdus) if isinstance(hdu, (fits.BinTableHDU, fits.TableHDU))
            ]
            columns = hdus[number].columns
            known = [(column.name, column.format, column.null, column.unit) for column in columns]
            header = hdus[number].header
            scales = [str(column.coord_type).strip().upper() for column in columns]
            steps = [column.coord_unit or column.unit for column in columns]
            note = "\n".join(map(str, header.get("COMMENT", ())))
            shape = [hdus[number].columns.dtype[i].shape for i in range(len(known))]
            length = header["NAXIS2"]
            lasts = path.stat().st_size
    except UNREADABLE as error:
        if isinstance(error, (TableError, FileNotFoundError)):
            raise
        raise TableError(f"{path} looks like FITS, and can't be read as FITS ({error})") from None
    if table is None:
        _tell_of_several(path, several)
    clocks = {i for i, scale in enumerate(scales) if scale in SCALES or scale in OTHER_SCALES}
    entries = [
        Entry(name) if i in clocks else Entry(name, _width(str(format), dims), unit)
        for i, ((name, format, _, unit), dims) in enumerate(zip(known, shape))
    ]

    def fetch(places: Sequence[int]) -> list[Any]:
        found = raw_columns(places)
        return [
            of_fits(str(path), known[i][0], values, scales[i], steps[i], header) if i in clocks else values
            for i, values in zip(places, found)
        ]

    def raw_columns(places: Sequence[int]) -> list[Any]:
        try:
            with _hdus(path, fits) as file:
                data = file[number].data
                raw = data.view(np.ndarray)
                return [_values(data, raw, *known[i][:3]) for i in places]
        except UNREADABLE as error:
            what = f"{length} rows in a file of {lasts:,} bytes: {error}"
            raise TableError(f"{path} looks like FITS, and can't be read as FITS ({what})") from None

    booleans = {name for name, format, _, _ in known if str(format).endswith("L")}
    return from_entries(str(path), *with_times(*with_masks(entries, fetch, booleans), note))


@contextmanager
def _hdus(path: Path, fits: Any) -> Iterator[Any]:
    """The list of HDUs of a FITS file, compressed or not, while it is open."""
    memory = unpacked(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(memory or path, memmap=memory is None, lazy_load_hdus=False) as hdus:
            yield hdus


def _width(format: str, dims: tuple[int, ...]) -> int | None:
    """How many values a column has in each row; None for a single one, and where it is another number in each row."""
    if format.endswith("X"):  # bits, which are stored in bytes
        return int(format[:-1] or 1)
    return None if not dims or "P" in format or "Q" in format else int(np.prod(dims))


def _tell_of_several(path: Path, names: Sequence[str]) -> None:
    """Warn of a file with several tables of which the first is taken."""
    if len(names) > 1:
        warn_user(f"{path} holds several tables ({listed(names)}), and the first is taken; say which by table= (--table)")


def _hdu(path: Path, hdus: list[Any], wanted: str | None, kinds: Any) -> int:
    """The number of the table that is meant."""
    tables = {i: hdu.name for i, hdu in enumerate(hdus) if isinstance(hdu, kinds)}
    if not tables:
        raise TableError(
            f"{path} has no table, only images: {listed([hdu.name or f'HDU {i}' for i, hdu in enumerate(hdus)])}"
        )
    if wanted is None:
        return next(iter(tables))
    found = [i for i, name in tables.items() if wanted in (str(i), name)]
    if len(found) > 1:
        raise TableError(f"{path} has several tables {wanted!r}: say which by its number, {' or '.join(map(str, found))}")
    if found:
        return found[0]
    raise TableError(
        f"{path} has no table {wanted!r}; {did_you_mean(wanted, [name or str(i) for i, name in tables.items()])}"
    )


def _values(data: Any, raw: np.ndarray, name: str, format: str, null: int | str | None) -> Any:
    """A column of a FITS table, NaN where it is null.

    Null values are those stored, before any scale: whole numbers, fields of text in ASCII tables, and the byte 0 for truth
    values (FITS 4.0, sections 7.2.5, 7.3.2 and 7.3.3.1).
    """
    values = flat(np.asarray(data[name]))
    stored = raw[name]
    if str(format).endswith("L"):
        null = 0
    if null is None or stored.dtype.kind not in "iuS" or values.dtype.kind not in "biuf":
        return values
    is_text = stored.dtype.kind == "S"
    is_null = np.char.strip(stored) == str(null).strip().encode("ascii") if is_text else stored == null
    if values.dtype.kind == "u" and stored.dtype.kind == "i" and not is_null.any():
        is_null = values == null  # astropy writes the null value of unsigned columns as it is after the offset
    return np.where(is_null.reshape(values.shape), MASKED, values) if is_null.any() else values


def open_votable(path: Path, table: str | None = None) -> Source:
    """A table of a VOTable: the first one, or that of a name or number."""
    votable = package("astropy.io.votable", "VOTable")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = votable.parse(str(path))
            tables = list(whole.iter_tables())
            names = [element.ID or element.name or str(i) for i, element in enumerate(tables)]
            if not tables:
                raise TableError(f"{path} has no table")
            if table is not None and table not in names and table not in map(str, range(len(tables))):
                raise TableError(f"{path} has no table {table!r}; {did_you_mean(table, names)}")
            if table is not None and names.count(table) > 1:
                raise TableError(f"{path} has several tables {table!r}: say which by its number, from 0")
            number = 0 if table is None else names.index(table) if table in names else int(table)
            read = tables[number].to_table(use_names_over_ids=True)
    except (OSError, ValueError, TypeError, IndexError, votable.exceptions.VOWarning) as error:
        if isinstance(error, (TableError, FileNotFoundError)):
            raise
        raise TableError(f"{path} looks like VOTable, and can't be read as VOTable ({_first_line(error)})") from None
    if table is None:
        _tell_of_several(path, names)
    return of_astropy(str(path), read)


def open_ecsv(path: Path) -> Source:
    """An ECSV file, which needs PyYAML beside astropy."""
    table = package("astropy.table", "ECSV", "astropy")
    package("yaml", "ECSV", "pyyaml")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read = table.Table.read(str(path), format="ascii.ecsv")
    except (OSError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise TableError(f"{path} looks like ECSV, and can't be read as ECSV ({_first_line(error)})") from None
    return of_astropy(str(path), read)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def of_astropy(owner: str, table: Any) -> Source:
    """A table of astropy as a source."""
    names = list(table.colnames)
    columns = [table[name] for name in names]
    entries = []
    for name, column in zip(names, columns):
        shape = getattr(column, "shape", (len(table),))
        unit = getattr(column, "unit", None)
        width = int(np.prod(shape[1:])) if len(shape) > 1 else None
        entries.append(Entry(name, width, None if unit is None or not str(unit) else str(unit)))
    booleans = {name for name, column in zip(names, columns) if getattr(getattr(column, "dtype", None), "kind", "") == "b"}
    return from_entries(owner, *with_masks(entries, lambda places: [_flat(columns[i]) for i in places], booleans))


def _flat(column: Any) -> Any:
    return column if getattr(column, "ndim", 1) < 2 else column.reshape(len(column), -1)


def astropy_units(note: str) -> dict[str, str]:
    """The units of columns in the note, in YAML, that astropy puts beside tables in Parquet and HDF5."""
    units = {}
    for entry in re.findall(r"\{([^{}]*)\}", note):
        name, unit = (re.search(rf"\b{key}: ('[^']*'|\"[^\"]*\"|[^,}}]+)", entry) for key in ("name", "unit"))
        if name and unit:
            units[name.group(1).strip(" '\"")] = unit.group(1).strip(" '\"")
    return units
