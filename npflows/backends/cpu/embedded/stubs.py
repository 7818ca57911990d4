"""Functions without a handle among their arguments, for callers that pass none: the handle is a constant in them."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from npflows.backends.cpu.embedded.frame import EVALUATE
from npflows.backends.cpu.embedded.typing import call_entry

_int, _word, _double = ir.IntType(32), ir.IntType(64), ir.DoubleType()
_exp = ir.FunctionType(_double, [_double])
_numbers = itertools.count()


class _Shape(NamedTuple):
    """The arguments of a function, and which of them are the number of values, x and its gradient."""

    arguments: list[Any]
    dim: int | None
    x: int
    grad: int | None


_SHAPES = {
    "double (int, double *)": _Shape([_int, _word], 0, 1, None),
    "double (double *)": _Shape([_word], None, 0, None),
    "double (double *, double *)": _Shape([_word, _word], None, 0, 1),
    "double (int, double *, void *)": _Shape([_int, _word, _word], 0, 1, None),
}
SIGNATURES = tuple(_SHAPES)


def stub(handle: int, dim: int, signature: str, exponential: bool) -> tuple[Any, int]:
    """What keeps a function alive, and its address.  Its machine code is its own, made in milliseconds and kept on no disk.

    It returns the log-density, or the density; NaN where x has another number of values.
    """
    shape = _SHAPES[signature]
    context = cpu_target.target_context
    with global_compiler_lock:
        library = context.codegen().create_library("npflows_stub")
        module = context.create_module("npflows_stub")
        name = f"npflows_stub_{handle:x}_{next(_numbers)}"
        function = ir.Function(module, ir.FunctionType(_double, shape.arguments), name)
        builder = ir.IRBuilder(function.append_basic_block())
        out = builder.alloca(_double)
        builder.store(ir.Constant(_double, np.nan), out)
        zero, one = ir.Constant(_word, 0), ir.Constant(_word, 1)
        count = ir.Constant(_word, dim) if shape.dim is None else builder.sext(function.args[shape.dim], _word)
        grad = zero if shape.grad is None else function.args[shape.grad]
        words = [function.args[shape.x], one, count, zero, zero, zero, grad, zero, builder.ptrtoint(out, _word)]
        call_entry(builder, ir.Constant(_word, handle), EVALUATE, words)
        value = builder.load(out)
        if exponential:
            value = builder.call(ir.Function(module, _exp, "llvm.exp.f64"), [value])
        builder.ret(value)
        library.add_ir_module(module)
        library.finalize()
    return library, library.get_pointer_to_function(name)
