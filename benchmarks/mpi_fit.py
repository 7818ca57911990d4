"""How fits scale over ranks of MPI on one machine, what the ordered sum and the rows' travel cost, and where it ends.

    python benchmarks/mpi_fit.py [--quick]

needs mpi4py and an MPI whose `mpiexec` is beside this Python or in PATH, and two CPUs.  It prints the time of a step by one
rank and by two, each on a CPU of its own, and by two threads of one process; where something else runs on the machine, CPU
time and the fastest calls of MPI say what it would be.  Then comes a table of latency and bandwidth of an exchange between
two ranks, and what the steps of more ranks would take, computed from the two.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import npflows
from benchmarks.common import MODELS, SIZES
from npflows.training.communicator import cuts
from npflows.training.shared import sums_left

FLOWS = {"MAF D=8 128x128": ("MAF", "D=8, 128x128"), "coupling spline D=7 128x128": ("coupling spline", "D=7, 128x128")}
BATCH = 4096
"""Rows of a step for each rank."""
STEPS, EPOCHS = 4, 12
"""Steps of an epoch, and epochs; the first one is not counted."""
SIZES_OF_MESSAGES = tuple(1 << k for k in range(6, 25, 3))
PARTS = ("rows", "log-densities", "buffers", "sum")
"""What travels in a step."""


KINDS_OF_CALLS = {
    ("exchange", 2): "rows", ("gather", 8): "log-densities", ("exchange", 1): "buffers", ("gather", 4): "sum",
    ("sum", 1): "sum",
}  # fmt: skip
"""What travels, by the method of the communicator and the bytes or axes of its argument."""


class Watch:
    """What the calls of a communicator take: the least time of each kind, and the CPU time of all together."""

    def __init__(self) -> None:
        self.least: dict[str, float] = {}
        self.inside = 0.0

    def follow(self, comm_class: Any) -> None:
        """Time the methods of a class from now on."""
        for name in ("exchange", "gather", "sum"):
            setattr(comm_class, name, self._timed(getattr(comm_class, name), name))

    def _timed(self, method: Callable, name: str) -> Callable:
        def measured(comm: Any, rows: np.ndarray, *arguments: Any) -> Any:
            started, cpu = time.perf_counter(), time.thread_time()
            result = method(comm, rows, *arguments)
            self.inside += time.thread_time() - cpu
            kind = KINDS_OF_CALLS.get((name, rows.dtype.itemsize if name == "gather" else rows.ndim))
            if kind is not None:
                self.least[kind] = min(self.least.get(kind, math.inf), time.perf_counter() - started)
            return result

        return measured


def work(flow_name: str, exact: bool) -> None:
    """Measure the steps of a fit: one of the processes that `mpiexec` starts."""
    from mpi4py import MPI

    from npflows.training.mpi import MpiCommunicator

    comm, watch = MPI.COMM_WORLD, Watch()
    if hasattr(os, "sched_setaffinity") and comm.size > 1:
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cpus[comm.rank % len(cpus)]})
    watch.follow(MpiCommunicator)
    kind, size = FLOWS[flow_name]
    dim, hidden = SIZES[size]
    threads = int(os.environ["NPFLOWS_NUM_THREADS"])
    x = np.random.default_rng(comm.rank).standard_normal((STEPS * BATCH * (threads if comm.size == 1 else 1), dim))
    marks: list[float] = []
    flow = MODELS[kind](dim, hidden, rng=0)
    flow.fit(x, comm=comm if comm.size > 1 else None, exact=exact, batch_size=BATCH * comm.size * threads, rng=0,
             validation_fraction=0, max_epochs=EPOCHS, progress=False, patience=None,
             callbacks=lambda flow, record: marks.append(time.thread_time() - watch.inside))  # fmt: skip
    step = float(min(flow.history["seconds"][1:])) / STEPS
    cpu = comm.allreduce(float(np.diff(marks).min()) / STEPS, MPI.MAX)
    least = {name: comm.allreduce(seconds, MPI.MIN) for name, seconds in sorted(watch.least.items())}
    if comm.rank == 0:
        print(json.dumps({"step": step, "cpu": cpu, "least": least, "parameters": flow.num_params}))


def exchanges() -> None:
    """Measure what it takes two ranks to exchange messages of several sizes."""
    from mpi4py import MPI

    comm, rows = MPI.COMM_WORLD, []
    for size in SIZES_OF_MESSAGES:
        out, into = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
        times = []
        for _ in range(30):
            comm.Barrier()
            started = time.perf_counter()
            comm.Sendrecv(out, 1 - comm.rank, recvbuf=into)
            times.append(time.perf_counter() - started)
        rows.append([size, float(np.median(times))])
    if comm.rank == 0:
        print(json.dumps(rows))


def mpiexec() -> str:
    """The launcher, beside this Python or in PATH."""
    here = str(Path(sys.executable).parent)
    found = shutil.which("mpiexec", path=os.pathsep.join([here, os.environ.get("PATH", "")]))
    if found is None:
        raise SystemExit("there is no mpiexec: pip install mpi4py mpich")
    return found


def launch(ranks: int, threads: int, *arguments: str) -> Any:
    """What rank 0 of some processes prints."""
    command = [mpiexec(), "-n", str(ranks), sys.executable, __file__, *arguments]
    environment = {**os.environ, "NPFLOWS_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = [line for line in done.stdout.splitlines() if line[:1] in "[{"]
    if done.returncode or not lines:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr}")
    return json.loads(lines[-1])


KINDS = {
    "one rank": (1, 1, "exact"),
    "two ranks": (2, 1, "exact"),
    "two ranks, exact=False": (2, 1, "plain"),
    "two threads": (1, 2, "exact"),
}


def merged(one: dict[str, Any] | None, other: dict[str, Any]) -> dict[str, Any]:
    """The least of two measurements of the same."""
    if one is None:
        return other
    least = {name: min(one["least"][name], seconds) for name, seconds in other["least"].items()}
    return {**other, "step": min(one["step"], other["step"]), "cpu": min(one["cpu"], other["cpu"]), "least": least}


def measure(rounds: int) -> dict[str, dict[str, Any]]:
    """The fastest step of each kind, in several rounds of all kinds."""
    found: dict[str, dict[str, Any]] = {}
    for flow_name in FLOWS:
        of_flow = found.setdefault(flow_name, {})
        for _ in range(rounds):
            for kind, (ranks, threads, how) in KINDS.items():
                of_flow[kind] = merged(of_flow.get(kind), launch(ranks, threads, "--work", flow_name, "--how", how))
        alone = of_flow["one rank"]
        print(f"\n{flow_name}, {alone['parameters']:,} parameters, B={BATCH} a rank or thread; ms a step\n")
        print("| | in all | times one rank's rows | CPU outside of MPI | " + " | ".join(PARTS) + " | times, undisturbed |")
        print("| --- | " + "--: | " * (len(PARTS) + 4))
        for kind, one in of_flow.items():
            share = 1 if kind == "one rank" else 2
            parts = " | ".join(f"{1e3 * one['least'][name]:.2f}" if name in one["least"] else "-" for name in PARTS)
            quiet = alone["cpu"] / (one["cpu"] + sum(one["least"].values())) * share
            shown = "-" if kind == "two threads" else f"{quiet:.2f}"
            times = alone["step"] / one["step"] * share
            print(
                f"| {kind} | {1e3 * one['step']:.1f} | {times:.2f} | {1e3 * one['cpu']:.1f} | {parts} | {shown} |",
                flush=True,
            )
    return found


NETWORKS = {"shared memory, as measured": None, "100 Gbit/s, 2 us": (2e-6, 12.5e9), "10 Gbit/s, 20 us": (20e-6, 1.25e9)}
RANKS = (1, 2, 8, 64, 256, 1024)
BATCHES = (1 << 13, 1 << 15, 1 << 18, 1 << 22)
NUMBERS_PER_ROW = 50e-9
"""Seconds that every rank spends on each row of the whole batch: a permutation, and finding the rows that it has."""


def buffers(n: int, n_bytes: int) -> int:
    """Gradient buffers of a batch, as `npflows.backends.cpu.program` counts them."""
    blocks = -(-n // (256 if n >= 2048 else 128))
    return min(blocks, max(8, blocks // 4), max(4, (1 << 26) // n_bytes))


def step_time(n: int, ranks: int, row: float, p: int, d: int, latency: float, bandwidth: float, exact: bool) -> float:
    """The time of a step in the model: rows of the busiest rank, and four collective calls.

    An exchange is one message to each other rank, in turn; a gathering is a ring or, of short ones, log2(ranks) rounds.
    """
    count = buffers(n, 4 * p)
    busiest = -(-count // ranks)
    seconds = n / count * busiest * row + n * NUMBERS_PER_ROW
    if ranks == 1:
        return seconds
    others, rounds = min(ranks, count) - 1, math.ceil(math.log2(ranks))
    seconds += others * latency + n / min(ranks, count) * 8 * d / bandwidth  # the rows
    seconds += rounds * latency + 8 * n / bandwidth  # the log-densities
    if exact:
        left = [len(sums_left(*part, count)) for part in itertools.pairwise(cuts(count, ranks))]
        seconds += (ranks - 1) * latency + 4 * p * max(*left, sum(left) / ranks) / bandwidth  # sums of some buffers
        seconds += rounds * latency + 4 * p / bandwidth  # their sum
    else:
        seconds += 2 * rounds * latency + 2 * 4 * p / bandwidth
    return seconds


def model(found: dict[str, dict[str, Any]], table: list[list[float]]) -> None:
    """Print what steps of more ranks would take."""
    sizes, times = np.array(table).T
    measured = float(times[0]), float(sizes[-1] / times[-1])
    print("\n| bytes | us to exchange | GB/s |\n| --: | --: | --: |")
    for size, seconds in table:
        print(f"| {size:,} | {1e6 * seconds:.1f} | {size / seconds / 1e9:.2f} |")
    for flow_name, (_, size) in FLOWS.items():
        one = found[flow_name]["one rank"]
        print(f"\n{flow_name}: times one rank's rows a second, computed; exact, and with the plain all-reduce\n")
        print("| network | batch | buffers | " + " | ".join(f"{r:,} ranks" for r in RANKS[1:]) + " |")
        print("| --- | --: | --: |" + " --: |" * len(RANKS[1:]))
        for network, numbers in NETWORKS.items():
            for n in BATCHES:
                cells = []
                for ranks in RANKS[1:]:
                    row, p = one["cpu"] / BATCH, one["parameters"]
                    given = (n, ranks, row, p, SIZES[size][0], *(numbers or measured))
                    cells.append(" and ".join(f"{n * row / step_time(*given, exact):.0f}" for exact in (True, False)))
                print(f"| {network} | {n:,} | {buffers(n, 4 * one['parameters'])} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--how", default="exact", help=argparse.SUPPRESS)
    parser.add_argument("--exchanges", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.exchanges:
        exchanges()
    elif a.work:
        work(a.work, a.how == "exact")
    else:
        print(f"npflows {npflows.__version__}")
        found = measure(1 if a.quick else 3)
        model(found, launch(2, 1, "--exchanges"))


if __name__ == "__main__":
    main()
