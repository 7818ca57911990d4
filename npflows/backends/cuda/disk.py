"""The GPU's kernels on disk, beside those of the CPU: machine code for one compute capability.

A kernel is known by its title, which names all that it is made of, by its arguments, by the GPU's capability and the
version of numba-cuda, and by the contents of the files here; the name of the folder has those of the CPU's.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import os
import pickle
from importlib.metadata import version
from pathlib import Path
from typing import Any

from npflows.backends.cpu.compiler.folders import cache_directory
from npflows.backends.cpu.compiler.source import file_digest

_DIGEST = hashlib.sha256().digest_size


@functools.cache
def _source() -> str:
    """Hash of what kernels are made of besides the CPU's texts, and of what compiles them."""
    digest = hashlib.sha256(version("numba-cuda").encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + file_digest(path))
    return digest.hexdigest()


class KernelFiles:
    """The compiled versions of one kernel, with the interface that a dispatcher of numba.cuda expects of a cache.

    A file that can't be read or written is as good as none.

    Parameters
    ----------
    title : str
        The same for the same kernel in every process, and for no other.
    """

    cache_path = None

    def __init__(self, title: str) -> None:
        self.title = title

    def _file(self, signature: Any) -> Path | None:
        """The file of one version; None where nothing can be kept."""
        folder = cache_directory()
        if folder is None:
            return None
        capability = importlib.import_module("numba.cuda").get_current_device().compute_capability
        arguments = getattr(signature, "args", signature)
        key = repr((self.title, str(arguments), tuple(capability), _source()))
        return folder / f"cuda-{hashlib.sha256(key.encode()).hexdigest()[:24]}.nbc"

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The kernel for a signature; None where there is no file, or a damaged one."""
        file = self._file(signature)
        if file is None:
            return None
        with contextlib.suppress(Exception):  # a damaged file: compile again
            data = file.read_bytes()
            if hashlib.sha256(data[_DIGEST:]).digest() == data[:_DIGEST]:
                kernel = importlib.import_module("numba.cuda.dispatcher")._Kernel
                return kernel._rebuild(**pickle.loads(data[_DIGEST:]))
        return None

    def save_overload(self, signature: Any, kernel: Any) -> None:
        """Write a kernel that was compiled."""
        file = self._file(signature)
        if file is None:
            return
        data = importlib.import_module("numba.cuda.serialize").dumps(kernel._reduce_states())
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            temporary.write_bytes(hashlib.sha256(data).digest() + data)
            os.replace(temporary, file)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def enable(self) -> None: ...

    def disable(self) -> None: ...

    def flush(self) -> None: ...
