"""Lines of JSON between the race and its workers, one process for each contender.

A request is {"do": name, ...arguments}, its answer {"result": ...} or {"error": text}.  Arrays go through .npz files.  A
worker runs in the environment of its contender, so nothing but the standard library is imported here.
"""

from __future__ import annotations

import gc
import json
import math
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ANSWER = "answer: "
"""Before each answer: what a library prints as it is imported is passed over."""
ROOT = Path(__file__).resolve().parents[2]


class PeerError(RuntimeError):
    """A failure of a worker, in its own words."""


def serve(commands: Mapping[str, Callable[..., Any]]) -> None:
    """Answer requests until there are no more.  What else is printed goes to stderr."""
    sys.stdout.flush()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": commands[request.pop("do")](**request)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(f"{ANSWER}{json.dumps(answer)}\n")


class Worker:
    """A contender's process.

    Parameters
    ----------
    python : str
        The interpreter of its environment.
    script : str
        A file beside this one, or a path.
    environment : mapping of str
        Variables besides those of this process.
    """

    def __init__(self, python: str, script: str, environment: Mapping[str, str] | None = None) -> None:
        self.script = script
        variables = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
        self._process = subprocess.Popen(
            [python, "-W", "ignore", str(Path(__file__).parent / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=variables,
        )

    def __call__(self, do: str, **arguments: Any) -> Any:
        """The result of a command; raises PeerError with the worker's own message."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        lines = iter(self._process.stdout.readline, "")
        line = next((line for line in lines if line.startswith(ANSWER)), None)
        if line is None:
            raise PeerError(f"{self.script} ended with status {self._process.wait()}")
        answer = json.loads(line.removeprefix(ANSWER))
        if "error" in answer:
            raise PeerError(f"{self.script}, {do}: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def seconds_of(work: Callable[[], Any], at_least: float) -> list[float]:
    """Seconds of single calls, as many as fill `at_least` seconds; garbage is collected before and not in between."""
    gc.collect()
    gc.disable()
    try:
        seconds: list[float] = []
        until = time.perf_counter() + at_least
        while not seconds or time.perf_counter() < until:
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)
    finally:
        gc.enable()
    return seconds


def first_calls(work: Callable[[], Any], most: float) -> list[float]:
    """Seconds of the first call, and of a second one unless the first took `most`."""
    seconds = seconds_of(work, 0)
    return seconds if seconds[0] > most else seconds + seconds_of(work, 0)


def median_of(work: Callable[[], Any], at_least: float) -> float:
    """The median second of such calls."""
    return statistics.median(seconds_of(work, at_least))


def best_rate(work: Callable[[], Any], operations: float) -> float:
    """GFLOP/s of the fastest of the calls that fill half a second."""
    work()
    return 1e-9 * operations / min(seconds_of(work, 0.5))


def forget_peak() -> None:
    """Let the peak of resident memory start again, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def memory() -> dict[str, float]:
    """Resident memory of this process and its peak, in MB (10^6 bytes); NaN where /proc does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return {"now": math.nan, "peak": math.nan}
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return {"now": int(found["VmRSS"]) * 1.024e-3, "peak": int(found["VmHWM"]) * 1.024e-3}


def step_memory(step: Callable[[], Any]) -> float:
    """MB by which the second step's peak is above what there was before the first, which may compile."""
    gc.collect()
    before = memory()["now"]
    step()
    forget_peak()
    step()
    return memory()["peak"] - before
