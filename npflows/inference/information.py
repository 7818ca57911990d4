"""Entropy of a flow and its divergence from another density."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from npflows.core.checks import SeedLike, as_int, as_rng
from npflows.core.underflow import ignore_underflow
from npflows.distribution.cost import warn_if_drawing_is_long
from npflows.distribution.transformed import TransformedDistribution
from npflows.inference.drawing import draw
from npflows.inference.importance import log_density_of


class Estimate(NamedTuple):
    """A mean over samples and its standard error."""

    value: float
    error: float


@ignore_underflow
def entropy(
    flow: TransformedDistribution, n_samples: int = 100_000, rng: SeedLike = None, condition: ArrayLike | None = None
) -> Estimate:
    """Differential entropy of the flow, in nats: the mean of -log p over samples.

    Parameters
    ----------
    n_samples : int
        At least 2.
    rng : int, numpy.random.Generator or None
    condition : array_like, optional
        One for all samples; or one for each, and the result is the mean over them.

    Returns
    -------
    Estimate
        value and error.

    Warns
    -----
    UserWarning
        If it will take long, with an estimate.
    """
    log_p = np.empty(as_int(n_samples, "n_samples", 2))
    context = flow.conditioning.finite_rows(condition, len(log_p), "entropy")
    warn_if_drawing_is_long(flow, len(log_p), "entropy", "fewer n_samples", context)
    for piece in draw(flow, len(log_p), as_rng(rng), condition):
        log_p[piece.rows] = piece.log_prob
    return _mean(-log_p)


def kl_divergence(
    flow: TransformedDistribution,
    other: TransformedDistribution | Callable,
    n_samples: int = 100_000,
    rng: SeedLike = None,
    condition: ArrayLike | None = None,
) -> Estimate:
    """Kullback-Leibler divergence of the flow from another density, KL(flow || other), in nats.

    It is the mean of log flow - log other over samples of the flow.

    Parameters
    ----------
    other : NormalizingFlow or callable
        A flow, which gets the same condition if it takes one, or a function from x (n, input_dim) to a normalized
        log-density (n,).
    n_samples : int
        At least 2.
    rng : int, numpy.random.Generator or None
    condition : array_like, optional
        As in `entropy`.

    Returns
    -------
    Estimate
        value and error; infinity and NaN where the other density is 0 at a sample.

    Raises
    ------
    ValueError
        If the other flow has other dimensions, or a callable gives NaN or a wrong shape.

    Warns
    -----
    UserWarning
        If it will take long, with an estimate.
    """
    n = as_int(n_samples, "n_samples", 2)
    if isinstance(other, TransformedDistribution):
        if other.latent_dim != flow.latent_dim:
            raise ValueError(f"other has {other.latent_dim} columns where this flow has {flow.latent_dim}")
    elif not callable(other):
        raise TypeError(f"other must be a flow or a function from x to its log-density, got {type(other).__name__}")
    context = flow.conditioning.finite_rows(condition, n, "kl_divergence")
    warn_if_drawing_is_long(flow, n, "kl_divergence", "fewer n_samples", context)
    theirs = None
    if isinstance(other, TransformedDistribution) and other.condition_dim:
        theirs = other.conditioning.rows(condition, n)
    log_p, log_q = np.empty(n), np.empty(n)
    for piece in draw(flow, n, as_rng(rng), condition):
        x = piece.x.reshape(len(piece.x), flow.latent_dim)
        log_p[piece.rows] = piece.log_prob
        if isinstance(other, TransformedDistribution):
            log_q[piece.rows] = other.log_prob(x, None if theirs is None else theirs[piece.rows])
        else:
            log_q[piece.rows] = log_density_of(other, x)
    if np.isneginf(log_q).any():
        return Estimate(math.inf, math.nan)
    return _mean(log_p - log_q)


@ignore_underflow
def _mean(values: np.ndarray) -> Estimate:
    return Estimate(float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))))
