"""Flows of nflows 0.14, from objects and from state dicts."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.convert.arguments import checked
from npflows.convert.errors import ConversionError
from npflows.convert.linear import assembled, diagonal, dtype_of, matrix, permutation, standardize
from npflows.convert.networks import Dense, autoregressive, chain, coupling, linear, masked_dense, masks_of, split_condition
from npflows.convert.nflows_conditions import Conditions, Seen, standardize_condition
from npflows.convert.nflows_objects import MIN_SCALE, facts_of
from npflows.convert.nflows_splines import DIVIDED, added_to, spline_of, splines_of_kept
from npflows.convert.state_dict import arrays_of, is_live, numbers_below, refuse_others
from npflows.convert.tensors import Tensors
from npflows.flow import NormalizingFlow
from npflows.layers import Householder, LULinear, QRLinear, SVDLinear
from npflows.layers.layer import Layer

EPS_LU, EPS_BATCH_NORM = 1e-3, 1e-5
"""Numbers of nflows that no state dict holds: of LULinear and SVDLinear, and of BatchNorm."""
KEPT = "unconditional_transform."
SCALES = {"sigmoid": ("sigmoid", None), "softplus": ("softplus", None), "wide": ("softplus", 3.0)}
"""Activations and largest scales of affine maps, by what `from_glasflow` calls them."""


def from_nflows(
    flow: Any,
    *,
    activation: str = "relu",
    tail_bound: float | None = None,
    spline: str = "rational_quadratic",
    dtype: str | None = None,
) -> NormalizingFlow:
    """A flow of nflows as a flow of npflows that gives its numbers, exactly.

    What can't be represented is refused by name, never approximated: batch normalization within networks, splines without
    tails, embedding networks, other base distributions than StandardNormal.

    Parameters
    ----------
    flow : nflows.flows.Flow, mapping of str to array, or path-like
        The object, its state dict, or a file that `torch.save(flow.state_dict(), path)` wrote, which is read without
        PyTorch.  A state dict does not tell all that an object does: no transforms without numbers, splines with linear
        tails and nflows' least sizes, and default scales are assumed.
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}
        Of the networks, where a state dict is given; an object tells it.
    tail_bound : float, optional
        Of the splines, where a state dict is given.
    spline : {"rational_quadratic", "linear", "quadratic", "cubic"}
        The kind of the splines, where a state dict is given.
    dtype : {"float32", "float64"}, optional
        The source's by default.

    Returns
    -------
    NormalizingFlow

    Raises
    ------
    ConversionError
        If the flow can't be represented, or a state dict does not tell what is needed.

    Notes
    -----
    BatchNorm and ActNorm become diagonal layers with the numbers that they have in evaluation.  Batch statistics are not
    trained on.  What nflows' masked networks make of a condition before they add it becomes an embedding of the flow.
    """
    given = checked(activation=activation, tail_bound=tail_bound, spline=spline)
    dtype = checked(dtype=dtype)["dtype"]
    refuse_others(flow, "flow of nflows", "_transform", "_distribution", "state_dict")
    live = facts_of(flow, "nflows") if is_live(flow) else {}
    return flow_of(arrays_of(flow), live, given, dtype)


def flow_of(
    arrays: Tensors, live: dict[str, dict[str, Any]], given: dict[str, Any], dtype: str | None
) -> NormalizingFlow:  # fmt: skip
    """A flow from its arrays, from what an object tells of its transforms and what is assumed of them else."""
    standardization = next((part for prefix in ("_embedding_net.0.", "_embedding_net.")
                            if set(part := arrays.below(prefix)) == {"_mean", "_std"}), None)  # fmt: skip
    _check_rest(arrays, standardization is not None)
    dtype = dtype_of(arrays) if dtype is None else dtype
    n = _features(arrays)
    prefixes = list(live) if live else _transforms(arrays, "_transform.")
    facts = {prefix: {**given, **live.get(prefix, {})} for prefix in prefixes}
    seen = Conditions.of(arrays, facts)
    layers: list[Layer] = []
    for prefix, told in facts.items():
        where, told = prefix.rstrip("."), {**told, "first": not layers}
        layers += layers_of(arrays.below(prefix), where, told, dtype, n, seen.of_transform(prefix))
    taken = assembled(layers, "normal", dtype, **seen.options)
    seen.fill(taken)
    if standardization is not None:
        standardize_condition(taken, standardization)
    arrays.refuse_rest()
    return taken


def _check_rest(arrays: Tensors, standardized: bool) -> None:
    """Refuse what is no transform."""
    for name in arrays:
        if name.startswith("_embedding_net.") and not standardized:
            raise ConversionError(f"the embedding network ({name}) can't be taken over: embed conditions before")
        if name.startswith("_distribution.") and name != "_distribution._log_z":
            raise ConversionError(f"the base distribution is no StandardNormal, as it has {name}")
        if not name.startswith(("_transform.", "_distribution.", "_embedding_net.")):
            raise ConversionError(
                f"{name} is no part of a flow of nflows: its state dict has _transform. before most names"
            )
    arrays.ignore("_distribution._log_z")
    check_networks(arrays)


def check_networks(arrays: Tensors) -> None:
    """Refuse what networks have that npflows' do not."""
    for name in arrays:
        if "batch_norm" in name:
            raise ConversionError(f"{name}: batch normalization within networks is not taken over")


