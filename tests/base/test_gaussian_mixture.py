"""The mixture of normal distributions is the sum of SciPy's, its cumulative distribution is that of each column given those
before it, and a flow learns it."""

import numpy as np
import pytest
import scipy.stats
from registry import both_dtypes

import npflows
from npflows import GaussianMixture, NormalizingFlow, Standardize

LOC = np.array([[0.0, 2.0, -1.0], [3.0, -1.0, 0.5]])
SCALE = np.array([[1.0, 0.5, 2.0], [0.3, 1.5, 1.0]])
WEIGHTS = np.array([0.3, 0.7])


def mixture(dtype="float64", **options):
    return GaussianMixture(3, 2, LOC, SCALE, 2 * WEIGHTS, dtype=dtype, **options)


def density(z):
    return sum(w * scipy.stats.norm(m, s).pdf(z).prod(axis=1) for w, m, s in zip(WEIGHTS, LOC, SCALE))


@pytest.mark.nojit
@both_dtypes
def test_density_is_the_sum_of_scipys(dtype):
    base = mixture(dtype)
    z = base.sample(50, 0).astype(dtype)
    tolerance = {"float32": 1e-5, "float64": 1e-13}[dtype]
    np.testing.assert_allclose(base.log_prob(z), np.log(density(z)), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(base.log_prob(z[:1]), base.log_prob(z)[:1], rtol=tolerance)


@both_dtypes
def test_far_out_one_component_is_left_and_nan_stays(dtype):
    base = mixture(dtype)
    far = np.array([[500.0, 0.0, 0.0], [np.inf, 0.0, 0.0], [-np.inf, 0.0, 0.0], [np.nan, 0.0, 0.0], [0.0, 0.0, np.nan]])
    found = base.log_prob(far)
    expected = scipy.stats.norm(LOC[0], SCALE[0]).logpdf(far[0]).sum() + np.log(WEIGHTS[0])
    assert found[0] == pytest.approx(expected, rel=1e-6)
    assert (found[1:3] == -np.inf).all()
    assert np.isnan(found[3:]).all()


def test_samples_follow_the_density():
    base = mixture()
    z = base.sample(20_000, 1)
    np.testing.assert_allclose(base.center, WEIGHTS @ LOC, rtol=1e-12)
    np.testing.assert_allclose(z.mean(axis=0), base.center, atol=0.05)
    second = WEIGHTS @ (SCALE**2 + LOC**2)
    np.testing.assert_allclose((z**2).mean(axis=0), second, rtol=0.05)
    for column in base.cdf(z).T:  # uniform, and independent of each other
        assert scipy.stats.kstest(column, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(base.cdf(z).T)[np.triu_indices(3, 1)]).max() < 4 / np.sqrt(len(z))


def test_the_first_column_has_the_cumulative_distribution_of_its_own():
    z = mixture().sample(200, 0)
    expected = sum(w * scipy.stats.norm(m[0], s[0]).cdf(z[:, 0]) for w, m, s in zip(WEIGHTS, LOC, SCALE))
    np.testing.assert_allclose(mixture().cdf(z)[:, 0], expected, rtol=1e-13)


def test_the_derivative_of_the_cumulative_distribution_is_the_density():
    z, step = mixture().sample(50, 3), 1e-5
    slopes = [(mixture().cdf(z + move) - mixture().cdf(z - move))[:, d] / (2 * step)
              for d, move in enumerate(step * np.eye(3))]  # fmt: skip
    np.testing.assert_allclose(np.prod(slopes, axis=0), density(z), rtol=1e-6)


def test_quantiles_are_the_inverse():
    base, z = mixture(), mixture().sample(500, 0)
    u = base.cdf(z)
    np.testing.assert_allclose(base.ppf(u), z, atol=1e-6)
    tails = np.array([1e-300, 1e-30, 1e-12, 0.1, 0.5, 0.9, 1 - 1e-12])[:, None]
    one = GaussianMixture(1, 2, [[0.0], [3.0]], [[1.0], [0.3]], dtype="float64")
    np.testing.assert_allclose(one.cdf(one.ppf(tails)), tails, rtol=1e-10)
    ends = np.repeat([[0.0], [1.0]], 3, axis=1)
    np.testing.assert_array_equal(base.ppf(ends), [[-np.inf] * 3, [np.inf] * 3])
    assert np.isnan(base.ppf(np.full((3, 3), [[-0.1], [1.1], [np.nan]]))).all()
    assert np.isnan(base.cdf(np.full((1, 3), np.nan))).all()
    np.testing.assert_array_equal(base.ppf(u[0]), base.ppf(u)[0])
    assert base.cdf(z[:0]).shape == base.ppf(z[:0]).shape == (0, 3)


def test_a_flow_goes_to_the_unit_cube_and_back():
    flow = NormalizingFlow([Standardize(3, dtype="float64")], mixture(), dtype="float64")
    x = flow.sample(40, 2)
    u = flow.to_unit_cube(x)
    assert ((u > 0) & (u < 1)).all()
    np.testing.assert_allclose(flow.from_unit_cube(u), x, atol=1e-6)


def test_one_component_is_a_normal_distribution():
    one = GaussianMixture(2, 1, [[1.0, -1.0]], 0.5, dtype="float64")
    normal = npflows.Normal(2, [1.0, -1.0], 0.5, dtype="float64")
    z = normal.sample(20, 0)
    np.testing.assert_allclose(one.log_prob(z), normal.log_prob(z), rtol=1e-13)
    np.testing.assert_allclose(one.cdf(z), normal.cdf(z), rtol=1e-12)


def test_means_are_drawn_by_the_seed_and_saved(tmp_path):
    base = GaussianMixture(2, 3, rng=5)
    np.testing.assert_array_equal(base.loc, GaussianMixture(2, 3, rng=5).loc)
    assert not np.array_equal(base.loc, GaussianMixture(2, 3, rng=6).loc)
    flow = NormalizingFlow([npflows.MAFLayer(2, (8,), rng=1)], base)
    flow.params = flow.params + 0.1
    flow.save(tmp_path / "flow.npz")
    back = npflows.load(tmp_path / "flow.npz")
    x = np.random.default_rng(0).normal(size=(9, 2))
    np.testing.assert_array_equal(back.log_prob(x), flow.log_prob(x))
    np.testing.assert_array_equal(back.sample(9, 0), flow.sample(9, 0))
    assert GaussianMixture(2, learnable=False).num_params == 0


def test_what_is_learned_are_the_components():
    x = mixture().sample(4000, 7)
    start = GaussianMixture(3, 2, [[0.5, 0.5, 0.0], [2.0, 0.0, 0.0]], dtype="float64")
    flow = NormalizingFlow([Standardize(3, dtype="float64")], start, dtype="float64")
    flow.fit(x, standardize=False, max_epochs=40, learning_rate=3e-2, rng=0, progress=False)
    learned = flow.base.named_params()
    np.testing.assert_allclose(learned["loc"], LOC, atol=0.2)
    np.testing.assert_allclose(np.exp(learned["log_scale"]), SCALE, rtol=0.15)
    weights = np.exp(learned["logits"])
    np.testing.assert_allclose(weights / weights.sum(), WEIGHTS, atol=0.05)
