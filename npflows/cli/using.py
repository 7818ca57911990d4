"""The commands that use a flow: score, sample, verify, plot, and the demonstration."""

from __future__ import annotations

import argparse
import json
import warnings
from typing import TYPE_CHECKING

import numpy as np

from npflows import Ensemble, NormalizingFlow, diagnostics, plotting
from npflows import demo as demonstration
from npflows.cli.clusters import score_on_dask
from npflows.cli.ensembles import load_density, load_flow, one_flow, scores
from npflows.cli.inputs import Rows, condition_row, conditions_to_sample, keep_inputs, read_rows, stream_rows
from npflows.cli.reports import column_names, report
from npflows.files.tables import TableError, check_writable, write_table
from npflows.files.tables.shards import is_pattern, matching_files
from npflows.verify import verify as verify_flow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_SAMPLES = 20_000
"""Default number of samples in a picture, at most."""


def score(a: argparse.Namespace) -> int:
    """Write the log-density of each row of a table, and report their mean."""
    if a.output is not None:
        check_writable(a.output, table=True)
        keep_inputs(a.output, a.flow, *matching_files(a.table))
    density, flow = load_density(a.flow, a.device)
    if a.dask is not None:
        table = score_on_dask(a, density)
    else:
        pieces = (
            stream_rows(flow, a.table, a.columns, a.condition, a.where)
            if a.stream or is_pattern(a.table)
            else [read_rows(flow, a.table, a.columns, a.condition, where=a.where, name=a.table_name)]
        )
        table = np.concatenate([scores(density, rows.x, rows.condition) for rows in pieces])
    log_prob = table[:, 0]
    if a.output is not None:
        names = ["log_prob", "spread"][: table.shape[1]]
        write_table(a.output, table if len(names) > 1 else log_prob, names)
    finite = log_prob[np.isfinite(log_prob)]
    which = "" if finite.size == log_prob.size else " (of the finite ones)"
    if not a.quiet:
        report([
            ("rows", f"{len(log_prob):,}"),
            ("mean log_prob", f"{finite.mean():.4f}{which}" if finite.size else "-"),
            ("-inf", f"{int(np.isneginf(log_prob).sum()):,}"),
            ("NaN", f"{int(np.isnan(log_prob).sum()):,}"),
            *([] if a.output is None else [("file", a.output)]),
        ])  # fmt: skip
    return 0


def sample(a: argparse.Namespace) -> int:
    """Draw rows from a flow and write them to a table."""
    check_writable(a.output, table=True)
    keep_inputs(a.output, a.flow, *([] if a.condition is None else [a.condition]))
    density, flow = load_density(a.flow, a.device)
    condition = conditions_to_sample(flow, a.condition, a.n)
    x = density.sample(a.n, rng=a.seed, temperature=a.temperature, condition=condition).reshape(a.n, flow.input_dim)
    n_bad = int((~np.isfinite(x)).any(axis=1).sum())
    if n_bad:
        warnings.warn(f"{n_bad:,} of {a.n:,} samples are not finite", UserWarning, stacklevel=1)
    write_table(a.output, x, flow.columns or [f"x{i}" for i in range(flow.input_dim)], flow.units)
    if not a.quiet:
        report([("rows", f"{a.n:,}"), ("columns", column_names(flow)), ("file", a.output)])
    return 0


def verify(a: argparse.Namespace) -> int:
    """Print the certificate of a flow on a table; the exit status is 1 if a check fails."""
    flow = load_flow(a.flow, a.device, "verify measures one flow")
    rows = read_rows(flow, a.table, a.columns, a.condition, where=a.where, name=a.table_name).finite()
    if not len(rows.x):
        raise TableError(f"{a.table} has no row without missing or infinite values")
    found = verify_flow(flow, rows.x, rows.condition, a.seed, max_rows=a.rows)
    if a.json:
        print(json.dumps(found.to_dict(), indent=2))
    elif not a.quiet:
        print(found)
    return 0 if found.passed else 1


