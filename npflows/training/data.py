"""The rows that a fit trains on and validates on, after every check."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from npflows.core.absent import is_masked
from npflows.core.checks import as_condition, as_numeric, as_positive, as_rows, as_weights, warn_user
from npflows.core.columns import listed
from npflows.core.table import Table
from npflows.core.tables import Header, Headers
from npflows.core.underflow import ignore_underflow
from npflows.distribution.transformed import TransformedDistribution
from npflows.training.communicator import Communicator
from npflows.training.missing import Missing, by_column
from npflows.training.rows import NoRowsError, Rows
from npflows.training.sharing import SharedTable, agree, all_weights, facts_of_table


def as_table(flow: TransformedDistribution, x: ArrayLike, name: str, header: Header | None = None) -> np.ndarray:
    """(n, d) rows of the flow, n at least 1."""
    table, dim = as_numeric(x, name, header), flow.latent_dim
    if table.ndim == 1:
        reshape = f"{name}.reshape(-1, 1)" if dim == 1 else f"{name}.reshape(-1, {dim})"
        raise ValueError(f"fit needs a table of shape (n, {dim}), got a 1-D array of length {len(table)}; use {reshape}")
    if len(flow.input_shape) > 1 and table.shape != flow.input_shape:
        table, _ = as_rows(table, flow.input_shape, name)
    if table.ndim != 2 or table.shape[1] != dim:
        hint = " (is it transposed?)" if table.ndim == 2 and table.shape[0] == dim else ""
        if table.ndim == 3 and table.shape[2] == dim:
            hint = f"; of chains (draw, chain, {dim}) pass {name}.reshape(-1, {dim})"
        raise ValueError(f"{name} must have {dim} columns, got shape {table.shape}{hint}")
    return table


@ignore_underflow
def as_training_rows(
    flow: TransformedDistribution,
    x: ArrayLike,
    weight: ArrayLike | None,
    condition: ArrayLike | None,
    on_invalid: str,
    name: str,
    missing: Missing | None = None,
    log_weight: ArrayLike | None = None,
    headers: Headers | None = None,
    comm: Communicator | None = None,
) -> Rows:
    """The valid rows of a table, after every check; where entries are missing, nothing stands in for them yet.

    Of several ranks each gives the rows that it has, and all get the rows of all, one rank's after the other's.
    """
    headers = Headers.of(flow.headers, x, condition) if headers is None else headers
    table: np.ndarray | SharedTable = as_table(flow, x, name, headers.x)
    of_condition, weight_name = _names_beside(name)
    context: np.ndarray | SharedTable | None = as_condition(
        condition, len(table), flow.condition_dim, headers.condition, of_condition
    )
    if comm is not None and comm.size > 1:
        table, context, weight, log_weight = _of_all(comm, table, context, weight, log_weight, weight_name, headers, name)
    n = len(table)
    if not n:
        raise ValueError(f"{name} is empty: fit needs at least one row")
    if n < table.shape[1] and len(flow.input_shape) == 1:
        warn_user(f"{name} has {n} rows and {table.shape[1]} columns, more columns than rows: is it transposed?")
    weights = as_weights(weight, n, weight_name, log_weight)
    used = np.arange(n) if weights is None else np.flatnonzero(weights)  # no weight, no influence
    rows = Rows(table, used, weights, context)
    if missing is not None:
        rows = missing.apply(rows, name)
    if flow.preprocessing.has_support:
        _check_support(flow, rows, name)
    if rows.missing is None:
        valid = rows.each(_is_finite, rows.at_once)
    else:
        starts = range(0, len(rows), rows.at_once)
        parts = [_finite(rows, np.arange(start, min(start + rows.at_once, len(rows)))).all(axis=1) for start in starts]
        valid = np.concatenate(parts)
    if not valid.all():
        bad = np.flatnonzero(~valid)
        if on_invalid == "raise":
            raise ValueError(_describe_invalid(rows, bad, name, headers))
        if len(bad) == len(rows):
            raise NoRowsError(f"{name} has no row without NaN or infinite values")
        warn_user(f"{name}: dropped {len(bad)} of {n} rows with NaN or infinite values")
        rows = rows.part(np.flatnonzero(valid))
    return rows


def _of_all(
    comm: Communicator,
    x: Any,
    condition: Any,
    weight: ArrayLike | None,
    log_weight: ArrayLike | None,
    weight_name: str,
    headers: Headers,
    name: str,
) -> tuple[SharedTable, SharedTable | None, ArrayLike | None, ArrayLike | None]:
    """The table, condition and weights of all ranks, from those of this one."""
    log_name = weight_name.replace("sample_weight", "log_weight").replace("validation_weight", "validation_log_weight")
    given = {f"whether there is {key}": value is not None for key, value in
             ((weight_name, weight), (log_name, log_weight))}  # fmt: skip
    agree(comm, {**facts_of_table(x, condition, headers, name), **given})
    weight = all_weights(weight, len(x), weight_name, comm)
    log_weight = all_weights(log_weight, len(x), log_name, comm)
    return SharedTable(x, comm), None if condition is None else SharedTable(condition, comm), weight, log_weight


def _names_beside(name: str) -> tuple[str, str]:
    """The names of the arguments that are the condition and the weights of a table, x or validation_data."""
    return ("condition", "sample_weight") if name == "x" else ("validation_condition", "validation_weight")


def as_whole_table(
    flow: TransformedDistribution, comm: Communicator, headers: Headers, name: str, x: Any, condition: Any, weight: Any,
    log_weight: Any,
) -> tuple[Any, Any, Any, Any]:  # fmt: skip
    """The rows of all ranks in the memory of each, as `fit` takes them: numbers with the names and units of the columns,
    and condition and weights."""
    of_condition, weight_name = _names_beside(name)
    table: Any = as_table(flow, x, name, headers.x)
    context: Any = as_condition(condition, len(table), flow.condition_dim, headers.condition, of_condition)
    if comm.size > 1:
        table, context, weight, log_weight = _of_all(comm, table, context, weight, log_weight, weight_name, headers, name)
        table, context = np.asarray(table), None if context is None else np.asarray(context)
    return _named(table, headers.x), _named(context, headers.condition), weight, log_weight


def _named(array: np.ndarray | None, header: Header) -> np.ndarray | Table | None:
    return array if array is None or not (header.names or header.units) else Table(array, header.names, header.units)


def _check_support(flow: TransformedDistribution, rows: Rows, name: str) -> None:
    """Refuse values outside their column's support, where the density is 0."""
    counts: dict[int, int] = {}
    for x, _, _ in rows.pieces():
        flow.preprocessing.check(x, name)
        for d, n in flow.preprocessing.outside(x).items():
            counts[d] = counts.get(d, 0) + n
    if counts:
        labels, columns = flow.preprocessing.labels, flow.support or []
        which = ", ".join(f"{labels[d]} ({n} rows, {columns[d]!r})" for d, n in counts.items())
        raise ValueError(f"{name} has values outside their support, its open ends included: {which}; clean or widen it")


