"""Memory of a train step, and files."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import npflows

from .common import SIZES, few, in_fresh_process, make_flow


class TrainStepMemory:
    """Bytes of a train step of a MAF, D=64, 512x512, 5 layers, measured in a fresh process."""

    params = few(1024, 65536)
    param_names = ["batch"]
    unit = "bytes"
    timeout = 300

    def setup(self, batch: int) -> None:
        if not Path("/proc/self/clear_refs").exists():
            raise NotImplementedError("the peak of resident memory is read from /proc")
        self.bytes = json.loads(in_fresh_process("train_step_memory", batch)[1])

    def track_all(self, batch: int) -> int:
        return sum(self.bytes.values())

    def track_beyond_batch_and_gradient_buffers(self, batch: int) -> int:
        return self.bytes["scratch"]


class Files:
    """Saving and loading a MAF of 5 layers."""

    params = few(*SIZES)
    param_names = ["size"]
    timeout = 180

    def setup(self, size: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name, "flow.npz")
        self.flow = make_flow("MAF", size)
        self.flow.save(self.file)

    def teardown(self, size: str) -> None:
        self.folder.cleanup()

    def time_save(self, size: str) -> None:
        self.flow.save(self.file)

    def time_load(self, size: str) -> None:
        npflows.load(self.file)
