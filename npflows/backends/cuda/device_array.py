"""Arrays in a GPU's memory, and how kernels take them."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

FIELDS = ("meminfo", "parent", "nitems", "itemsize", "data", "shape", "strides")
"""What numba.cuda calls the fields of an array."""


def strides_of(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Bytes between the entries of an array in C order."""
    strides, step = [], itemsize
    for extent in reversed(shape):
        strides.append(step)
        step *= max(extent, 1)
    return tuple(reversed(strides))


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Whether entries lie side by side, the last axis being the innermost one; where there is one entry its step is any."""
    step = itemsize
    for extent, stride in zip(reversed(shape), reversed(strides)):
        if extent != 1 and stride != step:
            return False
        step *= extent
    return True


@functools.cache
def _name(dtype: np.dtype) -> str:
    return dtype.name  # which takes longer than all else of an array


class DeviceArray:
    """An array in a GPU's memory; it is not read or written here.

    Attributes
    ----------
    pointer : int
    shape, strides : tuple of int
        Strides are in bytes.
    dtype : numpy.dtype
    owner : object
        What keeps the memory as long as the array is there.
    size, ndim, nbytes : int
    kind : str
        The array's type for kernels: its dtype, the number of its axes, and its layout, C, F or any (A).
    fields : tuple of int
        What a kernel gets of it (`FIELDS`): nothing, twice, as no references are counted here; the number of entries,
        bytes of an entry, the pointer, shape, strides.
    """

    __slots__ = ("dtype", "fields", "kind", "nbytes", "ndim", "owner", "pointer", "shape", "size", "strides")

    def __init__(
        self, pointer: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype, owner: Any
    ) -> None:  # fmt: skip
        self.pointer, self.shape, self.strides, self.dtype, self.owner = pointer, shape, strides, dtype, owner
        self.ndim, self.size, itemsize = len(shape), math.prod(shape), dtype.itemsize
        self.nbytes = self.size * itemsize
        if self.size == 0 or _contiguous(shape, strides, itemsize):
            layout = "C"
        else:
            layout = "F" if _contiguous(shape[::-1], strides[::-1], itemsize) else "A"
        self.kind = f"{_name(dtype)} {self.ndim}{layout}"
        self.fields = (0, 0, self.size, itemsize, pointer, *shape, *strides)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype})"

    def __getitem__(self, rows: slice) -> DeviceArray:
        """Some rows, one after the other."""
        first, last, step = rows.indices(self.shape[0])
        if step != 1:
            raise IndexError("of an array on the GPU only rows that follow each other can be taken")
        shape = (max(last - first, 0), *self.shape[1:])
        return DeviceArray(self.pointer + first * self.strides[0], shape, self.strides, self.dtype, self.owner)

    def reshape(self, *shape: int) -> DeviceArray:
        """The same entries in another shape; where there are gaps between them, axes of one entry may come and go."""
        strides = strides_of(shape, self.dtype.itemsize)
        if math.prod(shape) != self.size:
            raise ValueError(f"an array of shape {self.shape} can't have the shape {shape}")
        if not self.is_c_contiguous():
            long = [(extent, stride) for extent, stride in zip(self.shape, self.strides) if extent != 1]
            if [extent for extent, _ in long] != [extent for extent in shape if extent != 1]:
                raise ValueError(f"an array of shape {self.shape} with gaps can't have the shape {shape}")
            strides = tuple(long.pop(0)[1] if extent != 1 else step for extent, step in zip(shape, strides))
        return DeviceArray(self.pointer, shape, strides, self.dtype, self.owner)

    def is_c_contiguous(self) -> bool:
        """Whether the entries lie side by side in C order."""
        return self.kind.endswith("C")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        strides = None if self.is_c_contiguous() else self.strides
        return {"shape": self.shape, "strides": strides, "typestr": self.dtype.str, "data": (self.pointer, False),
                "version": 3, "stream": None}  # fmt: skip
