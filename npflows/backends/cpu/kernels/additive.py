"""The additive scalar map y = x + t (Dinh et al. 2015, arXiv:1410.8516, section 3.2)."""

from __future__ import annotations

from npflows.backends.cpu.compiler.jit import kernel
from npflows.backends.cpu.link import KERNELS, MapKernels
from npflows.core import operations


@kernel
def apply(spec, theta, x, raw, log_det, temp):
    """x = x + t."""
    for i in range(x.shape[0]):
        for t in range(x.shape[1]):
            x[i, t] += raw[i, t]


@kernel
def undo(spec, theta, x, raw, log_det, temp):
    """x = x - t."""
    for i in range(x.shape[0]):
        for t in range(x.shape[1]):
            x[i, t] -= raw[i, t]


@kernel
def apply_vjp(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """raw: its gradient on return; dL/dx is dL/dy."""
    for i in range(x.shape[0]):
        for t in range(x.shape[1]):
            raw[i, t] = dx[i, t]


@kernel
def apply_solve(spec, theta, x, raw, dx, dlog_det, dtheta, temp):
    """dy/dx is 1."""


ROLES = {"forward": apply, "inverse": undo, "vjp": apply_vjp, "solve": apply_solve}
KERNELS[operations.Additive] = MapKernels(lambda operation: ROLES, lambda operation, value: [])
