"""How a text table is laid out: what separates its fields, what they hold, the names of its columns, the first row."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from npflows.core.absent import MASKED
from npflows.core.checks import warn_user
from npflows.core.times import instant
from npflows.files.tables.source import TableError

MISSING = frozenset(
    ["", "NA", "N/A", "n/a", "<NA>", "#N/A", "NULL", "null", "None", "nan", "NaN", "NAN", "-nan", "-NaN", "--", "masked"]
)  # fmt: skip
"""Fields that are missing entries."""
EMPTY = frozenset(field for field in MISSING if not field.lower().endswith("nan"))
"""Those of masked entries, which are no NaN that somebody computed."""
BOOLEAN = {"True": 1.0, "true": 1.0, "TRUE": 1.0, "False": 0.0, "false": 0.0, "FALSE": 0.0}
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+|[+-]\d+)?\Z", re.ASCII)
"""A number, with the exponents of C and of Fortran; Python would take 9801_3 for one too."""
INFINITE = frozenset(["inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"])
MARKS = "\t;,"
"""What separates fields but white space."""
PROSE = frozenset(["and", "are", "at", "by", "for", "from", "in", "is", "of", "on", "the", "this", "to", "was", "with"])
"""Words that names of columns are not, but comments hold."""
UNITS = re.compile(
    r"(?:[munkMGT]?(?:m|s|g|eV|Hz|Jy|pc|yr|as|arcsec|W|J|V|T|N|Pa|K|A)|cm|keV|h|hr|hours?|min|d|days?|years?|deg|degrees?|"
    r"rad|arcmin|AU|au|ly|erg|mag|dex|L|mol|AA|[aA]ngstroms?|photons?|counts?|ct|adu|pix(?:els?)?|percent|"
    r"(?:M|R|L|sol)_?(?:sun|Sun|Mass|Lum|Rad))(?:(?:\*\*|\^)?-?\d+)?\Z",
    re.ASCII,
)
"""A unit, and its exponent."""
TYPES = re.compile(r"(?:float|double|int|integer|long|real|str|string|char|[iuf])(?:2|4|8|16|32|64)?\Z")
"""Types that comments give columns."""


class Layout:
    """How a text is laid out.

    Attributes
    ----------
    delimiter : str or None
        None for white space.
    names : list of str or None
    skip : int
        Lines before the first row.
    n : int
        Number of columns.
    comments : list of str
        Those before the first row or the names.
    has_words : bool
        Whether the first row holds what is no number.
    """

    def __init__(self, path: Path, lines: Iterator[str]) -> None:
        self.path = path
        self.skip, self.names, self.comments, self.has_words = 0, None, list[str](), False
        first = None
        for line in lines:
            text = line.strip()
            if text and text[0] not in "#%":
                first = line.rstrip("\r\n")
                break
            self.comments.append(text.lstrip("#%").strip())
            self.skip += 1
        if first is None:
            what = "no line of numbers" if self.comments else "empty; it should start with a line of column names"
            raise TableError(f"{path} is {what}" if not self.comments else f"{path} has {what}")
        following = next((line.rstrip("\r\n") for line in lines if line.strip() and line.lstrip()[0] not in "#%"), "")
        self.delimiter = _delimiter(path, first, following)
        fields = split(first, self.delimiter)
        self.n = len(fields)
        if self._is_header(first, fields, following):
            self.names, self.skip = fields, self.skip + 1
            _refuse_title(path, fields, following, self.delimiter)
        else:
            self.has_words = any(not is_entry(field) for field in fields)
            self.names = self._of_comments()

    def _is_header(self, first: str, fields: Sequence[str], following: str) -> bool:
        """Whether the first line names the columns; one with a number in it is a row, unless its fields stand in quotes."""
        if _is_quoted(first) and not _is_quoted(following):
            return True
        if self._is_numbering(fields):
            if fields[0]:
                warn_user(f"{self.path}: the first line, {first[:40]}, is taken for the numbers of the columns")
            return True
        words = {field for field in fields if not is_entry(field)}
        numbers = [field for field in fields if field not in MISSING and field not in words]
        if not words:
            return False
        are_names = all(map(_has_letter, words))
        below = [number for field, number in zip(fields, split(following, self.delimiter)) if field in words]
        if numbers:  # beside names of objects, say, or of years
            if are_names and (all(field.isdecimal() for field in numbers) or all(map(is_entry, below))):
                raise TableError(
                    f"{self.path}: the first line, {first[:40]!r}, holds words beside numbers, and may be a row or the "
                    f"names of the columns: write names above it, or put its fields into quotes"
                )
            return False
        if not any(field in MISSING and field for field in fields):
            return True
        return are_names and any(number and is_entry(number) for number in below)  # NA may be a name, or a missing entry

    def _is_numbering(self, fields: Sequence[str]) -> bool:
        """Whether a line numbers the columns from 0, as pandas does, perhaps beside those of its row names."""
        if self.delimiter is None:
            return False
        has_index = not is_entry(fields[0]) and self.n > 2
        counted = fields[1:] if not fields[0] or has_index else fields
        return list(counted) == [str(i) for i in range(len(counted))]

    def _of_comments(self) -> list[str] | None:
        """The names that a comment before the rows gives, if one alone can be meant."""
        by_mark = [names for text in self.comments if self.delimiter and (names := self._as_names(text, self.delimiter))]
        by_space = [names for text in self.comments if (names := self._as_names(text, ",") or self._as_names(text, None))]
        found = list({tuple(names): names for names in by_mark or by_space}.values())
        if len(found) > 1:
            found = [names for names in found if not all(map(_is_unit_or_type, names))] or found
        if len(found) > 1:
            warn_user(
                f"{self.path}: several comments may name the columns ({' '.join(found[0])[:40]!r} and "
                f"{' '.join(found[1])[:40]!r}), so that they are numbered: keep one of them, or name the columns without #"
            )
            return None
        return found[0] if found else None

    def _as_names(self, comment: str, delimiter: str | None) -> list[str] | None:
        """The fields of a comment, if they may name the columns: as many words, and no sentence."""
        fields = split(comment, delimiter)
        are_names = len(fields) == self.n and all(_has_letter(field) and not is_entry(field) for field in fields)
        is_prose = any(field.lower() in PROSE or field[-1] in ".:!?" for field in fields if field)
        return fields if are_names and not is_prose else None


def _delimiter(path: Path, first: str, following: str) -> str | None:
    """What separates the fields: what gives the next line as many, by preference what the file's ending says."""
    outside = re.sub(r'"[^"]*"', "", first)
    marks = [mark for mark in MARKS if mark in outside]
    if not marks:
        return None
    alike = [mark for mark in marks if len(split(first, mark)) == len(split(following, mark))]
    if "\t" in alike and {".tsv", ".tab"} & {suffix.lower() for suffix in path.suffixes}:
        return "\t"
    return max(alike or marks, key=outside.count)


