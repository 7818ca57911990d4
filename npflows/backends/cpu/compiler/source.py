"""The state of the package's source.  The standard library alone, as the build of a wheel asks here too."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


@functools.cache
def file_digest(path: Path) -> bytes:
    """Hash of a file's contents, which are read once."""
    return hashlib.sha256(path.read_bytes()).digest()


def source_digest(package: Path) -> str:
    """Hash of all files of Python in a package and of where they lie."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + file_digest(path))
    return digest.hexdigest()
