"""Data frames that pandas wrote to HDF5, in its fixed format or as a table, without running what it pickles."""

from __future__ import annotations

import io
import pickle
import re
from typing import Any

import numpy as np

from npflows.core.absent import MASKED
from npflows.core.times import UTC, Times
from npflows.files.tables.netcdf import text_of
from npflows.files.tables.source import INDEX, Entry, Source, TableError, from_entries

NO_NUMBERS = "no numbers"
"""Why a column of text or of other objects is not taken."""
Columns = list[tuple[Entry, Any]]
"""What is known of columns, and their values."""


def of_pandas(owner: str, group: Any) -> Source:
    """A data frame of pandas as a source."""
    kind = text_of(group.attrs["pandas_type"])
    if kind == "frame":
        columns = _fixed(group)
    elif kind == "frame_table" and "table" in group:
        columns = _table(group)
    else:
        raise TableError(f"{owner} holds a {kind} of pandas, not a data frame")
    return from_entries(owner, [entry for entry, _ in columns], lambda places: [columns[i][1] for i in places])


def _fixed(group: Any) -> Columns:
    """The columns of a frame in the fixed format, which keeps those of one type in one block."""
    found: dict[str, Columns] = {}
    for values in (group[name] for name in group if re.fullmatch(r"block\d+_values", name)):
        names = _labels(group, values.name.rpartition("/")[2].replace("_values", "_items"))
        why = NO_NUMBERS if values.dtype.kind not in "biuf" else ""
        if text_of(values.attrs.get("value_type", "")) == "timedelta64":
            why = "durations whose unit pandas did not write"
        if why:
            columns: list[Any] = [np.empty(0, "U1")] * len(names)
        else:
            block = values[()] if values.attrs.get("transposed", False) else values[()].T
            columns = _timed(block, values.attrs.get("value_type"), values.attrs.get("tz"))
        for name, column in zip(names, columns):
            found.setdefault(name, []).append((Entry(name, aside=why), column))
    return [found[name].pop(0) for name in _labels(group, "axis0")]


def _labels(group: Any, name: str) -> list[str]:
    """The labels of an axis of a frame, of several levels perhaps."""
    if name in group:
        return [text_of(label) for label in group[name][()]]
    parts = []
    for i in range(int(group.attrs[f"{name}_nlevels"])):
        level, codes = group[f"{name}_level{i}"][()].tolist(), group[f"{name}_label{i}"][()]
        parts.append([None if code < 0 else _plain(level[code]) for code in codes])
    return [str(label) for label in zip(*parts)]


def _plain(label: Any) -> Any:
    return text_of(label) if isinstance(label, bytes) else label


def _table(group: Any) -> Columns:
    """The columns of a frame in the table format, and the levels of its index."""
    dataset = group["table"]
    rows, about, zones = dataset[()], dataset.attrs, _zones(group)
    levels = group.attrs.get("levels", 1)
    index = set() if isinstance(levels, (int, np.integer)) else set(_names(levels))
    columns: Columns = []
    for field in dataset.dtype.names:
        values = np.ascontiguousarray(rows[field].reshape(len(rows), -1))
        kind = about.get(f"{field}_kind")
        names = [field] if kind is None or text_of(kind).isidentifier() or field == "index" else _names(kind)
        why = "" if values.dtype.kind in "biuf" else NO_NUMBERS
        if field == "index" or field in index:
            why = INDEX
        elif text_of(about.get(f"{field}_meta", "")) == "category":
            values = _of_codes(group[f"meta/{field}/meta/table"], values)
            why = "" if values.dtype.kind in "biuf" else NO_NUMBERS
        timed = _timed(values, about.get(f"{field}_dtype"), field if field in zones else None)
        columns += [(Entry(name, aside=why), column) for name, column in zip(names, timed)]
    return columns


def _of_codes(categories: Any, codes: np.ndarray) -> np.ndarray:
    """The entries of a categorical column: numbers, NaN where the code is -1, or what no one takes for numbers."""
    entries, step = categories["values"], _step(categories.attrs.get("values_dtype"))
    if step is not None:
        return entries.view(step)[codes]
    return np.append(entries, MASKED)[codes] if entries.dtype.kind in "biuf" else entries[codes]


class _NamesOnly(pickle.Unpickler):
    """Reads the lists of names that PyTables pickles, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no list of names")


class _Opaque:
    """Stands for an object of any class that was pickled: a time zone, the frequency of an index."""

    def __new__(cls, *args: Any, **more: Any) -> _Opaque:
        return super().__new__(cls)

    def __init__(self, *args: Any, **more: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Inert(pickle.Unpickler):
    """Reads what pandas notes of columns, and runs nothing: every class is opaque."""

    def find_class(self, module: str, name: str) -> Any:
        return _Opaque


def _names(value: Any) -> list[str]:
    data = bytes(value) if isinstance(value, (bytes, np.bytes_)) else str(value).encode("latin-1")
    try:
        return [text_of(name) for name in _NamesOnly(io.BytesIO(data)).load()]
    except (pickle.UnpicklingError, EOFError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise TableError(f"names of columns can't be read ({error})") from None


def _step(kind: Any) -> str | None:
    """The dtype of times that pandas keeps as whole numbers; None for what are no times."""
    found = re.match(r"(datetime|timedelta)64(?:\[(\w+)\])?\Z", "" if kind is None else text_of(kind))
    return None if found is None else f"{'M' if found.group(1) == 'datetime' else 'm'}8[{found.group(2) or 'ns'}]"


def _timed(block: np.ndarray, kind: Any, zone: Any = None) -> list[Any]:
    """The columns of values (n, k), as times where they are times."""
    step = _step(kind)
    if step is None or block.dtype.kind not in "iu":
        return list(block.T)
    return [Times(column, UTC if zone is not None else "") for column in np.ascontiguousarray(block).view(step).T]


def _zones(group: Any) -> set[str]:
    """The blocks of a table of pandas whose instants have a time zone."""
    try:
        about = _Inert(io.BytesIO(bytes(group.attrs["info"]))).load()
        return {str(name) for name, facts in about.items() if isinstance(facts, dict) and facts.get("tz") is not None}
    except KeyError:
        return set()
    except (pickle.UnpicklingError, EOFError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise TableError(f"{group.name}: what pandas wrote about its columns can't be read ({error})") from None
