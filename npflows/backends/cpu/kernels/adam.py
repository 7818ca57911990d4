"""Adam with decoupled weight decay on the flat buffer (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1; Loshchilov and
Hutter 2019, arXiv:1711.05101, algorithm 2): the kernels.

Pieces of fixed size are shared out among threads, and their sums are added in order: the same bits for any number.
Gradient buffers are added up in the order of core/tree.py, one strip of parameters at a time, so that sums that wait for
others are in the nearest cache.
"""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.calls import fetch_add
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.core.backend import BETA_1, BETA_2, EPSILON

PIECE = 1 << 16
"""Parameters that a thread takes at a time."""
STRIP = 4096
"""Parameters whose gradients are added up at a time."""


@inlined(distinct=True)
def copy(source, target):
    """target = source."""
    for i in range(target.size):
        target[i] = source[i]


@inlined(distinct=True)
def add(values, total):
    """total += values."""
    for i in range(total.size):
        total[i] += values[i]


@inlined(distinct=True)
def add_four(a, b, c, d, total):
    """total = (a + b) + (c + d)."""
    for i in range(total.size):
        total[i] = (a[i] + b[i]) + (c[i] + d[i])


@inlined
def add_up(scratch, buffers, start, total):
    """total = the sum of the buffers from place `start` on; a sum of 2^level buffers waits at scratch[level * STRIP]."""
    count, end, g = buffers.shape[0], start + total.size, 0
    while g < count:
        first = g
        if g + 4 <= count:
            add_four(buffers[g, start:end], buffers[g + 1, start:end], buffers[g + 2, start:end], buffers[g + 3, start:end],
                     total)  # fmt: skip
            g, level = g + 4, 2
        else:
            copy(buffers[g, start:end], total)
            g, level = g + 1, 0
        while first >> level & 1:
            add(scratch[level * STRIP : level * STRIP + total.size], total)
            level += 1
        if g < count:
            copy(total, scratch[level * STRIP : level * STRIP + total.size])
    while count >> level > 1:
        level += 1
        if count >> level & 1:
            add(scratch[level * STRIP : level * STRIP + total.size], total)


@inlined(distinct=True, reassociate=True)
def keep_free(free, gradient):
    """0 where not free; returns the sum of squares."""
    total, zero = 0.0, gradient.dtype.type(0)
    for i in range(gradient.size):
        value = gradient[i] if free[i] else zero
        gradient[i] = value
        total += np.float64(value) * np.float64(value)
    return total


@kernel
def combine(scratch, counter, buffers, free, gradient, squares):
    """gradient (p,) = the sum of buffers (g, p), 0 where not free; squares[piece] = its sum of squares."""
    while True:
        piece = fetch_add(counter, 0, 1)
        first = piece * PIECE
        if first >= gradient.size:
            break
        end = min(first + PIECE, gradient.size)
        part = gradient[first:end]
        for start in range(first, end, STRIP):
            add_up(scratch, buffers, start, gradient[start : min(start + STRIP, end)])
        squares[piece] = keep_free(free[first:end], part)


@inlined(distinct=True)
def update_piece(theta, gradient, free, m, v, clip, rate, decay, correct_1, correct_2, average, share):
    """One step on a piece, with g = clip gradient: m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, and where free
    theta -= rate (correct_1 m / (sqrt(correct_2 v) + epsilon) + decay theta) and average += share (theta - average)."""
    real = theta.dtype.type
    b1, b2, a1, a2 = real(BETA_1), real(BETA_2), real(1 - BETA_1), real(1 - BETA_2)
    c, c1, c2, epsilon, zero = real(clip), real(rate * correct_1), real(correct_2), real(EPSILON), real(0)
    shrink, s, averaging = real(rate * decay), real(share), average.size > 0
    for i in range(theta.size):
        g = c * gradient[i]
        m[i] = b1 * m[i] + a1 * g
        v[i] = b2 * v[i] + a2 * g * g
        step = c1 * m[i] / (np.sqrt(c2 * v[i]) + epsilon) + shrink * theta[i]
        theta[i] -= step if free[i] else zero
        if averaging:
            average[i] = average[i] + s * (theta[i] - average[i]) if free[i] else average[i]  # -0.0 + 0.0 is not -0.0


@kernel
def update(scratch, counter, theta, gradient, free, m, v, clip, rate, decay, correct_1, correct_2, average, share):
    """One step of Adam on the gradient times `clip`; correct_i = 1 / (1 - beta_i^step).  The moving average of theta,
    unless it is empty, moves by its `share` toward the new one."""
    while True:
        first = fetch_add(counter, 0, 1) * PIECE
        if first >= theta.size:
            break
        end = min(first + PIECE, theta.size)
        update_piece(theta[first:end], gradient[first:end], free[first:end], m[first:end], v[first:end], clip, rate,
                     decay, correct_1, correct_2, average[first:end], share)  # fmt: skip
