"""Fixed permutations of the values of a sample."""

from __future__ import annotations

from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels.blocks import copy, gather, scatter
from npflows.backends.cpu.link import KERNELS, LayerKernels, Scratch
from npflows.core import operations


@inlined
def permute(spec, block, temp):
    """block[k] = block[spec[k]]."""
    gather(block, spec, 0, temp[: spec.size])
    copy(temp[: spec.size], block)


@inlined
def unpermute(spec, block, temp):
    """block[spec[k]] = block[k]."""
    copy(block, temp)
    scatter(temp[: spec.size], spec, 0, block)


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    """y[k] = x[order[k]]."""
    permute(spec, block, temp)


@kernel
def inverse(spec, theta, context, key, first, block, log_det, work, temp):
    """x[order[k]] = y[k]."""
    unpermute(spec, block, temp)


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """dx[order[k]] = dy[k]."""
    unpermute(spec, dblock, temp)


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """dy[k] = dx[order[k]]."""
    permute(spec, dblock, temp)


KERNELS[operations.Permutation] = LayerKernels(
    lambda operation: (forward, inverse, forward_vjp, inverse_vjp),
    lambda operation, link: list(operation.order),
    lambda operation: Scratch(0, operation.dim),
)
