"""`npflows warmup`: compile the kernels ahead of use."""

from __future__ import annotations

import argparse
import time

from npflows.cli.reports import report
from npflows.warmup import warmup


def warm_up(a: argparse.Namespace) -> int:
    """Compile the kernels of models and report how long each took."""

    def tell(name: str, seconds: float) -> None:
        report([(name, f"{seconds:.1f} s")])

    started = time.perf_counter()
    done = warmup(a.models or None, a.dtype, target=a.target, into=a.into, progress=None if a.quiet else tell)
    if not a.quiet:
        kept = str(done.folder) if done.folder is not None else "nowhere: no folder can be written, set NUMBA_CACHE_DIR"
        report([("in all", f"{time.perf_counter() - started:.1f} s"), ("kept in", kept)])
    return 0
