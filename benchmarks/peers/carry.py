"""A peer's layers as a flow of npflows with the peer's weights.

    python benchmarks/peers/carry.py ENVIRONMENTS RESULTS.json

prints how well log_prob and the inverse agree, for every peer and model, in float32 and in float64.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np

import npflows
from benchmarks.peers import contenders, store, tasks
from benchmarks.peers.layers_file import load_layers
from benchmarks.peers.scales import PeerAffine, ZukoSpline
from npflows.backends.cpu.link import KERNELS
from npflows.core import operations
from npflows.layers.autoregressive import Autoregressive
from npflows.layers.coupling import Coupling
from npflows.layers.layer import Layer
from npflows.networks.mlp import dense
from npflows.transformers.scalar_maps import spline

ROWS, SPREAD = 512, 0.25
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
PAIRS = [*((model, tasks.SMALL) for model in tasks.NUM_LAYERS), (tasks.MAF, tasks.MIDDLE), (tasks.MAF, tasks.LARGE)]


@dataclass(frozen=True)
class GivenDegrees(operations.Made):
    """npflows' masked network for hidden units with the degrees of a peer's, which are sorted as it needs them."""

    given: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def with_outputs(cls, multiplier: int, degrees: list[np.ndarray]) -> GivenDegrees:
        """The network with `multiplier` outputs for each feature, from the degrees of the input and the hidden layers."""
        n, hidden = len(degrees[0]), degrees[1:]
        return cls.of(n, multiplier, tuple(map(len, hidden)), (1,) * n, activation="relu",
                      given=tuple(tuple(layer.tolist()) for layer in hidden))  # fmt: skip

    @cached_property
    def degrees(self) -> list[np.ndarray]:
        positions = np.arange(1, self.n_features + 1)
        return [positions, *map(np.array, self.given), np.repeat(positions, self.multiplier) - 1]


KERNELS[GivenDegrees] = KERNELS[operations.Made]


def flow_of(layers: list[dict[str, Any]], dtype: str) -> npflows.NormalizingFlow:
    """A flow of npflows from what a peer's worker exports, data to latent."""
    return npflows.NormalizingFlow([_layer(layer, dtype) for layer in layers], dtype=dtype)


def _layer(given: dict[str, Any], dtype: str) -> Layer:
    if given["kind"] == "permutation":
        return npflows.Permutation(len(given["order"]), given["order"], dtype=dtype)
    weights, biases = [np.array(w) for w in given["weights"]], [np.array(b) for b in given["biases"]]
    scalar_map = _map(given["map"])
    m = scalar_map.multiplier
    if given["kind"] == "coupling":
        mask = np.asarray(given["mask"])
        n_out = int((mask == 0).sum())
        rows = (
            np.arange(n_out * m).reshape(m, n_out).T.ravel()
            if given.get("rows") == "by parameter"
            else np.arange(n_out * m)
        )
        weights[-1], biases[-1] = _outputs(weights[-1][rows], biases[-1][rows], given["map"], m)
        network = dense(int(mask.sum()), [len(b) for b in biases[:-1]], n_out * m)
        layer: Layer = Coupling(mask, network, scalar_map, dtype, rng=np.random.default_rng(0))
    else:
        order = np.asarray(given["order"])
        weights[-1], biases[-1] = _outputs(weights[-1], biases[-1], given["map"], m)
        weights[0] = weights[0][:, order]
        rows = (order[:, None] * m + np.arange(m)).ravel()
        weights[-1], biases[-1] = weights[-1][rows], biases[-1][rows]
        masked = GivenDegrees.with_outputs(m, _sort_units(weights, biases))
        layer = Autoregressive(order, masked, scalar_map, dtype, rng=np.random.default_rng(0))
    views = layer.parameters.views()
    free = {p.name: p.free_mask() for p in layer.parameters.entries}
    for i, (weight, bias) in enumerate(zip(weights, biases)):
        if weight[~free[f"network.weight_{i}"]].any():
            raise ValueError(f"dense layer {i} has weights where npflows' mask forbids them")
        views[f"network.weight_{i}"][:] = weight
        views[f"network.bias_{i}"][:] = bias
    return layer


def _map(given: dict[str, Any]) -> operations.Affine | operations.Spline:
    if given["kind"] == "affine":
        return PeerAffine(
            shift_first=given.get("shift_first", False), scale=given["scale"], offset=given["offset"], least=given["least"]
        )
    if "soft_clip" in given:
        return ZukoSpline(given["bins"], given["bound"], min_derivative=given["soft_clip"])
    size = given["least_size"]
    return spline(given["bins"], given["bound"], size, size, given["least_slope"])


