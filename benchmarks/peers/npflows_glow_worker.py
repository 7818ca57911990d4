"""npflows' Glow in a process of its own, with the commands of normflows_glow_worker.py.

The couplings' networks have no ActNorm, as normflows' have none by default.  What a split leaves behind has a prior that
depends on what goes on, besides the mean and the scale of each value that normflows has too.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np

import npflows
from benchmarks.common import TrainStep
from benchmarks.peers.protocol import forget_peak, memory, serve
from npflows.training.initialization import set_from_data
from npflows.training.rows import Rows

LEVELS = 256


class Glow:
    """The commands."""

    def load(self, train: str, test: str) -> None:
        self.images = {"train": np.load(train), "test": np.load(test)}
        self.idle = memory()["now"]
        forget_peak()

    def build(
        self,
        size: int,
        scales: int,
        blocks: int,
        width: int,
        batch: int,
        threads: int,
        seed: int,
        scale_activation: str = "tanh_gain",
    ) -> dict[str, Any]:
        """A Glow whose images are divided by 256, as for the peer; ActNorm starts from training images, as in `fit`."""
        npflows.set_num_threads(threads)
        self.flow = npflows.Glow((size, size, 1), scales, blocks, (width, width), levels=LEVELS, alpha=None,
                                 actnorm=False, scale_activation=scale_activation, log_tails=None, rng=seed)  # fmt: skip
        table = self.images["train"].reshape(len(self.images["train"]), -1)
        self.flow.standardize.set(0.0, float(LEVELS))
        set_from_data(self.flow, Rows(table, np.arange(len(table))), None, None, np.random.default_rng(seed))
        self.step = TrainStep(self.flow, batch, x=table, clip_norm=None)
        return {
            "parameters": self.flow.num_params,
            "used": self.flow.num_params,
            "versions": {"npflows": npflows.__version__},
            "threads": npflows.get_num_threads(),
        }

    def train(self, order: list[list[int]], rates: list[float], seed: int) -> dict[str, Any]:
        trainer = self.step.trainer
        trainer.rng = np.random.default_rng(seed)
        seconds, losses = [], []
        for rows, rate in zip(order, rates):
            started = time.perf_counter()
            loss, taken, *_ = trainer.run_step(np.array(rows), rate)
            seconds.append(time.perf_counter() - started)
            if not taken:
                raise RuntimeError("a step was not finite")
            losses.append(loss)
        return {"seconds": seconds, "losses": losses}

    def bits_per_dim(self, batch: int, seed: int) -> float:
        images = self.images["test"][..., None]
        parts = [images[i : i + batch] for i in range(0, len(images), batch)]
        bits = [len(part) * self.flow.bits_per_dim(part, draws=1, rng=seed + i) for i, part in enumerate(parts)]
        return float(sum(bits) / len(images))

    def memory(self) -> float:
        return memory()["peak"] - self.idle


if __name__ == "__main__":
    glow = Glow()
    serve({name: getattr(glow, name) for name in ("load", "build", "train", "bits_per_dim", "memory")})
