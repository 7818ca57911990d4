"""Flows of nflows 0.14, from objects and from state dicts."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from npflows.convert.networks import Dense, Linear, check_masks, fill, linear, masked
from npflows.convert.state_dict import Arrays, ConversionError, arrays_of, is_live
from npflows.flow import NormalizingFlow
from npflows.layers import ActNormLayer, CouplingLayer, LULinear, MAFLayer, Permutation
from npflows.layers.layer import Layer
from npflows.layers.spline import SplineAutoregressiveLayer, SplineCouplingLayer, SplineLayer

MIN_SCALE, MIN_BIN, EPS_LU, EPS_BATCH_NORM = 1e-3, 1e-3, 1e-3, 1e-5
"""Numbers of nflows that no state dict holds: of its affine maps, its splines, LULinear and BatchNorm."""
KEPT = "unconditional_transform."
KNOWN = {
    "CompositeTransform", "Permutation", "RandomPermutation", "ReversePermutation", "LULinear", "BatchNorm", "ActNorm",
    "PointwiseAffineTransform", "AffineScalarTransform", "AffineTransform", "MaskedAffineAutoregressiveTransform",
    "MaskedPiecewiseRationalQuadraticAutoregressiveTransform", "AffineCouplingTransform",
    "PiecewiseRationalQuadraticCouplingTransform",
}  # fmt: skip
ACTIVATIONS = {"relu": "relu", "tanh": "tanh", "silu": "silu", "elu": "elu", "leaky_relu": "leaky_relu", "ReLU": "relu",
               "Tanh": "tanh", "SiLU": "silu", "ELU": "elu", "LeakyReLU": "leaky_relu"}  # fmt: skip


def from_nflows(
    flow: Any, *, activation: str = "relu", tail_bound: float | None = None, dtype: str | None = None
) -> NormalizingFlow:  # fmt: skip
    """A flow of nflows as a flow of npflows that gives its numbers, exactly.

    What can't be represented is refused by name, never approximated: conditions, batch normalization within networks,
    residual networks of another activation than relu, splines without tails, other base distributions than StandardNormal.

    Parameters
    ----------
    flow : nflows.flows.Flow, mapping of str to array, or path-like
        The object, its state dict, or a file that `torch.save(flow.state_dict(), path)` wrote, which is read without
        PyTorch.  A state dict does not tell all that an object does: no transforms without numbers, rational-quadratic
        splines with linear tails and nflows' least sizes, and default scales are assumed.
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}
        Of the networks, where a state dict is given; an object tells it.
    tail_bound : float, optional
        Of the splines, where a state dict is given.
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
    trained on.
    """
    live: dict[str, dict[str, Any]] = _facts(flow) if is_live(flow) else {}
    arrays = arrays_of(flow)
    _check_rest(arrays)
    dtype = dtype_of(arrays) if dtype is None else dtype
    layers: list[Layer] = []
    for prefix in _transforms(arrays, "_transform."):
        facts = {"activation": activation, "tail_bound": tail_bound, **live.get(prefix, {})}
        part = {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
        layers += layers_of(part, prefix.rstrip("."), facts, dtype, _features(arrays))
    taken = NormalizingFlow(layers, dtype=dtype)
    taken.preprocessing.mark_standardized()  # a later fit goes on from these units
    return taken


def dtype_of(arrays: Arrays) -> str:
    """The dtype of a flow's numbers."""
    return "float64" if any(a.dtype == np.float64 and a.ndim for a in arrays.values()) else "float32"


def _check_rest(arrays: Arrays) -> None:
    """Refuse what is no transform."""
    for name in arrays:
        if name.startswith("_embedding_net."):
            raise ConversionError(f"the embedding network ({name}) can't be taken over: embed conditions before")
        if name.startswith("_distribution.") and name != "_distribution._log_z":
            raise ConversionError(f"the base distribution is no StandardNormal, as it has {name}")
        if not name.startswith(("_transform.", "_distribution.")):
            raise ConversionError(
                f"{name} is no part of a flow of nflows: its state dict has _transform. before most names"
            )
    check_networks(arrays)


def check_networks(arrays: Arrays) -> None:
    """Refuse what networks have that npflows' do not."""
    for name in arrays:
        if "context_layer" in name:
            raise ConversionError(f"{name}: conditions, which nflows adds behind activations or gates, are not taken over")
        if "batch_norm" in name:
            raise ConversionError(f"{name}: batch normalization within networks is not taken over")


