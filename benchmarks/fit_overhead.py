"""The time that a fit spends outside compiled code: gathering and shuffling rows, validation, the progress display, Python.

    python benchmarks/fit_overhead.py [--quick]

prints two Markdown tables for a MAF of 5 layers, D=2, 64x64, in batches of 256, on one thread, so that no dispatch to
others is in it: what share of the fit's time lies outside the compiled calls, and a profile of that part.  All times are
CPU times of the thread, which neighbors on the machine change little.  What reading the clock costs is measured on calls
that do nothing and subtracted.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import os
import pstats
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import npflows
from benchmarks.common import machine
from benchmarks.speed_table import in_unit, table
from npflows.backends.cpu import adam, driver
from npflows.backends.cpu.kernels import adam as adam_kernels

ROWS, BATCH, AIM = 20_000, 256, 0.15
COMPILED = {"pullback": driver, "transport": driver, "combine": adam, "update": adam}
"""Compiled functions that a fit calls, and where it finds them."""
WRITTEN = {("pullback", driver), ("transport", driver), ("combine", adam_kernels), ("update", adam_kernels)}
"""The same, and where their text is, by which a profile knows them."""


class Ledger:
    """Seconds and calls of each compiled function while it stands in their place."""

    def __init__(self) -> None:
        self.seconds, self.calls = dict.fromkeys(COMPILED, 0.0), dict.fromkeys(COMPILED, 0)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        seconds, calls, clock = self.seconds, self.calls, time.thread_time

        def timed(*arguments: Any) -> Any:
            started = clock()
            result = function(*arguments)
            seconds[name] += clock() - started
            calls[name] += 1
            return result

        return timed

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for name, module in COMPILED.items():
                stack.enter_context(mock.patch.object(module, name, self.timed(name, getattr(module, name))))
            yield


def clock_cost() -> float:
    """Seconds by which timing a call lengthens what is around it, at least."""
    ledger, found = Ledger(), []
    nothing = ledger.timed("update", lambda *arguments: None)
    for _ in range(1000):
        before, started = ledger.seconds["update"], time.thread_time()
        nothing(1, 2, 3)
        found.append(time.thread_time() - started - (ledger.seconds["update"] - before))
    return min(found)


def fit(rows: np.ndarray, epochs: int, watched: contextlib.AbstractContextManager) -> float:
    """Seconds of a fit, all that it does counted."""
    flow = npflows.MAF(rows.shape[1], 5, (64, 64), rng=0)
    with watched:
        started = time.thread_time()
        flow.fit(rows, batch_size=BATCH, max_epochs=epochs, patience=None, rng=0, progress=True)
        return time.thread_time() - started


def shares(rows: np.ndarray, epochs: int, rounds: int) -> list[list[str]]:
    """Lines of the first table: the median round of each part, a step, and as a share of the whole."""
    cost, found = clock_cost(), []
    for _ in range(rounds):
        ledger = Ledger()
        whole = fit(rows, epochs, ledger.open()) - cost * sum(ledger.calls.values())
        outside = whole - sum(ledger.seconds.values())
        found.append([*ledger.seconds.values(), outside, outside + ledger.seconds["transport"], whole])
    seconds, steps = np.array(found), ledger.calls["update"]
    names = [f"compiled: {name}, {ledger.calls[name] / steps:.2f} calls" for name in COMPILED]
    lines = []
    for name, column in zip([*names, "outside compiled code", OVERHEAD, "the fit"], seconds.T):
        low, median, high = np.percentile(column / seconds[:, -1], [25, 50, 75])
        lines.append([name, f"{AIM:.0%}" if name == OVERHEAD else "", in_unit(np.median(column) / steps, "s"),
                      f"{median:.1%}", f"{low:.1%} to {high:.1%}"])  # fmt: skip
    return lines


OVERHEAD = "the same and transport, which is the validation"


def profile(rows: np.ndarray, epochs: int, n_lines: int) -> list[list[str]]:
    """Lines of the second table: the functions outside compiled code that take most themselves.  The profiler slows down
    Python functions and not what is built in."""
    profiler = cProfile.Profile(time.thread_time)
    fit(rows, epochs, profiler)
    entries = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    compiled = {(module.__file__, name) for name, module in WRITTEN}
    own = {key: entry for key, entry in entries.items() if (key[0], key[2]) not in compiled}
    steps = sum(entry[1] for key, entry in entries.items() if (key[0], key[2]) == (adam_kernels.__file__, "update"))
    total = sum(entry[2] for entry in own.values())
    lines = []
    for (file, line, name), (_, calls, seconds, *_) in sorted(own.items(), key=lambda item: -item[1][2])[:n_lines]:
        where = name if file == "~" else f"{'/'.join(Path(file).parts[-2:])}:{line} {name}"
        lines.append([where.strip("<>"), f"{calls / steps:.2f}", in_unit(seconds / steps, "s"), f"{seconds / total:.1%}"])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short fit of each kind, for CI")
    n, epochs, rounds = (2000, 1, 1) if parser.parse_args().quick else (ROWS, 10, 11)
    npflows.set_num_threads(1)
    rows = np.random.default_rng(0).standard_normal((n, 2))
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        fit(rows[:2000], 1, contextlib.nullcontext())  # compiles
        lines, profiled = shares(rows, epochs, rounds), profile(rows, epochs, 20)
    print(f"{machine()}\n\n{n:,} rows, {epochs} epochs, a tenth of the rows to validate on, the progress display on\n")
    print(table(["part", "aim at most", "a step", "share", "quartiles"], lines), end="\n\n")
    print(table(["outside compiled code", "calls a step", "a step, profiled", "share of these"], profiled))


if __name__ == "__main__":
    main()
