"""Ensembles in the commands: `npflows fit --ensemble N`, and files that hold one where a flow is expected."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from npflows import Ensemble, NormalizingFlow, load
from npflows.cli.reports import column_names, condition_names, report, training
from npflows.core.table import Table
from npflows.files.archive import read_arrays
from npflows.files.flow_file import ENSEMBLE
from npflows.files.tables import TableError


def check_ensemble(a: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    if a.bootstrap and a.ensemble is None:
        raise TableError("--bootstrap needs --ensemble N, how many flows are to be fitted")
    if a.ensemble is not None and (a.stream or a.device != "cpu"):
        raise TableError("--ensemble takes neither --stream nor --device cuda")


def fit_ensemble(
    a: argparse.Namespace, make: Callable[[int], NormalizingFlow], table: Table, comm: Any, **options: Any
) -> Ensemble:  # fmt: skip
    """Fit the members to a table that was read as a whole, or to that of which each process has read a part."""
    return Ensemble.fit(make, table.x, a.ensemble, bootstrap="rows" if a.bootstrap else None, comm=comm, **options)


def report_ensemble(ensemble: Ensemble, rows: int, seconds: float, path: str) -> None:
    """Print what came of a fit."""
    first, losses = ensemble.members[0], [dict(training(history)) for history in ensemble.history]
    [held_out] = [name for name in losses[0] if name.endswith("log-likelihood")]
    report([
        ("rows", f"{rows:,}"),
        ("columns", column_names(first)),
        *([("condition", condition_names(first))] if first.condition_dim else []),
        ("model", f"{len(ensemble)} times {type(first).__name__}, {first.num_params:,} parameters, {first.dtype.name}"),
        (held_out, ", ".join(loss[held_out].split()[0] for loss in losses) + " per row, member by member"),
        ("time", f"{seconds:.1f} s"),
        ("file", path),
    ])  # fmt: skip


def is_ensemble(path: str) -> bool:
    """Whether a file holds an ensemble."""
    return bool(read_arrays(path, (ENSEMBLE,)))


def load_density(path: str, device: str) -> tuple[NormalizingFlow | Ensemble, NormalizingFlow]:
    """What a file holds, a flow or an ensemble, and a flow that says what its columns are."""
    if not is_ensemble(path):
        flow = load(path, device=device)
        return flow, flow
    ensemble = Ensemble.load(path)
    for member in ensemble:
        member.to(device)
    return ensemble, ensemble.members[0]


def one_flow(density: NormalizingFlow | Ensemble, path: str, why: str) -> NormalizingFlow:
    """The flow that a file holds, where an ensemble is of no use.

    Raises
    ------
    TableError
        If it holds an ensemble.
    """
    if isinstance(density, NormalizingFlow):
        return density
    raise TableError(
        f"{why}, and {path} holds an ensemble of {len(density)}: write a member to a file of its own, by "
        f"npflows.Ensemble.load({path!r}).members[0].save('member.npz') in Python"
    )


def load_flow(path: str, device: str, why: str) -> NormalizingFlow:
    """The flow in a file; see `one_flow`."""
    return one_flow(load_density(path, device)[0], path, why)


def scores(density: NormalizingFlow | Ensemble, x: np.ndarray, condition: np.ndarray | None) -> np.ndarray:
    """Log-densities (n, 1), with their spread (n, 2) of an ensemble."""
    if isinstance(density, NormalizingFlow):
        return density.log_prob(x, condition)[:, None]
    return np.column_stack(density.log_prob_and_spread(x, condition))
