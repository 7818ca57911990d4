"""Kernels called by address: what lets one compiled driver run any program, and one layer any network or scalar map.

`SIGNATURES` lists every kind of kernel with its arguments; `address(function, kind, dtype)` compiles a function for one
of them and gives the number under which compiled code calls it with `call(number, arguments)`.  Exceptions propagate.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numpy.typing import DTypeLike

from npflows.backends.cpu.compiler.jit import DISABLED

# The letters: I integers (int64 vector), V vector and M block (rows, lanes) of the compute dtype, L float64 vector
# (lanes,), i one integer; for what threads share also F float64 (n, columns), B truth values, d one float64.  What all
# layers and networks begin with:
#     spec I       the integers that describe the layer: sizes, offsets, indices, addresses
#     theta V      its parameters
#     context M    the condition (condition_dim, lanes)
#     key i        the step's key for random masks; 0 outside training
#     first i      number of the block's first sample
_COMMON = "IVMii"
SIGNATURES = {
    # block M (in place), log_det L (+=), work M (kept for the vjp), temp M
    "layer": _COMMON + "MLMM",
    # dblock M (in place), dlog_det V, work M, temp M, dtheta V (+=; empty: not wanted), dcontext M (+=)
    "layer_vjp": _COMMON + "MVMMVM",
    # x M, out M, work M, temp M
    "network": _COMMON + "MMMM",
    # x M, dout M, dx M, work M, temp M, dtheta V (+=; empty: not wanted), dcontext M (+=)
    "network_vjp": _COMMON + "MMMMMVM",
    # one step of the sequential direction: x M, out M, work M, temp M, step i
    "network_step": _COMMON + "MMMMi",
    # spec I, theta V, x M (in place), raw M (rows * multiplier, lanes), log_det L (+=), temp M
    "transformer": "IVMMLM",
    # spec I, theta V, x M, raw M (its gradient on return), dx M (in place), dlog_det V, dtheta V (+=; empty: not wanted),
    # temp M
    "transformer_vjp": "IVMMMVVM",
    # h M (in place), before M
    "activation": "MM",
    # h M, before M, dh M (in place)
    "activation_vjp": "MMM",
    # threshold i, key i, first i, layer i, row i, h M (in place)
    "dropout": "iiiiiM",
    # a V, a_row i, a_column i, b M, c M, m i, k i, start i, bias V
    "product": "ViiMMiiiV",
    # first_rows I, a M, b M, panel V, c V, ldc i, m i, k i
    "outer": "IMMVViii",
    # table I, a V, a_row i, a_column i, b V, c V, m i, k i, height i, width i, lanes i, start i, bias V
    "convolution": "IViiVViiiiiiV",
    # table I, a V, b V, c V, m i, k i, height i, width i, lanes i
    "convolution_outer": "IVVViiiii",
    # spec I, theta V, z M, log_prob L (+=)
    "base": "IVML",
    # spec I, theta V, z M (its cotangent on return), dlog_prob V, dtheta V (+=; empty: not wanted)
    "base_vjp": "IVMVV",
    # supports, on rows: spec I, x F, t F, log_det L, inside L
    "support": "IFFLL",
    # spec I, t F, x F, log_det L
    "support_inverse": "IFFL",
    # spec I, the rows F, the gradient of what comes of them F, dlog_det L, that of the rows F
    "support_vjp": "IFFLF",
    # what threads share begins with each thread's own scratch V and the counter I of pieces; the rest stands there
    "transport": "VIIVFFFFiiiFLL",
    "pullback": "VIIVFFFFiiiFLLFFiiiM",
    "combine": "VIMBVL",
    "update": "VIVVBVVdddddVd",
    "draw": "VIIiiL",
    "draw_student_t": "VIIiLL",
}


def signature(kind: str, dtype: DTypeLike) -> Any:
    """Numba's signature of one kind of kernel for a compute dtype."""
    real = types.float32 if np.dtype(dtype) == np.float32 else types.float64
    letters = {
        "I": types.Array(types.int64, 1, "C"),
        "V": types.Array(real, 1, "C"),
        "M": types.Array(real, 2, "C"),
        "L": types.Array(types.float64, 1, "C"),
        "F": types.Array(types.float64, 2, "C"),
        "B": types.Array(types.boolean, 1, "C"),
        "i": types.int64,
        "d": types.float64,
    }
    return types.void(*(letters[c] for c in SIGNATURES[kind]))


