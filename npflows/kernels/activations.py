"""Activation functions of the networks on blocks, each beside its derivative."""

from __future__ import annotations

from npflows.kernels import vecmath
from npflows.kernels.jit import inlined

RELU, TANH, SILU, ELU, LEAKY_RELU = range(5)
CODES = {"relu": RELU, "tanh": TANH, "silu": SILU, "elu": ELU, "leaky_relu": LEAKY_RELU}
LEAK = 0.01
"""Slope of leaky_relu below zero."""
NEEDS_INPUT = frozenset({"silu"})
"""Activations whose derivative can't be told from their value: the networks keep their input too."""


@inlined
def activate(code, h, before):
    """h = f(h) in place, for contiguous blocks; `before` receives h itself where the derivative needs it (else unused)."""
    h = h.reshape(h.size)
    zero = h.dtype.type(0)
    if code == RELU:
        for i in range(h.size):
            h[i] = zero if h[i] < zero else h[i]  # NaN stays NaN
    elif code == TANH:
        for i in range(h.size):
            h[i] = vecmath.tanh(h[i])
    elif code == SILU:
        before = before.reshape(before.size)
        for i in range(h.size):
            before[i] = h[i]
            h[i] = h[i] * vecmath.sigmoid(h[i])
    elif code == ELU:
        for i in range(h.size):
            h[i] = h[i] if h[i] > zero else vecmath.expm1(h[i])
    else:
        leak = h.dtype.type(LEAK)
        for i in range(h.size):
            h[i] = leak * h[i] if h[i] < zero else h[i]


@inlined
def activate_vjp(code, h, before, dh):
    """dh *= f'(before) in place, from h = f(before)."""
    h, dh = h.reshape(h.size), dh.reshape(dh.size)
    zero, one = h.dtype.type(0), h.dtype.type(1)
    if code == RELU:
        for i in range(h.size):
            dh[i] = dh[i] if h[i] > zero else zero
    elif code == TANH:
        for i in range(h.size):
            dh[i] *= one - h[i] * h[i]
    elif code == SILU:
        before = before.reshape(before.size)
        for i in range(h.size):
            s = vecmath.sigmoid(before[i])
            dh[i] *= s + h[i] * (one - s)
    elif code == ELU:
        for i in range(h.size):
            dh[i] *= one if h[i] > zero else h[i] + one
    else:
        leak = h.dtype.type(LEAK)
        for i in range(h.size):
            dh[i] *= one if h[i] > zero else leak
