"""Plain Python threads over compiled code that holds no GIL.

The calling thread always works itself and helpers join when they come: a helper that is late, or busy elsewhere, costs
nothing, and a call from any thread, daemon process or forked child goes through even if no helper ever runs.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

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
        quota = float((folder / "cpu.cfs_quota_us").read_text())
        return quota / float((folder / "cpu.cfs_period_us").read_text()) if quota > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def default_num_threads() -> int:
    """NPFLOWS_NUM_THREADS, else the CPUs that this process may run on, within its container's quota."""
    text = os.environ.get("NPFLOWS_NUM_THREADS", "")
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"NPFLOWS_NUM_THREADS must be a whole number of at least 1, got {text!r}")
        return int(text)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cpus, math.ceil(_cpu_quota()) if _cpu_quota() < math.inf else cpus))


_num_threads: int | None = None


def get_num_threads() -> int:
    """The number of threads that npflows uses."""
    return default_num_threads() if _num_threads is None else _num_threads


def set_num_threads(n: int | None) -> None:
    """Set the number of threads that npflows uses, the calling one included.

    Parameters
    ----------
    n : int or None
        At least 1.  None goes back to the default: NPFLOWS_NUM_THREADS, else the CPUs that the process may use.
        Results do not depend on it, to the bit.
    """
    global _num_threads
    if n is not None and (isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1):
        raise ValueError(f"the number of threads must be a whole number of at least 1, got {n!r}")
    _num_threads = None if n is None else int(n)


class _Task:
    """One function that several threads run at once; it shares out the work itself."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function
        self.lock = threading.Lock()
        self.idle = threading.Event()
        self.running = 0
        self.closed = False
        self.error: BaseException | None = None

    def help(self) -> None:
        with self.lock:
            if self.closed:
                return
            self.running += 1
        try:
            self.function()
        except BaseException as error:  # handed to the caller
            self.error = error
        with self.lock:
            self.running -= 1
            if self.closed and not self.running:
                self.idle.set()

    def finish(self) -> None:
        """No more helpers; wait for those that have begun."""
        with self.lock:
            self.closed = True
            busy = self.running > 0
        interrupted: BaseException | None = None
        while busy and not self.idle.is_set():
            try:
                self.idle.wait()
            except KeyboardInterrupt as error:  # helpers still write to the caller's arrays
                interrupted = error
        if interrupted is not None:
            raise interrupted


class _Pool:
    """Helpers, started when they are first wanted."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.queue: SimpleQueue[_Task] = SimpleQueue()
        self.size = 0
        self.lock = threading.Lock()

    def ask(self, task: _Task, helpers: int) -> None:
        if self.size < helpers:
            with self.lock:
                while self.size < helpers:
                    try:
                        threading.Thread(target=_work, args=(self.queue,), name="npflows", daemon=True).start()
                    except RuntimeError:  # no more threads, or the interpreter is going down
                        break
                    self.size += 1
        for _ in range(min(helpers, self.size)):
            self.queue.put(task)


def _work(queue: SimpleQueue[_Task]) -> None:
    while True:
        queue.get().help()


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.forget)


def run(function: Callable[[], None], pieces: int) -> None:
    """Run `function` on this thread and on as many helpers as `pieces` of work and the number of threads allow."""
    helpers = min(get_num_threads(), pieces) - 1 if pieces > 1 else 0
    if helpers < 1:
        function()
        return
    task = _Task(function)
    _pool.ask(task, helpers)
    try:
        function()
    finally:
        task.finish()
    if task.error is not None:
        raise task.error


class _Local(threading.local):
    arena = np.zeros(0, np.uint8)


_local = _Local()
_ALIGN = 64


def arena(size: int, dtype: np.dtype) -> np.ndarray:
    """This thread's scratch memory: `size` entries on a 64-byte boundary, contents undefined, kept for the next call."""
    n_bytes = size * np.dtype(dtype).itemsize
    if _local.arena.size < n_bytes:
        memory = np.empty(n_bytes + _ALIGN, np.uint8)
        start = -memory.ctypes.data % _ALIGN
        _local.arena = memory[start : start + n_bytes]
    return _local.arena[:n_bytes].view(dtype)
