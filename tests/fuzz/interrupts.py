"""Ctrl-C at random moments: `python tests/fuzz/interrupts.py [N] [SEED]` interrupts N calls and says what came of it.

Flows are saved, evaluated on several threads and fitted while a timer raises KeyboardInterrupt.  It must come out as
itself; the file must be the old or the new one; helpers must be free; and the next call must give the same bits.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

import npflows
from npflows.backends.cpu.threads import mailbox, pool

X = np.random.default_rng(0).normal(size=(3000, 4))


def _interrupt(number, frame):
    raise KeyboardInterrupt


class Campaign:
    """The flow, the file and what became of all interrupts."""

    def __init__(self, folder: Path, draw: random.Random) -> None:
        self.draw, self.path, self.counts, self.failures = draw, folder / "flow.npz", Counter(), []
        self.flows = [npflows.MAF(4, 2, (64, 64), rng=i) for i in range(2)]
        self.expected = self.flows[0].log_prob(X)
        self.flows[0].save(self.path)

    def interrupted(self, what: str, call, longest: float) -> None:
        """Make a call that is interrupted after a time of at most `longest` seconds."""
        try:
            signal.setitimer(signal.ITIMER_REAL, self.draw.uniform(1e-5, longest))
            call()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            self.counts[f"{what}: interrupted"] += 1
        except Exception as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.fail(what, f"{type(error).__name__}: {error}")
        else:
            self.counts[f"{what}: done before"] += 1

    def fail(self, what: str, how: str) -> None:
        self.failures.append(f"{what}: {how}")

    def save(self, i: int) -> None:
        self.interrupted("save", lambda: self.flows[i % 2].save(self.path), 4e-3)
        loaded = npflows.load(self.path).params
        if not any(np.array_equal(loaded, flow.params) for flow in self.flows):
            self.fail("save", "the file holds another flow")

    def evaluate(self, i: int) -> None:
        self.interrupted("log_prob", lambda: self.flows[0].log_prob(X), 2e-3)
        self.settled("log_prob")

    def fit(self, i: int) -> None:
        flow = npflows.MAF(4, 1, (16,), rng=2)
        self.interrupted("fit", lambda: flow.fit(X, max_epochs=3, rng=0, progress=False), 0.1)
        self.settled("fit")
        if not np.isfinite(flow.params).all() or any(len(values) > 3 for values in flow.history.values()):
            self.fail("fit", "the flow is none that the run can leave")

    def settled(self, what: str) -> None:
        """Helpers are done with the arrays, and the next call gives what it always gave."""
        deadline = time.monotonic() + 10
        while pool._pool.mailbox[mailbox.GATE] and time.monotonic() < deadline:
            time.sleep(1e-4)
        if pool._pool.mailbox[mailbox.GATE]:
            self.fail(what, "helpers still have the arrays")
        if not np.array_equal(self.flows[0].log_prob(X), self.expected):
            self.fail(what, "the next call gives other bits")


def interrupts(n: int, seed: int = 0) -> int:
    """Interrupt n calls; the number of failures."""
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda told: None  # of files that an interrupt left to the garbage collector
    npflows.set_num_threads(2)
    before = signal.signal(signal.SIGALRM, _interrupt)
    with tempfile.TemporaryDirectory() as folder:
        run = Campaign(Path(folder), random.Random(seed))
        try:
            for i in range(n):
                (run.save if i % 2 else run.fit if i % 20 == 0 else run.evaluate)(i)
        finally:
            signal.signal(signal.SIGALRM, before)
        run.flows[0].save(run.path)
    print(f"{n} calls with an interrupt at a random moment (seed {seed}): {len(run.failures)} failures")
    for name, count in sorted(run.counts.items()):
        print(f"  {count:7,} {name}")
    for failure in run.failures[:10]:
        print("  FAILED", failure)
    return len(run.failures)


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    sys.exit(interrupts(*(given or [400])) > 0)
