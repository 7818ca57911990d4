"""numba.cuda as a compiler: from functions of Python to PTX, the code of a GPU that is of no one generation.

This file alone knows it, with what arrays are for it (indexing.py), and simulator.py, which runs kernels where
``NUMBA_ENABLE_CUDASIM=1`` is in the environment: in Python on the CPU.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import gc
import importlib
import importlib.util
import inspect
import math
import os
from collections.abc import Callable, Collection, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from npflows.core.errors import CudaError

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
"""Whether there is no GPU, and Python threads stand for its threads."""
WANTED = "flow.to('cuda') needs an NVIDIA GPU and pip install 'npflows[cuda12]' (or cuda13)"
"""What every error begins with that says that there is no GPU to use."""
LOWEST = (7, 0)
"""The compute capability that PTX is made for, whatever the GPU's, so that all run the same arithmetic."""

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


class _Running:
    """What numba.cuda is within a kernel of the simulator, by the thread that asks."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("numba.cuda.simulator.kernel")._get_kernel_context(), name)


cuda = _load()
running: Any = _Running() if SIMULATED else cuda
"""numba.cuda for functions that kernels call."""
if not SIMULATED:
    NUMPY["nextafter"] = cuda.libdevice.nextafter


def _moved(array: Any, address: Any) -> Any:
    """In the simulator, an array of the same strides, and of rows without end, that begins at an address."""
    shape, strides, kind = (1 << 40, *array.shape[1:]), array.strides, array.dtype.str
    given = {"data": (int(address), False), "shape": shape, "strides": strides, "typestr": kind, "version": 3}
    return np.asarray(SimpleNamespace(__array_interface__=given))


def _pointers() -> tuple[Any, Any]:
    """The functions of kernels that give the address of an array, and an array that begins elsewhere."""
    if SIMULATED:
        return lambda array: array.ctypes.data, _moved
    indexing = importlib.import_module("npflows.backends.cuda.indexing")
    return indexing.pointer_of, indexing.moved


pointer_of, moved = _pointers()


class Kernel:
    """A function that the host launches.

    Attributes
    ----------
    py_func : callable
        Its text.
    title : str
        What it is made of: the same for the same kernel in every process, and for no other.
    capability : (int, int)
        The least compute capability that it needs.
    loaded : dict
        What is ready to be launched, by the kinds of the arguments.
    """

    def __init__(self, py_func: Callable, title: str, capability: tuple[int, int]) -> None:
        self.py_func, self.title, self.capability = py_func, title, capability
        self.loaded: dict[Any, Any] = {}


def kernel(function: Callable, made_of: str = "", capability: tuple[int, int] = LOWEST) -> Kernel:
    """A function that the host launches, one call for each thread; `made_of` names what it is made of besides its own
    text, where that is not always the same."""
    return Kernel(function, f"{function.__module__}.{function.__qualname__} {made_of}", capability)


def ptx_of(kernel: Kernel, kinds: tuple[str, ...]) -> str:
    """The PTX of a kernel for arguments of some kinds (arguments.py)."""
    with _for_capability(max(kernel.capability, lowest_capability())) as capability, _no_collector():
        text, types = _of_trusted_indices(kernel.py_func), tuple(map(_type_of, kinds))
        ptx, _ = cuda.compile(text, types, device=False, abi="numba", cc=capability)
    return ptx


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Let Python's collector of cycles pause, which would look through the many objects of a kernel in the making again and
    again and find nothing."""
    pausing = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if pausing:
            gc.enable()


def _of_trusted_indices(function: Callable) -> Callable:
    """The same function, of arrays whose indices are taken as they are (indexing.py)."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    plain = importlib.import_module("npflows.backends.cuda.indexing").plain
    scope: dict[str, Any] = {"function": cuda.jit(function, device=True), "plain": plain}
    exec(f"def entered({', '.join(names)}):\n    function({', '.join(f'plain({name})' for name in names)})", scope)
    return functools.update_wrapper(scope["entered"], function)


@functools.cache
def lowest_capability() -> tuple[int, int]:
    """The capability that PTX is made for: `LOWEST`, or the least that the installed toolkit knows."""
    major, minor = importlib.import_module("numba.cuda.cudadrv.nvrtc").get_lowest_supported_cc()
    return max(LOWEST, (major, minor))


@contextlib.contextmanager
def _for_capability(capability: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Compile within this context functions that kernels call for a capability: numba.cuda asks the GPU for it, by way of a
    driver, and has no argument for it."""
    dispatcher: Any = importlib.import_module("numba.cuda.dispatcher")
    with importlib.import_module("numba.cuda.core.compiler_lock").global_compiler_lock:
        asked = dispatcher.get_current_device
        dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
        try:
            yield capability
        finally:
            dispatcher.get_current_device = asked


def _type_of(kind: str) -> Any:
    """The type of an argument of a kind."""
    name, _, shape = kind.partition(" ")
    entry = cuda.types.boolean if name == "bool" else getattr(cuda.types, name)
    return cuda.types.Array(entry, int(shape[:-1]), shape[-1]) if shape else entry


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


def number_or_first() -> Any:
    """A function for kernels of a number, which is given as it is, or of a vector, whose first one is given."""
    if SIMULATED:
        return lambda x: x[0] if isinstance(x, np.ndarray) else x

    def either(x):
        """Stands for both."""

    @_extending().overload(either)
    def chosen(x):
        return (lambda x: x[0]) if isinstance(x, cuda.types.Array) else (lambda x: x)

    return either


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


def inline_ptx(text: str, constraints: str, simulated: Callable, *, whole_warp: bool = False) -> Any:
    """A function of float32 numbers for kernels that is an instruction of PTX.

    Parameters
    ----------
    text : str
        The instruction; ``$0`` is its first operand, the results come first.
    constraints : str
        As of LLVM, one for each operand: f, or r where PTX wants the bits of the number; results begin with =.
    simulated : callable
        What stands for it in the simulator.
    whole_warp : bool
        Whether all threads of a warp execute it together, so that it must not move to where only some of them come.
    """
    if SIMULATED:
        return simulated
    ir = importlib.import_module("llvmlite").ir
    kinds = constraints.split(",")
    count = sum(kind.startswith("=") for kind in kinds)
    numbers, bits = ir.FloatType(), ir.IntType(32)
    registers = [bits if kind.endswith("r") else numbers for kind in kinds]
    result = registers[0] if count == 1 else ir.LiteralStructType(registers[:count])

    def instruction(typing, *arguments):
        given = cuda.types.float32 if count == 1 else cuda.types.UniTuple(cuda.types.float32, count)

        def generate(context, builder, signature, values):
            values = [builder.bitcast(value, register) for value, register in zip(values, registers[count:])]
            assembly = ir.InlineAsm(ir.FunctionType(result, registers[count:]), text, constraints)
            made = builder.call(assembly, values, attrs=("convergent",) if whole_warp else ())
            parts = [made] if count == 1 else [builder.extract_value(made, i) for i in range(count)]
            parts = [builder.bitcast(part, numbers) for part in parts]
            return parts[0] if count == 1 else context.make_tuple(builder, signature.return_type, parts)

        return given(*arguments), generate

    named = [inspect.Parameter(f"operand_{i}", inspect.Parameter.POSITIONAL_OR_KEYWORD) for i in range(count, len(kinds))]
    instruction.__signature__ = inspect.signature(instruction).replace(  # type: ignore[attr-defined]
        parameters=[inspect.Parameter("typing", inspect.Parameter.POSITIONAL_OR_KEYWORD), *named]
    )
    return _extending().intrinsic(instruction)
