"""Processes killed while they save: `python tests/fuzz/kills.py [N] [SEED]` kills N and says whether a file was lost.

A forked child saves one flow and another to one path, over and over, until it is killed at a random moment.  The file must
then be one of the two, and the next save must leave nothing else in the folder.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import npflows
from npflows.core import atomic


def kills(n: int, seed: int = 0) -> int:
    """Kill n processes; the number of failures."""
    draw, failures, found = random.Random(seed), [], [0, 0]
    flows = [npflows.MAF(4, 2, (64, 64), rng=i) for i in range(2)]
    atomic.STALE = -1.0  # so that the next save sweeps at once
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flow.npz"
        flows[0].save(path)
        for i in range(n):
            pid = os.fork()
            if pid == 0:
                while True:
                    for flow in flows:
                        flow.save(path)
            time.sleep(draw.uniform(0.0, 0.02))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            try:
                loaded = npflows.load(path).params
            except Exception as error:
                failures.append(f"kill {i}: {type(error).__name__}: {error}")
                flows[0].save(path)
                continue
            same = [np.array_equal(loaded, flow.params) for flow in flows]
            found[same.index(True) if any(same) else 0] += 1
            if not any(same):
                failures.append(f"kill {i}: the file holds another flow")
        flows[1].save(path)
        if os.listdir(folder) != ["flow.npz"]:
            failures.append(f"left in the folder: {os.listdir(folder)}")
    print(f"{n} processes killed while they saved (seed {seed}): {found[0]} and {found[1]} times one flow and the other, "
          f"{len(failures)} failures")  # fmt: skip
    for failure in failures[:10]:
        print("  FAILED", failure)
    return len(failures)


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    sys.exit(kills(*(given or [100])) > 0)