def _transforms(arrays: Tensors, prefix: str) -> list[str]:
    """The prefixes of all transforms in their order, those in composites one by one."""
    inner = prefix + "_transforms."
    numbers = numbers_below(arrays, inner)
    if not numbers:
        return [prefix]
    if numbers != list(range(len(numbers))):
        gap = next(k for k, number in enumerate(numbers) if k != number)
        raise ConversionError(f"transform {gap} of {prefix.rstrip('.')} has no numbers, so that a state dict does not tell "
                              f"what it is")  # fmt: skip
    return [p for number in numbers for p in _transforms(arrays, f"{inner}{number}.")]


def _features(arrays: Tensors) -> int:
    """The number of features, as most transforms tell it."""
    ends = ("_permutation", "running_mean", "_scale", "unconstrained_upper_diag", "unconstrained_diagonal", "q_vectors",
            "_weight", "autoregressive_net.initial_layer.weight")  # fmt: skip
    told = [a.shape[-1] for name, a in arrays.items() if name.endswith(ends) and a.ndim]
    for name in arrays:
        if name.endswith("identity_features"):
            others = arrays.get(name.replace("identity_features", "transform_features"))
            told += [] if others is None else [arrays[name].size + others.size]
    if not told:
        raise ConversionError("no transform of the flow tells the number of features")
    return Counter(told).most_common(1)[0][0]


def layers_of(part: Tensors, where: str, facts: dict[str, Any], dtype: str, n: int, seen: Seen) -> list[Layer]:
    """One transform as layers."""
    if facts.get("kind") == "IdentityTransform":
        return []
    if "_permutation" in part:
        return [permutation(part.take_order("_permutation", n), dtype)]
    if "running_mean" in part:
        eps, names = facts.get("eps", EPS_BATCH_NORM), ("unconstrained_weight", "bias", "running_mean", "running_var")
        raw, bias, mean, variance = (part.take(name, n).astype(float) for name in names)
        slope = (np.logaddexp(0, raw) + eps) / np.sqrt(variance + eps)
        return diagonal(slope, bias - slope * mean, n, dtype)
    if {"log_scale", "initialized"} <= set(part):
        part.ignore("initialized")
        return diagonal(np.exp(part.take("log_scale", n).astype(float)), part.take("shift", n), n, dtype)
    if {"_scale", "_shift"} <= set(part):
        scale, shift = part.take_each("_scale", n), part.take_each("_shift", n)
        if facts.get("first") and (scale > 0).all():
            return [standardize(-shift / scale, 1 / scale, n, dtype)]
        return diagonal(scale, shift, n, dtype)
    if "unconstrained_upper_diag" in part:
        return [_lu(part, facts.get("eps", EPS_LU), n, dtype)]
    if "_weight" in part:
        return matrix(part.take("_weight", n, n), part.take("bias", n), n, dtype)
    if any(name.endswith("q_vectors") for name in part):
        return [_reflections(part, facts.get("eps", EPS_LU), n, dtype)]
    if part.some_below("autoregressive_net."):
        return [_autoregressive(part, where, facts, n, dtype, seen)]
    if "transform_features" in part:
        return _coupling(part, where, facts, n, dtype, seen)
    raise ConversionError(f"{where} with {', '.join(sorted(part)) or 'no numbers'} is no transform that is taken over")


