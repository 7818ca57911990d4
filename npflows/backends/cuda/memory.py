"""Arrays on the GPU that are used again and again, and copies of arrays of the host that are made when these change."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cuda.device import empty, to_device

MOST_VIEWS = 1000
"""Views that are kept, as the host takes longer to make one than to launch a kernel."""


class Gradient:
    """A gradient that stays on the GPU, between the program that adds it up and the optimizer that reads it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.array: Any = None


class Memory:
    """Arrays by name, whose memory grows to what was ever wanted; nothing of it is pickled."""

    _copies: ClassVar[dict[str, tuple[NDArray, Any]]] = {}  # programs and optimizers share parameters

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, np.dtype], Any] = {}
        self._views: dict[tuple[Any, ...], Any] = {}

    def block(self, name: str, rows: int, lanes: int, dtype: Any) -> Any:
        """A block (rows, lanes) of any numbers, of one row at least; a name has one block at a time, of which one with
        fewer rows is the beginning."""
        rows = max(rows, 1)
        view = name, np.dtype(dtype), rows, lanes
        if view not in self._views:
            self._views[view] = self._flat(name, rows * lanes, np.dtype(dtype)).reshape(rows, lanes)
        return self._views[view]

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
        return self._arrays[key][:size]

    def resident(self, name: str, array: NDArray) -> Any:
        """A copy of an array of the host, made anew only where its numbers are others."""
        known = self._copies.get(name)
        if known is None or not _same_bits(known[0], array):
            self._copies[name] = known = array.copy(), to_device(array)
        return known[1]

    def taken(self, name: str, array: NDArray) -> Any:
        """Such a copy for the caller alone, who changes it."""
        copy = self.resident(name, array)
        self._copies.pop(name, None)
        return copy

    def keep(self, name: str, array: NDArray, copy: Any) -> None:
        """Bring a copy's numbers into the array of the host, and know that they are the same."""
        array[:] = copy.copy_to_host()
        self._copies[name] = array.copy(), copy


def _same_bits(a: NDArray, b: NDArray) -> bool:
    same_kind = a.shape == b.shape and a.dtype == b.dtype
    return same_kind and np.array_equal(a.reshape(-1).view(np.uint8), b.reshape(-1).view(np.uint8))
