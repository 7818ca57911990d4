"""A GPU by cuda.core: kernels, memory, copies, streams and events.  simulator.py has the same functions."""

from __future__ import annotations

import functools
import importlib
import math
import re
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cuda import disk
from npflows.backends.cuda.arguments import flatten
from npflows.backends.cuda.compiler import WANTED, Kernel, lowest_capability, ptx_of
from npflows.backends.cuda.device_array import DeviceArray, strides_of
from npflows.core.errors import CudaError

try:
    core: Any = importlib.import_module("cuda.core")
    driver: Any = importlib.import_module("cuda.bindings.driver")
except Exception as error:  # as where numba.cuda can't be imported
    raise CudaError(f"{WANTED}; cuda.core can't be imported: {error}") from error

GRAPHS = True
"""Whether launches are recorded in CUDA graphs, not in lists."""
LEGACY, PER_THREAD = 1, 2
"""CUDA's default streams; on the first all memory is taken and given back."""
SHARED_FOR_ALL = 48 << 10
"""Bytes of shared memory that blocks may have without asking."""
TAKEN_AT_ONCE = 64 << 10
"""Bytes of the host that a driver copies for itself before it returns; larger arrays it may still read later."""
MOST_DROPPED, MOST_DROPPED_BYTES = 10, 1 << 28
"""Pieces of memory that nothing refers to, and their bytes, which are kept until they are given back together."""


class _State:
    """The GPU of this process, and memory that is to be given back."""

    def __init__(self) -> None:
        self.gpu: Any = None
        self.dropped: deque[Any] = deque()


_state = _State()


def require() -> None:
    """Make the GPU that of this thread: the one that was current when this process first asked, or the first."""
    if _state.gpu is None:
        found = core.Device()
        found.set_current()
        own, lowest = tuple(found.compute_capability), lowest_capability()
        if own < lowest:
            raise CudaError(f"{WANTED}; with the toolkit that is installed a GPU of compute capability {_dotted(lowest)} "
                            f"or higher, found {_dotted(own)}")  # fmt: skip
        _state.gpu = found
    _state.gpu.set_current()


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def capability() -> tuple[int, int]:
    """The GPU's compute capability."""
    major, minor = _state.gpu.compute_capability
    return major, minor


def current_device() -> int:
    """The number of the GPU."""
    return int(_state.gpu.device_id)


def free_memory() -> float:
    """Bytes of the GPU's memory that nothing uses."""
    return float(_checked(driver.cuMemGetInfo())[0])


