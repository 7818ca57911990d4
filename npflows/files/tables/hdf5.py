"""Tables in HDF5, by h5py: datasets, groups of columns, and the layouts of PyTables, pandas and astropy.

Chains and matrices of known programs, which HDF5 holds too, are in `hdf5_layouts`.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npflows.core.absent import MASKED
from npflows.core.columns import did_you_mean, listed
from npflows.core.times import UTC, Times, since
from npflows.files.tables.arrays import TABLES
from npflows.files.tables.astronomy import astropy_masks, astropy_units
from npflows.files.tables.clocks import with_times
from npflows.files.tables.hdf5_layouts import LAYOUTS
from npflows.files.tables.source import INDEX, MASK, Entry, Source, TableError, from_entries, from_matrix, package

NAMES = ("columns", "column_names", "names", "colnames")
"""Attributes of a dataset (n, d) that name its columns."""
CALENDARS = ("standard", "gregorian", "proleptic_gregorian")
"""Calendars of netCDF that NumPy has (CF conventions 1.11, section 4.4.1)."""
FILL = ("_FillValue", "missing_value")
"""Attributes of netCDF that say which value is missing."""


def open_hdf5(path: Path, table: str | None = None, burn_in: float = 0.0) -> Source:
    """A table of an HDF5 file: the only one, or that of a name."""
    h5py = package("h5py", "HDF5")
    try:
        with h5py.File(path, "r") as file:
            for layout in LAYOUTS if table is None else ():
                source = layout(str(path), file, burn_in)
                if source is not None:
                    return source
            if burn_in:
                raise TableError(f"burn_in is for chains of samplers, and {path} holds none that is known")
            name = table.strip("/") if table is not None else _only(path, _candidates(h5py, file))
            if name and name not in file:
                raise TableError(f"{path} has no table {name!r}; {did_you_mean(name, _candidates(h5py, file))}")
            return _of(h5py, path, file[name] if name else file, name)
    except (OSError, KeyError, RuntimeError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise TableError(f"{path} looks like HDF5, and can't be read as HDF5 ({error})") from None


def _candidates(h5py: Any, file: Any) -> list[str]:
    """The names of what may be a table: datasets with named fields, groups of columns, matrices."""
    records: list[str] = []
    groups: list[str] = []
    matrices: list[str] = []
    chains: list[str] = []

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Group):
            if node.attrs.get("pandas_type") is not None:
                records.append(name)
            elif any(isinstance(child, h5py.Dataset) and _is_column(child) for child in node.values()):
                groups.append(name)
        elif node.dtype.names:
            records.append(name)
        elif node.dtype.kind in "biuf" and node.ndim in (2, 3):
            (matrices if node.ndim == 2 else chains).append(name)

    visit("", file)
    file.visititems(visit)
    records = [name for name in records if not any(name.startswith(f"{other}/") for other in records if other != name)]
    inside = [name for name in groups if not any(name == other or name.startswith(f"{other}/") for other in records)]
    if records:
        return records
    if not matrices and not inside and len(chains) == 1:
        return chains  # which are refused, with how to reshape them
    preferred = [name for name in matrices if name.rpartition("/")[2] in TABLES]
    return preferred if len(preferred) == 1 else matrices or inside


def _is_column(dataset: Any) -> bool:
    return dataset.ndim == 1 and dataset.dtype.kind in "biuf"


def _only(path: Path, names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    if not names:
        raise TableError(f"{path} holds no table: no dataset of rows and columns, and no group of columns")
    raise TableError(f"{path} holds several tables ({listed(names)}): say which by table= (--table)")


def _of(h5py: Any, path: Path, node: Any, name: str) -> Source:
    owner = f"{path}, {name}" if name else str(path)
    kind = node.attrs.get("pandas_type")
    if kind is not None:
        return _pandas(owner, node, _text(kind))
    if isinstance(node, h5py.Dataset):
        return _records(owner, node) if node.dtype.names else _matrix(h5py, owner, node)
    columns = [child for child in node if isinstance(node[child], h5py.Dataset) and node[child].ndim in (1, 2)]
    lengths = [len(node[child]) for child in columns if _is_column(node[child])]
    if not lengths:
        raise TableError(f"{owner} holds no columns of numbers")
    usual = max(set(lengths), key=lengths.count)
    columns = [child for child in columns if len(node[child]) == usual]
    entries = [
        Entry(child, node[child].shape[1] if node[child].ndim == 2 else None, unit_of_attributes(node[child]))
        for child in columns
    ]
    values = _reader(h5py, path, node.name)
    return from_entries(owner, entries, lambda places: values([columns[i] for i in places]))


def _reader(h5py: Any, path: Path, group: str) -> Any:
    """A function that reads datasets of a group."""

    def read(names: Sequence[str]) -> list[np.ndarray]:
        with h5py.File(path, "r") as file:
            return [without_fill(file[group][name]) for name in names]

    return read


def without_fill(dataset: Any) -> np.ndarray:
    """The values of a dataset, NaN where netCDF says that they are missing."""
    values = dataset[()]
    for name in FILL:
        if name in dataset.attrs and values.dtype.kind in "iuf":
            hidden = values == np.ravel(dataset.attrs[name])[0]
            if hidden.any():
                values = np.where(hidden, MASKED, values)
    return values


def unit_of_attributes(dataset: Any) -> str | None:
    """The unit that the attributes of a dataset give it."""
    found = [_text(dataset.attrs[name]) for name in ("units", "unit") if name in dataset.attrs]
    calendar = _text(dataset.attrs.get("calendar", CALENDARS[0]))
    if found and since(found[0]) is not None and calendar not in CALENDARS:
        raise TableError(
            f"{dataset.name} holds times of the calendar {calendar}, which has no dates of others: make numbers of it"
        )
    return found[0] or None if found else None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _records(owner: str, dataset: Any) -> Source:
    """A dataset with named fields, as PyTables and astropy write tables."""
    names, dtype, rows = list(dataset.dtype.names), dataset.dtype, dataset[()].reshape(-1)
    meta = dataset.parent.get(f"{dataset.name.rpartition('/')[2]}.__table_column_meta__")
    text = "\n".join(_text(line) for line in meta[()]) if meta is not None else ""
    units, masks = astropy_units(text), astropy_masks(text, names)
    attributes = {name: _text(dataset.attrs[f"FIELD_{i}_UNITS"]) for i, name in enumerate(names)
                  if f"FIELD_{i}_UNITS" in dataset.attrs}  # fmt: skip
    entries = []
    for i, name in enumerate(names):
        shape = dtype[i].shape
        width = int(np.prod(shape)) if shape else None
        entries.append(Entry(name, width, units.get(name) or attributes.get(name), MASK if name in masks.values() else ""))

    def fetch(places: Sequence[int]) -> list[np.ndarray]:
        found = []
        for name in (names[i] for i in places):
            values = rows[name].reshape(len(rows), -1) if rows[name].ndim > 1 else rows[name]
            hidden = rows[masks[name]] if name in masks else np.zeros(1, bool)
            found.append(np.where(hidden, MASKED, values) if hidden.any() else values)
        return found

    return from_entries(owner, *with_times(entries, fetch, text))


def _matrix(h5py: Any, owner: str, dataset: Any) -> Source:
    """A dataset (n, d), with columns of its length beside it."""
    names = next((list(map(_text, np.ravel(dataset.attrs[name]))) for name in NAMES if name in dataset.attrs), None)
    beside = {
        name: child[()]
        for name, child in dataset.parent.items()
        if isinstance(child, h5py.Dataset) and _is_column(child) and dataset.ndim == 2 and len(child) == len(dataset)
    }
    labels = names is not None and dataset.ndim == 2 and len(names) == dataset.shape[1]
    return from_matrix(owner, dataset[()], names if labels else None, beside=beside)


class _NamesOnly(pickle.Unpickler):
    """Reads the lists of names that PyTables pickles, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no list of names")


