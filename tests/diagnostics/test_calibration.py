"""Simulation-based calibration and coverage around random points (TARP)."""

import numpy as np
import pytest
import scipy.stats
from diagnostic_cases import SCALE, linear, normal

from npflows import MAF
from npflows.diagnostics import (
    sbc_ranks,
    tarp_coverage,
    two_sample_test,
)
from npflows.diagnostics.common import VALUES, pieces
from npflows.diagnostics.latent import ks_uniform

# simulation-based calibration


def test_ranks_are_those_among_the_samples(conditional):
    x, c = linear(60)
    result = sbc_ranks(conditional, x, c, 19, rng=np.random.default_rng(7), bins=5)
    samples = conditional.sample_each(19, c, np.random.default_rng(7))
    np.testing.assert_array_equal(result.ranks, (samples < x[:, None]).sum(1))
    assert result.counts.sum(1).tolist() == [60, 60]
    np.testing.assert_array_equal(result.counts[0], np.histogram(result.ranks[:, 0], [0, 4, 8, 12, 16, 20])[0])
    expected = scipy.stats.chisquare(result.counts[1])
    assert result.chi_squared[1] == pytest.approx(expected.statistic)
    assert result.p_value[1] == pytest.approx(expected.pvalue)
    assert result.expected == 12
    assert result.band == tuple(scipy.stats.binom.interval(0.99, 60, 0.2))


def test_ranks_of_a_calibrated_flow_are_uniform(conditional):
    p_values = [sbc_ranks(conditional, *linear(100, seed), 31, rng=seed).p_value for seed in range(40)]
    assert ks_uniform(np.ravel(p_values))[1] > 1e-3
    result = sbc_ranks(conditional, *linear(1000), 63, rng=0)
    assert result.counts.shape == (2, 32)
    inside = (result.counts >= result.band[0]) & (result.counts <= result.band[1])
    assert inside.mean() > 0.9


@pytest.mark.parametrize("wrong", [{"noise": 1.3}, {"noise": 0.75}, {"offset": 0.3}])
def test_ranks_show_what_is_wrong(conditional, wrong):
    result = sbc_ranks(conditional, *linear(600, **wrong), 63, rng=0, bins=8)
    assert result.p_value.max() < 1e-3
    assert result.p_value_all < 1e-3
    ends, middle = result.counts[:, [0, -1]].sum(1), result.counts[:, 3:5].sum(1)
    if "noise" in wrong:
        assert (ends > middle).all() if wrong["noise"] > 1 else (ends < middle).all()
    else:
        assert (result.counts[:, -1] > 1.5 * result.counts[:, 0]).all()


def test_ties_are_broken_at_random(monkeypatch):
    flow = MAF(1, 1, (4,), dtype="float64")
    monkeypatch.setattr(flow, "sample", lambda n, rng: np.zeros((n, 1)))
    assert sbc_ranks(flow, np.zeros((2000, 1)), n_samples=15, rng=0).p_value[0] > 1e-3


def test_flow_without_condition_has_ranks_too(flow):
    assert sbc_ranks(flow, normal(400), n_samples=31, rng=0).p_value.min() > 0.01
    assert sbc_ranks(flow, normal(400, scale=1.3 * SCALE), n_samples=31, rng=0).p_value.max() < 0.01
    assert tarp_coverage(flow, normal(400), n_samples=50, rng=0).p_value > 0.01
    assert tarp_coverage(flow, normal(400, scale=1.4 * SCALE), n_samples=50, rng=0).p_value < 0.01


def test_rows_are_worked_on_in_pieces(conditional, monkeypatch):
    x, c = linear(50)
    expected = sbc_ranks(conditional, x, c, 19, rng=0).ranks
    monkeypatch.setattr("npflows.diagnostics.common.VALUES", 100)
    np.testing.assert_array_equal(sbc_ranks(conditional, x, c, 19, rng=0).ranks, expected)
    assert pieces(5, 20, 3) == [slice(i, i + 1) for i in range(5)]
    monkeypatch.undo()
    assert pieces(5, VALUES // 4, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_samples": 36}, "make no histogram"),  # 37 is prime
        ({"n_samples": 19, "bins": 3}, "bins must divide n_samples . 1 = 20, got 3"),
        ({"n_samples": 0}, "n_samples must be a whole number of at least 1"),
    ],
)
def test_histogram_that_can_not_be_is_refused(conditional, arguments, message):
    with pytest.raises(ValueError, match=message):
        sbc_ranks(conditional, *linear(50), **arguments)


