"""The waits of a fresh process: the import, the first result from cached kernels, the first step without a cache and with
kernels that were made for all CPUs of a level."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

import npflows
from npflows.warmup import warmup

from .common import QUICK, few, in_fresh_process, make_flow, make_glow

ROUNDS = 1 if QUICK else 7


class Import:
    """Seconds of `import npflows` after `import numba`."""

    unit = "s"
    timeout = 180

    def track_beyond_numba(self) -> float:
        in_fresh_process("import_beyond_numba")  # files are read from disk, bytecode written
        return float(np.median([float(in_fresh_process("import_beyond_numba")[1]) for _ in range(ROUNDS)]))


class WarmCache:
    """Seconds from the start of a process to the first log_prob of a flow that it loads: D=8, 64x64, or a Glow for
    images of 32x32x1."""

    params = few("MAF", "RealNVP", "coupling spline", "Glow")
    param_names = ["model"]
    unit = "s"
    timeout = 180

    def setup(self, model: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name, "flow.npz")
        flow = make_glow() if model == "Glow" else make_flow(model, "D=8, 64x64")
        flow.save(self.file)
        in_fresh_process("first_log_prob", self.file)
        in_fresh_process("first_embedded_call", self.file)

    def teardown(self, model: str) -> None:
        self.folder.cleanup()

    def track_first_log_prob(self, model: str) -> float:
        return float(np.median([in_fresh_process("first_log_prob", self.file)[0] for _ in range(ROUNDS)]))

    def track_first_embedded_call(self, model: str) -> float:
        """Seconds of `embed` and one call, after the imports and `load`."""
        return float(np.median([float(in_fresh_process("first_embedded_call", self.file)[1]) for _ in range(ROUNDS)]))


class EmptyCache:
    """Seconds from the start of a process to the end of its first train step with every kernel to compile."""

    params = few("MAF", "IAF", "RealNVP", "NeuralSplineFlow", "Glow")
    param_names = ["model"]
    unit = "s"
    timeout = 600

    def track_first_train_step(self, model: str) -> float:
        seconds = []
        for _ in range(1 if QUICK else 3):
            with tempfile.TemporaryDirectory() as cache:
                seconds.append(in_fresh_process("first_train_step", model, cache=cache)[0])
        return float(np.median(seconds))


SHORT = {"MAF": "maf", "NeuralSplineFlow": "spline", "Glow": "glow"}


class _Portable:
    """A set of kernels for all CPUs of x86-64-v3, and a flow in a file."""

    params = few(*SHORT)
    param_names = ["model"]
    timeout = 900

    def setup(self, model: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.kernels, self.file = Path(self.folder.name, "kernels"), Path(self.folder.name, "flow.npz")
        try:
            warmup(SHORT[model], target="x86-64-v3", into=self.kernels)
        except ValueError as error:  # another kind of CPU
            raise NotImplementedError(str(error)) from error
        flow = make_glow() if model == "Glow" else getattr(npflows, model)(8, hidden_dims=(64, 64), rng=0)
        flow.save(self.file)

    def teardown(self, model: str) -> None:
        self.folder.cleanup()

    def median(self, *task: object) -> float:
        cache = str(self.kernels)
        return float(np.median([in_fresh_process(*map(str, task), cache=cache)[0] for _ in range(ROUNDS)]))


class PortableKernels(_Portable):
    """Seconds from the start of a process to the end of its first log_prob or train step with such a set."""

    unit = "s"

    def track_first_log_prob(self, model: str) -> float:
        return self.median("first_log_prob", self.file)

    def track_first_train_step(self, model: str) -> float:
        return self.median("first_train_step", model)


class PortableSize(_Portable):
    """Megabytes of such a set."""

    unit = "MB"

    def track_size(self, model: str) -> float:
        return sum(file.stat().st_size for file in self.kernels.rglob("*.nbc")) / 1e6


class WarmUp:
    """Seconds in which `npflows warmup` compiles a MAF in one process, and in two."""

    params = [1, 2]
    param_names = ["processes"]
    unit = "s"
    timeout = 600

    def track_maf(self, processes: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            warmup("maf", processes=processes, into=folder)
            return time.perf_counter() - started
