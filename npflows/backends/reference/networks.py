"""Networks, which turn inputs (n, n_in), and perhaps a condition, into outputs (n, n_out).

`network` evaluates one and `network_vjp` carries cotangents back through it.  Here are the dense ones; convnet.py has the
convolutional one.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.backends.reference.activations import ACTIVATIONS
from npflows.backends.reference.common import Given, Gradients, packed, sigmoid
from npflows.backends.reference.dropout import dropout_factors
from npflows.core.operations import Made, Mlp


@singledispatch
def network(operation: Any, theta: NDArray, x: NDArray, given: Given) -> NDArray:
    """The outputs (n, n_out) of a network for inputs x (n, n_in)."""
    raise NotImplementedError(f"the reference backend has no network {type(operation).__name__}")


@singledispatch
def network_vjp(operation: Any, theta: NDArray, x: NDArray, dout: NDArray, given: Given) -> Gradients:
    """Gradients of a scalar from its gradient dout (n, n_out) with respect to the outputs."""
    raise NotImplementedError(f"the reference backend has no network {type(operation).__name__}")


@network.register(Mlp)
@network.register(Made)
def _(operation: Mlp | Made, theta: NDArray, x: NDArray, given: Given) -> NDArray:
    """h_0 = x,  u_l = W_l h_{l-1} + b_l,  h_l = f(u_l),  out = W_L h_{L-1} + b_L, and V_l c is added in layers
    that see a condition c (for masked weights: Germain et al. 2015, arXiv:1502.03509, equations 8 and 9).

    With residual blocks u_l = W_l f(u_{l-1}) + b_l + u_{l-2} for l = 2, 4, ... (He et al. 2016, arXiv:1603.05027), of which
    W_l f(u_{l-1}) + b_l is multiplied by sigmoid(V_l c + g_l) where they are gated (Dauphin et al. 2017, arXiv:1612.08083).
    Where a layer is linear, f is the identity.
    """
    params = operation.views(theta)
    entering, _ = _hidden_layers(operation, params, x, given)
    return _dense_layer(operation, params, len(entering) - 1, entering[-1], given)


@network_vjp.register(Mlp)
@network_vjp.register(Made)
def _(operation: Mlp | Made, theta: NDArray, x: NDArray, dout: NDArray, given: Given) -> Gradients:
    """With d_l = dL/du_l:  dL/dW_l = d_l h_{l-1}^T,  dL/db_l = d_l,  d_{l-1} = f'(u_{l-1}) W_l^T d_l; what skips a residual
    block brings its gradient along."""
    params = operation.views(theta)
    entering, before = _hidden_layers(operation, params, x, given)
    _, derivative = ACTIVATIONS[operation.activation]
    last, gradients, d = len(before), {}, {len(before): dout}
    dcontext = np.zeros_like(given.context)
    for layer in range(last, -1, -1):
        through = d[layer]
        if operation.has_gate(layer):
            gate = _gate(operation, params, layer, given)
            product = _dense_layer(operation, params, layer, entering[layer], given)
            through, dgate = d[layer] * gate, d[layer] * product * gate * (1 - gate)
            gradients[f"gate_weight_{layer}"] = dgate.T @ given.context
            gradients[f"gate_bias_{layer}"] = dgate.sum(axis=0)
            dcontext = dcontext + dgate @ params[f"gate_weight_{layer}"]
        if operation.sees_condition(layer):
            name = operation.condition_weight(layer)
            gradients[name] = through.T @ given.context
            dcontext = dcontext + through @ params[name]
        gradients[f"weight_{layer}"] = np.where(_free(operation, layer), through.T @ entering[layer], 0.0)
        gradients[f"bias_{layer}"] = through.sum(axis=0)
        below = through @ _weight(operation, params, layer)
        if layer > 0:
            hidden = layer - 1
            slope = 1.0 if hidden in operation.linear else derivative(before[hidden])
            d[hidden] = below * _factors(operation, hidden, len(x), given) * slope
            if operation.residual and hidden % 2 == 0 and hidden + 2 < last:
                d[hidden] = d[hidden] + d[hidden + 2]
    return Gradients(below, packed(operation.shapes, gradients), dcontext)


def _hidden_layers(
    operation: Mlp | Made, params: dict[str, NDArray], x: NDArray, given: Given
) -> tuple[list[NDArray], list[NDArray]]:
    """The values that enter each dense layer, and those of each hidden layer before its activation."""
    function, _ = ACTIVATIONS[operation.activation]
    entering: list[NDArray] = [x]
    before: list[NDArray] = []
    for layer in range(len(operation.hidden)):
        u = _dense_layer(operation, params, layer, entering[layer], given)
        if operation.has_gate(layer):
            u = u * _gate(operation, params, layer, given)
        if operation.residual and layer > 0 and layer % 2 == 0:
            u = u + before[layer - 2]
        before.append(u)
        h = u if layer in operation.linear else function(u)
        entering.append(h * _factors(operation, layer, len(x), given))
    return entering, before


def _dense_layer(
    operation: Mlp | Made, params: dict[str, NDArray], layer: int, h: NDArray, given: Given
) -> NDArray:  # fmt: skip
    """W h + b, and V c in layers that see the condition."""
    u = h @ _weight(operation, params, layer).T + params[f"bias_{layer}"]
    if operation.sees_condition(layer):
        u = u + given.context @ params[operation.condition_weight(layer)].T
    return u


def _gate(operation: Mlp | Made, params: dict[str, NDArray], layer: int, given: Given) -> NDArray:
    """sigmoid(V c + g), what the results of a gated layer are multiplied by."""
    return sigmoid(given.context @ params[f"gate_weight_{layer}"].T + params[f"gate_bias_{layer}"])


def _free(operation: Mlp | Made, layer: int) -> NDArray[np.bool_]:
    """Which weights of a dense layer are free."""
    return operation.mask(layer) if isinstance(operation, Made) else np.ones((1, 1), bool)


def _weight(operation: Mlp | Made, params: dict[str, NDArray], layer: int) -> NDArray:
    """The weights of a dense layer, 0 where a mask forbids them."""
    return np.where(_free(operation, layer), params[f"weight_{layer}"], 0.0)


def _factors(operation: Mlp | Made, layer: int, n: int, given: Given) -> NDArray:
    """The random mask of a hidden layer."""
    return dropout_factors(operation.dropout, n, operation.hidden[layer], layer, given)
