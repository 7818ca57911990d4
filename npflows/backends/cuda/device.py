"""All that is known of numba.cuda: compiling, memory, launches, and what can go wrong.

With ``NUMBA_ENABLE_CUDASIM=1`` in the environment all of it is simulated, in Python on the CPU.
"""

from __future__ import annotations

import dis
import functools
import importlib
import importlib.util
import math
import os
import threading
import warnings
from collections.abc import Callable, Collection
from types import FunctionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cuda.disk import KernelFiles
from npflows.core.errors import CudaError

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
"""Whether there is no GPU, and Python threads stand for its threads."""
THREADS, WARP, MANY = (4, 4, 0) if SIMULATED else (128, 32, 1 << 15)
"""Threads of a block where they have nothing to do with each other: many, or a warp where there are not so many in all, so
that they are on as many multiprocessors as there are."""
WANTED = "flow.to('cuda') needs an NVIDIA GPU and pip install 'npflows[cuda12]' (or cuda13)"
"""What every error begins with that says that there is no GPU to use."""

NUMPY: dict[str, Any] = (
    {} if SIMULATED else {name: getattr(math, name) for name in ("floor", "sqrt", "log", "exp", "isnan", "isfinite")}
)
"""What stands for functions of NumPy of which a GPU's kernels know only those of the standard library."""


def _load() -> Any:
    if not SIMULATED and importlib.util.find_spec("numba_cuda") is None:
        raise CudaError(f"{WANTED}; found no package numba-cuda")
    try:
        return importlib.import_module("numba.cuda")
    except Exception as error:  # a version that does not fit numba's, or libraries that do not load
        raise CudaError(f"{WANTED}; numba.cuda can't be imported: {error}") from error


cuda = _load()
_process, _simulator = os.getpid(), threading.Lock()


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
        cuda.current_context()
    except Exception as error:  # the many kinds of it that drivers know
        told = " ".join(str(error).split()).rstrip(" :.")
        raise CudaError(f"{WANTED}; the driver says: {told}") from error


def kernel(function: Callable, made_of: str = "") -> Any:
    """A function that the host launches, one call for each thread; `made_of` names what it is made of besides its own
    text, where that is not always the same."""
    if SIMULATED:
        return cuda.jit(_of_plain_arrays(function))
    compiled = cuda.jit(function)
    compiled._cache = KernelFiles(f"{function.__module__}.{function.__qualname__} {made_of}")
    return compiled


def _of_plain_arrays(function: Callable) -> Callable:
    """The same function for the simulator, which wraps arrays and is several times slower for it."""

    def plain(*arguments):
        function(*(getattr(getattr(one, "_item", one), "_ary", one) for one in arguments))

    # the simulator replaces numba.cuda where the globals of the function that it runs hold it
    return FunctionType(plain.__code__, function.__globals__, function.__name__, None, plain.__closure__)


def device_function(function: Callable) -> Any:
    """A function that kernels call."""
    if SIMULATED:
        return function
    return cuda.jit(function, device=True, inline="always" if _may_give_an_array(function) else "never")


def _may_give_an_array(function: Callable) -> bool:
    """Whether a function gives something, of which nothing says that it is a number; numba.cuda can compile functions that
    give a part of an array only in place of their calls."""
    if function.__code__.co_freevars:
        return False
    *_, before, last = dis.get_instructions(function)
    given = last if last.opname == "RETURN_CONST" else before
    return not (given.opname in ("RETURN_CONST", "LOAD_CONST") and given.argval is None)


def choose(single: Any, double: Any) -> Any:
    """A function of one number for kernels: `single` where it is a float32, else `double`."""
    if SIMULATED:
        return lambda x: (single if isinstance(x, np.float32) else double)(x)

    def by_type(x):
        """Stands for either."""

    @_extending().overload(by_type)
    def chosen(x):
        function = single if x == cuda.types.float32 else double
        return lambda x: function(x)

    return by_type


def dispatcher(functions: dict[int, tuple[Any, str]], kinds: Collection[str]) -> Any:
    """What calls one of several functions by its number with a tuple of arguments.

    Parameters
    ----------
    functions : dict of int to (function, letters)
        Letters stand for the arguments as in `npflows.backends.cpu.compiler.calls.SIGNATURES`; a call reaches only the
        functions that take its arguments, so that where there is one it is called without asking for the number.
    kinds : collection of str
        The letters of all calls that there are: where no function takes one's arguments it is never made, as one of dropout
        where there is none.
    """
    if SIMULATED:
        return lambda number, arguments: functions[int(number)][0](*arguments)
    known = {letters.replace("L", "V") for letters in kinds}

    def call(number, arguments):
        """Stands for them."""

    @_extending().overload(call)
    def called(number, arguments):
        given = "".join(map(_letter, arguments))
        if given not in known:
            raise TypeError(f"no function has the arguments {given}")
        fitting = [i for i, (_, letters) in functions.items() if letters.replace("L", "V") == given]
        names = {f"function_{i}": functions[i][0] for i in fitting}
        lines = ["def chosen(number, arguments):"]
        for i in fitting[1:]:
            lines += [f"    if number == {i}:", f"        function_{i}(*arguments)", "        return"]
        lines += [f"    function_{i}(*arguments)" for i in fitting[:1]] or ["    pass"]
        exec("\n".join(lines), names)
        return names["chosen"]

    return call


def _letter(argument: Any) -> str:
    """The letter of an argument's type."""
    if not isinstance(argument, cuda.types.Array):
        return "i"
    if argument.ndim == 2:
        return "M"
    return "I" if isinstance(argument.dtype, cuda.types.Integer) else "V"


def _extending() -> Any:
    return importlib.import_module("numba.cuda.extending")


def launch(function: Any, threads: int, *arguments: Any) -> None:
    """Launch a kernel with at least so many threads."""
    block = THREADS if threads >= MANY else WARP
    if threads > 0:
        launch_blocks(function, -(-threads // block), block, *arguments)


def launch_blocks(
    function: Any, blocks: int | tuple[int, ...], threads: int, *arguments: Any, shared_bytes: int = 0
) -> None:  # fmt: skip
    """Launch a kernel with a grid of blocks of threads, and so much shared memory for each block."""
    if SIMULATED:  # there a process launches one kernel at a time, and a kernel has one configuration
        with _simulator:
            _attempt(lambda: function[blocks, threads, 0, shared_bytes](*arguments))
    else:
        _attempt(lambda: _configured(function, blocks, threads, shared_bytes)(*arguments))


@functools.lru_cache(4096)
def _configured(function: Any, blocks: int | tuple[int, ...], threads: int, shared_bytes: int) -> Any:
    """A kernel for one kind of launch, of which few blocks are no reason to warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function[blocks, threads, 0, shared_bytes]


def to_device(array: NDArray) -> Any:
    """A copy on the GPU."""
    return _attempt(lambda: cuda.to_device(np.ascontiguousarray(array)))


def empty(shape: int | tuple[int, ...], dtype: Any) -> Any:
    """An array on the GPU, of any numbers."""
    return _attempt(lambda: cuda.device_array(shape, dtype))


def _attempt(run: Callable[[], Any]) -> Any:
    if os.getpid() != _process:
        require_device()
    try:
        return run()
    except Exception as error:
        if "OUT_OF_MEMORY" in str(error):
            raise CudaError("the GPU has no memory left for this: use fewer rows at a time or a smaller batch_size, or "
                            "flow.to('cpu')") from error  # fmt: skip
        raise
