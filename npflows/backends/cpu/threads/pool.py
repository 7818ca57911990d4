"""Plain Python threads that share compiled work through a mailbox (threads/mailbox.py), without the GIL.

The calling thread always works itself and helpers join when they come: a helper that is late, or busy elsewhere, costs
nothing, and a call from any thread, daemon process or forked child goes through even if no helper ever runs.
"""

from __future__ import annotations

import os
import threading
import time
import timeit
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np

from npflows.backends.cpu.compiler.calls import address
from npflows.backends.cpu.compiler.jit import DISABLED
from npflows.backends.cpu.threads.mailbox import BUSY, ERROR, LOOKING, SIZE
from npflows.core.threads import get_num_threads

if not DISABLED:
    from npflows.backends.cpu.threads.mailbox import pauses, serve, share, wait

LINGER, NAP = 4e-4, 1e-4
"""Seconds that a helper looks for more work before it sleeps, as a fit has it soon again, and that a caller looks for
helpers to end theirs; then it sleeps for naps."""
CROWDED, REST = 3, (1.0, 4.0)
"""How often in a row a helper finds that it had to wait for its CPU before it leaves it to others, and for how many
seconds: the first time, and at most."""


def _new_mailbox() -> np.ndarray:
    """From the beginning of a cache line on, whole lines: what else lay in one would wait for those who look."""
    memory = np.zeros(SIZE + 16, np.int64)
    start = -memory.ctypes.data % 128 // 8
    return memory[start : start + SIZE]


class _Pool:
    """Helpers, started when they are first wanted, and the mailbox that they look into."""

    def __init__(self) -> None:
        self._patience: int | None = None
        self.forget()

    def forget(self) -> None:
        """As in a process that has no helpers yet, which a fork is."""
        self.mailbox = _new_mailbox()
        self.wake: SimpleQueue[None] = SimpleQueue()
        self.size = self.resting = 0
        self.lock = threading.Lock()

    @property
    def patience(self) -> int:
        """How many pauses LINGER has.  What helpers run is compiled here too, as a process may end while they start.  No
        lock is held meanwhile, which a fork would leave locked: threads that come at once all find it out."""
        if self._patience is None:
            serve(self.mailbox, np.zeros(0, np.uint8), 0)
            pauses(1)
            self._patience = max(1, int(LINGER / min(timeit.repeat(lambda: pauses(100), number=1, repeat=5)) * 100))
        return self._patience

    def rest(self, seconds: float) -> None:
        """Called by a helper: be one fewer for a while."""
        with self.lock:
            self.resting += 1
        try:
            time.sleep(seconds)
        finally:
            with self.lock:
                self.resting -= 1

    def ready(self, helpers: int) -> int:
        """Start helpers that there are not yet and wake those that sleep; how many are to be had."""
        if self.size < helpers:
            with self.lock:
                while self.size < helpers:
                    try:
                        threading.Thread(target=_help, args=(self, self.mailbox, self.wake), name="npflows",
                                         daemon=True).start()  # fmt: skip
                    except RuntimeError:  # no more threads, or the interpreter is going down
                        break
                    self.size += 1
        helpers = max(0, min(helpers, self.size - self.resting))
        for _ in range(helpers - int(self.mailbox[LOOKING]) - self.wake.qsize()):
            self.wake.put(None)
        return helpers


def _help(pool: _Pool, mailbox: np.ndarray, wake: SimpleQueue[None]) -> None:
    """Serve as a helper.  One whose CPU others want as well would be kept waiting in the middle of a piece, and its caller
    with it: it takes no part for a while."""
    patience, n_bytes, crowded, rest = pool.patience, 0, 0, REST[0]
    try:
        while True:
            wake.get()
            wall, cpu = time.perf_counter(), time.thread_time()
            while answer := serve(mailbox, arena(n_bytes, np.dtype(np.uint8)), patience):
                n_bytes = max(n_bytes, answer)
                if answer < 0:
                    passed, used = time.perf_counter() - wall, time.thread_time() - cpu
                    crowded = crowded + 1 if passed - used > max(1e-3, 0.1 * passed) else 0
                    if crowded == CROWDED:
                        pool.rest(rest)
                        crowded, rest = 0, min(2 * rest, REST[1])
                    elif crowded == 0:
                        rest = REST[0]
                    wall, cpu = time.perf_counter(), time.thread_time()
    finally:  # no memory, for instance: others take its place
        with pool.lock:
            pool.size -= 1


_pool = _Pool()


def prepare() -> None:
    """Compile what helpers run, without starting any."""
    _ = _pool.patience


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.forget)


def run(function: Callable, kind: str, pieces: int, n_bytes: int, dtype: np.dtype, arguments: tuple) -> None:
    """Run a kernel on this thread and on as many helpers as `pieces` of work and the number of threads allow.

    The kernel, of a kind in compiler/calls.py, deals its pieces out itself: it gets `n_bytes` of each thread's own scratch
    memory as an array of `dtype`, a counter from whose first entry pieces are claimed, and the arguments.
    """
    helpers = min(get_num_threads(), pieces) - 1 if pieces > 1 and not DISABLED else 0
    counter = np.zeros(2, np.int64)
    arguments = (arena(n_bytes, dtype), counter, *arguments)
    if helpers < 1:
        function(*arguments)
        return
    mailbox, patience = _pool.mailbox, _pool.patience
    number, helpers, shared = address(function, kind, dtype), _pool.ready(helpers), share(kind, dtype)
    _settle()
    _local.shared = mailbox, counter, arguments
    try:
        try:
            shared(mailbox, number, helpers, n_bytes, patience, arguments)
        finally:  # a signal's error waits too: helpers still write to the caller's arrays
            while counter[1] == BUSY:
                time.sleep(NAP)
                wait(mailbox, 1, counter)
    finally:  # where another signal ended that wait
        while counter[1] == BUSY:
            time.sleep(NAP)
            wait(mailbox, 1, counter)
    _local.shared = None
    if counter[1] == ERROR:
        counter[:] = 0
        function(*arguments)  # again, alone, so that the error is raised here


def _settle() -> None:
    """Wait for the helpers of this thread's last work where one signal after the other ended every wait for them: they
    write to arrays that are kept for that, and hold the mailbox."""
    if _local.shared is None:
        return
    mailbox, counter, _ = _local.shared
    if mailbox is _pool.mailbox:  # and not that of the process that this one was forked from
        while counter[1] == BUSY:
            time.sleep(NAP)
            wait(mailbox, 1, counter)
    _local.shared = None


class _Local(threading.local):
    shared: tuple[np.ndarray, np.ndarray, tuple] | None = None
    memory = np.zeros(0, np.uint8)
    last: tuple[int, np.dtype | None, np.ndarray] = 0, None, memory


_local = _Local()
_ALIGN = 64


def arena(n_bytes: int, dtype: np.dtype) -> np.ndarray:
    """This thread's scratch memory on a 64-byte boundary, contents undefined, kept for the next call."""
    size, of, found = _local.last
    if size == n_bytes and of is dtype:
        return found
    if _local.memory.size < n_bytes:
        memory = np.empty(n_bytes + _ALIGN, np.uint8)
        start = -memory.ctypes.data % _ALIGN
        _local.memory = memory[start : start + n_bytes]
    found = _local.memory[:n_bytes].view(dtype)
    _local.last = n_bytes, dtype, found
    return found
