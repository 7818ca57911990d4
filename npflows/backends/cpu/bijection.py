"""The bijection in front of a program by compiled kernels, with the same bits for rows alone and among others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cpu.kernels import supports
from npflows.core.bijection import Unconstrained
from npflows.core.operations import Supports


class CompiledBijection:
    """A support; see `npflows.core.bijection.Bijection`.

    Parameters
    ----------
    operation : Supports
    """

    def __init__(self, operation: Supports) -> None:
        self._operation = operation
        self.spec = np.array(supports.pack(operation), np.int64)

    def operation(self) -> Supports:
        """The bijection as plain data."""
        return self._operation

    def to_unconstrained(self, x: NDArray) -> Unconstrained:
        """From the user's values (n, d) to the line."""
        t, log_det, inside = np.empty_like(x), np.empty(len(x)), np.empty(len(x))
        supports.to_line(self.spec, x, t, log_det, inside)
        return Unconstrained(t, log_det, inside != 0)

    def from_unconstrained(self, t: NDArray) -> tuple[NDArray, NDArray]:
        """The user's values, with log |det dx/dt|."""
        x, log_det = np.empty_like(t), np.empty(len(t))
        supports.from_line(self.spec, t, x, log_det)
        return x, log_det

    def to_unconstrained_vjp(self, x: NDArray, dt: NDArray, dlog_det: NDArray) -> NDArray:
        """The gradient with respect to x, from those with respect to t and log_det."""
        dx = np.empty_like(dt)
        supports.to_line_vjp(self.spec, x, dt, dlog_det, dx)
        return dx

    def from_unconstrained_vjp(self, t: NDArray, dx: NDArray, dlog_det: NDArray) -> NDArray:
        """The gradient with respect to t, from those with respect to x and log_det."""
        dt = np.empty_like(dx)
        supports.from_line_vjp(self.spec, t, dx, dlog_det, dt)
        return dt
