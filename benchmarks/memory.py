"""Memory of a train step, and files."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import npflows

from .common import GLOW, GLOWS, SIZES, SMALL_GLOW, WIDE_GLOW, few, in_fresh_process, make_flow, make_glow


def needs_proc() -> None:
    """Skip a benchmark where memory can't be read."""
    if not Path("/proc/self/clear_refs").exists():
        raise NotImplementedError("memory is read from /proc")


class TrainStepMemory:
    """Bytes of a train step of a MAF, D=64, 512x512, 5 layers, measured in a fresh process."""

    params = few(1024, 65536)
    param_names = ["batch"]
    unit = "bytes"
    timeout = 300

    def setup(self, batch: int) -> None:
        needs_proc()
        self.bytes = json.loads(in_fresh_process("train_step_memory", batch)[1])

    def track_all(self, batch: int) -> int:
        return sum(self.bytes.values())

    def track_beyond_batch_and_gradient_buffers(self, batch: int) -> int:
        return self.bytes["scratch"]


class GlowTrainStepMemory:
    """Bytes of a train step of a Glow above a process that has only been started, in a fresh process: the flow, the
    optimizer, gradient buffers and scratch."""

    params = [few((SMALL_GLOW, 32), (GLOW, 32), (WIDE_GLOW, 16))]
    param_names = ["size and batch"]
    unit = "bytes"
    timeout = 600

    def setup(self, size_and_batch: tuple[str, int]) -> None:
        needs_proc()
        self.bytes = json.loads(in_fresh_process("glow_memory", *size_and_batch)[1])

    def track_above_idle(self, size_and_batch: tuple[str, int]) -> int:
        return self.bytes["peak"]

    def track_beyond_parameters(self, size_and_batch: tuple[str, int]) -> int:
        return self.bytes["peak"] - self.bytes["parameters"]


class MappedLogProbMemory:
    """Bytes of anonymous memory, beyond the result, at the peak of log_prob of a memory-mapped table of 8 columns."""

    params = few(10**6, 10**7)
    param_names = ["rows"]
    unit = "bytes"
    timeout = 600

    def setup(self, rows: int) -> None:
        needs_proc()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "table.npy")
            in_fresh_process("write_table", file, rows)
            self.bytes = json.loads(in_fresh_process("mapped_log_prob_memory", file)[1])

    def track_anonymous(self, rows: int) -> int:
        return self.bytes["anonymous"]


class Files:
    """Saving and loading a flow: a MAF of 5 layers, or a Glow."""

    params = few(*SIZES, *GLOWS)
    param_names = ["size"]
    timeout = 180

    def setup(self, size: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name, "flow.npz")
        self.flow = make_glow(size) if size in GLOWS else make_flow("MAF", size)
        self.flow.save(self.file)

    def teardown(self, size: str) -> None:
        self.folder.cleanup()

    def time_save(self, size: str) -> None:
        self.flow.save(self.file)

    def time_load(self, size: str) -> None:
        npflows.load(self.file)
