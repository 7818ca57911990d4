"""Effective sample size and the logarithm of a mean."""

import numpy as np
import pytest

from npflows.core.statistics import effective_sample_size, log_mean_exp


def test_the_effective_sample_size_counts_equal_weights_and_is_the_same_from_logarithms():
    assert effective_sample_size(np.array([3.0, 3.0, 0.0, 3.0])) == pytest.approx(3)
    weights = np.random.default_rng(0).random(50)
    assert effective_sample_size(np.log(weights) + 900, log=True) == pytest.approx(effective_sample_size(weights))


@pytest.mark.parametrize(("weights", "log"), [(np.zeros(3), False), (np.full(3, -np.inf), True), (np.zeros(0), True)])
def test_weights_of_zero_are_worth_nothing(weights, log):
    assert effective_sample_size(weights, log=log) == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_infinite_log_weight_has_no_effective_sample_size(bad):
    assert np.isnan(effective_sample_size(np.array([0.0, bad]), log=True))


def test_the_logarithm_of_a_mean_does_not_overflow():
    values = np.array([[1000.0, -np.inf, np.nan, -2000.0], [1000.0, -np.inf, 0.0, -np.inf]])
    np.testing.assert_allclose(log_mean_exp(values), [1000.0, -np.inf, np.nan, -2000.0 - np.log(2)])
