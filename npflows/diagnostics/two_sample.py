"""Can a classifier tell samples from data?"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.core.checks import SeedLike, as_int, as_weights
from npflows.diagnostics.common import effective_size, own_rng, rows_of
from npflows.distribution.cost import warn_if_drawing_is_long
from npflows.distribution.transformed import TransformedDistribution

TREES, LEAVES = 100, 15
"""Of the default classifier."""


@dataclass(frozen=True)
class TwoSampleTest:
    """Result of a classifier two-sample test.

    Attributes
    ----------
    accuracy : float
        Share of rows, data and samples, that a classifier which had not seen them told right: 1/2 if the flow is right.
    accuracy_error : float
        Its standard error if the flow is right.
    p_value : float
        Probability of at least that accuracy if the flow is right.
    auc : float
        Area under the receiver operating characteristic: 1/2 if the flow is right.
    score : ndarray (2 n,)
        The probability of being data that the classifier gave each row: first the data's, then the samples'.
    is_data : ndarray of bool (2 n,)
    weights : ndarray (2 n,)
        Those of the rows; data and samples weigh the same in all.
    """

    accuracy: float
    accuracy_error: float
    p_value: float
    auc: float
    score: NDArray[np.float64] = field(repr=False)
    is_data: NDArray[np.bool_] = field(repr=False)
    weights: NDArray[np.float64] = field(repr=False)


def two_sample_test(
    flow: TransformedDistribution,
    x: ArrayLike,
    condition: ArrayLike | None = None,
    rng: SeedLike = None,
    *,
    sample_weight: ArrayLike | None = None,
    classifier: Any = None,
    folds: int = 5,
    max_rows: int = 10_000,
) -> TwoSampleTest:
    """Classifier two-sample test of held-out rows against as many samples.

    A classifier is trained to tell the two apart and judged on rows that it has not seen: where the flow is right it can't
    do better than guess (Lopez-Paz and Oquab 2017, arXiv:1610.06545, section 3).  Every row is judged once, by
    cross-validation.  With a condition each sample is drawn for the condition of a row of data, the classifier sees
    the condition as well, and the two stay in one fold.

    Parameters
    ----------
    x : array_like (n, input_dim)
        Rows that the flow was not fitted to.
    condition : array_like, optional
        One for all rows or one for each.
    rng : int, numpy.random.Generator or None
    sample_weight : array_like (n,), optional
        Weights of the data, not negative.
    classifier : optional
        With `fit(X, y, sample_weight=)` and `predict_proba(X)`, as in scikit-learn; boosted trees by default.
    folds : int
        At least 2.
    max_rows : int
        Rows of data that are used at most.

    Raises
    ------
    ImportError
        If scikit-learn is missing and no classifier is given.
    ValueError
        If x has fewer rows than there are folds, or a row is not finite.
    """
    rng, folds, max_rows = own_rng(rng), as_int(folds, "folds", 2), as_int(max_rows, "max_rows", 2)
    rows, context = rows_of(flow, x, condition, least=2 * folds)
    weights = as_weights(sample_weight, len(rows))
    seed = int(rng.integers(2**31))
    classifier = _BoostedTrees(seed) if classifier is None else classifier
    if not (hasattr(classifier, "fit") and hasattr(classifier, "predict_proba")):
        raise TypeError(f"classifier must have fit and predict_proba, as in scikit-learn, got {classifier!r}")
    if len(rows) > max_rows:
        chosen = rng.choice(len(rows), max_rows, replace=False)
        rows = rows[chosen]
        context, weights = (None if v is None else v[chosen] for v in (context, weights))
    n = len(rows)
    if weights is None:
        weights = np.ones(n)
    elif not weights.any():
        raise ValueError("sample_weight must not be 0 for all rows that were chosen")
    warn_if_drawing_is_long(flow, n, "two_sample_test", "fewer max_rows", context)
    samples = np.reshape(flow.sample(n, rng, condition=context), rows.shape)
    features = np.concatenate([rows, samples])
    if context is not None:
        features = np.concatenate([features, np.concatenate([context, context])], axis=1)
    is_data = np.arange(2 * n) < n
    weights = np.concatenate([weights * (n / weights.sum()), np.ones(n)])
    fold = np.tile(rng.permutation(n) % folds, 2)
    score = np.empty(2 * n)
    for i in range(folds):
        train, test = fold != i, fold == i
        fresh = copy.deepcopy(classifier)
        fresh.fit(features[train], is_data[train].astype(int), sample_weight=weights[train])
        score[test] = fresh.predict_proba(features[test])[:, 1]
    right = np.where(score == 0.5, 0.5, (score > 0.5) == is_data)
    accuracy = float(np.average(right, weights=weights))
    error = 0.5 / math.sqrt(effective_size(weights, 2 * n))
    p_value = 0.5 * math.erfc((accuracy - 0.5) / (error * math.sqrt(2)))
    return TwoSampleTest(accuracy, error, p_value, _auc(score, is_data, weights), score, is_data, weights)


class _BoostedTrees:
    """Scikit-learn's boosted trees on one thread: OpenMP's threads wait for each other wherever a core is shared."""

    def __init__(self, seed: int) -> None:
        try:
            from sklearn.ensemble import HistGradientBoostingClassifier
        except ImportError as error:
            message = "two_sample_test needs scikit-learn (pip install scikit-learn), or pass classifier="
            raise ImportError(message) from error
        self.trees = HistGradientBoostingClassifier(max_iter=TREES, max_leaf_nodes=LEAVES, random_state=seed)

    def fit(self, x: np.ndarray, y: np.ndarray, sample_weight: np.ndarray) -> None:
        from threadpoolctl import threadpool_limits  # comes with scikit-learn

        with threadpool_limits(1, user_api="openmp"):
            self.trees.fit(x, y, sample_weight)

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, user_api="openmp"):
            return self.trees.predict_proba(x)


def _auc(score: np.ndarray, is_data: np.ndarray, weights: np.ndarray) -> float:
    """Probability that a row of data has a higher score than a sample, ties by halves."""
    values, place = np.unique(score, return_inverse=True)
    data = np.bincount(place[is_data], weights[is_data], len(values))
    samples = np.bincount(place[~is_data], weights[~is_data], len(values))
    below = np.cumsum(samples) - 0.5 * samples
    return float((data * below).sum() / (data.sum() * samples.sum()))
