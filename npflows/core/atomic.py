"""Files that are written in full or not at all."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from npflows.core.checks import warn_user

STALE = 60.0
"""Seconds without a change after which a temporary file whose writer is gone is removed."""
_LONGEST = 200
"""Bytes of a name that a temporary file's name repeats; file systems take 255, a dot and an ending included."""
_ENDING = 4
"""Random bytes in the name of a temporary file."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a binary file that takes its name only once it is complete; a crash leaves what was there before.

    The new file has the mode of the one that it replaces.  Temporary files of writers that were killed are removed.  An
    interrupt comes out as itself, even where closing a half-written archive raises another error.

    Raises
    ------
    OSError
        If the file can't be written, or is there and read-only.

    Warns
    -----
    UserWarning
        If the file has further names (hard links), which keep the old content.
    """
    path = Path(os.path.realpath(path))
    mode = check_replaceable(path)
    _sweep(path)
    temporary = _temporary(path, secrets.token_hex(_ENDING))
    try:
        with _opened(temporary, path, 0o666 if mode is None else 0o600) as file:
            _lock(file)
            yield file
            file.flush()
            if mode is not None and hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        interrupt = _interrupt_behind(error)
        if interrupt is not None:
            raise interrupt from None
        raise


def check_replaceable(path: str | os.PathLike[str]) -> int | None:
    """The mode of the file to replace, None where there is none yet.

    Raises
    ------
    OSError
        If it is read-only, or something else than a file.

    Warns
    -----
    UserWarning
        If the file has further names (hard links), which keep the old content.
    """
    path = Path(os.path.realpath(path))
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"{path} is a folder: give the name of a file in it")
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"{path} is there and no file (a device or a pipe, say): give the name of a file")
    if not mode & 0o222 or not os.access(path, os.W_OK):
        raise PermissionError(f"{path} is there and read-only: save under another name, or make it writable first")
    if found.st_nlink > 1:
        warn_user(
            f"{path} has {found.st_nlink - 1} more names (hard links), which keep the old content: a file is replaced as a "
            f"whole"
        )
    return mode


def _opened(temporary: Path, path: Path, mode: int) -> BinaryIO:
    """A new temporary file; an error names the file that it stands for, or the folder that is missing."""
    try:
        return open(temporary, "x+b", opener=functools.partial(os.open, mode=mode))
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(path.parent)) from None
    except OSError as error:
        error.filename = str(path)
        raise


def _temporary(path: Path, ending: str) -> Path:
    """The path of a temporary file beside a file."""
    name = path.name
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return path.with_name(f".{name}.{ending}.tmp")


def _sweep(path: Path) -> None:
    """Remove temporary files beside a file that no process writes any more."""
    before, after = _temporary(path, "|").name.split("|")
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            name = entry.name
            if not (
                name.startswith(before) and name.endswith(after) and len(name) == len(before) + 2 * _ENDING + len(after)
            ):
                continue
            with contextlib.suppress(OSError):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE and _is_left(entry.path):
                    os.unlink(entry.path)


def _lock(file: BinaryIO) -> bool:
    """Mark a file as being written, which ends with the process; whether that can be told and nobody else had done so."""
    if os.name == "nt":
        return True  # where an open file can't be removed
    try:
        fcntl = importlib.import_module("fcntl")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _is_left(path: str) -> bool:
    """Whether the writer of a temporary file is gone."""
    if os.name == "nt":
        return True
    with open(path, "r+b") as file:
        return _lock(file)


def _interrupt_behind(error: BaseException) -> BaseException | None:
    """The interrupt, or another request to end, in whose wake an error came."""
    seen: BaseException | None = error
    while seen is not None:
        if not isinstance(seen, Exception) and not isinstance(seen, GeneratorExit):
            return seen if seen is not error else None
        seen = seen.__context__
    return None
