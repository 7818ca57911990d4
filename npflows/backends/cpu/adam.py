"""Adam with its state in memory of the CPU."""

from __future__ import annotations

import math

import numpy as np

from npflows.backends.cpu.kernels.adam import PIECE, STRIP, combine, update
from npflows.backends.cpu.threads import pool as threads
from npflows.core.backend import BETA_1, BETA_2, Outcome


class Adam:
    """The optimizer's state for one parameter vector.

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
        self._none = np.empty(0, theta.dtype)
        self.steps = 0

    def forget(self) -> None:
        """Start over with no moments."""
        self.m[:], self.v[:], self.steps = 0, 0, 0

    def step(self, buffers: np.ndarray, rate: float, average: np.ndarray | None = None, share: float = 0.0) -> Outcome:
        """Add up the gradient buffers (g, p) and take a step, unless the gradient is not finite; a moving average of the
        parameters (p,) then moves toward them by its share."""
        pieces, real = len(self._squares), self.theta.dtype
        waiting = len(buffers).bit_length() * STRIP * real.itemsize
        threads.run(combine, "combine", pieces, waiting, real, (buffers, self.free, self.gradient, self._squares))
        norm = math.sqrt(self._squares.sum())
        if not math.isfinite(norm):
            return Outcome(False, norm)
        self.steps += 1
        clip = 1.0 if self.clip_norm is None or norm <= self.clip_norm else self.clip_norm / norm
        correct_1, correct_2 = 1 / (1 - BETA_1**self.steps), 1 / (1 - BETA_2**self.steps)
        threads.run(update, "update", pieces, 0, real, (self.theta, self.gradient, self.free, self.m, self.v, clip, rate,
                    self.weight_decay, correct_1, correct_2, self._none if average is None else average,
                    share))  # fmt: skip
        return Outcome(True, norm)
