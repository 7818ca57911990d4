"""Densities in the user's @njit code: the type, which is a handle, and its methods.

A compiled caller reads the first words of the frame alone (frame.py) and calls the entries by their addresses, so that what
lies in the user's cache holds no machine code of npflows.  The name of the type carries the version of those words: callers
of another one are compiled anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.imputils import lower_constant
from numba.extending import (
    NativeValue,
    intrinsic,
    models,
    overload_attribute,
    overload_method,
    register_jitable,
    register_model,
    unbox,
)

from npflows.backends.cpu.embedded.frame import CONDITION_DIM, DIM, EVALUATE, SAMPLE, VERSION, WRONG_CONDITION, WRONG_DIM

_word = ir.IntType(64)


class DensityType(types.Type):
    """The type of densities: one for all of them."""

    def __init__(self) -> None:
        super().__init__(name=f"npflows.Density{VERSION}")


DENSITY = DensityType()


@register_model(DensityType)
class _DensityModel(models.PrimitiveModel):
    """The handle alone."""

    def __init__(self, manager: Any, type_: Any) -> None:
        super().__init__(manager, type_, _word)


@unbox(DensityType)
def _unbox(type_: Any, value: Any, c: Any) -> NativeValue:
    handle = c.pyapi.object_getattr_string(value, "handle")
    result = cgutils.alloca_once_value(c.builder, ir.Constant(_word, 0))
    with c.builder.if_then(cgutils.is_not_null(c.builder, handle)):
        c.builder.store(c.pyapi.long_as_longlong(handle), result)
        c.pyapi.decref(handle)
    failed = cgutils.is_not_null(c.builder, c.pyapi.err_occurred())
    return NativeValue(c.builder.load(result), is_error=failed)


@lower_constant(DensityType)
def _constant(context: Any, builder: Any, type_: Any, value: Any) -> Any:
    """Of a global: an address that no other process has, so that Numba keeps such functions off the disk."""
    return builder.ptrtoint(context.add_dynamic_addr(builder, value.handle, info="npflows.Density"), _word)


def _load(builder: Any, density: Any, at: int) -> Any:
    """A word of a frame."""
    return builder.load(builder.gep(builder.inttoptr(density, _word.as_pointer()), [ir.Constant(_word, at)]))


def call_entry(builder: Any, density: Any, at: int, words: list) -> Any:
    """Call an entry of a frame; its status."""
    function = ir.FunctionType(_word, [_word] * (len(words) + 1))
    address = builder.inttoptr(_load(builder, density, at), function.as_pointer())
    return builder.call(address, [*words, density])


def _data(context: Any, builder: Any, type_: Any, value: Any) -> Any:
    """The address of an array, 0 for None."""
    if isinstance(type_, types.Array):
        return builder.ptrtoint(context.make_array(type_)(context, builder, value).data, _word)
    return ir.Constant(_word, 0)


def _shape(context: Any, builder: Any, type_: Any, value: Any) -> tuple[Any, Any]:
    """Rows and columns of an array; a vector is one row, and None has neither."""
    if not isinstance(type_, types.Array):
        return ir.Constant(_word, 0), ir.Constant(_word, 0)
    shape = cgutils.unpack_tuple(builder, context.make_array(type_)(context, builder, value).shape, type_.ndim)
    return (shape[0], shape[1]) if type_.ndim == 2 else (ir.Constant(_word, 1), shape[0])


@intrinsic
def evaluate(typingctx, density, x, condition, grad, dcondition, out):
    """Call the entry for x (dim,) or (n, dim) and out (n,); its status."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        n, dim = _shape(context, builder, kinds[1], args[1])
        rows, width = _shape(context, builder, kinds[2], args[2])
        data = [_data(context, builder, kinds[i], args[i]) for i in range(1, 6)]
        return call_entry(builder, args[0], EVALUATE, [data[0], n, dim, data[1], rows, width, *data[2:]])

    return types.int64(density, x, condition, grad, dcondition, out), codegen


@intrinsic
def evaluate_one(typingctx, density, x, condition, grad, dcondition):
    """The same for x (dim,); the status and the log-density."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        out = cgutils.alloca_once(builder, ir.DoubleType())
        n, dim = _shape(context, builder, kinds[1], args[1])
        rows, width = _shape(context, builder, kinds[2], args[2])
        data = [_data(context, builder, kinds[i], args[i]) for i in range(1, 5)]
        words = [data[0], n, dim, data[1], rows, width, *data[2:], builder.ptrtoint(out, _word)]
        status = call_entry(builder, args[0], EVALUATE, words)
        return context.make_tuple(builder, signature.return_type, [status, builder.load(out)])

    return types.Tuple((types.int64, types.float64))(density, x, condition, grad, dcondition), codegen


@intrinsic
def draw(typingctx, density, z, condition, x):
    """Call the entry for samples; its status."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        n, dim = _shape(context, builder, kinds[1], args[1])
        rows, width = _shape(context, builder, kinds[2], args[2])
        data = [_data(context, builder, kinds[i], args[i]) for i in range(1, 4)]
        return call_entry(builder, args[0], SAMPLE, [data[0], n, dim, data[1], rows, width, data[2]])

    return types.int64(density, z, condition, x), codegen


