"""The additive scalar map y = x + t, which keeps volumes (Dinh et al. 2015, arXiv:1410.8516, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable

from npflows.backends.cpu.compiler.jit import kernel
from npflows.core.parameters import Parameter


@kernel
def apply(spec, theta, x, raw, log_det):
    """x = x + t."""
    for i in range(x.shape[0]):
        for t in range(x.shape[1]):
            x[i, t] += raw[i, t]


@kernel
def undo(spec, theta, x, raw, log_det):
    """x = x - t."""
    for i in range(x.shape[0]):
        for t in range(x.shape[1]):
            x[i, t] -= raw[i, t]


@kernel
def apply_vjp(spec, theta, x, raw, dx, dlog_det, dtheta):
    """raw: its gradient on return; dL/dx is dL/dy."""
    for i in range(x.shape[0]):
        for t in range(x.shape[1]):
            raw[i, t] = dx[i, t]


@kernel
def apply_solve(spec, theta, x, raw, dx, dlog_det, dtheta):
    """dy/dx is 1."""


class Additive:
    """The additive scalar map, which has no parameters of its own."""

    multiplier = 1
    theta_per_value = 0

    @property
    def kernels(self) -> dict[str, Callable]:
        return {"forward": apply, "inverse": undo, "vjp": apply_vjp, "solve": apply_solve}

    def parameters(self, n: int) -> list[Parameter]:
        """Parameters of the map of n values, besides those that a conditioner gives: none."""
        return []

    def spec(self, value: int | None = None) -> list[int]:
        return []
