"""Tables whose rows lie on several ranks, and what these must have in common."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows._version import __version__
from npflows.core.checks import as_numeric, as_vector
from npflows.core.tables import Headers
from npflows.distribution.transformed import TransformedDistribution
from npflows.training.communicator import Communicator, lengths

LONGEST = 60
"""Characters of a value that a message shows."""


class SharedTable:
    """A table whose rows lie on the ranks, one rank's after the other's, and which is read by their numbers like an array.

    Parameters
    ----------
    shard : ndarray (n, ...)
        The rows of this rank; the others have others, of the same shape and dtype otherwise.
    comm : Communicator

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    shard : ndarray (n, ...)
    starts : ndarray of int (size + 1,)
        The number of the first row of each rank, and that of all rows.
    """

    def __init__(self, shard: NDArray, comm: Communicator) -> None:
        self.shard, self._comm = shard, comm
        self.starts = np.append(0, np.cumsum(comm.share(len(shard))))
        self.shape, self.dtype = (int(self.starts[-1]), *shard.shape[1:]), shard.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray:
        return np.asarray(self[:], dtype)

    def __getitem__(self, which: NDArray[np.intp] | slice) -> NDArray:
        """Rows by their numbers, the same on all ranks; collective."""
        numbers = np.arange(*which.indices(len(self))) if isinstance(which, slice) else which
        owners = self._owners(numbers)
        mine = self._mine(numbers[owners == self._comm.rank])
        return _in_order(self._comm.gather(mine, np.bincount(owners, minlength=self._comm.size).tolist()), owners)

    def deal(self, numbers: NDArray[np.intp], places: Sequence[int]) -> NDArray:
        """The rows with these numbers from places[rank] to places[rank + 1]; collective."""
        rank, size = self._comm.rank, self._comm.size
        mine = np.flatnonzero((numbers >= self.starts[rank]) & (numbers < self.starts[rank + 1]))
        owners = self._owners(numbers[places[rank] : places[rank + 1]])
        found = self._comm.exchange(self._mine(numbers[mine]), lengths(np.searchsorted(mine, places)),
                                    np.bincount(owners, minlength=size).tolist())  # fmt: skip
        return _in_order(found, owners)

    @property
    def mine(self) -> tuple[int, int]:
        """The number of the first row here, and of that after the last."""
        rank = self._comm.rank
        return int(self.starts[rank]), int(self.starts[rank + 1])

    def joined(self, values: NDArray) -> NDArray:
        """Values of some rows of each rank, those of one after those of the other; collective."""
        return self._comm.gather(values, self._comm.share(len(values)))

    def _owners(self, numbers: NDArray[np.intp]) -> NDArray[np.uint16]:
        """The ranks of rows; small numbers are sorted by their digits."""
        return (np.searchsorted(self.starts, numbers, side="right") - 1).astype(np.uint16)

    def _mine(self, numbers: NDArray[np.intp]) -> NDArray:
        places = numbers - self.starts[self._comm.rank]
        return self.shard.take(places, axis=0) if self.shard.flags.c_contiguous else self.shard[places]


def _in_order(found: NDArray, owners: NDArray[np.uint16]) -> NDArray:
    """Rows that came rank after rank in the order in which they were asked for."""
    result = np.empty_like(found)
    result[np.argsort(owners, kind="stable")] = found
    return result


def all_weights(values: ArrayLike | None, n: int, name: str, comm: Communicator) -> NDArray | None:
    """The weights of the rows of all ranks, from those of the n rows here."""
    if values is None or comm.size == 1:
        return None if values is None else np.asarray(values)
    weights = as_numeric(values, name).astype(np.float64)
    if weights.shape != (n,):
        as_vector(np.empty(0) if weights.ndim == 0 else weights, n, name)
    return comm.gather(weights, comm.share(n))


def agree(comm: Communicator, facts: Mapping[str, Any]) -> None:
    """Refuse ranks that have different values of some facts.

    Raises
    ------
    ValueError
        On every rank, with the name of what differs.
    """
    if comm.size == 1:
        return
    every = comm.share(dict(facts))
    for (rank, theirs), name in itertools.product(enumerate(every), every[0]):
        ours = every[0][name]
        if repr(theirs[name]) != repr(ours) and not np.array_equal(theirs[name], ours):  # NaN is no other than NaN
            raise ValueError(
                f"the ranks disagree in {name}: {_shown(ours)} on rank 0, {_shown(theirs[name])} on rank {rank}; give all "
                f"of them the same"
            )


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def facts_of_flow(flow: TransformedDistribution) -> dict[str, Any]:
    """What flows on several ranks must have in common."""
    arguments = json.loads(json.dumps(flow.arguments, default=str))
    return {
        "the version of npflows": __version__,
        "the kind of the flow": type(flow).__name__,
        **{f"the flow's {name}": value for name, value in arguments.items()},
        "the flow's dtype": flow.dtype.name,
        "the flow's parameters (make it with the same rng)": checksum(flow.parameters.theta),
        "the flow's standardization": checksum(*flow.state()[1:]),
    }


def facts_of_table(x: NDArray, condition: NDArray | None, headers: Headers, name: str) -> dict[str, Any]:
    """What the tables of several ranks must have in common."""
    return {
        f"the dtype of {name}": x.dtype.name,
        f"the condition of {name}": None if condition is None else condition.dtype.name,
        f"the columns of {name}": headers.x.labels,
        f"the condition's columns of {name}": headers.condition.labels,
    }


def facts_of_generator(rng: Any) -> Any:
    """What tells apart what a rank draws from what others do; None where it is to be drawn itself."""
    if isinstance(rng, np.random.Generator):
        return json.dumps(rng.bit_generator.state, default=lambda value: np.asarray(value).tolist())
    return rng if rng is None else int(rng)


def checksum(*arrays: NDArray) -> str:
    """A word that tells arrays apart."""
    total = 0
    for array in arrays:
        total = zlib.crc32(np.ascontiguousarray(array).data, total)
    return f"checksum {total:08x}"
