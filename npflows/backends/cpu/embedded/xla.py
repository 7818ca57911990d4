"""A handler of XLA's typed foreign function interface: JAX calls a density by it, without Python and without a C compiler.

The structures of xla/ffi/api/c_api.h (major version 0) are read word by word, and only those that every minor version has.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from npflows.backends.cpu.compiler.jit import c_address, entry
from npflows.backends.cpu.embedded.frame import EVALUATE
from npflows.backends.cpu.embedded.memory import vector
from npflows.backends.cpu.embedded.typing import call_entry

# words of XLA_FFI_CallFrame: extensions, the interface, the stage, and of arguments, results and attributes how many there
# are and their addresses
EXTENSION, API, STAGE, N_ARGUMENTS, ARGUMENTS, N_RESULTS, RESULTS, ATTRIBUTES, FRAME = 1, 2, 4, 7, 9, 12, 14, 20, 21
EXECUTE = 3
# of XLA_FFI_Buffer, of XLA_FFI_Api and of XLA_FFI_Metadata, which asks for the version of the interface
DATA, RANK, DIMS = 3, 4, 5
API_VERSION, METADATA_VERSION, TRAITS, STATE_TYPE = 4, 3, 4, 5
LOW = 0xFFFFFFFF

_word = types.int64


@intrinsic
def evaluate(typingctx, density, x, n, dim, condition, rows, width, grad, dcondition, log_prob):
    """Call the entry of a handle with addresses; its status."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return call_entry(builder, args[0], EVALUATE, list(args[1:]))

    return _word(*[_word] * 10), codegen


@entry
def handler(frame):
    """x (..., dim), and perhaps conditions (..., condition_dim), to log_prob (...), and perhaps gradients of these shapes.

    The attribute is the handle.  Returns 0, no error.
    """
    f = vector(frame, FRAME, 0)
    if f[EXTENSION] != 0:
        extension = vector(f[EXTENSION], 4, 0)
        if extension[1] & LOW == 1:  # the version that is asked for is the one of who asks: all are alike in what is read
            metadata = vector(extension[3], 6, 0)
            metadata[METADATA_VERSION], metadata[TRAITS] = vector(f[API], 5, 0)[API_VERSION], 0
            if metadata[0] > 8 * STATE_TYPE:
                metadata[STATE_TYPE] = 0
            return 0
    if f[STAGE] & LOW != EXECUTE:
        return 0
    attribute = vector(vector(f[ATTRIBUTES], 1, 0)[0], 2, 0)
    density = vector(attribute[1], 1, 0)[0]
    given, wanted = vector(f[ARGUMENTS], f[N_ARGUMENTS], 0), vector(f[RESULTS], f[N_RESULTS], 0)
    x = vector(given[0], 6, 0)
    shape, n = vector(x[DIMS], x[RANK], 0), 1
    for i in range(x[RANK] - 1):
        n *= shape[i]
    condition, width, grad, dcondition = 0, 0, 0, 0
    if given.size > 1:
        buffer = vector(given[1], 6, 0)
        condition, width = buffer[DATA], vector(buffer[DIMS], buffer[RANK], 0)[buffer[RANK] - 1]
    if wanted.size > 1:
        grad = vector(wanted[1], 6, 0)[DATA]
    if wanted.size > 2:
        dcondition = vector(wanted[2], 6, 0)[DATA]
    evaluate(density, x[DATA], n, shape[x[RANK] - 1], condition, n, width, grad, dcondition, vector(wanted[0], 6, 0)[DATA])
    return 0


def address() -> int:
    """The address of the handler."""
    return c_address(handler, _word(_word))
