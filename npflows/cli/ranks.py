"""Commands that `mpiexec` starts several times over."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

from npflows.cli.reports import complain
from npflows.core.optional import required
from npflows.training.mpi import RankError

STARTED = {"PMI_SIZE": 1, "OMPI_COMM_WORLD_SIZE": 1, "PMIX_RANK": -1}
"""Variables by which launchers tell processes of their number, and the largest value that says nothing of others."""
PATIENCE = 5.0
"""Seconds that a rank with an error waits for all others to have one, before it ends them."""
PASSING_ON = 1.0
"""Seconds that launchers get to pass on what was written: they may throw it away when processes end by an abort."""


def world() -> Any:
    """The communicator of all processes that a launcher of MPI has started with this one; None for one that is alone.

    Raises
    ------
    ImportError
        If there are others and mpi4py is missing.
    """
    if not any(os.environ.get(name, "").isdecimal() and int(os.environ[name]) > least for name, least in STARTED.items()):
        return None
    mpi = required("mpi4py.MPI", "npflows fit in several processes of MPI", "mpi4py", "pip install 'npflows[mpi]'")
    return mpi.COMM_WORLD if mpi.COMM_WORLD.size > 1 else None


@contextlib.contextmanager
def all_or_none(comm: Any) -> Iterator[None]:
    """A block, entered by all processes, that ends all of them if it ends by an error in one of them, which one of them
    tells of; the first one alone warns."""
    failures = None if comm is None else comm.Dup()
    try:
        with warnings.catch_warnings():
            if comm is not None and comm.rank > 0:
                warnings.simplefilter("ignore", UserWarning)
            yield
    except Exception as error:
        if failures is None:
            raise
        teller = failures.rank
        if _within(PATIENCE, failures.Ibarrier()):  # all have one
            of_others = failures.allgather(isinstance(error, RankError))
            teller = of_others.index(min(of_others))
        if failures.rank == teller:
            complain(str(error))
            sys.stderr.flush()
            time.sleep(PASSING_ON)
            failures.Abort(2)
        failures.Barrier()  # never passed: until the teller ends all


def _within(seconds: float, request: Any) -> bool:
    """Whether a request of MPI is complete after some seconds at most."""
    end = time.monotonic() + seconds
    while not request.Test():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
