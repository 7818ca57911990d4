"""normflows in a process of its own; see protocol.py.

Its affine autoregressive layer is fast from latent to data; `Reverse` turns it round, as log_prob needs.  Its MADE with
feedforward blocks has no activation after the first layer: one is put there, so that the network is the others'.  Its
spline couplings come with residual networks; here they get its MLP.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import normflows
import torch
from normflows.flows.neural_spline.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressive
from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling

from benchmarks.peers.tasks import AUTOREGRESSIVE, BINS, BOUND, COUPLING, MAF
from benchmarks.peers.torch_common import TorchPeer, alternating, spline

LEAST = 1e-3


class Network(normflows.nets.MLP):
    """Its MLP as a spline coupling calls it."""

    def forward(self, x: torch.Tensor, context: None = None) -> torch.Tensor:
        return super().forward(x)


class Reverse(normflows.flows.Reverse):
    """Its `Reverse` for layers that want a context; it hands none over."""

    def inverse(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z, log_det = self.flow.forward(z)
        return z, log_det.view(-1)


class Flip(normflows.flows.base.Flow):
    """The values in reversed order; it has swapped halves and random permutations."""

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return z.flip(1), torch.zeros(len(z), dtype=z.dtype)

    inverse = forward


class Normflows(TorchPeer):
    """The commands."""

    name = "normflows"

    def make(self, model: str, dim: int, hidden: tuple[int, ...], layers: int) -> torch.nn.Module:
        options = {
            "features": dim,
            "hidden_features": hidden[0],
            "num_blocks": len(hidden) - 1,
            "use_residual_blocks": False,
        }
        spline_options = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND}
        from_data: list[torch.nn.Module] = []
        for i, mask in enumerate(alternating(dim, layers)):
            if model in (MAF, AUTOREGRESSIVE):
                if model == MAF:
                    layer = normflows.flows.MaskedAffineAutoregressive(**options)
                else:
                    layer = MaskedPiecewiseRationalQuadraticAutoregressive(**options, **spline_options)
                layer.autoregressive_net.initial_layer.register_forward_hook(lambda _, __, out: torch.relu(out))
                from_data.append(Reverse(layer))
                if i < layers - 1:
                    from_data.append(Flip())
            elif model == COUPLING:
                layer = PiecewiseRationalQuadraticCoupling(mask, lambda a, b: Network([a, *hidden, b]), **spline_options)
                from_data.append(Reverse(layer))
            else:
                kept = dim // 2 if i % 2 == 0 else dim - dim // 2
                network = normflows.nets.MLP([kept, *hidden, 2 * (dim - kept)])
                split = "channel" if i % 2 == 0 else "channel_inv"
                from_data.append(normflows.flows.AffineCouplingBlock(network, scale_map="exp", split_mode=split))
        base = normflows.distributions.DiagGaussian(dim, trainable=False)
        return normflows.NormalizingFlow(base, from_data[::-1])

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        return self.module.log_prob(x)

    def sample(self, n: int) -> torch.Tensor:
        return self.module.sample(n)[0]

    def inverse(self, z: torch.Tensor) -> torch.Tensor:
        return self.module.forward(z)

    def describe(self) -> list[dict[str, Any]]:
        return [self._describe(flow) for flow in reversed(self.module.flows)]

    def _describe(self, flow: torch.nn.Module) -> dict[str, Any]:
        if isinstance(flow, Flip):
            return {"kind": "permutation", "order": torch.arange(self.dim - 1, -1, -1)}
        if isinstance(flow, normflows.flows.AffineCouplingBlock):
            dense = [m for m in flow.flows[1].param_map.net if hasattr(m, "weight")]
            first = (torch.arange(self.dim) < dense[0].in_features).int()
            return {
                "kind": "coupling",
                "mask": first if flow.flows[0].mode == "channel" else first.flip(0),
                "weights": [m.weight for m in dense],
                "biases": [m.bias for m in dense],
                # from latent to data it multiplies by exp(raw): from data to latent it subtracts first
                "map": {"kind": "affine", "scale": "exp", "offset": 0.0, "least": 0.0, "scale_row": 1, "shift_first": True},
            }
        flow = flow.flow
        net = getattr(flow, "autoregressive_net", None)
        if net is not None:
            masked = [net.initial_layer, *(block.linear for block in net.blocks), net.final_layer]
            found: dict[str, Any] = {
                "kind": "autoregressive",
                "order": torch.arange(self.dim),
                "weights": [m.weight * m.mask for m in masked],
                "biases": [m.bias for m in masked],
            }
        else:
            net = flow.transform_net
            dense = [m for m in net.net if hasattr(m, "weight")]
            mask = torch.zeros(self.dim, dtype=torch.int64)
            mask[flow.identity_features] = 1
            found = {
                "kind": "coupling",
                "mask": mask,
                "weights": [m.weight for m in dense],
                "biases": [m.bias for m in dense],
            }
        if hasattr(flow, "num_bins"):
            width = net.hidden_features if hasattr(net, "hidden_features") else 1
            found["map"] = spline(least_size=LEAST, least_slope=LEAST, sizes_over=width**0.5, slope_shift=0.0)
        else:
            found["map"] = {"kind": "affine", "scale": "sigmoid", "offset": 2.0, "least": 1e-3, "scale_row": 0}
        return found


if __name__ == "__main__":
    Normflows().serve()
