"""Compressed files: what opens them, told by what they begin with."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from pathlib import Path
from typing import Any

COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
"""First bytes of compressed files, and what opens them."""
DAMAGE = (EOFError, zlib.error, lzma.LZMAError)
"""What the modules of compression raise where a file is damaged, beside OSError."""


def unpacker(path: Path) -> Any:
    """What opens a compressed file, as `open` does others; None for one that is not compressed."""
    with open(path, "rb") as file:
        first = file.read(max(map(len, COMPRESSED)))
    return next((opener for mark, opener in COMPRESSED.items() if first.startswith(mark)), None)


def unpacked(path: Path) -> io.BytesIO | None:
    """All that is compressed in a file, checked to its end; None for a file that is not compressed."""
    unpack = unpacker(path)
    if unpack is None:
        return None
    with unpack(path, "rb") as file:
        return io.BytesIO(file.read())


def first_unpacked(path: Path, n: int) -> bytes:
    """The first n bytes of what is compressed in a file; none if it is damaged, or not compressed."""
    unpack = unpacker(path)
    try:
        if unpack is None:
            return b""
        with unpack(path, "rb") as file:
            return file.read(n)
    except (OSError, *DAMAGE):
        return b""
