"""nflows in a process of its own; see protocol.py.

MADE has feedforward blocks (one, after its first layer) instead of its residual ones, and couplings have nflows' own MLP.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch
from nflows.distributions import StandardNormal
from nflows.flows import Flow
from nflows.nn.nets import MLP
from nflows.transforms import (
    AffineCouplingTransform,
    CompositeTransform,
    MaskedAffineAutoregressiveTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    PiecewiseRationalQuadraticCouplingTransform,
    ReversePermutation,
)

from benchmarks.peers.tasks import AUTOREGRESSIVE, BINS, BOUND, COUPLING, MAF, REALNVP
from benchmarks.peers.torch_common import TorchPeer, alternating, spline

LEAST = 1e-3


class Network(MLP):
    """nflows' MLP, which takes no context, as a coupling calls it."""

    def forward(self, inputs: torch.Tensor, context: None = None) -> torch.Tensor:
        return super().forward(inputs)


class Nflows(TorchPeer):
    """The commands."""

    name = "nflows"

    def make(self, model: str, dim: int, hidden: tuple[int, ...], layers: int) -> torch.nn.Module:
        options = {
            "features": dim,
            "hidden_features": hidden[0],
            "num_blocks": len(hidden) - 1,
            "use_residual_blocks": False,
        }
        spline_options = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND}
        transforms: list[torch.nn.Module] = []
        for i, mask in enumerate(alternating(dim, layers)):
            if model == MAF:
                transforms.append(MaskedAffineAutoregressiveTransform(**options))
            elif model == AUTOREGRESSIVE:
                transforms.append(MaskedPiecewiseRationalQuadraticAutoregressiveTransform(**options, **spline_options))
            elif model == REALNVP:
                transforms.append(AffineCouplingTransform(mask, lambda a, b: Network([a], [b], hidden)))
            elif model == COUPLING:
                transforms.append(
                    PiecewiseRationalQuadraticCouplingTransform(
                        mask, lambda a, b: Network([a], [b], hidden), **spline_options
                    )
                )
            if model in (MAF, AUTOREGRESSIVE) and i < layers - 1:
                transforms.append(ReversePermutation(dim))
        return Flow(CompositeTransform(transforms), StandardNormal([dim]))

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        return self.module.log_prob(x)

    def sample(self, n: int) -> torch.Tensor:
        return self.module.sample(n)

    def inverse(self, z: torch.Tensor) -> torch.Tensor:
        return self.module._transform.inverse(z)[0]

    def describe(self) -> list[dict[str, Any]]:
        return [_describe(transform) for transform in self.module._transform._transforms]


def _describe(transform: torch.nn.Module) -> dict[str, Any]:
    if isinstance(transform, ReversePermutation):
        return {"kind": "permutation", "order": transform._permutation}
    found: dict[str, Any] = {}
    net = getattr(transform, "autoregressive_net", None)
    if net is not None:
        masked = [net.initial_layer, *(block.linear for block in net.blocks), net.final_layer]
        found = {
            "kind": "autoregressive",
            "order": torch.arange(transform.autoregressive_net.initial_layer.in_features),
            "weights": [layer.weight * layer.mask for layer in masked],
            "biases": [layer.bias for layer in masked],
        }
    else:
        net = transform.transform_net
        dense = [net._input_layer, *net._hidden_layers, net._output_layer]
        mask = torch.zeros(transform.features, dtype=torch.int64)
        mask[transform.identity_features] = 1
        found = {
            "kind": "coupling",
            "mask": mask,
            "weights": [layer.weight for layer in dense],
            "biases": [layer.bias for layer in dense],
        }
    if hasattr(transform, "num_bins"):
        width = net.hidden_features if hasattr(net, "hidden_features") else 1
        found["map"] = spline(least_size=LEAST, least_slope=LEAST, sizes_over=width**0.5, slope_shift=0.0)
    elif found["kind"] == "autoregressive":
        found["map"] = {"kind": "affine", "scale": "softplus", "offset": 0.0, "least": 1e-3, "scale_row": 0}
    else:
        found["map"] = {"kind": "affine", "scale": "sigmoid", "offset": 2.0, "least": 1e-3, "scale_row": 1}
        found["rows"] = "by parameter"  # first the shifts of all values, then their scales
    return found


if __name__ == "__main__":
    Nflows().serve()