def _lu(part: Tensors, eps: float, n: int, dtype: str) -> Layer:
    layer = LULinear(n, "natural", dtype=dtype)
    count = n * (n - 1) // 2
    triangles = np.diag(np.log(np.logaddexp(0, part.take("unconstrained_upper_diag", n).astype(float)) + eps))
    triangles[np.tril_indices(n, -1)] = part.take("lower_entries", count)
    triangles[np.triu_indices(n, 1)] = part.take("upper_entries", count)
    views = layer.parameters.views()
    views["matrix"][...], views["shift"][:] = triangles, part.take("bias", n)
    return layer


def _reflections(part: Tensors, eps: float, n: int, dtype: str) -> Layer:
    """Householder reflections alone, or with a triangle or a diagonal."""
    name = next(name for name in part if name.endswith("q_vectors"))
    k = len(part.take(name, None, n))
    if "unconstrained_diagonal" in part:
        layer: Layer = SVDLinear(n, k, dtype=dtype)
        given = {
            "left": part.take("orthogonal_1.q_vectors", k, n),
            "logs": np.log(np.logaddexp(0, part.take("unconstrained_diagonal", n).astype(float)) + eps),
            "right": part.take("orthogonal_2.q_vectors", k, n),
            "shift": part.take("bias", n),
        }
    elif "log_upper_diag" in part:
        layer, upper = QRLinear(n, k, dtype=dtype), np.diag(part.take("log_upper_diag", n))
        upper[np.triu_indices(n, 1)] = part.take("upper_entries", n * (n - 1) // 2)
        given = {"upper": upper, "vectors": part.take("orthogonal.q_vectors", k, n), "shift": part.take("bias", n)}
    else:
        layer, given = Householder(n, k, dtype=dtype), {"vectors": part.take("q_vectors", k, n)}
    for name, view in layer.parameters.views().items():
        view[...] = given[name]
    return layer


def _scalar_map(outputs: int, facts: dict[str, Any], where: str, scale: str | float) -> dict[str, Any]:
    """The arguments of a layer's scalar map, of so many raw parameters for each value."""
    if outputs > 2 or "Piecewise" in facts.get("kind", ""):
        return spline_of(outputs, facts, where)
    if outputs == 1:  # additive
        return {"scale_activation": "none"}
    kind = facts.setdefault("scale", scale)
    if isinstance(kind, float):
        return {"scale_activation": "tanh_gain"}
    activation, most = SCALES[kind]
    return {"scale_activation": activation, "min_scale": MIN_SCALE, "max_scale": most}


def _finished(layer: Layer, facts: dict[str, Any]) -> Layer:
    """A layer whose gains, if it has some, are the factor of its log-scales."""
    gains = layer.parameters.views().get("gain")
    if gains is not None:
        gains[:] = facts["scale"]
    return layer


def _outputs(network: Dense, rows: NDArray, outputs: int, facts: dict[str, Any], scalar_map: dict, root: float) -> Dense:
    """The network whose outputs, (values, outputs) of them in `rows`, are those that npflows' scalar map expects."""
    if "num_bins" in scalar_map:
        divided = np.ones(outputs)
        divided[: scalar_map["num_bins"] * DIVIDED[scalar_map["spline"]]] = 1 / root
        factor, offset = np.tile(divided, len(rows)), np.tile(added_to(scalar_map, outputs), len(rows))
        return network.with_outputs(rows.ravel(), factor, -offset)
    if outputs == 1:  # a scale that is always 1
        return network.with_outputs(np.repeat(rows.ravel(), 2), np.tile([1.0, 0.0], rows.size))
    half = isinstance(facts.get("scale"), float)  # log-scales N tanh(r / 2), where they have a factor N
    return network.with_outputs(rows.ravel(), np.tile([1.0, 0.5 if half else 1.0], len(rows)))


def _blocks(part: Tensors, net: str) -> int:
    """How many blocks a network has."""
    return len({m[1] for name in part if (m := re.match(rf"{re.escape(net)}blocks\.(\d+)\.", name))})


def _autoregressive(part: Tensors, where: str, facts: dict[str, Any], n: int, dtype: str, seen: Seen) -> Layer:
    net = "autoregressive_net."
    residual, n_blocks = part.some_below(f"{net}blocks.0.linear_layers."), _blocks(part, net)
    inner = ([f"{net}blocks.{b}.linear_layers.{k}" for b in range(n_blocks) for k in range(2)] if residual
             else [f"{net}blocks.{b}.linear" for b in range(n_blocks)])  # fmt: skip
    names = [f"{net}initial_layer", *inner, f"{net}final_layer"]
    if not n_blocks:
        raise ConversionError(f"{where}: a masked network without blocks is not taken over")
    linears = chain(part, names, n, n, 0)
    masks = masks_of(part, names, linears)
    part.ignore(*(f"{name}.degrees" for name in names))  # the masks follow from them
    outputs = len(linears[-1][1]) // n
    _check_output_mask(names[-1], masks[-1], n, outputs)
    network, order = masked_dense(
        linears, masks, n, np.repeat(np.arange(n), outputs), facts["activation"], "blocks" if residual else None
    )
    if part.some_below(f"{net}context_layer."):
        hidden = network.hidden
        context, _ = linear(part, f"{net}context_layer", rows=hidden[0])
        conditions = {0: seen.weights(seen.own, np.eye(hidden[0]))}
        for b in range(n_blocks if residual else 0):
            weight, bias = linear(part, f"{net}blocks.{b}.context_layer", columns=context.shape[1], rows=hidden[1 + 2 * b])
            conditions[1 + 2 * b] = seen.weights(seen.plain, weight)
            network.layers[1 + 2 * b] = network.layers[1 + 2 * b][0], network.layers[1 + 2 * b][1] + bias
        network = replace(network, conditions=conditions)
    # side by side for each feature: scale and shift, or the spline's; npflows has the shift first, features in order
    rows = np.arange(n * outputs).reshape(n, outputs)[order]
    scalar_map = _scalar_map(outputs, facts, where, "softplus")
    if outputs == 2 and "num_bins" not in scalar_map:
        rows, scalar_map["shift_first"] = rows[:, ::-1], False
    root = math.sqrt(network.hidden[0]) if facts.get("divided", False) else 1.0
    network = _outputs(network, rows, outputs, facts, scalar_map, root)
    return _finished(autoregressive(network, order, scalar_map, dtype, inverted=facts.get("inverted", False)), facts)


def _check_output_mask(name: str, mask: NDArray, n: int, outputs: int) -> None:
    """Refuse masks in which the outputs of a feature do not lie side by side."""
    sides = (mask != 0).reshape(n, outputs, -1)
    if (sides != sides[:, :1]).any():
        raise ConversionError(f"the mask of {name} is not that of outputs side by side for each feature")


def _coupling(part: Tensors, where: str, facts: dict[str, Any], n: int, dtype: str, seen: Seen) -> list[Layer]:
    """A coupling, and after it the splines of the features that it keeps, where it has some."""
    net, moved, mask = "transform_net.", *_moved(part, where, n)
    n_kept, n_blocks = n - len(moved), _blocks(part, net)
    names, condition, divided = _layers_of_coupling(part, where, net, n_blocks)
    residual = names[0] == f"{net}initial_layer"
    layers, conditions = split_condition(chain(part, names, n_kept, len(moved), condition), n_kept)
    conditions = {number: seen.weights(seen.plain, weight) for number, weight in conditions.items()}
    gates = {2 + 2 * b: linear(part, f"{net}blocks.{b}.context_layer", columns=condition, rows=len(layers[2 + 2 * b][1]))
             for b in range(n_blocks if residual and condition else 0)}  # fmt: skip
    gates = {number: (seen.weights(seen.plain, weight), bias) for number, (weight, bias) in gates.items()}
    network = Dense(layers, facts["activation"], "blocks" if residual else None, conditions, gates)
    outputs = len(layers[-1][1]) // len(moved)
    rows = np.arange(outputs * len(moved)).reshape(-1, outputs)
    scalar_map = _scalar_map(outputs, facts, where, facts.get("coupling_scale", "sigmoid"))
    if outputs == 2 and "num_bins" not in scalar_map:  # all shifts, then all scales; npflows has them side by side
        rows = np.arange(2 * len(moved)).reshape(2, -1).T
    root = math.sqrt(len(layers[0][1])) if facts.get("divided", divided) else 1.0
    network = _outputs(network, rows, outputs, facts, scalar_map, root)
    if not n_kept:  # a network of the condition alone
        first = np.zeros((len(layers[0][1]), n)), layers[0][1]
        degrees = [np.zeros(width, np.int64) for width in network.hidden]
        network = replace(network, layers=[first, *network.layers[1:]], degrees=degrees)
        return [_finished(autoregressive(network, np.arange(n), scalar_map, dtype), facts)]
    made = [_finished(coupling(network, mask, scalar_map, dtype), facts)]
    if part.some_below(KEPT) and "num_bins" in scalar_map:
        kept = np.flatnonzero(mask)
        made.append(splines_of_kept(part.below(KEPT), kept, scalar_map["num_bins"], where, facts, dtype, n))
    return made


def _moved(part: Tensors, where: str, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The features that a coupling moves, and its mask, 1 for those that it keeps."""
    moved = part.take("transform_features", None).astype(np.int64)
    kept = part.take("identity_features", n - len(moved)).astype(np.int64) if len(moved) <= n else moved
    if not len(moved) or sorted([*moved, *kept]) != list(range(n)):
        raise ConversionError(f"{where}: identity_features {kept.tolist()} and transform_features {moved.tolist()} are not "
                              f"the {n} features, each once")  # fmt: skip
    mask = np.ones(n, np.int64)
    mask[moved] = 0
    return moved, mask


def _layers_of_coupling(part: Tensors, where: str, net: str, n_blocks: int) -> tuple[list[str], int | None, bool]:
    """The names of a coupling's linear layers, how many values of a condition it sees, None for any number, and whether the
    parameters of splines are divided by the root of its width."""
    if part.some_below(f"{net}initial_layer."):
        if not n_blocks:
            raise ConversionError(f"{where}: a residual network without blocks is not taken over")
        inner = [f"{net}blocks.{b}.linear_layers.{k}" for b in range(n_blocks) for k in range(2)]
        context = f"{net}blocks.0.context_layer"
        width = part.take(f"{context}.weight", None, None).shape[1] if part.some_below(f"{context}.") else 0
        return [f"{net}initial_layer", *inner, f"{net}final_layer"], width, True
    if part.some_below(f"{net}_input_layer."):
        n_hidden = len({name.split(".")[2] for name in part if name.startswith(f"{net}_hidden_layers.")})
        inner = [f"{net}_hidden_layers.{k}" for k in range(n_hidden)]
        return [f"{net}_input_layer", *inner, f"{net}_output_layer"], 0, False
    if part.some_below(f"{net}spline_predictor."):
        numbers = numbers_below(part, f"{net}spline_predictor.")
        return [f"{net}spline_predictor.{number}" for number in numbers], None, True
    raise ConversionError(f"{where}: the coupling's network is neither ResidualNet nor MLP of nflows")
