"""The kernels that look through rows of tables (n, d) and choose among them."""

from __future__ import annotations

import math

from npflows.backends.cuda.device import cuda, kernel


@kernel
def gather(source, index, target):
    """target (n, d) = source[index], of any strides and dtype."""
    t = cuda.grid(1)
    if t < target.shape[0]:
        row = index[t]
        for k in range(target.shape[1]):
            target[t, k] = source[row, k]


@kernel
def find_lost(C, affine, farthest, found):
    """found[0] = 1 where a condition (n, d) is not finite, or farther away once it is standardized; all write the same."""
    t = cuda.grid(1)
    if t < C.shape[0]:
        for k in range(C.shape[1]):
            if not abs(C[t, k] - affine[0, k]) <= farthest * affine[1, k]:
                found[0] = 1


@kernel
def settle(log_prob, dx, dcondition):
    """Gradients (n, d) of log-densities (n,): 0 where one of the row is not finite or the density is 0, NaN where it is."""
    t = cuda.grid(1)
    if t < log_prob.shape[0]:
        lost = log_prob[t] == -math.inf
        for k in range(dx.shape[1]):
            lost = lost or not math.isfinite(dx[t, k])
        for k in range(dcondition.shape[1]):
            lost = lost or not math.isfinite(dcondition[t, k])
        if math.isnan(log_prob[t]):
            for k in range(dx.shape[1]):
                dx[t, k] = math.nan
            for k in range(dcondition.shape[1]):
                dcondition[t, k] = math.nan
        elif lost:
            for k in range(dx.shape[1]):
                dx[t, k] = 0.0
            for k in range(dcondition.shape[1]):
                dcondition[t, k] = 0.0