def _transforms(arrays: Arrays, prefix: str) -> list[str]:
    """The prefixes of all transforms in their order, those in composites one by one."""
    inner = prefix + "_transforms."
    numbers = sorted({int(name.removeprefix(inner).split(".")[0]) for name in arrays if name.startswith(inner)})
    if not numbers:
        return [prefix]
    if numbers != list(range(len(numbers))):
        gap = next(k for k, number in enumerate(numbers) if k != number)
        raise ConversionError(f"transform {gap} of {prefix.rstrip('.')} has no numbers, so that a state dict does not tell "
                              f"what it is")  # fmt: skip
    return [p for number in numbers for p in _transforms(arrays, f"{inner}{number}.")]


def _facts(flow: Any) -> dict[str, dict[str, Any]]:
    """What an object tells of its transforms beside their numbers, by their prefixes, after a check of their kinds."""
    found: dict[str, dict[str, Any]] = {}

    def visit(transform: Any, prefix: str) -> None:
        where = prefix.rstrip(".")
        kind = kind_of(transform, "nflows", KNOWN, where)
        if kind == "CompositeTransform":
            for number, inner in enumerate(transform._transforms):
                visit(inner, f"{prefix}_transforms.{number}.")
            return
        facts = found[prefix] = {}
        network = getattr(transform, "autoregressive_net", None) or getattr(transform, "transform_net", None)
        if network is not None:
            kind_of(network, "nflows", {"MADE", "ResidualNet", "MLP"}, where)
            if getattr(network, "_activate_output", False):
                raise ConversionError(f"an MLP that activates its output ({where}) is not taken over")
            facts["activation"] = activation_of(network, where)
            facts["divided"] = hasattr(network, "hidden_features")
        if hasattr(transform, "tails") and transform.tails != "linear":
            raise ConversionError(f"splines with tails={transform.tails!r} ({where}) are not taken over")
        for name in ("tail_bound", "min_bin_width", "min_bin_height", "min_derivative", "eps"):
            if hasattr(transform, name):
                facts[name] = getattr(transform, name)

    kind_of(flow._distribution, "nflows", {"StandardNormal"}, "_distribution")
    visit(flow._transform, "_transform.")
    return found


def kind_of(part: Any, library: str, known: Collection[str], where: str) -> str:
    """The name of a part's class, after a check that it is one of the library's own that are known."""
    kind, module = type(part).__name__, type(part).__module__
    if kind not in known or module.split(".")[0] != library:
        raise ConversionError(
            f"{module}.{kind} ({where}) is not taken over; {', '.join(sorted(known))} of {library} can be"
        )
    return kind


def activation_of(network: Any, where: str) -> str:
    """npflows' name of the activation of a network of nflows or normflows."""
    blocks = getattr(network, "blocks", ())
    holders = [*blocks[:1], network] if len(blocks) else [network]
    given = next((h for holder in holders for name in ("activation", "_activation")
                  if (h := getattr(holder, name, None)) is not None), None)  # fmt: skip
    name = getattr(given, "__name__", type(given).__name__)
    usual = getattr(given, "negative_slope", 0.01) == 0.01 and getattr(given, "alpha", 1.0) == 1.0
    if name not in ACTIVATIONS or not usual:
        raise ConversionError(f"the activation {given!r} ({where}) is not one of npflows")
    return ACTIVATIONS[name]


def _features(arrays: Arrays) -> int:
    """The number of features, as the first transform that tells it does."""
    for name, array in arrays.items():
        end = name.rsplit(".", 1)[-1]
        if end in ("_permutation", "running_mean", "log_scale", "unconstrained_upper_diag"):
            return len(array)
        if name.endswith("autoregressive_net.initial_layer.weight"):
            return array.shape[1]
        if end == "identity_features":
            return len(array) + len(arrays[name.replace("identity_features", "transform_features")])
    raise ConversionError("no transform of the flow tells the number of features")


def layers_of(part: Arrays, where: str, facts: dict[str, Any], dtype: str, n: int) -> list[Layer]:
    """One transform as layers."""
    kept = {name.removeprefix(KEPT): a for name, a in part.items() if name.startswith(KEPT)}
    layers = [_layer({name: a for name, a in part.items() if not name.startswith(KEPT)}, where, facts, dtype, n)]
    return [*layers, _of_kept(kept, part["identity_features"].astype(int), where, facts, dtype, n)] if kept else layers


def _of_kept(
    part: Arrays, kept: np.ndarray, where: str, facts: dict[str, Any], dtype: str, n: int
) -> Layer:  # fmt: skip
    """The splines of a coupling's kept features, which their network does not see; the others' are the identity."""
    raw = np.concatenate([part[f"unnormalized_{name}"] for name in ("widths", "heights", "derivatives")], axis=-1)
    bins, options = _spline(raw.shape[-1], facts, where)
    raw[..., 2 * bins :] -= math.log(math.expm1(1 - options["min_derivative"]))
    layer = SplineLayer(n, bins, **options, dtype=dtype)
    layer.parameters.views()["raw"][kept] = raw
    return layer