def _checked(answer: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a function of the driver gives besides the error that it tells."""
    if int(answer[0]) != 0:
        raise RuntimeError(f"[{int(answer[0])}] {answer[0].name}")
    return answer[1:]


@functools.lru_cache(64)
def _stream(number: int) -> Any:
    """A stream by its number; whoever made it keeps it."""
    if number in (LEGACY, PER_THREAD):
        return core.LEGACY_DEFAULT_STREAM if number == LEGACY else core.PER_THREAD_DEFAULT_STREAM
    return core.Stream.from_handle(number)


@functools.lru_cache(1024)
def _config(blocks: int | tuple[int, ...], threads: int, shared_bytes: int) -> Any:
    return core.LaunchConfig(grid=blocks, block=threads, shmem_size=shared_bytes)


def launch(
    kernel: Kernel, blocks: int | tuple[int, ...], threads: int, stream: int, shared_bytes: int, arguments: tuple[Any, ...]
) -> None:  # fmt: skip
    """Launch a kernel, which is compiled for the kinds of its arguments or loaded from disk if it was not yet."""
    kinds, values = flatten(arguments)
    loaded = kernel.loaded.get(kinds)
    if loaded is None:
        loaded = kernel.loaded[kinds] = _Loaded(kernel, kinds)
    if shared_bytes > loaded.shared_bytes:
        loaded.allow(shared_bytes)
    core.launch(_stream(stream), _config(blocks, threads, shared_bytes), loaded.kernel, *values)


class _Loaded:
    """A kernel as machine code on the GPU.

    Attributes
    ----------
    kernel : cuda.core.Kernel
    shared_bytes : int
        Shared memory that its blocks may have.
    """

    def __init__(self, kernel: Kernel, kinds: tuple[str, ...]) -> None:
        own = capability()
        if own < kernel.capability:
            raise CudaError(f"this needs a GPU of compute capability {_dotted(kernel.capability)} or higher, found "
                            f"{_dotted(own)}: use flow.to('cpu')")  # fmt: skip
        file = disk.file_of(kernel.title, kinds, own)
        code = disk.read(file)
        if code is None:
            ptx = ptx_of(kernel, kinds)
            name = entry_of(ptx)
            try:
                cubin = linked(ptx, own)
            except Exception:  # a GPU newer than the toolkit: its driver may know
                self.kernel = core.ObjectCode.from_ptx(ptx.encode()).get_kernel(name)
            else:
                code = name.encode() + b"\0" + cubin
                disk.write(file, code)
        if code is not None:
            entry, _, cubin = code.partition(b"\0")
            self.kernel = core.ObjectCode.from_cubin(cubin).get_kernel(entry.decode())
        self.shared_bytes = SHARED_FOR_ALL

    def allow(self, shared_bytes: int) -> None:
        """Let blocks have more shared memory than those of all kernels may."""
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _checked(driver.cuKernelSetAttribute(attribute, shared_bytes, self.kernel.handle, current_device()))
        self.shared_bytes = shared_bytes


def entry_of(ptx: str) -> str:
    """The name of the kernel that PTX holds."""
    found = re.search(r"\.entry\s+([\w$]+)", ptx)
    assert found is not None
    return found[1]


def linked(ptx: str, capability: tuple[int, int]) -> bytes:
    """Machine code for a compute capability."""
    options = core.LinkerOptions(arch="sm_{}{}".format(*capability))
    return core.Linker(core.ObjectCode.from_ptx(ptx.encode()), options=options).link("cubin").code


class _Memory:
    """Memory of the GPU, which is kept when nothing refers to it any more until whatever runs is done: streams of others
    may still use it."""

    __slots__ = ("buffer",)

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer

    def __del__(self) -> None:
        if _state is not None:  # as it is when Python ends
            _state.dropped.append(self.buffer)


def _take(n_bytes: int) -> Any:
    """Memory, where there is some when all that was dropped is given back."""
    legacy = _stream(LEGACY)
    if len(_state.dropped) >= MOST_DROPPED or sum(one.size for one in tuple(_state.dropped)) > MOST_DROPPED_BYTES:
        _give_back()
    try:
        return _state.gpu.allocate(n_bytes, stream=legacy)
    except Exception:
        if not _state.dropped:
            raise
        _give_back()
        return _state.gpu.allocate(n_bytes, stream=legacy)


def _give_back() -> None:
    """Give back all memory that was dropped, when whatever runs is done."""
    count = len(_state.dropped)  # others may come while it waits
    _state.gpu.sync()
    for _ in range(count):
        _state.dropped.popleft().close(_stream(LEGACY))


def empty(shape: tuple[int, ...], dtype: np.dtype, stream: int) -> DeviceArray:
    """An array of any numbers, for a stream that waits for the memory."""
    size, pointer, owner = math.prod(shape) * dtype.itemsize, 0, None
    if size:
        buffer = _take(size)
        pointer, owner = int(buffer.handle), _Memory(buffer)
        if stream != LEGACY:
            _stream(stream).wait(_stream(LEGACY))
    return DeviceArray(pointer, shape, strides_of(shape, dtype.itemsize), dtype, owner)


def to_device(array: NDArray, stream: int) -> DeviceArray:
    """A copy on the GPU."""
    target = empty(array.shape, array.dtype, stream)
    copy(array, target, stream)
    return target


def to_host(array: DeviceArray, stream: int) -> NDArray:
    """A copy on the host, when all before it on the stream is done."""
    if array.is_c_contiguous():
        values = np.empty(array.shape, array.dtype)
        _fetch(array.pointer, values, stream)
        return values
    reach = [(extent - 1) * stride for extent, stride in zip(array.shape, array.strides)]
    before, after = -sum(step for step in reach if step < 0), sum(step for step in reach if step > 0)
    around = np.empty(before + after + array.dtype.itemsize, np.uint8)
    _fetch(array.pointer - before, around, stream)
    return np.ndarray(array.shape, array.dtype, around, before, array.strides).copy()


def _fetch(pointer: int, values: NDArray, stream: int) -> None:
    if values.nbytes:
        _checked(driver.cuMemcpyDtoHAsync(values.ctypes.data, pointer, values.nbytes, stream))
    _stream(stream).sync()


def copy(source: Any, target: DeviceArray, stream: int) -> None:
    """Copy an array of the host or the GPU to one of the GPU of the same shape and dtype; both have no gaps."""
    if source.shape != target.shape or source.dtype != target.dtype:
        raise ValueError(f"{source.dtype} {source.shape} can't be copied to {target.dtype} {target.shape}")
    on_gpu = isinstance(source, DeviceArray)
    if not target.is_c_contiguous() or not (source.is_c_contiguous() if on_gpu else source.flags.c_contiguous):
        raise ValueError("an array with gaps can't be copied to or on the GPU")
    if on_gpu and target.nbytes:
        _checked(driver.cuMemcpyDtoDAsync(target.pointer, source.pointer, target.nbytes, stream))
    elif target.nbytes:
        _checked(driver.cuMemcpyHtoDAsync(target.pointer, source.ctypes.data, target.nbytes, stream))
        if target.nbytes > TAKEN_AT_ONCE:
            _stream(stream).sync()


def view(pointer: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype, owner: Any) -> DeviceArray:
    """Memory of another library as an array."""
    return DeviceArray(pointer, shape, strides, dtype, owner)


def interface_of(array: DeviceArray) -> dict[str, Any]:
    """What ``__cuda_array_interface__`` says of an array."""
    return array.__cuda_array_interface__


def to_dlpack(array: DeviceArray, **options: Any) -> Any:
    """A capsule of an array for other libraries."""
    views = importlib.import_module("cuda.core.utils").StridedMemoryView
    return views.from_cuda_array_interface(array, stream_ptr=-1).__dlpack__(**options)


def record(stream: int) -> Any:
    """An event after all that was launched so far on a stream."""
    return _stream(stream).record()


def wait_for(stream: int, event: Any) -> None:
    """Let a stream wait for an event; the host goes on."""
    _stream(stream).wait(event)


def finish(stream: int) -> None:
    """Wait until all that was launched on a stream has run."""
    _stream(stream).sync()
