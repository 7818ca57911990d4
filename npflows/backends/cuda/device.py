"""The GPU as the rest of the backend knows it: whose turn it is, kernels, memory, copies, and what can go wrong.

cuda.core does it (gpu.py), and numba.cuda compiles (compiler.py).  With ``NUMBA_ENABLE_CUDASIM=1`` in the environment all
of it is simulated, in Python on the CPU (simulator.py).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cuda.compiler import (  # noqa: F401
    NUMPY,
    SIMULATED,
    WANTED,
    choose,
    cuda,
    device_function,
    dispatcher,
    inline_ptx,
    kernel,
    moved,
    number_or_first,
    pointer_of,
    running,
)
from npflows.core.errors import CudaError

driver: Any = importlib.import_module(f"npflows.backends.cuda.{'simulator' if SIMULATED else 'gpu'}")
"""What all that is asked of a GPU goes to."""

THREADS, WARP, MANY = (4, 4, 0) if SIMULATED else (128, 32, 1 << 15)
"""Threads of a block where they have nothing to do with each other: many, or a warp where there are not so many in all, so
that they are on as many multiprocessors as there are."""

TOO_OLD = ("UNSUPPORTED_PTX_VERSION", "DRIVER_MISMATCH", "INSUFFICIENT_DRIVER", "COMPAT_NOT_SUPPORTED", "NO_BINARY_FOR_GPU")
"""What drivers call it that kernels were made for a newer one, or for a newer GPU."""

LEGACY = 1
"""CUDA's legacy default stream, as DLPack and ``__cuda_array_interface__`` number it; calls with arrays of NumPy use it."""
_process = os.getpid()


class _Turn:
    """Whose turn it is to launch: one thread's, on one stream.

    Attributes
    ----------
    lock : threading.RLock
    stream : int
        The stream of all that is launched and copied.
    depth : int
        How many `on` are within each other.
    done : event or None
        After all that was launched in the last turn; it outlives the stream, which may be another library's.
    records : bool
        Whether what is launched is recorded and does not run.
    noted : list of callable, optional
        Launches that are recorded in the simulator.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.stream, self.depth = LEGACY, 0
        self.done: Any = None
        self.records = False
        self.noted: list[Callable[[], None]] | None = None


_turn = _Turn()


@contextlib.contextmanager
def on(stream: int | None = None) -> Iterator[None]:
    """Launch and copy on a stream within this context, in one thread at a time.

    What is launched waits on the GPU for all that was launched before, on whatever stream, as all of it uses the same
    scratch memory.

    Parameters
    ----------
    stream : int, optional
        The number of a stream; by default that of the context around this one, or `LEGACY`.
    """
    with _turn.lock:
        if not _turn.depth:
            require_device()  # that of this thread
        outer = _turn.stream
        wanted = stream or (outer if _turn.depth else LEGACY)
        if wanted != outer:
            wait_on(wanted, recorded_event() if _turn.depth else _turn.done)
        _turn.stream = wanted
        _turn.depth += 1
        try:
            yield
        finally:
            _turn.depth -= 1
            if not _turn.depth:
                _turn.done = recorded_event()
            elif wanted != outer:
                wait_on(outer, recorded_event())
                _turn.stream = outer


@contextlib.contextmanager
def recording(stream: int, noted: list[Callable[[], None]] | None = None) -> Iterator[None]:
    """Launch for a graph that a stream records, or into a list; nothing may be copied meanwhile, and no memory taken."""
    outer = _turn.stream
    _turn.stream, _turn.records, _turn.noted = stream, True, noted
    try:
        yield
    finally:
        _turn.stream, _turn.records, _turn.noted = outer, False, None


def current_stream() -> int:
    """The number of the stream that is launched on."""
    return _turn.stream


def recorded_event() -> Any:
    """An event after all that was launched so far on the present stream."""
    return _attempt(driver.record, _turn.stream)


def wait_on(stream: int, event: Any) -> None:
    """Let a stream wait for an event on the GPU, if there is one; the host goes on."""
    if event is not None:
        _attempt(driver.wait_for, stream, event)


def require_device() -> None:
    """Refuse where no GPU can be used.

    Raises
    ------
    CudaError
        If there is none, its driver is missing or too old, or this process was forked after it was first used.
    """
    if os.getpid() != _process:
        raise CudaError("a process that was forked after CUDA started can't use the GPU: start it with spawn, or move the "
                        "flow with flow.to('cpu') in it")  # fmt: skip
    try:
        driver.require()
    except CudaError:
        raise
    except Exception as error:  # the many kinds of it that drivers know
        raise CudaError(f"{WANTED}; the driver says: {_told(error)}") from error


def _told(error: Exception) -> str:
    """An error's message in one line."""
    return " ".join(str(error).split()).rstrip(" :.")


