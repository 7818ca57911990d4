"""The logistic function and its logarithm: SciPy's where it is installed, else NumPy's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

Elementwise = Callable[[np.ndarray], np.ndarray]


@functools.cache
def _functions() -> tuple[Elementwise, Elementwise]:
    try:
        from scipy.special import expit, log_expit
    except ImportError:
        return _expit, _log_expit
    return expit, log_expit


def expit(t: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-t))."""
    return _functions()[0](t)


def log_expit(t: np.ndarray) -> np.ndarray:
    """The logarithm of `expit`, which neither overflows nor loses digits."""
    return _functions()[1](t)


def _expit(t: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(t))
    return np.where(np.signbit(t), e, 1.0) / (1.0 + e)


def _log_expit(t: np.ndarray) -> np.ndarray:
    return np.minimum(t, 0.0) - np.log1p(np.exp(-np.abs(t)))


def scipy_function(name: str) -> Callable[..., Any]:
    """A function of scipy.special that has no NumPy form here.

    Raises
    ------
    ImportError
        If SciPy can't be imported.
    """
    try:
        from scipy import special
    except ImportError:
        raise ImportError(
            f"cumulative distributions and quantiles, the unit cube for instance, need {name} of SciPy: pip install scipy"
        ) from None
    return getattr(special, name)
