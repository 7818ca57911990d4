"""zuko in a process of its own; see protocol.py."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch
import zuko

from benchmarks.peers.tasks import AUTOREGRESSIVE, BINS, BOUND, COUPLING, MAF
from benchmarks.peers.torch_common import TorchPeer, alternating, spline

SLOPE = 1e-3


class Zuko(TorchPeer):
    """The commands."""

    name = "zuko"

    def make(self, model: str, dim: int, hidden: tuple[int, ...], layers: int) -> torch.nn.Module:
        options: dict[str, Any] = {"hidden_features": hidden}
        if model in (COUPLING, AUTOREGRESSIVE):
            options["univariate"] = partial(zuko.transforms.MonotonicRQSTransform, bound=BOUND, slope=SLOPE)
            options["shapes"] = [(BINS,), (BINS,), (BINS - 1,)]
        if model in (MAF, AUTOREGRESSIVE):
            return zuko.flows.MAF(dim, transforms=layers, **options)
        transforms = [
            zuko.flows.GeneralCouplingTransform(dim, mask=mask == 0, **options) for mask in alternating(dim, layers)
        ]
        base = zuko.lazy.UnconditionalDistribution(
            zuko.distributions.DiagNormal, torch.zeros(dim), torch.ones(dim), buffer=True
        )
        return zuko.lazy.Flow(transforms, base)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        return self.module().log_prob(x)

    def sample(self, n: int) -> torch.Tensor:
        return self.module().sample((n,))

    def inverse(self, z: torch.Tensor) -> torch.Tensor:
        return self.module().transform.inv(z)

    def describe(self) -> list[dict[str, Any]]:
        return [_describe(transform) for transform in self.module.transform.transforms]


def _describe(transform: torch.nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {}
    dense = [layer for layer in transform.hyper if hasattr(layer, "weight")]
    if isinstance(transform, zuko.flows.MaskedAutoregressiveTransform):
        found = {
            "kind": "autoregressive",
            "order": torch.argsort(transform.order),
            "weights": [layer.weight * layer.mask for layer in dense],
        }
    else:
        found = {"kind": "coupling", "mask": transform.mask.int(), "weights": [layer.weight for layer in dense]}
    found["biases"] = [layer.bias for layer in dense]
    if len(transform.shapes) == 3:
        found["map"] = spline(least_size=0.0, soft_clip=SLOPE)
    else:
        found["map"] = {"kind": "affine", "scale": "soft clip", "offset": 0.0, "least": SLOPE, "scale_row": 1}
    return found


if __name__ == "__main__":
    Zuko().serve()
