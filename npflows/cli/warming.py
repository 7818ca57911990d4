"""`npflows warmup`: compile the kernels ahead of use."""

from __future__ import annotations

import argparse

from npflows.cli.reports import report
from npflows.warmup import warmup


def warm_up(a: argparse.Namespace) -> int:
    """Compile the kernels of models and report how long each took."""
    done = warmup(a.models or None, a.dtype)
    if not a.quiet:
        kept = str(done.folder) if done.folder is not None else "nowhere: no folder can be written, set NUMBA_CACHE_DIR"
        report([*((name, f"{seconds:.1f} s") for name, seconds in done.seconds.items()), ("kept in", kept)])
    return 0
