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
from numpy.typing import ArrayLike, NDArray

from npflows.core.checks import SeedLike, as_int, as_numeric, as_rng, as_rows, as_vector, as_weights
from npflows.core.columns import listed
from npflows.core.counters import Part
from npflows.core.optional import required
from npflows.core.threads import at_most_threads
from npflows.ensemble import Ensemble
from npflows.files.ensemble_file import pack_ensemble
from npflows.files.flow_file import CHECKSUM, pack
from npflows.flow import NormalizingFlow

__all__ = ["log_prob", "sample", "score"]

CHUNK = 100_000
"""Samples of a chunk."""
Density = NormalizingFlow | Ensemble


def log_prob(flow: Density, x: Any, condition: Any = None, **options: Any) -> Any:
    """Log-densities of the rows of a Dask array or data frame.

    Parameters
    ----------
    flow : NormalizingFlow or Ensemble
    x : dask.array.Array (n, input_dim) or dask.dataframe.DataFrame
        A data frame is taken by name where the flow has `columns`.  An array's chunks may be cut along rows alone; those
        that are cut otherwise are put together.
    condition : array_like (condition_dim,), or dask collection (n, condition_dim), or list of str, optional
        Where the flow takes one: one for all rows, or for an array x an array, of Dask or not; for a data frame x a data
        frame or series of its partitions, or names of columns of x.
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
    shared, array = _shared(_dask(), flow), _module("array")
    rows = x if _is_frame(x) else _whole_rows(array, flow, x)
    if (condition is None) != (not flow.condition_dim):
        raise ValueError(f"this flow {_takes(flow)}, and {'none' if condition is None else 'one'} was given")
    if _is_frame(x):
        return _of_frame(array, shared, flow, x, condition, options)
    given: list[Any] = []
    if condition is not None:
        condition = _condition_of_array(array, flow, condition)
        if isinstance(condition, array.Array):
            place: tuple[Any, ...] = (...,) + (None,) * (rows.ndim - 2)
            given = [_aligned(array, condition, rows, "condition").rechunk({1: -1})[place]]
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


def score(flow: Density, x: Any, condition: Any = None, sample_weight: Any = None) -> Any:
    """The mean log-density of the rows of a Dask collection, weighted perhaps; computed when it is asked for.

    It is NaN if a row of positive weight has an entry that is NaN, masked or null.

    Parameters
    ----------
    flow, x, condition
        As in `log_prob`.
    sample_weight : dask array or series (n,), array_like (n,), or name of a column of x, optional
        Weights of the rows, not negative; rows of weight 0 do not count.  An array_like goes with an array x alone, a name
        and a series with a data frame; what is of Dask has the chunks or partitions of x where their sizes are unknown.

    Returns
    -------
    dask.array.Array ()

    Raises
    ------
    ValueError
        If the weights do not fit, or are not weights; those of Dask are looked at when the score is computed.
    """
    array, weight = _module("array"), sample_weight
    if isinstance(weight, str):
        if not _is_frame(x):
            raise ValueError(f"sample_weight={weight!r} names a column, and x is no data frame: pass the weights")
        weight, x = x[_columns_of(x, [weight])[0]], x.drop(columns=[weight])
    log_probs = log_prob(flow, x, condition)
    values = log_probs.to_dask_array() if _is_frame(x) else log_probs
    if weight is None:
        return values.mean()
    if _is_frame(x):
        weight = _weight_of_frame(array, weight, x)
    elif not isinstance(weight, array.Array):
        if np.isnan(values.shape[0]):
            raise ValueError("x has chunks of unknown sizes: call x.compute_chunk_sizes(), or pass weights of Dask")
        weight = as_weights(weight, values.shape[0])
    if weight.ndim != 1:
        raise ValueError(f"sample_weight must have shape (n,), one weight for each row, got {weight.shape}")
    parts = array.map_blocks(
        _weighted, values, _aligned(array, weight, values, "sample_weight"), new_axis=1,
        chunks=((1,) * values.numblocks[0], (3,)), dtype=np.float64, meta=np.empty((0, 3)),
    )  # fmt: skip
    return array.map_blocks(
        _weighted_mean, parts.rechunk(parts.shape), drop_axis=[0, 1], dtype=np.float64, meta=np.float64(0)
    )


def sample(
    flow: Density,
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
    flow : NormalizingFlow or Ensemble
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
    shared = _shared(dask, flow)
    n, at_once, generator = as_int(n_samples, "n_samples", 0), as_int(chunks, "chunks"), as_rng(rng)
    if condition is not None and np.ndim(condition) != 1:
        raise ValueError(f"condition must be one for all samples ({flow.condition_dim},), got {np.shape(condition)}")
    members = flow.members if isinstance(flow, Ensemble) else [flow]
    which = generator.integers(len(members), size=n) if isinstance(flow, Ensemble) else np.zeros(n, np.int8)
    states, empties = [], []
    for member in members:
        states.append(copy.deepcopy(generator))
        empties.append(member.sample(1, generator, temperature, condition=condition)[:0])  # takes what all of them take
    empty = np.concatenate(empties)
    draw = dask.delayed(_samples, pure=False)
    parts, drawn = [], np.zeros(len(members), np.int64)
    for start in range(0, n, at_once):
        owners = which[start : start + at_once]
        part = draw(shared, states, drawn, owners, temperature, condition)
        parts.append(array.from_delayed(part, shape=(len(owners), *empty.shape[1:]), dtype=empty.dtype))
        drawn = drawn + np.bincount(owners, minlength=len(members))
    return array.concatenate(parts) if parts else array.from_array(empty)


def _dask() -> ModuleType:
    return required("dask", "npflows.dask", "Dask", "pip install 'npflows[dask]'")


def _module(name: str) -> ModuleType:
    """A part of Dask, which may lack what it needs of its own."""
    return required(f"dask.{name}", "npflows.dask", f"dask.{name}", "pip install 'npflows[dask]'")


def _shared(dask: ModuleType, flow: Density) -> Any:
    """The flow as it is now, one node of the graph, by the same name for the same flow."""
    if not isinstance(flow, (NormalizingFlow, Ensemble)):
        raise TypeError(f"flow must be a flow or an Ensemble, got {type(flow).__name__}")
    packed = pack_ensemble(flow.members) if isinstance(flow, Ensemble) else pack(flow)
    return dask.delayed(copy.deepcopy(flow), name=f"npflows-{packed[CHECKSUM]}", traverse=False)


def _takes(flow: Density) -> str:
    """What conditions a flow takes, for messages."""
    return f"needs a condition of {flow.condition_dim} values" if flow.condition_dim else "takes no condition"


def _is_frame(x: Any) -> bool:
    return hasattr(x, "map_partitions") and x.ndim == 2


def _is_series(x: Any) -> bool:
    return hasattr(x, "map_partitions") and x.ndim == 1


def _is_names(condition: Any) -> bool:
    return isinstance(condition, str) or (
        isinstance(condition, Sequence) and bool(condition) and all(isinstance(name, str) for name in condition)
    )


def _columns_of(x: Any, names: Sequence[str]) -> list[str]:
    """Names of columns of a data frame, after a check."""
    missing = [name for name in names if name not in x.columns]
    if missing:
        raise ValueError(f"x has no column {listed(missing)}; it has {listed(list(map(str, x.columns)))}")
    return list(names)


def _check_partitions(values: Any, x: Any, name: str) -> None:
    """Refuse what has other partitions than x, as far as is known before anything is computed."""
    if values.npartitions != x.npartitions or (
        values.known_divisions and x.known_divisions and values.divisions != x.divisions
    ):
        raise ValueError(
            f"{name} must have the {x.npartitions} partitions of x, got {values.npartitions} of its own: make it of "
            f"the same data frame, or call repartition on both"
        )


def _whole_rows(array: ModuleType, flow: Density, x: Any) -> Any:
    """The array with chunks along rows alone."""
    if not isinstance(x, array.Array):
        raise TypeError(f"x must be a Dask array or data frame, got {type(x).__name__}: use flow.log_prob")
    if x.shape[1:] != flow.input_shape:
        expected = ", ".join(map(str, ("n", *flow.input_shape)))
        raise ValueError(f"x must have shape ({expected}), got {x.shape}")
    return x.rechunk(dict.fromkeys(range(1, x.ndim), -1))


def _condition_of_array(array: ModuleType, flow: Density, condition: Any) -> Any:
    """The condition of an array x: one for all samples (condition_dim,), or an array of Dask (n, condition_dim)."""
    if _is_names(condition):
        raise ValueError(f"condition={condition!r} names columns, and x is no data frame: pass the condition itself")
    if _is_frame(condition) or _is_series(condition):
        raise TypeError(f"the condition of an array must be an array, got a Dask {type(condition).__name__}")
    dim = flow.condition_dim
    if isinstance(condition, array.Array) and condition.shape != (dim,):
        if condition.ndim != 2 or condition.shape[1] != dim:
            hint = "; condition[:, None] has it" if condition.ndim == dim == 1 else ""
            raise ValueError(f"condition must have shape (n, {dim}), got {condition.shape}{hint}")
        return condition
    rows, single = as_rows(condition, (dim,), "condition", flow.headers.condition)
    return rows[0] if single or len(rows) == 1 else array.from_array(rows)


def _aligned(array: ModuleType, values: Any, rows: Any, name: str) -> Any:
    """Conditions or weights in the chunks of the rows."""
    ours, theirs = rows.shape[0], values.shape[0]
    if np.isnan(ours) != np.isnan(theirs):
        raise ValueError(f"x and {name} must both have chunks of known sizes, or neither: call compute_chunk_sizes()")
    if ours != theirs and not np.isnan(ours):
        raise ValueError(f"{name} must have one row for each of the {ours} of x, got {theirs}")
    if not isinstance(values, array.Array):
        values = array.from_array(values)
    if not np.isnan(ours):
        return values.rechunk({0: rows.chunks[0]})
    if len(values.chunks[0]) != len(rows.chunks[0]):  # of one origin, whose chunks are alike
        raise ValueError(f"{name} must have the {len(rows.chunks[0])} chunks of x, got {len(values.chunks[0])}")
    return values


def _of_frame(array: ModuleType, shared: Any, flow: Density, x: Any, condition: Any, options: dict[str, Any]) -> Any:
    if _is_names(condition):
        names = _columns_of(x, [condition] if isinstance(condition, str) else condition)
        if len(names) != flow.condition_dim:
            raise ValueError(f"this flow {_takes(flow)}, and condition names {len(names)} columns: {listed(names)}")
        condition, x = x[names], x.drop(columns=names)
    elif _is_frame(condition) or _is_series(condition):
        _check_partitions(condition, x, "condition")
        condition = condition.to_frame() if _is_series(condition) else condition
    elif condition is not None:
        rows, single = (np.empty((0, 0)), False) if isinstance(condition, array.Array) else as_rows(
            condition, (flow.condition_dim,), "condition", flow.headers.condition
        )  # fmt: skip
        if not single and len(rows) != 1:
            raise TypeError("the condition of a data frame must be one for all rows, a data frame, or names of columns")
        condition = rows[0]
    return x.map_partitions(_frame_log_probs, condition, shared, options, meta=("log_prob", "f8"), align_dataframes=False)


def _weight_of_frame(array: ModuleType, weight: Any, x: Any) -> Any:
    """Weights of the rows of a data frame, an array in chunks of unknown sizes."""
    if _is_series(weight):
        _check_partitions(weight, x, "sample_weight")
        return weight.to_dask_array()
    if not isinstance(weight, array.Array):
        raise TypeError("sample_weight of a data frame must be the name of a column of it, or a series or array of Dask")
    return weight.map_blocks(_numbers, chunks=((np.nan,) * weight.numblocks[0], *weight.chunks[1:]))


def _check_lengths(x: Any, values: Any, name: str) -> None:
    if len(x) != len(values):
        raise ValueError(
            f"{name} must have the chunks of x, and one has {len(values)} rows where x has {len(x)}: make both of the same "
            f"rows"
        )


def _log_probs(x: Any, condition: Any = None, *, flow: Density, options: dict[str, Any]) -> np.ndarray:
    """The log-densities of a chunk."""
    if condition is not None:
        _check_lengths(x, condition, "condition")
    if not len(x):
        return np.empty(0)
    if condition is not None:
        options = {**options, "condition": condition.reshape(len(x), -1)}
    with at_most_threads(1):
        return flow.log_prob(x, **options)


def _frame_log_probs(x: Any, condition: Any, flow: Density, options: dict[str, Any]) -> Any:
    """The log-densities of a partition, with its index."""
    values = np.empty(0)
    if condition is not None and not isinstance(condition, np.ndarray):
        _check_lengths(x, condition, "condition")
    if len(x):
        with at_most_threads(1):
            values = flow.log_prob(x, condition, **options)
    pandas = required("pandas", "npflows.dask with data frames", "pandas", "pip install 'npflows[dask]'")
    return pandas.Series(values, index=x.index, name="log_prob", dtype="f8")


def _numbers(weight: Any) -> np.ndarray:
    """The weights of a chunk, NaN where they are masked."""
    return as_numeric(weight, "sample_weight").astype(np.float64)


def _weighted(values: NDArray, weight: NDArray) -> NDArray[np.float64]:
    """Of a chunk: an exponent e, and 2^-e times the sum of log-densities by their weights, and of the weights."""
    _check_lengths(values, weight, "sample_weight")
    weights = as_vector(weight, len(values), "sample_weight of a chunk")
    if not weights.any():
        return np.zeros((1, 3))
    as_weights(weights, len(values), "sample_weight of a chunk")
    used = weights > 0
    exponent = int(np.frexp(weights.max())[1])
    shares = np.ldexp(weights[used], -exponent)
    return np.array([[exponent, (shares * values[used]).sum(), shares.sum()]])


def _weighted_mean(parts: NDArray[np.float64]) -> np.float64:
    """The mean of all chunks, of what `_weighted` gives."""
    parts = parts[parts[:, 2] > 0]
    if not len(parts):
        raise ValueError("sample_weight must not be all zero")
    exponents = parts[:, 0].astype(np.int64)
    total, weight = np.ldexp(parts[:, 1:], (exponents - exponents.max())[:, None]).sum(axis=0)
    return total / weight


def _samples(
    flow: Density,
    states: Sequence[np.random.Generator],
    drawn: NDArray[np.int64],
    which: NDArray,
    temperature: float,
    condition: Any,
) -> NDArray:
    """Samples of the members that `which` says, after so many that were drawn of each by its generator in this state."""
    parts = []
    with at_most_threads(1):
        for i, member in enumerate(flow.members if isinstance(flow, Ensemble) else [flow]):
            m = int((which == i).sum())
            rng = Part(copy.deepcopy(states[i]), int(drawn[i]), m)
            parts.append(member.sample(m, rng, temperature, condition=condition))
    samples = np.empty((len(which), *parts[0].shape[1:]), np.result_type(*parts))
    for i, part in enumerate(parts):
        samples[which == i] = part
    return samples
