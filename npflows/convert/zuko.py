"""Flows of zuko 1.6, from objects and from state dicts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.base import Base, Normal, Uniform
from npflows.convert.linear import assembled, diagonal, dtype_of, matrix, permutation, standardize
from npflows.convert.networks import (
    Dense,
    activation_of,
    autoregressive,
    coupling,
    masked_dense,
    of_condition_alone,
    set_gains,
    split_condition,
    split_gains,
)
from npflows.convert.state_dict import Arrays, ConversionError, arrays_of, below, is_live, numbers_below, refuse_others
from npflows.core.operations import Bernstein
from npflows.flow import NormalizingFlow
from npflows.layers import LogTails, MonotoneLayer
from npflows.layers.layer import Layer
from npflows.layers.spline import SplineLayer

UNIVARIATE = {
    "MonotonicAffineTransform": "affine",
    "AdditiveTransform": "additive",
    "MonotonicRQSTransform": "spline",
    "CircularRQSTransform": "circular spline",
    "BoundedBernsteinTransform": "bounded bernstein",
    "BernsteinTransform": "bernstein",
}
"""What `univariate` calls the scalar maps of zuko that are taken over."""
KINDS = {"MaskedAutoregressiveTransform", "GeneralCouplingTransform", "ElementWiseTransform", "UnconditionalTransform"}
FIXED = {"AffineTransform", "PermutationTransform", "LULinearTransform", "RotationTransform", "LogTails"}
"""Transforms without a network that are taken over; the last one is npflows' own."""
OWN = "npflows.convert.in_zuko"
"""The module of what `to_zuko` has beside zuko's own."""


class Told(NamedTuple):
    """What a state dict does not tell of a transform.

    Attributes
    ----------
    univariate : str
    slope, bound : float
        Of the scalar map.
    activation : str
    fixed : str
        The name of a transform without a network.
    own : Mapping, optional
        The arguments of npflows' scalar map, where it is one of `to_zuko`.
    """

    univariate: str
    slope: float = 1e-3
    bound: float = 5.0
    activation: str = "relu"
    fixed: str = ""
    own: Mapping[str, Any] | None = None


def from_zuko(
    flow: Any,
    *,
    univariate: str | None = None,
    slope: float = 1e-3,
    bound: float | None = None,
    activation: str = "relu",
    dtype: str | None = None,
) -> NormalizingFlow:
    """A flow of zuko as a flow of npflows that gives its numbers, exactly.

    MAF, NSF, NCSF, BPF, NICE and RealNVP come in, with a context or without, coupling by `passes=2`, any order or
    adjacency, residual networks, and lists of such transforms with permutations, rotations, LU and affine ones between
    them, and what `to_zuko` made.  Other scalar maps (GF, NAF, UNAF, SOSPF, CNF) are refused by name, and so is layer
    normalization in networks.

    Parameters
    ----------
    flow : zuko.flows.Flow, mapping of str to array, or path-like
        The object, its state dict, or a file that `torch.save(flow.state_dict(), path)` wrote, which is read without
        PyTorch.
    univariate : {"affine", "additive", "spline", "circular spline", "bounded bernstein", "bernstein"}, optional
        The scalar map, needed with a state dict, which does not tell it; an object does.  NSF has "spline", NCSF "circular
        spline", BPF "bounded bernstein", MAF, NICE and RealNVP "affine".
    slope : float
        The least slope of the scalar maps, where a state dict is given.
    bound : float, optional
        Where splines and polynomials end, where a state dict is given: 5 by default, or pi for circular ones.
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}
        Of the networks, where a state dict is given.
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
    What an adjacency forbids beside the order of features is 0 in the networks, and so are the log-scales of additive
    transforms; both are free if the flow is trained on.  Beyond its ends zuko's bounded Bernstein polynomial is not the
    identity: it moves values by 2e-6 of the bound, away from zero, so that values near the ends have two origins.  Here it
    is the identity.
    """
    refuse_others(flow, "flow of zuko", "transform", "base", "state_dict")
    arrays = arrays_of(flow)
    dtype = dtype_of(arrays) if dtype is None else dtype
    default = math.pi if univariate == "circular spline" else 5.0
    given = None if univariate is None else Told(univariate, slope, default if bound is None else float(bound), activation)
    if univariate not in (None, *UNIVARIATE.values()):
        raise ConversionError(f"univariate must be one of {', '.join(map(repr, UNIVARIATE.values()))}, got {univariate!r}")
    live = _facts(flow) if is_live(flow) else {}
    conditions = {
        name: arrays.pop(f"condition.{name}") for name in ("loc", "scale", "tails") if f"condition.{name}" in arrays
    }
    base, n = _base(arrays, flow if is_live(flow) else None, dtype)
    layers: list[Layer] = []
    prefixes = _prefixes(arrays, list(live))
    for prefix in prefixes or ["transform."]:
        part = below(arrays, prefix)
        told = live.get(prefix, given)
        layers += layers_of(part, prefix.rstrip("."), told, n, dtype, first=not layers)
    made = assembled(layers, base, dtype)
    if conditions:
        made.standardize_condition(**{name: a.astype(float) for name, a in conditions.items()})
    return made


