"""Flows of flowjax 19.1, from objects and from files of leaves, without JAX."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.base import Base, Normal, Uniform
from npflows.convert.linear import assembled, diagonal, matrix, permutation
from npflows.convert.networks import (
    Dense,
    activation_of,
    autoregressive,
    coupling,
    masked_dense,
    set_gains,
    split_condition,
    split_gains,
)
from npflows.convert.state_dict import ConversionError, refuse_others
from npflows.core.checks import as_flag
from npflows.flow import NormalizingFlow
from npflows.layers import LogTails
from npflows.layers.layer import Layer

TRANSFORMERS = ("affine", "spline")
OWN = "npflows.convert.in_flowjax"
"""The module of what `to_flowjax` has beside flowjax's own."""
FAR = -1e4
"""A number whose softplus is 0."""


@dataclass(frozen=True)
class Transformer:
    """A scalar map of flowjax.

    Attributes
    ----------
    initial : ndarray
        What flowjax adds to the outputs of networks.
    options : dict
        The arguments of npflows' map.
    inverted : bool
        Whether it is the inverse of an affine map.
    """

    initial: NDArray[np.float64]
    options: dict[str, Any]
    inverted: bool = False


@dataclass(frozen=True)
class Step:
    """A layer with a network, as arrays.

    Attributes
    ----------
    layers : list of (ndarray, ndarray)
    masks : list of ndarray or None
        None for a coupling.
    n_kept : int
        The features, the first ones, that a coupling keeps.
    """

    layers: list[tuple[NDArray, NDArray]]
    masks: list[NDArray] | None
    n_kept: int = 0


def from_flowjax(
    flow: Any,
    *,
    transformer: str = "affine",
    min_scale: float = 1e-2,
    interval: float | None = None,
    min_width: float = 1e-3,
    min_derivative: float = 1e-3,
    activation: str = "relu",
    invert: bool = True,
    dtype: str | None = None,
) -> NormalizingFlow:
    """A flow of flowjax as a flow of npflows that gives its numbers, exactly.

    What `masked_autoregressive_flow` and `coupling_flow` make comes in, with affine maps or rational-quadratic splines and
    with a condition or without, on normal and uniform bases, and chains of such layers with permutations and affine ones,
    and what `to_flowjax` made.
    Planar, block neural autoregressive and triangular spline flows are refused by name.

    Parameters
    ----------
    flow : flowjax.distributions.Transformed or path-like
        The object, or a file that `equinox.tree_serialise_leaves(path, flow)` wrote for a flow of these two functions,
        which is read without JAX.
    transformer : {"affine", "spline"}
        The scalar map, where a file is given, which tells the numbers alone.
    min_scale, interval, min_width, min_derivative : float
        Those of the scalar map, where a file is given; splines need their interval.
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}
        Of the networks, where a file is given.
    invert : bool
        As it was given to flowjax, where a file is given.
    dtype : {"float32", "float64"}, optional
        The source's by default.

    Returns
    -------
    NormalizingFlow
        A normal base is learnable, as flowjax trains it too.

    Raises
    ------
    ConversionError
        If the flow can't be represented, or a file is not one of such a flow.

    Notes
    -----
    flowjax adds to the outputs of networks the raw values of an initial map, which are no part of a file; they are computed
    in the file's dtype, as flowjax does.
    """
    invert = as_flag(invert, "invert")
    if isinstance(flow, (str, os.PathLike)):
        return _from_file(os.fspath(flow), transformer, min_scale, interval, min_width, min_derivative, activation, invert,
                          dtype)  # fmt: skip
    refuse_others(flow, "flow of flowjax", "base_dist", "bijection")
    own = _dtype(flow) if dtype is None else dtype
    base = _base(flow.base_dist, own)
    bijection, inverted, condition = _condition_of(flow.bijection)
    made = assembled(_Walk(base.dim, own).layers(bijection, not inverted, None), base, own)
    if condition is not None:
        made.standardize_condition(condition.loc, condition.scale, condition.tails)
    return made


def _condition_of(bijection: Any) -> tuple[Any, bool, Any]:
    """What sees a condition that `to_flowjax` standardizes, whether it is inverted, and that standardization or None."""
    part, inverted = _plain(bijection), False
    while type(part).__name__ == "Invert":
        part, inverted = _plain(part.bijection), not inverted
    if type(part).__name__ != "EmbedCondition":
        return bijection, False, None
    if type(part.embedding_net).__module__ != OWN:
        raise ConversionError("an embedding of the condition (EmbedCondition) is not taken over: embed conditions before")
    return part.bijection, inverted, part.embedding_net


