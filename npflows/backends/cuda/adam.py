"""Adam with its state on the GPU: the kernels are the CPU's own texts, for pieces of a few parameters."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cpu.kernels import adam
from npflows.backends.cuda.device import (
    SIMULATED,
    copy,
    cuda,
    kernel,
    launch,
    launch_blocks,
    on,
    require_device,
    to_device,
    to_host,
)
from npflows.backends.cuda.kernels import texts_calling
from npflows.backends.cuda.memory import Gradient, Twin
from npflows.backends.cuda.recording import Recordings
from npflows.core.backend import BETA_1, BETA_2, Outcome

PIECE = 32
"""Parameters whose squares one thread adds up."""


RATE, DECAY, CORRECTION_1, CORRECTION_2, SHARE, CLIP_NORM, NUMBERS = range(7)
"""Numbers of a step that are other ones in the next: those of `npflows.backends.cpu.kernels.adam.update`, and the largest
norm."""
NORM, TAKEN, CLIP, OUTCOMES = range(4)
"""What a step finds: the gradient's norm, 1 if the step is taken and else 0, and what the gradient is multiplied by."""
TOGETHER = 4 if SIMULATED else 256
"""Threads that add up the squares."""


class _Kernels:
    """The kernels of a step, in their order."""

    def __init__(self) -> None:
        texts = texts_calling(())
        add, keep_free, update_piece = map(texts.again, (adam.add, adam.keep_free, adam.update_piece))
        double = cuda.types.float64

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

        def decide(squares, numbers, outcome):
            """The norm, and whether and how the step is taken; by one block of threads, which adds in a fixed order."""
            shared, thread, total = cuda.shared.array(0, double), cuda.threadIdx.x, 0.0
            for i in range(thread, squares.size, TOGETHER):
                total += squares[i]
            shared[thread] = total
            half = TOGETHER // 2
            while half > 0:
                cuda.syncthreads()
                if thread < half:
                    shared[thread] += shared[thread + half]
                half //= 2
            if thread == 0:
                norm = math.sqrt(shared[0])
                outcome[NORM] = norm
                outcome[TAKEN] = 1.0 if math.isfinite(norm) else 0.0
                outcome[CLIP] = numbers[CLIP_NORM] / norm if norm > numbers[CLIP_NORM] else 1.0

        def update(theta, gradient, free, m, v, numbers, outcome, average, averaging):
            """The step of each parameter, if it is taken; see `npflows.backends.cpu.kernels.adam.update`."""
            i = cuda.grid(1)
            if i < theta.size and outcome[TAKEN] > 0:
                j = i + averaging
                update_piece(theta[i : i + 1], gradient[i : i + 1], free[i : i + 1], m[i : i + 1], v[i : i + 1],
                             outcome[CLIP], numbers[RATE], numbers[DECAY], numbers[CORRECTION_1], numbers[CORRECTION_2],
                             average[i:j], numbers[SHARE])  # fmt: skip

        self.combine, self.decide, self.update = kernel(combine), kernel(decide), kernel(update)


_kernels = functools.cache(_Kernels)


class _State(NamedTuple):
    """What an optimizer has on the GPU."""

    free: Any
    gradient: Any
    squares: Any
    m: Any
    v: Any
    numbers: Any
    outcome: Any


class Adam:
    """The optimizer's state for one parameter vector; see `npflows.core.backend.Optimizer`.

    After each step theta and its moving average are on the host, but within `staying`.

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
    """

    def __init__(self, theta: NDArray, free: NDArray, weight_decay: float, clip_norm: float | None) -> None:
        self.theta, self.free = theta, free
        self.weight_decay, self.clip_norm = weight_decay, clip_norm
        self._twins = [Twin(theta)]  # of theta, and of the average, once there is one
        self._m, self._v = np.zeros_like(theta), np.zeros_like(theta)
        self._state: _State | None = None
        """None where m and v are those of the host."""
        self._recordings = Recordings()
        self._stays = False
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
        """Start over with no moments, and the parameters of the host."""
        self._follow()
        self.m[:], self.v[:], self.steps = 0, 0, 0

    @contextlib.contextmanager
    def staying(self) -> Iterator[None]:
        """See `npflows.core.gpu_arrays.StaysOnGpu`."""
        self._stays = True
        try:
            yield
        finally:
            self._stays = False
            self._follow()

    def _follow(self) -> None:
        """Bring theta and the average to the host."""
        if any(twin.is_ahead for twin in self._twins):
            with on():
                for twin in self._twins:
                    twin.follow()

    def step(self, buffers: Any, rate: float, average: NDArray | None = None, share: float = 0.0) -> Outcome:
        """Take a step along a gradient that is on the GPU, or the sum of gradient buffers (g, p), unless it is not finite;
        a moving average of the parameters (p,) then moves toward them by its share."""
        require_device()
        with on():
            outcome = to_host(self._step(buffers, rate, average, share))
            norm, taken = float(outcome[NORM]), bool(outcome[TAKEN])
            self.steps += taken
            if not self._stays:
                self._follow()
            return Outcome(taken, norm)

    def _step(self, buffers: Any, rate: float, average: NDArray | None, share: float) -> Any:
        """`step`, by one thread at a time; what it finds, on the GPU."""
        state, steps = self._on_gpu(), self.steps + 1
        clip_norm = math.inf if self.clip_norm is None else self.clip_norm
        corrections = 1 / (1 - BETA_1**steps), 1 / (1 - BETA_2**steps)
        copy(np.array([rate, self.weight_decay, *corrections, share, clip_norm]), state.numbers)
        theta = mean = self._twins[0].lead()
        if average is not None:
            mean = self._twin_of(average).lead()
        given = buffers.array if isinstance(buffers, Gradient) else to_device(buffers)
        gradients = given.reshape(given.size // theta.size, theta.size)

        def launches() -> Any:
            launch(_kernels().combine, state.squares.size, gradients, state.free, state.gradient, state.squares)
            launch_blocks(_kernels().decide, 1, TOGETHER, state.squares, state.numbers, state.outcome,
                          shared_bytes=8 * TOGETHER)  # fmt: skip
            launch(_kernels().update, theta.size, theta, state.gradient, state.free, state.m, state.v, state.numbers,
                   state.outcome, mean, int(average is not None))  # fmt: skip
            return state.outcome

        if not isinstance(buffers, Gradient):
            return launches()
        return self._recordings.run("step", lambda: (given, theta, mean, *state), launches)

    def _twin_of(self, average: NDArray) -> Twin:
        """That of the moving average."""
        if self._twins[-1].array is not average:
            for other in self._twins[1:]:
                other.follow()
            self._twins[1:] = [Twin(average)]
        return self._twins[-1]

    def _on_gpu(self) -> _State:
        """What there is on the GPU, made if it is not there."""
        if self._state is None:
            pieces = np.zeros(max(1, -(-self.theta.size // PIECE)))
            arrays = self.free, np.zeros_like(self.theta), pieces, self._m, self._v, np.zeros(NUMBERS), np.zeros(OUTCOMES)
            self._state = _State(*map(to_device, arrays))
        return self._state

    def _fetch(self) -> None:
        """Bring the moments to the host, from which the next step takes them."""
        if self._state is not None:
            with on():
                self._m[:], self._v[:] = to_host(self._state.m), to_host(self._state.v)
            self._state = None
