"""A GPU that is none, with the functions of gpu.py: numba.cuda's simulator, which runs kernels in Python on the CPU."""

from __future__ import annotations

import collections
import functools
import importlib
import random
import threading
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cuda.arguments import SCALARS, refused
from npflows.backends.cuda.compiler import LOWEST, Kernel, cuda

_numba: Any = importlib.import_module("numba.cuda.simulator.kernel")


class _Thread(_numba.BlockThread):
    """A thread of a block, which runs while it has its turn: until it waits for others, or its end."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.turn, self.ended = threading.Semaphore(0), False
        self.warp_size = 0

    def run(self) -> None:
        self.turn.acquire()
        super().run()
        self.ended = True
        self._manager.back.release()

    def syncthreads(self) -> None:
        self.syncwarp(0)

    def syncwarp(self, size: int) -> None:
        """Wait for the other threads of the warp, of so many; 0 is for all of the block."""
        self.warp_size = size
        self._manager.back.release()
        self.turn.acquire()
        if self.abort:
            raise RuntimeError("another thread of the block has failed")


class _Block(_numba.BlockManager):
    """The threads of a block, one at a time, in an order of chance that is the same each time.

    A thread runs up to the next barrier, and a warp whose threads waited for each other goes on before all others: some are
    as far ahead as barriers allow, and one that is missing shows.

    The manager of numba.cuda asks its threads all the time whether they wait, which takes most of the time that there is.
    """

    def run(self, grid_point: tuple[int, ...], *arguments: Any) -> None:
        self.back = threading.Semaphore(0)
        target = functools.partial(self._f, *arguments)
        alive = [_Thread(target, self, grid_point, point, self._debug) for point in np.ndindex(*self._block_dim)]
        for thread in alive:
            thread.start()
        failed, chance = None, random.Random(0)
        while alive:  # up to a barrier of the block, or the end
            ready, at_warp = list(alive), collections.defaultdict[int, list](list)
            chance.shuffle(ready)
            while ready:
                thread = ready.pop()
                thread.abort = failed is not None
                thread.turn.release()
                self.back.acquire()
                failed = failed or thread.exception
                if not thread.ended and thread.warp_size:
                    together = at_warp[thread.thread_id // thread.warp_size]
                    together.append(thread)
                    if len(together) == thread.warp_size:
                        ready += together
                        together.clear()
            alive = [thread for thread in alive if not thread.ended]
            if failed is None and any(at_warp.values()):
                failed = RuntimeError("some threads of a warp wait for others that are elsewhere"), None
        if failed is not None:
            raise failed[0].with_traceback(failed[1])


GRAPHS = False
"""Whether launches are recorded in CUDA graphs, not in lists."""
_lock = threading.Lock()


def require() -> None:
    """Have the GPU ready for this thread."""
    cuda.current_context()


def capability() -> tuple[int, int]:
    """The GPU's compute capability."""
    return LOWEST


def current_device() -> int:
    """The number of the GPU."""
    return 0


def free_memory() -> float:
    """Bytes of the GPU's memory that nothing uses."""
    return float(cuda.current_context().get_memory_info().free)


def launch(
    kernel: Kernel, blocks: int | tuple[int, ...], threads: int, stream: int, shared_bytes: int, arguments: tuple[Any, ...]
) -> None:  # fmt: skip
    """Launch a kernel; a process launches one at a time, and a kernel has one configuration."""
    for one in arguments:
        if type(one) not in SCALARS and not hasattr(one, "copy_to_host"):
            raise refused(one)
    with _lock:
        if None not in kernel.loaded:
            kernel.loaded[None] = cuda.jit(_of_plain_arrays(kernel.py_func))
        theirs, _numba.BlockManager = _numba.BlockManager, _Block
        try:
            kernel.loaded[None][blocks, threads, stream, shared_bytes](*arguments)
        finally:
            _numba.BlockManager = theirs


def _of_plain_arrays(function: Callable) -> Callable:
    """The same function for the simulator, which wraps arrays and is several times slower for it."""

    def plain(*arguments):  # type: ignore[no-untyped-def]
        function(*(getattr(getattr(one, "_item", one), "_ary", one) for one in arguments))

    # the simulator replaces numba.cuda where the globals of the function that it runs hold it
    return FunctionType(plain.__code__, function.__globals__, function.__name__, None, plain.__closure__)


def empty(shape: tuple[int, ...], dtype: np.dtype, stream: int) -> Any:
    """An array of any numbers."""
    return cuda.device_array(shape, dtype)


def to_device(array: NDArray, stream: int) -> Any:
    """A copy on the GPU."""
    return cuda.to_device(array, stream=stream)


def to_host(array: Any, stream: int) -> NDArray:
    """A copy on the host, when all before it on the stream is done."""
    return array.copy_to_host(stream=stream)


def copy(source: Any, target: Any, stream: int) -> None:
    """Copy an array of the host or the GPU to one of the GPU."""
    target.copy_to_device(source, stream=stream)


def view(pointer: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype, owner: Any) -> Any:
    """Memory as an array."""
    interface = {"data": (pointer, True), "shape": shape, "strides": strides, "typestr": dtype.str, "version": 3}
    kind = type(cuda.device_array(1, dtype))
    return kind(np.asarray(SimpleNamespace(__array_interface__=interface, owner=owner)))


def interface_of(array: Any) -> dict[str, Any]:
    """What ``__cuda_array_interface__`` says of an array."""
    return array.__array_interface__


def to_dlpack(array: Any, **options: Any) -> Any:
    """A capsule of an array for other libraries."""
    return array.copy_to_host().__dlpack__(**options)


def record(stream: int) -> Any:
    """An event after all that was launched so far on a stream."""
    event = cuda.event()
    event.record(stream)
    return event


def wait_for(stream: int, event: Any) -> None:
    """Let a stream wait for an event; the host goes on."""
    event.wait(stream)


def finish(stream: int) -> None:
    """Wait until all that was launched on a stream has run."""
