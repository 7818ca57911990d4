"""The one place that says how npflows compiles.

Everything compiled goes through two decorators: `kernel` for functions that are entered from Python or by address,
which are cached on disk, and `inlined` for the helpers that they are made of.  Nothing compiles before its first use.

Numba's own disk cache judges freshness by one source file, so that a changed helper in another file, or an upgrade whose
files carry old dates, would silently run old numerics.  `DiskCache` keys every entry by the contents of the whole
package instead.  Where nothing can be written the functions are compiled anew in every process, and all else works.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import serialize
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler, CompileResult

DISABLED = bool(numba.config.DISABLE_JIT)
"""True under NUMBA_DISABLE_JIT=1: kernels then are plain Python functions on NumPy arrays."""

PACKAGE = Path(__file__).resolve().parents[3]

# contract: fused multiply-add.  nsz: the sign of zero is free.  Never nnan or ninf: they delete the checks for NaN.
# reassoc only where a sum over lanes is to be vectorized: it folds the two-step range reduction of exp.
_OPTIONS = {"nogil": True, "error_model": "numpy", "boundscheck": False, "no_cfunc_wrapper": True}
_FLAGS = {"contract", "nsz"}
_KEPT_SOURCES = 4


def kernel(function: Callable | None = None, *, reassociate: bool = False) -> Any:
    """Compile on first use, without the GIL, and keep the result on disk.

    `reassociate` lets the compiler reorder sums, so that a sum over lanes is vectorized.
    """
    if function is None:
        return functools.partial(kernel, reassociate=reassociate)
    if DISABLED:
        return function
    compiled = numba.njit(fastmath=_FLAGS | {"reassoc"} if reassociate else _FLAGS, **_OPTIONS)(function)
    compiled._cache = DiskCache(function)
    return compiled


_MODE = os.environ.get("MODE", "cheap")


class _Ingredient(JITCodeLibrary):
    """Code that is linked into kernels, and optimized there: once, with what surrounds it."""

    def _optimize_final_module(self) -> None:
        if _MODE == "full":
            super()._optimize_final_module()
        elif _MODE == "cheap":
            manager, builder = self._codegen._module_pass_manager(
                loop_vectorize=False, slp_vectorize=False, opt=0, cost="cheap")
            manager.run(self._final_module, builder)
        elif _MODE == "o1":
            manager, builder = self._codegen._module_pass_manager(
                loop_vectorize=False, slp_vectorize=False, opt=1)
            manager.run(self._final_module, builder)
        elif _MODE == "o3nv":
            manager, builder = self._codegen._module_pass_manager(
                loop_vectorize=False, slp_vectorize=False, opt=3)
            manager.run(self._final_module, builder)

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


class _Inlined(Compiler):
    """Numba's compiler for what only compiled code calls: without machine code of its own, nor what Python calls it by,
    which take a fifth of the time."""

    distinct = False

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, args: Any, return_type: Any, flags: Any, locals: Any):
        flags = flags.copy()
        flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_compile = True
        flags.noalias = self.distinct
        super().__init__(typingctx, targetctx, library, args, return_type, flags, locals)

    def compile_extra(self, function: Callable) -> CompileResult:
        """Numba knows compiled functions by what Python calls them by, which must be built in; here it raises KeyError."""
        if _MODE != "old":
            self.state.library = _Ingredient(self.state.targetctx.codegen(), function.__qualname__)
        result = super().compile_extra(function)
        where = f"{function.__module__}.{function.__qualname__}".replace(".", " ")
        entry = f"{{{where} is inlined and called by kernels alone}}".format
        result.target_context.insert_user_function(entry, result.fndesc, [result.library])
        return result._replace(entry_point=entry)


class _Distinct(_Inlined):
    """The same, told that no two arrays among the arguments overlap."""

    distinct = True


def inlined(
    function: Callable | None = None, *, reassociate: bool = False, distinct: bool = False, python: bool = False
) -> Any:
    """Compile as part of the kernels that call it; it keeps its own floating-point rules there.

    `distinct` promises that no two arrays among its arguments overlap: a loop over many rows is not vectorized without.
    With `python` it can be called from Python too.
    """
    if function is None:
        return functools.partial(inlined, reassociate=reassociate, distinct=distinct, python=python)
    if DISABLED:
        return function
    options = _OPTIONS if python else {**_OPTIONS, "pipeline_class": _Distinct if distinct else _Inlined}
    return numba.njit(fastmath=_FLAGS | {"reassoc"} if reassociate else _FLAGS, **options)(function)


@functools.cache
def _contents(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


@functools.cache
def source_hash() -> str:
    """Hash of the package's whole source, and of what else the compiled code depends on."""
    digest = hashlib.sha256(f"{numba.__version__} {sys.implementation.cache_tag} {sys.platform}".encode())
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode() + _contents(path))
    return digest.hexdigest()[:16]


