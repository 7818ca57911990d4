"""Maximum likelihood on several ranks: each has some of the rows, and computes some of the gradient.

How a batch is dealt to gradient buffers follows from the batch alone.  Each rank owns some of the buffers: the rows that
belong to them travel to it, and it adds its buffers up as far as it can without the others'.  The sums are then added up as
in one process (core/tree.py), each rank a part of the parameters, and all ranks take the same step.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from npflows.core.backend import Divisible, Executable, Share
from npflows.core.checks import warn_user
from npflows.core.tree import add_up
from npflows.distribution.transformed import TransformedDistribution
from npflows.training.communicator import Communicator, cuts, lengths
from npflows.training.likelihood import LikelihoodTrainer, Losses
from npflows.training.rows import Rows
from npflows.training.run import Run
from npflows.training.sharing import SharedTable, checksum


class Drawn:
    """A generator that draws for all rows of a batch, and gives what is for some of them.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
        All rows.
    start, stop : int
        The rows that are here.
    """

    def __init__(self, rng: np.random.Generator, n: int, start: int, stop: int) -> None:
        self._rng, self._n, self._part = rng, n, slice(start, stop)

    def uniform(self, low: float, high: float, size: tuple[int, ...]) -> NDArray[np.float64]:
        """Uniform numbers, an array of as many rows as are here."""
        return self._rng.uniform(low, high, (self._n, *size[1:]))[self._part]


class SharedGradient:
    """The gradient of batches that ranks compute together.

    Parameters
    ----------
    comm : Communicator
    exact : bool
        Whether buffers are added up in the order of one process, so that the bits are the same.
    sizes : dict of int to int
        Gradient buffers of a batch of so many samples.
    theta : ndarray (p,)
        The parameters.
    """

    def __init__(self, comm: Communicator, exact: bool, sizes: dict[int, int], theta: NDArray) -> None:
        self.comm, self.exact, self._sizes = comm, exact, sizes
        self._owned = {count: cuts(count, comm.size) for count in sizes.values()}
        self._sums = {k: [sums_left(*part, k) for part in itertools.pairwise(owned)] for k, owned in self._owned.items()}
        self._parts = cuts(theta.size, comm.size)
        most, width = max(lengths(owned)[comm.rank] for owned in self._owned.values()), lengths(self._parts)[comm.rank]
        self._memory = np.zeros((most, theta.size), theta.dtype)
        self._packed = np.zeros(max(len(sums[comm.rank]) for sums in self._sums.values()) * theta.size, theta.dtype)
        self._found = np.zeros(max(sum(map(len, sums)) for sums in self._sums.values()) * width, theta.dtype)
        self._summed = np.zeros(theta.size, theta.dtype)

    def places(self, executable: Executable, n: int) -> list[int]:
        """Where a batch of n samples is cut: rank r computes the gradient of those from places[r] to places[r + 1]."""
        assert isinstance(executable, Divisible)
        count = self._sizes[n]
        return [executable.buffer_rows(n, count, first) for first in self._owned[count]]

    def share(self, n: int) -> Share:
        """What of a batch of n samples is computed here."""
        count = self._sizes[n]
        return Share(n, self._owned[count][self.comm.rank], count)

    def buffers(self, n: int) -> NDArray:
        """The buffers (k, p) of this rank for a batch of n samples."""
        return self._memory[: lengths(self._owned[self._sizes[n]])[self.comm.rank]]

    def sum(self, n: int) -> NDArray:
        """The gradient (1, p) of a batch of n samples, from the buffers of all ranks, which are used up."""
        mine, comm, count = self.buffers(n), self.comm, self._sizes[n]
        if not self.exact:
            return comm.sum(mine.sum(axis=0))[None]
        first, stop = self._owned[count][comm.rank : comm.rank + 2]
        sums = list(add_up(dict(zip(range(first, stop), mine, strict=True)), stop, count).values())
        every, widths = self._sums[count], lengths(self._parts)
        width, at = widths[comm.rank], 0
        for (a, b), values in itertools.product(itertools.pairwise(self._parts), sums):
            self._packed[at : at + b - a] = values[a:b]
            at += b - a
        numbers = [number for theirs in every for number in theirs]
        found = self._found[: len(numbers) * width]
        comm.exchange(self._packed[:at], [len(sums) * w for w in widths], [len(theirs) * width for theirs in every], found)
        total = add_up(dict(zip(numbers, found.reshape(len(numbers), width), strict=True)), count, count)[0]
        return comm.gather(total, widths, self._summed)[None]


def sums_left(first: int, stop: int, count: int) -> list[int]:
    """Which sums are left of the buffers from `first` to `stop` of so many, by the number of their first one."""
    return list(add_up({number: np.zeros(0) for number in range(first, stop)}, stop, count))


def buffer_counts(flow: TransformedDistribution, sizes: set[int]) -> dict[int, int]:
    """The gradient buffers of batches of these sizes.

    Raises
    ------
    NotImplementedError
        If the backend can't share out gradients.
    """
    executable = flow.executable()
    if not isinstance(executable, Divisible):
        raise NotImplementedError("comm= needs flows on the CPU: take flow.to('cpu')")
    return {n: executable.buffer_count(n, flow.parameters.theta.nbytes) for n in sizes}


def same_parameters(run: Run, comm: Communicator) -> None:
    """Give all ranks the parameters of the first one, where processors of other kinds have rounded them differently."""
    arrays = (run.theta, run.average, run.best, run.optimizer.m, run.optimizer.v)
    sums = comm.share(checksum(*arrays))
    if len(set(sums)) == 1:
        return
    for array in arrays:
        array[:] = comm.broadcast(array)
    warn_user(
        "the ranks' processors round differently, so that their parameters came apart and are now those of rank 0: the "
        "bits are not those of one process"
    )


class SharedTrainer(LikelihoodTrainer):
    """An epoch is a pass through the rows of all ranks.

    Parameters
    ----------
    train, validation : Rows
        Their tables are shared ones.
    comm : Communicator
    exact : bool
        See `SharedGradient`.
    options
        As in `LikelihoodTrainer`.
    """

    def __init__(
        self,
        flow: TransformedDistribution,
        train: Rows,
        validation: Rows | None,
        *,
        comm: Communicator,
        exact: bool,
        **options: Any,
    ) -> None:
        self.comm = comm
        self._kept: tuple[Rows, NDArray, NDArray | None] | None = None
        super().__init__(flow, train, validation, **options)
        self._shared = SharedGradient(comm, exact, buffer_counts(flow, self.batch_sizes()), self.theta)

    def take(self, batch: NDArray, dropout: float | None) -> tuple[NDArray, NDArray | None, NDArray | None]:
        """The rows whose gradients are computed here, with their conditions; the weights of all."""
        places = self._shared.places(self.flow.executable(dropout=dropout), len(batch))
        x, condition = self._deal(self.train, batch, places, self.rng, self.rng)
        weight = None if self.train.weight is None else self.train.weight[self.train.index[batch]]
        return x, weight, condition

    def accumulate(
        self, x: NDArray, condition: NDArray | None, dlog: NDArray, log_prob: NDArray, dropout: float | None
    ) -> None:
        """See `LikelihoodTrainer.accumulate`; the log-densities are those of the whole batch."""
        n, rank = len(dlog), self.comm.rank
        places = self._shared.places(self.flow.executable(dropout=dropout), n)
        start, stop = places[rank], places[rank + 1]
        mine = np.empty(stop - start)
        if stop > start:
            self.flow.accumulate(x, condition, dlog[start:stop], self._shared.buffers(n), log_prob=mine, key=self.step + 1,
                                 dropout=dropout, origin=start, share=self._shared.share(n))  # fmt: skip
        log_prob[:] = self.comm.gather(mine, lengths(places))

    def gradient(self, n: int) -> NDArray:
        return self._shared.sum(n)

    def run_round(self) -> dict[str, float]:
        record = super().run_round()
        same_parameters(self, self.comm)
        return record

    def begin(self) -> None:
        same_parameters(self, self.comm)
        super().begin()

    def _losses(self, theta: NDArray, rows: Rows) -> Iterator[Losses]:
        places = cuts(len(rows), self.comm.size)
        x, condition = self._own(rows, places)
        log_prob = self.flow.transport(x, condition, theta, y=False, log_det=False, log_prob=True).log_prob
        losses = self.comm.gather(-log_prob, lengths(places))
        for start in range(0, len(rows), rows.at_once):
            piece = slice(start, start + rows.at_once)
            yield losses[piece], None if rows.weight is None else rows.weight[rows.index[piece]]

    def _own(self, rows: Rows, places: list[int]) -> tuple[NDArray, NDArray | None]:
        """The rows whose losses are computed here, with their conditions; those to validate with stay here."""
        if self._kept is not None and self._kept[0] is rows:
            return self._kept[1:]
        generator = np.random.default_rng(0)  # as in one process, piece by piece
        parts = []
        for start in range(0, len(rows), rows.at_once):
            stop = min(start + rows.at_once, len(rows))
            within = [min(max(place, start), stop) - start for place in places]
            parts.append(self._deal(rows, np.arange(start, stop), within, None, generator))
        x = np.concatenate([part[0] for part in parts])
        conditions = [part[1] for part in parts if part[1] is not None]
        found = rows, x, np.concatenate(conditions) if conditions else None
        if rows is self.validation:
            self._kept = found
        return found[1:]

    def _deal(
        self,
        rows: Rows,
        which: NDArray,
        places: list[int],
        filling: np.random.Generator | None,
        scattering: np.random.Generator,
    ) -> tuple[NDArray, NDArray | None]:
        """Those of some rows, by their place in `index`, that belong here, and their conditions; each generator draws what
        it draws in one process, for all of them."""
        numbers = rows.index[which]
        n, start, stop = len(numbers), places[self.comm.rank], places[self.comm.rank + 1]
        assert isinstance(rows.x, SharedTable)
        x = rows.x.deal(numbers, places)
        if rows.missing is not None:
            before, after = np.searchsorted(rows.missing.find(numbers)[0], [start, stop])
            drawn = rows.missing.draw(numbers, filling)
            x = rows.missing.fill(x, numbers[start:stop], None if drawn is None else drawn[before:after])
        x = self.flow.preprocessing.scatter(x, cast(np.random.Generator, Drawn(scattering, n, start, stop)))
        if rows.condition is None:
            return x, None
        assert isinstance(rows.condition, SharedTable)
        return x, rows.condition.deal(numbers, places)
