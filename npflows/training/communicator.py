"""How the processes of a fit talk to each other: a small interface, and the case of a process that is alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Communicator(Protocol):
    """Processes, the ranks, that take every step of a fit together.

    All methods but `rank` and `size` are collective: every rank calls the same ones in the same order.
    """

    rank: int
    """The number of this process, from 0."""
    size: int
    """The number of processes."""

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0."""

    def share(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order."""
        ...

    def gather(self, rows: NDArray, counts: Sequence[int], out: NDArray | None = None) -> NDArray:
        """The arrays of all ranks one after the other, of which that of rank r has counts[r] rows; in `out` where it is
        given, as memory that is new in every step costs more than what is written to it."""
        ...

    def exchange(
        self, rows: NDArray, sent: Sequence[int], received: Sequence[int], out: NDArray | None = None
    ) -> NDArray:  # fmt: skip
        """The rows that all ranks have for this one, one rank's after the other's.

        The first sent[0] of `rows` are for rank 0, the next sent[1] for rank 1, and so on; received[r] come from rank r.
        """
        ...

    def sum(self, values: NDArray) -> NDArray:
        """The sum of the arrays of all ranks, in an order of the library's own."""
        ...

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that all ranks leave together: where one leaves it by an error, so do the others, by one that says so."""
        yield


class Alone:
    """A single process."""

    rank, size = 0, 1

    def broadcast(self, value: Any) -> Any:
        return value

    def share(self, value: Any) -> list[Any]:
        return [value]

    def gather(self, rows: NDArray, counts: Sequence[int], out: NDArray | None = None) -> NDArray:
        return rows

    def exchange(
        self, rows: NDArray, sent: Sequence[int], received: Sequence[int], out: NDArray | None = None
    ) -> NDArray:  # fmt: skip
        return rows

    def sum(self, values: NDArray) -> NDArray:
        return values

    @contextmanager
    def together(self) -> Iterator[None]:
        yield


def cuts(n: int, size: int) -> list[int]:
    """Where n things are cut into `size` parts, about equal: part r goes from cuts[r] to cuts[r + 1]."""
    return [n * place // size for place in range(size + 1)]


def lengths(places: Sequence[int] | NDArray[np.intp]) -> list[int]:
    """The lengths of parts that are cut at these places."""
    return [int(stop - start) for start, stop in itertools.pairwise(places)]
