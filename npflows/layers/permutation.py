"""Fixed permutations of the values of a sample."""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.calls import Link
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels.blocks import copy, gather, scatter
from npflows.core.checks import as_int, as_rng, given_order
from npflows.layers.layer import Layer


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
    unpermute(spec, block, temp)


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    unpermute(spec, dblock, temp)


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    permute(spec, dblock, temp)


class Permutation(Layer):
    """y[:, k] = x[:, order[k]], with log_det 0.

    Parameters
    ----------
    input_dim : int
        Number of features.
    order : {"reverse", "random"} or array_like of int
        Reversed, drawn once from `rng`, or given.
    dtype : {"float32", "float64"}
    rng : int, numpy.random.Generator or None
    """

    kernels = (forward, inverse, forward_vjp, inverse_vjp)

    def __init__(self, input_dim: int, order: object = "reverse", *, dtype: object = "float32", rng: object = None) -> None:
        n = as_int(input_dim, "input_dim")
        named = {"reverse": lambda: np.arange(n)[::-1].copy(), "random": lambda: as_rng(rng).permutation(n)}
        self.order = given_order(order, n, named)
        super().__init__(n, [], work_rows=0, temp_rows=n, dtype=dtype)

    def keep_circles(self, circles: np.ndarray) -> np.ndarray:
        return circles[self.order]

    def spec(self, link: Link) -> list[int]:
        return self.order.tolist()
