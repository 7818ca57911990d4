"""Flows of npflows inside nessai."""

import numpy as np
import pytest

nessai = pytest.importorskip("nessai")
pytestmark = pytest.mark.filterwarnings("ignore")

from importlib.metadata import entry_points  # noqa: E402

from nessai.flowsampler import FlowSampler  # noqa: E402
from nessai.model import Model  # noqa: E402

import npflows  # noqa: E402
from npflows.hosts.nessai import NpflowsModel, NpflowsProposal  # noqa: E402

X = np.random.default_rng(0).standard_normal((400, 2))


class Bowl(Model):
    """A Gaussian of standard deviation 1 in a box from -5 to 5: log Z = log(2 pi / 100), but for the corners."""

    names = ["a", "b"]
    bounds = {"a": [-5, 5], "b": [-5, 5]}

    def log_prior(self, x):
        return np.log(self.in_bounds(x), dtype=float) - 2 * np.log(10)

    def log_likelihood(self, x):
        return -0.5 * (x["a"] ** 2 + x["b"] ** 2)


def made(tmp_path, **options):
    model = NpflowsModel(
        {"n_inputs": 2, **options.pop("flow_config", {})}, options, str(tmp_path), np.random.default_rng(0)
    )
    model.initialise()
    return model


def test_the_entry_point_is_the_class():
    found = {point.name: point for point in entry_points(group="nessai.proposals")}
    if "npflows" not in found:
        pytest.skip("npflows is not installed, but runs from its folder")
    assert found["npflows"].load() is NpflowsProposal


def test_the_model_answers_all_that_nessai_asks(tmp_path):
    torch = pytest.importorskip("torch")
    model = made(tmp_path, max_epochs=5)
    history = model.train(X, plot=False)
    assert len(history["loss"]) == 5
    z, log_p = model.forward_and_log_prob(X)
    np.testing.assert_allclose(log_p, model.log_prob(X), atol=1e-5)
    x, log_det = model.inverse(z)
    np.testing.assert_allclose(x, X, atol=1e-4)
    again, log_q = model.sample_and_log_prob(z=z)
    np.testing.assert_array_equal(again, x)
    np.testing.assert_allclose(log_q, log_p, atol=1e-4)
    other = torch.distributions.MultivariateNormal(torch.zeros(2), 4 * torch.eye(2))
    np.testing.assert_allclose(
        model.sample_and_log_prob(z=z, alt_dist=other)[1], other.log_prob(torch.tensor(z)).numpy() - log_det, atol=1e-5
    )
    assert model.sample(5).shape == model.sample_latent_distribution(5).shape == (5, 2)
    assert model.sample_and_log_prob(3)[1].shape == (3,)
    with pytest.raises(NotImplementedError, match="no conditional flows"):
        model.log_prob(X, conditional=X)


def test_the_proposal_is_a_density_of_twice_the_volume(tmp_path):
    model = made(tmp_path, max_epochs=5)
    model.train(X, plot=False)
    axis = np.linspace(-9, 9, 361)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    density = np.exp(model.log_prob(grid)) * (axis[1] - axis[0]) ** 2
    np.testing.assert_allclose(density.sum(), 1, atol=1e-3)
    spread = np.linalg.det(np.cov(model.sample(20_000).T)) / np.linalg.det(np.cov(model._refitted.flow.sample(20_000, 0).T))
    np.testing.assert_allclose(spread, 4, rtol=0.2)  # the square of the volume
    x, log_q = model.sample_and_log_prob(50)
    np.testing.assert_allclose(log_q, model.log_prob(x), atol=1e-4)


def test_a_base_that_nessai_does_not_draw_from_is_refused(tmp_path):
    def heavy(n, rng):
        return npflows.MAF(n, base_distribution="student_t", rng=rng)

    with pytest.raises(ValueError, match="the standard normal, which must be the flow's base, got StudentT"):
        made(tmp_path, flow_config={"flow": heavy})


def test_weights_are_written_and_read(tmp_path):
    model = made(tmp_path, max_epochs=3)
    model.train(X, plot=False)
    other = made(tmp_path)
    other.reload_weights(model.weights_file)
    np.testing.assert_array_equal(other.log_prob(X), model.log_prob(X))
    model.reset_model(weights=True)
    assert not np.array_equal(other.log_prob(X), model.log_prob(X))


def test_settings_of_the_user_are_used_and_those_that_mean_nothing_here_are_refused(tmp_path):
    model = made(tmp_path, lr=1e-2, val_size=0.3, patience=7, flow_config={"flow": lambda n, rng: npflows.MAF(n, rng=rng)})
    assert model._refitted.options == {"learning_rate": 1e-2, "validation_fraction": 0.3, "patience": 7}
    assert model._refitted.flow.num_layers == 5
    with pytest.raises(ValueError, match=r"npflows takes lr, .* of training_config, got noise_scale"):
        made(tmp_path, noise_scale=0.1)
    with pytest.raises(ValueError, match="npflows takes flow of flow_config, a function that makes a flow, got n_blocks"):
        made(tmp_path, flow_config={"n_blocks": 4})


def test_a_run_finds_the_evidence_and_goes_on_in_the_middle(tmp_path):
    options = {"output": str(tmp_path), "nlive": 300, "seed": 1, "plot": False, "flow_proposal_class": NpflowsProposal,
               "signal_handling": False, "checkpoint_on_iteration": True, "checkpoint_interval": 700}  # fmt: skip
    first = FlowSampler(Bowl(), **options, max_iteration=1500, resume=False)
    first.run(plot=False, save=False)
    assert first.ns.proposal.training_count > 0
    again = FlowSampler(Bowl(), **options, resume=True)
    assert again.ns.iteration > 0
    resumed = again.ns._flow_proposal.flow
    np.testing.assert_array_equal(resumed.log_prob(X), first.ns._flow_proposal.flow.log_prob(X))
    again.run(plot=False, save=False)
    assert abs(again.log_evidence - np.log(2 * np.pi / 100)) < 5 * again.log_evidence_error
