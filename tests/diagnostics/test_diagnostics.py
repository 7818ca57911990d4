"""Diagnostics pass flows that are the distribution of the data, and find each way of being another."""

import sys

import numpy as np
import pytest
import scipy.stats
from diagnostic_cases import LOC, SCALE, Logistic, linear, normal

from npflows import MAF, NeuralSplineFlow, StudentT
from npflows.diagnostics import (
    coverage,
    memorization,
    pit,
    sbc_ranks,
    tarp_coverage,
    two_sample_test,
)
from npflows.diagnostics.latent import ks_uniform
from npflows.diagnostics.memorize import _exchange
from npflows.support import integer


def test_conditional_flow_of_these_tests_is_the_distribution_it_should_be(conditional):
    x, c = linear(20)
    expected = scipy.stats.norm.logpdf(x, c * [2.0, -1.0]).sum(1)
    np.testing.assert_allclose(conditional.log_prob(x, c), expected, rtol=1e-12)


# probability integral transform


def test_pit_is_the_cumulative_probability(flow):
    x = normal(50)
    result = pit(flow, x)
    np.testing.assert_allclose(result.u, scipy.stats.norm.cdf((x - LOC) / SCALE), rtol=1e-12)
    for j in range(3):
        expected = scipy.stats.kstest(result.u[:, j], "uniform", method="exact")
        assert result.statistic[j] == pytest.approx(expected.statistic, rel=1e-12)
        assert result.p_value[j] == pytest.approx(expected.pvalue, rel=1e-9)
    assert result.p_value_all == min(1, 3 * result.p_value.min())


@pytest.mark.parametrize("base", ["uniform", "student_t"])
def test_pit_takes_the_base_as_it_is(base):
    flow = MAF(2, 1, (4,), base_distribution=base, dtype="float64")
    result = pit(flow, flow.sample(500, 1))
    assert result.p_value.min() > 0.01
    if base == "student_t":
        wrong = MAF(2, 1, (4,), base_distribution=StudentT(2, 1.0, dtype="float64"), dtype="float64")
        assert pit(wrong, flow.sample(500, 1)).p_value.max() < 1e-3


@pytest.mark.parametrize(("loc", "scale"), [([1.3, -2.0, 10.0], SCALE), (LOC, [0.5, 3.0, 0.01])])
def test_pit_finds_the_column_that_is_off(flow, loc, scale):
    right, wrong = pit(flow, normal(400)), pit(flow, normal(400, 0, loc, scale))
    assert right.p_value.min() > 0.05
    column = int(np.any(scale != SCALE))
    assert wrong.p_value[column] < 1e-4
    assert np.delete(wrong.p_value, column).min() > 0.05


def test_pit_with_weights_is_that_of_repeated_rows(flow):
    x, weights = normal(60), np.random.default_rng(1).integers(0, 4, 60)
    weighted, repeated = pit(flow, x, sample_weight=weights), pit(flow, np.repeat(x, weights, axis=0))
    np.testing.assert_allclose(weighted.statistic, repeated.statistic, rtol=1e-12)
    assert (weighted.p_value > repeated.p_value).all()  # repeated rows are no news
    np.testing.assert_array_equal(weighted.weights, weights)
    one = pit(flow, x, sample_weight=np.ones(60))
    np.testing.assert_allclose([one.statistic, one.p_value], [pit(flow, x).statistic, pit(flow, x).p_value])


def test_weights_make_one_distribution_of_another(flow):
    x = normal(4000, scale=2 * SCALE)
    ratio = np.exp((scipy.stats.norm.logpdf(x, LOC, SCALE) - scipy.stats.norm.logpdf(x, LOC, 2 * SCALE)).sum(1))
    assert pit(flow, x).p_value.max() < 1e-10
    assert pit(flow, x, sample_weight=ratio).p_value.min() > 0.01
    assert np.abs(coverage(flow, x).ball_deviation).min() > 20
    assert np.abs(coverage(flow, x, sample_weight=ratio).ball_deviation).max() < 4
    assert two_sample_test(flow, x, rng=0, classifier=Logistic()).p_value < 1e-10
    assert two_sample_test(flow, x, rng=0, classifier=Logistic(), sample_weight=ratio).p_value > 1e-3


def test_ks_test_of_the_conditional_flow_needs_the_condition(conditional):
    x, c = linear(1500)
    assert pit(conditional, x, c).p_value.min() > 0.05
    assert pit(conditional, x, np.zeros(1)).p_value.max() < 1e-4


def test_ks_distance_is_the_largest():
    assert ks_uniform(np.array([0.5]))[0] == 0.5
    assert ks_uniform(np.array([0.9, 0.95]))[0] == pytest.approx(0.9)
    assert ks_uniform(np.array([0.1, 0.2]))[0] == pytest.approx(0.8)
    assert ks_uniform(np.array([0.3, 0.9]), np.array([1.0, 0.0]))[0] == pytest.approx(0.7)


