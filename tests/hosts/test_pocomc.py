"""A flow of npflows inside pocoMC, and as its prior."""

from pathlib import Path

import numpy as np
import pytest
from helpers import fitted

import npflows
from npflows import hosts
from npflows.hosts.pocomc_flow import WIDER_SHARE, defensive_draws
from npflows.support import integer, interval, ordered, positive, real

X = np.random.default_rng(0).standard_normal((500, 2)).astype(np.float32)


def valley(x):
    """Rosenbrock's, of many points."""
    return -(10 * (x[:, 0] ** 2 - x[:, 1]) ** 2 + (x[:, 0] - 1) ** 2)


def test_a_prior_has_what_pocomc_asks_for():
    gamma = np.abs(X) + 0.1
    flow = fitted(npflows.MAF(2, num_layers=1, hidden_dims=(8,), support=[positive(), interval(0, 9)], rng=0), gamma)
    prior = hosts.PocomcPrior(flow, rng=0)
    assert prior.dim == 2
    np.testing.assert_array_equal(prior.bounds, [[0, np.inf], [0, 9]])
    x = prior.rvs(5)
    assert x.shape == (5, 2)
    np.testing.assert_array_equal(prior.logpdf(x), flow.log_prob(x))
    np.testing.assert_array_equal(hosts.PocomcPrior(npflows.MAF(2, rng=0)).bounds, [[-np.inf, np.inf]] * 2)


@pytest.mark.parametrize("support", [[ordered(), ordered()], [integer(0, 3), real()]])
def test_priors_that_pocomc_would_get_a_wrong_evidence_from_are_refused(support):
    with pytest.raises(
        ValueError, match="and pocoMC knows bounds of single columns alone: use dynesty, UltraNest or nautilus"
    ):
        hosts.PocomcPrior(npflows.MAF(2, num_layers=1, support=support, rng=0))


@pytest.mark.parametrize("base", ["normal", "student_t", "uniform"])
def test_draws_for_the_evidence_have_the_density_that_is_given_with_them(base):
    flow = npflows.RealNVP(2, 2, (8,), base_distribution=base, dtype="float64", rng=0)
    flow.params = np.random.default_rng(0).normal(0, 0.3, flow.num_params)
    x, log_q = defensive_draws(flow, 200_000, np.random.default_rng(1))
    weights = np.exp(flow.log_prob(x) - log_q)
    assert weights.max() < 1 / (1 - WIDER_SHARE) + 1e-9
    assert weights.mean() == pytest.approx(1, abs=5 * weights.std() / len(x) ** 0.5 + 1e-12)
    second = (weights * x[:, 0]).mean() - flow.sample(200_000, 2)[:, 0].mean()
    assert abs(second) < 5 * x[:, 0].std() * (2 / len(x)) ** 0.5
    spread = np.abs(flow.forward(x)[0]).max() / np.abs(flow.forward(flow.sample(200_000, 3))[0]).max()
    assert (spread > 1.2) if base == "normal" else True


def test_tensors_come_and_go():
    torch = pytest.importorskip("torch")
    flow = hosts.pocomc(2, rng=0, max_epochs=5)
    x = torch.from_numpy(X)
    history = flow.fit(x, weights=torch.ones(500), epochs=5000, validation_split=0.5, laplace_scale=None)
    assert len(history["loss"]) == len(history["val_loss"]) == 5
    z, log_det = flow.forward(x)
    back, log_det_back = flow.inverse(z)
    np.testing.assert_allclose(back, x, atol=1e-4)
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-4)
    np.testing.assert_array_equal(flow.log_prob(x), flow.flow.log_prob(X))
    drawn, log_p = flow.sample(7)
    assert isinstance(drawn, torch.Tensor)
    assert (log_p >= flow.log_prob(drawn) + np.log(0.9) - 1e-4).all()
    assert flow.sample()[0].shape == (1, 2)


@pytest.mark.filterwarnings("ignore")
def test_a_run_finds_the_evidence_and_goes_on_from_a_state_file_with_the_same_bits(tmp_path):
    pocomc = pytest.importorskip("pocomc")
    stats = pytest.importorskip("scipy.stats")

    def made():
        sampler = pocomc.Sampler(pocomc.Prior([stats.norm(0, 3)] * 2), valley, n_dim=2, vectorize=True, n_effective=256,
                                 n_active=128, output_dir=tmp_path, random_state=0)  # fmt: skip
        sampler.flow = hosts.pocomc(2, rng=0, max_epochs=60)
        return sampler

    np.random.seed(0)  # noqa: NPY002 what pocoMC draws from
    sampler = made()
    sampler.run(n_total=512, progress=False, save_every=3)
    log_z, error = sampler.evidence()
    assert abs(log_z + 4.280417) < max(5 * error, 0.1)  # half of that of two pairs, by quadrature
    states = sorted(Path(tmp_path).glob("pmc_[0-9]*.state"), key=lambda path: int(path.stem.split("_")[1]))
    flows = []
    for _ in range(2):
        again = made()
        np.random.seed(1)  # noqa: NPY002
        again.run(n_total=512, progress=False, resume_state_path=states[1])
        assert abs(again.evidence()[0] + 4.280417) < max(5 * again.evidence()[1], 0.1)
        flows.append(again.flow.flow)
    np.testing.assert_array_equal(flows[0].params, flows[1].params)
    assert again.flow._refitted.n_fits > 2
