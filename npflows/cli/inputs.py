"""Inputs of the commands: tables with conditions and weights, conditions by value, supports in JSON."""

from __future__ import annotations

import copy
import csv
import functools
import inspect
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npflows import NormalizingFlow, support
from npflows.cli.reports import column_names, condition_names
from npflows.core.absent import is_masked
from npflows.core.checks import as_numeric, warn_user
from npflows.core.columns import column_number, listed
from npflows.core.tables import Header
from npflows.core.times import since
from npflows.files.tables import Parts, Table, TableError, TableStream, open_source, stream_table, take
from npflows.files.tables.shards import is_pattern, matching_files
from npflows.support import Column, Group
from npflows.training.missing import WORDS, Missing, by_column

KINDS = {
    kind.__name__: kind
    for kind in (support.real, support.positive, support.below, support.interval, support.periodic, support.integer,
                 support.ordered, support.simplex)
}  # fmt: skip


def keep_inputs(output: str, *inputs: str) -> None:
    """Raise an error if the output file is one of the input files."""
    for name in inputs:
        if os.path.exists(output) and os.path.exists(name) and os.path.samefile(output, name):
            raise TableError(f"{output} would overwrite the input {name}; choose another name for the output")


def refuse_invalid(path: str, table: Table, missing: Missing | None, weights: str = "the weights") -> None:
    """Raise an error that names rows and columns with undeclared empty fields, NaN or infinity, if there are any."""
    bad = ~np.isfinite(table.x)
    if missing is not None:
        bad &= ~missing.entries(table.x)
    if table.condition is not None:
        lost = ~np.isfinite(table.condition)
        if missing is not None:
            lost &= ~missing.condition_entries(table.condition)
        bad = np.column_stack([bad, lost])
    if table.sample_weight is not None:
        bad = np.column_stack([bad, ~np.isfinite(table.sample_weight)])
    if not bad.any():
        return
    rows, columns = np.flatnonzero(bad.any(axis=1)), np.flatnonzero(bad.any(axis=0))
    known = None if table.columns is None else [*table.columns, *(table.condition_columns or []), weights]
    names = [str(i) if known is None else known[i] for i in columns]
    shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
    masked = is_masked(np.column_stack([table.x] if table.condition is None else [table.x, table.condition]))
    counts = by_column(masked & bad[:, : masked.shape[1]], known)
    are_masked = f", masked or empty: {listed(counts)}" if counts else ""
    raise TableError(
        f"{path} has empty fields, NaN or infinity in {len(rows):,} of {len(bad):,} rows (numbered from 0: {shown}), "
        f"columns {', '.join(names)}{are_masked}; clean them, pass --drop-invalid or declare them: --missing nan, or "
        f"--missing masked for those that are masked or empty alone"
    )


def checked_weights(path: str, column: str, weights: np.ndarray) -> np.ndarray:
    """Sample weights (n,), NaN and infinity as 0, after a check."""
    weights = np.where(np.isfinite(weights), weights, 0.0)
    if (weights < 0).any():
        row = int(np.argmax(weights < 0))
        raise TableError(f"{path}, row {row} (numbered from 0): the weight {column} is {weights[row]:g}, below 0")
    if not weights.any():
        raise TableError(f"{path}: the weights {column} are 0 in all rows")
    return weights


class Rows(NamedTuple):
    """Rows of a table for a flow.

    Attributes
    ----------
    x : ndarray (n, d)
    condition : ndarray (n, c), or (c,) for all rows, or None
    weights : ndarray (n,) or None
    """

    x: np.ndarray
    condition: np.ndarray | None
    weights: np.ndarray | None

    def finite(self) -> Rows:
        """The rows without missing or infinite values whose weight is not 0."""
        kept = np.isfinite(self.x).all(axis=1)
        if self.condition is not None and self.condition.ndim == 2:
            kept &= np.isfinite(self.condition).all(axis=1)
        if self.weights is not None:
            kept &= self.weights > 0
        condition = self.condition if self.condition is None or self.condition.ndim == 1 else self.condition[kept]
        return Rows(self.x[kept], condition, None if self.weights is None else self.weights[kept])