def _plain(part: Any) -> Any:
    """A part without wrappers that say it is not trained."""
    while type(part).__name__ == "NonTrainable":
        part = part.tree
    return part


def _array(part: Any, number: int | None = None) -> NDArray:
    """A leaf as an array, of one layer where those of several lie one after the other."""
    array = np.asarray(_plain(part))
    return array if number is None else array[number]


def _name(part: Any) -> str:
    """The name of a part's class, after a check that it is flowjax's own."""
    kind, module = type(part).__name__, type(part).__module__
    if module.split(".")[0] != "flowjax":
        raise ConversionError(f"{module}.{kind} is no part of flowjax that is taken over")
    return kind


def _softplus_and(function: Any, what: str) -> float:
    """The number that a function adds to a softplus, told from its values; flowjax keeps it in a closure."""
    least = float(function(np.float64(FAR)))
    at = np.linspace(-3.0, 3.0, 7)
    if not np.allclose(np.asarray(function(at)), np.logaddexp(0, at) + least, rtol=1e-5):
        raise ConversionError(f"{what} is no softplus and a least value: {function!r}")
    return least


def _scale(parameter: Any, what: str) -> tuple[Any, float]:
    """The raw values of a scale, or of derivatives, and their least value."""
    parameter = _plain(parameter)
    if type(parameter).__name__ != "Parameterize" or len(parameter.args) != 1:
        raise ConversionError(f"{what} is no softplus and a least value: {parameter!r}")
    return parameter.args[0], _softplus_and(parameter.fn, what)


def _dtype(flow: Any) -> str:
    """The dtype of the networks, or of what a flow has else."""
    found: list[str] = []

    def visit(part: Any) -> None:
        dtype = str(getattr(part, "dtype", ""))
        if dtype.startswith("float"):
            found.append(dtype)
        elif isinstance(part, (tuple, list)):
            for inner in part:
                visit(inner)
        elif type(part).__module__.split(".")[0] in ("flowjax", "equinox", "paramax"):
            for inner in vars(part).values():
                visit(inner)

    visit(flow.bijection)
    return "float64" if "float64" in found else "float32"


def _base(base: Any, dtype: str) -> Base:
    base = _plain(base)
    kind = _name(base)
    if kind == "StandardNormal":
        return Normal(int(base.shape[0]), dtype=dtype)
    if kind not in ("Normal", "Uniform"):
        raise ConversionError(f"the base distribution {kind} is not taken over; Normal, StandardNormal and Uniform can be")
    bijection = _plain(base.bijection)
    raw, least = _scale(bijection.scale, f"the scale of {kind}")
    loc, scale = _array(bijection.loc).astype(float), np.logaddexp(0, _array(raw).astype(float)) + least
    if loc.ndim != 1:
        raise ConversionError(f"a base distribution of shape {loc.shape} is not taken over")
    if kind == "Uniform":
        return Uniform(loc.size, loc, loc + scale, dtype=dtype)
    return Normal(loc.size, loc, scale, learnable=True, dtype=dtype)


