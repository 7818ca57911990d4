"""Statistics that several parts of the package need."""

from __future__ import annotations

import math

import numpy as np

from npflows.core.underflow import ignore_underflow


@ignore_underflow
def effective_sample_size(weights: np.ndarray, *, log: bool = False) -> float:
    """Effective sample size of weighted samples, (sum of weights)^2 / (sum of squared weights) (Kong 1992).

    Parameters
    ----------
    weights : ndarray (n,)
        Weights of the samples, not negative.
    log : bool
        Whether logarithms of the weights are given instead.

    Returns
    -------
    float
        Between 0, where all weights are 0, and n.
    """
    if log:
        highest = weights.max(initial=-math.inf)
        if not math.isfinite(highest):
            return 0.0 if highest < 0 else math.nan
        weights = np.exp(weights - highest)
    squares = (weights**2).sum()
    return float(weights.sum() ** 2 / squares) if squares != 0 else 0.0


@ignore_underflow
def log_mean_exp(values: np.ndarray) -> np.ndarray:
    """Logarithm of the mean of exp(values) over the first axis, without overflow."""
    highest = values.max(axis=0)
    shift = np.where(np.isfinite(highest), highest, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(values - shift).mean(axis=0)) + shift
