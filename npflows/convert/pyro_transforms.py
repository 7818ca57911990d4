"""Transforms of Pyro as layers, which go from data to latent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.convert.errors import ConversionError
from npflows.convert.linear import diagonal, matrix, permutation
from npflows.convert.networks import (
    Dense,
    Linear,
    autoregressive,
    chain,
    coupling,
    masked_dense,
    masks_of,
    of_condition_alone,
    split_condition,
)
from npflows.convert.state_dict import numbers_below
from npflows.convert.tensors import Tensors
from npflows.layers import Householder
from npflows.layers.layer import Layer
from npflows.layers.spline import SplineLayer

DEFAULTS = {"log_scale_min_clip": -5.0, "log_scale_max_clip": 3.0, "stable": False, "dim": -1, "bound": 3.0,
            "order": "linear", "identity": False, "epsilon": 1e-5, "activation": "relu"}  # fmt: skip
"""What Pyro's own arguments are by default."""
KINDS_OF_SPLINES = {"linear": "rational_linear", "quadratic": "rational_quadratic"}
"""npflows' names of splines, by Pyro's orders of their rational functions."""
MIN_BIN, MIN_DERIVATIVE = 1e-3, 1e-3
"""Least widths, heights and slopes of Pyro's splines; their slope at both ends is 1 - MIN_DERIVATIVE."""
DERIVATIVE_SHIFT = math.log(math.expm1(1 - MIN_DERIVATIVE))
"""What npflows adds to raw derivatives."""
RAW_END = math.log(math.expm1(1 - 2 * MIN_DERIVATIVE)) - DERIVATIVE_SHIFT
"""The raw derivative whose slope is that of Pyro at the ends."""


@dataclass(frozen=True)
class Transform:
    """A transform of Pyro.

    Attributes
    ----------
    kind : str
        The name of its class.
    arrays : Tensors
        Its state dict.
    told : dict
        What that does not tell.
    inverse : bool
        Whether it is used the other way round, as `.inv` is.
    where : str
        What messages call it.
    """

    kind: str
    arrays: Tensors
    told: Mapping[str, Any]
    inverse: bool
    where: str

    def __getitem__(self, name: str) -> Any:
        """What is told by a name, or Pyro's default."""
        return self.told.get(name, DEFAULTS.get(name))


def layers_of(part: Transform, n: int, dtype: str) -> list[Layer]:
    """The layers of a transform of n columns.

    Raises
    ------
    ConversionError
        If the transform can't be represented.
    """
    return MAKERS[part.kind](part, n, dtype)


def solved(lower: NDArray, loc: NDArray, n: int, dtype: str) -> list[Layer]:
    """y = L^-1 (x - loc)."""
    if not np.diag(lower).all():
        raise ConversionError("a linear transform is not taken over: the matrix has no inverse")
    weight = np.linalg.inv(lower)
    return matrix(weight, -weight @ loc, n, dtype)


def _permute(part: Transform, n: int, dtype: str) -> list[Layer]:
    if part["dim"] != -1:
        raise ConversionError(f"dim={part['dim']} ({part.where}) is not taken over, only -1")
    order = part.arrays.take_order("permutation", n)
    return [permutation(order if part.inverse else np.argsort(order), dtype)]


def _batch_norm(part: Transform, n: int, dtype: str) -> list[Layer]:
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    gamma, beta, mean, variance = (part.arrays.take(name, n).astype(float) for name in names)
    slope = (np.maximum(gamma, 0) + 1e-6) / np.sqrt(variance + part["epsilon"])
    return _scaled(slope, beta - slope * mean, n, dtype, turned=part.inverse)


def _affine(part: Transform, n: int, dtype: str) -> list[Layer]:
    loc, scale = (part.arrays.take_each(name, n) for name in ("loc", "scale"))
    if not scale.all():
        raise ConversionError(f"a scale of 0 ({part.where}) has no inverse")
    return _scaled(scale, loc, n, dtype, turned=not part.inverse)


def _scaled(slope: NDArray, shift: NDArray, n: int, dtype: str, *, turned: bool) -> list[Layer]:
    """y = slope x + shift, or if it is turned round its inverse."""
    return diagonal(1 / slope, -shift / slope, n, dtype) if turned else diagonal(slope, shift, n, dtype)


def _cholesky(part: Transform, n: int, dtype: str) -> list[Layer]:
    loc, lower = part.arrays.take("loc", n).astype(float), np.tril(part.arrays.take("scale_tril", n, n).astype(float))
    return matrix(lower, loc, n, dtype) if part.inverse else solved(lower, loc, n, dtype)


def _householder(part: Transform, n: int, dtype: str) -> list[Layer]:
    vectors = part.arrays.take("u_unnormed", None, n)
    layer = Householder(n, len(vectors), dtype=dtype)
    layer.parameters.views()["vectors"][...] = vectors if part.inverse else vectors[::-1]
    return [layer]