def _is_finite(x: np.ndarray, condition: np.ndarray | None) -> np.ndarray:
    """Whether each row, and its condition, is finite."""
    finite: np.ndarray = np.isfinite(x).all(axis=1)
    return finite if condition is None else finite & np.isfinite(condition).all(axis=1)


def _finite(rows: Rows, which: np.ndarray) -> np.ndarray:
    """Whether each value (n, d) of some rows, and last their condition, is finite; missing entries count as finite."""
    x, _, condition = rows.take(which)
    finite = np.isfinite(x)
    if rows.missing is not None:
        finite |= rows.missing.of(rows.index[which])
    fits = np.ones(len(x), bool) if condition is None else np.isfinite(condition).all(axis=1)
    return np.column_stack([finite, fits])


def _describe_invalid(rows: Rows, bad: np.ndarray, name: str, headers: Headers) -> str:
    masked, counts = _masked(rows, bad, headers)
    if masked.any():
        more = f"; {(~masked).sum()} more rows have NaN or infinite values" if not masked.all() else ""
        return (
            f"{name} has masked or empty entries ({counts}) in {masked.sum()} rows "
            f'({_shown(rows.index[bad[masked]])}){more}; pass missing="masked" to declare these missing, missing="nan" for '
            f'all NaN as well, or on_invalid="drop"'
        )
    finite = _finite(rows, bad)
    x_finite, condition_finite = finite[:, :-1].all(), finite[:, -1].all()
    if not condition_finite:
        name = f"the condition of {name}" if x_finite else f"{name} or its condition"
    columns = ", ".join(map(str, np.flatnonzero(~finite[:, :-1].all(axis=0))))
    columns = "" if x_finite else f", columns {columns}"
    return (
        f"{name} has NaN or infinite values in {len(bad)} rows ({_shown(rows.index[bad])}){columns}; clean them or pass "
        f'on_invalid="drop", or missing="nan"'
    )


def _shown(numbers: np.ndarray) -> str:
    """The first few of some numbers of rows."""
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")


def _masked(rows: Rows, which: np.ndarray, headers: Headers) -> tuple[np.ndarray, str]:
    """Which of some rows have masked entries that are not declared, and how many each column has, in words."""
    x, _, condition = rows.take(which)
    found = is_masked(x)
    parts = by_column(found, headers.x.names)
    if condition is not None:
        of_condition = is_masked(condition)
        parts += by_column(of_condition, headers.condition.names, " of the condition")
        found = np.column_stack([found, of_condition])
    return np.asarray(found.any(axis=1)), listed(parts)


def split(rows: Rows, fraction: float, rng: np.random.Generator) -> tuple[Rows, Rows | None]:
    """Training and validation rows, drawn at random; no validation for fraction 0 or two rows, as one alone would
    have no spread."""
    fraction = as_positive(fraction, "validation_fraction", zero=True)
    if fraction >= 1:
        raise ValueError(f"validation_fraction must be below 1, got {fraction}")
    n = len(rows)
    n_validation = min(max(1, round(n * fraction)), n - 2) if fraction > 0 else 0
    if n_validation < 1:
        return rows, None
    shuffled = rng.permutation(n)
    return rows.part(shuffled[n_validation:]), rows.part(shuffled[:n_validation])
