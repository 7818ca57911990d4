"""Where compiled kernels are kept: the folder that this process reads and writes, and the one that a wheel may carry.

Kernels lie in a folder named by the source that they were compiled from and by the versions of Numba and Python.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numba

from npflows.backends.cpu.compiler.source import source_digest
from npflows.core.checks import warn_user

PACKAGE = Path(__file__).resolve().parents[3]
CARRIED = "prebuilt"
"""The folder inside the package for what a wheel carries."""
_KEPT_SOURCES = 4


@functools.cache
def folder_name() -> str:
    """The name of folders that hold kernels of this very source, for this Numba and Python."""
    return f"npflows-{source_digest(PACKAGE)[:16]}-numba-{numba.__version__}-{sys.implementation.cache_tag}-{sys.platform}"


def usable(folder: Path) -> bool:
    """Can entries be kept in `folder`, by this user alone?  Makes it if need be."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o755, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return trusted(folder)


def trusted(folder: Path) -> bool:
    """Whether nobody can write to a folder of kernels who could not as well change the package, this user or the system.

    Kernels are machine code, and run as what they are.

    Warns
    -----
    UserWarning
        If that is not so; the folder then is as good as none.
    """
    if not hasattr(os, "getuid"):
        return True
    try:
        there, package = folder.stat(), PACKAGE.stat()
    except OSError:
        return False
    shared = package.st_mode if there.st_gid == package.st_gid else package.st_mode & ~0o020
    open_to = there.st_mode & 0o022 & ~shared
    if there.st_uid in (os.getuid(), 0, package.st_uid) and not open_to:
        return True
    who = "others can write to it" if open_to else f"it belongs to another user (number {there.st_uid})"
    warn_user(
        f"the kernels in {folder} are not used, as {who}, and kernels are code: chmod go-w it, or set NUMBA_CACHE_DIR to a "
        f"folder that only you can write to"
    )
    return False


@functools.cache
def cache_directory() -> Path | None:
    """The folder that holds the compiled kernels of this very source, None where there can be none that is `trusted`.

    NUMBA_CACHE_DIR if it is set; else beside the package, also read-only (a container image warmed up when it was built);
    else the user's cache folder.
    """
    name = folder_name()
    if numba.config.CACHE_DIR:
        chosen = Path(numba.config.CACHE_DIR) / name
        return chosen if (trusted(chosen) if chosen.is_dir() else usable(chosen)) else None
    beside = PACKAGE / "__pycache__" / name
    if beside.is_dir() and any(beside.iterdir()) and trusted(beside):
        return beside
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "npflows"
    if sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA") or os.path.expanduser("~")) / "npflows" / "cache"
    found = next((folder for folder in (beside, home / name) if usable(folder)), None)
    if found == beside:
        _forget_old(beside)
    return found


@functools.cache
def folders() -> tuple[Path, ...]:
    """The folders in which kernels of this very source may lie, in the order in which they are looked for.

    With NPFLOWS_PORTABLE=0 in the environment none that a wheel carries.
    """
    carried = PACKAGE / CARRIED / folder_name()
    found, is_used = cache_directory(), os.environ.get("NPFLOWS_PORTABLE") != "0" and carried.is_dir()
    return (() if found is None else (found,)) + ((carried,) if is_used else ())


def _forget_old(current: Path) -> None:
    """Beside the package, keep the kernels of the last few states of the source only."""
    others = [folder for folder in current.parent.glob("npflows-*") if folder != current]
    for folder in sorted(others, key=lambda folder: folder.stat().st_mtime)[:-_KEPT_SOURCES]:
        shutil.rmtree(folder, ignore_errors=True)
