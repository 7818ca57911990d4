"""Compiled kernels on disk, kept by the target that they were compiled for.

Numba's own disk cache judges freshness by one source file, so that a changed helper in another file, or an upgrade whose
files carry old dates, would silently run old numerics.  Here every entry lies in a folder named by the contents of all
that kernels are made of (compiler/source.py).  Where nothing can be written the functions are compiled anew in every
process, and all else works.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from numba.core import serialize
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys
from numba.core.sigutils import normalize_signature

from npflows.backends.cpu.compiler.folders import cache_directory, folders
from npflows.backends.cpu.compiler.source import file_digest
from npflows.backends.cpu.compiler.target import Target, runnable

_DIGEST = hashlib.sha256().digest_size
_STALE = 3600.0
"""Seconds after which a file that was never given its name is removed."""


class DiskCache:
    """One function's compiled versions on disk, with the interface that Numba's dispatcher expects of a cache.

    One file for each signature and target, written under another name and renamed, so that any number of processes may
    share the folder.  A file that can't be read or written is as good as none.  Kernels for this very CPU go before those
    of portable targets, which are only looked for where the CPU can run them.

    Attributes
    ----------
    lost : OSError or None
        Why something that was compiled in this process could not be written.
    """

    lost: ClassVar[OSError | None] = None

    def __init__(self, function: Callable) -> None:
        self.function = function

    @property
    def cache_path(self) -> str | None:
        folder = cache_directory()
        return None if folder is None else str(folder)

    def _name(self, signature: Any, target: Target) -> str:
        """The name of the file for a signature and a target."""
        code = self.function.__code__
        arguments, _ = normalize_signature(signature)  # with a result, as `compile` gives it, or without, as a call does
        digest = hashlib.sha256(repr((str(arguments), target.key, code.co_firstlineno)).encode())
        source = Path(code.co_filename)
        if source.is_file():  # a kernel of the user's own lies outside the package
            digest.update(file_digest(source))
        return f"{self.function.__module__}.{self.function.__qualname__}-{digest.hexdigest()[:16]}.nbc"

    @property
    def _is_known(self) -> bool:
        """Whether it can be told when the function has changed: by the file that it stands in, which one that was typed
        into a notebook or made by `exec` has not."""
        return str(self.function.__module__).startswith("npflows.") or Path(self.function.__code__.co_filename).is_file()

    def load_overload(self, signature: Any, context: Any) -> CompileResult | None:
        rtsys.initialize(context)  # and no more: what compiling takes besides is slow to load
        if not self._is_known:
            return None
        for target in runnable(Target(*context.codegen().magic_tuple())):
            name = self._name(signature, target)
            for folder in folders():
                found = _read(folder / name, context)
                if found is not None:
                    return found
        return None

    def save_overload(self, signature: Any, result: CompileResult) -> None:
        if result.library.has_dynamic_globals or any(not lifted.can_cache for lifted in result.lifted):
            return
        folder = cache_directory()
        if folder is None or not self._is_known:
            return
        file = folder / self._name(signature, Target(*result.target_context.codegen().magic_tuple()))
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            _sweep(file)
            data = serialize.dumps(result._reduce())
            temporary.write_bytes(hashlib.sha256(data).digest() + data)
            os.replace(temporary, file)
        except OSError as error:
            DiskCache.lost = error
            with contextlib.suppress(OSError):  # where a file system is read-only, even of what is not there
                temporary.unlink()

    def enable(self) -> None: ...

    def disable(self) -> None: ...

    def flush(self) -> None: ...


def _sweep(file: Path) -> None:
    """Remove what processes that were killed left beside a file of the cache."""
    for left in file.parent.glob(f"{glob.escape(file.name)}.*"):
        if time.time() - left.stat().st_mtime > _STALE:
            left.unlink(missing_ok=True)


def _read(file: Path, context: Any) -> CompileResult | None:
    """What a file holds, ready to be called; None if there is no such file, or a damaged one."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
        return None  # machine code is not run on trust
    try:
        return CompileResult._rebuild(context, *pickle.loads(data[_DIGEST:]))
    except Exception:  # a damaged file: compile again
        return None
