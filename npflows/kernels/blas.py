"""Matrix products of blocks through SciPy's BLAS, called by pointer from compiled code that holds no GIL.

`scipy.linalg.cython_blas` exports C pointers to ?gemm.  They are known to the compiled code by symbol, so that it can be
kept on disk; `register` tells the loader what the symbols mean, and importing SciPy's BLAS waits until then.

All matrices are row-major; `ld*` is the distance between rows, in elements.  BLAS is column-major, hence the exchanged
operands.  Integers go by reference in eight zero-extended bytes, which a BLAS with 32-bit integers and one with 64-bit
integers read alike on little-endian machines.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npflows.kernels.jit import DISABLED, inlined

_lock = threading.Lock()
_registered = False


def register() -> None:
    """Make the symbols `npflows_sgemm` and `npflows_dgemm` known; must come before compiled code is loaded."""
    global _registered
    if _registered:
        return
    from numba.extending import get_cython_function_address

    for kind in "sd":
        binding.add_symbol(f"npflows_{kind}gemm", get_cython_function_address("scipy.linalg.cython_blas", f"{kind}gemm"))
    _registered = True


if DISABLED:

    def _gemm(ta: int, tb: int, m: int, n: int, k: int, alpha, a, lda: int, b, ldb: int, beta, c, ldc: int) -> None:
        def matrix(data: np.ndarray, ld: int, rows: int, columns: int) -> np.ndarray:  # column-major (rows, columns)
            return np.lib.stride_tricks.as_strided(data, (rows, columns), (data.itemsize, ld * data.itemsize))

        left = matrix(a, lda, m, k) if ta == _N else matrix(a, lda, k, m).T
        right = matrix(b, ldb, k, n) if tb == _N else matrix(b, ldb, n, k).T
        out = matrix(c, ldc, m, n)
        out[:] = alpha * (left @ right) + (beta * out if beta else 0)

else:

    @intrinsic
    def _gemm(typingctx, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
        name = "npflows_sgemm" if alpha == types.float32 else "npflows_dgemm"
        signature = types.void(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            register()
            real, integer, char = context.get_value_type(signature.args[5]), ir.IntType(64), ir.IntType(8)

            def by_reference(value: Any, type_: Any) -> Any:
                slot = cgutils.alloca_once(builder, type_)
                builder.store(value, slot)
                return builder.bitcast(slot, cgutils.voidptr_t)

            def data(i: int) -> Any:
                array = context.make_array(signature.args[i])(context, builder, args[i])
                return builder.bitcast(array.data, cgutils.voidptr_t)

            actual = [
                data(i) if i in (6, 8, 11)
                else by_reference(args[i], real) if i in (5, 10)
                else by_reference(builder.trunc(args[i], char), char) if i in (0, 1)
                else by_reference(args[i], integer)
                for i in range(13)
            ]  # fmt: skip
            function = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t] * 13)
            builder.call(cgutils.get_or_insert_function(builder.module, function, name), actual)
            return context.get_dummy_value()

        return signature, codegen


_N, _T = np.int64(ord("N")), np.int64(ord("T"))


@inlined
def matmul(a, lda, b, ldb, c, ldc, m, n, k, beta):
    """c (m, n) = a (m, k) @ b (k, n) + beta * c."""
    one = a.dtype.type(1)
    _gemm(_N, _N, np.int64(n), np.int64(m), np.int64(k), one, b, np.int64(ldb), a, np.int64(lda),
          a.dtype.type(beta), c, np.int64(ldc))  # fmt: skip


@inlined
def matmul_nt(a, lda, b, ldb, c, ldc, m, n, k, beta):
    """c (m, n) = a (m, k) @ b (n, k).T + beta * c."""
    one = a.dtype.type(1)
    _gemm(_T, _N, np.int64(n), np.int64(m), np.int64(k), one, b, np.int64(ldb), a, np.int64(lda),
          a.dtype.type(beta), c, np.int64(ldc))  # fmt: skip


@inlined
def matmul_tn(a, lda, b, ldb, c, ldc, m, n, k, beta):
    """c (m, n) = a (k, m).T @ b (k, n) + beta * c."""
    one = a.dtype.type(1)
    _gemm(_N, _T, np.int64(n), np.int64(m), np.int64(k), one, b, np.int64(ldb), a, np.int64(lda),
          a.dtype.type(beta), c, np.int64(ldc))  # fmt: skip


class _OneThread:
    """Holds SciPy's BLAS to one thread while any block runs, and puts the user's number back after the last one.

    npflows spreads blocks over threads itself; a BLAS that did so too would fight it and change the bits.  Counted under
    one lock, so that overlapping calls do not leave the library at one.  Apple's Accelerate offers no such control.
    """

    def __init__(self) -> None:
        self._users = 0
        self._before: list[int] = []
        self._libraries: list[Any] | None = None

    def _find(self) -> list[Any]:
        register()
        from threadpoolctl import ThreadpoolController

        every = [lib for lib in ThreadpoolController().lib_controllers if lib.user_api == "blas"]
        own = [lib for lib in every if f"{os.sep}scipy" in lib.filepath]  # the wheel's own copy, where there is one
        return own or every

    def __enter__(self) -> None:
        with _lock:
            if self._users == 0:
                if self._libraries is None:
                    self._libraries = self._find()
                self._before = [lib.get_num_threads() for lib in self._libraries]
                self._set(1)
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with _lock:
            self._users -= 1
            if self._users == 0:
                self._set(None)

    def _set(self, n: int | None) -> None:
        for lib, before in zip(self._libraries or (), self._before):
            if before > 1:
                lib.set_num_threads(before if n is None else n)

    def after_fork(self) -> None:
        """In the child: whatever ran in the parent's other threads does not run here."""
        global _lock
        _lock = threading.Lock()
        if self._users:
            self._users = 0
            self._set(None)


one_thread = _OneThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=one_thread.after_fork)
