"""Networks as graphs: dense, masked and convolutional ones, and the steps of a masked one that is solved for its inputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.core.operations import ConvNet, Made, Mlp
from npflows.export import graph as g
from npflows.export.graph import Value

Parameters = dict[str, NDArray[np.float64]]

LEAK = 0.01
ACTIVATIONS: dict[str, Callable[[Value], Value]] = {
    "relu": lambda u: g.maximum(u, 0.0),
    "tanh": g.tanh,
    "silu": lambda u: u * g.sigmoid(u),
    "elu": lambda u: g.where(u > 0, u, g.expm1(g.minimum(u, 0.0))),
    "leaky_relu": lambda u: g.where(u < 0, LEAK * u, u),
}


@singledispatch
def network(operation: Any, params: Parameters, x: Value, context: Value) -> Value:
    """The outputs (n_out,) of a network for inputs x (n_in,) and a condition."""
    raise NotImplementedError(f"a network {type(operation).__name__} can't be exported")


@network.register(Mlp)
@network.register(Made)
def _(operation: Mlp | Made, params: Parameters, x: Value, context: Value) -> Value:
    """h_l = f(W_l h_{l-1} + b_l), with skips in residual blocks."""
    activation = ACTIVATIONS[operation.activation]
    h, before = x, None
    for layer in range(len(operation.hidden)):
        u = _dense(operation, params, layer, h, context)
        if operation.has_gate(layer):
            u = u * _gate(params, layer, context)
        if operation.residual and layer % 2 == 0:
            u = u if before is None else u + before
            before = u
        h = u if layer in operation.linear else activation(u)
    return _dense(operation, params, len(operation.hidden), h, context)


def _dense(operation: Mlp | Made, params: Parameters, layer: int, h: Value, context: Value) -> Value:
    u = g.matmul(h, weight_of(operation, params, layer)) if g.shape_of(h)[-1] else 0.0
    return u + _bias(operation, params, layer, context)


def _bias(operation: Mlp | Made, params: Parameters, layer: int, context: Value, rows: slice = slice(None)) -> Value:
    """b, and V c in layers that see the condition."""
    bias = params[f"bias_{layer}"][rows]
    if operation.sees_condition(layer):
        return g.matmul(context, params[operation.condition_weight(layer)][rows]) + bias
    return bias


def _gate(params: Parameters, layer: int, context: Value, rows: slice = slice(None)) -> Value:
    """sigmoid(V c + g)."""
    return g.sigmoid(g.matmul(context, params[f"gate_weight_{layer}"][rows]) + params[f"gate_bias_{layer}"][rows])


def weight_of(operation: Mlp | Made, params: Parameters, layer: int) -> NDArray[np.float64]:
    """The weights of a dense layer, 0 where a mask forbids them."""
    weight = params[f"weight_{layer}"]
    return np.where(operation.mask(layer), weight, 0.0) if isinstance(operation, Made) else weight


class MadeSteps:
    """A masked network, evaluated unit by unit as its inputs become known, each of them once.

    Units of degree k see the first k features in order; degrees rise in every layer, so that what is known of a layer is a
    part at its beginning.
    """

    def __init__(self, operation: Made, params: Parameters, context: Value) -> None:
        self.operation, self.params, self.context = operation, params, context
        self.weights = [weight_of(operation, params, layer) for layer in range(len(operation.hidden) + 1)]
        self.known: list[list[Value]] = [[] for _ in operation.hidden]
        self.before: list[list[Value]] = [[] for _ in operation.hidden]

    def outputs(self, k: int, entered: list[Value]) -> Value:
        """The outputs (multiplier,) of the k-th feature, from the input rows of the k features before it; called for
        k = 0, 1, 2, ... in turn."""
        operation = self.operation
        activation, degrees = ACTIVATIONS[operation.activation], operation.degrees
        for layer in range(len(operation.hidden)):
            first, last = np.searchsorted(degrees[layer + 1], k), np.searchsorted(degrees[layer + 1], k, side="right")
            if first == last:
                continue
            rows = slice(int(first), int(last))
            u = self._product(layer, rows, entered if layer == 0 else self.known[layer - 1])
            if operation.has_gate(layer):
                u = u * _gate(self.params, layer, self.context, rows)
            if operation.residual and layer % 2 == 0 and layer > 0:
                u = u + g.take(g.concat(self.before[layer - 2]), np.arange(rows.start, rows.stop))
            self.before[layer].append(u)
            self.known[layer].append(u if layer in operation.linear else activation(u))
        m = operation.multiplier
        return self._product(len(operation.hidden), slice(k * m, (k + 1) * m), self.known[-1] if self.known else entered)

    def _product(self, layer: int, rows: slice, known: list[Value]) -> Value:
        width = sum(g.shape_of(part)[-1] for part in known)
        bias = _bias(self.operation, self.params, layer, self.context, rows)
        return g.matmul(g.concat(known), self.weights[layer][rows, :width]) + bias if width else bias


@network.register
def _(operation: ConvNet, params: Parameters, x: Value, context: Value) -> Value:
    """h_l = f((W_l * h_{l-1} + b_l) exp(s_l)), with V c in the first layer."""
    activation, (height, width) = ACTIVATIONS[operation.activation], (operation.height, operation.width)
    channels = operation.channels
    h = g.reshape(g.place(x, operation.in_places, channels[0] * height * width), (channels[0], height, width))
    last = len(channels) - 2
    for layer in range(last + 1):
        u = g.convolve(h, params[f"weight_{layer}"]) + params[f"bias_{layer}"][:, None, None]
        if layer == 0 and operation.condition_dim:
            u = u + g.reshape(g.matmul(context, params["condition_weight"]), (channels[1], 1, 1))
        if layer < last and operation.actnorm:
            u = u * np.exp(params[f"logs_{layer}"])[:, None, None]
        h = activation(u) if layer < last else u
    return g.take(g.reshape(h, (channels[-1] * height * width,)), operation.out_places)
