"""How train steps share two CPUs: threads of a process, processes beside each other, and a busy neighbor.

    python benchmarks/threads.py [--quick]

prints three Markdown tables.  Where the machine has more CPUs, two of them are used.  The CPU time of a step is shown as
well: it is what remains comparable where something else runs on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import npflows
from benchmarks.common import GLOW, TrainStep, machine, make_flow, make_glow, next_line, start_process
from benchmarks.speed_table import in_unit, table

STEPS: dict[str, tuple[Callable[[], TrainStep], str]] = {
    "MAF D=8, 64x64, B=4096": (lambda: TrainStep(make_flow("MAF", "D=8, 64x64"), 4096), "1.7"),
    "MAF D=8, 128x128, B=4096": (lambda: TrainStep(make_flow("MAF", "D=8, 128x128"), 4096), "1.7"),
    "RealNVP D=8, 64x64, B=4096": (lambda: TrainStep(make_flow("RealNVP", "D=8, 64x64"), 4096), "1.7"),
    "MAF D=8, 64x64, B=256": (lambda: TrainStep(make_flow("MAF", "D=8, 64x64"), 256), ""),
    f"Glow {GLOW}, B=32": (lambda: TrainStep(make_glow(), 32, 4), "1.7"),
    f"Glow {GLOW}, B=64": (lambda: TrainStep(make_glow(), 64, 4), "1.7"),
}
"""Train steps, and by what factor two threads should be faster than one."""
BESIDE_NEIGHBOR = ["MAF D=8, 64x64, B=4096", "MAF D=8, 64x64, B=256"]
PROCESSES = (2, 8)


class Budget(NamedTuple):
    """How long to measure."""

    rounds: int
    seconds: float
    """Of one measurement in a round."""


def two_cpus() -> list[int]:
    """Keep this process and its children to two CPUs; which, where the system can say."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    chosen = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, chosen)
    return chosen


def measured(step: Callable[[], object], seconds: float) -> tuple[np.ndarray, float]:
    """Seconds of each of the steps that fill some time, and CPU seconds of one on average."""
    found, cpu_started = [], time.process_time()
    end = time.perf_counter() + seconds
    while not found or time.perf_counter() < end:
        started = time.perf_counter()
        step()
        found.append(time.perf_counter() - started)
    return np.array(found), (time.process_time() - cpu_started) / len(found)


def scaling(name: str, budget: Budget) -> list[str]:
    """A line of the first table."""
    make, aim = STEPS[name]
    step = make()
    step()
    seconds, cpu = np.empty((2, budget.rounds, 2))
    for i in range(budget.rounds):
        for n_threads in (1, 2):
            npflows.set_num_threads(n_threads)
            each, cpu[i, n_threads - 1] = measured(step, budget.seconds)
            seconds[i, n_threads - 1] = np.median(each)
    low, ratio, high = np.percentile(seconds[:, 0] / seconds[:, 1], [25, 50, 75])
    return [name, aim, *(in_unit(value, "s") for value in np.median(seconds, axis=0)), f"{ratio:.2f}",
            f"{low:.2f} to {high:.2f}", *(in_unit(value, "s") for value in np.median(cpu, axis=0))]  # fmt: skip


def together(n: int, seconds: float) -> tuple[float, float]:
    """Train steps a second of n processes in sum, and train steps for each of their CPU seconds."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(start_process("train_for", seconds)) for _ in range(n)]
        for process in processes:
            next_line(process)
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        steps, elapsed, cpu = np.array([json.loads(next_line(process)) for process in processes]).T
    return float((steps / elapsed).sum()), float(steps.sum() / cpu.sum())


def processes(budget: Budget) -> list[list[str]]:
    """Lines of the second table."""
    rates = np.array([[together(n, budget.seconds) for n in PROCESSES] for _ in range(budget.rounds)])
    lines = []
    for i, n in enumerate(PROCESSES):
        (rate, efficiency), ratios = np.median(rates[:, i], axis=0), rates[:, i, 0] / rates[:, 0, 0]
        low, ratio, high = np.percentile(ratios, [25, 50, 75])
        lines.append([str(n), "" if i == 0 else "1", f"{rate:,.0f}", f"{ratio:.2f}", f"{low:.2f} to {high:.2f}",
                      f"{efficiency:,.0f}"])  # fmt: skip
    return lines


@contextlib.contextmanager
def neighbor(cpus: list[int]) -> Iterator[None]:
    """A process that does nothing but hold a CPU, the second of them."""
    with start_process("be_busy", cpus[1] if len(cpus) > 1 else -1) as process:
        next_line(process)
        yield
        assert process.stdin is not None
        process.stdin.close()


def beside(name: str, cpus: list[int], budget: Budget) -> list[list[str]]:
    """Lines of the third table."""
    step = STEPS[name][0]()
    step()
    lines = []
    for n_threads in (1, 2):
        npflows.set_num_threads(n_threads)
        found: dict[bool, list[tuple[np.ndarray, float]]] = {False: [], True: []}
        for _ in range(budget.rounds):
            found[False].append(measured(step, budget.seconds))
            with neighbor(cpus):
                found[True].append(measured(step, budget.seconds))
        alone = np.median(np.concatenate([each for each, _ in found[False]]))
        for is_beside, parts in found.items():
            each = np.concatenate([each for each, _ in parts])
            values = *np.percentile(each, [50, 99, 99.9]), np.mean([cpu for _, cpu in parts])
            cells = [in_unit(value, "s") for value in values]
            lines.append([name, str(n_threads), "busy" if is_beside else "none", *cells[:3],
                          f"{np.median(each) / alone:.2f}", cells[3]])  # fmt: skip
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, for CI")
    quick = parser.parse_args().quick
    budget = Budget(1, 0.05) if quick else Budget(15, 0.5)
    cpus = two_cpus()
    print(machine(), end="\n\n")
    head = ["train step", "aim", "one thread", "two threads", "ratio", "quartiles", "CPU time, one", "CPU time, two"]
    print(table(head, [scaling(name, budget) for name in STEPS]), end="\n\n")
    head = ["processes of one thread", "aim", "steps a second in sum", "ratio", "quartiles", "steps a CPU second"]
    print(table(head, processes(Budget(1, 0.2) if quick else Budget(5, 5.0))), end="\n\n")
    head = ["train step", "threads", "neighbor", "median", "99 %", "99.9 %", "over the median alone", "CPU time"]
    print(table(head, [line for name in BESIDE_NEIGHBOR for line in beside(name, cpus, budget)]))


if __name__ == "__main__":
    main()
