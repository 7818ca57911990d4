"""Importance sampling: a flow as the proposal for a density that is known up to a constant."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from npflows.core.checks import as_int

if TYPE_CHECKING:
    from npflows.flow import NormalizingFlow

PIECE = 65536
"""Samples that the density is asked for at a time."""


def effective_sample_size(log_weights: np.ndarray) -> float:
    """(sum of weights)^2 / (sum of their squares), 0 if all weights are 0 (Kong 1992)."""
    top = log_weights.max(initial=-math.inf)
    if not math.isfinite(top):
        return 0.0 if top < 0 else math.nan
    weights = np.exp(log_weights - top)
    return float(weights.sum() ** 2 / (weights**2).sum())


@dataclass(frozen=True)
class ImportanceWeights:
    """Samples of a flow q with weights p / q, which make them samples of the density p.

    Attributes
    ----------
    x : ndarray (n, d)
        The samples.
    log_weights : ndarray (n,)
        log p - log q, p as it was given, without its constant.
    """

    x: np.ndarray
    log_weights: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """Weights that add up to 1 (n,)."""
        top = self.log_weights.max()
        if top == -math.inf:
            return np.zeros_like(self.log_weights)
        weights = np.exp(self.log_weights - top)
        return weights / weights.sum()

    @property
    def ess(self) -> float:
        """Effective sample size: how many samples of p itself these are worth, at most n."""
        return effective_sample_size(self.log_weights)

    @property
    def log_evidence(self) -> float:
        """Estimate of the logarithm of the integral of p."""
        top = self.log_weights.max()
        return float(top + math.log(np.exp(self.log_weights - top).mean())) if math.isfinite(top) else float(top)

    @property
    def log_evidence_error(self) -> float:
        """Standard error of `log_evidence`: that of the mean weight over the mean weight."""
        n, ess = len(self.log_weights), self.ess
        return math.sqrt(max(0.0, n / ess - 1) / (n - 1)) if n > 1 and ess > 0 else math.inf

    @property
    def elbo(self) -> float:
        """Mean of log p - log q: below the log-evidence by KL(q || p)."""
        return float(self.log_weights.mean())

    def __repr__(self) -> str:
        return (
            f"ImportanceWeights(n={len(self.x)}, ess={self.ess:.1f}, log_evidence={self.log_evidence:.5g} +- "
            f"{self.log_evidence_error:.2g}, elbo={self.elbo:.5g})"
        )


def as_log_density(function: Callable, x: np.ndarray) -> np.ndarray:
    """The log-density (n,) that a function gives, alone or first in a tuple."""
    x.flags.writeable = False
    result = function(x)
    if isinstance(result, tuple) or (isinstance(result, list) and len(result) and np.ndim(result[0]) > 0):
        result = result[0]
    values = np.asarray(result, np.float64)
    if values.shape != (len(x),):
        raise ValueError(f"the log-density of x {x.shape} must have shape ({len(x)},), got {values.shape}")
    if np.isnan(values).any() or np.isposinf(values).any():
        bad = int(np.flatnonzero(np.isnan(values) | np.isposinf(values))[0])
        raise ValueError(f"the log-density must be a number or -inf, got {values[bad]} at x = {x[bad]}")
    return values


def importance_weights(
    flow: NormalizingFlow, n_samples: int, log_density: Callable | None = None, rng: object = None
) -> ImportanceWeights:
    """Draw samples with the weights that make them samples of a density known up to a constant.

    Effective sample size and error tell how the weights of the samples differ; where the density has mass that the flow
    does not reach, a mode it has lost for instance, they know nothing of it.

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
        If no density is known, or it gives NaN or something of another shape.
    """
    n = as_int(n_samples, "n_samples")
    if flow.condition_dim:
        raise ValueError(f"importance_weights takes flows without a condition; this has condition_dim={flow.condition_dim}")
    function = flow.target if log_density is None else log_density
    if function is None:
        raise ValueError("importance_weights needs log_density=: this flow has not been fitted by fit_variational")
    x, log_q = flow.sample_and_log_prob(n, rng)
    rows = x.reshape(n, flow.latent_dim)
    log_p = np.concatenate([as_log_density(function, rows[start : start + PIECE]) for start in range(0, n, PIECE)])
    return ImportanceWeights(x, log_p - log_q)