def _refuse_title(path: Path, names: list[str], following: str, delimiter: str | None) -> None:
    """Refuse a first line that can't be a header, as the next one has other fields."""
    n = len(split(following, delimiter)) if following else len(names)
    other = max((len(split(following, mark)) for mark in (*MARKS, None)), default=0) if following else 0
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


def value_of(field: str) -> float | None:
    """The number in a field, a NaN for a missing one; None if it holds no number."""
    text = field.strip()
    if NUMBER.match(text):
        try:
            return float(text)
        except ValueError:  # 1.5D+03, and 1.5-103 where Fortran has no room for the letter
            text = re.sub(r"[dD]", "e", text)
            return float(text if "e" in text.lower() else re.sub(r"(?<=[\d.])([+-])", r"e\1", text))
    if text in MISSING:
        return MASKED if text in EMPTY else math.nan
    return float(text) if text.lower() in INFINITE else BOOLEAN.get(text)


def is_entry(field: str) -> bool:
    """Whether a field holds a number or an instant, or nothing: no name of a column."""
    return value_of(field) is not None or instant(field) is not None


def _is_quoted(line: str) -> bool:
    """Whether all fields of a line stand in quotes."""
    return '"' in line and not re.sub(r'"[^"]*"', "", line).strip(f"{MARKS} ")


def _has_letter(field: str) -> bool:
    return any(map(str.isalpha, field))


def _is_unit_or_type(field: str) -> bool:
    """Whether a field is a unit, perhaps in brackets, or a type of numbers."""
    return bool(TYPES.match(field.lower())) or all(UNITS.match(part) for part in re.split(r"[*/.·]", field.strip("[]()")))
