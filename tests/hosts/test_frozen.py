"""Flows as frozen distributions: the cumulative distribution is the density's integral, and everything else follows it."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from helpers import fitted

import npflows
from npflows import hosts
from npflows.support import below, integer, interval, periodic, positive

RNG = np.random.default_rng(0)
COLUMNS = {
    "the line": (None, RNG.standard_normal(300), (-4, 4)),
    "half-line": ([positive()], RNG.gamma(3, 1, 300), (0.2, 8)),
    "below": ([below(2.0)], 2 - RNG.gamma(3, 1, 300), (-6, 1.8)),
    "interval": ([interval(-1, 1)], RNG.uniform(-0.9, 0.9, 300), (-0.8, 0.8)),
    "circle": ([periodic(0, 6)], RNG.vonmises(0, 2, 300) % 6, (0.5, 5.5)),
}


@pytest.fixture(scope="module", params=COLUMNS)
def case(request):
    support, x, ends = COLUMNS[request.param]
    flow = npflows.NeuralSplineFlow(1, num_layers=2, support=support, dtype="float64", rng=0)
    return hosts.frozen(fitted(flow, x[:, None]), rng=0), np.linspace(*ends, 9), x


def test_the_cumulative_distribution_is_the_integral_of_the_density(case):
    frozen, x, _ = case
    grid = np.linspace(x[0], x[-1], 20001)
    mass = scipy.integrate.cumulative_trapezoid(frozen.pdf(grid), grid, initial=0)
    np.testing.assert_allclose(frozen.cdf(grid[::2500]) - frozen.cdf(grid[0]), mass[::2500], atol=2e-6)


def test_quantiles_and_tails_belong_to_it(case):
    frozen, x, _ = case
    np.testing.assert_allclose(frozen.ppf(frozen.cdf(x)), x, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(frozen.isf(frozen.sf(x)), x, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(frozen.cdf(x) + frozen.sf(x), 1, rtol=1e-12)
    np.testing.assert_allclose(np.exp(frozen.logcdf(x)), frozen.cdf(x), rtol=1e-12)
    np.testing.assert_allclose(np.exp(frozen.logsf(x)), frozen.sf(x), rtol=1e-12)
    np.testing.assert_allclose(frozen.logpdf(x), frozen.flow.log_prob(x[:, None]), rtol=0)
    low, high = frozen.interval(0.8)
    np.testing.assert_allclose(frozen.cdf([low, high]), [0.1, 0.9], rtol=1e-9)
    np.testing.assert_allclose(frozen.cdf(frozen.median()), 0.5, rtol=1e-9)


def test_beyond_the_ends_all_is_said(case):
    frozen, _, _ = case
    low, high = frozen.support()
    np.testing.assert_array_equal(frozen.cdf([low, high, np.nan]), [0, 1, np.nan])
    np.testing.assert_array_equal(frozen.sf([low, high, np.nan]), [1, 0, np.nan])
    np.testing.assert_array_equal(frozen.ppf([0, 1, -0.1, 1.1, np.nan]), [low, high, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(frozen.isf([0, 1]), [high, low])
    assert frozen.cdf(-np.inf) == 0
    assert frozen.cdf(np.inf) == 1


def test_moments_are_those_of_the_density(case):
    frozen, _, _ = case
    x = frozen.rvs(200_000, random_state=1)
    np.testing.assert_allclose(frozen.mean(), x.mean(), atol=5 * x.std() / 447)
    np.testing.assert_allclose(frozen.std(), x.std(), rtol=0.02)
    assert frozen.var() == frozen.std() ** 2 or frozen.var() == pytest.approx(frozen.std() ** 2)
    np.testing.assert_allclose(frozen.expect(np.cos), np.cos(x).mean(), atol=0.01)
    np.testing.assert_allclose(frozen.entropy(), -frozen.logpdf(x).mean(), atol=0.02)


def test_functions_of_one_number_have_means_as_in_scipy(case):
    frozen, x, _ = case
    assert frozen.expect(lambda x: 1.0) == pytest.approx(1.0)
    assert frozen.expect(math.cos) == pytest.approx(frozen.expect(np.cos))
    assert frozen.expect(lambda v: 1.0 if v > x[4] else 0.0) == pytest.approx(frozen.sf(x[4]), abs=1e-3)
    assert frozen.expect(lambda v: v.sum()) == frozen.mean()
    for wrong in (lambda x: None, lambda x: [1.0, 2.0]):
        with pytest.raises(ValueError, match="the function must give one real number for each point"):
            frozen.expect(wrong)


def test_moments_have_the_names_of_scipy(case):
    frozen, _, _ = case
    mean, variance, skewness, kurtosis = frozen.stats("mvsk")
    assert frozen.stats() == (mean, variance)
    assert frozen.stats("m") == frozen.moment(1) == frozen.mean()
    assert variance == pytest.approx(frozen.var())
    assert frozen.moment(2) == pytest.approx(variance + mean**2, abs=1e-4)
    x = frozen.rvs(200_000, random_state=1)
    assert skewness == pytest.approx(scipy.stats.skew(x), abs=0.05)
    assert kurtosis == pytest.approx(scipy.stats.kurtosis(x), rel=0.1, abs=0.3)
    with pytest.raises(ValueError, match="moments must be some of the letters of 'mvsk', got 'x'"):
        frozen.stats("x")
    with pytest.raises(ValueError, match="order must be a whole number of at least 0"):
        frozen.moment(1.5)


def test_what_is_no_number_is_refused(case):
    frozen, _, _ = case
    for wrong in (np.array([1j]), 1j, "a"):
        for name in ("pdf", "cdf", "ppf"):
            with pytest.raises(TypeError, match="must be an array of numbers"):
                getattr(frozen, name)(wrong)
    with pytest.raises(ValueError, match=r"confidence must lie between 0 and 1, got 1\.5"):
        frozen.interval(1.5)


def test_shapes_are_those_of_scipy(case):
    frozen, _, _ = case
    normal = scipy.stats.norm()
    for name in ("pdf", "cdf", "ppf", "sf", "isf", "logpdf"):
        for argument in (0.3, [0.3], [[0.3, 0.4]]):
            assert np.shape(getattr(frozen, name)(argument)) == np.shape(getattr(normal, name)(argument)), name
    for size in (None, 1, 3, (2, 3), np.int64(3), np.array([2, 3]), ()):
        assert np.shape(frozen.rvs(size)) == (() if size is None else np.shape(normal.rvs(size)))
    np.testing.assert_array_equal(frozen.rvs(3, random_state=5), frozen.rvs(3, random_state=5))
    for wrong in (2.5, -1, (2, "a")):
        with pytest.raises(ValueError, match="size must be a whole number of at least 0"):
            frozen.rvs(wrong)


def test_scipys_older_generators_draw(case):
    frozen, _, _ = case
    old = np.random.RandomState(0)
    first, second = frozen.rvs(3, random_state=old), frozen.rvs(3, random_state=old)
    np.testing.assert_array_equal(first, frozen.rvs(3, random_state=np.random.RandomState(0)))
    assert (first != second).all()
    with pytest.raises(TypeError, match="random_state must be a non-negative int"):
        frozen.rvs(3, random_state="a")


def test_samples_pass_the_test_of_kolmogorov_and_smirnov(case):
    frozen, _, _ = case
    assert scipy.stats.kstest(frozen.rvs(2000, random_state=0), frozen.cdf).pvalue > 1e-3


def test_small_upper_tails_keep_their_digits():
    flow = npflows.NormalizingFlow([npflows.SplineLayer(1, dtype="float64")], dtype="float64")  # the standard normal
    frozen = hosts.frozen(flow)
    np.testing.assert_allclose(frozen.sf(12.0), scipy.stats.norm.sf(12.0), rtol=1e-9)
    np.testing.assert_allclose(frozen.isf(1e-40), scipy.stats.norm.isf(1e-40), rtol=1e-9)


def test_bases_with_bounds_have_ends_and_heavy_tails_no_moments():
    spline = npflows.SplineLayer(1, tail_bound=1.0)
    flow = npflows.NormalizingFlow([spline], npflows.Uniform(1, -1, 1))
    frozen = hosts.frozen(flow)
    np.testing.assert_allclose(frozen.support(), (-1, 1))
    np.testing.assert_allclose(frozen.ppf([0, 0.25, 1]), [-1, -0.5, 1])
    np.testing.assert_allclose(frozen.mean(), 0, atol=1e-6)
    np.testing.assert_allclose(frozen.var(), 1 / 3, rtol=1e-4)
    heavy = hosts.frozen(npflows.NeuralSplineFlow(1, num_layers=1, base_distribution="student_t", rng=0))
    with pytest.raises(NotImplementedError, match="means over a flow whose base is StudentT may not exist"):
        heavy.mean()
    np.testing.assert_allclose(heavy.cdf(heavy.ppf([0.1, 0.9])), [0.1, 0.9], rtol=1e-5)


def test_several_columns_are_like_scipys_multivariate_distributions():
    x = RNG.standard_normal((200, 3))
    frozen = hosts.frozen(fitted(npflows.MAF(3, num_layers=1, hidden_dims=(8,), rng=0), x), rng=0)
    normal = scipy.stats.multivariate_normal(np.zeros(3))
    for points in (x[0], x[:4], x[:6].reshape(2, 3, 3)):
        assert np.shape(frozen.logpdf(points)) == np.shape(normal.logpdf(points))
        np.testing.assert_allclose(frozen.pdf(points), np.exp(frozen.logpdf(points)))
    np.testing.assert_array_equal(frozen.logpdf(x[:4]), frozen.flow.log_prob(x[:4]))
    for size in (1, 5, (2, 3)):
        assert np.shape(frozen.rvs(size)) == np.shape(normal.rvs(size))
    assert isinstance(frozen.entropy(), float)
    frozen.flow.columns = ["a", "b", "c"]
    turned = {name: x[:4, i] for i, name in reversed(list(enumerate("abc")))}
    np.testing.assert_array_equal(frozen.logpdf(turned), frozen.logpdf(x[:4]))
    with pytest.raises(ValueError, match=r"x must have the shape \(..., 3\), got \(2,\)"):
        frozen.logpdf([0.0, 1.0])


def test_conditions_are_frozen_too():
    flow = npflows.NeuralSplineFlow(1, num_layers=1, hidden_dims=(8,), condition_dim=1, dtype="float64", rng=0)
    c = RNG.standard_normal((200, 1))
    fitted(flow, c + 0.1 * RNG.standard_normal((200, 1)), condition=c)
    frozen = hosts.frozen(flow, condition=[0.5])
    np.testing.assert_allclose(frozen.cdf(frozen.ppf([0.2, 0.7])), [0.2, 0.7], rtol=1e-9)
    np.testing.assert_array_equal(frozen.logpdf(0.4), flow.log_prob([[0.4]], [0.5])[0])
    with pytest.raises(ValueError, match="condition"):
        hosts.frozen(flow)


def test_whole_numbers_and_other_things_are_refused():
    whole = npflows.NeuralSplineFlow(1, num_layers=1, support=[integer(0, 5)], rng=0)
    with pytest.raises(ValueError, match="a column of whole numbers has no continuous distribution"):
        hosts.frozen(whole)
    with pytest.raises(TypeError, match="made of a flow of npflows, got float"):
        hosts.frozen(1.0)