@dataclass(frozen=True)
class _Walk:
    """Turns bijections into layers, from data to latent."""

    n: int
    dtype: str

    def layers(self, part: Any, inverted: bool, number: int | None) -> list[Layer]:
        """The layers of a bijection, or of its inverse."""
        part = _plain(part)
        if type(part).__module__ == OWN and not inverted:
            return [LogTails(self.n, part.bound, dtype=self.dtype)]
        kind = _name(part)
        if kind == "Invert":
            return self.layers(part.bijection, not inverted, number)
        if kind == "Scan":
            count = _count(part.bijection)
            numbers = range(count - 1, -1, -1) if inverted else range(count)
            return [layer for k in numbers for layer in self.layers(part.bijection, inverted, k)]
        if kind == "Chain":
            parts = part.bijections[::-1] if inverted else part.bijections
            return [layer for inner in parts for layer in self.layers(inner, inverted, number)]
        if kind in ("Permute", "Flip", "Identity"):
            order = np.arange(self.n) if kind != "Flip" else np.arange(self.n)[::-1]
            if kind == "Permute":
                order = _array(part.permutation[0], number)
            return [permutation(np.argsort(order) if inverted else order, self.dtype)] if kind != "Identity" else []
        if kind in ("Affine", "Loc", "Scale"):
            return self._diagonal(part, kind, inverted, number)
        if kind == "TriangularAffine":
            return self._triangular(part, inverted, number)
        if kind in ("MaskedAutoregressive", "Coupling"):
            step, mlp = _step(part, kind, number)
            activation = activation_of(_plain(mlp.activation), kind)
            return [layer_of(step, _transformer(part.transformer_constructor), activation, self.n, inverted, self.dtype)]
        known = (
            "Affine, Chain, Coupling, Flip, Invert, Loc, MaskedAutoregressive, Permute, Scale, Scan and TriangularAffine"
        )
        raise ConversionError(f"{kind} is not taken over; {known} can be")

    def _diagonal(self, part: Any, kind: str, inverted: bool, number: int | None) -> list[Layer]:
        shift = _array(part.loc, number).astype(float) if kind != "Scale" else np.zeros(self.n)
        scale = np.ones(self.n)
        if kind != "Loc":
            raw, least = _scale(part.scale, f"the scale of {kind}")
            scale = np.logaddexp(0, _array(raw, number).astype(float)) + least
        if inverted:
            return diagonal(1 / scale, -shift / scale, self.n, self.dtype)
        return diagonal(scale, shift, self.n, self.dtype)

    def _triangular(self, part: Any, inverted: bool, number: int | None) -> list[Layer]:
        parameter = _plain(part.triangular)
        if type(parameter).__name__ != "Parameterize" or number is not None:
            raise ConversionError("TriangularAffine with other parameters than its own is not taken over")
        weight, shift = np.asarray(parameter.unwrap(), float), _array(part.loc).astype(float)
        if inverted:
            weight = np.linalg.inv(weight)
            shift = -weight @ shift
        return matrix(weight, shift, self.n, self.dtype)


def _count(part: Any) -> int:
    """How many layers of a Scan lie one after the other, from the biases of its network."""
    part = _plain(part)
    if _name(part) == "Chain":
        return _count(part.bijections[0])
    network = getattr(part, "masked_autoregressive_mlp", getattr(part, "conditioner", None))
    if network is None:
        raise ConversionError(f"layers of {type(part).__name__} one after the other are not taken over")
    return len(np.asarray(_plain(network.layers[0].bias)))


def _step(part: Any, kind: str, number: int | None) -> tuple[Step, Any]:
    """The arrays of a layer with a network, and the network."""
    mlp = part.masked_autoregressive_mlp if kind == "MaskedAutoregressive" else part.conditioner
    mlp = _plain(mlp)
    if float(mlp.final_activation(1.5)) != 1.5:
        raise ConversionError(f"a network with an activation of its outputs ({kind}) is not taken over")
    weights, masks = [], []
    for layer in mlp.layers:
        weight = _plain(layer.weight)
        if type(weight).__name__ == "Parameterize":
            mask, values = _array(weight.args[0], number), _array(weight.args[1], number)
            masks.append(mask)
            weights.append((np.where(mask, values, 0), _array(layer.bias, number)))
        else:
            weights.append((_array(weight, number), _array(layer.bias, number)))
    if kind == "Coupling":
        return Step(weights, None, int(part.untransformed_dim)), mlp
    return Step(weights, masks), mlp


def _transformer(constructor: Any) -> Transformer:
    """The scalar map that a layer's constructor makes from the outputs of its network."""
    kept = dict(zip(constructor.__code__.co_freevars, (cell.cell_contents for cell in constructor.__closure__)))
    initial, static = np.asarray(kept["init"], float), kept["static"]
    kind = _name(static)
    inverted = kind == "Invert"
    if inverted:
        static, kind = static.bijection, _name(static.bijection)
    if kind == "Affine" and type(_plain(static.scale).fn).__module__ == OWN:
        own = _plain(static.scale).fn
        most = {} if math.isinf(own.most) else {"max_scale": own.most}
        return Transformer(initial, {"scale_activation": own.scale_activation, "min_scale": own.least, **most}, inverted)
    if inverted:
        raise ConversionError(f"the transformer Invert of {kind} is not taken over")
    if kind == "Affine":
        least = _softplus_and(_plain(static.scale).fn, "the scale of Affine")
        return Transformer(initial, _affine(least))
    if kind == "RationalQuadraticSpline":
        low, high = static.interval
        if low != -high:
            raise ConversionError(f"splines on [{low}, {high}] are not taken over: npflows has those on [-a, a]")
        least = _softplus_and(_plain(static.derivatives).fn, "the derivatives of RationalQuadraticSpline")
        return Transformer(initial, _spline(int(static.knots), float(high), _plain(static.x_pos).min_width, least))
    raise ConversionError(f"the transformer {kind} is not taken over; Affine and RationalQuadraticSpline can be")