def _scale(part: Transform) -> dict[str, Any]:
    """The arguments of an affine layer."""
    low, high = part["log_scale_min_clip"], part["log_scale_max_clip"]
    if part["stable"]:
        raise ConversionError(f"stable=True ({part.where}) is not taken over, as it mixes shifts with scales")
    if (low, high) == (-math.inf, math.inf):
        return {"scale_activation": "none"}
    if not -math.inf < low < min(0, high) or high == math.inf:
        raise ConversionError(
            f"log-scales that are clipped to [{low}, {high}] ({part.where}) are not taken over, only to an interval that "
            f"begins below 0, or not at all"
        )
    return {"scale_activation": "hard_clip", "min_scale": math.exp(low), "max_scale": math.exp(high)}


def _spline(part: Transform) -> dict[str, Any]:
    """The arguments of a spline layer, without the number of bins."""
    if part["order"] not in KINDS_OF_SPLINES:
        raise ConversionError(f"splines with order={part['order']!r} ({part.where}) are not taken over, only "
                              f"{' and '.join(map(repr, KINDS_OF_SPLINES))}")  # fmt: skip
    return {"spline": KINDS_OF_SPLINES[part["order"]], "tail_bound": float(part["bound"]), "min_bin_width": MIN_BIN,
            "min_bin_height": MIN_BIN, "min_derivative": MIN_DERIVATIVE, "free_ends": True}  # fmt: skip


def _bins(n_outputs: int, part: Transform) -> int:
    """The number of bins of splines of so many raw parameters."""
    blocks = 4 if part["order"] == "linear" else 3
    if n_outputs < 2 * blocks - 1 or (n_outputs + 1) % blocks:
        raise ConversionError(f"{n_outputs} parameters of each spline ({part.where}) are not those of "
                              f"order={part['order']!r} and 2 bins or more")  # fmt: skip
    return (n_outputs + 1) // blocks


def _check_affine(n_outputs: int, part: Transform) -> None:
    """Refuse networks that have other outputs than a shift and a log-scale of each value."""
    if n_outputs != 2:
        raise ConversionError(f"the network has {n_outputs} outputs for each value ({part.where}), an affine map needs 2")


def _with_ends(network: Dense, rows: NDArray[np.int64], bins: int) -> Dense:
    """The network whose outputs in `rows` (values, parameters of a spline) have constant derivatives at both ends as
    well."""
    first, last = 2 * bins, 3 * bins
    padded = np.concatenate(
        [rows[:, :first], rows[:, :1], rows[:, first : last - 1], rows[:, :1], rows[:, last - 1 :]], axis=1
    )
    factor, offset = np.ones(padded.shape), np.zeros(padded.shape)
    offset[:, first : last + 1] = -DERIVATIVE_SHIFT
    factor[:, [first, last]], offset[:, [first, last]] = 0.0, RAW_END
    return network.with_outputs(padded.ravel(), factor.ravel(), offset.ravel())


def _splines(
    part: Transform, n: int, dtype: str, places: NDArray[np.int64] | None = None, prefix: str = ""
) -> list[Layer]:  # fmt: skip
    """A spline for each column by itself, or for those in some places, where the others are left as they are."""
    options, count = _spline(part), n if places is None else len(places)
    bins = part.arrays.take(f"{prefix}unnormalized_widths", count, None).shape[1]
    columns = {"widths": bins, "heights": bins, "derivatives": bins - 1, "lambdas": bins}
    if part["order"] != "linear":
        del columns["lambdas"]
    widths, heights, derivatives, *rest = (
        part.arrays.take(f"{prefix}unnormalized_{name}", count, width).astype(float) for name, width in columns.items()
    )
    ends = np.full((len(widths), 1), RAW_END)
    layer = SplineLayer(n, bins, **options, inverted=not part.inverse, dtype=dtype)
    raw = np.concatenate([widths, heights, ends, derivatives - DERIVATIVE_SHIFT, ends, *rest], axis=1)
    layer.parameters.views()["raw"][slice(None) if places is None else places] = raw
    return [layer]


def _dense(part: Transform, prefix: str, inputs: int, values: int) -> list[Linear]:
    """The layers of a network."""
    if part.arrays.some_below(f"{prefix}skip_layer"):
        raise ConversionError(f"skip connections ({part.where}) are not taken over")
    numbers = numbers_below(part.arrays, f"{prefix}layers.")
    if not numbers:
        raise ConversionError(f"the state dict has no network of {part.where}")
    names = [f"{prefix}layers.{k}" for k in range(numbers[-1] + 1)]
    return chain(part.arrays, names, inputs, values, None if part.kind.startswith("Conditional") else 0)


def _condition_last(weight: NDArray, n_features: int) -> NDArray:
    """The columns of a first layer with the features before the condition, which Pyro has before them."""
    return np.roll(weight, n_features, axis=1)


def _masked(part: Transform, n: int) -> tuple[Dense, NDArray[np.int64], NDArray[np.int64]]:
    """A masked network, the order of its features, and its outputs (n, outputs of each) in this order."""
    prefix = "arn." if part.arrays.some_below("arn.") else "nn."
    layers = _dense(part, prefix, n, n)
    masks = masks_of(part.arrays, [f"{prefix}layers.{k}" for k in range(len(layers))], layers)
    part.arrays.take_order(f"{prefix}permutation", n)  # the masks follow from it
    part.arrays.ignore("spline")  # the same network by another name
    layers[0], masks[0] = (_condition_last(layers[0][0], n), layers[0][1]), _condition_last(masks[0], n)
    n_outputs = len(layers[-1][1]) // n
    network, order = masked_dense(layers, masks, n, np.tile(np.arange(n), n_outputs), part["activation"], None)
    return network, order, order[:, None] + n * np.arange(n_outputs)