class Wanted(NamedTuple):
    """A kernel that was asked for, in names: its module, itself, its kind and the compute dtype."""

    module: str
    name: str
    kind: str
    dtype: str


_list: contextvars.ContextVar[list[Wanted] | None] = contextvars.ContextVar("_list", default=None)


@contextlib.contextmanager
def listed() -> Iterator[list[Wanted]]:
    """Within this context `address` compiles nothing; what this thread asks it for gets into the list."""
    wanted: list[Wanted] = []
    token = _list.set(wanted)
    try:
        yield wanted
    finally:
        _list.reset(token)


_known: dict[tuple[Any, ...], int] = {}
_functions: dict[int, Callable] = {}  # keeps what is in use by address alive; what is called under NUMBA_DISABLE_JIT
_numbers = itertools.count(1)


def address(function: Any, kind: str, dtype: np.dtype) -> int:
    """The number under which compiled code calls `function`, compiled for `kind` and `dtype` if it is not yet."""
    wanted_only = _list.get()
    if wanted_only is not None:
        wanted_only.append(Wanted(function.__module__, function.__name__, kind, np.dtype(dtype).name))
        return 0
    key = (function, kind, np.dtype(dtype))
    if key not in _known:
        if DISABLED:
            number = next(_numbers)
        else:
            wanted = signature(kind, dtype)
            function.compile(wanted)
            compiled = function.overloads[wanted.args]
            number = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
        _functions[number] = function
        _known[key] = number
    return _known[key]


if DISABLED:

    def call(number: int, arguments: tuple) -> None:
        """Call the kernel at an address with a tuple of arguments."""
        _functions[int(number)](*arguments)

    def borrow(array: np.ndarray) -> np.ndarray:
        """The same array."""
        return array

    def flat(block: np.ndarray) -> np.ndarray:
        """A block's entries one after the other, as a view."""
        return block.reshape(-1)

    def carve(array: np.ndarray, start: int, rows: int, lanes: int) -> np.ndarray:
        """A block (rows, lanes) that begins at an entry of a flat array, as a view that does not keep it alive."""
        return array[start : start + rows * lanes].reshape(rows, lanes)

    def doubles(array: np.ndarray, start: int, rows: int, lanes: int) -> np.ndarray:
        """A block (rows, lanes) of float64 in the memory of a flat array, from its start-th float64 on, as such a view."""
        return array.view(np.uint8)[8 * start : 8 * (start + rows * lanes)].view(np.float64).reshape(rows, lanes)

    def as_real(bits: int) -> float:
        """The float64 whose bits an integer of a spec holds."""
        return float(np.int64(bits).view(np.float64))

    def fetch_add(counter: np.ndarray, at: int, value: int) -> int:
        """Add to counter[at] and return what it held, as one step that no thread can interrupt."""
        counter[at] += value
        return int(counter[at] - value)

