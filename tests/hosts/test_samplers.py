"""The arguments of samplers: each is run with the real package where it is installed."""

import multiprocessing

import numpy as np
import pytest
from helpers import fitted

import npflows
from npflows.support import integer, interval, positive, real


def log_likelihood(x):
    """Centered at 1, a standard deviation of 1/2, of one point or many; 0 left of -1."""
    value = -0.5 * (((x - 1) / 0.5) ** 2).sum(axis=-1)
    return np.where(x[..., 0] < -1, -np.inf, value)


@pytest.fixture(scope="module")
def flow():
    x = np.random.default_rng(0).standard_normal((400, 2)) * [1.0, 0.7]
    return fitted(npflows.MAF(2, num_layers=2, hidden_dims=(16,), rng=0), x)


@pytest.fixture(scope="module")
def log_evidence(flow):
    """A mean of the likelihood over samples of the prior, whose error is below 0.01."""
    return np.log(np.exp(log_likelihood(flow.sample(100_000, rng=1))).mean())


@pytest.fixture(scope="module")
def bounded():
    x = np.random.default_rng(0).gamma(2, 1, (300, 2)) * [1, 0.1]
    x[:, 1] = np.clip(x[:, 1], 0.01, 0.99)
    return fitted(npflows.MAF(2, num_layers=1, hidden_dims=(8,), support=[positive(), interval(0, 1)], rng=0), x)


def test_emcee_is_told_how_to_call():
    flow = npflows.MAF(2, num_layers=1, hidden_dims=(8,), rng=0)
    assert npflows.hosts.emcee(flow, log_likelihood, vectorized=True)["vectorize"]
    assert npflows.hosts.emcee(flow)["vectorize"]
    assert npflows.hosts.emcee(flow, flow)["vectorize"]
    assert not npflows.hosts.emcee(flow, log_likelihood)["vectorize"]


@pytest.mark.parametrize("sampler", ["emcee", "dynesty", "ultranest", "nautilus"])
def test_what_is_no_flow_is_refused_in_a_sentence(sampler):
    arguments, flow = getattr(npflows.hosts, sampler), npflows.MAF(2, num_layers=1, hidden_dims=(8,), rng=0)
    density, ensemble = npflows.embed(flow), npflows.Ensemble([flow])
    for wrong, name in (
        (3, "int"),
        (density, "Density"),
        (ensemble, "Ensemble, which can't be one: give one of its members"),
    ):
        with pytest.raises(TypeError, match=f"the prior must be a flow of npflows, got {name}"):
            arguments(wrong, log_likelihood)
    for wrong, name in ((density, "Density"), (ensemble, "Ensemble")):
        with pytest.raises(TypeError, match=f"must be a function or a flow, got {name}: give its method log_prob"):
            arguments(flow, wrong)
        arguments(flow, wrong.log_prob)


@pytest.mark.parametrize("made", [npflows.embed, lambda flow: npflows.Ensemble([flow])], ids=["density", "ensemble"])
def test_the_method_log_prob_of_what_is_no_flow_is_a_likelihood(flow, made):
    x = np.array([0.3, -0.2])
    found = npflows.hosts.dynesty(flow, made(flow).log_prob)["loglikelihood"](x)
    np.testing.assert_allclose(found, flow.log_prob(x), rtol=1e-12)


def test_emcee_is_not_sent_into_bounds_without_a_word(bounded):
    message = r"pass unconstrained=True .* \(0 by log\(x\), 1 by log\(\(x - 0\) / \(1 - x\)\)\), or unconstrained=False"
    with pytest.raises(ValueError, match=message):
        npflows.hosts.emcee(bounded, log_likelihood)
    assert npflows.hosts.emcee(bounded, unconstrained=False)["log_prob_fn"](np.array([-1.0, 0.5])) == -np.inf
    with pytest.raises(TypeError, match="unconstrained must be True or False, got 'no'"):
        npflows.hosts.emcee(bounded, unconstrained="no")
    whole = npflows.MAF(2, num_layers=1, hidden_dims=(8,), support=[integer(0, 3), real()], columns=["n", "y"], rng=0)
    with pytest.raises(ValueError, match="column n has whole numbers, which emcee can't walk on"):
        npflows.hosts.emcee(whole)


def test_names_of_columns_are_those_of_ultranests_parameters():
    named = npflows.MAF(2, num_layers=1, hidden_dims=(8,), columns=["a", "b"], rng=0)
    assert npflows.hosts.ultranest(named, log_likelihood)["param_names"] == ["a", "b"]
    unnamed = npflows.MAF(2, num_layers=1, hidden_dims=(8,), rng=0)
    assert npflows.hosts.ultranest(unnamed, log_likelihood)["param_names"] == ["x0", "x1"]


def test_emcee_finds_the_posterior_in_free_coordinates(bounded):
    emcee = pytest.importorskip("emcee")
    arguments = npflows.hosts.emcee(bounded, unconstrained=True)
    posterior = arguments["log_prob_fn"]
    sampler = emcee.EnsembleSampler(16, **arguments)
    sampler.random_state = np.random.RandomState(0).get_state()  # emcee's own
    sampler.run_mcmc(posterior.start(16, rng=0), 1500)
    chain = posterior.from_walkers(sampler.get_chain(discard=200, flat=True))
    expected = bounded.sample(50_000, rng=0)
    np.testing.assert_allclose(np.median(chain, axis=0), np.median(expected, axis=0), rtol=0.1)


def test_emcee_with_a_pool_calls_for_one_point_at_a_time(flow):
    emcee = pytest.importorskip("emcee")
    arguments = npflows.hosts.emcee(flow, log_likelihood)
    start = arguments["log_prob_fn"].start(8, rng=0)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        sampler = emcee.EnsembleSampler(8, **arguments, pool=pool)
        np.testing.assert_allclose(sampler.compute_log_prob(start)[0], arguments["log_prob_fn"](start), rtol=1e-12)


def test_dynesty_finds_the_evidence(flow, log_evidence):
    dynesty = pytest.importorskip("dynesty")
    arguments = npflows.hosts.dynesty(flow, log_likelihood)
    sampler = dynesty.NestedSampler(**arguments, nlive=150, rstate=np.random.default_rng(0))
    sampler.run_nested(print_progress=False)
    assert abs(sampler.results.logz[-1] - log_evidence) < 5 * sampler.results.logzerr[-1]


@pytest.mark.filterwarnings("ignore")
def test_ultranest_finds_the_evidence_though_some_likelihoods_are_zero(flow, log_evidence):
    ultranest = pytest.importorskip("ultranest")
    np.random.seed(0)  # noqa: NPY002 what UltraNest draws from
    arguments = npflows.hosts.ultranest(flow, log_likelihood, vectorized=True)
    sampler = ultranest.ReactiveNestedSampler(**arguments, num_test_samples=200)
    result = sampler.run(show_status=False, viz_callback=False, min_num_live_points=100, min_ess=100)
    assert abs(result["logz"] - log_evidence) < 5 * result["logzerr"]


@pytest.mark.filterwarnings("ignore")
def test_nautilus_finds_the_evidence(flow, log_evidence):
    nautilus = pytest.importorskip("nautilus")
    arguments = npflows.hosts.nautilus(flow, log_likelihood)
    sampler = nautilus.Sampler(**arguments, n_live=200, n_networks=0, seed=0)
    sampler.run(n_eff=1000)
    assert abs(sampler.log_z - log_evidence) < 0.15
