"""Activation functions of the networks on blocks, each beside its gradient; a network links to the one pair it uses.

h = f(h) in place.  `before` receives what entered where the derivative can't be told from the value (NEEDS_INPUT); else
the networks pass h itself.  The gradients are dh *= f'(before) in place.
"""

from __future__ import annotations

from collections.abc import Callable

from npflows.backends.cpu.compiler.calls import flat
from npflows.backends.cpu.compiler.jit import kernel
from npflows.backends.cpu.kernels import vecmath

LEAK = 0.01
"""Slope of leaky_relu below zero."""


@kernel
def relu(h, before):
    """max(h, 0)."""
    h = flat(h)
    zero = h.dtype.type(0)
    for i in range(h.size):
        h[i] = zero if h[i] < zero else h[i]  # NaN stays NaN


@kernel
def relu_vjp(h, before, dh):
    """dh where h > 0, else 0."""
    h, dh = flat(h), flat(dh)
    zero = h.dtype.type(0)
    for i in range(h.size):
        dh[i] = dh[i] if h[i] > zero else zero


@kernel
def tanh(h, before):
    """tanh(h)."""
    h = flat(h)
    for i in range(h.size):
        h[i] = vecmath.tanh(h[i])


@kernel
def tanh_vjp(h, before, dh):
    """dh (1 - h^2), h = tanh(before)."""
    h, dh = flat(h), flat(dh)
    one = h.dtype.type(1)
    for i in range(h.size):
        dh[i] *= one - h[i] * h[i]


@kernel
def silu(h, before):
    """h * sigmoid(h)."""
    h, before = flat(h), flat(before)
    for i in range(h.size):
        before[i] = h[i]
        h[i] = h[i] * vecmath.sigmoid(h[i])


@kernel
def silu_vjp(h, before, dh):
    """dh (s + before s (1 - s)), s = sigmoid(before)."""
    h, before, dh = flat(h), flat(before), flat(dh)
    one = h.dtype.type(1)
    for i in range(h.size):
        s = vecmath.sigmoid(before[i])
        dh[i] *= s + before[i] * s * (one - s)


@kernel
def elu(h, before):
    """h where h > 0, else exp(h) - 1."""
    h = flat(h)
    zero = h.dtype.type(0)
    for i in range(h.size):
        h[i] = h[i] if h[i] > zero else vecmath.expm1(h[i])


@kernel
def elu_vjp(h, before, dh):
    """dh where h > 0, else dh (h + 1)."""
    h, dh = flat(h), flat(dh)
    zero, one = h.dtype.type(0), h.dtype.type(1)
    for i in range(h.size):
        dh[i] *= one if h[i] > zero else h[i] + one


@kernel
def leaky_relu(h, before):
    """h where h >= 0, else LEAK h."""
    h = flat(h)
    zero, leak = h.dtype.type(0), h.dtype.type(LEAK)
    for i in range(h.size):
        h[i] = leak * h[i] if h[i] < zero else h[i]


@kernel
def leaky_relu_vjp(h, before, dh):
    """dh where h > 0, else LEAK dh."""
    h, dh = flat(h), flat(dh)
    zero, one, leak = h.dtype.type(0), h.dtype.type(1), h.dtype.type(LEAK)
    for i in range(h.size):
        dh[i] *= one if h[i] > zero else leak


ACTIVATIONS: dict[str, tuple[Callable, Callable]] = {
    "relu": (relu, relu_vjp),
    "tanh": (tanh, tanh_vjp),
    "silu": (silu, silu_vjp),
    "elu": (elu, elu_vjp),
    "leaky_relu": (leaky_relu, leaky_relu_vjp),
}
NEEDS_INPUT = frozenset({"silu"})
"""Activations whose derivative can't be told from their value: the networks keep their input too."""
