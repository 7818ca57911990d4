"""npflows in a process of its own, with the same commands as its peers; see protocol.py."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np

import npflows
from benchmarks import products
from benchmarks.common import TrainStep
from benchmarks.peers import protocol, tasks

N_BATCHES = 16


def make(model: str, dim: int, hidden: tuple[int, ...], dtype: str, seed: int) -> npflows.NormalizingFlow:
    """The flow: those of the library, and splines without the linear layers that not all peers have."""
    options, layers = {"dtype": dtype, "rng": seed}, tasks.NUM_LAYERS[model]
    if model == tasks.MAF:
        return npflows.MAF(dim, layers, hidden, log_tails=None, **options)
    if model == tasks.REALNVP:
        return npflows.RealNVP(dim, layers, hidden, "half", log_tails=None, **options)
    first, order = (np.arange(dim) < dim // 2).astype(int), np.arange(dim)
    options |= {"num_bins": tasks.BINS, "tail_bound": tasks.BOUND}
    if model == tasks.COUPLING:
        masks = [1 - first if i % 2 else first for i in range(layers)]
        return npflows.NormalizingFlow(
            [npflows.SplineCouplingLayer(mask, hidden, **options) for mask in masks], dtype=dtype
        )
    orders = [order[::-1] if i % 2 else order for i in range(layers)]
    made = [npflows.SplineAutoregressiveLayer(dim, hidden, order, **options) for order in orders]
    return npflows.NormalizingFlow(made, dtype=dtype)


class Npflows:
    """The commands."""

    def build(self, model: str, size: str, dtype: str, threads: int, seed: int) -> dict[str, Any]:
        npflows.set_num_threads(threads)
        dim, hidden = tasks.SIZES[size]
        self.dtype, self.ready, self.rng = dtype, {}, np.random.default_rng(seed)
        self.flow = make(model, dim, hidden, dtype, seed)
        self.first = self.flow.params
        self.flow.params = self.first + 0.01 * self.rng.standard_normal(self.flow.num_params)
        return {
            "stored": self.flow.parameters.theta.size,
            "used": self.flow.num_params,
            "versions": {"npflows": npflows.__version__},
            "threads": npflows.get_num_threads(),
        }

    def _prepare(self, work: str, batch: int, n_batches: int = N_BATCHES) -> Callable[[], Any]:
        flow, rng = self.flow, self.rng
        if work in (tasks.TRAIN, tasks.COMPILED):
            return TrainStep(flow, batch, n_batches, clip_norm=None)
        if work == tasks.LOG_PROB:
            x = rng.standard_normal((batch, flow.input_dim)).astype(self.dtype)
            return lambda: flow.log_prob(x)
        return lambda: flow.sample(batch, rng=rng)

    def warm(self, work: str, batch: int, most: float) -> list[float]:
        """Seconds of the first call, which may compile, and of a second one unless the first took `most`."""
        self.ready = {(work, batch): self._prepare(work, batch)}
        return protocol.first_calls(self.ready[work, batch], most)

    def time(self, work: str, batch: int, at_least: float) -> float:
        return protocol.median_of(self.ready[work, batch], at_least)

    def rate(self, n: int, threads: int) -> float:
        """GFLOP/s of one thread in a product of n x n and n x 256 matrices, the tiles that all layers use."""
        repeat = products.own("product", n, n, 256, "float32")
        return protocol.best_rate(lambda: repeat(4), 4 * 2.0 * n**2 * 256)

    def step_memory(self, batch: int) -> float:
        """MB of a train step; see protocol.py."""
        return protocol.step_memory(self._prepare(tasks.TRAIN, batch, 1))

    def fit(self, given: str, until: list[float], most_epochs: int, batch: int, seed: int) -> dict[str, Any]:
        """Held-out mean log-likelihood four times an epoch, until the highest of `until` is passed, and seconds of training
        until then."""
        self.flow.params = self.first
        arrays, rng = np.load(given), np.random.default_rng(seed)
        train, test = arrays["train"], arrays["test"]
        step, n_batches = TrainStep(self.flow, batch, x=train, clip_norm=None), math.ceil(len(train) / batch)
        for rows in np.array_split(np.arange(len(train)), n_batches)[:: n_batches - 1]:  # of both sizes, what is done once
            step(rows)
        self.flow.log_prob(test)
        seconds, reached, spent = [], [], 0.0
        for _ in range(most_epochs):
            for part in np.array_split(np.arange(n_batches), 4):
                started = time.perf_counter()
                if part[0] == 0:
                    batches = np.array_split(rng.permutation(len(train)), n_batches)
                for i in part:
                    step(batches[i])
                spent += time.perf_counter() - started
                reached.append(float(self.flow.log_prob(test).mean()))
                seconds.append(spent)
            if reached[-1] > max(until):
                break
        return {"seconds": seconds, "reached": reached}


if __name__ == "__main__":
    worker = Npflows()
    protocol.serve({name: getattr(worker, name) for name in ("build", "warm", "time", "rate", "step_memory", "fit")})