# coverage around random points


def test_tarp_curve_of_a_calibrated_flow_is_the_diagonal(conditional):
    result = tarp_coverage(conditional, *linear(500), n_samples=100, rng=0, n_levels=11)
    np.testing.assert_allclose(result.level, np.linspace(0, 1, 11))
    assert result.coverage[0] == 0
    assert result.coverage[-1] == 1
    np.testing.assert_allclose(result.error[1:-1], np.sqrt(result.level * (1 - result.level) / 500)[1:-1], rtol=0.5)
    assert (np.abs(result.coverage - result.level) <= 4 * result.error).all()
    for level, covered in zip(result.level, result.coverage):
        assert covered == (result.content <= level).mean()
    p_values = [tarp_coverage(conditional, *linear(60, i), 20, i + 100, n_bootstrap=2).p_value for i in range(40)]
    assert ks_uniform(np.array(p_values))[1] > 1e-3


@pytest.mark.parametrize("wrong", [{"noise": 1.6}, {"noise": 0.6}, {"offset": 1.5}])
@pytest.mark.parametrize("references", ["condition", "uniform"])
def test_tarp_finds_what_is_wrong(conditional, wrong, references):
    x, c = linear(500, **wrong)
    assert tarp_coverage(conditional, x, c, 60, 0, references=references).p_value < 1e-3


def test_tarp_with_references_by_condition_finds_a_flow_that_ignores_its_condition():
    prior = MAF(2, 1, (4,), condition_dim=1, dtype="float64", rng=0)  # starts without looking at it
    rng = np.random.default_rng(0)
    c = rng.standard_normal((800, 1))
    x = np.concatenate([0.9 * c, -0.9 * c], axis=1) + np.sqrt(1 - 0.9**2) * rng.standard_normal((800, 2))
    x = np.concatenate([x[:, :1], rng.permutation(x[:, 1:])], axis=1)  # both columns standard normal, on their own
    assert sbc_ranks(prior, x, c, 31, rng=0).p_value.min() > 1e-3
    assert tarp_coverage(prior, x, c, 60, 0, references="uniform").p_value > 1e-3
    assert tarp_coverage(prior, x, c, 60, 0).p_value < 1e-3


def test_tarp_takes_reference_points(conditional):
    x, c = linear(100)
    far = np.full((100, 2), -1e6) * x.std(0)
    result = tarp_coverage(conditional, x, c, 30, np.random.default_rng(5), references=far)
    samples = conditional.sample_each(30, c, np.random.default_rng(5)) / x.std(0)  # far away, nearer means smaller sum
    rank = (samples.sum(2) < (x / x.std(0)).sum(1)[:, None]).sum(1)
    assert (np.abs(result.content - (rank + 0.5) / 31) <= 1.01 / 31).mean() > 0.98
    for given, message in (("nearby", "references must be 'condition', 'uniform'"), (x[:50], "100 finite points")):
        with pytest.raises(ValueError, match=message):
            tarp_coverage(conditional, x, c, references=given)


@pytest.mark.parametrize("condition_dim", [0, 1])
def test_samples_that_need_too_much_memory_are_refused_before_any_is_drawn(condition_dim):
    flow = MAF(2, 1, (4,), condition_dim=condition_dim, rng=0)
    rows, condition = np.zeros((100, 2)), np.zeros((100, 1)) if condition_dim else None
    for ask in (sbc_ranks, tarp_coverage):
        with pytest.raises(ValueError, match=r"^n_samples=999999999 of 2 columns would take 16\.0 GB .* at most 67108864$"):
            ask(flow, rows, condition, 999_999_999, 0)


def test_data_that_were_drawn_with_the_seed_of_a_test_are_tested_all_the_same():
    """Everybody takes 0: neither reference points nor samples of the flow are the numbers of the data again."""
    flow = MAF(2, num_layers=1, hidden_dims=(4,), rng=0)  # the identity
    x = np.random.default_rng(0).standard_normal((800, 2))
    assert sbc_ranks(flow, x, n_samples=31, rng=0).p_value_all > 1e-3
    assert tarp_coverage(flow, x, n_samples=31, rng=0).p_value > 1e-3
    found = two_sample_test(flow, flow.sample(800, rng=0), rng=0)
    assert 0.42 < found.accuracy < 0.58
