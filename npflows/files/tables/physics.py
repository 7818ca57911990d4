"""Trees of ROOT, by uproot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npflows.core.columns import did_you_mean, listed
from npflows.files.tables.source import Entry, Source, TableError, flat, from_entries, package

ARRAY = re.compile(r", ?(\d+) ?>")
"""The lengths in the type of a field of an RNTuple: std::array<std::array<double,3>,2>."""


def open_root(path: Path, table: str | None = None) -> Source:
    """A tree of a ROOT file: the only one, or that of a name."""
    uproot = package("uproot", "ROOT")
    try:
        with uproot.open(path) as file:
            kinds = file.classnames(recursive=True)
            trees = list(dict.fromkeys(key.partition(";")[0] for key, kind in kinds.items() if _is_tree(kind)))
            if not trees:
                raise TableError(f"{path} holds no tree, only {listed(list(kinds)) or 'nothing'}")
            if table is None and len(trees) > 1:
                raise TableError(f"{path} holds several trees ({listed(trees)}): say which by table= (--table)")
            name = trees[0] if table is None else table
            if name not in trees:
                raise TableError(f"{path} has no tree {name!r}; {did_you_mean(name, trees)}")
            branches = file[name].keys()
            entries = [_entry(file[name][branch], branch) for branch in branches]
    except TableError:
        raise
    except Exception as error:  # whatever damage makes of a file
        if isinstance(error, FileNotFoundError):
            raise
        raise TableError(f"{path} looks like ROOT, and can't be read as ROOT ({_first_line(error)})") from None

    def fetch(places: Sequence[int]) -> list[Any]:
        wanted = [branches[i] for i in places]
        try:
            with uproot.open(path) as file:
                found = file[name].arrays(wanted, library="np")
        except Exception as error:  # whatever damage makes of a file
            raise TableError(f"{path} looks like ROOT, and can't be read as ROOT ({_first_line(error)})") from None
        return [_values(path, branch, found[branch]) for branch in wanted]

    return from_entries(str(path), entries, fetch)


def _is_tree(kind: str) -> bool:
    return kind.startswith(("TTree", "TNtuple")) or "RNTuple" in kind


def _entry(branch: Any, name: str) -> Entry:
    """A branch of a TTree, or a field of an RNTuple, of one value in each entry or of several."""
    dtype = getattr(getattr(branch, "interpretation", None), "to_dtype", None)
    shape = getattr(dtype, "shape", ()) or tuple(map(int, ARRAY.findall(getattr(branch, "typename", None) or "")))
    return Entry(name, int(np.prod(shape)) if shape else None)


def _values(path: Path, branch: str, values: Any) -> np.ndarray:
    if values.dtype.kind == "O":
        raise TableError(
            f"{path}, branch {branch}: it has another number of values in each row; leave it out, or flatten it"
        )
    return flat(values)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
