"""Flows of zuko 1.6, from objects and from state dicts."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.base import Base, Normal, Uniform
from npflows.convert.arguments import checked
from npflows.convert.errors import ConversionError
from npflows.convert.linear import assembled, diagonal, dtype_of, matrix, permutation, standardize
from npflows.convert.networks import (
    Dense,
    autoregressive,
    chain,
    coupling,
    masked_dense,
    masks_of,
    of_condition_alone,
    set_gains,
    split_condition,
    split_gains,
)
from npflows.convert.state_dict import arrays_of, is_live, numbers_below, refuse_others
from npflows.convert.tensors import Tensors
from npflows.convert.zuko_objects import FIXED, Told, facts_of
from npflows.core.operations import Bernstein
from npflows.flow import NormalizingFlow
from npflows.layers import LogTails, MonotoneLayer
from npflows.layers.layer import Layer
from npflows.layers.spline import SplineLayer


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
    given = _given(univariate, slope=slope, bound=bound, activation=activation)
    dtype = checked(dtype=dtype)["dtype"]
    arrays = arrays_of(flow)
    dtype = dtype_of(arrays) if dtype is None else dtype
    live = facts_of(flow) if is_live(flow) else {}
    base, n = _base(arrays.below("base."), flow if is_live(flow) else None, dtype)
    if not live and given is not None:
        _check_base(base, given)
    layers: list[Layer] = []
    widths: set[int] = set()
    for prefix in _prefixes(arrays, list(live)) or ["transform."]:
        told, part = live.get(prefix, given), arrays.below(prefix)
        made_of_part = layers_of(part, prefix.rstrip("."), told, n, dtype, first=not layers)
        layers += made_of_part
        if part.some_below("hyper.") or part.some_below("transform.hyper."):
            widths |= {layer.condition_dim for layer in made_of_part}
    _check_contexts(widths)
    made = assembled(layers, base, dtype)
    conditions = arrays.below("condition.")
    if conditions:
        names, width = ("loc", "scale", "tails") if "tails" in conditions else ("loc", "scale"), made.condition_dim
        made.standardize_condition(**{name: conditions.take(name, width).astype(float) for name in names})
    arrays.refuse_rest()
    return made


def _given(univariate: str | None, **options: Any) -> Told | None:
    """What is told of all transforms of a state dict, after a check, or None without a scalar map.

    Raises
    ------
    ConversionError
        If a value is not one of its argument, or two contradict each other.
    """
    options = checked(**options)
    if univariate is None:
        return None
    checked(univariate=univariate)
    circular, bound = univariate == "circular spline", options["bound"]
    if circular and bound is not None and not math.isclose(bound, math.pi, rel_tol=1e-6):
        raise ConversionError(f"bound must be pi for a 'circular spline', got {bound}: leave it out")
    usual = math.pi if circular else 5.0
    return Told(univariate, options["slope"], usual if circular or bound is None else bound, options["activation"])


def _check_base(base: Base, told: Told) -> None:
    """Refuse a scalar map that the base distribution of a state dict contradicts: that of NCSF ends at pi + 1e-5."""
    if not isinstance(base, Uniform):
        if told.univariate == "circular spline":
            raise ConversionError("univariate='circular spline' goes with a uniform base, as that of NCSF, and the base of "
                                  "the state dict is normal: pass 'spline' for NSF, or give the object")  # fmt: skip
        return
    of_circle = np.allclose([-base.low, base.high], math.pi, rtol=0, atol=1e-4)
    if of_circle and told.univariate != "circular spline":
        raise ConversionError(f"the base of the state dict ends at pi, as that of NCSF: pass univariate='circular spline', "
                              f"not {told.univariate!r}, or give the object")  # fmt: skip


def _check_contexts(widths: set[int]) -> None:
    """Refuse networks that see contexts of several sizes, or of none beside others: zuko gives one context to all."""
    if len(widths) > 1:
        raise ConversionError(f"the networks see contexts of {' and '.join(map(str, sorted(widths)))} values, where zuko "
                              f"gives one context to all: the first weight of one of them has another shape")  # fmt: skip


def _prefixes(arrays: Tensors, live: list[str]) -> list[str]:
    """The prefixes of all transforms in their order, those of an object where there is one."""
    others = [name for name in arrays if not name.startswith(("transform.", "base.", "condition."))]
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


def _base(own: Tensors, flow: Any, dtype: str) -> tuple[Base, int]:
    """The base distribution, and its number of columns."""
    kind = "" if flow is None else getattr(getattr(flow.base, "f", None), "__name__", type(flow.base).__name__)
    ends = next((names for names in (("loc", "scale"), ("_0", "_1"), ("lower", "upper")) if set(names) == set(own)), ())
    if not ends or kind not in ("", "BoxUniform" if ends[0] == "lower" else "DiagNormal"):
        names = ", ".join(sorted(own)) or "no numbers"
        raise ConversionError(f"the base distribution {kind} with {names} is neither DiagNormal "
                              f"nor BoxUniform")  # fmt: skip
    first = own.take(ends[0], None).astype(float)
    n, second = first.size, own.take(ends[1], first.size).astype(float)
    if not n or (second <= (first if ends[0] == "lower" else 0)).any():
        raise ConversionError("the base distribution has no columns, or a scale that is not above 0")
    return (Uniform if ends[0] == "lower" else Normal)(n, first, second, dtype=dtype), n


def layers_of(part: Tensors, where: str, told: Told | None, n: int, dtype: str, *, first: bool = False) -> list[Layer]:
    """One transform as layers."""
    inverted = any(name.startswith("transform.") for name in part)
    if inverted:
        part = part.below("transform.")
    if not (part.some_below("hyper.") or part.some_below("phi.")):
        return _fixed(part, where, told, n, dtype, first, inverted)
    if told is None:
        raise ConversionError("a state dict does not tell the scalar map: pass univariate=, 'affine' for MAF, NICE and "
                              "RealNVP, 'spline' for NSF, 'circular spline' for NCSF, 'bounded bernstein' for BPF, or "
                              "'bernstein' or 'additive' for these maps in lists")  # fmt: skip
    part.ignore("order")  # the masks follow from it
    if part.some_below("phi."):
        return _without_network(part, where, told, n, dtype, inverted)
    mask = _mask(part, n) if "mask" in part else None
    n_moved = n if mask is None else int((mask == 0).sum())
    weights, masks, residual = _network(part, where, n if mask is None else n - n_moved, n_moved)
    total, gains = len(weights[-1][1]) // n_moved, None
    if told.own is not None and told.own.get("scale_activation") == "tanh_gain" and total == 3:
        weights, masks, gains = split_gains(weights, masks)
        total = 2
    scalar_map = _scalar_map(told, total, where)
    if mask is not None:
        inputs, conditions = split_condition(weights, n - n_moved)
        network = _outputs(Dense(inputs, told.activation, residual, conditions), np.arange(n_moved), total, told)
        if inverted and "shift_first" in scalar_map:
            scalar_map["shift_first"] = not scalar_map["shift_first"]
        made = coupling(network, mask, scalar_map, dtype, inverted=inverted)
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


def _mask(part: Tensors, n: int) -> NDArray[np.int64]:
    """Which values a coupling keeps."""
    mask = part.take("mask", n).astype(np.int64)
    if mask.all() or not mask.any():
        raise ConversionError(f"a coupling must keep some of its {n} values and move others, got the mask {mask.tolist()}")
    return mask


def _network(
    part: Tensors, where: str, n_seen: int, n_moved: int
) -> tuple[list[tuple[NDArray, NDArray]], list[NDArray] | None, str | None]:
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
    if not any(f"{name}.bias" in part for name in names):
        raise ConversionError(f"the network {where}.hyper has layers without biases, which are not taken over")
    masked = [name for name in names if f"{name}.mask" in part]
    is_coupling = "mask" in part
    layers = chain(part, names, n_seen if masked or is_coupling else 0, n_moved)
    if not masked:
        return layers, None, kind or None
    of_layers = dict(zip(names, layers))
    if is_coupling:  # of which `to_zuko` masks some layers
        masks = masks_of(part, masked, [of_layers[name] for name in masked])
        of_layers |= {name: (of_layers[name][0] * mask, of_layers[name][1]) for name, mask in zip(masked, masks)}
        return list(of_layers.values()), None, kind or None
    masks = masks_of(part, names, layers)
    return [(weight * mask, bias) for (weight, bias), mask in zip(layers, masks)], masks, kind or None


def _without_network(part: Tensors, where: str, told: Told, n: int, dtype: str, inverted: bool) -> list[Layer]:
    """A scalar map of each feature by itself."""
    raw = _raw(part, told, n)
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


def _raw(part: Tensors, told: Told, n: int) -> NDArray[np.float64]:
    """The raw parameters of scalar maps without a network: all of each feature in a row."""
    own = told.own or {}
    if told.univariate.endswith("bernstein"):
        given = [part.take("phi.0", n, None)]
    elif told.univariate.endswith("spline") or "tail_bound" in own:
        widths = part.take("phi.0", n, None)
        bins = widths.shape[1]
        given = [widths, part.take("phi.1", n, bins), part.take("phi.2", n, bins - 1)]
    else:
        count = 1 if told.univariate == "additive" else 3 if "phi.2" in part else 2
        given = [part.take(f"phi.{k}", n)[:, None] for k in range(count)]
    return np.concatenate(given, axis=1).astype(float)


def _fixed(part: Tensors, where: str, told: Told | None, n: int, dtype: str, first: bool, inverted: bool) -> list[Layer]:
    """A transform without a network."""
    kind = "" if told is None else told.fixed
    if kind and kind not in FIXED:
        raise ConversionError(f"{kind} ({where}) is not taken over; {', '.join(sorted(FIXED))} can be")
    if kind == "LogTails" and told is not None and not inverted:
        return [LogTails(n, told.bound, dtype=dtype)]
    names = set(part)
    if names == {"loc", "scale"} and kind in ("", "AffineTransform"):
        loc, scale = part.take_each("loc", n), part.take_each("scale", n)
        if not scale.all():
            raise ConversionError(f"a scale of 0 ({where}) has no inverse")
        if first and (scale > 0).all():
            return [standardize(loc, scale, n, dtype) if inverted else standardize(-loc / scale, 1 / scale, n, dtype)]
        return diagonal(1 / scale, -loc / scale, n, dtype) if inverted else diagonal(scale, loc, n, dtype)
    if names in ({"order"}, {"_0"}) and kind in ("PermutationTransform", "") and _whole(part):
        order = part.take_order(next(iter(names)), n)
        return [permutation(np.argsort(order) if inverted else order, dtype)]
    if kind in ("LULinearTransform", "RotationTransform") and len(names) == 1:
        given = part.take(next(iter(names)), n, n).astype(float)
        weight = (
            np.tril(given) @ (np.triu(given, 1) + np.eye(n))
            if kind == "LULinearTransform"
            else _exponential(given - given.T)
        )
        return matrix(np.linalg.inv(weight) if inverted else weight, 0.0, n, dtype)
    raise ConversionError(f"{where} with {', '.join(sorted(part)) or 'no numbers'} is no transform that is taken over, or "
                          f"not from a state dict")  # fmt: skip


def _whole(part: Tensors) -> bool:
    """Whether the numbers of a part are whole."""
    return all(a.dtype.kind in "iu" for a in part.values())


def _exponential(matrix: NDArray) -> NDArray:
    """exp(A) of a skew-symmetric matrix, by the eigenvectors of the Hermitian i A."""
    values, vectors = np.linalg.eigh(1j * matrix)
    return ((vectors * np.exp(-1j * values)) @ vectors.conj().T).real