else:
    _ALLOWED = {signature(kind, dtype).args for kind in SIGNATURES for dtype in (np.float32, np.float64)}

    def _unowned(context: Any, builder: Any, type_: Any, value: Any) -> Any:
        """An array without its reference count, which all threads would fight over at every slice."""
        array = context.make_array(type_)(context, builder, value)
        array.meminfo = cgutils.get_null_value(array.meminfo.type)
        array.parent = cgutils.get_null_value(array.parent.type)
        return array._getvalue()

    @intrinsic
    def borrow(typingctx, array):
        """The same array, not counted as in use: whoever passed it in keeps it alive meanwhile."""
        return array(array), lambda context, builder, signature, args: _unowned(
            context, builder, signature.args[0], args[0]
        )

    def contiguous(context: Any, builder: Any, type_: Any, data: Any, shape: list) -> Any:
        """A contiguous array at a place in memory, not counted as in use."""
        from numba.np.arrayobj import populate_array  # which takes a while to import, and nothing needs but compiling

        array = context.make_array(type_)(context, builder)
        itemsize = context.get_constant(types.intp, type_.dtype.bitwidth // 8)
        strides = [itemsize]
        for n in shape[:0:-1]:
            strides.insert(0, builder.mul(strides[0], n))
        populate_array(array, data=data, shape=shape, strides=strides, itemsize=itemsize, meminfo=None)
        return array._getvalue()

    def array_at(context: Any, builder: Any, type_: Any, number: Any, shape: list) -> Any:
        """A contiguous array at an address, which is a number, not counted as in use."""
        data = builder.inttoptr(number, context.get_data_type(type_.dtype).as_pointer())
        return contiguous(context, builder, type_, data, shape)

    @intrinsic
    def flat(typingctx, block):
        """A block's entries one after the other, as a view that does not keep it alive."""
        result = types.Array(block.dtype, 1, "C")

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array = context.make_array(block)(context, builder, args[0])
            rows, lanes = cgutils.unpack_tuple(builder, array.shape, 2)
            return contiguous(context, builder, result, array.data, [builder.mul(rows, lanes)])

        return result(block), codegen

    @intrinsic
    def carve(typingctx, array, start, rows, lanes):
        """A block (rows, lanes) that begins at an entry of a flat array, as a view that does not keep it alive."""
        result = types.Array(array.dtype, 2, "C")

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            whole = context.make_array(array)(context, builder, args[0])
            return contiguous(context, builder, result, builder.gep(whole.data, [args[1]]), [args[2], args[3]])

        return result(array, types.int64, types.int64, types.int64), codegen

    @intrinsic
    def doubles(typingctx, array, start, rows, lanes):
        """A block (rows, lanes) of float64 in the memory of a flat array, from its start-th float64 on, as such a view."""
        result = types.Array(types.float64, 2, "C")

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            whole = context.make_array(array)(context, builder, args[0])
            data = builder.bitcast(whole.data, context.get_data_type(types.float64).as_pointer())
            return contiguous(context, builder, result, builder.gep(data, [args[1]]), [args[2], args[3]])

        return result(array, types.int64, types.int64, types.int64), codegen

    def checked(arguments: Any) -> tuple:
        """The types of a tuple of arguments, which are those of some kind of kernel."""
        actual = tuple(arguments)
        if actual not in _ALLOWED:
            raise TypingError(f"npflows has no kind of kernel with the arguments {actual}")
        return actual

    def unowned(context: Any, builder: Any, actual: tuple, arguments: Any) -> list:
        """The values of a tuple of arguments, arrays without their reference count."""
        return [
            _unowned(context, builder, type_, value) if isinstance(type_, types.Array) else value
            for type_, value in zip(actual, cgutils.unpack_tuple(builder, arguments, len(actual)))
        ]

    def invoke(context: Any, builder: Any, number: Any, actual: tuple, values: list) -> Any:
        """Call the kernel at an address by Numba's own calling convention; the status that it returns."""
        function = context.call_conv.get_function_type(types.void, actual)
        pointer = builder.inttoptr(number, function.as_pointer())
        return context.call_conv.call_function(builder, pointer, types.void, actual, values)[0]

    def place(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        """Where the entry lies that the second argument numbers, of the vector that is the first."""
        return builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])

    @intrinsic
    def call(typingctx, number, arguments):
        """Call the kernel at an address with a tuple of arguments; its exceptions propagate."""
        actual = checked(arguments)
        result = types.void(number, arguments)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            status = invoke(context, builder, args[0], actual, unowned(context, builder, actual, args[1]))
            with cgutils.if_unlikely(builder, status.is_error):
                context.call_conv.return_status_propagate(builder, status)
            return context.get_dummy_value()

        return result, codegen

    @intrinsic
    def as_real(typingctx, bits):
        """The float64 whose bits an integer of a spec holds."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], context.get_value_type(types.float64))

        return types.float64(types.int64), codegen

    @intrinsic
    def fetch_add(typingctx, counter, at, value):
        """Add to counter[at] and return what it held, as one step that no thread can interrupt."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.atomic_rmw("add", place(context, builder, signature, args), args[2], "seq_cst")

        return types.int64(counter, types.int64, types.int64), codegen