def _names(value: Any) -> list[Any]:
    data = bytes(value) if isinstance(value, (bytes, np.bytes_)) else str(value).encode("latin-1")
    try:
        return [_text(name) for name in _NamesOnly(io.BytesIO(data)).load()]
    except (pickle.UnpicklingError, EOFError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise TableError(f"names of columns can't be read ({error})") from None


def _timed(values: np.ndarray, kind: Any, zone: Any = None) -> Any:
    """Values (n,) or (n, k) that pandas keeps as whole numbers, as the times that they are; k columns for (n, k)."""
    found = re.match(r"(datetime|timedelta)64(?:\[(\w+)\])?\Z", "" if kind is None else _text(kind))
    if found is None:
        return values if values.ndim == 1 else list(values.T)
    mark, step = "M" if found.group(1) == "datetime" else "m", found.group(2)
    clock = values.view(f"{mark}8[{step or 'ns'}]")
    columns = [Times(column, UTC if zone is not None else "") for column in (clock.T if clock.ndim == 2 else [clock])]
    return columns if clock.ndim == 2 else columns[0]


def _zones(group: Any) -> set[str]:
    """The blocks of a table of pandas whose instants have a time zone."""
    try:
        about = _NamesOnly(io.BytesIO(bytes(group.attrs["info"]))).load()
        return {str(name) for name, facts in about.items() if isinstance(facts, dict) and facts.get("tz") is not None}
    except KeyError:
        return set()
    except (pickle.UnpicklingError, EOFError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise TableError(f"{group.name}: what pandas wrote about its columns can't be read ({error})") from None


def _pandas(owner: str, group: Any, kind: str) -> Source:
    """A data frame of pandas, in its fixed format or as a table."""
    if kind == "frame":
        blocks = [name for name in group if name.endswith("_items")]
        names, columns, other = [], [], list[Entry]()
        for items in blocks:
            values = group[items.replace("_items", "_values")]
            why = "no numbers" if values.dtype.kind not in "biuf" else ""
            if _text(values.attrs.get("value_type", "")) == "timedelta64":
                why = "durations whose unit pandas did not write"
            if why:
                other += [Entry(_text(name), aside=why) for name in group[items][()]]
                continue
            block = values[()]
            block = block if block.shape[1] == len(group[items]) else block.T
            names += [_text(name) for name in group[items][()]]
            columns += _timed(block, values.attrs.get("value_type"), values.attrs.get("tz"))
        order = [_text(name) for name in group["axis0"][()]]
        places = [names.index(name) for name in order if name in names]
        entries = [Entry(names[i]) for i in places] + other
        columns = [columns[i] for i in places] + [np.empty(0, "U1")] * len(other)
        return from_entries(owner, entries, lambda which: [columns[i] for i in which])
    if kind != "frame_table" or "table" not in group:
        raise TableError(f"{owner} holds a {kind} of pandas, not a data frame")
    dataset = group["table"]
    rows, entries, values, zones = dataset[()], [], [], _zones(group)
    for name in dataset.dtype.names:
        shape, known = dataset.dtype[name].shape, dataset.attrs.get(f"{name}_kind")
        if name == "index":
            entries.append(Entry(name, aside=INDEX))
            values.append(rows[name])
        elif name.startswith("values_block_") and known is not None:
            labels, is_number = _names(known), dataset.dtype[name].base.kind in "biuf"
            entries += [Entry(label, aside="" if is_number else "no numbers") for label in labels]
            block = np.ascontiguousarray(rows[name].reshape(len(rows), -1))
            values += _timed(block, dataset.attrs.get(f"{name}_dtype"), name if name in zones else None)
        elif not shape:
            entries.append(Entry(name))
            column = np.ascontiguousarray(rows[name])
            values.append(_timed(column, dataset.attrs.get(f"{name}_dtype"), name if name in zones else None))
    return from_entries(owner, entries, lambda places: [values[i] for i in places])
