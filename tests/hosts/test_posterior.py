"""Prior transforms, log-likelihoods and posteriors for samplers, against the public methods of the flow."""

import pickle

import numpy as np
import pytest
from helpers import fitted

import npflows
from npflows.hosts import LogLikelihood, LogPosterior, PriorTransform
from npflows.support import integer, interval, ordered, periodic, positive, real

RNG = np.random.default_rng(0)
SUPPORTS = {
    "the line": [real(), real()],
    "half-line and interval": [positive(), interval(-1, 2)],
    "circle": [real(), periodic(0, 6)],
    "in order": [ordered(), ordered()],
}
VALUES = {
    "the line": RNG.standard_normal((200, 2)),
    "half-line and interval": np.stack([RNG.gamma(2, 1, 200), RNG.uniform(-0.9, 1.9, 200)], axis=1),
    "circle": np.stack([RNG.standard_normal(200), RNG.uniform(0.1, 5.9, 200)], axis=1),
    "in order": np.sort(RNG.standard_normal((200, 2)), axis=1),
}


def prior(name="the line", **options):
    support = None if name == "the line" else SUPPORTS[name]
    if name == "circle":
        flow = npflows.NeuralSplineFlow(2, num_layers=2, hidden_dims=(8,), support=support, rng=0, **options)
    else:
        flow = npflows.MAF(2, num_layers=2, hidden_dims=(8,), support=support, rng=0, **options)
    return fitted(flow, VALUES[name])


def bowl(x):
    """A log-likelihood of one point or many."""
    return -(x**2).sum(axis=-1)


@pytest.fixture(scope="module")
def flow():
    return prior()


@pytest.mark.parametrize("name", SUPPORTS)
def test_the_transform_is_the_flows_quantile_map_of_one_point_and_of_many(name):
    flow = prior(name)
    transform = PriorTransform(flow)
    u = np.random.default_rng(1).uniform(size=(50, 2))
    many = transform(u)
    np.testing.assert_array_equal(many, flow.from_unit_cube(u))
    assert many.dtype == np.float64
    assert transform(u[0]).shape == (2,)
    np.testing.assert_array_equal(transform(u[0]), many[0])
    assert np.isfinite(transform([[0.0, 1.0]])).all()


def test_whole_numbers_come_as_floats():
    flow = fitted(npflows.MAF(2, num_layers=1, hidden_dims=(8,), support=[integer(0, 9), real()], rng=0),
                  np.stack([RNG.integers(0, 10, 200), RNG.standard_normal(200)], axis=1))  # fmt: skip
    x = PriorTransform(flow)(RNG.uniform(size=(20, 2)))
    assert x.dtype == np.float64
    np.testing.assert_array_equal(x[:, 0], np.round(x[:, 0]))


def test_what_has_no_quantiles_is_refused_at_once():
    with pytest.raises(TypeError, match="the prior must be a flow of npflows, got function"):
        PriorTransform(bowl)
    with pytest.raises(ValueError, match="condition"):
        PriorTransform(npflows.ConditionalRealNVP(2, 3, rng=0))


@pytest.mark.parametrize("vectorized", [False, True])
def test_likelihoods_give_one_number_or_many_and_replace_minus_infinity(vectorized):
    def cut(x):
        return np.where(x[..., 0] > 0, -np.inf, bowl(x))

    x = np.array([[1.0, 2.0], [-1.0, 2.0]])
    found = LogLikelihood(cut, vectorized=vectorized)
    np.testing.assert_array_equal(found(x), [-1e100, -5.0])
    assert found(x[1]) == -5.0
    assert isinstance(found(x[1]), float)
    assert found(x[0]) == -1e100
    np.testing.assert_array_equal(LogLikelihood(cut, vectorized=vectorized, floor=None)(x), [-np.inf, -5.0])


def test_the_users_array_is_left_as_it_is():
    kept = np.array([-np.inf, -1.0])
    LogLikelihood(lambda x: kept, vectorized=True)(np.zeros((2, 2)))
    np.testing.assert_array_equal(kept, [-np.inf, -1.0])