def _layer(part: Arrays, where: str, facts: dict[str, Any], dtype: str, n: int) -> Layer:
    if "_permutation" in part:
        return Permutation(n, part["_permutation"].tolist(), dtype=dtype)
    if "running_mean" in part:
        eps = facts.get("eps", EPS_BATCH_NORM)
        weight = np.logaddexp(0, part["unconstrained_weight"].astype(float)) + eps
        slope = weight / np.sqrt(part["running_var"].astype(float) + eps)
        return _diagonal(slope, part["bias"] - slope * part["running_mean"], n, dtype)
    if {"log_scale", "initialized"} <= set(part):
        return _diagonal(np.exp(part["log_scale"].astype(float)), part["shift"], n, dtype)
    if {"_scale", "_shift"} <= set(part):
        return _diagonal(part["_scale"], part["_shift"], n, dtype)
    if "unconstrained_upper_diag" in part:
        return _lu(part, facts.get("eps", EPS_LU), n, dtype)
    if any(name.startswith("autoregressive_net.") for name in part):
        return _autoregressive(part, where, facts, n, dtype)
    if "identity_features" in part:
        return _coupling(part, where, facts, n, dtype)
    raise ConversionError(f"{where} with {', '.join(sorted(part)) or 'no numbers'} is no transform that is taken over")


def _diagonal(slope: ArrayLike, shift: ArrayLike, n: int, dtype: str) -> Layer:
    """y = slope x + shift."""
    slope, shift = (np.broadcast_to(np.asarray(v, float), (n,)) for v in (slope, shift))
    if not (slope > 0).all():
        raise ConversionError("a diagonal layer with slopes that are not positive is not taken over")
    layer = ActNormLayer(n, dtype=dtype)
    views = layer.parameters.views()
    views["logs"][:], views["bias"][:] = np.log(slope), shift / slope
    layer.initialized = True
    return layer


def _lu(part: Arrays, eps: float, n: int, dtype: str) -> Layer:
    layer = LULinear(n, "natural", dtype=dtype)
    matrix = np.diag(np.log(np.logaddexp(0, part["unconstrained_upper_diag"].astype(float)) + eps))
    matrix[np.tril_indices(n, -1)] = part["lower_entries"]
    matrix[np.triu_indices(n, 1)] = part["upper_entries"]
    views = layer.parameters.views()
    views["matrix"][...], views["shift"][:] = matrix, part["bias"]
    return layer


def _autoregressive(part: Arrays, where: str, facts: dict[str, Any], n: int, dtype: str) -> Layer:
    net = "autoregressive_net."
    residual = f"{net}blocks.0.linear_layers.0.weight" in part
    n_blocks = len({m[1] for name in part if (m := re.match(rf"{re.escape(net)}blocks\.(\d+)\.", name))})
    inner = ([f"{net}blocks.{b}.linear_layers.{k}" for b in range(n_blocks) for k in range(2)] if residual
             else [f"{net}blocks.{b}.linear" for b in range(n_blocks)])  # fmt: skip
    names = [f"{net}initial_layer", *inner, f"{net}final_layer"]
    if not n_blocks:
        raise ConversionError(f"{where}: a masked network without blocks is not taken over")
    multiplier = len(part[f"{net}final_layer.bias"]) // n
    order, degrees = check_masks(part, names, n, multiplier)
    layers = [masked(part, name) for name in names]
    layers[0] = layers[0][0][:, order], layers[0][1]
    # side by side for each feature: scale and shift, or the spline's; npflows has the shift first, features in order
    outputs = np.arange(n * multiplier).reshape(n, multiplier)[order]
    rows = outputs[:, ::-1] if multiplier == 2 else outputs
    network = Dense([*layers[:-1], _rows(layers[-1], rows.ravel())], residual, degrees)
    width, _, _ = network.places(n)
    _check_residual(residual, facts, where)
    common = {"activation": facts["activation"], "residual_blocks": n_blocks if residual else 0, "dtype": dtype, "rng": 0}
    hidden = (width,) if residual else (width,) * (n_blocks + 1)
    if multiplier == 2:
        layer: Layer = MAFLayer(n, hidden, order, "softplus", shift_first=False, min_scale=MIN_SCALE, **common)
    else:
        bins, options = _spline(multiplier, facts, where)
        network = _for_spline(network, n, bins, math.sqrt(len(part[f"{net}initial_layer.bias"]))
                              if facts.get("divided", False) else 1.0, options["min_derivative"])  # fmt: skip
        layer = SplineAutoregressiveLayer(n, hidden, order, bins, **options, **common)
    fill(network, _network_views(layer), n)
    return layer


