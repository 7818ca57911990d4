"""Base distributions are those of SciPy, alone and under a flow, and users can add their own."""

import math

import numpy as np
import pytest
import scipy.stats
from helpers import scipy_distribution
from registry import both_dtypes

import npflows
from npflows import (
    Base,
    Cauchy,
    GaussianMixture,
    Laplace,
    Logistic,
    Normal,
    NormalizingFlow,
    Permutation,
    Standardize,
    StudentT,
    Uniform,
)
from npflows.backends.cpu.compiler.jit import kernel
from npflows.base import Cylinder
from npflows.core.counters import in_pieces
from npflows.core.parameters import Parameter

BASES = {
    "normal": lambda **o: Normal(2, **o),
    "normal, loc and scale": lambda **o: Normal(3, [5.0, 0.0, -1.0], [0.5, 1.0, 4.0], **o),
    "uniform": lambda **o: Uniform(1, **o),
    "uniform, bounds": lambda **o: Uniform(2, [-1.0, 2.0], [3.0, 2.5], **o),
    "student_t": lambda **o: StudentT(2, **o),
    "student_t, heavy to light": lambda **o: StudentT(4, [0.5, 1.0, 30.0, 1e3], **o),
    "laplace": lambda **o: Laplace(2, [1.0, -3.0], [2.0, 0.5], **o),
    "cauchy": lambda **o: Cauchy(2, [1.0, 0.0], [0.5, 2.0], learnable=True, **o),
    "logistic": lambda **o: Logistic(3, 0.5, [0.5, 1.0, 4.0], **o),
}
for_every_base = pytest.mark.parametrize("make", BASES.values(), ids=BASES)
TEMPERATURES = [1.0, 0.5, 2.5]


@pytest.mark.nojit
@both_dtypes
@for_every_base
def test_log_prob_is_that_of_scipy(make, dtype):
    base = make(dtype=dtype)
    z = base.sample(50, 0).astype(dtype)
    tolerance = {"float32": 1e-5, "float64": 1e-12}[dtype]
    expected = scipy_distribution(base).logpdf(z).sum(1)
    np.testing.assert_allclose(base.log_prob(z), expected, rtol=tolerance, atol=tolerance)
    assert base.log_prob(z[0]) == base.log_prob(z)[0]


@pytest.mark.parametrize("temperature", TEMPERATURES)
@for_every_base
def test_samples_follow_the_density_at_any_temperature(make, temperature):
    base = make(dtype="float64")
    z = base.sample(2000, 1, temperature)
    cold = base.center + (z - base.center) / temperature
    assert z.shape == (2000, base.dim)
    probabilities = scipy_distribution(base).cdf(cold)
    for column in probabilities.T:
        assert scipy.stats.kstest(column, "uniform").pvalue > 1e-3
    expected = scipy_distribution(base).logpdf(cold).sum(1) - base.dim * math.log(temperature)
    np.testing.assert_allclose(base.log_prob(z, temperature), expected, rtol=1e-12)


@both_dtypes
@for_every_base
def test_density_outside_the_support_is_zero_and_of_nan_is_nan(make, dtype):
    base = make(dtype=dtype)
    z = np.repeat(base.center[None], 6, axis=0)
    z[:5, 0] = np.inf, -np.inf, 1e30, np.nan, 1e30
    z[4, -1] = np.nan
    log_prob = base.log_prob(z)
    assert (log_prob[:2] == -np.inf).all()
    assert log_prob[2] < -50
    assert np.isnan(log_prob[3:5]).all()
    assert np.isfinite(log_prob[5])


@both_dtypes
@for_every_base
def test_cumulative_and_quantiles_are_those_of_scipy(make, dtype):
    base = make(dtype=dtype)
    z, twin = base.sample(200, 0), scipy_distribution(base)
    u = base.cdf(z)
    assert u.dtype == np.float64
    np.testing.assert_allclose(u, twin.cdf(z), rtol=1e-12)
    np.testing.assert_allclose(base.ppf(u), z, rtol=1e-8, atol=1e-12)
    np.testing.assert_array_equal(base.cdf(z[0]), u[0])
    np.testing.assert_array_equal(base.ppf(u[0]), base.ppf(u)[0])
    assert base.cdf(z[:0]).shape == base.ppf(z[:0]).shape == (0, base.dim)
    ends = np.repeat([[0.0], [1.0]], base.dim, axis=1)
    low, high = (-np.inf, np.inf) if base.support is None else base.support
    np.testing.assert_array_equal(base.ppf(ends), [np.broadcast_to(low, base.dim), np.broadcast_to(high, base.dim)])
    np.testing.assert_array_equal(base.cdf(base.ppf(ends)), ends)
    assert np.isnan(base.ppf(np.full((3, base.dim), [[-0.1], [1.1], [np.nan]]))).all()
    assert np.isnan(base.cdf(np.full((1, base.dim), np.nan))).all()