def test_a_flow_is_a_likelihood(flow):
    x = VALUES["the line"][:5]
    np.testing.assert_array_equal(LogLikelihood(flow)(x), flow.log_prob(x))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_number_and_too_much_are_told_of_with_the_point(value):
    with pytest.raises(ValueError, match=rf"the log-likelihood is {value} at x=\[1.0, 2.0\]: give -inf where"):
        LogLikelihood(lambda x: value)(np.array([1.0, 2.0]))


def test_likelihoods_that_do_not_fit_are_refused(flow):
    with pytest.raises(ValueError, match=r"one value for each point, got shape \(2, 2\) for 2 points"):
        LogLikelihood(lambda x: x, vectorized=True)(np.zeros((2, 2)))
    with pytest.raises(TypeError, match="log_likelihood must be a function or a flow, got float"):
        LogLikelihood(1.0)
    with pytest.raises(ValueError, match="condition belongs to a flow"):
        LogLikelihood(bowl, condition=[1.0])
    with pytest.raises(ValueError, match="floor must be a finite number or None, got -inf"):
        LogLikelihood(bowl, floor=-np.inf)


@pytest.mark.parametrize("value", [-2.5, np.array([-2.5]), np.array([[-2.5]]), np.float32(-2.5), [-2.5]])
def test_a_function_of_one_point_gives_a_number_or_an_array_of_one(value):
    assert LogLikelihood(lambda x: value)(np.zeros(2)) == -2.5


@pytest.mark.parametrize("value", [None, np.zeros(2), 1j, np.complex128(1 + 2j), "much"])
def test_what_is_no_real_number_is_told_of(value):
    with pytest.raises(ValueError, match="the log-likelihood must give one real number for each point, got "):
        LogLikelihood(lambda x: value)(np.zeros(2))


def test_many_values_are_real_numbers_too():
    with pytest.raises(TypeError, match="what the log-likelihood gives must be an array of numbers, got dtype complex128"):
        LogLikelihood(lambda x: 1j * x[:, 0], vectorized=True)(np.zeros((2, 2)))


def test_a_flow_that_does_not_fit_as_a_likelihood_is_refused_before_the_sampler_runs(flow):
    wide = npflows.MAF(3, num_layers=1, hidden_dims=(8,), rng=0)
    conditional = npflows.MAF(2, num_layers=1, hidden_dims=(8,), condition_dim=1, rng=0)
    for arguments in (npflows.hosts.emcee, npflows.hosts.dynesty, npflows.hosts.ultranest, npflows.hosts.nautilus):
        with pytest.raises(ValueError, match="the log-likelihood is a flow of 3 columns, and the prior has 2"):
            arguments(flow, wide)
        with pytest.raises(
            ValueError, match=r"needs a condition of 1 values: give npflows\.hosts\.LogLikelihood\(flow, cond"
        ):
            arguments(flow, conditional)
        arguments(flow, LogLikelihood(conditional, condition=[0.5]))
    with pytest.raises(ValueError, match="a log-likelihood needs a finite condition"):
        LogLikelihood(conditional, condition=[np.nan])
    with pytest.raises(TypeError, match="log_likelihood must be a LogLikelihood or None, got function"):
        LogPosterior(flow, bowl)


def test_a_likelihood_of_a_likelihood_has_its_own_floor(flow):
    inner = LogLikelihood(lambda x: -np.inf)
    assert inner(np.zeros(2)) == -1e100
    assert npflows.hosts.emcee(flow, inner)["log_prob_fn"](np.zeros(2)) == -np.inf