def _prefixes(arrays: Arrays, live: list[str]) -> list[str]:
    """The prefixes of all transforms in their order, those of an object where there is one."""
    others = [name for name in arrays if not name.startswith(("transform.", "base."))]
    if others:
        raise ConversionError(f"{others[0]} is no part of a flow of zuko: its state dict has transform. and base. before "
                              f"all names")  # fmt: skip
    if live:
        return live
    inner = "transform.transforms."
    numbers = numbers_below(arrays, inner)
    if numbers != list(range(len(numbers))):
        raise ConversionError("a transform of the flow has no numbers, so that a state dict does not tell what it is")
    return [f"{inner}{number}." for number in numbers]


def _base(arrays: Arrays, flow: Any, dtype: str) -> tuple[Base, int]:
    """The base distribution, and its number of columns."""
    own = {name: np.asarray(a, float) for name, a in below(arrays, "base.").items()}
    kind = "" if flow is None else getattr(getattr(flow.base, "f", None), "__name__", type(flow.base).__name__)
    if set(own) in ({"loc", "scale"}, {"_0", "_1"}) and kind in ("", "DiagNormal"):
        loc, scale = own.values()
        return Normal(loc.size, loc, scale, dtype=dtype), loc.size
    if set(own) == {"lower", "upper"} and kind in ("", "BoxUniform"):
        return Uniform(own["lower"].size, own["lower"], own["upper"], dtype=dtype), own["lower"].size
    names = ", ".join(sorted(own)) or "no numbers"
    raise ConversionError(f"the base distribution {kind} with {names} is neither DiagNormal "
                          f"nor BoxUniform")  # fmt: skip


def _facts(flow: Any) -> dict[str, Told]:
    """What an object tells of its transforms beside their numbers, by their prefixes, after a check of their kinds."""
    composed = getattr(flow.transform, "transforms", None)
    steps = {"transform.": flow.transform} if composed is None else {
        f"transform.transforms.{k}.": step for k, step in enumerate(composed)
    }  # fmt: skip
    return {prefix: _told(step, prefix.rstrip(".")) for prefix, step in steps.items()}


