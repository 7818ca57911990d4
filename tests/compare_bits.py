"""Compares, bit for bit, what this checkout computes with what another commit computes on this machine.

    python tests/compare_bits.py [COMMIT] [--only WORD]

Without COMMIT it is the commit that this checkout changes: HEAD where files are changed, and else HEAD's parent.  Both
trees are run by this checkout's pins.py, each in a process of its own on its own test registry.  What differs is printed,
and the exit status is 1 then.  Compiled kernels are kept under the system's temporary folder for the next time.
"""

from __future__ import annotations

import argparse
import getpass
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from pins import same_array

TREE = Path(__file__).resolve().parents[1]
PINS = Path(__file__).with_name("pins.py")
KEPT_SOURCES = 6
"""States of the source whose compiled kernels are kept."""


def git(*arguments: str) -> str:
    """The output of git, run in this checkout."""
    result = subprocess.run(["git", "-C", str(TREE), *arguments], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"git {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout.strip()


def kernel_cache() -> Path:
    """This user's folder for compiled kernels, in which npflows keeps those of each state of its source apart."""
    folder = Path(tempfile.gettempdir()) / f"npflows-bits-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and (folder.is_symlink() or folder.stat().st_uid != os.getuid()):
        sys.exit(f"{folder} belongs to another user")
    for old in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT_SOURCES]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def bits_of(tree: Path, title: str, file: Path, only: str) -> dict[str, np.ndarray]:
    """The arrays that pins.py writes for a tree."""
    print(f"--- {title}", file=sys.stderr, flush=True)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(kernel_cache()), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, str(PINS), str(file), "--tree", str(tree), "--only", only]
    if subprocess.run(command, env=environment).returncode:
        sys.exit(f"{title}: could not be run, see above")
    with np.load(file) as arrays:
        return dict(arrays)


def difference(before: np.ndarray | None, now: np.ndarray | None) -> str:
    """How two arrays differ, in words."""
    if before is None or now is None:
        return "only now" if before is None else "only before"
    if before.dtype != now.dtype or before.shape != now.shape:
        return f"{before.dtype} {before.shape} became {now.dtype} {now.shape}"
    a, b = before.astype(np.float64), now.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    unlike = int(np.isnan(apart).sum())
    finite = np.abs(a[np.isfinite(a)])
    scale = f"of values up to {finite.max():.1e}" if finite.size else "of no finite value"
    if unlike:
        return f"{unlike} of {a.size} are NaN in one of the two"
    if not apart.any():
        return "the sign of a zero, or the bits of a NaN"
    return f"{apart.max():.1e} {scale}"


def report(before: dict[str, np.ndarray], now: dict[str, np.ndarray]) -> bool:
    """Print what differs; whether all entries that both have are the same."""
    entries = [{key.split(" | ")[0] for key in values} for values in (before, now)]
    common = entries[0] & entries[1]
    for which, names in (("before", entries[0] - common), ("now", entries[1] - common)):
        for name in sorted(names):
            print(f"only {which}: {name}")
    if not common:
        sys.exit("the two trees have no entry in common")
    keys = [key for key in sorted(before.keys() | now.keys()) if key.split(" | ")[0] in common]
    rows = [
        (*key.split(" | "), difference(before.get(key), now.get(key)))
        for key in keys
        if key not in before or key not in now or not same_array(before[key], now[key])
    ]
    if rows:
        rows.insert(0, ("entry", "dtype", "quantity", "largest difference"))
        widths = [max(map(len, column)) for column in zip(*rows)]
        for row in rows:
            print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())
    print(f"{len(common)} entries compared, {len(keys)} arrays, {max(len(rows) - 1, 0)} differ")
    return not rows


def main() -> None:
    """Read the command line, run both trees and compare."""
    parser = argparse.ArgumentParser(description="Compare bits with another commit.")
    parser.add_argument("commit", nargs="?", help="by default HEAD where files are changed, else HEAD~1")
    parser.add_argument("--only", default="", metavar="WORD", help="only entries whose name contains this")
    options = parser.parse_args()
    chosen = options.commit or ("HEAD" if git("status", "--porcelain") else "HEAD~1")
    commit = git("rev-parse", "--verify", f"{chosen}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="npflows-") as folder:
        other = Path(folder) / "tree"
        git("worktree", "add", "--detach", str(other), commit)
        try:
            before = bits_of(other, f"{chosen} ({commit[:10]})", Path(folder) / "before.npz", options.only)
            now = bits_of(TREE, "this checkout", Path(folder) / "now.npz", options.only)
        finally:
            git("worktree", "remove", "--force", str(other))
    sys.exit(0 if report(before, now) else 1)


if __name__ == "__main__":
    main()
