"""The state of the source that kernels are compiled from.

The standard library alone, as the build of a wheel asks here too.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

COMPILED = ("backends/cpu", "core")
"""The parts of the package that kernels are made of: `backends/cpu` imports `core` and nothing else of it."""


@functools.cache
def file_digest(path: Path) -> bytes:
    """Hash of a file's contents, which are read once."""
    return hashlib.sha256(path.read_bytes()).digest()


def source_digest(package: Path) -> str:
    """Hash of all files of Python that kernels of a package are compiled from, and of where they lie."""
    digest = hashlib.sha256()
    for path in sorted(path for part in COMPILED for path in (package / part).rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + file_digest(path))
    return digest.hexdigest()
