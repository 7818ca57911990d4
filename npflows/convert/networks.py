"""Networks of other libraries as npflows' dense and masked ones, exactly, and the layers that they are the networks of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.convert.errors import ConversionError
from npflows.convert.tensors import Tensors
from npflows.layers import CouplingLayer, IAFLayer, MAFLayer, MonotoneAutoregressiveLayer, MonotoneCouplingLayer
from npflows.layers.layer import Layer
from npflows.layers.spline import SplineAutoregressiveLayer, SplineCouplingLayer

Linear = tuple[NDArray, NDArray]
"""Weights (rows, columns), 0 where a mask forbids them, and biases (rows,)."""
ACTIVATIONS = {"relu": "relu", "tanh": "tanh", "silu": "silu", "swish": "silu", "elu": "elu", "leaky_relu": "leaky_relu",
               "ReLU": "relu", "Tanh": "tanh", "SiLU": "silu", "ELU": "elu", "LeakyReLU": "leaky_relu"}  # fmt: skip
"""npflows' names of activations, by those of functions and modules elsewhere."""


@dataclass(frozen=True)
class Dense:
    """A network as another library has it.

    Attributes
    ----------
    layers : list of Linear
        The first one, those of blocks or further hidden ones, and the last.
    activation : str
    residual : str, optional
        Where residual networks have activations (`residual_activations` of npflows); layers 1 and 2, 3 and 4, ... are
        blocks then.
    conditions : dict of int to ndarray
        Weights (rows, condition_dim) of the condition, by the number of the layer in which they are added.
    gates : dict of int to Linear
        Functions of the condition that gate the results of a layer, the second one of a block.
    degrees : list of ndarray, optional
        Of the units of each hidden layer, where the network is masked: how many features, the first ones in order, a unit
        sees.
    """

    layers: list[Linear]
    activation: str
    residual: str | None = None
    conditions: Mapping[int, NDArray] = field(default_factory=dict)
    gates: Mapping[int, Linear] = field(default_factory=dict)
    degrees: list[NDArray[np.int64]] | None = None

    @property
    def hidden(self) -> list[int]:
        """Units of each hidden layer."""
        return [len(bias) for _, bias in self.layers[:-1]]

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of a layer of npflows that has this network."""
        condition_dim = self.conditions[0].shape[1] if 0 in self.conditions else 0
        result = {"activation": self.activation, "condition_dim": condition_dim}
        if self.residual is not None:
            if len(set(self.hidden)) != 1:
                raise ConversionError(
                    f"a residual network with hidden layers of several widths, {self.hidden}, is not taken over"
                )
            result |= {"residual_blocks": len(self.layers[1:-1]) // 2, "residual_activations": self.residual}
            result["gated"] = bool(self.gates)
            result["condition_in"] = "blocks" if len(self.conditions) > 1 else "first"
        if self.degrees is not None:
            result["hidden_degrees"] = [np.sort(degrees).tolist() for degrees in self.degrees]
        return result

    @property
    def hidden_dims(self) -> tuple[int, ...]:
        """Hidden units as a layer of npflows takes them."""
        return tuple(self.hidden[:1] if self.residual is not None else self.hidden)

    def fill(self, layer: Layer) -> None:
        """Write the network into the parameters of a layer that has one of this kind."""
        views = {name.removeprefix("network."): view for name, view in layer.parameters.views().items()
                 if name.startswith("network.")}  # fmt: skip
        places = [np.arange(n) if self.degrees is None else np.argsort(self.degrees[k], kind="stable")
                  for k, n in enumerate(self.hidden)]  # fmt: skip
        if self.residual is not None and any((place != places[0]).any() for place in places[2::2]):
            raise ConversionError("a residual block from units of some degrees to units of others is not taken over")
        places = [np.arange(self.layers[0][0].shape[1]), *places, np.arange(len(self.layers[-1][1]))]
        for number, (weight, bias) in enumerate(self.layers):
            rows = places[number + 1]
            views[f"weight_{number}"][...] = weight[np.ix_(rows, places[number])]
            views[f"bias_{number}"][...] = bias[rows]
            if number in self.conditions:
                views[f"condition_weight_{number}" if number else "condition_weight"][...] = self.conditions[number][rows]
            if number in self.gates:
                gate_weight, gate_bias = self.gates[number]
                views[f"gate_weight_{number}"][...], views[f"gate_bias_{number}"][...] = gate_weight[rows], gate_bias[rows]

    def with_outputs(self, rows: NDArray, factor: NDArray | float = 1.0, offset: NDArray | float = 0.0) -> Dense:
        """The same network, of whose outputs some are taken in an order, times a factor, plus an offset."""
        weight, bias = self.layers[-1]
        scaled = weight[rows] * np.reshape(factor, (-1, 1)), bias[rows] * factor + offset
        return replace(self, layers=[*self.layers[:-1], scaled])


def split_gains(
    layers: list[Linear], masks: list[NDArray] | None
) -> tuple[list[Linear], list[NDArray] | None, NDArray[np.float64]]:
    """A network without the third output of each value, which is a constant: the gain of its scale.

    Raises
    ------
    ConversionError
        If it depends on something.
    """
    (weight, bias), gain = layers[-1], np.arange(len(layers[-1][1])) % 3 == 2
    if (weight[gain] * (1 if masks is None else np.asarray(masks[-1])[gain])).any():
        raise ConversionError("a gain that depends on other features is not taken over")
    masks = None if masks is None else [*masks[:-1], np.asarray(masks[-1])[~gain]]
    return [*layers[:-1], (weight[~gain], bias[~gain])], masks, bias[gain].astype(float)


def set_gains(layer: Layer, gains: NDArray | None) -> Layer:
    """The layer, with learned gains where there are some."""
    if gains is not None:
        layer.parameters.views()["gain"][:] = gains
    return layer


def split_condition(layers: list[Linear], n_features: int) -> tuple[list[Linear], dict[int, NDArray]]:
    """The layers, and the weights of the condition, which comes after the features in the input of the first one."""
    (weight, bias), *rest = layers
    conditions = {0: weight[:, n_features:]} if weight.shape[1] > n_features else {}
    return [(weight[:, :n_features], bias), *rest], conditions


def of_condition_alone(layers: list[Linear], n: int, activation: str) -> Dense:
    """A masked network of n features of which it sees none, from the layers of a network of a condition."""
    (weight, bias), *rest = layers
    degrees = [np.zeros(len(b), np.int64) for _, b in layers[:-1]]
    return Dense([(np.zeros((len(bias), n)), bias), *rest], activation, None, {0: weight}, degrees=degrees)


def masked_dense(
    layers: list[Linear], masks: Sequence[NDArray], n: int, owners: NDArray[np.int64], activation: str, residual: str | None
) -> tuple[Dense, NDArray[np.int64]]:
    """A masked network, and an order of the features in which each output depends on the ones before its own alone.

    Parameters
    ----------
    layers : list of Linear
        Weights of the first one are those of the n features, then those of a condition.
    masks : sequence of ndarray
        Which weights there are.
    n : int
    owners : ndarray of int
        For each output the feature that it belongs to.

    Raises
    ------
    ConversionError
        If there is no such order.
    """
    reach: list[NDArray[np.bool_]] = []
    for number, mask in enumerate(masks):
        allowed = np.asarray(mask) != 0
        seen = allowed[:, :n] if number == 0 else (allowed.astype(np.float32) @ reach[-1].astype(np.float32)) > 0
        if residual is not None and number > 0 and number % 2 == 0 and number < len(masks) - 1:
            seen = seen | reach[number - 2]
        reach.append(seen)
    needs = np.zeros((n, n), bool)
    np.logical_or.at(needs, owners, reach[-1])
    order: list[int] = []
    while len(order) < n:
        ready = next((f for f in range(n) if f not in order and set(np.flatnonzero(needs[f])) <= set(order)), None)
        if ready is None:
            raise ConversionError("the masks of a network let features depend on each other in a circle")
        order.append(ready)
    position = np.argsort(order) + 1
    degrees = [np.where(seen, position, 0).max(axis=1, initial=0) for seen in reach[:-1]]
    inputs, conditions = split_condition([(w * (np.asarray(m) != 0), b) for (w, b), m in zip(layers, masks)], n)
    inputs[0] = inputs[0][0][:, order], inputs[0][1]
    return Dense(inputs, activation, residual, conditions, degrees=degrees), np.array(order)


def autoregressive(
    network: Dense, order: NDArray[np.int64], scalar_map: dict[str, Any], dtype: str, *, inverted: bool = False
) -> Layer:  # fmt: skip
    """An autoregressive layer of a masked network, whose outputs are those of feature after feature in order.

    `scalar_map` has the arguments of an affine map (`scale_activation`), of splines (`num_bins`) or of another monotone map
    (`num_terms`).
    """
    n, common = len(order), {**network.options, **scalar_map, "dtype": dtype, "rng": 0}
    if "num_bins" in scalar_map:
        layer: Layer = SplineAutoregressiveLayer(n, network.hidden_dims, order, inverted=inverted, **common)
    elif "num_terms" in scalar_map:
        layer = MonotoneAutoregressiveLayer(n, network.hidden_dims, order, inverted=inverted, **common)
    else:
        layer = (IAFLayer if inverted else MAFLayer)(n, network.hidden_dims, order, **common)
    network.fill(layer)
    return layer


def coupling(
    network: Dense, mask: NDArray[np.int64], scalar_map: dict[str, Any], dtype: str, *, inverted: bool = False
) -> Layer:  # fmt: skip
    """A coupling layer; an affine one is inverted by its scalar map (`shift_first`)."""
    common = {**network.options, **scalar_map, "dtype": dtype, "rng": 0}
    if "num_bins" in scalar_map:
        layer: Layer = SplineCouplingLayer(mask, network.hidden_dims, inverted=inverted, **common)
    elif "num_terms" in scalar_map:
        layer = MonotoneCouplingLayer(mask, network.hidden_dims, inverted=inverted, **common)
    else:
        layer = CouplingLayer(mask, network.hidden_dims, **common)
    network.fill(layer)
    return layer


def chain(
    tensors: Tensors, names: Sequence[str], inputs: int, values: int, condition: int | None = None
) -> list[Linear]:  # fmt: skip
    """The linear layers of a network, one after the other.

    Parameters
    ----------
    tensors : Tensors
    names : sequence of str
        Of the layers, each with a weight and a bias.
    inputs : int
        Features that the network sees.
    values : int
        Features that the network has outputs for, as many for each.
    condition : int, optional
        Columns of the condition that the first layer sees beside the features; any number by default.

    Raises
    ------
    ConversionError
        If a tensor is missing, or has a shape that does not fit the others.
    """
    first, last = f"{names[0]}.weight", f"{names[-1]}.bias"
    columns, layers = None if condition is None else inputs + condition, []
    for name in names:
        layers.append(linear(tensors, name, columns=columns))
        columns = len(layers[-1][1])
    if layers[0][0].shape[1] < inputs:
        tensors.refuse_shape(first, f"({len(layers[0][1])}, {inputs} or more)")
    if not columns or columns % values:
        tensors.refuse_shape(last, f"(a multiple of {values},)")
    return layers


def masks_of(tensors: Tensors, names: Sequence[str], layers: Sequence[Linear]) -> list[NDArray]:
    """The masks of layers, each of the shape of its weights."""
    return [tensors.take(f"{name}.mask", *weight.shape) for name, (weight, _) in zip(names, layers)]


def linear(tensors: Tensors, name: str, *, columns: int | None = None, rows: int | None = None) -> Linear:
    """The linear layer of a name."""
    weight = tensors.take(f"{name}.weight", rows, columns)
    return weight, tensors.take(f"{name}.bias", len(weight))


def activation_of(given: Any, where: str) -> str:
    """npflows' name of an activation that is a function or a module of another library.

    Raises
    ------
    ConversionError
        If there is none.
    """
    name = getattr(given, "__name__", type(given).__name__)
    usual = getattr(given, "negative_slope", 0.01) == 0.01 and getattr(given, "alpha", 1.0) == 1.0
    if name not in ACTIVATIONS or not usual:
        raise ConversionError(
            f"the activation {given!r} ({where}) is not one of npflows: {', '.join(sorted(set(ACTIVATIONS.values())))}"
        )
    return ACTIVATIONS[name]
