"""Tables in text: csv and white space, headers of every kind, comments, and Fortran's exponents.

NumPy's own parser takes what is plain; what it does not is read line by line, with the place of whatever is wrong.
"""

from __future__ import annotations

import contextlib
import csv
import lzma
import math
import re
import warnings
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from npflows.core.absent import MASKED
from npflows.core.times import Times, instant
from npflows.files.tables.layout import BOOLEAN, EMPTY, MISSING, Layout, split, value_of
from npflows.files.tables.packed import unpacker
from npflows.files.tables.source import Entry, Source, TableError, from_entries

COMMA = re.compile(r"[+-]?\d+,\d*\Z")
"""A number with a decimal comma."""
BLOCK = 1 << 22
"""Characters of lines that are parsed together."""
AS_NUMBER = {**dict.fromkeys(MISSING, "nan"), **{name: str(value) for name, value in BOOLEAN.items()}}
"""How marks of missing entries and booleans are written as numbers."""


def opened(path: Path) -> IO[str]:
    """A text file, compressed or not."""
    if (unpack := unpacker(path)) is not None:
        return unpack(path, "rt", encoding="utf-8-sig", newline="")
    with open(path, "rb") as file:
        first = file.read(2)
    encoding = "utf-16" if first in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return open(path, encoding=encoding, newline="")


