"""Activation functions of the networks, each beside its derivative."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from npflows.backends.reference.common import sigmoid

LEAK = 0.01
"""Slope of leaky_relu below zero."""


def relu(u: NDArray) -> NDArray:
    """max(u, 0)."""
    return np.maximum(u, 0.0)


def relu_derivative(u: NDArray) -> NDArray:
    return np.where(u > 0, 1.0, 0.0)


def tanh(u: NDArray) -> NDArray:
    return np.tanh(u)


def tanh_derivative(u: NDArray) -> NDArray:
    """1 - tanh(u)^2."""
    return 1.0 - np.tanh(u) ** 2


def silu(u: NDArray) -> NDArray:
    """u sigmoid(u)."""
    return u * sigmoid(u)


def silu_derivative(u: NDArray) -> NDArray:
    """s + u s (1 - s), where s = sigmoid(u)."""
    s = sigmoid(u)
    return s + u * s * (1.0 - s)


def elu(u: NDArray) -> NDArray:
    """u above zero, exp(u) - 1 below."""
    return np.where(u > 0, u, np.expm1(np.minimum(u, 0.0)))


def elu_derivative(u: NDArray) -> NDArray:
    return np.where(u > 0, 1.0, np.exp(np.minimum(u, 0.0)))


def leaky_relu(u: NDArray) -> NDArray:
    """u above zero, a hundredth of it below."""
    return np.where(u < 0, LEAK * u, u)


def leaky_relu_derivative(u: NDArray) -> NDArray:
    return np.where(u > 0, 1.0, LEAK)


ACTIVATIONS: dict[str, tuple[Callable[[NDArray], NDArray], Callable[[NDArray], NDArray]]] = {
    "relu": (relu, relu_derivative),
    "tanh": (tanh, tanh_derivative),
    "silu": (silu, silu_derivative),
    "elu": (elu, elu_derivative),
    "leaky_relu": (leaky_relu, leaky_relu_derivative),
}
"""Functions of u and their derivatives at u, by name."""
