"""`npflows fit`: fit a flow to a table."""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import numpy as np

from npflows import NormalizingFlow, TrainingError
from npflows.cli.ensembles import check_ensemble, fit_ensemble, report_ensemble
from npflows.cli.inputs import checked_weights, keep_inputs, missing_of_columns, read_support, refuse_invalid
from npflows.cli.ranks import all_or_none, world
from npflows.cli.reports import INTERRUPTED, column_names, complain, condition_names, report, training
from npflows.core.statistics import effective_sample_size
from npflows.files.tables import Parts, TableError, check_writable, read_table
from npflows.files.tables.shards import is_pattern, matching_files, read_shard
from npflows.files.tables.streams import stream_files
from npflows.models.table import TABLE_MODELS
from npflows.support import Column
from npflows.training.missing import as_missing


def fit(a: argparse.Namespace) -> int:
    """Fit a flow to a table, save it, and report how the fit went; with MPI each process reads its part of the table."""
    comm = world()
    with all_or_none(comm):
        return _fit(a, comm)


def _fit(a: argparse.Namespace, comm: Any) -> int:
    check_writable(a.output)
    keep_inputs(a.output, *matching_files(a.table), *([] if a.support is None else [a.support]))
    check_ensemble(a)
    if comm is not None and (a.stream or a.device != "cpu"):
        raise TableError(
            "several processes of MPI take neither --stream nor --device cuda: each reads its part of the table"
        )
    quiet = a.quiet or (comm is not None and comm.rank > 0)
    conditions = a.condition or []
    weighted: str | bool | None = False if a.no_weights else a.weights
    stream = None
    if a.stream:
        if a.burn_in or a.table_name is not None:
            raise TableError("--stream takes no --burn-in and --table")
        stream = stream_files(matching_files(a.table), Parts(a.columns, conditions, weighted, a.log_weights, a.where))
        table = stream.read(0)
    elif comm is not None or is_pattern(a.table):
        parts = Parts(a.columns, conditions, weighted, a.log_weights, a.where)
        rank, size = (0, 1) if comm is None else (comm.rank, comm.size)
        table = read_shard(a.table, rank, size, parts, a.table_name, a.burn_in)
    else:
        table = read_table(a.table, a.columns, condition=conditions, weights=weighted, log_weights=a.log_weights,
                           where=a.where, burn_in=a.burn_in, table=a.table_name)  # fmt: skip
    n, d = len(table if stream is None else stream), table.x.shape[1]
    if comm is not None:
        n = comm.allreduce(n)
    if not n:
        raise TableError(f"{a.table} has no rows")
    condition_columns = table.condition_columns or []
    missing = missing_of_columns(a.table, a.missing, table.columns, d, condition_columns)
    if a.on_missing == "impute" and missing is None:
        raise TableError("--on-missing impute needs --missing, what stands for a missing entry: nan, 99, ...")
    if stream is None and a.drop_invalid and table.sample_weight is not None and not np.isfinite(table.sample_weight).all():
        n_bad = int((~np.isfinite(table.sample_weight)).sum())
        warnings.warn(f"dropped {n_bad} of {n} rows whose weight is missing or infinite", UserWarning, stacklevel=1)
    columns = {} if a.support is None else read_support(a.support, table.columns, d)
    weights = table.sample_weight if stream is None else None
    if weights is not None and comm is None:
        weights = checked_weights(a.table, a.weights or "of the chain", weights)
    elif weights is not None and a.drop_invalid:  # `fit` checks those of all processes
        weights = np.where(np.isfinite(weights), weights, 0.0)

    def make(seed: int) -> NormalizingFlow:
        made = TABLE_MODELS[a.model].build(
            d,
            hidden_dims=a.hidden,
            activation=a.activation,
            base_distribution=a.base,
            dtype=a.dtype,
            rng=seed,
            condition_dim=len(conditions),
            support=columns or None,
            columns=table.columns,
            **_options(a, columns),
        )
        made.condition_columns = condition_columns or None
        made.units, made.condition_units = table.units, table.condition_units
        return made

    flow = make(a.seed).to(a.device)
    if stream is None and comm is None and not a.drop_invalid:
        refuse_invalid(a.table, table, as_missing(flow.headers, missing, a.on_missing), a.weights or "the weights")
    given: dict[str, Any] = {} if stream is not None else {
        "sample_weight": weights, "log_weight": table.log_weight, "condition": table.condition
    }  # fmt: skip
    options = {
        **given, "max_epochs": a.epochs, "batch_size": a.batch_size, "learning_rate": a.learning_rate,
        "patience": a.patience, "weight_decay": a.weight_decay, "validation_fraction": a.validation_fraction,
        "max_seconds": a.max_seconds, "on_invalid": "drop" if a.drop_invalid else "raise", "missing": missing,
        "on_missing": a.on_missing, "rng": a.seed, "progress": False if a.quiet else "auto",
    }  # fmt: skip
    started, status = time.perf_counter(), 0
    if a.ensemble is not None:
        ensemble = fit_ensemble(a, make, table, comm, **options)
        if comm is None or comm.rank == 0:
            ensemble.save(a.output)
        if not quiet:
            report_ensemble(ensemble, n, time.perf_counter() - started, a.output)
        return 0
    try:
        flow.fit(table.x if stream is None else stream, **options, comm=comm)
    except KeyboardInterrupt:
        if not flow.history:
            return complain("interrupted before the first epoch was through; nothing was written", INTERRUPTED)
        status = INTERRUPTED
    except TrainingError as error:
        if comm is None or comm.rank == 0:
            _save(flow, a.output)
        raise TrainingError(f"{error} (the best so far is in {a.output})") from None
    seconds = time.perf_counter() - started
    if comm is not None and comm.rank > 0:
        return status
    status = _save(flow, a.output) or status
    if status:
        complain(f"interrupted after epoch {len(flow.history['epoch'])}; the best so far is in {a.output}", status)
    if not quiet:
        report([
            ("rows", f"{n:,}" if comm is None else f"{n:,}, by {comm.size} processes"),
            *([] if comm is not None else _effective(weights, None if stream is not None else table.log_weight)),
            ("columns", column_names(flow)),
            *([("condition", condition_names(flow))] if conditions else []),
            ("model", f"{type(flow).__name__}, {flow.num_params:,} parameters, {flow.dtype.name}"),
            *training(flow.history),
            ("time", f"{seconds:.1f} s"),
            ("file", a.output),
        ])  # fmt: skip
    return status


def _save(flow: NormalizingFlow, path: str) -> int:
    """Save what was fitted, which one Ctrl-C does not throw away; the exit status."""
    try:
        flow.save(path)
    except KeyboardInterrupt:
        flow.save(path)
        return INTERRUPTED
    return 0


def _effective(weights: np.ndarray | None, log_weights: np.ndarray | None) -> list[tuple[str, str]]:
    """How many rows the rows are worth by their weights, as a line of the report."""
    if log_weights is not None:
        n_rows = effective_sample_size(log_weights, log=True)
    elif weights is not None:
        n_rows = effective_sample_size(weights)
    else:
        return []
    return [("effective rows", f"{n_rows:,.1f}, by the weights")]


def _options(a: argparse.Namespace, columns: dict[Any, Column]) -> dict[str, Any]:
    """Arguments that depend on the model: the number of layers."""
    if a.model != "spline" and any(column.is_periodic for column in columns.values()):
        raise TableError(f"{a.support} has a periodic column, which only a spline flow can keep: pass --model spline")
    return {} if a.layers is None else {TABLE_MODELS[a.model].depth: a.layers}