TAILS = [1e-300, 1e-100, 1e-30, 1e-12, 1e-4, 0.1, 0.3, 0.49, 0.4999999, 0.5]


@pytest.mark.parametrize(
    "base",
    [
        *(base(1, dtype="float64") for base in (Normal, Laplace, Cauchy, Logistic)),
        *(StudentT(1, df, dtype="float64") for df in (0.5, 1.0, 2.5, 3.0, 30.0, 1e3, 1e6)),
    ],
    ids=repr,
)
def test_quantiles_are_accurate_in_both_tails(base):
    u = np.array(TAILS)[:, None]
    z = base.ppf(u)
    far = np.abs(z) > 1e140  # where the quantiles of heavy tails end
    assert (far <= (u < 1e-50)).all()
    np.testing.assert_allclose(base.cdf(z)[~far], u[~far], rtol=1e-11)
    assert (np.diff(z[:, 0]) >= 0).all()
    upper = 1 - u[u > 1e-10][:, None]
    np.testing.assert_allclose(base.ppf(upper), -base.ppf(1 - upper), rtol=1e-12, atol=1e-15)
    if isinstance(base, Laplace):
        return  # its density has a kink at the center; next to that of the others cdf is as straight as the density is flat
    small = np.array([[1e-9], [1e-7], [1e-5]])
    density = np.exp(base.log_prob([0.0]))
    np.testing.assert_allclose(base.cdf(-small), 0.5 - small * density, rtol=1e-15, atol=2e-16)


def test_quantiles_use_the_degrees_of_freedom_of_now():
    base = StudentT(2, 5.0, dtype="float64")
    base.params = np.log([1.0, 2.0])
    u = np.array([[0.1, 0.1], [0.75, 0.9]])
    expected = np.stack([np.tan(np.pi * (u[:, 0] - 0.5)), scipy.stats.t(2.0).ppf(u[:, 1])], axis=1)
    np.testing.assert_allclose(base.ppf(u), expected, rtol=1e-12)
    np.testing.assert_allclose(base.cdf(expected), u, rtol=1e-12)


def test_uniform_density_is_zero_outside_and_constant_inside():
    base = Uniform(2, [-1.0, 2.0], [3.0, 2.5], dtype="float64")
    z = [[-1.0, 2.0], [3.0, 2.5], [0.0, 2.2], [3.0001, 2.2], [0.0, 1.9999], [-1.0001, 2.2]]
    np.testing.assert_allclose(base.log_prob(z), [-math.log(2)] * 3 + [-np.inf] * 3)
    assert base.sample(1000, 0).min(0).tolist() >= [-1.0, 2.0]
    np.testing.assert_array_equal(base.center, [1.0, 2.25])


@for_every_base
def test_seed_decides_the_samples(make):
    base = make()
    np.testing.assert_array_equal(base.sample(5, 3), base.sample(5, np.random.default_rng(3)))
    assert not np.array_equal(base.sample(5, 3), base.sample(5, 4))
    assert base.sample(0, 3).shape == (0, base.dim)
    assert base.log_prob(np.zeros((0, base.dim))).shape == (0,)


@pytest.mark.nojit
@pytest.mark.parametrize("df", [0.2, 1.0, 4.0, 30.0, 1e3, 1e5])
def test_degrees_of_freedom_have_the_gradient_of_scipys_density(df):
    flow = NormalizingFlow([Standardize(1, dtype="float64")], StudentT(1, df, dtype="float64"), dtype="float64")
    x = np.array([[0.0], [0.5], [-2.0], [30.0]])
    step = 1e-4
    start, ends = math.log(df), []
    for log_df in (start + step, start - step):
        ends.append(-scipy.stats.t(math.exp(log_df)).logpdf(x).mean())
    # SciPy's own rounding bounds what differences of it can tell
    assert flow.nll_and_grad(x)[1] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-9)


