"""The part that the three PyTorch peers share: every command of a worker but how the model is made."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from benchmarks.peers import protocol, tasks
from benchmarks.peers.layers_file import save_layers

N_BATCHES = 16


class TorchPeer(ABC):
    """A peer on PyTorch: Adam in its fused form, gradients set to None, no gradient where none is needed."""

    name: str
    module: torch.nn.Module

    @abstractmethod
    def make(self, model: str, dim: int, hidden: tuple[int, ...], layers: int) -> torch.nn.Module:
        """The flow; ValueError where the peer has none like it."""

    @abstractmethod
    def log_prob(self, x: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def sample(self, n: int) -> torch.Tensor: ...

    @abstractmethod
    def inverse(self, z: torch.Tensor) -> torch.Tensor:
        """Latent to data."""

    @abstractmethod
    def describe(self) -> list[dict[str, Any]]:
        """The layers, data to latent, as carry.py reads them; arrays are tensors."""

    def build(self, model: str, size: str, dtype: str, threads: int, seed: int, spread: float = 0.0) -> dict[str, Any]:
        """A flow in the process; `spread` is the size of noise that is added to its parameters,
        over the root of their last axis."""
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        torch.set_default_dtype(getattr(torch, dtype))
        dim, hidden = tasks.SIZES[size]
        self.dim, self.ready = dim, {}
        self.module = self.make(model, dim, hidden, tasks.NUM_LAYERS[model])
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter += spread * parameter.shape[-1] ** -0.5 * torch.randn_like(parameter)
        self.optimizer = torch.optim.Adam(self.module.parameters(), tasks.LEARNING_RATE, fused=True)
        return {
            "stored": sum(p.numel() for p in self.module.parameters()),
            "used": sum(p.numel() for p in self.module.parameters()) - self._masked(),
            "versions": {self.name: version(self.name), "torch": torch.__version__},
            "threads": torch.get_num_threads(),
        }

    def _masked(self) -> int:
        """Weights that the masks of dense layers forbid."""
        masks = [m.mask for m in self.module.modules() if hasattr(m, "mask") and hasattr(m, "weight")]
        return sum(int((mask == 0).sum()) for mask in masks)

    def export(self, path: str) -> None:
        """The layers into a .npz file."""
        save_layers(path, [{k: _plain(v) for k, v in layer.items()} for layer in self.describe()])

    def evaluate(self, given: str, found: str) -> None:
        """log_prob of x and inverse of z, from and to .npz files."""
        arrays = np.load(given)
        dtype = torch.get_default_dtype()
        with torch.no_grad():
            log_prob = self.log_prob(torch.from_numpy(arrays["x"]).to(dtype))
            x = self.inverse(torch.from_numpy(arrays["z"]).to(dtype))
        np.savez(found, log_prob=log_prob.double().numpy(), x=x.double().numpy())

    def _step(self, x: torch.Tensor, log_prob: Callable[[torch.Tensor], torch.Tensor] | None = None) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss = -(log_prob or self.log_prob)(x).mean()
        loss.backward()
        self.optimizer.step()

    def _prepare(self, work: str, batch: int, n_batches: int = N_BATCHES) -> Callable[[], Any]:
        """A call that does the work once."""
        training = work in (tasks.TRAIN, tasks.COMPILED)
        x = torch.randn(batch * (n_batches if training else 1), self.dim)
        if training:
            log_prob = torch.compile(lambda x: self.log_prob(x)) if work == tasks.COMPILED else self.log_prob
            parts = torch.randperm(len(x)).split(batch)
            turn = iter(range(1 << 60))
            return lambda: self._step(x[parts[next(turn) % n_batches]], log_prob)
        call = (lambda: self.log_prob(x)) if work == tasks.LOG_PROB else (lambda: self.sample(batch))

        def run() -> Any:
            with torch.inference_mode():
                return call()

        return run

    def warm(self, work: str, batch: int, most: float) -> list[float]:
        """Seconds of the first call, which may compile, and of a second one unless the first took `most`."""
        self.ready = {(work, batch): self._prepare(work, batch)}
        return protocol.first_calls(self.ready[work, batch], most)

    def time(self, work: str, batch: int, at_least: float) -> float:
        return protocol.median_of(self.ready[work, batch], at_least)

    def rate(self, n: int, threads: int) -> float:
        """GFLOP/s of a product of n x n matrices in float32."""
        torch.set_num_threads(threads)
        a, b = torch.randn(2, n, n, dtype=torch.float32)
        return protocol.best_rate(lambda: a @ b, 2.0 * n**3)

    def step_memory(self, batch: int) -> float:
        """MB of a train step; see protocol.py."""
        return protocol.step_memory(self._prepare(tasks.TRAIN, batch, 1))

    def fit(self, given: str, epochs: int, batch: int, seed: int) -> dict[str, list[float]]:
        """Held-out mean log-likelihood after each epoch and the seconds of training until then."""
        arrays, rng = np.load(given), np.random.default_rng(seed)
        train, test = (torch.from_numpy(arrays[part]) for part in ("train", "test"))
        self._step(train[:batch])  # what is done once
        seconds, reached, spent = [], [], 0.0
        for _ in range(epochs):
            started = time.perf_counter()
            for rows in np.array_split(rng.permutation(len(train)), math.ceil(len(train) / batch)):
                self._step(train[torch.from_numpy(rows)])
            spent += time.perf_counter() - started
            with torch.inference_mode():
                reached.append(float(self.log_prob(test).double().mean()))
            seconds.append(spent)
        return {"seconds": seconds, "reached": reached}

    def serve(self) -> None:
        names = ("build", "export", "evaluate", "warm", "time", "rate", "step_memory", "fit")
        protocol.serve({name: getattr(self, name) for name in names})


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().double().numpy() if value.is_floating_point() else value.numpy()
    return [_plain(v) for v in value] if isinstance(value, list) else value


def alternating(dim: int, layers: int) -> list[torch.Tensor]:
    """Masks of couplings: 1 where a value is moved, in the second half and in the first by turns."""
    half = (torch.arange(dim) >= dim // 2).int()
    return [1 - half if i % 2 else half for i in range(layers)]


def spline(**options: Any) -> dict[str, Any]:
    """The map of a spline layer as carry.py reads it."""
    return {"kind": "spline", "bins": tasks.BINS, "bound": tasks.BOUND, **options}