@intrinsic
def word(typingctx, density, at):
    """A word of the frame."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        frame = builder.inttoptr(args[0], _word.as_pointer())
        return builder.load(builder.gep(frame, [args[1]]))

    return types.int64(density, types.int64), codegen


@overload_attribute(DensityType, "dim")
def _dim(density):
    return lambda density: word(density, DIM)


@overload_attribute(DensityType, "condition_dim")
def _condition_dim(density):
    return lambda density: word(density, CONDITION_DIM)


def expect(method: str, written: tuple[str, ...] = (), **arrays: tuple[Any, tuple[int, ...], bool]) -> None:
    """Refuse arguments that are no contiguous float64 arrays of so many axes, and read-only ones that are `written`."""
    for name, (given, axes, optional) in arrays.items():
        if optional and (given is None or isinstance(given, (types.NoneType, types.Omitted))):
            continue
        fits = isinstance(given, types.Array) and given.ndim in axes and given.layout == "C"
        if not fits or given.dtype != types.float64:
            shape = " or ".join(f"{n}-dimensional" for n in axes)
            raise TypingError(
                f"density.{method} takes {name} as a contiguous {shape} float64 array, got {given}: use "
                f"np.ascontiguousarray({name}, np.float64) before the loop"
            )
        if name in written and not given.mutable:
            raise TypingError(
                f"density.{method} writes to {name}, got a read-only array, {given}: give one made by np.empty; arrays "
                f"in global variables are read-only in compiled code, so pass them as arguments"
            )


LENGTH = "x must have the density's number of values, density.dim"
CONDITION = "the condition must have density.condition_dim values, and one row or as many rows as x; none where that is 0"
SHAPES = (
    "x, grad and out, and condition and dcondition, must have as many rows, and the same shape where both are gradients"
)


@register_jitable
def refuse(status):
    """Raise what a status says, if nothing was done."""
    if status == WRONG_DIM:
        raise ValueError(LENGTH)
    if status == WRONG_CONDITION:
        raise ValueError(CONDITION)


@overload_method(DensityType, "log_prob")
def _log_prob(density, x, condition=None):
    expect("log_prob", x=(x, (1,), False), condition=(condition, (1,), True))

    def method(density, x, condition=None):
        status, value = evaluate_one(density, x, condition, None, None)
        refuse(status)
        return value

    return method


@overload_method(DensityType, "log_prob_and_grad")
def _log_prob_and_grad(density, x, grad, condition=None, dcondition=None):
    expect("log_prob_and_grad", ("grad", "dcondition"), x=(x, (1,), False), grad=(grad, (1,), False),
           condition=(condition, (1,), True), dcondition=(dcondition, (1,), True))  # fmt: skip

    def method(density, x, grad, condition=None, dcondition=None):
        if grad.size != x.size or (dcondition is not None and dcondition.size != word(density, CONDITION_DIM)):
            raise ValueError(SHAPES)
        status, value = evaluate_one(density, x, condition, grad, dcondition)
        refuse(status)
        return value

    return method


@overload_method(DensityType, "log_prob_rows")
def _log_prob_rows(density, x, out, condition=None):
    expect("log_prob_rows", ("out",), x=(x, (2,), False), out=(out, (1,), False), condition=(condition, (1, 2), True))

    def method(density, x, out, condition=None):
        if out.size != x.shape[0]:
            raise ValueError(SHAPES)
        refuse(evaluate(density, x, condition, None, None, out))

    return method


@overload_method(DensityType, "log_prob_and_grad_rows")
def _log_prob_and_grad_rows(
    density, x, grad, out, condition=None, dcondition=None
):  # fmt: skip
    expect("log_prob_and_grad_rows", ("grad", "out", "dcondition"), x=(x, (2,), False), grad=(grad, (2,), False),
           out=(out, (1,), False), condition=(condition, (1, 2), True), dcondition=(dcondition, (2,), True))  # fmt: skip

    def method(density, x, grad, out, condition=None, dcondition=None):
        if out.size != x.shape[0] or grad.shape != x.shape:
            raise ValueError(SHAPES)
        if dcondition is not None and dcondition.shape != (x.shape[0], word(density, CONDITION_DIM)):
            raise ValueError(SHAPES)
        refuse(evaluate(density, x, condition, grad, dcondition, out))

    return method


def _sampler(n_axes: int, name: str) -> Callable:
    def overload(density, z, x, condition=None):
        expect(name, ("x",), z=(z, (n_axes,), False), x=(x, (n_axes,), False),
               condition=(condition, (1,) if n_axes == 1 else (1, 2), True))  # fmt: skip

        def method(density, z, x, condition=None):
            if z.shape != x.shape:
                raise ValueError("z and x must have the same shape")
            refuse(draw(density, z, condition, x))

        return method

    return overload


overload_method(DensityType, "sample_row")(_sampler(1, "sample_row"))
overload_method(DensityType, "sample_rows")(_sampler(2, "sample_rows"))