# coverage


def test_coverage_counts_rows_in_intervals_and_balls(flow):
    x, levels = normal(200), (0.1, 0.5, 0.95)
    result, z = coverage(flow, x, levels), (x - LOC) / SCALE
    for k, level in enumerate(levels):
        np.testing.assert_array_equal(result.interval[k], (np.abs(z) <= scipy.stats.norm.ppf((1 + level) / 2)).mean(0))
        assert result.ball[k] == ((z**2).sum(1) <= scipy.stats.chi2.ppf(level, 3)).mean()
        assert result.error[k] == pytest.approx(scipy.stats.binom.std(200, level) / 200)
    np.testing.assert_allclose(result.interval_deviation * result.error[:, None] + result.levels[:, None], result.interval)


@pytest.mark.parametrize("base", ["uniform", "student_t"])
def test_coverage_is_right_for_every_base(base):
    flow = MAF(2, 1, (4,), base_distribution=base, dtype="float64")
    result = coverage(flow, flow.sample(2000, 1))
    assert np.abs(result.ball_deviation).max() < 4
    assert np.abs(result.interval_deviation).max() < 4


@pytest.mark.parametrize(("factor", "sign"), [(1.2, -1), (0.8, 1)])
def test_coverage_says_whether_the_flow_is_too_wide_or_too_narrow(flow, factor, sign):
    result = coverage(flow, normal(2000, scale=factor * SCALE))
    assert (sign * result.ball_deviation > 5).all()
    assert (sign * result.interval_deviation > 3).all()
    assert np.abs(coverage(flow, normal(2000)).ball_deviation).max() < 4


@pytest.mark.parametrize("levels", [(), (0.0,), (0.5, 1.0), (np.nan,), 0.5])
def test_impossible_levels_are_refused(flow, levels):
    with pytest.raises(ValueError, match="levels must be numbers between 0 and 1"):
        coverage(flow, normal(10), levels)


# classifier two-sample test


def test_two_sample_test_can_not_tell_data_of_the_flow_itself(flow):
    pulls = []
    for seed in range(30):
        result = two_sample_test(flow, normal(150, seed), rng=seed, classifier=Logistic(), folds=3)
        pulls.append((result.accuracy - 0.5) / result.accuracy_error)
    assert abs(np.mean(pulls)) < 0.6
    assert 0.6 < np.std(pulls) < 1.4


@pytest.mark.parametrize(("loc", "scale"), [([1.3, -2.0, 10.0], SCALE), (LOC, [0.5, 3.0, 0.01])])
def test_two_sample_test_finds_what_is_off(flow, loc, scale):
    result = two_sample_test(flow, normal(600, 1, loc, scale), rng=0, classifier=Logistic())
    assert result.p_value < 1e-4
    assert result.accuracy == (((result.score > 0.5) == result.is_data).mean())
    assert result.accuracy_error == pytest.approx(0.5 / np.sqrt(1200))
    assert result.p_value == pytest.approx(scipy.stats.norm.sf((result.accuracy - 0.5) / result.accuracy_error))
    data, samples = result.score[result.is_data], result.score[~result.is_data]
    expected = scipy.stats.mannwhitneyu(data, samples).statistic / (len(data) * len(samples))
    assert result.auc == pytest.approx(expected, rel=1e-12)


def test_two_sample_test_of_a_conditional_flow(conditional):
    class Interaction(Logistic):
        def features(self, x):
            return np.concatenate([super().features(x), x[:, :2] * x[:, 2:]], axis=1)

    (x, c), (blurred, other) = linear(600), linear(600, noise=1.5)
    assert two_sample_test(conditional, x, c, rng=1, classifier=Interaction()).p_value > 0.01
    assert two_sample_test(conditional, blurred, other, rng=0, classifier=Interaction()).p_value < 1e-4
    swapped = np.random.default_rng(0).permutation(c)  # right on average
    assert two_sample_test(conditional, x, swapped, rng=0, classifier=Interaction()).p_value < 1e-4


def test_rows_of_one_condition_stay_in_one_fold(conditional):
    """Else a classifier that remembers conditions knows that what it has not seen is the other kind."""

    class Memory(Logistic):
        def fit(self, x, y, sample_weight):
            self.seen = set(x[:, 2].tolist())

        def predict_proba(self, x):
            assert not self.seen & set(x[:, 2].tolist())
            return np.full((len(x), 2), 0.5)

    result = two_sample_test(conditional, *linear(100), rng=0, classifier=Memory())
    assert (result.accuracy, result.auc) == (0.5, 0.5)
    assert result.p_value == 0.5


