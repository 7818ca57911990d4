"""normflows' Glow in a process of its own; see protocol.py for how it is spoken to, and glow_race.py for what it is for.

Data to latent, each scale: squeeze, blocks of ActNorm, 1x1 convolution (LU) and affine coupling (sigmoid(raw + 2)), and a
split whose second half goes to a normal distribution with a learned mean and scale for each of its values.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import normflows
import numpy as np
import torch

from benchmarks.peers.protocol import forget_peak, memory, serve

LEVELS = 256


class Glow:
    """The commands."""

    def load(self, train: str, test: str) -> None:
        """Images (n, size, size) of whole numbers from .npy files; what memory holds then counts as idle."""
        self.images = {"train": np.load(train), "test": np.load(test)}
        self.idle = memory()["now"]
        forget_peak()

    def build(self, size: int, scales: int, blocks: int, width: int, batch: int, threads: int, seed: int) -> dict:
        """A Glow for images of one channel, size x size, and Adam; any batch may come."""
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        bases, flows, merges = [], [], []
        for i in range(scales):
            channels = 2 ** (scales + 1 - i)
            level = [normflows.flows.GlowBlock(channels, width) for _ in range(blocks)]
            flows.append([*level, normflows.flows.Squeeze()])
            side = size // 2 ** (scales - i)
            bases.append(normflows.distributions.DiagGaussian((channels if i == 0 else channels // 2, side, side)))
            if i:
                merges.append(normflows.flows.Merge())
        self.model = normflows.MultiscaleFlow(bases, flows, merges, class_cond=False)
        self.optimizer = torch.optim.Adam(self.model.parameters())
        return {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "used": sum(p.numel() for p in self.model.parameters()) - self._unused(),
            "versions": {"normflows": getattr(normflows, "__version__", ""), "torch": torch.__version__},
            "threads": torch.get_num_threads(),
        }

    def _unused(self) -> int:
        """Entries of triangular factors that are stored and never read."""
        sizes = [m.num_channels for m in self.model.modules() if isinstance(m, normflows.flows.Invertible1x1Conv)]
        return sum(n * (n + 1) // 2 + n * (n + 1) // 2 for n in sizes)

    def _loss(self, images: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        """Nats of each image (n, size, size) of whole numbers, with uniform noise added, as a mass."""
        x = torch.from_numpy(images).float()
        x = ((x + torch.rand(x.shape, generator=generator)) / LEVELS)[:, None]
        return x[0].numel() * math.log(LEVELS) - self.model.log_prob(x, None)

    def train(self, order: list[list[int]], rates: list[float], seed: int) -> dict:
        """A step on each batch of training images, with a learning rate each: seconds and loss of each."""
        images, generator = self.images["train"], torch.Generator().manual_seed(seed)
        seconds, losses = [], []
        self.model.train()
        for rows, rate in zip(order, rates):
            batch = images[rows]
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            started = time.perf_counter()
            self.optimizer.zero_grad(set_to_none=True)
            loss = self._loss(batch, generator).mean()
            loss.backward()
            self.optimizer.step()
            seconds.append(time.perf_counter() - started)
            losses.append(loss.item())
        return {"seconds": seconds, "losses": losses}

    def bits_per_dim(self, batch: int, seed: int) -> float:
        """Of all held-out images, with one draw of the noise for each."""
        images, generator = self.images["test"], torch.Generator().manual_seed(seed)
        self.model.eval()
        with torch.no_grad():
            nats = [self._loss(images[i : i + batch], generator) for i in range(0, len(images), batch)]
        return float(torch.cat(nats).double().mean()) / (images[0].size * math.log(2))

    def memory(self) -> float:
        """MB at the peak above what the imports and the images take."""
        return memory()["peak"] - self.idle


if __name__ == "__main__":
    glow = Glow()
    serve(
        {
            "load": glow.load,
            "build": glow.build,
            "train": glow.train,
            "bits_per_dim": glow.bits_per_dim,
            "memory": glow.memory,
        }
    )
