"""Has the flow learned its training rows by heart?"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.core.checks import SeedLike, as_int
from npflows.core.optional import scipy
from npflows.core.underflow import ignore_underflow
from npflows.diagnostics.common import own_rng, rows_of
from npflows.distribution.cost import warn_if_drawing_is_long
from npflows.distribution.transformed import TransformedDistribution


@dataclass(frozen=True)
class Memorization:
    """How a flow treats the rows that it was fitted to, against others of the same kind.

    Attributes
    ----------
    log_prob_train, log_prob_held_out : float
        Mean log-likelihood of either, rows of density 0 left out.
    difference, difference_error : float
        Training minus held-out, and its standard error.
    zero_train, zero_held_out : int
        Rows of density 0.
    closer_to_train : float
        Share of the samples whose nearest row is one that was trained on.
    expected, expected_error : float
        The share of all rows that were, which it should be, and its standard error if which rows were trained on makes
        no difference to the samples.
    p_value : float
        Probability of at least that share if so.
    distance_to_train, distance_to_held_out : ndarray (n,)
        Of each sample to the nearest row of either, in standard deviations.
    """

    log_prob_train: float
    log_prob_held_out: float
    difference: float
    difference_error: float
    zero_train: int
    zero_held_out: int
    closer_to_train: float
    expected: float
    expected_error: float
    p_value: float
    distance_to_train: NDArray[np.float64] = field(repr=False)
    distance_to_held_out: NDArray[np.float64] = field(repr=False)


@ignore_underflow
def memorization(
    flow: TransformedDistribution,
    train: ArrayLike,
    held_out: ArrayLike,
    *,
    train_condition: ArrayLike | None = None,
    held_out_condition: ArrayLike | None = None,
    n_samples: int = 5000,
    max_rows: int = 20_000,
    rng: SeedLike = None,
) -> Memorization:
    """Compare the training rows with held-out rows, by their log-likelihood and by how near the samples come to them.

    A flow that has learned the distribution and nothing else treats both alike.  Some difference of the log-likelihoods is
    what every fit has; samples that lie nearer to training rows than chance allows are copies of them, in the manner of
    the three-sample test of Meehan et al. 2020 (arXiv:2004.05675).  The p-value is exact up to the normal approximation
    under random exchange of training and held-out rows: where many samples share their nearest row, a binomial one
    would claim too much.

    Parameters
    ----------
    train, held_out : array_like (n, input_dim), (m, input_dim)
        Of the same kind, for instance a random split; the two may differ in number.
    train_condition, held_out_condition : array_like, optional
        Where the flow has `condition_dim`.  Samples are then drawn for the conditions of rows of both.
    n_samples : int
        Samples to draw.
    max_rows : int
        Rows of either that are used at most.
    rng : int, numpy.random.Generator or None
    """
    cKDTree = scipy("spatial", "diagnostics.memorization").cKDTree
    rng, n, max_rows = own_rng(rng), as_int(n_samples, "n_samples"), as_int(max_rows, "max_rows", 2)
    parts = []
    for rows, condition, name in ((train, train_condition, "train"), (held_out, held_out_condition, "held_out")):
        rows, context = rows_of(flow, rows, condition, name, condition_name=f"{name}_condition")
        if len(rows) > max_rows:
            chosen = rng.choice(len(rows), max_rows, replace=False)
            rows, context = rows[chosen], None if context is None else context[chosen]
        parts.append((rows, context))
    (a, a_condition), (b, b_condition) = parts
    means, errors, zeros = zip(*(_likelihood(flow, rows, context, name) for (rows, context), name in
                                 zip(parts, ("train", "held_out"))))  # fmt: skip

    everything = np.concatenate([a, b])
    context = None
    if a_condition is not None and b_condition is not None:
        context = np.concatenate([a_condition, b_condition])[rng.integers(0, len(everything), n)]
    warn_if_drawing_is_long(flow, n, "memorization", "fewer n_samples", context)
    samples = np.reshape(flow.sample(n, rng, condition=context), (n, -1))
    samples = samples[np.isfinite(samples).all(axis=1)]
    scale = everything.std(axis=0)
    scale[scale == 0] = 1.0
    (to_a, nearest_a), (to_b, nearest_b) = (cKDTree(rows / scale).query(samples / scale) for rows in (a, b))
    tie = rng.random(len(samples)) < len(a) / len(everything)
    in_train = (to_a < to_b) | ((to_a == to_b) & tie)
    hits = np.bincount(np.where(in_train, nearest_a, len(a) + nearest_b), minlength=len(everything))
    share, expected, error = _exchange(hits, len(a))
    p_value = 0.5 * math.erfc((share - expected) / (error * math.sqrt(2))) if error > 0 else 1.0
    return Memorization(means[0], means[1], means[0] - means[1], math.hypot(*errors), zeros[0], zeros[1], share, expected,
                        error, p_value, to_a, to_b)  # fmt: skip


def _exchange(hits: np.ndarray, n_train: int) -> tuple[float, float, float]:
    """Share of the hits (n,) on the first n_train rows; its mean and standard deviation when the rows are shuffled."""
    n, total = len(hits), max(1, hits.sum())
    variance = n_train * (n - n_train) / (n * (n - 1)) * ((hits - hits.mean()) ** 2).sum()
    return float(hits[:n_train].sum() / total), n_train / n, float(math.sqrt(variance) / total)


def _likelihood(
    flow: TransformedDistribution, rows: np.ndarray, condition: np.ndarray | None, name: str
) -> tuple[float, float, int]:  # fmt: skip
    """Mean log-density, its standard error, and how many rows have density 0."""
    log_prob = np.asarray(flow.log_prob(rows, condition))
    zero = np.isneginf(log_prob)
    kept = log_prob[~zero]
    if len(kept) < 2:
        raise ValueError(f"fewer than two rows of {name} have a density above 0 under the flow")
    return float(kept.mean()), float(kept.std(ddof=1) / math.sqrt(len(kept))), int(zero.sum())