def read_rows(
    flow: NormalizingFlow,
    path: str,
    columns: Sequence[str] | None,
    condition: Sequence[str] | Mapping[str, float] | None,
    weights: str | None = None,
    where: str | None = None,
    name: str | None = None,
) -> Rows:
    """Read the columns of a table that a flow takes, by the names that were saved with it or by those that are given.

    Parameters
    ----------
    columns : sequence of str, optional
        Names or numbers of the flow's columns in the table.
    condition : sequence of str, or mapping, optional
        Names or numbers of the columns that are the condition; or its values, the same for all rows.
    weights : str, optional
        Name or number of the column of weights.
    where : str, optional
        Which rows are wanted.
    name : str, optional
        Which table, of a file that holds several.
    """
    parts = _parts(flow, columns, condition, weights, where)
    return _rows(flow, take(open_source(path, name), parts), path, condition, weights)


class RowPiece(NamedTuple):
    """A part of a table that is read at once.

    Attributes
    ----------
    path : str
        The file, or the folder of files.
    number : int or None
        Of the row group or record batch; None for the whole.
    """

    path: str
    number: int | None


def row_pieces(source: str, *, whole: bool = True) -> list[RowPiece]:
    """The pieces of a file, a folder or of all files of a pattern, in their order.

    Raises
    ------
    TableError
        If there are none, or a file has none and may not be read as a `whole`.
    """
    pieces = []
    for path in matching_files(source):
        try:
            pieces += [RowPiece(path, i) for i in range(len(_stream(path, os.stat(path).st_mtime_ns).sizes))]
        except TableError:
            if not whole:
                raise
            pieces.append(RowPiece(path, None))
    return pieces


def read_piece(
    flow: NormalizingFlow,
    piece: RowPiece,
    columns: Sequence[str] | None,
    condition: Sequence[str] | Mapping[str, float] | None,
    where: str | None = None,
) -> Rows:
    """As `read_rows`, of a piece."""
    parts = _parts(flow, columns, condition, None, where)
    return _rows(flow, _table_of(piece, parts), piece.path, condition, None)


def columns_of_all(
    flow: NormalizingFlow,
    pieces: Sequence[RowPiece],
    columns: Sequence[str] | None,
    condition: Sequence[str] | Mapping[str, float] | None,
) -> Sequence[str] | None:
    """The columns to take of each piece: of several files those of the first by their names, if the flow has none."""
    if columns is not None or flow.columns is not None or len({piece.path for piece in pieces}) < 2:
        return columns
    return _table_of(pieces[0], _parts(flow, None, condition, None, None)).columns


def _table_of(piece: RowPiece, parts: Parts) -> Table:
    if piece.number is None:
        return take(open_source(piece.path), parts)
    stream = copy.copy(_stream(piece.path, os.stat(piece.path).st_mtime_ns))
    stream.parts = parts
    return stream.read(piece.number)


@functools.lru_cache(maxsize=16)
def _stream(path: str, changed: int) -> TableStream:
    """The pieces of a file or folder, of which one is wanted after the other."""
    return stream_table(path)


def stream_rows(
    flow: NormalizingFlow,
    source: str,
    columns: Sequence[str] | None,
    condition: Sequence[str] | Mapping[str, float] | None,
    where: str | None = None,
) -> Iterator[Rows]:
    """The same for a table that is larger than memory, or in several files, piece by piece."""
    pieces = row_pieces(source, whole=is_pattern(source))
    columns = columns_of_all(flow, pieces, columns, condition)
    return (read_piece(flow, piece, columns, condition, where) for piece in pieces)


def _parts(
    flow: NormalizingFlow,
    columns: Sequence[str] | None,
    condition: Sequence[str] | Mapping[str, float] | None,
    weights: str | None,
    where: str | None,
) -> Parts:
    """Which columns of a table a flow takes."""
    if condition is not None and not flow.condition_dim:
        raise TableError("the flow takes no condition: leave out --condition")
    by_value = isinstance(condition, Mapping)
    return Parts(
        columns=columns,
        condition=() if condition is None or by_value else list(condition),
        weights=False if weights is None else weights,
        where=where,
        expected=flow.columns,
        expected_condition=(flow.condition_columns or ()) if condition is None else (),
    )