@pytest.mark.parametrize("name", SUPPORTS)
def test_the_posterior_in_free_coordinates_is_that_in_the_users_times_the_jacobian(name):
    flow = prior(name, dtype="float64")
    inside = LogPosterior(flow, LogLikelihood(bowl, vectorized=True), unconstrained=True)
    outside = LogPosterior(flow, LogLikelihood(bowl))
    t = np.random.default_rng(3).standard_normal((20, 2))
    x = inside.from_walkers(t)
    step = 1e-5
    shifts = step * np.eye(2)
    slopes = [(inside.from_walkers(t + h) - inside.from_walkers(t - h)) / (2 * step) for h in shifts]
    jacobian = np.abs(np.linalg.det(np.stack(slopes, axis=-1)))
    np.testing.assert_allclose(inside(t), outside(x) + np.log(jacobian), rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(outside(x), flow.log_prob(x) + bowl(x), rtol=1e-14)
    chain = inside.from_walkers(t.reshape(4, 5, 2))
    np.testing.assert_array_equal(chain.reshape(-1, 2), x)


def test_the_likelihood_is_not_asked_where_the_prior_is_zero():
    flow, asked = prior("half-line and interval"), []

    def likelihood(x):
        asked.append(x.copy())
        return bowl(x)

    found = LogPosterior(flow, LogLikelihood(likelihood, vectorized=True))(np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 3.0]]))
    assert np.isfinite(found[0])
    np.testing.assert_array_equal(found[1:], [-np.inf, -np.inf])
    np.testing.assert_array_equal(asked, [[[1.0, 0.0]]])


def test_far_out_the_posterior_is_minus_infinity_and_not_nan():
    found = LogPosterior(prior("half-line and interval"), unconstrained=True)(np.array([[800.0, 0.0], [-800.0, 900.0]]))
    assert not np.isnan(found).any()


def test_walkers_begin_at_samples_of_the_prior_where_the_posterior_is_above_zero():
    flow = prior("half-line and interval")
    posterior = LogPosterior(flow, LogLikelihood(lambda x: 0.0 if x[1] > 0 else -np.inf, floor=None), unconstrained=True)
    t = posterior.start(30, rng=0)
    assert t.shape == (30, 2)
    assert (posterior.from_walkers(t)[:, 1] > 0).all()
    np.testing.assert_array_equal(t, posterior.start(30, rng=0))
    nowhere = LogPosterior(flow, LogLikelihood(lambda x: -np.inf, floor=None))
    with pytest.raises(ValueError, match="only 0 of the 4 walkers found a place with a posterior density above 0"):
        nowhere.start(4, rng=0)
    for wrong in (-3, 0, "a", 2.5):
        with pytest.raises(ValueError, match="n_walkers must be a whole number of at least 1"):
            posterior.start(wrong)


def test_chains_have_the_columns_of_the_prior():
    for posterior in (LogPosterior(prior()), LogPosterior(prior("half-line and interval"), unconstrained=True)):
        with pytest.raises(ValueError, match=r"t must have the shape \(..., 2\), got \(2, 3\)"):
            posterior.from_walkers(np.zeros((2, 3)))


def test_conditions_go_with_the_prior():
    flow = npflows.ConditionalRealNVP(2, 1, num_coupling_layers=2, hidden_dims=(8,), rng=0)
    fitted(flow, VALUES["the line"], condition=RNG.standard_normal((200, 1)))
    u, x = np.full((3, 2), 0.3), VALUES["the line"][:3]
    np.testing.assert_array_equal(PriorTransform(flow, [0.7])(u), flow.from_unit_cube(u, [0.7]))
    np.testing.assert_array_equal(LogPosterior(flow, condition=[0.7])(x), flow.log_prob(x, [0.7]))
    assert LogPosterior(flow, condition=[0.7]).start(4, rng=0).shape == (4, 2)


def test_all_go_through_a_pickle(flow):
    x = VALUES["the line"][:4]
    for made in (PriorTransform(flow), LogLikelihood(bowl), LogPosterior(flow, LogLikelihood(bowl))):
        again = pickle.loads(pickle.dumps(made))
        argument = np.full((4, 2), 0.3) if isinstance(made, PriorTransform) else x
        np.testing.assert_array_equal(again(argument), made(argument))
