"""Adam with decoupled weight decay on the flat buffer (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1; Loshchilov and
Hutter 2019, arXiv:1711.05101, algorithm 2).

Pieces of fixed size are shared out among threads, and their sums are added in order: the same bits for any number.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from npflows.backends.cpu.compiler.calls import fetch_add
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.threads import pool as threads

PIECE = 1 << 16
"""Parameters that a thread takes at a time."""
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


@inlined(distinct=True)
def add(buffer, gradient):
    for i in range(gradient.size):
        gradient[i] += buffer[i]


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
        part[:] = 0
        for g in range(buffers.shape[0]):
            add(buffers[g, first:end], part)
        squares[piece] = keep_free(free[first:end], part)


@inlined(distinct=True)
def update_piece(theta, gradient, free, m, v, clip, rate, decay, correct_1, correct_2):
    real = theta.dtype.type
    b1, b2, a1, a2 = real(BETA_1), real(BETA_2), real(1 - BETA_1), real(1 - BETA_2)
    c, c1, c2, epsilon, zero = real(clip), real(rate * correct_1), real(correct_2), real(EPSILON), real(0)
    shrink = real(rate * decay)
    for i in range(theta.size):
        g = c * gradient[i]
        m[i] = b1 * m[i] + a1 * g
        v[i] = b2 * v[i] + a2 * g * g
        step = c1 * m[i] / (np.sqrt(c2 * v[i]) + epsilon) + shrink * theta[i]
        theta[i] -= step if free[i] else zero


@kernel
def update(scratch, counter, theta, gradient, free, m, v, clip, rate, decay, correct_1, correct_2):
    """One step of Adam on the gradient times `clip`; correct_i = 1 / (1 - beta_i^step)."""
    while True:
        first = fetch_add(counter, 0, 1) * PIECE
        if first >= theta.size:
            break
        end = min(first + PIECE, theta.size)
        update_piece(theta[first:end], gradient[first:end], free[first:end], m[first:end], v[first:end], clip, rate,
                     decay, correct_1, correct_2)  # fmt: skip


class Outcome(NamedTuple):
    """What became of a step."""

    taken: bool
    gradient_norm: float


class Adam:
    """The optimiser's state for one parameter vector.

    Parameters
    ----------
    theta : ndarray
        The flat buffer, changed in place.
    free : ndarray of bool
        Which entries may change.
    weight_decay : float
        Decoupled; 0 for none.
    clip_norm : float or None
        Global norm to which a larger gradient is scaled down.
    """

    def __init__(self, theta: np.ndarray, free: np.ndarray, weight_decay: float, clip_norm: float | None) -> None:
        self.theta, self.free = theta, free
        self.weight_decay, self.clip_norm = weight_decay, clip_norm
        self.m, self.v, self.gradient = np.zeros_like(theta), np.zeros_like(theta), np.zeros_like(theta)
        self._squares = np.zeros(max(1, -(-theta.size // PIECE)))
        self.steps = 0

    def forget(self) -> None:
        """Start over with no moments."""
        self.m[:], self.v[:], self.steps = 0, 0, 0

    def step(self, buffers: np.ndarray, rate: float) -> Outcome:
        """Add up the gradient buffers (g, p) and take a step, unless the gradient is not finite."""
        pieces, real = len(self._squares), self.theta.dtype
        threads.run(combine, "combine", pieces, 0, real, (buffers, self.free, self.gradient, self._squares))
        norm = math.sqrt(self._squares.sum())
        if not math.isfinite(norm):
            return Outcome(False, norm)
        self.steps += 1
        clip = 1.0 if self.clip_norm is None or norm <= self.clip_norm else self.clip_norm / norm
        correct_1, correct_2 = 1 / (1 - BETA_1**self.steps), 1 / (1 - BETA_2**self.steps)
        threads.run(update, "update", pieces, 0, real, (self.theta, self.gradient, self.free, self.m, self.v, clip, rate,
                    self.weight_decay, correct_1, correct_2))  # fmt: skip
        return Outcome(True, norm)