def _rows(
    flow: NormalizingFlow,
    table: Table,
    path: str,
    condition: Sequence[str] | Mapping[str, float] | None,
    weights: str | None,
) -> Rows:
    """The rows of a table for a flow, after every check."""
    n_conditions = 0 if table.condition is None else table.condition.shape[1]
    if not isinstance(condition, Mapping) and n_conditions != flow.condition_dim:
        raise TableError(
            f"the flow needs a condition ({condition_names(flow)}), {path} gives {n_conditions} columns for it; say which "
            f"with --condition"
        )
    if table.x.shape[1] != flow.input_dim:
        raise TableError(
            f"{path} gives {table.x.shape[1]} columns, the flow takes {column_names(flow)}; say which with --columns"
        )
    given: np.ndarray | None = None
    if isinstance(condition, Mapping):
        given = condition_row(flow, condition)
    elif flow.condition_dim:
        given = _in_units(table.condition_table(), flow.headers.condition, f"the condition in {path}")
    w = None if weights is None or table.sample_weight is None else checked_weights(path, weights, table.sample_weight)
    return Rows(_in_units(table, flow.headers.x, path), given, w)


def _in_units(table: Table | None, header: Header, path: str) -> np.ndarray:
    """The values of a table in the units of the flow; those of columns without a unit, here or there, as they are."""
    assert table is not None
    units = [None if header.unit(i) is None else unit for i, unit in enumerate(table.units or [None] * header.n)]
    ignored = [
        f"{name} in {unit}" for name, unit, used in zip(table.columns or (), table.units or (), units) if unit and not used
    ]
    given = zip(table.columns or map(str, range(header.n)), table.units or (), units)
    clocks = [name for name, unit, used in given if since(unit) is not None and not used]
    if clocks:
        raise TableError(f"{path}: {listed(clocks)} holds times, and the flow takes numbers there: make numbers of it")
    if ignored:
        warn_user(f"{path} has {listed(ignored)}, and the flow has no unit for it: the numbers are taken as they are")
    return as_numeric(Table(table.x, header.names or table.columns, units), path, header)


def split_names(text: str) -> list[str]:
    """Names with commas between them; a name that holds a comma is in quotes."""
    return [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]


def condition_values(text: str) -> dict[str, float]:
    """Numbers by name, from name=value,..."""
    values: dict[str, float] = {}
    for part in split_names(text):
        name, _, number = (piece.strip() for piece in part.rpartition("="))
        if not name or not _is_finite(number):
            raise TableError(f"expected name=value,... with finite numbers, got {text!r}")
        if name in values:
            raise TableError(f"{name!r} is given twice in {text!r}")
        values[name] = float(number)
    return values


def missing_values(text: str) -> list[float | str] | dict[str, list[float | str]]:
    """What marks missing entries, from value,... or column=value,...; a column may come several times."""
    everywhere: list[float | str] = []
    by_column: dict[str, list[float | str]] = {}
    for part in split_names(text):
        name, _, number = (piece.strip() for piece in part.rpartition("="))
        try:
            value = number if number in WORDS else float(number)
        except ValueError:
            raise TableError(
                f"expected value,... or column=value,... with numbers, nan or masked, got {text!r}"
            ) from None  # fmt: skip
        (by_column.setdefault(name, []) if name else everywhere).append(value)
    if bool(everywhere) == bool(by_column):
        raise TableError(f"expected values for all columns, or column=value for each of some, got {text!r}")
    return everywhere or by_column


def missing_of_columns(
    path: str,
    missing: Sequence[float | str] | Mapping[str, Sequence[float | str]] | None,
    names: Sequence[str] | None,
    n: int,
    condition_names: Sequence[str] = (),
) -> Sequence[float | str] | dict[tuple[str, int], Sequence[float | str]] | None:
    """What marks missing entries, with columns by table and number, as `fit` takes them."""
    if not isinstance(missing, Mapping):
        return missing
    columns: dict[tuple[str, int], Sequence[float | str]] = {}
    for name, values in missing.items():
        if name in condition_names:
            key = "condition", list(condition_names).index(name)
        else:
            owner = f"--missing: the fit of {path}"
            key = "x", column_number(name, n, names, owner=owner, numerals=True, error=TableError)
        columns[key] = [*columns.get(key, ()), *values]
    return columns


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def condition_row(flow: NormalizingFlow, values: Mapping[str, float]) -> np.ndarray:
    """A condition (c,) from values by name or number."""
    names = flow.condition_columns
    row = np.full(flow.condition_dim, np.nan)
    for name, value in values.items():
        i = column_number(
            name, flow.condition_dim, names, owner="the flow's condition", kind="value", numerals=True, error=TableError
        )
        if not np.isnan(row[i]):
            raise TableError(f"the condition {names[i] if names else i} is given twice")
        row[i] = value
    missing = [names[i] if names else str(i) for i in np.flatnonzero(np.isnan(row))]
    if missing:
        raise TableError(f"--condition lacks {', '.join(missing)}")
    return row