def _outputs(weight: np.ndarray, bias: np.ndarray, given: dict[str, Any], m: int) -> tuple[np.ndarray, np.ndarray]:
    """The last dense layer, so that its outputs are npflows' raw parameters."""
    weight, bias = weight.reshape(-1, m, weight.shape[1]), bias.reshape(-1, m)
    if given["kind"] == "affine":
        if given["scale_row"] == 0:
            weight, bias = weight[:, ::-1], bias[:, ::-1]
    elif "soft_clip" not in given:
        n_sizes = 2 * given["bins"]
        weight, bias = weight.copy(), bias.copy()
        weight[:, :n_sizes] /= given["sizes_over"]
        bias[:, :n_sizes] /= given["sizes_over"]
        if given["slope_shift"] is not None:  # the peer adds so much to raw slopes, npflows what makes zeros the identity
            bias[:, n_sizes:] += given["slope_shift"] - _map(given).derivative_shift
    return weight.reshape(-1, weight.shape[-1]), bias.ravel()


def _sort_units(weights: list[np.ndarray], biases: list[np.ndarray]) -> list[np.ndarray]:
    """Sort hidden units by degree, in place, and give the degrees of the input and of the hidden layers; see
    `npflows.core.operations.Made`.

    A unit's degree is how many features reach it.
    """
    n = weights[0].shape[1]
    degrees, reached = [np.arange(1, n + 1)], np.eye(n, dtype=bool)
    for i in range(len(weights) - 1):
        reached = ((weights[i] != 0).astype(int) @ reached) > 0
        degree = reached.sum(1)
        order = np.argsort(degree, kind="stable")
        weights[i], biases[i] = weights[i][order], biases[i][order]
        weights[i + 1] = weights[i + 1][:, order]
        reached = reached[order]
        degrees.append(degree[order])
    return degrees


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest, relative to the larger of 1 and the number itself."""
    return float((abs(a - b) / np.maximum(1, abs(b))).max())


def agreement(worker: Any, model: str, size: str, dtype: str, seed: int = 0) -> dict[str, Any]:
    """How far log_prob and inverse of the peer and of npflows differ with one set of weights, and in float32 how
    far either is from npflows in float64 with these weights."""
    worker("build", model=model, size=size, dtype=dtype, threads=1, seed=seed, spread=SPREAD)
    rng = np.random.default_rng(seed)
    z, other = (rng.standard_normal((ROWS, tasks.SIZES[size][0])).astype("float32").astype(dtype) for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: str(Path(folder, f"{name}.npz")) for name in ("layers", "given", "found")}
        worker("export", path=paths["layers"])
        layers = load_layers(paths["layers"])
        flow, exact = flow_of(layers, dtype), flow_of(layers, "float64")
        given = {"x": exact.inverse(other)[0].astype("float32").astype(dtype), "z": z}
        np.savez(paths["given"], **given)
        worker("evaluate", given=paths["given"], found=paths["found"])
        with np.load(paths["found"]) as found:
            theirs = {"log_prob": found["log_prob"], "inverse": found["x"]}
    own, true = ({"log_prob": f.log_prob(given["x"]), "inverse": f.inverse(given["z"])[0]} for f in (flow, exact))
    between = {
        "between": {name: difference(own[name], theirs[name]) for name in own},
        "parameters": flow.num_params,
    }
    if dtype == "float32":  # whose rounding it is
        between["npflows"] = {name: difference(own[name], true[name]) for name in own}
        between["peer"] = {name: difference(theirs[name], true[name]) for name in own}
    return between


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environments", type=Path, help="the folder that make_environments.py filled")
    parser.add_argument("results", type=Path, help="a JSON file, which is added to")
    given = parser.parse_args()
    table: dict[str, Any] = {}
    for peer in contenders.PEERS:
        with contenders.start(given.environments, peer, 1) as worker:
            for model, size in PAIRS:
                for dtype in TOLERANCE:
                    found = agreement(worker, model, size, dtype)
                    table[f"{peer}, {model}, {size}, {dtype}"] = found
                    worst = max(found["between"].values())
                    verdict = "agrees" if worst <= TOLERANCE[dtype] else "DIFFERS"
                    print(f"{peer}, {model}, {size}, {dtype}: {found} {verdict}", flush=True)
    store.update(given.results, {"agreement": table})


if __name__ == "__main__":
    main()
