"""Where compiled kernels are kept: the folder that this process reads and writes, and the one that a wheel may carry.

Kernels lie in a folder named by the source that they were compiled from and by the versions of Numba and Python.
"""

from __future__ import annotations

import functools
import importlib
import os
import shutil
import stat
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
        for part in reversed([folder, *folder.parents]):
            if not part.exists():
                part.mkdir(mode=0o755, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return trusted(folder)


def trusted(folder: Path) -> bool:
    """Whether nobody can write to a folder of kernels who could not as well change the package, this user or the system.

    Kernels are machine code, and run as what they are.  As SSH does with keys, all folders that it lies in are looked at:
    who can write to one of them can put another in its place.  Those that the package lies in too are not, and in one like
    /tmp (sticky) others can't touch what is not theirs.

    Warns
    -----
    UserWarning
        If that is not so; the folder then is as good as none.
    """
    if not hasattr(os, "getuid"):
        return True
    try:
        found = [(part, part.stat()) for part in (folder, *folder.parents) if part not in (PACKAGE, *PACKAGE.parents)]
        package = PACKAGE.stat()
    except OSError:
        return False
    for part, there in found:
        shared = package.st_mode if there.st_gid == package.st_gid else package.st_mode & ~0o020
        open_to = there.st_mode & 0o022 & ~shared
        if open_to == 0o020 and _is_of_one_user(there.st_gid):
            open_to = 0
        owners = [os.getuid(), 0, package.st_uid]
        if part != folder:
            open_to = 0 if there.st_mode & stat.S_ISVTX else open_to
            owners.append(_stand_in())
        is_ours = there.st_uid in owners
        if is_ours and not open_to:
            continue
        it = "it" if part == folder else str(part)
        who = f"others can write to {it}" if open_to else f"{it} belongs to another user (number {there.st_uid})"
        cure = f"chmod go-w {part}, or set" if open_to else "set"
        warn_user(
            f"the kernels in {folder} are not used, as {who}, and kernels are code: {cure} NUMBA_CACHE_DIR to a folder "
            f"that only you can write to"
        )
        return False
    return True


def _is_of_one_user(group: int) -> bool:
    """Whether a group is that of this user alone, as many systems make one for each, with its name."""
    try:
        users, groups = importlib.import_module("pwd"), importlib.import_module("grp")
        user, found = users.getpwuid(os.getuid()).pw_name, groups.getgrgid(group)
    except (ImportError, KeyError):
        return False
    return found.gr_name == user and set(found.gr_mem) <= {user}


@functools.cache
def _stand_in() -> int:
    """The number that Linux shows for the system's own user in a container without it, 0 elsewhere."""
    try:
        if Path("/proc/self/uid_map").read_text().split() == ["0", "0", str(2**32 - 1)]:
            return 0
        return int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return 0


@functools.cache
def cache_directory() -> Path | None:
    """The folder that holds the compiled kernels of this very source, None where there can be none that is `trusted`.

    NUMBA_CACHE_DIR if it is set; else beside the package, also read-only (a container image warmed up when it was built);
    else the user's cache folder.
    """
    name = folder_name()
    if numba.config.CACHE_DIR:
        chosen = _real(Path(numba.config.CACHE_DIR)) / name
        return chosen if (trusted(chosen) if chosen.is_dir() else usable(chosen)) else None
    beside = PACKAGE / "__pycache__" / name
    if beside.is_dir() and any(beside.iterdir()) and trusted(beside):
        return beside
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "npflows"
    if sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA") or os.path.expanduser("~")) / "npflows" / "cache"
    found = next((folder for folder in (beside, _real(home) / name) if usable(folder)), None)
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


def _real(folder: Path) -> Path:
    """A folder by the name that no link can lead elsewhere."""
    return Path(os.path.realpath(folder))


def _forget_old(current: Path) -> None:
    """Beside the package, keep the kernels of the last few states of the source only."""
    others = [folder for folder in current.parent.glob("npflows-*") if folder != current]
    for folder in sorted(others, key=lambda folder: folder.stat().st_mtime)[:-_KEPT_SOURCES]:
        shutil.rmtree(folder, ignore_errors=True)