def layout_of(path: Path) -> Layout:
    """How a text file is laid out."""
    with _told(path), opened(path) as file:
        return Layout(path, iter(file))


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Errors of what can't be read as text become one that says so; those of the file system stay."""
    try:
        yield
    except (UnicodeDecodeError, csv.Error, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise refusal(path, error) from None


def refusal(path: Path, error: Exception) -> TableError:
    """The sentence for what can't be read as text."""
    if isinstance(error, UnicodeDecodeError):
        return TableError(
            f"{path} is no text in UTF-8 (byte 0x{error.object[error.start]:02x}), perhaps one in Latin-1: save it in UTF-8"
        )
    return TableError(f"{path} is no csv text ({error})")


def open_text(path: Path, names: Sequence[str] | None = None, layout: Layout | None = None) -> Source:
    """A text file as a source of columns.

    Parameters
    ----------
    names : sequence of str, optional
        Names that another file gives; the text then has no header.
    layout : Layout, optional
        How it is laid out, where that is known.
    """
    layout = layout_of(path) if layout is None else layout
    if names is not None:
        if len(names) != layout.n:
            raise TableError(f"{path} has {layout.n} columns, and {len(names)} names are given for them")
        layout.names = list(names)
    labels = layout.names or [str(i) for i in range(layout.n)]
    entries = [Entry(name) for name in labels]
    return from_entries(
        str(path), entries, lambda places: _read(path, layout, labels, places), has_names=layout.names is not None
    )


def _read(path: Path, layout: Layout, labels: Sequence[str], places: Sequence[int]) -> list[np.ndarray | Times]:
    """Some columns of a text."""
    if not places:
        return []
    wanted = sorted(places)
    with _told(path):
        values = _by_blocks(path, layout, wanted)
        columns = _line_by_line(path, layout, labels, wanted) if values is None else dict(zip(wanted, values.T))
    return [columns[i] for i in places]


def _by_blocks(path: Path, layout: Layout, places: Sequence[int]) -> np.ndarray | None:
    """Columns that hold nothing but numbers and marks of missing entries, by NumPy; None where they are not so plain."""
    parts = [np.empty((0, len(places)))]
    with opened(path) as file:
        for _ in range(layout.skip):
            file.readline()
        while lines := file.readlines(BLOCK):
            masked: list[tuple[int, int]] = []
            part = _parsed(lines, layout.delimiter, layout.n, "#") if len(places) == layout.n else None
            if part is None:
                part = _parsed(_fields(lines, layout, places, masked), layout.delimiter, len(places), None)
            if part is None:
                return None
            if masked:
                part[tuple(np.transpose(masked))] = MASKED
            parts.append(part)
    return np.concatenate(parts)


def _parsed(lines: Iterable[str], delimiter: str | None, n: int, comments: str | None) -> np.ndarray | None:
    """The n columns of lines of plain numbers; None where NumPy does not take them as such."""
    if np.lib.NumpyVersion(np.__version__) < "1.23.0":
        return None  # it parsed as Python does, which takes 9801_3 for a number
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no rows
        try:
            values = np.loadtxt(lines, np.float64, comments, delimiter, ndmin=2)
        except (ValueError, IndexError, OverflowError, csv.Error):
            return None
    if not values.size:
        return np.empty((0, n))
    return values if values.shape[1] == n else None


def _fields(
    lines: Sequence[str], layout: Layout, places: Sequence[int], masked: list[tuple[int, int]]
) -> Iterator[str]:  # fmt: skip
    """The wanted fields of each row, as NumPy reads them; those that are masked entries are added to `masked`.

    Raises
    ------
    ValueError
        If a line is no row, or may go on in the next one.
    """
    delimiter, row = layout.delimiter or " ", 0
    for line in lines:
        fields = line.partition("#")[0].split() if layout.delimiter is None else line.rstrip("\r\n").split(delimiter)
        if '"' in line:
            if line.count('"') % 2:
                raise ValueError
            fields = split(line, layout.delimiter)
        is_comment = "#" in line and line.lstrip().startswith("#") and fields[:1] != ["#N/A"]
        if len(fields) == layout.n and not is_comment:
            wanted = [fields[i] for i in places]
            if not EMPTY.isdisjoint(wanted):
                masked += [(row, k) for k, field in enumerate(wanted) if field in EMPTY]
            yield delimiter.join([AS_NUMBER.get(field, field) for field in wanted])
            row += 1
        elif line.strip() and not is_comment:
            raise ValueError


def _line_by_line(path: Path, layout: Layout, labels: Sequence[str], places: Sequence[int]) -> dict[int, Any]:
    """Columns of a text of any kind; an error says where it is wrong."""
    values, clocks = array("d"), _Clocks()
    with opened(path) as file:
        for _ in range(layout.skip):
            file.readline()
        quotes = " (names of columns with a number among them stand in quotes)" if layout.has_words else ""
        reader = _records(file, layout)
        for number, row in reader:
            if len(row) != layout.n:
                more = " (row names? give them a column name)" if len(row) == layout.n + 1 else ""
                what = "the header has" if layout.names is not None else "the first line has"
                raise TableError(f"{path}, line {number}: {len(row)} fields, {what} {layout.n}{more}")
            for i in places:
                value = value_of(row[i])
                if value is None and not clocks.take(i, len(values) // len(places), row[i]):
                    hint = " (numbers have decimal points here)" if COMMA.match(row[i]) else quotes
                    raise TableError(f"{path}, line {number}, column {labels[i]}: {row[i]!r} is not a number{hint}")
                values.append(math.nan if value is None else value)
    columns = dict(zip(places, np.array(values).reshape(-1, len(places)).T))
    return {i: clocks.column(f"{path}, column {labels[i]}", i, column) for i, column in columns.items()}


class _Clocks:
    """The entries of columns that are instants, by their rows."""

    def __init__(self) -> None:
        self._found: dict[int, dict[int, tuple[np.datetime64, str]]] = {}

    def take(self, column: int, row: int, field: str) -> bool:
        """Note a field that is an instant; False for any other."""
        moment = instant(field)
        if moment is None:
            return False
        self._found.setdefault(column, {})[row] = moment
        return True

    def column(self, where: str, i: int, numbers: np.ndarray) -> np.ndarray | Times:
        """A column as the times that it holds, or its numbers where it holds none."""
        if i not in self._found:
            return numbers
        rows, moments = list(self._found[i]), list(self._found[i].values())
        zones = {zone for _, zone in moments}
        others = np.isfinite(numbers).any() or np.isinf(numbers).any()
        if others or len(zones) > 1:
            what = "numbers as well as instants" if others else "instants with a time zone and others without one"
            raise TableError(f"{where} holds {what}: make one kind of it")
        found = np.array([moment for moment, _ in moments])
        whole = np.full(len(numbers), np.array("NaT", found.dtype))
        whole[rows] = found
        return Times(whole, zones.pop())


def _records(file: IO[str], layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """The lines of numbers, with their numbers in the file; without empty ones and comments."""
    if layout.delimiter is None:
        for number, line in enumerate(file, layout.skip + 1):
            text = line.partition("#")[0]
            if text.strip():
                yield number, split(text, None)
        return
    reader = csv.reader(file, delimiter=layout.delimiter)
    for row in reader:
        if row and not (row[0].lstrip().startswith("#") and row[0].strip() not in MISSING):
            yield layout.skip + reader.line_num, row
