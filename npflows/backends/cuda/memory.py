"""Arrays on the GPU that are used again and again, and copies of arrays of the host that are made when these change."""

from __future__ import annotations

import weakref
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cuda.device import copy, empty, to_device
from npflows.backends.cuda.products import LANES

MOST_VIEWS = 1000
"""Views that are kept, as the host takes longer to make one than to launch a kernel."""


def whole(n: int) -> int:
    """n, or more: the threads of whole blocks of threads that multiply together."""
    return -(-n // LANES) * LANES


class Gradient:
    """A gradient that stays on the GPU, between the program that adds it up and the optimizer that reads it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.array: Any = None

    def take_memory(self, dtype: np.dtype) -> None:
        """Have an array, of any numbers the first time."""
        if self.array is None:
            self.array = empty(self.size, dtype)


class Twin:
    """An array of the host, and one on the GPU that lies at the same place all the time: one of them has the newer numbers.

    Programs that are given the array of the host find its twin as long as this object is there.

    Parameters
    ----------
    array : ndarray
        Where the GPU's is ahead of it, it has old numbers, and what is written into it is lost: `follow` before.
    """

    _known: ClassVar[weakref.WeakValueDictionary[int, Twin]] = weakref.WeakValueDictionary()

    def __init__(self, array: NDArray) -> None:
        self.array = array
        self._sent = array.copy()
        self._on_gpu: Any = None
        self.is_ahead = False
        """Whether the newer numbers are on the GPU."""
        self._known[id(array)] = self

    @classmethod
    def of(cls, array: NDArray) -> Twin | None:
        """That of an array, if it has one."""
        twin = cls._known.get(id(array))
        return twin if twin is not None and twin.array is array else None

    def current(self) -> Any:
        """The array on the GPU, with the newer numbers."""
        if self._on_gpu is None:
            self._on_gpu = to_device(self.array)
        elif not self.is_ahead and not _same_bits(self._sent, self.array):
            copy(self.array, self._on_gpu)
        else:
            return self._on_gpu
        self._sent[:] = self.array
        return self._on_gpu

    def lead(self) -> Any:
        """The array on the GPU, for the caller to change."""
        on_gpu = self.current()
        self.is_ahead = True
        return on_gpu

    def follow(self) -> None:
        """Bring the numbers to the host, if the GPU is ahead."""
        if self.is_ahead:
            self.is_ahead = False  # first: where the copy fails the host's count
            copy(self._on_gpu, self.array)
            self._sent[:] = self.array


class Memory:
    """Arrays by name, whose memory grows to what was ever wanted; nothing of it is pickled."""

    _copies: ClassVar[dict[str, tuple[NDArray, Any]]] = {}  # programs and optimizers share parameters

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, np.dtype], Any] = {}
        self._views: dict[tuple[Any, ...], Any] = {}
        self.generation = object()
        """Another object each time that memory is taken anew, so that an array may lie elsewhere than before."""

    def block(self, name: str, rows: int, lanes: int, dtype: Any) -> Any:
        """A block (rows, lanes) of any numbers, of one row at least; a name has one block at a time, of which one with
        fewer rows is the beginning."""
        rows = max(rows, 1)
        view = name, np.dtype(dtype), rows, lanes
        if view not in self._views:
            self._views[view] = self._flat(name, rows * lanes, np.dtype(dtype)).reshape(rows, lanes)
        return self._views[view]

    def lanes(self, name: str, rows: int, n: int, dtype: Any) -> Any:
        """A block with a lane for each of n samples, and more that make blocks of threads whole."""
        return self.block(name, rows, whole(n), dtype)

    def vector(self, name: str, size: int, dtype: Any) -> Any:
        """A vector of any numbers, in the same way."""
        view = name, np.dtype(dtype), size
        if view not in self._views:
            self._views[view] = self._flat(name, size, np.dtype(dtype))
        return self._views[view]

    def _flat(self, name: str, size: int, dtype: np.dtype) -> Any:
        """The first numbers of a name's memory; where that grows, views of what it was are given out no more."""
        key, large = (name, dtype), len(self._views) >= MOST_VIEWS
        grows = key not in self._arrays or self._arrays[key].size < size
        if grows or large:
            self._views = {} if large else {view: one for view, one in self._views.items() if view[:2] != key}
        if grows:
            self._arrays.pop(key, None)
            self._arrays[key] = empty(size, dtype)
            self.generation = object()
        return self._arrays[key][:size]

    def resident(self, name: str, array: NDArray) -> Any:
        """A copy of an array of the host, made anew only where its numbers are others; the twin of one that has one."""
        twin = Twin.of(array)
        if twin is not None:
            return twin.current()
        known = self._copies.get(name)
        if known is None or not _same_bits(known[0], array):
            self._copies[name] = known = array.copy(), to_device(array)
        return known[1]


def _same_bits(a: NDArray, b: NDArray) -> bool:
    same_kind = a.shape == b.shape and a.dtype == b.dtype
    return same_kind and np.array_equal(a.reshape(-1).view(np.uint8), b.reshape(-1).view(np.uint8))
