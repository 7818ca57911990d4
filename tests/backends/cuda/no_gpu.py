"""A GPU that is none, in place of gpu.py: its arrays have no memory, and nothing is launched."""

from __future__ import annotations

from typing import Any

import numpy as np

from npflows.backends.cuda.device_array import DeviceArray, strides_of


class NoGpu:
    """The functions of gpu.py."""

    @staticmethod
    def require() -> None: ...

    @staticmethod
    def capability() -> tuple[int, int]:
        return 8, 0

    @staticmethod
    def empty(shape: tuple[int, ...], dtype: np.dtype, stream: int) -> DeviceArray:
        return DeviceArray(0, shape, strides_of(shape, dtype.itemsize), dtype, None)

    @staticmethod
    def to_device(array: np.ndarray, stream: int) -> DeviceArray:
        return NoGpu.empty(array.shape, array.dtype, stream)

    @staticmethod
    def to_host(array: DeviceArray, stream: int) -> np.ndarray:
        return np.zeros(array.shape, array.dtype)

    @staticmethod
    def copy(source: Any, target: DeviceArray, stream: int) -> None: ...

    @staticmethod
    def record(stream: int) -> None: ...