def test_degrees_of_freedom_are_learned_only_if_asked_and_stay_in_range():
    assert StudentT(2, learnable=False).num_params == 0
    base = StudentT(2, [1.0, 30.0], dtype="float64")
    np.testing.assert_allclose(base.params, np.log([1.0, 30.0]))
    base.params = [-50.0, 50.0]
    np.testing.assert_allclose(base.degrees_of_freedom, [0.1, 1e6])
    assert np.isfinite(base.log_prob([[0.5, 0.5], [1e30, 1e30]])).all()
    flow = NormalizingFlow([Standardize(2, dtype="float64")], base, dtype="float64")
    np.testing.assert_array_equal(flow.nll_and_grad([[0.5, 3.0]])[1], [0.0, 0.0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normal(2, scale=0.0), "scale must be positive"),
        (lambda: Normal(2, scale=[1.0, -1.0]), "scale must be positive"),
        (lambda: Normal(2, loc=[1.0, 2.0, 3.0]), "loc must be a finite number or 2 of them"),
        (lambda: Normal(2, loc=np.nan), "loc must be a finite number"),
        (lambda: Uniform(2, 1.0, 1.0), "low must be below high"),
        (lambda: Uniform(2, [0.0, 3.0], 2.0), "low must be below high"),
        (lambda: StudentT(2, 0.05), "df must lie between"),
        (lambda: StudentT(2, [1.0, 1e7]), "df must lie between"),
        (lambda: Laplace(2, scale=0.0), "scale must be positive"),
        (lambda: GaussianMixture(2, 3, np.zeros((2, 2))), r"loc must be finite numbers of shape \(3, 2\)"),
        (lambda: GaussianMixture(2, 2, scale=[1.0, 2.0]), r"scale must be finite numbers of shape \(2, 2\)"),
        (lambda: GaussianMixture(2, 2, scale=-1.0), "scale and weights must be positive"),
        (lambda: GaussianMixture(2, 2, weights=[1.0, 0.0]), "scale and weights must be positive"),
        (lambda: GaussianMixture(2, 2, weights=[1.0, 2.0, 3.0]), "weights"),
        (lambda: GaussianMixture(2, 0), "n_components must be a whole number of at least 1"),
        (lambda: Normal(0), "dim must be a whole number of at least 1"),
        (lambda: Normal(2).sample(3, temperature=0.0), "temperature must be a finite number above 0"),
        (lambda: Normal(2).sample(-1), "n_samples must be a whole number of at least 0"),
        (lambda: NormalizingFlow([Permutation(3)], Normal(2)), "2 columns of float32 where the flow has 3"),
        (lambda: NormalizingFlow([Permutation(3)], Normal(3, dtype="float64")), "float64 where the flow has 3 of float32"),
        (lambda: NormalizingFlow([Permutation(3)], "gaussian"), "base_distribution must be one of 'normal'"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@kernel
def laplace_log_prob(spec, theta, z, log_prob):
    for d in range(z.shape[0]):
        for t in range(z.shape[1]):
            log_prob[t] -= abs(z[d, t]) * math.exp(theta[d]) + math.log(2.0) - theta[d]


@kernel
def laplace_log_prob_vjp(spec, theta, z, dlog_prob, dtheta):
    for d in range(z.shape[0]):
        rate = math.exp(theta[d])
        for t in range(z.shape[1]):
            if dtheta.size > 0:
                dtheta[d] += dlog_prob[t] * (1.0 - abs(z[d, t]) * rate)
            z[d, t] = -dlog_prob[t] * rate * (1.0 if z[d, t] > 0.0 else -1.0)


class OwnLaplace(Base):
    """A base of the user's own, with a learnable rate."""

    kernels = (laplace_log_prob, laplace_log_prob_vjp)

    def __init__(self, dim, *, dtype="float32"):
        super().__init__(dim, [Parameter("log_rate", np.full(dim, 0.5))], dtype=dtype)

    def draw(self, n, rng):
        return rng.laplace(scale=math.exp(-0.5), size=(n, self.dim))


@pytest.mark.nojit
def test_users_own_base_works_under_a_flow():
    flow = NormalizingFlow([Standardize(2, 1.0, 3.0, dtype="float64")], OwnLaplace(2, dtype="float64"), dtype="float64")
    x = flow.sample(200, 0)
    expected = scipy.stats.laplace(1.0, 3.0 * math.exp(-0.5)).logpdf(x).sum(1)
    np.testing.assert_allclose(flow.log_prob(x), expected, rtol=1e-12)
    np.testing.assert_allclose(flow.sample_and_log_prob(200, 0).log_prob, expected, rtol=1e-12)
    rate = math.exp(0.5)
    np.testing.assert_allclose(flow.nll_and_grad(x)[1], (np.abs((x - 1) / 3) * rate - 1).mean(0), rtol=1e-12)
    np.testing.assert_allclose(flow.log_prob_and_grad(x)[1], -rate / 3 * np.sign(x - 1), rtol=1e-12)
    assert "OwnLaplace" in repr(flow)
    for method in (flow.base.cdf, flow.base.ppf):
        with pytest.raises(
            NotImplementedError, match=r"OwnLaplace has no (cdf\(z\)|ppf\(u\)); a base distribution of your own"
        ):
            method(x)


class Crowd(OwnLaplace):
    """A base that draws each column by a generator of its own."""

    def draw(self, n, rng):
        return np.stack([one.laplace(scale=math.exp(-0.5), size=n) for one in rng.spawn(self.dim)], axis=1)


def test_users_own_base_may_spawn_generators_in_pieces_too():
    base = Crowd(2, dtype="float64")
    np.testing.assert_array_equal(base.sample(5, in_pieces(np.random.default_rng(1))), base.sample(5, 1))


WITH_TWO_KEYS = {
    "cylinder": lambda **o: Cylinder(3, [False, True, False], 2.0, **o),
    "mixture": lambda **o: GaussianMixture(3, 4, rng=1, **o),
}
with_two_keys = pytest.mark.parametrize("make", {**BASES, **WITH_TWO_KEYS}.values(), ids={**BASES, **WITH_TWO_KEYS})


@with_two_keys
def test_fewer_samples_are_the_first_of_more_and_take_as_much_from_a_generator(make):
    base, states = make(), []
    many = base.sample(10_000, 3)
    for n in (1, 2, 77, 9_999):
        rng = np.random.default_rng(3)
        np.testing.assert_array_equal(base.sample(n, rng), many[:n])
        states.append(rng.bit_generator.state)
    assert all(state == states[0] for state in states)
    generator = np.random.default_rng(3)
    generator.random(8 if isinstance(base, (Cylinder, GaussianMixture)) else 4)
    assert generator.bit_generator.state == states[0]
    assert not np.array_equal(base.sample(5, rng), many[:5]), "a Generator that went on gives the same samples"
    state = rng.bit_generator.state
    assert base.sample(0, rng).shape == (0, base.dim)
    assert rng.bit_generator.state == state, "no samples take something"


@with_two_keys
def test_samples_in_pieces_are_those_of_one_call(make):
    base = make()
    rng = np.random.default_rng(3)
    generator = in_pieces(rng)
    drawn = np.concatenate([base.sample(n, generator) for n in (1, 7, 0, 64, 129, 1000)])
    np.testing.assert_array_equal(drawn, base.sample(len(drawn), 3))
    assert in_pieces(generator) is generator
    other = np.random.default_rng(3)
    base.sample(1, other)
    assert rng.bit_generator.state == other.bit_generator.state


@with_two_keys
def test_samples_have_the_same_bits_on_any_number_of_threads(make):
    base, drawn = make(), []
    for n in (1, 2, 5):
        npflows.set_num_threads(n)
        drawn.append(base.sample(20_000, 0))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[0], drawn[2])


@pytest.mark.parametrize("generator", [np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_generators_of_every_kind_give_keys(generator):
    samples = Normal(2).sample(4000, np.random.Generator(generator(0)))
    assert scipy.stats.kstest(samples.ravel(), "norm").pvalue > 1e-3


def test_columns_of_a_cylinder_are_independent():
    base = Cylinder(4, [False, True, True, False], 1.5)
    z = base.sample(50_000, 2)
    assert scipy.stats.kstest(z[:, 1:3].ravel(), scipy.stats.uniform(-1.5, 3).cdf).pvalue > 1e-3
    assert scipy.stats.kstest(z[:, ::3].ravel(), "norm").pvalue > 1e-3
    for values in (z, abs(z)):
        assert abs(np.corrcoef(values.T)[np.triu_indices(4, 1)]).max() < 4 / math.sqrt(len(z))
