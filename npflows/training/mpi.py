"""Communicators of mpi4py."""

from __future__ import annotations

import functools
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from npflows.core.optional import required
from npflows.core.threads import at_most_threads, default_num_threads
from npflows.training.communicator import Communicator

STOPPED = 1
"""Tag of the message that a rank sends to all others when it stops by an error."""
GRACE = 1.0
"""Seconds that a rank which was told so still gives what it waits for: an error of all ranks it meets itself."""
SPINS = 1000
"""Times that a rank looks whether others are ready before it leaves its CPU to them now and then."""
_kept: list[Any] = []
"""Messages and calls on their way, whose memory must stay."""


class RankError(RuntimeError):
    """Another rank has stopped by an error."""


class MpiCommunicator:
    """The ranks of an MPI communicator; see `Communicator`.

    It talks on duplicates, so that no message of the caller's is mistaken for one of its own.  It waits for others by
    looking again and again, and so notices where one of them has stopped.
    """

    def __init__(self, comm: Any, mpi: Any) -> None:
        self._mpi, self.rank, self.size = mpi, comm.Get_rank(), comm.Get_size()
        self._comm, self._side = comm.Dup(), comm.Dup()

    def _wait(self, request: Any) -> None:
        """Until a call of all ranks is through here; if it never is, its memory is kept, which others may yet write to."""
        try:
            self._look_again(request)
        except BaseException:
            _kept.append(request)
            raise

    def _look_again(self, request: Any) -> None:
        spins, told = 0, 0.0
        while not request.Test():
            spins += 1
            if spins % SPINS == 0:
                time.sleep(0)
            if not self._side.Iprobe(source=self._mpi.ANY_SOURCE, tag=STOPPED):
                continue
            told = told or time.monotonic()
            if time.monotonic() - told > GRACE:
                status = self._mpi.Status()
                message = self._side.recv(source=self._mpi.ANY_SOURCE, tag=STOPPED, status=status)
                raise RankError(f"rank {status.Get_source()} of {self.size} has stopped by an error: {message}")

    def broadcast(self, value: Any) -> Any:
        """See `Communicator`."""
        return self._objects(value if self.rank == 0 else None, [0])[0]

    def share(self, value: Any) -> list[Any]:
        """See `Communicator`."""
        return self._objects(value, range(self.size))

    def _objects(self, value: Any, ranks: Sequence[int]) -> list[Any]:
        """What these ranks have, as pickles."""
        pickled = np.frombuffer(self._mpi.pickle.dumps(value), np.uint8)
        sizes = np.empty(self.size, np.int64)
        self._wait(self._comm.Iallgather(np.array([len(pickled)], np.int64), sizes))
        counts = [int(n) if r in ranks else 0 for r, n in enumerate(sizes)]
        every = self.gather(pickled if self.rank in ranks else pickled[:0], counts)
        ends = np.cumsum(counts)
        return [self._mpi.pickle.loads(every[ends[r] - counts[r] : ends[r]].tobytes()) for r in ranks]

    def gather(self, rows: NDArray, counts: Sequence[int], out: NDArray | None = None) -> NDArray:
        """See `Communicator`."""
        width = rows.dtype.itemsize * int(np.prod(rows.shape[1:], dtype=np.int64))
        result = np.empty((sum(counts), *rows.shape[1:]), rows.dtype) if out is None else out
        sizes = [n * width for n in counts]
        self._wait(self._comm.Iallgatherv([_bytes(rows), self._mpi.BYTE], [_bytes(result), sizes, None, self._mpi.BYTE]))
        return result

    def exchange(
        self, rows: NDArray, sent: Sequence[int], received: Sequence[int], out: NDArray | None = None
    ) -> NDArray:  # fmt: skip
        """See `Communicator`."""
        width = rows.dtype.itemsize * int(np.prod(rows.shape[1:], dtype=np.int64))
        result = np.empty((sum(received), *rows.shape[1:]), rows.dtype) if out is None else out
        there, back = ([n * width for n in counts] for counts in (sent, received))
        self._wait(self._comm.Ialltoallv([_bytes(rows), there, None, self._mpi.BYTE],
                                         [_bytes(result), back, None, self._mpi.BYTE]))  # fmt: skip
        return result

    def sum(self, values: NDArray) -> NDArray:
        """See `Communicator`."""
        values, result = np.ascontiguousarray(values), np.empty(values.shape, values.dtype)
        self._wait(self._comm.Iallreduce(values, result, self._mpi.SUM))
        return result

    @contextmanager
    def together(self) -> Iterator[None]:
        """See `Communicator`.  Ranks on the same CPUs share them out, and rank 0 alone warns."""
        try:
            mine = self._share_of_cpus()
            with warnings.catch_warnings(), at_most_threads(mine):
                if self.rank:
                    warnings.simplefilter("ignore", UserWarning)
                yield
            self._wait(self._comm.Ibarrier())  # what comes after an error here would be nobody's
        except BaseException as error:
            if not isinstance(error, RankError):
                message = f"{type(error).__name__}: {error}"
                _kept.extend(self._side.isend(message, r, STOPPED) for r in range(self.size) if r != self.rank)
            raise
        self._comm.Free()
        self._side.Free()

    def _share_of_cpus(self) -> int:
        """Threads for this rank: the CPUs that it may use, over the ranks of the same machine that may use the same."""
        cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [-1]
        threads = default_num_threads()
        if os.environ.get("NPFLOWS_NUM_THREADS"):
            self.share(None)
            return threads
        places = self.share((self._mpi.Get_processor_name(), cpus))
        return max(1, threads // places.count(places[self.rank]))


def _bytes(array: NDArray) -> NDArray:
    """The memory of an array as bytes; a copy where it isn't contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def as_communicator(comm: Any) -> Communicator:
    """The ranks of an mpi4py communicator.

    Raises
    ------
    TypeError
        If it is something else.
    ImportError
        If mpi4py is missing.
    """
    mpi = required("mpi4py.MPI", "comm=", "mpi4py and an MPI", "pip install 'npflows[mpi]'")
    if not isinstance(comm, mpi.Intracomm) or comm == mpi.COMM_NULL:
        raise TypeError(f"comm must be a communicator of mpi4py, MPI.COMM_WORLD for instance, got {comm!r}")
    return MpiCommunicator(comm, mpi)


Fit = TypeVar("Fit", bound=Callable[..., Any])


def among_ranks(fit: Fit) -> Fit:
    """A function that takes `comm`, a communicator of mpi4py or None, from one that takes a `Communicator`, and whose ranks
    all end together."""

    @functools.wraps(fit)
    def together(*arguments: Any, comm: Any = None, **options: Any) -> Any:
        if comm is None:
            return fit(*arguments, **options)
        ranks = as_communicator(comm)
        with ranks.together():
            return fit(*arguments, comm=ranks, **options)

    return cast(Fit, together)
