"""The functions of a frame that C may call, one of each kind for either compute dtype.

All arguments are words: whole numbers, and addresses of contiguous float64, 0 where something is not given or not wanted.
"""

from __future__ import annotations

import numpy as np
from numba import types

from npflows.backends.cpu.compiler.jit import c_address, entry
from npflows.backends.cpu.embedded import evaluation
from npflows.backends.cpu.embedded.frame import SIZE
from npflows.backends.cpu.embedded.memory import vector

_word = types.int64
EVALUATE_SIGNATURE, SAMPLE_SIGNATURE = _word(*[_word] * 10), _word(*[_word] * 8)


@entry
def evaluate_single(x, n, dim, condition, condition_rows, condition_dim, grad, dcondition, log_prob, frame):
    """Log-densities and gradients of n rows, for flows in float32."""
    f = vector(frame, SIZE, 0)
    return evaluation.evaluate(np.float32(0), x, n, dim, condition, condition_rows, condition_dim, grad, dcondition,
                               log_prob, f)  # fmt: skip


@entry
def evaluate_double(x, n, dim, condition, condition_rows, condition_dim, grad, dcondition, log_prob, frame):
    """The same in float64."""
    f = vector(frame, SIZE, 0)
    return evaluation.evaluate(np.float64(0), x, n, dim, condition, condition_rows, condition_dim, grad, dcondition,
                               log_prob, f)  # fmt: skip


@entry
def sample_single(z, n, dim, condition, condition_rows, condition_dim, x, frame):
    """Samples from n rows of the base distribution, for flows in float32."""
    f = vector(frame, SIZE, 0)
    return evaluation.sample(np.float32(0), z, n, dim, condition, condition_rows, condition_dim, x, f)


@entry
def sample_double(z, n, dim, condition, condition_rows, condition_dim, x, frame):
    """The same in float64."""
    f = vector(frame, SIZE, 0)
    return evaluation.sample(np.float64(0), z, n, dim, condition, condition_rows, condition_dim, x, f)


SIGNATURES = {"evaluate": EVALUATE_SIGNATURE, "sample": SAMPLE_SIGNATURE}
_ENTRIES = {
    ("evaluate", "float32"): evaluate_single,
    ("evaluate", "float64"): evaluate_double,
    ("sample", "float32"): sample_single,
    ("sample", "float64"): sample_double,
}


def address_of(kind: str, dtype: np.dtype) -> int:
    """The address of the entry "evaluate" or "sample" for a compute dtype."""
    return c_address(_ENTRIES[kind, dtype.name], SIGNATURES[kind])
