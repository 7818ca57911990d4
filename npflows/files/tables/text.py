"""Tables in text: csv and white space, headers of every kind, comments, and Fortran's exponents.

NumPy's own parser takes what is plain; what it does not is read line by line, with the place of whatever is wrong.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import math
import re
import warnings
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from npflows.core.absent import MASKED
from npflows.core.checks import warn_user
from npflows.core.times import Times, instant
from npflows.files.tables.source import LOG_DENSITY, OWN, Entry, Source, TableError, from_entries

COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
"""First bytes of compressed files, and what opens them."""
MISSING = frozenset(
    ["", "NA", "N/A", "n/a", "<NA>", "#N/A", "NULL", "null", "None", "nan", "NaN", "NAN", "-nan", "-NaN", "--", "masked"]
)  # fmt: skip
"""Fields that are missing entries: empty or masked ones, and NaN."""
BOOLEAN = {"True": 1.0, "true": 1.0, "TRUE": 1.0, "False": 0.0, "false": 0.0, "FALSE": 0.0}
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+|[+-]\d+)?\Z", re.ASCII)
"""A number, with the exponents of C and of Fortran; Python would take 9801_3 for one too."""
INFINITE = frozenset(["inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"])
HEAD = 1 << 16
"""Characters among which the first line of numbers is looked for, at the least."""
CHAINS = (["weight", "minuslogpost"], ["weight", "logl"], ["weight", "-logl"])
"""How the columns of chains begin: those of Cobaya, UltraNest and GetDist."""
SAMPLERS = re.compile(r".*__\Z")
"""Names of CmdStan's own columns."""


