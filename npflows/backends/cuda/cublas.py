"""Products by cuBLAS, NVIDIA's library, where it is on this machine.

PyTorch, JAX, nvmath-python and CuPy bring it, and so do `pip install nvidia-cublas-cu12` (or nvidia-cublas for CUDA 13) and
CUDA's own installer; cuda.pathfinder, which comes with numba-cuda, knows where.  It is called as the C library that it is,
by six functions that are the same in CUDA 11 to 13: the packages of Python around it name them in different ways.

cuBLAS promises the same bits each time on GPUs of one kind, with one version of the library, where calls are on one stream
or have a workspace of their own: here they have.  Products are in the numbers' own precision, TF32 being off by default.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npflows.backends.cpu.kernels.tiles import FROM_BIAS, FROM_ZERO
from npflows.backends.cuda.device import SIMULATED, address_of, cuda, empty, kernel, launch_blocks, launch_by
from npflows.backends.cuda.matrices import THREADS, Product
from npflows.backends.cuda.sums import OuterProduct
from npflows.core.checks import warn_user

AS_IT_LIES, TRANSPOSED = 0, 1
"""CUBLAS_OP_N and CUBLAS_OP_T."""
DEFAULT_MATH = 0
"""CUBLAS_DEFAULT_MATH: at least the bits of the numbers' own precision."""
WORKSPACE = 1 << 25
"""Bytes of it: what cuBLAS takes for itself on compute capability 9.0."""
_pointer, _int = ctypes.c_void_p, ctypes.c_int
FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cublasCreate_v2": (ctypes.POINTER(_pointer),),
    "cublasSetStream_v2": (_pointer, _pointer),
    "cublasSetWorkspace_v2": (_pointer, _pointer, ctypes.c_size_t),
    "cublasSetMathMode": (_pointer, _int),
    "cublasSgemm_v2": (_pointer, *[_int] * 5, *[_pointer] * 2, _int, _pointer, _int, _pointer, _pointer, _int),
    "cublasDgemm_v2": (_pointer, *[_int] * 5, *[_pointer] * 2, _int, _pointer, _int, _pointer, _pointer, _int),
}
"""The functions that are called, with the types of their arguments; each gives a status, 0 where all is well."""


class Library:
    """cuBLAS on the GPU that is used.

    Parameters
    ----------
    loaded : ctypes.CDLL
        Or what has the same functions.

    Raises
    ------
    RuntimeError
        If it does not start.
    """

    def __init__(self, loaded: Any) -> None:
        self._functions = {name: getattr(loaded, name) for name in FUNCTIONS}
        for name, types in FUNCTIONS.items():
            self._functions[name].argtypes, self._functions[name].restype = types, _int
        handle = _pointer()
        self._run("cublasCreate_v2", ctypes.byref(handle))
        self._handle = handle
        self._run("cublasSetMathMode", handle, DEFAULT_MATH)
        self._workspace = empty(WORKSPACE // 8, np.float64)

    def _run(self, name: str, *arguments: Any) -> None:
        status = self._functions[name](*arguments)
        if status:
            raise RuntimeError(f"{name} gives status {status}")

    def multiply(self, dtype: np.dtype, stream: int, *arguments: Any) -> None:
        """C = alpha op(A) op(B) + beta C on a stream, where matrices lie by column; arguments as in cublasSgemm, from the
        operations on, alpha and beta as numbers."""
        real, name = (ctypes.c_float, "cublasSgemm_v2") if dtype == np.float32 else (ctypes.c_double, "cublasDgemm_v2")
        *before, alpha, A, lda, B, ldb, beta, C, ldc = arguments
        self._run("cublasSetStream_v2", self._handle, stream)  # which takes the workspace away
        self._run("cublasSetWorkspace_v2", self._handle, address_of(self._workspace), WORKSPACE)
        self._run(name, self._handle, *before, ctypes.byref(real(alpha)), A, lda, B, ldb, ctypes.byref(real(beta)), C, ldc)


@functools.cache
def find() -> Library | None:
    """cuBLAS, if it is here and starts; one that does not is told of once."""
    if SIMULATED:
        return None
    try:
        pathfinder = importlib.import_module("cuda.pathfinder")
        path = pathfinder.load_nvidia_dynamic_lib("cublas").abs_path
    except Exception:  # a pathfinder without it, or no library: none is needed
        return None
    try:
        return Library(ctypes.CDLL(path))
    except Exception as error:  # of another version of CUDA than the driver's, for instance
        warn_user(f"cuBLAS is at {path} and can't be used, so that npflows' own kernels multiply: {error}")
        return None


@kernel
def fill_rows(theta, first, c, c_row):
    """Rows of c from c_row on = numbers of theta from the first on: a row of blocks for each, a thread for each lane."""
    t, i = cuda.grid(1), cuda.blockIdx.y
    if t < c.shape[1]:
        c[c_row + i, t] = theta[first + i]


class Cublas:
    """Products by cuBLAS; see `npflows.backends.cuda.matrices.Matrices`.

    Matrices lie by column there, so that a block (rows, lanes) is a matrix (lanes, rows), and c = a @ b is asked for as
    c.T = b.T @ a.T.
    """

    name = "cuBLAS"

    def __init__(self, library: Library, dtype: np.dtype) -> None:
        self._library, self._dtype = library, np.dtype(dtype)

    def prepare(self, products: Sequence[Product]) -> tuple[Product, ...]:
        """See `Matrices`."""
        return tuple(products)

    def multiply(self, prepared: tuple[Product, ...], theta: Any, offset: int, b: Any, c: Any) -> None:
        """See `Matrices`."""
        lanes = c.shape[1]
        for one in prepared:
            if one.start == FROM_BIAS:
                grid = -(-lanes // THREADS), one.m
                launch_blocks(fill_rows, grid, THREADS, theta, offset + one.bias, c, one.c_row)
            operation, lda = (AS_IT_LIES, max(one.a_row, one.k)) if one.a_column == 1 else (TRANSPOSED, one.a_column)
            beta = 0.0 if one.start == FROM_ZERO else 1.0
            left, right, result = (
                self._at(b, one.b_row * lanes),
                self._at(theta, offset + one.a),
                self._at(c, one.c_row * lanes),
            )
            self._launch(
                AS_IT_LIES, operation, lanes, one.m, one.k, 1.0, left, lanes, right, max(lda, 1), beta, result, lanes
            )

    def leave(self, products: Sequence[OuterProduct]) -> tuple[list[OuterProduct], list[OuterProduct]]:
        """See `Matrices`: sums of rows are left."""
        return [one for one in products if one.b is None], [one for one in products if one.b is not None]

    def add(
        self, products: Sequence[OuterProduct], blocks: Mapping[str, Any], gradients: Any, offset: int, n: int
    ) -> None:  # fmt: skip
        """See `Matrices`: to the gradient of the first piece, as the others are added to it."""
        for a, b, start, ldc, m, k in products:
            assert b is not None
            left, right = blocks[a.block], blocks[b.block]
            self._launch(TRANSPOSED, AS_IT_LIES, k, m, n, 1.0, self._at(right, b.row * right.shape[1]), right.shape[1],
                         self._at(left, a.row * left.shape[1]), left.shape[1], 1.0, self._at(gradients, offset + start),
                         ldc)  # fmt: skip

    def _at(self, array: Any, place: int) -> int:
        """The address of a number of an array."""
        return address_of(array) + place * self._dtype.itemsize

    def _launch(self, *arguments: Any) -> None:
        launch_by(lambda stream: self._library.multiply(self._dtype, stream, *arguments))
