"""Forks in the middle of compiling and loading: `python tests/fuzz/forks.py [N]` makes N of them and says how many hung.

In a thread one small kernel after the other is compiled, or loaded from the disk cache, while the main thread forks at
random moments; each child compiles a kernel of its own, evaluates a flow, and must end within its time.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import warnings

import numpy as np

import npflows
from npflows.backends.cpu.compiler.jit import kernel
from npflows.backends.cpu.threads.mailbox import pauses

SECONDS = 60
"""What a child may take."""


def small(number: int):
    """A kernel that nobody has compiled yet."""
    space: dict = {"__name__": __name__}
    exec(f"def f(x):\n    for i in range(x.size):\n        x[i] = x[i] * {number} + {number}.5\n", space)
    return kernel(space["f"])


def in_child(flow: npflows.MAF, x: np.ndarray, expected: np.ndarray, number: int) -> int:
    """What a child does: its exit status."""
    try:
        values = np.ones(4)
        small(number)(values)
        return 0 if (values == 2 * number + 0.5).all() and (flow.log_prob(x) == expected).all() else 1
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        return 2


def forks(n: int, seed: int = 0) -> dict[int, int]:
    """Fork n times; how often each exit status came, that of a child that hung being that of its alarm."""
    warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)
    flow, x = npflows.MAF(2, 1, (4,), rng=0), np.random.default_rng(0).normal(size=(3000, 2))
    expected, stop, draw = flow.log_prob(x), threading.Event(), random.Random(seed)
    compiled = 0

    def compile_on() -> None:
        nonlocal compiled
        while not stop.is_set():
            compiled += 1
            small(1000 + compiled)(np.ones(4))
            kernel(pauses.py_func)(1)  # is loaded
            flow.log_prob(x)

    thread = threading.Thread(target=compile_on)
    thread.start()
    statuses: dict[int, int] = {}
    try:
        for i in range(n):
            time.sleep(draw.uniform(0, 0.1))
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(SECONDS)
                os._exit(in_child(flow, x, expected, 10 + i))
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            statuses[status] = statuses.get(status, 0) + 1
    finally:
        stop.set()
        thread.join()
    fine = statuses.get(0, 0)
    print(f"{n} forks while {compiled} kernels were compiled: {fine} children went on, {n - fine} hung or failed")
    return statuses


if __name__ == "__main__":
    asked = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    sys.exit(forks(asked) != {0: asked})
