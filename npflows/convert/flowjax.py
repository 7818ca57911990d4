"""Flows of flowjax 19.1, from objects and from files of leaves, without JAX."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.base import Base, Normal, Uniform
from npflows.convert.arguments import checked
from npflows.convert.errors import ConversionError
from npflows.convert.flowjax_layers import Step, Transformer, affine, layer_of, spline
from npflows.convert.flowjax_leaves import flow_of_leaves
from npflows.convert.linear import assembled, diagonal, matrix, permutation
from npflows.convert.networks import (
    activation_of,
)
from npflows.convert.state_dict import refuse_others
from npflows.flow import NormalizingFlow
from npflows.layers import LogTails
from npflows.layers.layer import Layer

OWN = "npflows.convert.in_flowjax"
"""The module of what `to_flowjax` has beside flowjax's own."""
FAR = -1e4
"""A number whose softplus is 0."""


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
    told = checked(transformer=transformer, min_scale=min_scale, interval=interval, min_width=min_width,
                   min_derivative=min_derivative, activation=activation, invert=invert)  # fmt: skip
    dtype = checked(dtype=dtype)["dtype"]
    if isinstance(flow, (str, os.PathLike)):
        return flow_of_leaves(os.fspath(flow), told, dtype)
    if isinstance(flow, Mapping):
        raise ConversionError("from_flowjax takes the object, or the file of its leaves, got a mapping")
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
        return Transformer(initial, affine(least))
    if kind == "RationalQuadraticSpline":
        low, high = static.interval
        if low != -high:
            raise ConversionError(f"splines on [{low}, {high}] are not taken over: npflows has those on [-a, a]")
        least = _softplus_and(_plain(static.derivatives).fn, "the derivatives of RationalQuadraticSpline")
        return Transformer(initial, spline(int(static.knots), float(high), _plain(static.x_pos).min_width, least))
    raise ConversionError(f"the transformer {kind} is not taken over; Affine and RationalQuadraticSpline can be")
