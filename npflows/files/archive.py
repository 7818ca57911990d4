"""Archives of arrays: one .npz without pickle, whose members are looked at before anything is unpacked.

A checksum over names, types and contents of the members that belong together tells whether a file holds what was written.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np

from npflows.files.foreign import LOOKED_AT, foreign_kind

FEW_BYTES = 6 << 20
"""Bytes that a member may unpack to whatever its size in the file."""
MOST_PACKED = 100
"""How many times its size in the file a larger member may unpack to."""
LARGEST_WHOLE = (1 << 128) - 1
"""The largest whole number in a file: generators have states of 128 bits."""
_DIRECTORY = 1 << 22
"""Bytes, at most, of the directory at the end of an archive, enough for those of the largest ensembles."""
_HEADER = 1 << 12
"""Bytes in which the header of an array ends."""


class FlowFileError(ValueError):
    """A file that is no flow, is damaged, or does not fit; the message lists everything that is wrong."""


class _Foreign(ValueError):
    """What a file of another library is, with what to do."""


def read_json(text: str, object_hook: Callable[[dict], Any] | None = None) -> Any:
    """What a text of JSON says, whose whole numbers are those of a generator's state at most.

    Raises
    ------
    ValueError
        If it is no JSON, or a whole number in it has more than 128 bits: no place where numbers are used takes those.
    """
    return json.loads(text, object_hook=object_hook, parse_int=_whole)


def _whole(digits: str) -> int:
    value = int(digits) if len(digits) <= 40 else LARGEST_WHOLE + 1
    if abs(value) > LARGEST_WHOLE:
        raise ValueError(f"it has a whole number of {len(digits)} digits")
    return value


def checksum(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """SHA-256 of names, types, shapes and contents, in hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return np.array(digest.hexdigest())


class _Modest(io.BufferedReader):
    """A file that gives no more bytes at once than a directory may have, while it is opened."""

    is_open = False

    def read(self, size: int | None = -1) -> bytes:
        if self.is_open:
            return super().read(size)
        data = super().read(_DIRECTORY + 1 if size is None or size < 0 else min(size, _DIRECTORY + 1))
        if len(data) > _DIRECTORY:
            raise FlowFileError(f"its directory has more than {_DIRECTORY} bytes")
        return data


def read_arrays(path: str | os.PathLike[str], wanted: Iterable[str] | Callable[[str], bool]) -> dict[str, np.ndarray]:
    """The wanted arrays of an .npz file, each checked against its checksum in the archive; others are not unpacked.

    Parameters
    ----------
    path : path-like
    wanted : iterable of str or callable
        Their names, or whether an array of a name is wanted.

    Raises
    ------
    FlowFileError
        If the file is no archive, or damaged.
    OSError
        If it can't be opened.
    """
    where = os.fspath(path)
    if not stat.S_ISREG(os.stat(path).st_mode):  # whose end may never come
        if os.path.isdir(path):
            raise IsADirectoryError(f"{where} is a folder, not a file")
        raise FlowFileError(f"{where} is not a complete .npz file (it is a device or a pipe)")
    names = wanted if callable(wanted) else set(wanted).__contains__
    with _Modest(io.FileIO(path)) as file:
        try:
            _refuse_foreign(file.peek(LOOKED_AT)[:LOOKED_AT])
            return _arrays(file, names)
        except MemoryError:
            raise
        except _Foreign as error:
            raise FlowFileError(f"{where} is {error}") from None
        except Exception as error:  # whatever damage makes of a zip file
            raise FlowFileError(f"{where} is not a complete .npz file ({_reason(error)})") from None


def _refuse_foreign(start: bytes) -> None:
    found = foreign_kind(start)
    if found is not None:
        what, hint = found
        raise _Foreign(f"{what}, no flow of npflows" + (f": {hint}" if hint else ""))


def _arrays(file: _Modest, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        file.is_open = True
        if any(m.filename.endswith("/data.pkl") for m in archive.infolist()):
            raise _Foreign(
                "a file of PyTorch, no flow of npflows: npflows.convert takes state dicts of nflows, zuko and others over"
            )
        members = [(m.filename.removesuffix(".npy"), m) for m in archive.infolist() if m.filename.endswith(".npy")]
        members = [(name, m) for name, m in members if wanted(name)]
        if len({name for name, _ in members}) < len(members):
            raise FlowFileError("it has a member twice")
        for name, m in members:
            if m.file_size > FEW_BYTES and m.file_size > MOST_PACKED * m.compress_size:
                raise FlowFileError(f"{name} unpacks to {m.file_size} bytes from {m.compress_size}")
        return {name: _array(archive, m) for name, m in members}


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """An array, if it is as large as the archive says."""
    with archive.open(member) as content:
        head = io.BytesIO(content.read(_HEADER))
        version = np.lib.format.read_magic(head)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise FlowFileError(f"{member.filename} has version {version} of the format of arrays")
        shape, _, dtype = read_header[version](head)
        if dtype.hasobject:
            raise FlowFileError(f"{member.filename} holds Python objects, which need allow_pickle")
        if dtype.kind not in "biufU" or not dtype.itemsize:
            raise FlowFileError(f"{member.filename} holds {dtype.str}, which is no number and no text")
        size = dtype.itemsize
        for n in shape:
            size *= n
        if head.tell() + size != member.file_size:
            raise FlowFileError(f"{member.filename} has {member.file_size} bytes where its header and {size} bytes of "
                                f"{dtype} {shape} belong")  # fmt: skip
    with archive.open(member) as content:
        array = np.lib.format.read_array(content, allow_pickle=False)
        if content.read(1):
            raise FlowFileError(f"{member.filename} goes on after its array")
        return array


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def write_arrays(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as an .npz file, unpacked."""
    np.savez(file, **arrays)  # type: ignore[arg-type]