def _affine(least: float) -> dict[str, Any]:
    return {"scale_activation": "softplus", "min_scale": least}


def _spline(knots: int, interval: float, min_width: float, min_derivative: float) -> dict[str, Any]:
    share = min_width / (2 * interval)
    return {"num_bins": knots + 1, "tail_bound": interval, "min_bin_width": share, "min_bin_height": share,
            "min_derivative": min_derivative, "free_ends": True}  # fmt: skip


def layer_of(
    step: Step, transformer: Transformer, activation: str, n: int, inverted: bool, dtype: str
) -> Layer:  # fmt: skip
    """A layer with a network, or its inverse."""
    scalar_map, count = dict(transformer.options), len(transformer.initial)
    offset, layers, masks, gains = transformer.initial.copy(), step.layers, step.masks, None
    if scalar_map.get("scale_activation") == "tanh_gain" and count == 3:
        layers, masks, gains = split_gains(layers, masks)
        count, gains, offset = 2, gains + offset[2], offset[:2]
    if "num_bins" in scalar_map:  # less what npflows adds to raw derivatives
        offset[2 * scalar_map["num_bins"] :] -= math.log(math.expm1(1 - scalar_map["min_derivative"]))
    if masks is None:
        inputs, conditions = split_condition(layers, step.n_kept)
        moved = n - step.n_kept
        network = Dense(inputs, activation, None, conditions)
        network = network.with_outputs(np.arange(moved * count), 1.0, np.tile(offset, moved))
        mask = (np.arange(n) < step.n_kept).astype(int)
        if "num_bins" not in scalar_map:
            scalar_map["shift_first"] = inverted != transformer.inverted
        return set_gains(coupling(network, mask, scalar_map, dtype, inverted=inverted), gains)
    network, order = masked_dense(layers, masks, n, np.repeat(np.arange(n), count), activation, None)
    rows = (order[:, None] * count + np.arange(count)).ravel()
    if "num_bins" not in scalar_map:
        scalar_map["shift_first"] = transformer.inverted
    network = network.with_outputs(rows, 1.0, np.tile(offset, n))
    made = autoregressive(network, order, scalar_map, dtype, inverted=inverted)
    return set_gains(made, None if gains is None else gains[order])


def read_leaves(path: str) -> list[NDArray]:
    """The arrays of a file that `equinox.tree_serialise_leaves` wrote, in their order, without JAX; nothing is executed.

    Raises
    ------
    ConversionError
        If the file is something else, or is damaged.
    """
    found = []
    with open(path, "rb") as file:
        end = os.fstat(file.fileno()).st_size
        while file.tell() < end:
            try:
                found.append(np.load(file, allow_pickle=False))
            except (ValueError, EOFError, OSError) as error:
                what = "no arrays one after the other, as equinox.tree_serialise_leaves writes them"
                raise ConversionError(f"{path} holds {what} ({error})") from None
            if not isinstance(found[-1], np.ndarray):
                raise ConversionError(f"{path} is an archive, and no file of leaves")
    return found


