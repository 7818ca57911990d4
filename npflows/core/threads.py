"""How many threads npflows may use: a setting of the process, and its default from the machine."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np


@functools.cache
def _cpu_quota() -> float:
    """CPUs that the container may use (cgroup v2 or v1), infinity where nothing limits it."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.inf if quota == "max" else float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    try:
        folder = Path("/sys/fs/cgroup/cpu")
        limit = float((folder / "cpu.cfs_quota_us").read_text())
        return limit / float((folder / "cpu.cfs_period_us").read_text()) if limit > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


LIMITS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS")
"""Variables by which pools of processes, those of joblib and Dask for instance, give each worker its share of the CPUs."""


def default_num_threads() -> int:
    """NPFLOWS_NUM_THREADS, else the CPUs that this process may run on, within its container's quota and what the pool that
    it works for leaves it (`LIMITS`)."""
    text = os.environ.get("NPFLOWS_NUM_THREADS", "")
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"NPFLOWS_NUM_THREADS must be a whole number of at least 1, got {text!r}")
        return int(text)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [int(first) for name in LIMITS if (first := os.environ.get(name, "").split(",")[0].strip()).isdecimal()]
    return max(1, min([cpus, *limits, *([math.ceil(_cpu_quota())] if _cpu_quota() < math.inf else [])]))


_num_threads: int | None = None
_most: ContextVar[int | None] = ContextVar("npflows_most_threads", default=None)


def get_num_threads() -> int:
    """The number of threads that npflows uses."""
    n, most = default_num_threads() if _num_threads is None else _num_threads, _most.get()
    return n if most is None else min(n, most)


@contextmanager
def at_most_threads(n: int) -> Iterator[None]:
    """Use no more than n threads in this block of the calling thread, whatever the setting of the process is."""
    token = _most.set(n)
    try:
        yield
    finally:
        _most.reset(token)


def set_num_threads(n: int | None) -> None:
    """Set the number of threads that npflows uses, the calling one included.

    Parameters
    ----------
    n : int or None
        At least 1.  None goes back to the default: NPFLOWS_NUM_THREADS, else the CPUs that the process may use, and no
        more than NUMBA_NUM_THREADS and OMP_NUM_THREADS where they are set, as joblib and Dask set them in their workers.
        Results do not depend on it, to the bit.
    """
    global _num_threads
    if n is not None and (isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1):
        raise ValueError(f"the number of threads must be a whole number of at least 1, got {n!r}")
    _num_threads = None if n is None else int(n)