def conditions_to_sample(flow: NormalizingFlow, text: str | None, n: int) -> np.ndarray | None:
    """Conditions for n samples, one for all (c,) or one for each (n, c), from a file or from values in the command."""
    if not flow.condition_dim:
        if text is not None:
            raise TableError("the flow takes no condition: leave out --condition")
        return None
    if text is None:
        raise TableError(f"the flow needs a condition ({condition_names(flow)}): --condition name=value,... or a FILE")
    if "=" in text and not os.path.exists(text):
        return condition_row(flow, condition_values(text))
    table = take(open_source(text), Parts(expected=flow.condition_columns))
    rows, width = table.x.shape
    if width != flow.condition_dim:
        raise TableError(f"{text} has {width} columns, the flow's condition is {condition_names(flow)}")
    if rows not in (1, n):
        raise TableError(f"{text} has {rows:,} rows; expected 1, or one for each of the {n:,} samples")
    values = _in_units(table, flow.headers.condition, text)
    return values[0] if rows == 1 else values


def read_support(path: str, names: Sequence[str] | None, n: int) -> dict[Any, Column]:
    """Read the support of columns from a JSON file.

    The file holds an object from names or numbers of columns to the name of a kind, where it needs no arguments, or to an
    object with `kind` and the arguments of the function of that name in `npflows.support`::

        {"azimuth": {"kind": "periodic", "low": 0, "high": 360}, "mass": "positive", "first, second": "ordered"}

    The columns of a group stand together, with commas between them.
    Columns that are not in it live on the whole line.
    """
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise TableError(f"{path} is not JSON ({error})") from None
    if not isinstance(given, dict):
        raise TableError(f'{path} must hold an object like {{"column": {{"kind": "interval", "low": 0, "high": 1}}}}')
    columns: dict[Any, Column] = {}
    seen: set[int] = set()
    for name, value in given.items():
        column = _column(f"{path}, column {name}", value)
        parts = [name]
        if isinstance(column, Group) and name not in (names or ()):
            parts = [part.strip() for part in name.split(",")]
        numbers = [
            column_number(part, n, names, owner=f"{path}: the flow", numerals=True, error=TableError) for part in parts
        ]
        if seen.intersection(numbers) or len(set(numbers)) < len(numbers):
            raise TableError(f"{path} gives column {name!r} twice")
        if isinstance(column, Group) and len(numbers) < 2:
            raise TableError(f'{path}: {column!r} is of several columns: name them all, as in "a, b", got {name!r}')
        seen.update(numbers)
        columns[numbers[0] if len(numbers) == 1 else tuple(numbers)] = column
    return columns


def _column(where: str, value: Any) -> Column:
    arguments: dict[str, Any] = {"kind": value} if isinstance(value, str) else value
    kind = arguments.get("kind") if isinstance(arguments, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise TableError(f"{where}: the kind must be one of {', '.join(KINDS)}, got {json.dumps(value)}")
    arguments = {name: number for name, number in arguments.items() if name != "kind"}
    signature = inspect.signature(KINDS[kind])
    try:
        signature.bind(**arguments)
    except TypeError:
        wanted = ", ".join(map(str, signature.parameters)) or "no arguments"
        raise TableError(f"{where}: {kind} takes {wanted}, got {', '.join(arguments) or 'none'}") from None
    try:
        return KINDS[kind](**arguments)
    except (ValueError, TypeError) as error:
        raise TableError(f"{where}: {error}") from None