def _affine_autoregressive(part: Transform, n: int, dtype: str) -> list[Layer]:
    scale = _scale(part)
    network, order, rows = _masked(part, n)
    _check_affine(rows.shape[1], part)
    network = network.with_outputs(rows.ravel())
    return [autoregressive(network, order, {**scale, "shift_first": False}, dtype, inverted=not part.inverse)]


def _spline_autoregressive(part: Transform, n: int, dtype: str) -> list[Layer]:
    options = _spline(part)
    network, order, rows = _masked(part, n)
    bins = _bins(rows.shape[1], part)
    network = _with_ends(network, rows, bins)
    return [autoregressive(network, order, {**options, "num_bins": bins}, dtype, inverted=not part.inverse)]


def _conditional_spline(part: Transform, n: int, dtype: str) -> list[Layer]:
    options, layers = _spline(part), _dense(part, "nn.", 0, n)
    n_outputs = len(layers[-1][1]) // n
    bins = _bins(n_outputs, part)
    network = _with_ends(of_condition_alone(layers, n, part["activation"]), _side_by_side(n, n_outputs, bins), bins)
    order = np.arange(n)
    return [autoregressive(network, order, {**options, "num_bins": bins}, dtype, inverted=not part.inverse)]


def _side_by_side(n: int, n_outputs: int, bins: int) -> NDArray[np.int64]:
    """The outputs (n, n_outputs) of a network that has all widths, then all heights, derivatives and, perhaps, lambdas."""
    sizes = np.array([bins, bins, bins - 1, bins])[: 3 if n_outputs < 4 * bins - 1 else 4]
    starts, each = n * np.cumsum([0, *sizes[:-1]]), np.arange(n)[:, None]
    return np.concatenate([start + each * size + np.arange(size) for start, size in zip(starts, sizes)], axis=1)


def _coupled(part: Transform, n: int, prefix: str) -> tuple[Dense, NDArray[np.int64], int]:
    """The network of a coupling, its mask, and how many values it moves."""
    kept = part["split_dim"]
    if kept is None:
        raise ConversionError(f"a state dict does not tell the split_dim of {part.where}: pass it")
    if not 0 < kept < n:
        raise ConversionError(f"split_dim={kept} ({part.where}) leaves nothing to one of the two sides of a coupling")
    layers = _dense(part, prefix, kept, n - kept)
    layers[0] = _condition_last(layers[0][0], kept), layers[0][1]
    layers, conditions = split_condition(layers, kept)
    mask = (np.arange(n) < kept).astype(int)
    return Dense(layers, part["activation"], None, conditions), mask, n - kept


def _affine_coupling(part: Transform, n: int, dtype: str) -> list[Layer]:
    if part["dim"] != -1:
        raise ConversionError(f"dim={part['dim']} ({part.where}) is not taken over, only -1")
    scale = _scale(part)
    network, mask, moved = _coupled(part, n, "nn.")
    _check_affine(len(network.layers[-1][1]) // moved, part)
    network = network.with_outputs(np.arange(2 * moved).reshape(2, -1).T.ravel())
    return [coupling(network, mask, {**scale, "shift_first": not part.inverse}, dtype)]


def _spline_coupling(part: Transform, n: int, dtype: str) -> list[Layer]:
    options = _spline(part)
    network, mask, moved = _coupled(part, n, "upper_spline.nn.")
    n_outputs = len(network.layers[-1][1]) // moved
    bins = _bins(n_outputs, part)
    network = _with_ends(network, _side_by_side(moved, n_outputs, bins), bins)
    layers: list[Layer] = [coupling(network, mask, {**options, "num_bins": bins}, dtype, inverted=not part.inverse)]
    if part["identity"]:
        part.arrays.ignore("lower_spline")
    else:  # the network sees the kept values on the side of the base
        kept = _splines(part, n, dtype, np.flatnonzero(mask), "lower_spline.")
        layers = [*layers, *kept] if part.inverse else [*kept, *layers]
    return layers


MAKERS = {
    "AffineAutoregressive": _affine_autoregressive,
    "ConditionalAffineAutoregressive": _affine_autoregressive,
    "AffineCoupling": _affine_coupling,
    "ConditionalAffineCoupling": _affine_coupling,
    "Spline": _splines,
    "ConditionalSpline": _conditional_spline,
    "SplineAutoregressive": _spline_autoregressive,
    "ConditionalSplineAutoregressive": _spline_autoregressive,
    "SplineCoupling": _spline_coupling,
    "BatchNorm": _batch_norm,
    "Householder": _householder,
    "Permute": _permute,
    "LowerCholeskyAffine": _cholesky,
    "AffineTransform": _affine,
}
"""What makes layers of each kind of transform."""
