"""`npflows score --dask`: files scored by the workers of a Dask cluster, piece by piece."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from npflows import Ensemble, NormalizingFlow
from npflows.cli.ensembles import scores
from npflows.cli.inputs import RowPiece, columns_of_all, read_piece, row_pieces
from npflows.core.checks import warn_user
from npflows.core.optional import required
from npflows.core.threads import at_most_threads
from npflows.files.tables import TableError

SECONDS = 10
"""How long a scheduler may take to answer."""
SECONDS_TO_WORKER = 300
"""How long a scheduler without workers may take to get one, as those that start workers for their tasks do."""


def score_on_dask(a: argparse.Namespace, density: NormalizingFlow | Ensemble) -> np.ndarray:
    """The log-densities (n, 1 or 2) of all rows of some files, in their order; workers read the files by their paths.

    Raises
    ------
    TableError
        If no scheduler answers, it gets no worker, or the results do not fit into memory.
    """
    dask = required("dask", "npflows score --dask", "Dask", "pip install 'npflows[dask]'")
    distributed = required("distributed", "npflows score --dask", "distributed", "pip install 'npflows[dask]'")
    if a.table_name is not None or a.device != "cpu":
        raise TableError("--dask takes neither --table nor --device cuda")
    pieces = row_pieces(a.table)
    flow = density if isinstance(density, NormalizingFlow) else density.members[0]
    columns = columns_of_all(flow, pieces, a.columns, a.condition)
    with _client(distributed, a.dask) as client:
        shared = dask.delayed(density, traverse=False)  # one node of the graph, which a lost worker's successor has anew
        task = dask.delayed(_score, pure=False)
        tasks = [task(shared, piece, columns, a.condition, a.where) for piece in pieces]
        futures = client.compute(tasks)
        _await_worker(client, a.dask)
        found: dict[Any, np.ndarray] = {}
        order = {future.key: number for number, future in enumerate(futures)}
        try:
            for future, result in distributed.as_completed(futures, loop=client.loop, with_results=True):
                found[order[future.key]] = result
                future.release()
        except distributed.KilledWorker as error:
            raise TableError(
                f"{a.dask}: workers have died over a piece of {a.table}, of memory perhaps ({error})"
            ) from None
    try:
        return np.concatenate([found[number] for number in range(len(pieces))])
    except MemoryError:
        n = sum(map(len, found.values()))
        raise TableError(f"the log-densities of {n:,} rows do not fit into memory: score fewer files at once") from None


def _client(distributed: Any, address: str) -> Any:
    try:
        distributed.comm.resolve_address(address)  # a client that is not made complains as it is thrown away
    except (ValueError, Warning) as error:  # protocols that are no more raise what they warn of
        raise TableError(
            f"--dask takes the address of a Dask scheduler, tcp://HOST:PORT, got {address!r} ({error})"
        ) from None
    except OSError as error:
        raise _no_scheduler(address, error) from None
    try:
        return distributed.Client(address, timeout=SECONDS, set_as_default=False)
    except (OSError, OverflowError, ValueError) as error:
        raise _no_scheduler(address, error) from None


def _no_scheduler(address: str, error: Exception) -> TableError:
    return TableError(
        f"no Dask scheduler answers at {address} ({type(error).__name__}): start one by dask scheduler, and workers by "
        f"dask worker {address}"
    )


def _await_worker(client: Any, address: str) -> None:
    """Wait until the scheduler has a worker, and say so."""
    if client.scheduler_info()["workers"]:
        return
    warn_user(f"the Dask scheduler at {address} has no workers: waiting for one, {SECONDS_TO_WORKER} s at most")
    try:
        client.wait_for_workers(1, timeout=SECONDS_TO_WORKER)
    except TimeoutError:
        raise TableError(
            f"the Dask scheduler at {address} has got no worker in {SECONDS_TO_WORKER} s: start some by dask worker "
            f"{address}"
        ) from None


def _score(
    density: NormalizingFlow | Ensemble, piece: RowPiece, columns: Any, condition: Any, where: str | None
) -> np.ndarray:
    """On a worker: the log-densities of a piece, on one thread."""
    flow = density if isinstance(density, NormalizingFlow) else density.members[0]
    with at_most_threads(1):
        rows = read_piece(flow, piece, columns, condition, where)
        return scores(density, rows.x, rows.condition)
