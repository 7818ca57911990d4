"""Parts that benchmarks share: sizes, flows, a train step, interleaved timing, fresh processes, the machine."""

from __future__ import annotations

import gc
import itertools
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np

import npflows
from npflows.backends.cpu.kernels.tiles import VECTOR_BYTES
from npflows.training.likelihood import LikelihoodTrainer
from npflows.training.rows import Rows
from npflows.training.schedules import Schedule

QUICK = os.environ.get("NPFLOWS_BENCH_QUICK", "") not in ("", "0")
"""Whether this is a pass for CI: every benchmark once, at its smallest size."""

SIZES = {
    "D=2, 64x64": (2, (64, 64)),
    "D=8, 64x64": (8, (64, 64)),
    "D=7, 128x128": (7, (128, 128)),
    "D=8, 128x128": (8, (128, 128)),
    "D=64, 512x512": (64, (512, 512)),
}
"""Columns and hidden units."""
MODELS: dict[str, Callable[..., npflows.NormalizingFlow]] = {
    "MAF": lambda dim, hidden, **options: npflows.MAF(dim, 5, hidden, **options),
    "IAF": lambda dim, hidden, **options: npflows.IAF(dim, 5, hidden, **options),
    "RealNVP": lambda dim, hidden, **options: npflows.RealNVP(dim, 8, hidden, "half", **options),
    "coupling spline": lambda dim, hidden, **options: npflows.NeuralSplineFlow(
        dim, 8, hidden, num_bins=8, affine_ends=False, **options
    ),
    "autoregressive spline": lambda dim, hidden, **options: npflows.NeuralSplineFlow(
        dim, 5, hidden, num_bins=8, conditioner="autoregressive", affine_ends=False, **options
    ),
}
GLOWS = {
    "8x8x1, 2 scales x 1 block, width 16": ((8, 8, 1), 2, 1, (16, 16)),
    "32x32x1, 3 scales x 4 blocks, width 64": ((32, 32, 1), 3, 4, (64, 64)),
    "32x32x3, 3 scales x 6 blocks, width 512": ((32, 32, 3), 3, 6, (512, 512)),
}
"""Shape of the images, scales, blocks of each, channels of the hidden convolutions."""
SMALL_GLOW, GLOW, WIDE_GLOW = GLOWS
DTYPES = ("float32", "float64")


def few(*values: Any) -> list[Any]:
    """The values of a benchmark's parameter, the cheapest first; that one alone in a quick pass."""
    return list(values[:1] if QUICK else values)


def make_flow(model: str, size: str, dtype: str = "float32") -> npflows.NormalizingFlow:
    """A flow that is not the identity."""
    dim, hidden = SIZES[size]
    return perturbed(MODELS[model](dim, hidden, dtype=dtype, rng=0))


def make_glow(size: str = GLOW, dtype: str = "float32") -> npflows.NormalizingFlow:
    """A flow of images that is not the identity."""
    return perturbed(npflows.Glow(*GLOWS[size], dtype=dtype, rng=0))


Parametrized = TypeVar("Parametrized", bound=Any)


def perturbed(thing: Parametrized) -> Parametrized:
    """A flow or a layer, its parameters moved a little."""
    thing.params = thing.params + 0.01 * np.random.default_rng(1).standard_normal(thing.num_params)
    return thing


def make_data(n: int, dim: int, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(2).standard_normal((n, dim)).astype(dtype)


class TrainStep:
    """All that `fit` does for one batch: gather its rows, loss, gradient, clip, Adam."""

    def __init__(
        self,
        flow: npflows.NormalizingFlow,
        batch_size: int,
        n_batches: int = 16,
        *,
        x: np.ndarray | None = None,
        clip_norm: float | None = 5.0,
    ) -> None:
        n = n_batches * batch_size if x is None else len(x)
        buffer, rng = flow.parameters, np.random.default_rng(3)
        optimizer = flow.executable().optimizer(buffer.theta, buffer.free, 0.0, clip_norm)
        rows = Rows(make_data(n, flow.input_dim, flow.dtype.name) if x is None else x, np.arange(n))
        schedule = Schedule("constant", 1e-3, 1, 0, 1)
        self.trainer = LikelihoodTrainer(flow, rows, None, batch_size=batch_size, schedule=schedule, optimizer=optimizer,
                                         ema=None, rng=rng)  # fmt: skip
        self._batches = itertools.cycle(np.array_split(rng.permutation(n), n_batches))

    def __call__(self, rows: np.ndarray | None = None) -> None:
        trainer = self.trainer
        batch = next(self._batches) if rows is None else rows
        _, taken, *_ = trainer.run_step(batch, trainer.schedule.rate(trainer.step))
        if not taken:
            raise RuntimeError("a step was not finite")


Repeat = Callable[[int], object]
"""Does a piece of work so many times."""


def repeated(call: Callable[[], object]) -> Repeat:
    def run(repeats: int) -> None:
        for _ in range(repeats):
            call()

    return run


def interleaved(work: Mapping[Any, Repeat], rounds: int, at_least: float) -> dict[Any, np.ndarray]:
    """Seconds that each piece of work takes in each round, all of them in every round, so that drift meets all alike.

    In a round it is done as often as fills `at_least` seconds.  Garbage is collected before, and not in between.
    """
    repeats = {name: _enough(run, at_least) for name, run in work.items()}
    seconds = {name: np.empty(rounds) for name in work}
    gc.collect()
    gc.disable()
    try:
        for i in range(rounds):
            for name, run in work.items():
                seconds[name][i] = _timed(run, repeats[name]) / repeats[name]
    finally:
        gc.enable()
    return seconds


def _timed(run: Repeat, repeats: int) -> float:
    started = time.perf_counter()
    run(repeats)
    return time.perf_counter() - started


def _enough(run: Repeat, at_least: float) -> int:
    """How many repeats take that long; the first one, which compiles, is not counted."""
    run(1)
    repeats, seconds = 1, _timed(run, 1)
    while seconds < at_least:
        repeats = max(repeats + 1, math.ceil(repeats * min(10.0, 1.1 * at_least / seconds)))
        seconds = _timed(run, repeats)
    return repeats


def start_process(function: str, *arguments: object, cache: str | None = None) -> subprocess.Popen[str]:
    """A process that runs a function of children.py; `cache` is the folder for compiled kernels, by default that of this
    process."""
    paths = [Path(npflows.__file__).parents[1], Path(__file__).parents[1]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(path.resolve()) for path in paths)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = cache
    command = [sys.executable, "-m", "benchmarks.children", function, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, cwd=tempfile.gettempdir(), stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)  # fmt: skip


def next_line(process: subprocess.Popen[str]) -> str:
    """The next line that a process prints."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args} ended with status {process.wait()}")
    return line.strip()


def in_fresh_process(function: str, *arguments: object, cache: str | None = None) -> tuple[float, str]:
    """Seconds from the start of a process to the first line that a function of children.py prints in it, and that line."""
    started = time.perf_counter()
    with start_process(function, *arguments, cache=cache) as process:
        line = next_line(process)
        seconds = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with status {process.returncode}")
    return seconds, line


def machine() -> str:
    """One line: CPU, threads, versions."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return (
        f"{cpu}, {os.cpu_count()} CPUs, vectors of {8 * VECTOR_BYTES} bits, {npflows.get_num_threads()} threads; "
        f"{platform.system()}, Python {platform.python_version()}, NumPy {np.__version__}, Numba {numba.__version__}, "
        f"npflows {npflows.__version__}"
    )
