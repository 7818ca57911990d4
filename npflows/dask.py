"""Flows on Dask collections: log-densities and samples of tables that are larger than memory, chunk by chunk, on a cluster.

Nothing is computed until Dask is asked to.  The flow is one node of the graph, which goes to each worker once; it is the
flow as it was when the collection was made.  Each chunk is computed on one thread, as workers have threads of their own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from npflows.core.checks import SeedLike, as_int, as_numeric, as_rng
from npflows.core.counters import Part
from npflows.core.optional import required
from npflows.core.threads import at_most_threads
from npflows.files.flow_file import CHECKSUM, pack
from npflows.flow import NormalizingFlow

__all__ = ["log_prob", "sample", "score"]

CHUNK = 100_000
"""Samples of a chunk."""


def log_prob(flow: NormalizingFlow, x: Any, condition: Any = None, **options: Any) -> Any:
    """Log-densities of the rows of a Dask array or data frame.

    Parameters
    ----------
    flow : NormalizingFlow
    x : dask.array.Array (n, input_dim) or dask.dataframe.DataFrame
        A data frame is taken by name where the flow has `columns`.  An array's chunks may be cut along rows alone; those
        that are cut otherwise are put together.
    condition : array_like (condition_dim,), dask array (n, condition_dim), dask data frame, or list of str, optional
        Where the flow takes one.  Names are those of columns of x, a data frame.  A data frame has the partitions of x.
    options
        Of `NormalizingFlow.log_prob`.

    Returns
    -------
    dask.array.Array (n,) or dask.dataframe.Series
        float64, in the chunks or partitions of x, with the index of a data frame.

    Raises
    ------
    ImportError
        If Dask is missing.
    TypeError
        If x is no Dask collection.
    ValueError
        If the shapes do not fit.
    """
    dask = _dask()
    shared = _shared(dask, flow)
    if _is_frame(x):
        return _of_frame(shared, x, condition, options)
    array = _module("array")
    rows = _whole_rows(array, flow, x)
    given: list[Any] = []
    if condition is not None:
        if not isinstance(condition, array.Array) or condition.ndim < 2:
            condition = as_numeric(condition, "condition", flow.headers.condition)
        if condition.ndim == 2:
            given = [_aligned(array, condition, rows)]
        else:
            options = {**options, "condition": condition}
    return array.map_blocks(
        _log_probs,
        rows,
        *given,
        flow=shared,
        options=options,
        drop_axis=list(range(1, rows.ndim)),
        dtype=np.float64,
        meta=np.empty(0),
    )


def score(flow: NormalizingFlow, x: Any, condition: Any = None, sample_weight: Any = None) -> Any:
    """The mean log-density of the rows of a Dask collection, weighted perhaps; computed when it is asked for.

    It is NaN if a row, or its weight, has an entry that is NaN, masked or null.

    Parameters
    ----------
    flow, x, condition
        As in `log_prob`.
    sample_weight : dask collection or array_like (n,), or name of a column of x, optional
        Weights of the rows.
    """
    weight = x[sample_weight] if isinstance(sample_weight, str) else sample_weight
    columns = x.drop(columns=[sample_weight]) if isinstance(sample_weight, str) else x
    log_probs = log_prob(flow, columns, condition)
    missing = {"skipna": False} if _is_frame(x) else {}
    if weight is None:
        return log_probs.mean(**missing)
    if isinstance(weight, _module("array").Array):
        weight = weight.map_blocks(_numbers, dtype=np.float64, meta=np.empty(0))
    elif not _is_frame(x):
        weight = _numbers(weight)
    return (log_probs * weight).sum(**missing) / weight.sum(**missing)


def sample(
    flow: NormalizingFlow,
    n_samples: int,
    chunks: int = CHUNK,
    rng: SeedLike = None,
    temperature: float = 1.0,
    *,
    condition: ArrayLike | None = None,
) -> Any:
    """Samples as a Dask array, the same bits as those of `flow.sample`, whatever the chunks are.

    Parameters
    ----------
    flow : NormalizingFlow
    n_samples : int
    chunks : int
        Samples of a chunk.
    rng, temperature
        As in `NormalizingFlow.sample`.
    condition : array_like (condition_dim,), optional
        One for all samples.

    Returns
    -------
    dask.array.Array (n_samples, ...)
    """
    dask, array = _dask(), _module("array")
    n, at_once, generator = as_int(n_samples, "n_samples", 0), as_int(chunks, "chunks"), as_rng(rng)
    if condition is not None and np.ndim(condition) != 1:
        raise ValueError(f"condition must be one for all samples ({flow.condition_dim},), got {np.shape(condition)}")
    shared, state = _shared(dask, flow), copy.deepcopy(generator)
    empty = flow.sample(1, generator, temperature, condition=condition)[:0]  # which takes what all of them take
    draw = dask.delayed(_samples, pure=False)
    parts = []
    for start in range(0, n, at_once):
        m = min(at_once, n - start)
        part = draw(shared, state, start, m, temperature, condition)
        parts.append(array.from_delayed(part, shape=(m, *empty.shape[1:]), dtype=empty.dtype))
    return array.concatenate(parts) if parts else array.from_array(empty)


def _dask() -> ModuleType:
    return required("dask", "npflows.dask", "Dask", "pip install 'npflows[dask]'")


def _module(name: str) -> ModuleType:
    """A part of Dask, which may lack what it needs of its own."""
    return required(f"dask.{name}", "npflows.dask", f"dask.{name}", "pip install 'npflows[dask]'")


def _shared(dask: ModuleType, flow: NormalizingFlow) -> Any:
    """The flow as it is now, one node of the graph, by the same name for the same flow."""
    return dask.delayed(copy.deepcopy(flow), name=f"npflows-{pack(flow)[CHECKSUM]}", traverse=False)


def _is_frame(x: Any) -> bool:
    return hasattr(x, "map_partitions") and hasattr(x, "columns")


def _whole_rows(array: ModuleType, flow: NormalizingFlow, x: Any) -> Any:
    """The array with chunks along rows alone."""
    if not isinstance(x, array.Array):
        raise TypeError(f"x must be a Dask array or data frame, got {type(x).__name__}: use flow.log_prob")
    if x.shape[1:] != flow.input_shape:
        expected = ", ".join(map(str, ("n", *flow.input_shape)))
        raise ValueError(f"x must have shape ({expected}), got {x.shape}")
    return x.rechunk(dict.fromkeys(range(1, x.ndim), -1))


def _aligned(array: ModuleType, condition: Any, rows: Any) -> Any:
    """Conditions in the chunks of the rows, of as many axes."""
    ours, theirs = rows.shape[0], condition.shape[0]
    if np.isnan(ours) != np.isnan(theirs):
        raise ValueError("x and condition must both have chunks of known sizes, or neither: call compute_chunk_sizes()")
    if ours != theirs and not np.isnan(ours):
        raise ValueError(f"condition must have one row for each of the {ours} of x, got {theirs}")
    if not isinstance(condition, array.Array):
        condition = array.from_array(condition)
    if np.isnan(ours):  # of one origin, whose chunks are alike
        if len(condition.chunks[0]) != len(rows.chunks[0]):
            raise ValueError(f"condition must have the {len(rows.chunks[0])} chunks of x, got {len(condition.chunks[0])}")
    else:
        condition = condition.rechunk({0: rows.chunks[0]})
    condition = condition.rechunk({1: -1})
    place: tuple[Any, ...] = (...,) + (None,) * (rows.ndim - 2)
    return condition[place]


def _of_frame(shared: Any, x: Any, condition: Any, options: dict[str, Any]) -> Any:
    if isinstance(condition, str) or (isinstance(condition, Sequence) and all(isinstance(name, str) for name in condition)):
        names = [condition] if isinstance(condition, str) else list(condition)
        missing = [name for name in names if name not in x.columns]
        if missing:
            raise ValueError(f"x has no column {', '.join(missing)}; it has {', '.join(map(str, x.columns))}")
        condition, x = x[names], x.drop(columns=names)
    elif condition is not None and not _is_frame(condition):
        condition = as_numeric(condition, "condition")
        if condition.ndim != 1:
            raise TypeError("the condition of a data frame must be one for all rows, a data frame, or names of columns")
    return x.map_partitions(_frame_log_probs, condition, shared, options, meta=("log_prob", "f8"))


def _log_probs(x: Any, condition: Any = None, *, flow: NormalizingFlow, options: dict[str, Any]) -> np.ndarray:
    """The log-densities of a chunk."""
    if not len(x):
        return np.empty(0)
    if condition is not None:
        options = {**options, "condition": condition.reshape(len(x), -1)}
    with at_most_threads(1):
        return flow.log_prob(x, **options)


def _frame_log_probs(x: Any, condition: Any, flow: NormalizingFlow, options: dict[str, Any]) -> Any:
    """The log-densities of a partition, with its index."""
    values = np.empty(0)
    if len(x):
        with at_most_threads(1):
            values = flow.log_prob(x, condition, **options)
    pandas = required("pandas", "npflows.dask with data frames", "pandas", "pip install 'npflows[dask]'")
    return pandas.Series(values, index=x.index, name="log_prob", dtype="f8")


def _numbers(weight: Any) -> np.ndarray:
    """The weights of a chunk, NaN where they are masked."""
    return as_numeric(weight, "sample_weight").astype(np.float64)


def _samples(
    flow: NormalizingFlow, state: np.random.Generator, start: int, m: int, temperature: float, condition: Any
) -> np.ndarray:
    """Samples `start` to `start` + m of those that a generator in this state gives."""
    with at_most_threads(1):
        return flow.sample(m, Part(copy.deepcopy(state), start, m), temperature, condition=condition)
