"""Adam with its state on the GPU: the kernels are the CPU's own texts, for pieces of a few parameters."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cpu.kernels import adam
from npflows.backends.cuda.device import cuda, kernel, launch, require_device, to_device
from npflows.backends.cuda.kernels import texts_calling
from npflows.backends.cuda.memory import Gradient, Memory
from npflows.core.backend import BETA_1, BETA_2, Outcome

PIECE = 32
"""Parameters whose squares one thread adds up."""


class _Kernels:
    """The two kernels of a step."""

    def __init__(self) -> None:
        texts = texts_calling(())
        add, keep_free, update_piece = map(texts.again, (adam.add, adam.keep_free, adam.update_piece))

        def combine(buffers, free, gradient, squares):
            """gradient (p,) = the sum of buffers (g, p), 0 where not free; squares[piece] = its sum of squares."""
            piece = cuda.grid(1)
            if piece < squares.size:
                first = piece * PIECE
                end = min(first + PIECE, gradient.size)
                part = gradient[first:end]
                for i in range(part.size):
                    part[i] = 0
                for g in range(buffers.shape[0]):
                    add(buffers[g, first:end], part)
                squares[piece] = keep_free(free[first:end], part)

        def update(theta, gradient, free, m, v, clip, rate, decay, correct_1, correct_2, average, averaging, share):
            """One step of each parameter; see `npflows.backends.cpu.kernels.adam.update`."""
            i = cuda.grid(1)
            if i < theta.size:
                j = i + averaging
                update_piece(theta[i : i + 1], gradient[i : i + 1], free[i : i + 1], m[i : i + 1], v[i : i + 1], clip, rate,
                             decay, correct_1, correct_2, average[i:j], share)  # fmt: skip

        self.combine, self.update = kernel(combine), kernel(update)


_kernels = functools.cache(_Kernels)


class Adam:
    """The optimizer's state for one parameter vector; see `npflows.core.backend.Optimizer`.

    Parameters
    ----------
    theta : ndarray
        The flat buffer on the host, changed in place.
    free : ndarray of bool
        Which entries may change.
    weight_decay : float
        Decoupled; 0 for none.
    clip_norm : float or None
        Global norm to which a larger gradient is scaled down.
    memory : Memory
        Where programs find the parameters that a step leaves on the GPU.
    """

    def __init__(
        self, theta: NDArray, free: NDArray, weight_decay: float, clip_norm: float | None, memory: Memory
    ) -> None:  # fmt: skip
        self.theta, self.free, self._memory = theta, free, memory
        self.weight_decay, self.clip_norm = weight_decay, clip_norm
        self._m, self._v = np.zeros_like(theta), np.zeros_like(theta)
        self._state: tuple[Any, ...] | None = None
        """free, gradient, squares, m and v on the GPU; None where m and v are those of the host."""
        self.steps = 0

    @property
    def m(self) -> NDArray:
        """The first moment: what is written into it counts."""
        self._fetch()
        return self._m

    @property
    def v(self) -> NDArray:
        """The second moment, in the same way."""
        self._fetch()
        return self._v

    def forget(self) -> None:
        """Start over with no moments."""
        self.m[:], self.v[:], self.steps = 0, 0, 0

    def step(self, buffers: Any, rate: float, average: NDArray | None = None, share: float = 0.0) -> Outcome:
        """Take a step along a gradient that is on the GPU, or the sum of gradient buffers (g, p), unless it is not finite;
        a moving average of the parameters (p,) then moves toward them by its share."""
        require_device()
        if self._state is None:
            pieces = np.zeros(max(1, -(-self.theta.size // PIECE)))
            self._state = tuple(map(to_device, (self.free, np.zeros_like(self.theta), pieces, self._m, self._v)))
        free, gradient, squares, m, v = self._state
        given = buffers.array.reshape(1, gradient.size) if isinstance(buffers, Gradient) else to_device(buffers)
        launch(_kernels().combine, squares.size, given, free, gradient, squares)
        norm = math.sqrt(squares.copy_to_host().sum())
        if not math.isfinite(norm):
            return Outcome(False, norm)
        self.steps += 1
        clip = 1.0 if self.clip_norm is None or norm <= self.clip_norm else self.clip_norm / norm
        correct_1, correct_2 = 1 / (1 - BETA_1**self.steps), 1 / (1 - BETA_2**self.steps)
        theta = self._memory.taken("theta", self.theta)
        mean = theta if average is None else self._memory.taken("average", average)
        launch(_kernels().update, theta.size, theta, gradient, free, m, v, float(clip), float(rate),
               float(self.weight_decay), correct_1, correct_2, mean, int(average is not None), float(share))  # fmt: skip
        self._memory.keep("theta", self.theta, theta)
        if average is not None:
            self._memory.keep("average", average, mean)
        return Outcome(True, norm)

    def _fetch(self) -> None:
        """Bring the moments to the host, from which the next step takes them."""
        if self._state is not None:
            self._m[:], self._v[:] = self._state[3].copy_to_host(), self._state[4].copy_to_host()
            self._state = None
