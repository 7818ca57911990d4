"""Where the time of a train step goes: kernels and all else, by samples of perf (Linux).

    NPFLOWS_NUM_THREADS=1 python benchmarks/profile_step.py "MAF" "D=8, 64x64" 256 [--seconds 5]

prints the share and the microseconds of a step that each compiled kernel, each library and Python's interpreter take.
What is inlined into a kernel counts as the kernel.  For vectors of 256 bits set NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=.
"""

from __future__ import annotations

import argparse
import bisect
import collections
import gc
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from numba.core.dispatcher import Dispatcher

from benchmarks.common import MODELS, SIZES, TrainStep, machine, make_flow

EVENT, FREQUENCY = "cpu-clock", 4000


def kernels() -> list[tuple[int, str]]:
    """Where the machine code of every compiled kernel of this process begins, in order."""
    found = []
    for thing in gc.get_objects():
        if isinstance(thing, Dispatcher) and thing.py_func.__module__.startswith("npflows"):
            module = thing.py_func.__module__.rsplit(".", 1)[-1]
            for result in thing.overloads.values():
                for name in {result.fndesc.llvm_func_name, result.fndesc.llvm_cpython_wrapper_name}:
                    try:
                        where = result.library.get_pointer_to_function(name)
                    except (RuntimeError, KeyError):
                        continue
                    if where:
                        found.append((where, f"{module}.{thing.py_func.__name__}"))
    return sorted(found)


def where(address: int, library: str, starts: list[int], names: list[str]) -> str:
    """What the code at an address belongs to."""
    if ("/" in library or "[kernel" in library) and "/perf-" not in library:
        return Path(library.strip("()")).name
    place = bisect.bisect_right(starts, address) - 1
    return names[place] if place >= 0 else "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("batch", type=int)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    step = TrainStep(make_flow(arguments.model, arguments.size), arguments.batch)
    for _ in range(20):
        step()
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/perf.data"
        command = ["perf", "record", "-q", "-e", EVENT, "-F", str(FREQUENCY), "-p", str(os.getpid()), "-o", data]
        recorder = subprocess.Popen(command)
        n, start = 0, time.perf_counter()
        while time.perf_counter() - start < arguments.seconds:
            step()
            n += 1
        seconds = time.perf_counter() - start
        recorder.terminate()
        recorder.wait()
        script = subprocess.run(["perf", "script", "-i", data, "-F", "ip,dso"], check=True, text=True, capture_output=True)
    known = kernels()
    starts, names = [a for a, _ in known], [name for _, name in known]
    counts: collections.Counter[str] = collections.Counter()
    for line in script.stdout.splitlines():
        address, _, library = line.strip().partition(" ")
        counts[where(int(address, 16), library, starts, names)] += 1
    total = sum(counts.values())
    print(machine())
    work = f"train step {arguments.model} {arguments.size}, B={arguments.batch}"
    print(f"{work}: {1e6 * seconds / n:.0f} us, {total} samples\n")
    print("| what | share | us a step |\n| --- | --- | --- |")
    for name, count in counts.most_common(16):
        print(f"| {name} | {100 * count / total:.1f} % | {1e6 * seconds / n * count / total:.1f} |")


if __name__ == "__main__":
    main()
