"""Flows of normflows 1.7.3, from objects and from state dicts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.base import Base, GaussianMixture, Normal
from npflows.convert.arguments import checked
from npflows.convert.errors import ConversionError
from npflows.convert.linear import assembled, diagonal, dtype_of, permutation
from npflows.convert.networks import Dense, Linear, activation_of, chain, coupling
from npflows.convert.nflows import check_networks, layers_of
from npflows.convert.nflows_conditions import Seen
from npflows.convert.nflows_objects import activation_of_network, kind_of
from npflows.convert.state_dict import arrays_of, is_live, numbers_below, refuse_others
from npflows.convert.tensors import Tensors
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
    given = checked(activation=activation, tail_bound=tail_bound)
    dtype = checked(dtype=dtype)["dtype"]
    refuse_others(flow, "flow of normflows", "q0", "flows", "state_dict")
    live: dict[int, dict[str, Any]] = _facts(flow) if is_live(flow) else {}
    arrays = arrays_of(flow)
    check_networks(arrays)
    widths = {a.shape[-1] for name, a in arrays.items() if name.endswith("context_layer.weight") and a.ndim}
    if len(widths) > 1:
        raise ConversionError(f"the flows see conditions of several widths: {sorted(widths)}")
    width = widths.pop() if widths else 0
    dtype = dtype_of(arrays) if dtype is None else dtype
    base = _base(arrays.below("q0."), dtype)
    n = base.dim
    layers: list[Layer] = []
    numbers = _numbers(arrays, bool(live))
    for number in reversed(sorted(live) if live else numbers):  # normflows lists its flows from latent to data
        prefix = f"flows.{number}."
        part = arrays.below(prefix)
        facts = {**given, **live.get(number, {})}
        others = _without_splines(part, prefix.rstrip("."), facts, n, dtype)
        if others is not None:
            layers += others
            continue
        for inner in _parts(part, prefix):
            layers += layers_of(part.below(inner), f"{prefix}{inner}".rstrip("."), facts, dtype, n, Seen(width))
    arrays.refuse_rest()
    return assembled(layers, base, dtype)


def _base(numbers: Tensors, dtype: str) -> Base:
    """The base distribution, a DiagGaussian or a GaussianMixture; both are learnable."""
    if set(numbers) == {"loc", "log_scale"} and numbers["loc"].ndim == 2:
        n = numbers.take("loc", 1, None).size
        loc, log_scale = (numbers.take_flat(name, n) for name in ("loc", "log_scale"))
        return Normal(n, loc, np.exp(log_scale), learnable=True, dtype=dtype)
    if set(numbers) == {"loc", "log_scale", "weight_scores"}:
        shape = numbers.take("loc", 1, None, None).shape
        loc, log_scale = (numbers.take(name, *shape)[0].astype(float) for name in ("loc", "log_scale"))
        k, dim = loc.shape
        scores = numbers.take("weight_scores", 1, k)[0].astype(float)
        return GaussianMixture(dim, k, loc, np.exp(log_scale), np.exp(scores - scores.max()), dtype=dtype)
    raise ConversionError(
        f"the base distribution with {', '.join(sorted(numbers)) or 'no numbers'} is no DiagGaussian of a row, and no "
        f"GaussianMixture"
    )


def _numbers(arrays: Tensors, live: bool) -> list[int]:
    others = [name for name in arrays if not name.startswith(("flows.", "q0."))]
    numbers = numbers_below(arrays, "flows.")
    gap = not live and numbers != list(range(len(numbers)))
    if others or not numbers or gap:
        what = others[0] if others else "a flow without numbers"
        raise ConversionError(f"{what} is no part of a NormalizingFlow of normflows that is taken over")
    return numbers


def _parts(part: Tensors, prefix: str) -> list[str]:
    """The transforms inside a flow, from data to latent."""
    if part.some_below("linear."):
        return ["permutation.", "linear."]
    for inner in ("prqct.", "mprqat."):
        if part.some_below(inner):
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


def _without_splines(part: Tensors, where: str, facts: dict[str, Any], n: int, dtype: str) -> list[Layer] | None:
    """A flow without splines as layers, from data to latent; None for one that is not of these kinds."""
    if facts.get("swap"):
        return [permutation(np.r_[(n + 1) // 2 : n, 0 : (n + 1) // 2], dtype)]
    if set(part) == {"perm", "inv_perm"}:
        order = part.take_order("inv_perm", n)
        if (part.take_order("perm", n)[order] != np.arange(n)).any():
            raise ConversionError(f"{where}: inv_perm is not the inverse of perm")
        return [permutation(order, dtype)]
    if {"s", "t"} <= set(part) <= {"s", "t", "data_dep_init_done"}:
        part.ignore("data_dep_init_done")
        log_scale, shift = part.take_flat("s", n), part.take_flat("t", n)
        return diagonal(np.exp(-log_scale), -shift * np.exp(-log_scale), n, dtype)
    if part.some_below("autoregressive_net."):
        if not any("linear_layers" in name for name in part) or any("context_layer" in name for name in part):
            raise ConversionError(
                f"{where}: masked networks without residual blocks, or with a condition, are not taken over"
            )
        told = {**facts, "scale": "sigmoid", "inverted": True}  # the network sees latent values
        return layers_of(part, where, told, dtype, n, Seen())
    if part.some_below("flows.1.param_map."):
        mask = (np.arange(n) < (n + 1) // 2).astype(int)
        if facts.get("flipped"):
            mask = 1 - mask
        moved = n - int(mask.sum())
        layers = _mlp(part, "flows.1.param_map.net.", where, n - moved, moved)
        outputs = len(layers[-1][1])
        if outputs not in (moved, 2 * moved):
            raise ConversionError(
                f"{where} has {outputs} outputs for {moved} values, neither a shift of each nor two numbers"
            )
        network = Dense(layers, facts["activation"])
        if outputs == moved:  # shifts alone
            network = network.with_outputs(np.repeat(np.arange(moved), 2), np.tile([1.0, 0.0], moved))
        scale = facts.get("scale_map", "none")
        return [coupling(network, mask, {"scale_activation": scale, "shift_first": True}, dtype)]
    if "b" in part:
        return [_masked(part, where, facts, n, dtype)]
    return None


def _masked(part: Tensors, where: str, facts: dict[str, Any], n: int, dtype: str) -> Layer:
    """A MaskedAffineFlow: its two networks, of which one may be missing, side by side as one."""
    mask = part.take_flat("b", n).astype(int)
    if not np.isin(mask, (0, 1)).all() or mask.all() or not mask.any():
        raise ConversionError(f"{where}: b must hold 1 for values that are kept and 0 for others, got {mask.tolist()}")
    kept, moved = np.flatnonzero(mask == 1), np.flatnonzero(mask == 0)
    both = [_mlp(part, f"{name}.net.", where, n, n) for name in ("t", "s") if part.some_below(f"{name}.")]
    if any(len(layers[-1][1]) != n for layers in both):
        raise ConversionError(f"{where}: the networks s and t have one output for each of the {n} values")
    if not both or len({len(layers) for layers in both}) > 1:
        raise ConversionError(f"{where}: networks of as many layers for both s and t are needed")
    layers = []
    for number, parts in enumerate(zip(*both)):
        weights = [weight[:, kept] if number == 0 else weight for weight, _ in parts]
        weight = np.concatenate(weights) if number == 0 else block_diag(weights)
        layers.append((weight, np.concatenate([bias for _, bias in parts])))
    columns = np.stack([moved, moved + n], axis=1) if len(both) == 2 else np.stack([moved, moved], axis=1)
    has = [part.some_below(f"{name}.") for name in ("t", "s")]
    network = Dense(layers, facts["activation"]).with_outputs(columns.ravel(), np.tile(np.array(has, float), len(moved)))
    return coupling(network, mask, {"scale_activation": "none", "shift_first": True}, dtype)


def _mlp(part: Tensors, prefix: str, where: str, inputs: int, values: int) -> list[Linear]:
    """The linear layers of a network in their order."""
    numbers = numbers_below(part, prefix)
    if not numbers:
        raise ConversionError(f"{where}: a network that is no MLP of normflows is not taken over")
    return chain(part, [f"{prefix}{number}" for number in numbers], inputs, values, 0)


def block_diag(weights: list[NDArray]) -> NDArray:
    """The matrix that has the given ones along its diagonal, and 0 elsewhere."""
    result = np.zeros(np.sum([weight.shape for weight in weights], axis=0), weights[0].dtype)
    row = column = 0
    for weight in weights:
        rows, columns = weight.shape
        result[row : row + rows, column : column + columns] = weight
        row, column = row + rows, column + columns
    return result