def test_two_sample_test_with_boosted_trees(flow):
    pytest.importorskip("sklearn")
    wrong = two_sample_test(flow, normal(300, 1, scale=SCALE * [1, 1, 3]), rng=0, folds=2)
    assert wrong.p_value < 1e-4
    assert wrong == wrong
    again = two_sample_test(flow, normal(300, 1, scale=SCALE * [1, 1, 3]), rng=0, folds=2)
    np.testing.assert_array_equal(again.score, wrong.score)
    assert two_sample_test(flow, normal(300, 1), rng=0, folds=2).p_value > 1e-3


def test_missing_scikit_learn_is_named(flow, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(ImportError, match=r"needs scikit-learn \(pip install scikit-learn\), or pass classifier="):
        two_sample_test(flow, normal(20))


def test_two_sample_test_uses_no_more_rows_than_asked_for(flow):
    result = two_sample_test(flow, normal(100), rng=0, classifier=Logistic(), max_rows=30)
    assert len(result.score) == len(result.weights) == 60
    with pytest.raises(ValueError, match="at least 10 rows, got 9"):
        two_sample_test(flow, normal(9), classifier=Logistic())


# memorization


def test_flow_that_treats_both_alike_passes(flow):
    pulls = []
    for seed in range(40):
        result = memorization(flow, normal(150, seed), normal(50, seed + 999), n_samples=500, rng=seed)
        pulls.append([(result.closer_to_train - result.expected) / result.expected_error,
                      result.difference / result.difference_error])  # fmt: skip
    assert result.expected == 0.75
    assert (np.abs(np.mean(pulls, axis=0)) < 0.6).all()
    assert ((np.std(pulls, axis=0) > 0.6) & (np.std(pulls, axis=0) < 1.4)).all()


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_samples_that_are_copies_are_found(flow, share, monkeypatch):
    train, held_out, draw = normal(1000), normal(400, 1), flow.sample

    def copies(n, rng, condition=None):
        x = draw(n, rng)
        copied = rng.random(n) < share
        x[copied] = train[rng.integers(0, len(train), copied.sum())] + 1e-3 * SCALE
        return x

    honest = memorization(flow, train, held_out, n_samples=1000, rng=0)
    assert honest.p_value > 0.01
    monkeypatch.setattr(flow, "sample", copies)
    result = memorization(flow, train, held_out, n_samples=1000, rng=0)
    assert result.p_value < 1e-4
    assert result.closer_to_train == pytest.approx(share + (1 - share) * 1000 / 1400, abs=0.06)
    assert np.median(result.distance_to_train) < np.median(honest.distance_to_train)
    assert (result.distance_to_train < result.distance_to_held_out).mean() == pytest.approx(result.closer_to_train)


def test_log_likelihoods_are_compared(flow):
    train, held_out = normal(300, scale=0.5 * SCALE), normal(200, 1)
    result = memorization(flow, train, held_out, n_samples=10, rng=0)
    a, b = flow.log_prob(train), flow.log_prob(held_out)
    expected = scipy.stats.ttest_ind(a, b, equal_var=False)
    assert result.difference / result.difference_error == pytest.approx(expected.statistic)
    assert result.difference == pytest.approx(a.mean() - b.mean())
    assert (result.log_prob_train, result.log_prob_held_out) == (pytest.approx(a.mean()), pytest.approx(b.mean()))
    assert result.difference > 5 * result.difference_error


def test_a_narrow_fit_to_few_rows_is_found():
    """A flow trained on twenty rows until it knows them."""
    rng = np.random.default_rng(0)
    train, held_out = rng.normal(size=(20, 2)), rng.normal(size=(200, 2))
    flow = MAF(2, 3, (32,), rng=0)
    flow.fit(train, validation_fraction=0, max_epochs=300, learning_rate=5e-3, rng=0)
    result = memorization(flow, train, held_out, n_samples=500, rng=0)
    assert result.difference > 3 * result.difference_error
    assert result.p_value < 0.01


def test_rows_of_density_zero_are_counted():
    flow = MAF(2, 1, (4,), base_distribution="uniform", dtype="float64")
    train, held_out = flow.sample(50, 0), flow.sample(60, 1)
    held_out[:5] += 3
    result = memorization(flow, train, held_out, n_samples=50, rng=0)
    assert (result.zero_train, result.zero_held_out) == (0, 5)
    assert result.log_prob_held_out == 0
    with pytest.raises(ValueError, match="fewer than two rows of held_out have a density above 0"):
        memorization(flow, train, held_out + 9)


def test_conditional_flow_draws_for_conditions_of_both(conditional):
    (train, c), (held_out, other) = linear(400), linear(200, 1)
    arguments = {"train_condition": c, "held_out_condition": other, "n_samples": 500, "rng": 0}
    assert memorization(conditional, train, held_out, **arguments).p_value > 0.01
    with pytest.raises(ValueError, match="needs a condition"):
        memorization(conditional, train, held_out)


def test_error_of_the_share_is_that_of_shuffled_rows():
    rng = np.random.default_rng(0)
    hits = rng.integers(0, 20, 30)
    shares = [_exchange(rng.permutation(hits), 10)[0] for _ in range(4000)]
    share, expected, error = _exchange(hits, 10)
    assert share == hits[:10].sum() / hits.sum()
    assert np.mean(shares) == pytest.approx(expected, abs=4 * error / np.sqrt(4000))
    assert np.std(shares) == pytest.approx(error, rel=0.05)


def test_constant_columns_and_equal_rows_are_no_obstacle(flow):
    train = np.repeat(normal(10), 5, axis=0)
    train[:, 1] = 3.0
    assert 0 <= memorization(flow, train, train, n_samples=50, rng=0).closer_to_train <= 1


# bad input

TESTS = {
    "pit": lambda flow, x, **o: pit(flow, x, **o),
    "coverage": lambda flow, x, **o: coverage(flow, x, **o),
    "two_sample_test": lambda flow, x, **o: two_sample_test(flow, x, classifier=Logistic(), **o),
    "sbc_ranks": lambda flow, x, **o: sbc_ranks(flow, x, **o),
    "tarp_coverage": lambda flow, x, **o: tarp_coverage(flow, x, **o),
}


@pytest.mark.parametrize("name", TESTS)
def test_bad_input_gets_a_sentence(name, flow, conditional):
    run = TESTS[name]
    spoilt = normal(50)
    spoilt[[4, 9], 1] = np.nan
    with pytest.raises(ValueError, match=r"x must be finite: 2 rows are not, the first is row 4; leave them out"):
        run(flow, spoilt)
    with pytest.raises(ValueError, match="x must have at least"):
        run(flow, normal(1))
    with pytest.raises(ValueError, match="x must have shape"):
        run(flow, np.zeros((50, 2)))
    with pytest.raises(ValueError, match="takes no condition"):
        run(flow, normal(50), condition=np.zeros((50, 1)))
    with pytest.raises(ValueError, match="needs a condition"):
        run(conditional, linear(50)[0])
    with pytest.raises(
        ValueError, match="a diagnostic needs a finite condition: column 0 of row 2 is inf; leave such rows out"
    ):
        run(conditional, linear(50)[0], condition=np.where(np.arange(50) == 2, np.inf, 1.0)[:, None])


@pytest.mark.parametrize("name", ["pit", "coverage", "two_sample_test"])
def test_bad_weights_get_a_sentence(name, flow):
    for weights, message in ((np.ones(3), "length 50"), (-np.ones(50), "negative"), (np.zeros(50), "all zero")):
        with pytest.raises(ValueError, match=message):
            TESTS[name](flow, normal(50), sample_weight=weights)


def test_whole_numbers_are_uniform_on_the_latent_side():
    x, held_out = (np.random.default_rng(seed).choice(4, (3000, 1), p=[0.4, 0.1, 0.3, 0.2]) for seed in (0, 1))
    flow = NeuralSplineFlow(1, 2, num_bins=12, support=[integer(0, 3)], rng=0)
    flow.fit(x, max_epochs=40, learning_rate=2e-2, rng=0, progress=False)
    result = pit(flow, held_out)
    assert result.p_value_all > 1e-3
    np.testing.assert_array_equal(result.u, pit(flow, held_out).u)
    np.testing.assert_allclose(coverage(flow, held_out).interval[:, 0], coverage(flow, held_out).levels, atol=0.03)
    with pytest.raises(ValueError, match="1 rows of x have no latent value, the first is row 1"):
        pit(flow, [[1.0], [1.5]])


def test_results_print_what_they_found_and_not_their_arrays(conditional):
    x, c = linear(100)
    for result, shown in (
        (pit(conditional, x, c), "PIT(statistic=array("),
        (two_sample_test(conditional, x, c, rng=0), "TwoSampleTest(accuracy=0."),
        (sbc_ranks(conditional, x, c, 15, 0), "SBC(n_samples=15, expected="),
        (tarp_coverage(conditional, x, c, 20, 0), "Tarp(statistic="),
        (memorization(conditional, x, x, train_condition=c, held_out_condition=c, rng=0), "Memorization(log_prob_train="),
    ):
        assert str(result).startswith(shown)
        assert len(str(result)) < 500
        assert "np.float64" not in str(result)


def test_a_classifier_that_is_none_is_refused():
    with pytest.raises(TypeError, match="classifier must have fit and predict_proba, as in scikit-learn, got 3"):
        two_sample_test(MAF(2, 1, (4,)), np.zeros((20, 2)), classifier=3)