def _from_file(
    path: str, transformer: str, min_scale: float, interval: float | None, min_width: float, min_derivative: float,
    activation: str, invert: bool, dtype: str | None,
) -> NormalizingFlow:  # fmt: skip
    if transformer not in TRANSFORMERS:
        raise ConversionError(f"transformer must be one of {', '.join(map(repr, TRANSFORMERS))}, got {transformer!r}")
    leaves = read_leaves(path)
    arrays = [a for a in leaves if a.ndim]
    if not leaves or not arrays or leaves[0].ndim or leaves[0].dtype.kind not in "iu":
        raise ConversionError(f"{path} holds no leaves of a flow of masked_autoregressive_flow or coupling_flow")
    n = int(leaves[0])
    own = ("float64" if any(a.dtype == np.float64 for a in arrays) else "float32") if dtype is None else dtype
    base, arrays = _base_of_leaves(arrays, n, own)
    orders, arrays = _orders_of_leaves(arrays, n)
    steps = _steps_of_leaves(arrays, n, path)
    if len(orders) not in (0, len(steps)):
        raise ConversionError(f"{path} has {len(orders)} permutations for {len(steps)} layers")
    real = np.float64 if any(a.dtype == np.float64 for a in arrays) else np.float32
    if transformer == "affine":
        taken = Transformer(_inverse_softplus([0.0], [1 - min_scale], real), _affine(min_scale))
    else:
        outputs = steps[0].layers[-1][1].size // (n - steps[0].n_kept)
        knots, rest = divmod(outputs - 4, 3)
        if rest or knots < 1 or interval is None:
            raise ConversionError(f"{path} has {outputs} outputs for each feature: splines have 3 knots + 4, and need "
                                  f"interval=")  # fmt: skip
        first = _inverse_softplus(np.zeros(2 * knots + 2), np.full(knots + 2, 1 - min_derivative), real)
        taken = Transformer(first, _spline(knots, float(interval), min_width, min_derivative))
    if steps[0].layers[-1][1].size != len(taken.initial) * (n - steps[0].n_kept):
        raise ConversionError(f"{path} has other outputs than those of transformer={transformer!r}")
    layers: list[Layer] = []
    for k in range(len(steps)) if invert else reversed(range(len(steps))):
        both = [layer_of(steps[k], taken, activation, n, not invert, own)]
        if orders or n == 2:
            order = np.asarray(orders[k] if orders else [1, 0])
            both.append(permutation(order if invert else np.argsort(order), own))
        layers += both if invert else both[::-1]
    return assembled(layers, base, own)


def _inverse_softplus(
    zeros: Sequence[float] | NDArray, values: Sequence[float] | NDArray, real: type
) -> NDArray[np.float64]:
    """The raw values of an initial map: zeros, and the inverse of softplus, in the dtype of the flow."""
    given: NDArray = np.asarray(values, real)
    return np.r_[np.asarray(zeros, float), (np.log(-np.expm1(-given)) + given).astype(float)]


def _base_of_leaves(arrays: list[NDArray], n: int, dtype: str) -> tuple[Base, list[NDArray]]:
    """The base, from location and raw scale of a Normal at the beginning, or none; and the other arrays."""
    if arrays[0].shape == (n,) and len(arrays) > 1 and arrays[1].shape == (n,) and arrays[0].dtype.kind == "f":
        loc, scale = arrays[0].astype(float), np.logaddexp(0, arrays[1].astype(float))
        return Normal(n, loc, scale, learnable=True, dtype=dtype), arrays[2:]
    return Normal(n, dtype=dtype), arrays


def _orders_of_leaves(arrays: list[NDArray], n: int) -> tuple[list[NDArray], list[NDArray]]:
    """The permutations at the end, if there are some, and the other arrays."""
    if n > 2 and len(arrays) > 2 and all(a.dtype.kind in "iu" and a.shape[1:] == (n,) for a in arrays[-2:]):
        return list(arrays[-2]), arrays[:-2]
    return [], arrays


def _steps_of_leaves(arrays: list[NDArray], n: int, path: str) -> list[Step]:
    """The layers, from masks, weights and biases, or weights and biases alone, of all layers one after the other."""
    is_masked = bool(arrays) and arrays[0].dtype == np.bool_
    each = 3 if is_masked else 2
    groups = [arrays[k : k + each] for k in range(0, len(arrays), each)]
    shapes = (3, 3, 2)[-each:]
    if not groups or any(len(g) != each or tuple(a.ndim for a in g) != shapes for g in groups):
        raise ConversionError(f"{path} holds other leaves than those of masked_autoregressive_flow or coupling_flow")
    steps = []
    for k in range(len(groups[0][-1])):
        weights = [(g[-2][k], g[-1][k]) for g in groups]
        steps.append(Step(weights, [g[0][k] for g in groups]) if is_masked else Step(weights, None, n // 2))
    return steps
