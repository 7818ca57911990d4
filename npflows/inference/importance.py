"""Importance sampling: a flow as the proposal for a density that is known up to a constant."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.core.checks import SeedLike, as_int, as_rng
from npflows.core.statistics import effective_sample_size, log_mean_exp
from npflows.core.underflow import ignore_underflow
from npflows.distribution.cost import warn_if_drawing_is_long
from npflows.distribution.transformed import TransformedDistribution
from npflows.inference.drawing import draw

PIECE = 65536
"""Samples that are passed to the density at a time."""


@dataclass(frozen=True)
class ImportanceWeights:
    """Samples of a flow q with weights p / q, which make them samples of the density p.

    Attributes
    ----------
    x : ndarray (n, d)
        The samples.
    log_weights : ndarray (n,)
        log p - log q, p as it was given, not normalized.
    """

    x: NDArray[Any]
    log_weights: NDArray[np.float64]

    @property
    @ignore_underflow
    def weights(self) -> NDArray[np.float64]:
        """Weights that add up to 1 (n,)."""
        highest = self.log_weights.max()
        if highest == -math.inf:
            return np.zeros_like(self.log_weights)
        weights = np.exp(self.log_weights - highest)
        return weights / weights.sum()

    @property
    def ess(self) -> float:
        """Effective sample size: the number of independent samples of p that these are worth, at most n."""
        return effective_sample_size(self.log_weights, log=True)

    @property
    def log_evidence(self) -> float:
        """Estimate of the logarithm of the integral of p."""
        return float(log_mean_exp(self.log_weights))

    @property
    def log_evidence_error(self) -> float:
        """Standard error of `log_evidence`: the standard error of the mean weight, divided by the mean weight."""
        n, ess = len(self.log_weights), self.ess
        return math.sqrt(max(0.0, n / ess - 1) / (n - 1)) if n > 1 and ess > 0 else math.inf

    @property
    def elbo(self) -> float:
        """Evidence lower bound, the mean of log p - log q: `log_evidence` minus KL(q || p)."""
        return float(self.log_weights.mean())

    def __repr__(self) -> str:
        return (
            f"ImportanceWeights(n={len(self.x)}, ess={self.ess:.1f}, log_evidence={self.log_evidence:.5g} +- "
            f"{self.log_evidence_error:.2g}, elbo={self.elbo:.5g})"
        )


def as_log_density(function: Callable, x: np.ndarray) -> np.ndarray:
    """Call a user's function and check the log-density (n,) that it returns, alone or first in a tuple."""
    result = function(x.copy())  # its own, and writable, which compiled functions may ask for
    if isinstance(result, tuple) or (isinstance(result, list) and len(result) and np.ndim(result[0]) > 0):
        result = result[0]
    values = np.asarray(result, np.float64)
    if values.shape != (len(x),):
        raise ValueError(f"the log-density of x {x.shape} must have shape ({len(x)},), got {values.shape}")
    if np.isnan(values).any() or np.isposinf(values).any():
        bad = int(np.flatnonzero(np.isnan(values) | np.isposinf(values))[0])
        raise ValueError(f"the log-density must be a number or -inf, got {values[bad]} at x = {x[bad]}")
    return values


def log_density_of(function: Callable, rows: np.ndarray) -> np.ndarray:
    """The log-density (n,) that a user's function gives to rows (n, d), which it gets in pieces."""
    return np.concatenate([as_log_density(function, rows[i : i + PIECE]) for i in range(0, len(rows), PIECE)])


def importance_weights(
    flow: TransformedDistribution, n_samples: int, log_density: Callable | None = None, rng: SeedLike = None
) -> ImportanceWeights:
    """Draw samples with the weights that make them samples of a density known up to a constant.

    Effective sample size and error are estimated from the samples.  They do not account for regions where the density has
    mass and the flow has none, a mode that the flow has lost for instance.

    Parameters
    ----------
    n_samples : int
    log_density : callable, optional
        x (n, input_dim) to log p (n,), or to a tuple that begins with it; -inf where p is 0.  By default the target of
        the last `fit_variational` of this object, which is not saved with it.
    rng : int, numpy.random.Generator or None

    Returns
    -------
    ImportanceWeights
        With the samples, weights, effective sample size, and the log-evidence with its error.

    Raises
    ------
    ValueError
        If no density is known, or it gives NaN or an array of a wrong shape.

    Warns
    -----
    UserWarning
        If it will take long, with an estimate.
    """
    n = as_int(n_samples, "n_samples")
    if flow.condition_dim:
        raise ValueError(f"importance_weights takes flows without a condition; this has condition_dim={flow.condition_dim}")
    function = flow.target if log_density is None else log_density
    if function is None:
        raise ValueError("importance_weights needs log_density=: this flow has not been fitted by fit_variational")
    log_q = np.empty(n)
    warn_if_drawing_is_long(flow, n, "importance_weights", "fewer n_samples")
    for piece in draw(flow, n, as_rng(rng)):
        if piece.rows.start == 0:
            x = piece.x if len(piece.x) == n else np.empty((n, *piece.x.shape[1:]), piece.x.dtype)
        x[piece.rows], log_q[piece.rows] = piece.x, piece.log_prob
    return ImportanceWeights(x, log_density_of(function, x.reshape(n, flow.latent_dim)) - log_q)
