"""Memory by address: what callers hand over, and slots of scratch memory that threads claim without a lock."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npflows.backends.cpu.compiler.calls import array_at, fetch_add
from npflows.backends.cpu.compiler.jit import inlined
from npflows.backends.cpu.embedded.frame import N_SLOTS, SLOT_BYTES, SLOTS
from npflows.backends.cpu.threads.mailbox import swap

LINE = 128
"""Bytes that no two slots share, so that threads do not wait for each other's cache lines.  The first word of a slot says
whether somebody has it."""

_word = ir.IntType(64)


@intrinsic
def vector(typingctx, address, n, like):
    """n numbers of the type of `like` at an address, as a view that does not keep it alive."""
    result = types.Array(like, 1, "C")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return array_at(context, builder, result, args[0], [args[1]])

    return result(types.int64, types.int64, like), codegen


@intrinsic
def table(typingctx, address, rows, columns):
    """float64 (rows, columns) at an address, as a view that does not keep it alive."""
    result = types.Array(types.float64, 2, "C")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return array_at(context, builder, result, args[0], [args[1], args[2]])

    return result(types.int64, types.int64, types.int64), codegen


@intrinsic
def stack_address(typingctx):
    """Some address on this thread's stack, by which threads differ."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(cgutils.alloca_once(builder, _word), _word)

    return types.int64(), codegen


@intrinsic
def allocate(typingctx, n_bytes):
    """The address of so many bytes, from Numba's allocator, which needs no GIL."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(context.nrt.allocate(builder, args[0]), _word)

    return types.int64(types.int64), codegen


@intrinsic
def free(typingctx, address):
    """Give back what `allocate` gave."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        context.nrt.free(builder, builder.inttoptr(args[0], cgutils.voidptr_t))
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@inlined
def claim(f):
    """The address of a slot that nobody has, 0 if all are taken.  The first try goes by the thread."""
    n, first = f[N_SLOTS], ((stack_address() >> 16) * 0x9E3779B1) >> 8
    for i in range(n):
        address = f[SLOTS] + ((first + i) & (n - 1)) * f[SLOT_BYTES]
        if swap(vector(address, 1, 0), 0, 0, 1):
            return address
    return 0


@inlined
def release(address):
    """Give a slot back."""
    fetch_add(vector(address, 1, 0), 0, -1)