def plot(a: argparse.Namespace) -> int:
    """Draw a picture of a flow, or of the mixture of an ensemble."""
    plotting.check_picture(a.output)
    keep_inputs(a.output, a.flow, *([] if a.table is None else [a.table]))
    density, flow = load_density(a.flow, "cpu")
    if a.kind in ("training", "latent", "calibration"):
        flow = density = one_flow(density, a.flow, f"--kind {a.kind} draws one flow")
    if a.table is None and (a.kind in ("latent", "calibration") or a.weights is not None):
        need = f"--kind {a.kind}" if a.weights is None else "--weights"
        raise TableError(f"{need} needs a TABLE, of rows that the flow was not fitted to")
    if a.kind == "training":
        if a.table is not None:
            raise TableError("--kind training draws what is saved with the flow: leave out the table")
        figure = plotting.training_curve(flow)
    else:
        draw = {"corner": _corner, "density": _density, "latent": _latent, "calibration": _latent}[a.kind]
        figure = draw(density, flow, a)
    plotting.save_picture(figure, a.output)
    if not a.quiet:
        print(f"drawn in {a.output}")
    return 0


def _rows_to_draw(flow: NormalizingFlow, a: argparse.Namespace) -> Rows:
    """The finite rows of the table, of which there must be one."""
    rows = read_rows(flow, a.table, a.columns, a.condition, a.weights, a.where, a.table_name)
    kept = rows.finite()
    if not len(kept.x):
        raise TableError(f"{a.table} has no row to draw")
    return kept


def _values(flow: NormalizingFlow, a: argparse.Namespace) -> np.ndarray | None:
    """The condition that the command gives by its values, None where the flow takes none."""
    if not flow.condition_dim and a.condition is None:
        return None
    if not isinstance(a.condition, dict):
        given = "the flow takes no condition: leave out" if not flow.condition_dim else "say for which condition:"
        raise TableError(f"{given} --condition{' name=value,...' if flow.condition_dim else ''}")
    if not flow.condition_dim:
        raise TableError("the flow takes no condition: leave out --condition")
    return condition_row(flow, a.condition)


def _corner(density: NormalizingFlow | Ensemble, flow: NormalizingFlow, a: argparse.Namespace) -> Figure:
    """Draw a corner plot of samples, beside the rows of the table if there is one."""
    named, rng = "samples of the flow", np.random.default_rng(a.seed)
    labels = flow.headers.x.labels if flow.columns else None
    if a.table is None:
        n = a.n or MOST_SAMPLES
        drawn = density.sample(n, rng, condition=_values(flow, a)).reshape(n, -1)
        return plotting.corner(drawn, columns=labels, labels=(named, ""))
    rows = _rows_to_draw(flow, a)
    n, condition = a.n or min(len(rows.x), MOST_SAMPLES), rows.condition
    if condition is not None and condition.ndim == 2:  # drawn from those of the data, by their weights
        share = None if rows.weights is None else rows.weights / rows.weights.sum()
        condition = condition[rng.choice(len(rows.x), n, replace=share is not None or n > len(rows.x), p=share)]
    drawn = density.sample(n, rng, condition=condition).reshape(n, -1)
    return plotting.corner(rows.x, drawn, columns=labels, weights=rows.weights, labels=("data", named))


def _density(density: NormalizingFlow | Ensemble, flow: NormalizingFlow, a: argparse.Namespace) -> Figure:
    """Draw the density of a flow of one or two columns."""
    if flow.input_dim > 2:
        raise TableError(f"--kind density draws flows of one or two columns, this one has {flow.input_dim}: --kind corner")
    draw = plotting.density_1d if flow.input_dim == 1 else plotting.density_2d
    condition = _values(flow, a)
    if a.table is None:
        return draw(density, condition=condition)
    rows = _rows_to_draw(flow, a)
    return draw(density, condition=condition, data=rows.x, weights=rows.weights)


def _latent(density: NormalizingFlow | Ensemble, flow: NormalizingFlow, a: argparse.Namespace) -> Figure:
    """Draw latent columns, or the coverage of regions."""
    rows = _rows_to_draw(flow, a)
    if a.kind == "latent":
        return plotting.latent(diagnostics.pit(flow, rows.x, rows.condition, rows.weights))
    found = diagnostics.coverage(flow, rows.x, np.linspace(0.02, 0.98, 49), rows.condition, rows.weights)
    return plotting.calibration(found, difference=True)


def demo(a: argparse.Namespace) -> int:
    """Run the demonstration."""
    demonstration.demo(a.output, seed=a.seed, quick=a.quick)
    return 0
