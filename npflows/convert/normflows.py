"""Flows of normflows 1.7.3, from objects and from state dicts."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.base import Base, GaussianMixture, Normal
from npflows.convert.linear import assembled, diagonal, dtype_of, permutation
from npflows.convert.networks import Dense, Linear, activation_of, coupling, linear
from npflows.convert.nflows import Seen, activation_of_network, check_networks, kind_of, layers_of
from npflows.convert.state_dict import Arrays, ConversionError, arrays_of, below, is_live, refuse_others
from npflows.flow import NormalizingFlow
from npflows.layers.layer import Layer

INNER = {
    "CoupledRationalQuadraticSpline": "prqct",
    "AutoregressiveRationalQuadraticSpline": "mprqat",
    "LULinearPermute": "",
}
"""Where in a flow its transform of the kind of nflows is."""
KNOWN = {*INNER, "MaskedAffineFlow", "AffineCouplingBlock", "MaskedAffineAutoregressive", "Permute", "ActNorm",
         "AffineConstFlow"}  # fmt: skip
SCALE_MAPS = {"exp": "none", "sigmoid_inv": "sigmoid"}
"""npflows' names of scales, by normflows'."""


def from_normflows(
    flow: Any, *, activation: str = "relu", tail_bound: float | None = None, dtype: str | None = None
) -> NormalizingFlow:  # fmt: skip
    """A flow of normflows as a flow of npflows that gives its numbers, exactly.

    Of normflows' flows those of splines with linear tails come in, coupled, perhaps with a context, and autoregressive, and
    `LULinearPermute`, `MaskedAffineFlow`, `AffineCouplingBlock` of channels, `MaskedAffineAutoregressive`, `Permute`,
    `ActNorm` and `AffineConstFlow`, on a `DiagGaussian` or a `GaussianMixture`; all others are refused by name, and so are
    circular coordinates and the scale map "sigmoid".

    Parameters
    ----------
    flow : normflows.NormalizingFlow, mapping of str to array, or path-like
        The object, its state dict, or a file that `torch.save(flow.state_dict(), path)` wrote, which is read without
        PyTorch.  Linear tails, the split mode "channel", the scale map "exp" and no flows without numbers, as
        `Permute(mode="swap")` is one, are assumed where a state dict is given.
    activation, tail_bound, dtype
        As in `from_nflows`.

    Returns
    -------
    NormalizingFlow
        Its base is learnable.

    Raises
    ------
    ConversionError
        If the flow can't be represented, or a state dict does not tell what is needed.
    """
    refuse_others(flow, "flow of normflows", "q0", "flows", "state_dict")
    live: dict[int, dict[str, Any]] = _facts(flow) if is_live(flow) else {}
    arrays = arrays_of(flow)
    check_networks(arrays)
    width = next((a.shape[1] for name, a in arrays.items() if name.endswith("context_layer.weight")), 0)
    dtype = dtype_of(arrays) if dtype is None else dtype
    base = _base(below(arrays, "q0."), dtype)
    n = base.dim
    layers: list[Layer] = []
    numbers = _numbers(arrays, bool(live))
    for number in reversed(sorted(live) if live else numbers):  # normflows lists its flows from latent to data
        prefix = f"flows.{number}."
        part = below(arrays, prefix)
        facts = {"activation": activation, "tail_bound": tail_bound, **live.get(number, {})}
        others = _without_splines(part, prefix.rstrip("."), facts, n, dtype)
        if others is not None:
            layers += others
            continue
        for inner in _parts(part, prefix):
            one = below(part, inner)
            layers += layers_of(one, f"{prefix}{inner}".rstrip("."), facts, dtype, n, Seen(width))
    return assembled(layers, base, dtype)


def _base(numbers: Arrays, dtype: str) -> Base:
    """The base distribution, a DiagGaussian or a GaussianMixture; both are learnable."""
    values = {name: a[0].astype(float) for name, a in numbers.items() if a.ndim}
    rank = {name: a.ndim for name, a in numbers.items()}
    if rank == {"loc": 2, "log_scale": 2}:
        return Normal(values["loc"].size, values["loc"], np.exp(values["log_scale"]), learnable=True, dtype=dtype)
    if rank == {"loc": 3, "log_scale": 3, "weight_scores": 2}:
        (k, dim), scores = values["loc"].shape, values["weight_scores"]
        weights = np.exp(scores - scores.max())
        return GaussianMixture(dim, k, values["loc"], np.exp(values["log_scale"]), weights, dtype=dtype)
    raise ConversionError(
        f"the base distribution with {', '.join(sorted(numbers)) or 'no numbers'} is no DiagGaussian of a row, and no "
        f"GaussianMixture"
    )


def _numbers(arrays: Arrays, live: bool) -> list[int]:
    numbers = sorted({int(name.split(".")[1]) for name in arrays if name.startswith("flows.")})
    others = [name for name in arrays if not name.startswith(("flows.", "q0."))]
    gap = not live and numbers != list(range(len(numbers)))
    if others or not numbers or gap:
        what = others[0] if others else "a flow without numbers"
        raise ConversionError(f"{what} is no part of a NormalizingFlow of normflows that is taken over")
    return numbers


def _parts(part: Arrays, prefix: str) -> list[str]:
    """The transforms inside a flow, from data to latent."""
    if any(name.startswith("linear.") for name in part):
        return ["permutation.", "linear."]
    for inner in ("prqct.", "mprqat."):
        if any(name.startswith(inner) for name in part):
            if inner == "mprqat." and any("context_layer" in name for name in part):
                raise ConversionError(f"{prefix.rstrip('.')}: conditions of autoregressive splines are not taken over")
            return [inner]
    raise ConversionError(f"{prefix.rstrip('.')} with {', '.join(sorted(part))} is no flow of normflows that is taken over")


def _facts(flow: Any) -> dict[int, dict[str, Any]]:
    """What an object tells of its flows beside their numbers, after a check of their kinds."""
    kind_of(flow.q0, "normflows", {"DiagGaussian", "GaussianMixture"}, "q0")
    found = {}
    for number, step in enumerate(flow.flows):
        where = f"flows.{number}"
        kind = kind_of(step, "normflows", KNOWN, where)
        if kind not in INNER:
            found[number] = _told(step, kind, where)
            continue
        if not INNER[kind]:
            found[number] = {"eps": step.linear.eps}
            continue
        transform = getattr(step, INNER[kind])
        if transform.tails != "linear":
            raise ConversionError(f"splines with tails={transform.tails!r} ({where}) are not taken over")
        network = getattr(transform, "autoregressive_net", None) or transform.transform_net
        found[number] = {
            "activation": activation_of_network(network, where),
            "divided": hasattr(network, "hidden_features"),
            **{key: getattr(transform, key) for key in ("tail_bound", "min_bin_width", "min_bin_height", "min_derivative")},
        }
    return found


def _told(step: Any, kind: str, where: str) -> dict[str, Any]:
    """What an object tells of a flow without splines."""
    if kind == "Permute":
        return {"swap": step.mode == "swap"}
    if kind == "MaskedAffineAutoregressive":
        return {"activation": activation_of_network(step.autoregressive_net, where)}
    if kind == "AffineCouplingBlock":
        split, inner, _ = step.flows
        if split.mode not in ("channel", "channel_inv") or (inner.scale and inner.scale_map not in SCALE_MAPS):
            what = f"split_mode={split.mode!r} and scale_map={inner.scale_map!r}"
            raise ConversionError(f"AffineCouplingBlock with {what} ({where}) is not taken over")
        told = {"flipped": split.mode == "channel_inv", "scale_map": SCALE_MAPS[inner.scale_map] if inner.scale else "none"}
        return {**told, "activation": _activation_of_mlp(inner.param_map, where)}
    if kind == "MaskedAffineFlow":
        names = {_activation_of_mlp(net, where) for net in (step.s, step.t) if hasattr(net, "net")}
        if len(names) > 1:
            raise ConversionError(f"networks of two activations ({where}) are not taken over")
        return {"activation": names.pop() if names else "relu"}
    return {}


def _activation_of_mlp(network: Any, where: str) -> str:
    """The activation of a network of linear layers, which has none at its end."""
    kind_of(network, "normflows", {"MLP"}, where)
    *parts, last = network.net
    if type(last).__name__ != "Linear":
        raise ConversionError(f"an MLP whose output goes through {type(last).__name__} ({where}) is not taken over")
    inner = [part for part in parts if type(part).__name__ not in ("Linear", "Dropout")]
    names = {"relu" if getattr(part, "negative_slope", None) == 0 else activation_of(part, where) for part in inner}
    if len(names) > 1:
        raise ConversionError(f"an MLP with several activations, {', '.join(sorted(names))} ({where}), is not taken over")
    return names.pop() if names else "relu"


def _without_splines(part: Arrays, where: str, facts: dict[str, Any], n: int, dtype: str) -> list[Layer] | None:
    """A flow without splines as layers, from data to latent; None for one that is not of these kinds."""
    if facts.get("swap"):
        return [permutation(np.r_[(n + 1) // 2 : n, 0 : (n + 1) // 2], dtype)]
    if set(part) == {"perm", "inv_perm"}:
        return [permutation(part["inv_perm"], dtype)]
    if {"s", "t"} <= set(part) <= {"s", "t", "data_dep_init_done"}:
        log_scale, shift = part["s"].ravel().astype(float), part["t"].ravel().astype(float)
        return diagonal(np.exp(-log_scale), -shift * np.exp(-log_scale), n, dtype)
    if any(name.startswith("autoregressive_net.") for name in part):
        if not any("linear_layers" in name for name in part) or any("context_layer" in name for name in part):
            raise ConversionError(
                f"{where}: masked networks without residual blocks, or with a condition, are not taken over"
            )
        told = {**facts, "scale": "sigmoid", "inverted": True}  # the network sees latent values
        return layers_of(part, where, told, dtype, n, Seen())
    if any(name.startswith("flows.1.param_map.") for name in part):
        layers, half = _mlp(part, "flows.1.param_map.net.", where), (n + 1) // 2
        mask = (np.arange(n) < half).astype(int)
        if facts.get("flipped"):
            mask = 1 - mask
        moved, outputs = n - int(mask.sum()), len(layers[-1][1])
        network = Dense(layers, facts["activation"])
        if outputs == moved:  # shifts alone
            network = network.with_outputs(np.repeat(np.arange(moved), 2), np.tile([1.0, 0.0], moved))
        scale = facts.get("scale_map", "none")
        return [coupling(network, mask, {"scale_activation": scale, "shift_first": True}, dtype)]
    if "b" in part:
        return [_masked(part, where, facts, n, dtype)]
    return None


def _masked(part: Arrays, where: str, facts: dict[str, Any], n: int, dtype: str) -> Layer:
    """A MaskedAffineFlow: its two networks, of which one may be missing, side by side as one."""
    mask = part["b"].ravel().astype(int)
    kept, moved = np.flatnonzero(mask == 1), np.flatnonzero(mask == 0)
    both = [_mlp(part, f"{name}.net.", where) for name in ("t", "s") if any(key.startswith(f"{name}.") for key in part)]
    if not both or len({len(layers) for layers in both}) > 1:
        raise ConversionError(f"{where}: networks of as many layers for both s and t are needed")
    layers = []
    for number, parts in enumerate(zip(*both)):
        weights = [weight[:, kept] if number == 0 else weight for weight, _ in parts]
        weight = np.concatenate(weights) if number == 0 else block_diag(weights)
        layers.append((weight, np.concatenate([bias for _, bias in parts])))
    columns = np.stack([moved, moved + n], axis=1) if len(both) == 2 else np.stack([moved, moved], axis=1)
    has = [any(key.startswith(f"{name}.") for key in part) for name in ("t", "s")]
    network = Dense(layers, facts["activation"]).with_outputs(columns.ravel(), np.tile(np.array(has, float), len(moved)))
    return coupling(network, mask, {"scale_activation": "none", "shift_first": True}, dtype)


def _mlp(part: Arrays, prefix: str, where: str) -> list[Linear]:
    """The linear layers of a network in their order."""
    numbers = sorted(int(m[1]) for name in part if (m := re.match(rf"{re.escape(prefix)}(\d+)\.weight$", name)))
    if not numbers:
        raise ConversionError(f"{where}: a network that is no MLP of normflows is not taken over")
    return [linear(part, f"{prefix}{number}") for number in numbers]


def block_diag(weights: list[NDArray]) -> NDArray:
    """The matrix that has the given ones along its diagonal, and 0 elsewhere."""
    result = np.zeros(np.sum([weight.shape for weight in weights], axis=0), weights[0].dtype)
    row = column = 0
    for weight in weights:
        rows, columns = weight.shape
        result[row : row + rows, column : column + columns] = weight
        row, column = row + rows, column + columns
    return result
