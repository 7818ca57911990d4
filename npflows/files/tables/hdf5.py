"""Tables in HDF5, by h5py: datasets, groups of columns, and the tables of PyTables, pandas and astropy.

Chains and matrices of known programs, which HDF5 holds too, are in `hdf5_layouts`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npflows.core.columns import did_you_mean, listed
from npflows.files.tables.arrays import TABLES
from npflows.files.tables.astronomy import astropy_units
from npflows.files.tables.clocks import Fetch, with_times
from npflows.files.tables.hdf5_layouts import LAYOUTS, WITH_STEPS
from npflows.files.tables.hdf5_pandas import NO_NUMBERS, of_pandas
from npflows.files.tables.masks import SUFFIX, hidden, with_masks
from npflows.files.tables.netcdf import decoded, is_count, is_variable, text_of, unit_of_attributes
from npflows.files.tables.source import (
    BESIDE,
    INDEX,
    Entry,
    Source,
    TableError,
    flat,
    from_entries,
    from_matrix,
    package,
    with_columns,
)

NAMES = ("columns", "column_names", "names", "colnames")
"""Attributes of a dataset (n, d) that name its columns."""
UNREADABLE = (OSError, KeyError, IndexError, RuntimeError, TypeError, ValueError)
"""What h5py raises for files that are damaged, and for types that NumPy does not have."""
UNKNOWN = np.dtype("V1")
"""Stands for a type that NumPy does not have."""
CHAINS = (*TABLES, "chain", "chains")
"""Names by which a dataset of three axes is the table, which is to be reshaped."""


def open_hdf5(path: Path, table: str | None = None, burn_in: float = 0.0) -> Source:
    """A table of an HDF5 file: the only one, or that of a name."""
    h5py = package("h5py", "HDF5")
    try:
        with h5py.File(path, "r") as file:
            name = None if table is None else table.strip("/")
            if name and name not in file:
                raise TableError(f"{path} has no table {name!r}; {did_you_mean(name, _candidates(h5py, file))}")
            for layout in LAYOUTS:
                source = layout(str(path), file, name or "", burn_in)
                if source is not None and not (burn_in and layout not in WITH_STEPS):
                    return source
            if burn_in:
                raise TableError(f"burn_in is for chains of samplers, and {path} holds none that is known")
            chosen = _only(path, _candidates(h5py, file)) if name is None else name
            return _of(h5py, path, file, chosen, is_asked_for=name is not None)
    except UNREADABLE as error:
        if isinstance(error, (FileNotFoundError, TableError)):
            raise
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> TableError:
    return TableError(f"{path} looks like HDF5, and can't be read as HDF5 ({error})")


def _candidates(h5py: Any, file: Any) -> list[str]:
    """The names of what may be a table: datasets with named fields, groups of columns, matrices, and chains.

    Chains have three axes and are refused, with how to reshape them; the matrix of their log-densities is no table.
    """
    frames: list[str] = []
    records: list[str] = []
    groups: list[str] = []
    shapes: dict[str, tuple[int, ...]] = {}

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Group):
            if node.attrs.get("pandas_type") is not None:
                frames.append(name)
            elif any(_is_column(child) for child in _datasets(h5py, node).values()):
                groups.append(name)
        elif _dtype(node).names or _dtype(node) == UNKNOWN:
            records.append(name)
        elif node.dtype.kind in "biuf" and node.ndim and is_variable(node):
            shapes[name] = node.shape

    visit("", file)
    file.visititems(visit)
    frames = [name for name in frames if not any(name.startswith(f"{other}/meta/") for other in frames)]
    records = [name for name in records if not any(name.startswith(f"{other}/") for other in frames)]
    if frames or records:
        return frames + records
    matrices, chains = ([name for name, shape in shapes.items() if len(shape) == n] for n in (2, 3))
    for names, preferred in ((matrices, TABLES), (chains, CHAINS)):
        found = [name for name in names if name.rpartition("/")[2] in preferred]
        if len(found) == 1:
            return found
    chains, of_chains = _of_chains(shapes)
    matrices = [name for name in matrices if name not in of_chains]
    narrow = {name for name in matrices if shapes[name][1] == 1}
    if len(narrow) > 1 or len(narrow) < len(matrices):  # a column as a matrix (n, 1), beside others
        matrices = [name for name in matrices if name not in narrow]
    blocked = {_folder(name) for name in chains}
    return [*(matrices or [name for name in groups if name not in blocked]), *chains]


def _of_chains(shapes: dict[str, tuple[int, ...]]) -> tuple[list[str], set[str]]:
    """Datasets of three axes that are chains, and what is noted for each of their entries, as log-densities are.

    Others, such as the images of a catalog, have the length of a column or matrix beside them.
    """
    folders: dict[str, list[str]] = {}
    for name in shapes:
        folders.setdefault(_folder(name), []).append(name)
    chains, noted = [], set[str]()
    for name, shape in shapes.items():
        if len(shape) == 3:
            beside = [other for other in folders[_folder(name)] if other != name]
            own = [other for other in beside if sorted(shapes[other]) == sorted(shape[:2])]
            if own or not any(shapes[other][0] == shape[0] for other in beside):
                chains.append(name)
                noted.update(own)
    return chains, noted


def _dtype(dataset: Any) -> np.dtype:
    try:
        return dataset.dtype
    except TypeError:
        return UNKNOWN


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _datasets(h5py: Any, group: Any) -> dict[str, Any]:
    """The datasets of a group that hold values; links that lead nowhere are none."""
    children = {name: group.get(name) for name in group}
    return {
        name: child
        for name, child in children.items()
        if isinstance(child, h5py.Dataset) and child.ndim and is_variable(child)
    }


def _is_column(dataset: Any) -> bool:
    """Whether a dataset (n,) or (n, 1) is a column of numbers."""
    return _dtype(dataset).kind in "biuf" and dataset.shape[1:] in ((), (1,))


def _only(path: Path, names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    if not names:
        raise TableError(f"{path} holds no table: no dataset of rows and columns, and no group of columns")
    raise TableError(f"{path} holds several tables ({listed(names)}): say which by table= (--table)")


def _of(h5py: Any, path: Path, file: Any, name: str, *, is_asked_for: bool) -> Source:
    """The table of a name: that of a frame of pandas also by what is in it."""
    owner = f"{path}, {name}" if name else str(path)
    parts = name.split("/")
    for frame in ("/".join(parts[:i]) for i in range(len(parts), 0, -1)):
        if frame and file[frame].attrs.get("pandas_type") is not None:
            return of_pandas(f"{path}, {frame}", file[frame])
    node = file[name] if name else file
    if not isinstance(node, h5py.Dataset):
        return _group(h5py, path, owner, node)
    source = _records(h5py, owner, node) if node.dtype.names else _matrix(owner, node)
    return _with_beside(h5py, path, source, node, matrices=not is_asked_for)


def _group(h5py: Any, path: Path, owner: str, group: Any) -> Source:
    """A group of columns; those of another length than most are left aside."""
    if "matrix" in text_of(group.attrs.get("encoding-type", "")):  # of AnnData
        raise TableError(f"{owner} is sparse, and flows take dense tables: choose some columns and save toarray()")
    datasets = _datasets(h5py, group)
    lengths = Counter(len(child) for child in datasets.values() if _is_column(child)).most_common()
    if not lengths:
        raise TableError(f"{owner} holds no columns of numbers")
    usual = lengths[0][0] if len(lengths) == 1 or lengths[0][1] > lengths[1][1] else None
    index = text_of(group.attrs.get("_index", ""))
    entries = []
    for name, child in datasets.items():
        aside = INDEX if name == index or is_count(child) else NO_NUMBERS if h5py.check_enum_dtype(_dtype(child)) else ""
        if usual is not None and len(child) != usual:
            aside = f"of {len(child)} rows, and others of {usual}"
        elif child.ndim > 2:
            aside = f"of shape {child.shape}"
        entries.append(Entry(name, None if aside else _width(child), unit_of_attributes(child), aside))
    return from_entries(owner, *_masked(path, group.name, entries, datasets))


def _width(dataset: Any) -> int | None:
    """How many values a dataset (n,) or (n, k) has in each row; None for a single one."""
    return dataset.shape[1] if dataset.ndim == 2 and dataset.shape[1] != 1 else None


def _masked(path: Path, group: str, entries: Sequence[Entry], datasets: dict[str, Any]) -> tuple[list[Entry], Fetch]:
    """Datasets of a group as columns that know their masks, and a way to fetch some."""

    def fetch(places: Sequence[int]) -> list[np.ndarray]:
        try:
            with package("h5py", "HDF5").File(path, "r") as file:
                values = [decoded(file[group][entries[i].name]) for i in places]
        except UNREADABLE as error:
            if isinstance(error, TableError):
                raise
            raise _unreadable(path, error) from None
        return [array[:, 0] if array.shape[1:] == (1,) else array for array in values]

    booleans = {name for name, child in datasets.items() if _dtype(child).kind == "b"}
    return with_masks(entries, fetch, booleans)


def _records(h5py: Any, owner: str, dataset: Any) -> Source:
    """A dataset with named fields, as PyTables and astropy write tables."""
    names, dtype, rows = list(dataset.dtype.names), dataset.dtype, dataset[()].reshape(-1)
    meta = dataset.parent.get(f"{dataset.name.rpartition('/')[2]}.__table_column_meta__")
    text = "\n".join(text_of(line) for line in meta[()]) if meta is not None else ""
    units = astropy_units(text)
    attributes = {name: text_of(dataset.attrs[f"FIELD_{i}_UNITS"]) for i, name in enumerate(names)
                  if f"FIELD_{i}_UNITS" in dataset.attrs}  # fmt: skip
    entries = []
    for i, name in enumerate(names):
        shape = dtype[i].shape
        width = int(np.prod(shape)) if shape else None
        aside = NO_NUMBERS if h5py.check_enum_dtype(dtype[i].base) else ""
        entries.append(Entry(name, width, units.get(name) or attributes.get(name), aside))

    def fetch(places: Sequence[int]) -> list[np.ndarray]:
        fields = [rows[names[i]] for i in places]
        return [flat(field) for field in fields]

    booleans = {name for i, name in enumerate(names) if dtype[i].base.kind == "b"}
    return from_entries(owner, *with_times(*with_masks(entries, fetch, booleans), text))


def _matrix(owner: str, dataset: Any) -> Source:
    """A dataset (n, d), with the names of its columns where an attribute or a dataset beside it gives them."""
    d = dataset.shape[1] if dataset.ndim == 2 else 0
    given = [dataset.attrs[name] for name in NAMES if name in dataset.attrs]
    given += [dataset.parent[name][()] for name in NAMES if _holds_text(dataset.parent.get(name))]
    names = next((list(map(text_of, np.ravel(labels))) for labels in given if np.size(labels) == d), None)
    units = list(map(text_of, np.ravel(dataset.attrs["units"]))) if "units" in dataset.attrs else []
    units = units * d if len(units) == 1 else units if len(units) == d else []
    values, mask = decoded(dataset), dataset.parent.get(f"{dataset.name.rpartition('/')[2]}{SUFFIX}")
    if mask is not None and _dtype(mask).kind == "b" and mask.shape in (values.shape, values.shape[:1]):
        values = hidden(values, mask[()])
    return from_matrix(owner, values, names, units=units)


def _holds_text(node: Any) -> bool:
    return hasattr(node, "dtype") and node.dtype.kind in "SO"


def _with_beside(h5py: Any, path: Path, source: Source, table: Any, *, matrices: bool) -> Source:
    """A table with the columns of its length beside it, which are taken if they are asked for alone.

    Parameters
    ----------
    table : dataset
    matrices : bool
        Whether datasets (n, k) are such columns too, and not tables of their own.
    """
    n, own = table.size if table.dtype.names else len(table), table.name.rpartition("/")[2]
    kept = {
        name: child
        for name, child in _datasets(h5py, table.parent).items()
        if name not in (own, f"{own}{SUFFIX}") and len(child) == n and _dtype(child).kind in "biuf"
        if _is_column(child) or (matrices and child.ndim == 2)
    }
    entries = [Entry(name, _width(child), unit_of_attributes(child), BESIDE) for name, child in kept.items()]
    others = from_entries(source.owner, *_masked(path, table.parent.name, entries, kept))
    return with_columns(source, others)