def _coupling(part: Arrays, where: str, facts: dict[str, Any], n: int, dtype: str) -> Layer:
    net, moved = "transform_net.", part["transform_features"].astype(int)
    mask = np.ones(n, int)
    mask[moved] = 0
    if f"{net}initial_layer.weight" in part:
        n_blocks = len({m[1] for name in part if (m := re.match(rf"{re.escape(net)}blocks\.(\d+)\.", name))})
        names = [f"{net}initial_layer", *(f"{net}blocks.{b}.linear_layers.{k}" for b in range(n_blocks) for k in range(2)),
                 f"{net}final_layer"]  # fmt: skip
        residual, divided = n_blocks > 0, True
        if not residual:
            raise ConversionError(f"{where}: a residual network without blocks is not taken over")
    elif f"{net}_input_layer.weight" in part:
        n_hidden = len({name.split(".")[2] for name in part if name.startswith(f"{net}_hidden_layers.")})
        names = [f"{net}_input_layer", *(f"{net}_hidden_layers.{k}" for k in range(n_hidden)), f"{net}_output_layer"]
        residual, divided, n_blocks = False, False, 0
    else:
        raise ConversionError(f"{where}: the coupling's network is neither ResidualNet nor MLP of nflows")
    layers = [linear(part, name) for name in names]
    _check_residual(residual, facts, where)
    multiplier = len(layers[-1][1]) // len(moved)
    if multiplier == 2:  # all shifts, then all scales; npflows has them side by side
        rows = np.arange(2 * len(moved)).reshape(2, -1).T.ravel()
        layers[-1] = _rows(layers[-1], rows)
    network = Dense(layers, residual)
    hidden = (network.places(n)[0],) if residual else tuple(len(bias) for _, bias in layers[:-1])
    common = {"activation": facts["activation"], "residual_blocks": n_blocks, "dtype": dtype, "rng": 0}
    if multiplier == 2:
        layer: Layer = CouplingLayer(mask, hidden, "sigmoid", min_scale=MIN_SCALE, **common)
    else:
        bins, options = _spline(multiplier, facts, where)
        root = math.sqrt(len(layers[0][1])) if facts.get("divided", divided) else 1.0
        network = _for_spline(network, len(moved), bins, root, options["min_derivative"])
        layer = SplineCouplingLayer(mask, hidden, bins, **options, **common)
    fill(network, _network_views(layer), n)
    return layer


def _check_residual(residual: bool, facts: dict[str, Any], where: str) -> None:
    if residual and facts["activation"] != "relu":
        raise ConversionError(f"{where}: a residual network with {facts['activation']} has no activation before its last "
                              f"layer, which npflows' networks can hold for relu alone")  # fmt: skip


def _spline(multiplier: int, facts: dict[str, Any], where: str) -> tuple[int, dict[str, Any]]:
    """The number of bins, and the arguments of a spline layer."""
    if multiplier < 5 or (multiplier + 1) % 3:
        raise ConversionError(f"{where} has {multiplier} outputs for each feature: neither an affine map nor a "
                              f"rational-quadratic spline with linear tails")  # fmt: skip
    if facts["tail_bound"] is None:
        raise ConversionError(f"{where}: a state dict does not tell the tail bound of splines: pass tail_bound=")
    names = ("min_bin_width", "min_bin_height", "min_derivative")
    return (multiplier + 1) // 3, {"tail_bound": float(facts["tail_bound"]), **{n: facts.get(n, MIN_BIN) for n in names}}


def _rows(layer: Linear, rows: np.ndarray) -> Linear:
    return layer[0][rows], layer[1][rows]


def _for_spline(network: Dense, n: int, bins: int, root: float, least: float) -> Dense:
    """The network whose outputs are what npflows' spline expects: sizes divided by the root already, and derivatives less
    what npflows adds to them."""
    weight, bias = network.layers[-1]
    factor = np.tile(np.r_[np.full(2 * bins, 1 / root), np.ones(bins - 1)], n)
    offset = np.tile(np.r_[np.zeros(2 * bins), np.full(bins - 1, math.log(math.expm1(1 - least)))], n)
    scaled = weight * factor[:, None], bias * factor - offset
    return Dense([*network.layers[:-1], scaled], network.residual, network.degrees)


def _network_views(layer: Layer) -> Arrays:
    return {name.removeprefix("network."): view for name, view in layer.parameters.views().items()
            if name.startswith("network.")}  # fmt: skip