def opened(path: Path) -> IO[str]:
    """A text file, compressed or not."""
    with open(path, "rb") as file:
        first = file.read(5)
    for mark, opener in COMPRESSED.items():
        if first.startswith(mark):
            return opener(path, "rt", encoding="utf-8-sig", newline="")  # type: ignore[operator]
    encoding = "utf-16" if first[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return open(path, encoding=encoding, newline="")


class Layout:
    """How a text is laid out: what separates its fields, the names, and where the numbers begin.

    Attributes
    ----------
    delimiter : str or None
        None for white space.
    names : list of str or None
    skip : int
        Lines before the first one of numbers.
    n : int
        Number of columns.
    """

    def __init__(self, path: Path, lines: Iterator[str]) -> None:
        self.skip, self.names, comments, first = 0, None, [], None
        for line in lines:
            text = line.strip()
            if text and text[0] not in "#%":
                first = line.rstrip("\r\n")
                break
            comments.append(text.lstrip("#%").strip())
            self.skip += 1
        if first is None:
            what = "no line of numbers" if comments else "empty; it should start with a line of column names"
            raise TableError(f"{path} is {what}" if not comments else f"{path} has {what}")
        outside = re.sub(r'"[^"]*"', "", first)
        most = max(",;\t", key=outside.count)
        self.delimiter: str | None = most if most in outside else None
        fields = split(first, self.delimiter)
        self.n = len(fields)
        if self.delimiter is not None and fields == [str(i) for i in range(self.n)]:
            warn_user(f"{path}: the first line, {first[:40]}, is taken for the numbers of the columns")
            self.names, self.skip = fields, self.skip + 1
        elif any(not _is_entry(field) for field in fields) or all(field in MISSING for field in fields):
            self.names, self.skip = fields, self.skip + 1
            _refuse_title(path, fields, next((line for line in lines if line.strip()), ""), self.delimiter)
        else:
            self.names = next(filter(None, (self._as_names(text) for text in reversed(comments))), None)

    def _as_names(self, comment: str) -> list[str] | None:
        """The names that a comment before the numbers gives, if it gives as many as there are columns."""
        for delimiter in (self.delimiter, ",", None):
            fields = split(comment, delimiter)
            if len(fields) == self.n and all(field and not _is_entry(field) for field in fields):
                return fields
        return None


def _refuse_title(path: Path, names: list[str], following: str, delimiter: str | None) -> None:
    """Refuse a first line that can't be a header, as the next one has other fields."""
    n = len(split(following, delimiter)) if following and following.lstrip()[:1] not in ("#", "%") else len(names)
    other = max((len(split(following, mark)) for mark in (",", ";", "\t", None)), default=0) if following else 0
    if len(names) == 1 and n == 1 and other > 1:
        raise TableError(
            f"{path}: the first line, {names[0][:40]!r}, is one field, and the next has {other}; is it a title?"
        )


def split(line: str, delimiter: str | None) -> list[str]:
    """The fields of a line, without quotes and the spaces around them."""
    if delimiter is None:
        if '"' in line:
            return [field.strip() for field in next(csv.reader([line.strip()], delimiter=" ", skipinitialspace=True), [])]
        return line.split()
    return [field.strip() for field in next(csv.reader([line], delimiter=delimiter), [])]


def _value(field: str) -> float | None:
    """The number in a field, a NaN for a missing one; None if it holds no number."""
    text = field.strip()
    if NUMBER.match(text):
        try:
            return float(text)
        except ValueError:  # 1.5D+03, and 1.5-103 where Fortran has no room for the letter
            text = re.sub(r"[dD]", "e", text)
            return float(text if "e" in text.lower() else re.sub(r"(?<=[\d.])([+-])", r"e\1", text))
    if text in MISSING:
        return math.nan if text.lower().endswith("nan") else MASKED
    return float(text) if text.lower() in INFINITE else BOOLEAN.get(text)


def _is_entry(field: str) -> bool:
    """Whether a field holds a number or an instant, or nothing: no name of a column."""
    return _value(field) is not None or instant(field) is not None


def open_text(path: Path, names: Sequence[str] | None = None) -> Source:
    """A text file as a source of columns.

    Parameters
    ----------
    names : sequence of str, optional
        Names that another file gives; the text then has no header.
    """
    try:
        with opened(path) as file:
            layout = Layout(path, iter(file))
    except (UnicodeDecodeError, csv.Error, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise TableError(f"{path} is no csv text ({error})") from None
    if names is not None:
        if len(names) != layout.n:
            raise TableError(f"{path} has {layout.n} columns, and {len(names)} names are given for them")
        layout.names = list(names)
    named = layout.names is not None
    labels = layout.names or [str(i) for i in range(layout.n)]
    whole = [name for name in labels if SAMPLERS.match(name)]
    source = from_entries(
        str(path),
        [Entry(name, aside=_why(name, labels, bool(whole) and labels[0] == "lp__")) for name in labels],
        lambda places: _read(path, layout, labels, places),
    )
    source.has_names = named
    if [name.lower() for name in labels[:2]] in CHAINS:
        source.weight = 0
    return source


def _why(name: str, labels: Sequence[str], is_stan: bool) -> str:
    """Why a column is not taken unless it is asked for."""
    if is_stan and SAMPLERS.match(name):
        return OWN
    if labels[:2] == ["weight", "minuslogpost"] and (name.startswith(("chi2", "minuslog"))):
        return LOG_DENSITY
    return ""


def _read(path: Path, layout: Layout, labels: Sequence[str], places: Sequence[int]) -> list[np.ndarray | Times]:
    """Some columns of a text."""
    if not places:
        return []
    values = _at_once(path, layout, sorted(places))
    if values is not None:
        by_place: dict[int, Any] = dict(zip(sorted(places), values.T))
    else:
        try:
            by_place = _line_by_line(path, layout, labels, sorted(places))
        except (UnicodeDecodeError, csv.Error, EOFError) as error:
            raise TableError(f"{path} is no csv text ({error})") from None
    return [by_place[i] for i in places]


def _at_once(path: Path, layout: Layout, places: Sequence[int]) -> np.ndarray | None:
    """Columns of a text that holds nothing but numbers, by NumPy; None where it is not so plain."""
    if np.lib.NumpyVersion(np.__version__) < "1.23.0":
        return None  # it parsed as Python does, which takes 9801_3 for a number
    with opened(path) as file:
        given: Any = file
        if type(file) is io.TextIOWrapper and file.encoding == "utf-8-sig" and path.suffix not in (".gz", ".bz2", ".xz"):
            given = str(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no rows
            try:
                values = np.loadtxt(
                    given, np.float64, "#", layout.delimiter, skiprows=layout.skip, ndmin=2, encoding="utf-8"
                )
            except (ValueError, IndexError, OverflowError):
                return None
    if not values.size:
        return np.empty((0, len(places)))
    if values.shape[1] != layout.n:
        return None
    return values if list(places) == list(range(layout.n)) else values[:, list(places)]


def _line_by_line(path: Path, layout: Layout, labels: Sequence[str], places: Sequence[int]) -> dict[int, Any]:
    """Columns of a text of any kind; an error says where it is wrong."""
    values, clocks = array("d"), _Clocks()
    with opened(path) as file:
        for _ in range(layout.skip):
            file.readline()
        reader = _records(file, layout)
        for number, row in reader:
            if len(row) != layout.n:
                more = " (row names? give them a column name)" if len(row) == layout.n + 1 else ""
                what = "the header has" if layout.names is not None else "the first line has"
                raise TableError(f"{path}, line {number}: {len(row)} fields, {what} {layout.n}{more}")
            for i in places:
                value = _value(row[i])
                if value is None and not clocks.take(i, len(values) // len(places), row[i]):
                    raise TableError(f"{path}, line {number}, column {labels[i]}: {row[i]!r} is not a number")
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