def _usable(folder: Path) -> bool:
    """Can entries be kept in `folder`?  Makes it if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


@functools.cache
def cache_directory() -> Path | None:
    """The folder that holds the compiled kernels of this very source, None where there can be none.

    NUMBA_CACHE_DIR if it is set; else beside the package, also read-only (a container image warmed up when it was built);
    else the user's cache folder.
    """
    name = f"npflows-{source_hash()}"
    if numba.config.CACHE_DIR:
        chosen = Path(numba.config.CACHE_DIR) / name
        return chosen if chosen.is_dir() or _usable(chosen) else None
    beside = PACKAGE / "__pycache__" / name
    if beside.is_dir() and any(beside.iterdir()):
        return beside
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "npflows"
    if sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA") or os.path.expanduser("~")) / "npflows" / "cache"
    found = next((folder for folder in (beside, home / name) if _usable(folder)), None)
    if found == beside:
        _forget_old(beside)
    return found


def _forget_old(current: Path) -> None:
    """Beside the package, keep the kernels of the last few states of the source only."""
    others = [folder for folder in current.parent.glob("npflows-*") if folder != current]
    for folder in sorted(others, key=lambda folder: folder.stat().st_mtime)[:-_KEPT_SOURCES]:
        shutil.rmtree(folder, ignore_errors=True)


_DIGEST = hashlib.sha256().digest_size


class DiskCache:
    """One function's compiled versions on disk, with the interface that Numba's dispatcher expects of a cache.

    One file for each signature, written under another name and renamed, so that any number of processes may share the
    folder.  A file that can't be read or written is as good as none.
    """

    def __init__(self, function: Callable) -> None:
        self.function = function

    @property
    def cache_path(self) -> str | None:
        folder = cache_directory()
        return None if folder is None else str(folder)

    def _file(self, signature: Any, context: Any) -> Path | None:
        folder = cache_directory()
        if folder is None:
            return None
        code = self.function.__code__
        digest = hashlib.sha256(repr((str(signature), context.codegen().magic_tuple(), code.co_firstlineno)).encode())
        source = Path(code.co_filename)
        if source.is_file():  # a kernel of the user's own lies outside the package
            digest.update(_contents(source))
        return folder / f"{self.function.__module__}.{self.function.__qualname__}-{digest.hexdigest()[:16]}.nbc"

    def load_overload(self, signature: Any, context: Any) -> CompileResult | None:
        context.refresh()
        file = self._file(signature, context)
        try:
            data = file.read_bytes() if file is not None else None
        except OSError:
            return None
        if data is None or hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
            return None  # machine code is not run on trust
        try:
            return CompileResult._rebuild(context, *pickle.loads(data[_DIGEST:]))
        except Exception:  # a damaged file: compile again
            return None

    def save_overload(self, signature: Any, result: CompileResult) -> None:
        if result.library.has_dynamic_globals or any(not lifted.can_cache for lifted in result.lifted):
            return
        file = self._file(signature, result.target_context)
        if file is None:
            return
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            data = serialize.dumps(result._reduce())
            temporary.write_bytes(hashlib.sha256(data).digest() + data)
            os.replace(temporary, file)
        except OSError:
            temporary.unlink(missing_ok=True)

    def enable(self) -> None: ...

    def disable(self) -> None: ...

    def flush(self) -> None: ...
