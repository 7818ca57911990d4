"""The logistic function and its logarithm: SciPy's where it is installed, else NumPy's; and tails drawn in."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from npflows.core.underflow import ignore_underflow

Elementwise = Callable[[np.ndarray], np.ndarray]


@functools.cache
def _functions() -> tuple[Elementwise, Elementwise]:
    try:
        from scipy.special import expit, log_expit
    except ImportError:
        return _expit, _log_expit
    return expit, log_expit


@ignore_underflow
def expit(t: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-t))."""
    return _functions()[0](t)


@ignore_underflow
def log_expit(t: np.ndarray) -> np.ndarray:
    """The logarithm of `expit`, which neither overflows nor loses digits."""
    return _functions()[1](t)


def _expit(t: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(t))
    return np.where(np.signbit(t), e, 1.0) / (1.0 + e)


def _log_expit(t: np.ndarray) -> np.ndarray:
    return np.minimum(t, 0.0) - np.log1p(np.exp(-np.abs(t)))


def drawn_in(values: np.ndarray, bound: np.ndarray | float) -> np.ndarray:
    """The values, and sign(v) (bound + arsinh(|v| - bound)) for a v beyond +-bound, which may be infinite for none."""
    with np.errstate(invalid="ignore"):
        beyond = np.abs(values) - bound
        tails = np.sign(values) * (bound + np.arcsinh(np.maximum(beyond, 0)))
    return np.where(beyond > 0, tails, values)
