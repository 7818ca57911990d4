"""The GPU's kernels on disk, beside those of the CPU: machine code for one compute capability.

A kernel is known by its title, which names all that it is made of, by the kinds of its arguments, by the GPU's capability
and the versions of what compiles it, and by the contents of the files here; the name of the folder has those of the CPU's.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from npflows.backends.cpu.compiler.folders import cache_directory
from npflows.backends.cpu.compiler.source import file_digest

_DIGEST = hashlib.sha256().digest_size
COMPILERS = (
    "numba-cuda", "nvidia-cuda-nvcc-cu12", "nvidia-nvvm", "nvidia-nvjitlink-cu12", "nvidia-nvjitlink",
)  # fmt: skip
"""The packages that may make PTX and machine code."""


@functools.cache
def _source() -> str:
    """Hash of what kernels are made of besides the CPU's texts, and of what compiles them."""
    digest = hashlib.sha256()
    for name in COMPILERS:
        with contextlib.suppress(PackageNotFoundError):
            digest.update(f"{name} {version(name)} ".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + file_digest(path))
    return digest.hexdigest()


def file_of(title: str, kinds: tuple[str, ...], capability: tuple[int, int]) -> Path | None:
    """The file of a kernel; None where nothing can be kept."""
    folder = cache_directory()
    if folder is None:
        return None
    key = repr((title, kinds, capability, _source()))
    return folder / f"cuda-{hashlib.sha256(key.encode()).hexdigest()[:24]}.cubin"


def read(file: Path | None) -> bytes | None:
    """What a file holds; None where there is none, or a damaged one."""
    if file is None:
        return None
    try:
        data = file.read_bytes()
    except OSError:
        return None
    return data[_DIGEST:] if hashlib.sha256(data[_DIGEST:]).digest() == data[:_DIGEST] else None


def write(file: Path | None, data: bytes) -> None:
    """Write a kernel that was compiled; where that fails it is not kept."""
    if file is None:
        return
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        temporary.write_bytes(hashlib.sha256(data).digest() + data)
        os.replace(temporary, file)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
