"""Adam with decoupled weight decay on the flat vector (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1; Loshchilov and
Hutter 2019, arXiv:1711.05101, algorithm 2)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from npflows.core.backend import BETA_1, BETA_2, EPSILON, Outcome


class Adam:
    """The state of the optimizer for one parameter vector.

    Parameters
    ----------
    theta : ndarray
        The parameters, changed in place.
    free : ndarray of bool
        Which entries may change.
    weight_decay : float
        Decoupled; 0 for none.
    clip_norm : float or None
        The global norm to which a larger gradient is scaled down.
    """

    def __init__(self, theta: NDArray, free: NDArray, weight_decay: float, clip_norm: float | None) -> None:
        self.theta, self.free = theta, free
        self.weight_decay, self.clip_norm = weight_decay, clip_norm
        self.m, self.v = np.zeros_like(theta), np.zeros_like(theta)
        self.steps = 0

    def forget(self) -> None:
        """Start over with no moments."""
        self.m[:], self.v[:], self.steps = 0, 0, 0

    def step(self, buffers: NDArray, rate: float, average: NDArray | None = None, share: float = 0.0) -> Outcome:
        """Take a step on the sum g of the gradient buffers (k, p), unless it is not finite:

        m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,
        theta -= rate (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + epsilon) + weight_decay theta),
        average += share (theta - average).
        """
        gradient = np.where(self.free, buffers.sum(axis=0, dtype=self.theta.dtype), 0)
        norm = math.sqrt(np.square(gradient, dtype=np.float64).sum())
        if not math.isfinite(norm):
            return Outcome(False, norm)
        self.steps += 1
        clip = 1.0 if self.clip_norm is None or norm <= self.clip_norm else self.clip_norm / norm
        gradient = gradient.astype(np.float64) * clip
        self.m[:] = BETA_1 * self.m + (1 - BETA_1) * gradient
        self.v[:] = BETA_2 * self.v + (1 - BETA_2) * gradient**2
        mean, square = (moment.astype(np.float64) / (1 - beta**self.steps)
                        for moment, beta in ((self.m, BETA_1), (self.v, BETA_2)))  # fmt: skip
        change = rate * (mean / (np.sqrt(square) + EPSILON) + self.weight_decay * self.theta)
        self.theta[:] = np.where(self.free, self.theta - change, self.theta)
        if average is not None:
            average[:] = np.where(self.free, average + share * (self.theta.astype(np.float64) - average), average)
        return Outcome(True, norm)
