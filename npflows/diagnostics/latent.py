"""Calibration on the latent side, where the data must follow the base distribution."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.core.checks import as_weights
from npflows.core.optional import scipy
from npflows.core.underflow import ignore_underflow
from npflows.diagnostics.common import effective_size, rows_of
from npflows.distribution.transformed import TransformedDistribution


@dataclass(frozen=True)
class PIT:
    """Values of the probability integral transform, uniform if the flow is right.

    Attributes
    ----------
    u : ndarray (n, d)
        Cumulative probability of each latent value under the base.
    weights : ndarray (n,) or None
        Those of the rows.
    statistic : ndarray (d,)
        Kolmogorov-Smirnov distance of each column from uniform.
    p_value : ndarray (d,)
        Probability of at least that distance if the flow is right; with weights by their effective number.
    """

    u: NDArray[np.float64] = field(repr=False)
    weights: NDArray[np.float64] | None = field(repr=False)
    statistic: NDArray[np.float64]
    p_value: NDArray[np.float64]

    @property
    def p_value_all(self) -> float:
        """That of all columns together: the smallest times their number (Bonferroni)."""
        return float(min(1.0, self.p_value.min() * len(self.p_value)))


@ignore_underflow
def pit(
    flow: TransformedDistribution, x: ArrayLike, condition: ArrayLike | None = None, sample_weight: ArrayLike | None = None
) -> PIT:
    """Probability integral transform of held-out rows.

    A flow that is the density of x carries it to its base, so that each latent column's cumulative probability is uniform
    (Dawid 1984, J. R. Stat. Soc. A 147, 278).  With training rows the test is too kind.  The columns are those of the
    latent side, each a function of several of the data's.  Whole numbers are placed at random in their cells, as in
    training, and the same way each time (Dunn and Smyth 1996, J. Comput. Graph. Stat. 5, 236).

    Parameters
    ----------
    x : array_like (n, input_dim)
        Rows that the flow was not fitted to.
    condition : array_like, optional
        One for all rows or one for each.
    sample_weight : array_like (n,), optional
        Not negative.

    Raises
    ------
    ValueError
        If a row is not finite, or the flow has no latent value for it.
    """
    rows, context = rows_of(flow, x, condition)
    weights = as_weights(sample_weight, len(rows))
    u = latent_probabilities(flow, rows, context)
    statistic, p_value = np.empty((2, u.shape[1]))
    for j, column in enumerate(u.T):
        statistic[j], p_value[j] = ks_uniform(column, weights)
    return PIT(u, weights, statistic, p_value)


def latent_probabilities(flow: TransformedDistribution, x: np.ndarray, condition: np.ndarray | None) -> np.ndarray:
    """Cumulative probabilities (n, d) of the latent values of x under the base."""
    if flow.preprocessing.has_integers:
        x = flow.preprocessing.scatter(x, np.random.default_rng(0))
        z = flow.transport(x, condition, log_det=False).y
    else:
        z = np.reshape(flow.forward(x, condition)[0], (len(x), -1))
    u = np.asarray(flow.base_under(condition).cdf(z))
    bad = np.flatnonzero(np.isnan(u).any(axis=1))
    if len(bad):
        raise ValueError(f"{len(bad)} rows of x have no latent value, the first is row {bad[0]}: leave them out")
    return u


def ks_uniform(u: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    """Kolmogorov-Smirnov distance of u (n,) from the uniform distribution, and its p-value."""
    kstwo = scipy("stats", "a Kolmogorov-Smirnov test").kstwo
    order, n = np.argsort(u), len(u)
    share = np.full(n, 1 / n) if weights is None else weights[order] / weights.sum()
    after = np.cumsum(share)
    distance = max((after - u[order]).max(), (u[order] - after + share).max())
    return float(distance), float(kstwo.sf(distance, max(1, round(effective_size(weights, n)))))


@dataclass(frozen=True)
class Coverage:
    """How many rows lie within regions that should hold a given share of them.

    Attributes
    ----------
    levels : ndarray (k,)
        The shares.
    interval : ndarray (k, d)
        Share of the rows within the central interval of each latent column.
    ball : ndarray (k,)
        Share of the rows within the ball around the latent center.
    error : ndarray (k,)
        Standard error of either if the flow is right.
    """

    levels: NDArray[np.float64]
    interval: NDArray[np.float64]
    ball: NDArray[np.float64]
    error: NDArray[np.float64]

    @property
    def interval_deviation(self) -> NDArray[np.float64]:
        """Found minus expected, in standard errors (k, d)."""
        return (self.interval - self.levels[:, None]) / self.error[:, None]

    @property
    def ball_deviation(self) -> NDArray[np.float64]:
        """Found minus expected, in standard errors (k,)."""
        return (self.ball - self.levels) / self.error


@ignore_underflow
def coverage(
    flow: TransformedDistribution,
    x: ArrayLike,
    levels: ArrayLike = (0.5, 0.68, 0.9, 0.95),
    condition: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> Coverage:
    """Share of held-out rows within latent regions of given content.

    More than expected means that the flow is too wide, less that it is too narrow.  The balls are those of highest density
    of a normal base, of squared radius chi-squared with d degrees of freedom; for another base each column is first
    carried to a normal one by its cumulative distribution.  For whole numbers see `pit`.

    Parameters
    ----------
    x : array_like (n, input_dim)
        Rows that the flow was not fitted to.
    levels : sequence of float
        Between 0 and 1.
    condition : array_like, optional
        One for all rows or one for each.
    sample_weight : array_like (n,), optional
        Not negative.
    """
    ndtri, chi2 = scipy("special", "diagnostics.coverage").ndtri, scipy("stats", "diagnostics.coverage").chi2
    rows, context = rows_of(flow, x, condition)
    weights = as_weights(sample_weight, len(rows))
    share = np.asarray(levels, np.float64)
    if share.ndim != 1 or not len(share) or not ((share > 0) & (share < 1)).all():
        raise ValueError(f"levels must be numbers between 0 and 1, got {levels!r}")
    u = latent_probabilities(flow, rows, context)
    within = 2 * np.abs(u - 0.5)
    content = chi2.cdf((ndtri(u) ** 2).sum(axis=1), u.shape[1])
    interval = np.array([np.average(within <= level, axis=0, weights=weights) for level in share])
    ball = np.array([np.average(content <= level, weights=weights) for level in share])
    error = np.sqrt(share * (1 - share) / effective_size(weights, len(rows)))
    return Coverage(share, interval, ball, error)
