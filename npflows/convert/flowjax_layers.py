"""Layers of flowjax that have a network, from its arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.convert.networks import (
    Dense,
    autoregressive,
    coupling,
    masked_dense,
    set_gains,
    split_condition,
    split_gains,
)
from npflows.layers.layer import Layer


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


def affine(least: float) -> dict[str, Any]:
    return {"scale_activation": "softplus", "min_scale": least}


def spline(knots: int, interval: float, min_width: float, min_derivative: float) -> dict[str, Any]:
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
