"""Statistics that several parts of the package need."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from npflows.core.underflow import ignore_underflow

LARGEST_EXPONENT = 400
"""Weights between 2^-400 and 2^400 can be squared and added up."""


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
        with np.errstate(under="ignore"):
            weights = np.exp(weights - highest)
    weights = within_range(weights)
    squares = (weights**2).sum()
    return float(weights.sum() ** 2 / squares) if squares != 0 else 0.0


def within_range(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (n,) whose sum and squares stay within the range of floats: multiplied by a power of 2 where they might not,
    so that their ratios are the same to the bit."""
    exponent = int(np.frexp(weights.max(initial=0.0))[1])
    if abs(exponent) <= LARGEST_EXPONENT:
        return weights
    with np.errstate(under="ignore"):
        return np.ldexp(weights, -exponent)


@ignore_underflow
def log_mean_exp(values: np.ndarray) -> np.ndarray:
    """Logarithm of the mean of exp(values) over the first axis, without overflow."""
    highest = values.max(axis=0)
    shift = np.where(np.isfinite(highest), highest, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(values - shift).mean(axis=0)) + shift


def weighted_quantiles(values: np.ndarray, weights: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Quantiles of sorted values (n,) with positive weights (n,), linear between the middles of their shares."""
    places = (weights.cumsum() - 0.5 * weights) / weights.sum()
    return np.interp(shares, places, values)
