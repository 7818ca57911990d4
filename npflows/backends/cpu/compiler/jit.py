"""The one place that says how npflows compiles.

Everything compiled goes through two decorators: `kernel` for functions that are entered from Python or by address,
which are kept on disk (compiler/disk.py), and `inlined` for the helpers that they are made of.  Nothing compiles before
its first use.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import Any

import numba
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler, CompileResult, Flags

from npflows.backends.cpu.compiler.disk import DiskCache
from npflows.backends.cpu.compiler.fork import hold_forks

DISABLED = bool(numba.config.DISABLE_JIT)
"""True under NUMBA_DISABLE_JIT=1: kernels then are plain Python functions on NumPy arrays."""
if not DISABLED:
    hold_forks()

# contract: fused multiply-add.  nsz: the sign of zero is free.  Never nnan or ninf: they delete the checks for NaN.
# reassoc only where a sum over lanes is to be vectorized: it folds the two-step range reduction of exp.
_OPTIONS = {"nogil": True, "error_model": "numpy", "boundscheck": False, "no_cfunc_wrapper": True}
_FLAGS = {"contract", "nsz"}


def kernel(function: Callable | None = None, *, reassociate: bool = False) -> Any:
    """Compile on first use, without the GIL, and keep the result on disk.

    `reassociate` lets the compiler reorder sums, so that a sum over lanes is vectorized.
    """
    if function is None:
        return functools.partial(kernel, reassociate=reassociate)
    if DISABLED:
        return function
    flags = _FLAGS | {"reassoc"} if reassociate else _FLAGS
    compiled = numba.njit(fastmath=flags, pipeline_class=_Kernel, **_OPTIONS)(function)
    compiled._cache = DiskCache(function)
    return compiled


def entry(function: Callable) -> Any:
    """Compile a function of whole numbers on first use, so that C may call it, and keep the result on disk."""
    compiled = numba.njit(fastmath=_FLAGS, pipeline_class=_Kernel, **{**_OPTIONS, "no_cfunc_wrapper": False})(function)
    compiled._cache = DiskCache(function)
    return compiled


def c_address(compiled: Any, signature: Any) -> int:
    """The address at which C calls an `entry`, compiled for a signature if it is not yet."""
    compiled.compile(signature)
    result = compiled.overloads[signature.args]
    return result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name)


class _Linked(JITCodeLibrary):
    """Code that kernels are made of: machine code comes of them alone, as a whole."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


class _Ingredient(_Linked):
    """The same, optimized in the kernels alone, not with each helper up to them that calls it."""

    def _optimize_final_module(self) -> None: ...


class _Flags(Flags):
    """Numba's flags, compared quickly: it does so for every function that a name may stand for, at every call."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Flags) and (self is other or self._values == other._values)
        return same or super().__eq__(other)

    def __hash__(self) -> int:
        return _HASH


_HASH = hash(Flags())


class _Kernel(Compiler):
    """Numba's compiler, a quarter faster: see `_Flags`, and Python's collector of cycles pauses, which would look through
    the many objects of a function in the making again and again and find nothing."""

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, args: Any, return_type: Any, flags: Any, locals: Any):
        super().__init__(typingctx, targetctx, library, args, return_type, _Flags(flags), locals)

    def compile_extra(self, function: Callable) -> CompileResult:
        """Compile a function."""
        pausing = gc.isenabled()
        gc.disable()
        try:
            return super().compile_extra(function)
        finally:
            if pausing:
                gc.enable()


class _Inlined(_Kernel):
    """The same for what only compiled code calls: without machine code of its own, nor what Python calls it by."""

    distinct = False
    library: type[_Linked] = _Ingredient

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, args: Any, return_type: Any, flags: Any, locals: Any):
        flags = flags.copy()
        flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_compile = True
        flags.noalias = self.distinct
        library = self.library(targetctx.codegen(), "npflows.inlined")
        super().__init__(typingctx, targetctx, library, args, return_type, flags, locals)

    def compile_extra(self, function: Callable) -> CompileResult:
        """Numba knows compiled functions by what Python calls them by, which must be built in; nothing calls this one."""
        result = super().compile_extra(function)
        entry = f"{function.__module__}.{function.__qualname__}".format
        result.target_context.insert_user_function(entry, result.fndesc, [result.library])
        return result._replace(entry_point=entry)


class _Distinct(_Inlined):
    """The same, told that no two arrays among the arguments overlap: loops, which are vectorized best by themselves."""

    distinct = True
    library = _Linked


OVERLOADED = {**_OPTIONS, "pipeline_class": _Inlined}
"""What `numba.extending.overload` takes as `jit_options`, for functions that are inlined."""


class _Helper:
    """A function that Numba is told of when something that calls it compiles: kernels that are loaded from the disk have
    their helpers in them, and making Numba's objects for all of these takes longer than loading."""

    def __init__(self, function: Callable, compile_later: Callable[[Callable], Any]) -> None:
        self.py_func, self._compile_later = function, compile_later

    @functools.cached_property
    def _compiled(self) -> Any:
        return self._compile_later(self.py_func)

    @property
    def _numba_type_(self) -> Any:
        return self._compiled._numba_type_

    def __call__(self, *arguments: Any) -> Any:
        raise TypeError(f"{self.py_func.__module__}.{self.py_func.__qualname__} is inlined and called by kernels alone")


def inlined(
    function: Callable | None = None,
    *,
    reassociate: bool = False,
    distinct: bool = False,
    python: bool = False,
    always: bool = False,
) -> Any:
    """Compile as part of the kernels that call it; it keeps its own floating-point rules there.

    `distinct` promises that no two arrays among its arguments overlap: a loop over many rows is not vectorized without.
    With `python` it can be called from Python too.  `always`: no call of it is left, whatever its size, which pays where it
    has many arguments and little to do.
    """
    if function is None:
        return functools.partial(inlined, reassociate=reassociate, distinct=distinct, python=python, always=always)
    if DISABLED:
        return function
    options: dict[str, Any] = {
        **_OPTIONS,
        "forceinline": always,
        "pipeline_class": _Kernel if python else _Distinct if distinct else _Inlined,
    }
    compiled = numba.njit(fastmath=_FLAGS | {"reassoc"} if reassociate else _FLAGS, **options)
    return compiled(function) if python else _Helper(function, compiled)
