"""Arrays of CuPy, PyTorch, JAX and others on the GPU, which go in and come out where they lie.

Work runs on the caller's own stream where it is known: ``__cuda_array_interface__`` names it, as CuPy's and Numba's arrays
do, and PyTorch is asked.  What runs next on that stream finds the results ready; another one that they are handed to waits
on the GPU.  Where it is not known, work runs on CUDA's legacy default stream, and results are finished when they are given.
On either, what a caller's library has begun on an array is waited for on the GPU: DLPack is told the stream that is used
here, and ``__cuda_array_interface__`` names the one to wait for.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cuda import device
from npflows.backends.cuda.device import (
    LEGACY,
    SIMULATED,
    current_device,
    current_stream,
    free_memory,
    on,
    recorded_event,
    require_device,
    to_device,
    to_host,
    view,
    wait,
    wait_on,
)
from npflows.core.gpu_arrays import is_on_gpu

SHARE = 0.25
"""The share of the free memory that a table may take."""
TAKEN = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")
"""The dtypes of arrays that are taken."""


class GpuArray:
    """Numbers on the GPU, for `cupy.asarray`, `torch.from_dlpack`, `jax.numpy.from_dlpack` and others; NumPy gets a copy.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    ndim : int
    """

    def __init__(self, array: Any, stream: int | None = None, done: Any = None) -> None:
        self._array, self._stream, self._done = array, stream, done
        self.shape, self.dtype = tuple(array.shape), np.dtype(array.dtype)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"GpuArray(shape={self.shape}, dtype={self.dtype})"

    def get(self) -> NDArray:
        """A copy as an array of NumPy."""
        require_device()
        with on():
            wait_on(current_stream(), self._done)
            return to_host(self._array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        if copy is False:
            raise ValueError("an array on a GPU can't become one of NumPy without a copy")
        return np.asarray(self.get(), dtype)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, current_device()

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
        """The numbers for another library, whose stream waits for them on the GPU; -1 for one that does so itself."""
        require_device()
        if stream != -1 and (stream or LEGACY) != self._stream:
            wait_on(stream or LEGACY, self._done)
        return device.driver.to_dlpack(self._array, **options)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**device.driver.interface_of(self._array), "version": 3, "stream": self._stream}


def take(values: Any, name: str) -> Any:
    """An array of the host, or one of another library on this GPU, as one of this backend; see `TakesGpuArrays.take`."""
    if not is_on_gpu(values):
        with on():
            return to_device(np.asarray(values, np.float64))
    array = _taken(values, name)
    if array.dtype.str[1:] not in TAKEN:
        raise TypeError(f"{name} on a GPU must hold float32, float64 or whole numbers, got {array.dtype}: convert it there")
    return array


def own(values: Any) -> Any:
    """The array of this backend that a result is; everything else as it is."""
    return values._array if isinstance(values, GpuArray) else values


def fetch(values: Any) -> NDArray:
    """A copy on the host; `hold` knows which array of the GPU it is a copy of."""
    with on():
        array = _taken(values, "an array") if is_on_gpu(values) else values
        copy = np.array(to_host(array))
    _fetched[id(copy)] = array
    weakref.finalize(copy, _fetched.pop, id(copy), None)
    return copy


_fetched: dict[int, Any] = {}
"""Arrays of the GPU that have copies on the host, by the identities of these."""


def hold(table: NDArray) -> Any:
    """A table (n, d) of the host on the GPU, that which it was fetched from if it was; see `TakesGpuArrays.hold`."""
    found = _fetched.get(id(table))
    if found is not None:
        return found
    if table.dtype.str[1:] not in TAKEN or table.nbytes > SHARE * free_memory():
        return None
    with on():
        return to_device(table)


def give(array: Any, stream: int | None) -> GpuArray:
    """An array of this backend, or of the host, for the user; see `TakesGpuArrays.give`."""
    with on():
        if isinstance(array, np.ndarray):
            array = to_device(array)
        if stream is None:
            wait()
            return GpuArray(array)
        return GpuArray(array, stream, recorded_event())


@contextlib.contextmanager
def on_stream_of(*values: Any) -> Iterator[int | None]:
    """Work on the stream of the first array whose stream is known, which is given; see `TakesGpuArrays.on_stream_of`."""
    require_device()
    streams = [_stream_of(one) for one in values if is_on_gpu(one)]
    known = next((stream for stream in streams if stream is not None), None)
    with on(known):
        yield None if None in streams else known


def _stream_of(values: Any) -> int | None:
    """The number of the stream that an array's library works on; None where nothing says it."""
    if isinstance(values, GpuArray):
        return values._stream
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        return torch.cuda.current_stream(values.device).cuda_stream or LEGACY
    interface = getattr(values, "__cuda_array_interface__", None) or {}
    return interface.get("stream") or None


def _taken(values: Any, name: str) -> Any:
    """An array on this GPU as one of this backend, of any dtype and strides."""
    require_device()
    if SIMULATED and not hasattr(values, "__dlpack__"):
        own = values.__cuda_array_interface__
        dtype, shape = np.dtype(own["typestr"]), tuple(own["shape"])
        strides = own.get("strides") or np.empty(shape, dtype).strides
        return view(own["data"][0], shape, strides, dtype, values)
    views = importlib.import_module("cuda.core.utils").StridedMemoryView
    found = views.from_any_interface(values, stream_ptr=current_stream())
    if found.is_device_accessible and found.device_id not in (current_device(), -1):
        raise ValueError(
            f"{name} is on GPU {found.device_id}, and the flow runs on GPU {current_device()}: copy it there, or choose "
            f"the GPU with CUDA_VISIBLE_DEVICES"
        )
    dtype, shape = np.dtype(found.dtype), tuple(found.shape)
    strides = np.empty(shape, np.int8).strides if found.strides is None else found.strides
    return view(found.ptr, shape, tuple(step * dtype.itemsize for step in strides), dtype, (values, found))