def _told(step: Any, where: str) -> Told:
    kind = type(step).__name__
    if kind == "LazyInverse":
        return _told(step.transform, where)
    if kind not in KINDS or type(step).__module__.split(".")[0] != "zuko":
        raise ConversionError(
            f"{type(step).__module__}.{kind} ({where}) is not taken over; {', '.join(sorted(KINDS))} can be"
        )
    if kind == "UnconditionalTransform":
        if getattr(step.f, "__module__", "") == OWN:
            return Told("", bound=float(step.bound), fixed=step.f.__name__)
        return Told("", fixed=getattr(step.f, "__name__", str(step.f)))
    univariate: Any = step.univariate
    options: dict[str, Any] = {}
    if isinstance(univariate, partial):
        univariate, options = univariate.func, dict(univariate.keywords)
    name = getattr(univariate, "__name__", type(univariate).__name__)
    if type(univariate).__module__ == OWN:
        return Told("own", activation=_activation(step, where), own=_own(univariate))
    if name not in UNIVARIATE:
        raise ConversionError(f"the scalar map {name} ({where}) is not taken over; {', '.join(sorted(UNIVARIATE))} can be")
    unknown = set(options) - {"slope", "bound"}
    if unknown:
        raise ConversionError(f"{', '.join(sorted(unknown))} of {name} ({where}) is not known here")
    bound = math.pi if UNIVARIATE[name] == "circular spline" else options.get("bound", 5.0)
    return Told(UNIVARIATE[name], options.get("slope", 1e-3), float(bound), _activation(step, where))


def _own(univariate: Any) -> dict[str, Any]:
    """The arguments of a layer whose scalar map `to_zuko` has handed over."""
    if type(univariate).__name__ == "AffineMap":
        kind = univariate.scale_activation
        most = {} if math.isinf(univariate.most) else {"max_scale": univariate.most}
        return {"scale_activation": kind, "min_scale": univariate.least, "shift_first": univariate.shift_first, **most}
    return {"tail_bound": univariate.bound, "min_bin_width": univariate.min_bin_width,
            "min_bin_height": univariate.min_bin_height, "min_derivative": univariate.min_derivative}  # fmt: skip


def _activation(step: Any, where: str) -> str:
    """The activation of all hidden layers."""
    if not hasattr(step, "hyper"):
        return "relu"
    parts = [inner for part in step.hyper for inner in (part if type(part).__name__ == "Residual" else [part])]
    names = {activation_of(part, where) for part in parts if type(part).__name__ not in ("Linear", "MaskedLinear")}
    if len(names) > 1:
        raise ConversionError(
            f"a network with several activations, {', '.join(sorted(names))} ({where}), is not taken over"
        )
    return names.pop() if names else "relu"


def layers_of(part: Arrays, where: str, told: Told | None, n: int, dtype: str, *, first: bool = False) -> list[Layer]:
    """One transform as layers."""
    inverted = any(name.startswith("transform.") for name in part)
    if inverted:
        part = {name.removeprefix("transform."): a for name, a in part.items()}
    if not any(name.startswith(("hyper.", "phi.")) for name in part):
        return _fixed(part, where, told, n, dtype, first, inverted)
    if told is None:
        raise ConversionError("a state dict does not tell the scalar map: pass univariate=, 'affine' for MAF, NICE and "
                              "RealNVP, 'spline' for NSF, 'circular spline' for NCSF")  # fmt: skip
    if "phi.0" in part:
        return _without_network(part, where, told, n, dtype, inverted)
    weights, masks, residual = _network(part, where)
    n_moved = int((~part["mask"].astype(bool)).sum()) if "mask" in part else n
    total, gains = len(weights[-1][1]) // n_moved, None
    if told.own is not None and told.own.get("scale_activation") == "tanh_gain" and total == 3:
        weights, masks, gains = split_gains(weights, masks)
        total = 2
    scalar_map = _scalar_map(told, total, where)
    if "mask" in part:
        inputs, conditions = split_condition(weights, n - n_moved)
        network = _outputs(Dense(inputs, told.activation, residual, conditions), np.arange(n_moved), total, told)
        if inverted and "shift_first" in scalar_map:
            scalar_map["shift_first"] = not scalar_map["shift_first"]
        made = coupling(network, part["mask"].astype(int), scalar_map, dtype, inverted=inverted)
        return [set_gains(made, gains)]
    if masks is None:  # a network of the context alone
        network, order = of_condition_alone(weights, n, told.activation), np.arange(n)
    else:
        owners = np.repeat(np.arange(n), total)
        network, order = masked_dense(weights, masks, n, owners, told.activation, residual)
    network = _outputs(network, order, total, told)
    made = autoregressive(network, order, scalar_map, dtype, inverted=inverted)
    return [set_gains(made, None if gains is None else gains[order])]


