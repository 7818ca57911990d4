"""Arrays on the GPU that are used again and again, and copies of arrays of the host that are made when these change."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cuda.device import empty, to_device


class Memory:
    """Arrays by name, whose memory grows to what was ever wanted; nothing of it is pickled."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, np.dtype], Any] = {}
        self._copies: dict[str, tuple[NDArray, Any]] = {}

    def block(self, name: str, rows: int, lanes: int, dtype: Any) -> Any:
        """A block (rows, lanes) of any numbers, of one row at least; a name has one block at a time."""
        rows = max(rows, 1)
        size, key = rows * lanes, (name, np.dtype(dtype))
        if key not in self._arrays or self._arrays[key].size < size:
            self._arrays.pop(key, None)
            self._arrays[key] = empty(size, dtype)
        return self._arrays[key][:size].reshape(rows, lanes)

    def vector(self, name: str, size: int, dtype: Any) -> Any:
        """A vector of any numbers, in the same way."""
        return self.block(name, 1, size, dtype)[0]

    def resident(self, name: str, array: NDArray) -> Any:
        """A copy of an array of the host, made anew only where its numbers are others."""
        known = self._copies.get(name)
        if known is None or not _same_bits(known[0], array):
            self._copies[name] = known = array.copy(), to_device(array)
        return known[1]


def _same_bits(a: NDArray, b: NDArray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