def launch(function: Any, threads: int, *arguments: Any) -> None:
    """Launch a kernel with at least so many threads."""
    block = THREADS if threads >= MANY else WARP
    if threads > 0:
        launch_blocks(function, -(-threads // block), block, *arguments)


def launch_blocks(
    function: Any, blocks: int | tuple[int, ...], threads: int, *arguments: Any, shared_bytes: int = 0
) -> None:  # fmt: skip
    """Launch a kernel with a grid of blocks of threads, and so much shared memory for each block."""
    if _turn.noted is not None:
        _turn.noted.append(lambda: launch_blocks(function, blocks, threads, *arguments, shared_bytes=shared_bytes))
    else:
        _attempt(driver.launch, function, blocks, threads, _turn.stream, shared_bytes, arguments)


def launch_by(library: Callable[[int], None]) -> None:
    """Let another library launch on the present stream, whose number it is given."""
    if _turn.noted is not None:
        _turn.noted.append(lambda: launch_by(library))
    else:
        _attempt(lambda: library(_turn.stream))


def address_of(array: Any) -> int:
    """Where an array lies on the GPU."""
    return int(driver.interface_of(array)["data"][0])


def to_device(array: NDArray) -> Any:
    """A copy on the GPU."""
    _refuse_to_record()
    with on():  # what comes next on another stream waits for it
        return _attempt(driver.to_device, np.ascontiguousarray(array), _turn.stream)


def to_host(array: Any) -> NDArray:
    """A copy on the host, of what all that was launched so far has made of an array."""
    _refuse_to_record()
    return _attempt(driver.to_host, array, _turn.stream)


def copy(source: Any, target: Any) -> None:
    """Copy an array to one of the same shape and dtype; one of them at least is on the GPU."""
    _refuse_to_record()
    if isinstance(target, np.ndarray):
        target[:] = to_host(source)
    else:
        _attempt(driver.copy, source, target, _turn.stream)


def _refuse_to_record() -> None:
    if _turn.records:
        raise RuntimeError("memory is copied or taken among launches that are recorded: do it before them")


def empty(shape: int | tuple[int, ...], dtype: Any) -> Any:
    """An array on the GPU, of any numbers."""
    _refuse_to_record()
    with on():
        return _attempt(driver.empty, shape if isinstance(shape, tuple) else (shape,), np.dtype(dtype), _turn.stream)


def view(pointer: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype, owner: Any) -> Any:
    """Memory of the GPU as an array; it is not copied, and strides are in bytes."""
    return empty(shape, dtype) if 0 in shape else driver.view(pointer, shape, strides, dtype, owner)


def free_memory() -> float:
    """Bytes of the GPU's memory that nothing uses."""
    with on():
        return _attempt(driver.free_memory)


def current_device() -> int:
    """The number of the GPU that is used."""
    return driver.current_device()


def capability() -> tuple[int, int]:
    """The compute capability of the GPU that is used."""
    found: tuple[int, int] = driver.capability()
    return found


def wait() -> None:
    """Wait until all that was launched on the present stream has run."""
    _attempt(driver.finish, _turn.stream)


def _attempt(run: Callable[..., Any], *arguments: Any) -> Any:
    if os.getpid() != _process:
        require_device()
    try:
        return run(*arguments)
    except CudaError:
        raise
    except Exception as error:
        if "OUT_OF_MEMORY" in str(error):
            raise CudaError("the GPU has no memory left for this: use fewer rows at a time or a smaller batch_size, or "
                            "flow.to('cpu')") from error  # fmt: skip
        if any(name in str(error) for name in TOO_OLD):
            raise CudaError(f"{WANTED}, and a driver for that version of CUDA; the driver says: {_told(error)}") from error
        raise