def _scalar_map(told: Told, total: int, where: str) -> dict[str, Any]:
    """The arguments of a layer's scalar map, of `total` raw parameters."""
    if told.own is not None and "scale_activation" in told.own and total == 2:
        return dict(told.own)
    if told.own is not None and "tail_bound" in told.own and total >= 5 and (total + 1) % 3 == 0:
        return {"num_bins": (total + 1) // 3, **told.own}
    if told.univariate == "affine" and total == 2 and math.isinf(told.slope):
        return {"scale_activation": "none", "shift_first": False}
    if told.univariate == "affine" and total == 2:
        return {"scale_activation": "soft_clip", "min_scale": told.slope, "shift_first": False}
    if told.univariate == "additive" and total == 1:
        return {"scale_activation": "none", "shift_first": False}
    if told.univariate.endswith("spline") and total >= 5 and (total + 1) % 3 == 0:
        options = {"min_bin_width": 0.0, "min_bin_height": 0.0, "min_derivative": 0.0, "least_slope": told.slope}
        turned = told.univariate == "circular spline"
        return {"num_bins": (total + 1) // 3, "tail_bound": told.bound, "turned": turned, **options}
    if told.univariate.endswith("bernstein") and total >= 2:
        bounded = told.univariate == "bounded bernstein"
        return {"scalar_map": "bernstein", "num_terms": total, "tail_bound": told.bound, "bounded": bounded}
    raise ConversionError(f"{where} has {total} outputs for each feature, which are not those of univariate="
                          f"{told.univariate!r}")  # fmt: skip


def _outputs(network: Dense, order: NDArray[np.int64], total: int, told: Told) -> Dense:
    """The network with outputs in the order of the features, and those of scales, which are 0, where there are none."""
    rows = (order[:, None] * total + np.arange(total)).ravel()
    network = network.with_outputs(rows, 1.0, np.tile(_added(told, total), len(order)))
    if told.univariate != "additive":
        return network
    factor = np.tile([1.0, 0.0], len(order))
    return network.with_outputs(np.repeat(np.arange(len(order)), 2), factor)


def _added(told: Told, total: int) -> NDArray[np.float64]:
    """What is added to raw parameters: npflows' Bernstein polynomials are the identity where they are 0."""
    added = np.zeros(total)
    if told.univariate == "bernstein":
        added[0] = told.bound - math.log(2) * total / 2
        added[1:] = -Bernstein(total, told.bound, bounded=False).increment_shift
    return added


def _network(part: Arrays, where: str) -> tuple[list[tuple[NDArray, NDArray]], list[NDArray] | None, str | None]:
    """The dense layers of a network in their order, their masks, and where it has activations if it is residual."""
    names = [m[1] for name in part if (m := re.match(r"(hyper\.\d+(?:\.\d+)?)\.weight$", name))]
    numbers = [[int(k) for k in name.split(".")[1:]] for name in names]
    residual = any(len(place) == 2 for place in numbers)
    expected = {"": [[2 * k] for k in range(len(numbers))]}
    if residual:
        blocks = (len(numbers) - 2) // 2
        expected = {kind: [[0], *([b + 1, first + k] for b in range(blocks) for k in (0, 2)), [blocks + end]]
                    for kind, first, end in (("inner", 0, 1), ("blocks", 1, 1), ("all", 1, 2))}  # fmt: skip
    kind = next((kind for kind, places in expected.items() if places == numbers), None)
    if kind is None:
        what = "residual networks of one width are taken over" if residual else "layer normalization is not taken over"
        raise ConversionError(f"the network {where}.hyper has layers {', '.join(names)}: {what}")
    if any(f"{name}.bias" not in part for name in names):
        raise ConversionError(f"the network {where}.hyper has layers without biases, which are not taken over")
    layers = [(part[f"{name}.weight"] * part.get(f"{name}.mask", True), part[f"{name}.bias"]) for name in names]
    masks = [part[f"{name}.mask"] for name in names] if all(f"{name}.mask" in part for name in names) else None
    return layers, masks, kind or None


def _without_network(part: Arrays, where: str, told: Told, n: int, dtype: str, inverted: bool) -> list[Layer]:
    """A scalar map of each feature by itself."""
    raw = np.concatenate([a.reshape(n, -1) for name, a in sorted(part.items())], axis=1).astype(float)
    scalar_map = _scalar_map(told, raw.shape[1], where)
    if "num_terms" in scalar_map:
        polynomial = MonotoneLayer(n, **scalar_map, dtype=dtype, inverted=inverted)
        polynomial.parameters.views()["raw"][...] = raw + _added(told, raw.shape[1])
        return [polynomial]
    if "num_bins" in scalar_map:
        layer = SplineLayer(n, **scalar_map, dtype=dtype, inverted=inverted)
        layer.parameters.views()["raw"][...] = raw
        return [layer]
    log_scale = raw[:, 1] / (1 + np.abs(raw[:, 1] / math.log(told.slope))) if raw.shape[1] == 2 else np.zeros(n)
    slope, shift = np.exp(log_scale), raw[:, 0]
    return diagonal(1 / slope, -shift / slope, n, dtype) if inverted else diagonal(slope, shift, n, dtype)


def _fixed(part: Arrays, where: str, told: Told | None, n: int, dtype: str, first: bool, inverted: bool) -> list[Layer]:
    """A transform without a network."""
    kind = "" if told is None else told.fixed
    if kind and kind not in FIXED:
        raise ConversionError(f"{kind} ({where}) is not taken over; {', '.join(sorted(FIXED))} can be")
    if kind == "LogTails" and told is not None and not inverted:
        return [LogTails(n, told.bound, dtype=dtype)]
    values = {name: np.asarray(a, float) for name, a in part.items()}
    if set(values) == {"loc", "scale"} and kind in ("", "AffineTransform"):
        loc, scale = values["loc"], values["scale"]
        if first and (scale > 0).all():
            return [standardize(loc, scale, n, dtype) if inverted else standardize(-loc / scale, 1 / scale, n, dtype)]
        return diagonal(1 / scale, -loc / scale, n, dtype) if inverted else diagonal(scale, loc, n, dtype)
    if (
        set(values) in ({"order"}, {"_0"})
        and kind in ("PermutationTransform", "")
        and next(iter(part.values())).dtype.kind in "iu"
    ):
        order = next(iter(part.values()))
        return [permutation(np.argsort(order) if inverted else order, dtype)]
    if kind in ("LULinearTransform", "RotationTransform") and len(values) == 1:
        (given,) = values.values()
        weight = (
            np.tril(given) @ (np.triu(given, 1) + np.eye(n))
            if kind == "LULinearTransform"
            else _exponential(given - given.T)
        )
        return matrix(np.linalg.inv(weight) if inverted else weight, 0.0, n, dtype)
    names = ", ".join(sorted(part)) or "no numbers"
    raise ConversionError(f"{where} with {names} is no transform that is taken over, or not from a state dict")


def _exponential(matrix: NDArray) -> NDArray:
    """exp(A) of a skew-symmetric matrix, by the eigenvectors of the Hermitian i A."""
    values, vectors = np.linalg.eigh(1j * matrix)
    return ((vectors * np.exp(-1j * values)) @ vectors.conj().T).real
