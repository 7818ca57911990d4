"""Gradients of `fit_variational`: that of its loss, with either estimator, while tempering, and at a perfect fit."""

import copy

import numpy as np
import pytest
from targets import LOC, SHORT, Gaussian, short_run

import npflows
from npflows.backends.cpu.adam import Adam


def smooth(model, dtype="float64", dim=2, **options):
    """A flow with smooth networks that is not the identity, in units of its own."""
    flow = model(dim, 2, (8,), activation="tanh", dtype=dtype, rng=0, **options)
    rng = np.random.default_rng(1)
    flow.params = flow.params + rng.normal(0, 0.3, flow.num_params)
    flow.standardize.set(rng.normal(size=dim), [0.5, 1.5, 1.0][:dim])
    return flow


@pytest.fixture
def gradients(monkeypatch):
    """The gradient of each step, of the free parameters."""
    seen, step = [], Adam.step

    def spy(self, buffers, rate, *average):
        seen.append(buffers.sum(axis=0, dtype=np.float64)[self.free])
        return step(self, buffers, rate, *average)

    monkeypatch.setattr(Adam, "step", spy)
    return seen


def first_gradient(gradients, flow, target, n=150, **options):
    """The gradient of one step from noise that is known, and that noise."""
    gradients.clear()
    copy.deepcopy(flow).fit_variational(
        target, **{**SHORT, "max_steps": 1, "batch_size": n, "validation_size": 0, **options}
    )
    assert len(gradients) == 1
    return gradients[0], flow.base.sample(n, 2)


def differences(loss, params):
    """Central differences of a function of the parameters."""
    steps = 1e-5 * np.eye(len(params))
    return np.array([loss(params + step) - loss(params - step) for step in steps]) / 2e-5


def agrees(gradient, expected):
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    assert np.abs(expected).max() > 0.05
    assert (np.abs(expected) > 1e-4).mean() > 0.5


def reverse_kl(flow, z, log_p, *, frozen=False):
    """Mean of log q - log p over the samples that the noise makes, as a function of the parameters.

    With `frozen`, log q keeps its present parameters, so that only the samples move.
    """
    moving, present = copy.deepcopy(flow), copy.deepcopy(flow)

    def loss(params):
        moving.params = params
        x, log_det = moving.inverse(z)
        log_q = present.log_prob(x) if frozen else moving.base.log_prob(z) - log_det
        return (log_q - log_p(x)).mean()

    return loss


def on_half_lines(dtype, **options):
    columns = [npflows.support.positive(-2.0), npflows.support.interval(-3.0, 8.0)]
    return smooth(npflows.IAF, dtype, support=columns, **options)


SMOOTH = {
    "RealNVP": lambda dtype: smooth(npflows.RealNVP, dtype, 3),
    "MAF": lambda dtype, **options: smooth(npflows.MAF, dtype, **options),
    "IAF": lambda dtype: smooth(npflows.IAF, dtype),
    "NSF": lambda dtype: smooth(npflows.NeuralSplineFlow, dtype, num_bins=3, tail_bound=3.0),
    "normal of its own": lambda dtype, **options: smooth(
        npflows.MAF, dtype, base_distribution=npflows.Normal(2, 1.0, 0.5, dtype=dtype), **options
    ),
    "constant Student t": lambda dtype: smooth(
        npflows.MAF, base_distribution=npflows.StudentT(2, 6.0, learnable=False, dtype=dtype), dtype=dtype
    ),
    "half-line and interval": on_half_lines,
}
every_estimator = pytest.mark.parametrize("sticking", [False, True], ids=["plain", "sticking the landing"])


@every_estimator
@pytest.mark.parametrize("model", SMOOTH)
def test_the_gradient_of_a_step_is_the_derivative_of_its_loss(model, sticking, gradients):
    flow = SMOOTH[model]("float64")
    target = Gaussian(flow.input_dim)
    gradient, z = first_gradient(gradients, flow, target, sticking_the_landing=sticking)
    loss = reverse_kl(flow, z, lambda x: target(x)[0], frozen=sticking)
    agrees(gradient, differences(loss, flow.params))


@every_estimator
@pytest.mark.parametrize("model", ["MAF", "normal of its own", "half-line and interval"])
def test_the_gradient_while_tempering_is_that_of_the_tempered_loss_in_units_of_x(model, sticking, gradients):
    flow, target = SMOOTH[model]("float64"), Gaussian()
    start = SMOOTH[model]("float64", log_tails=None)
    start.params = 0 * flow.params  # the identity: the base in the units of x
    if model == "normal of its own":
        z = (LOC[:2] - flow.standardize.loc) / flow.standardize.scale
        expected = flow.base.log_prob(z) - np.log(flow.standardize.scale).sum()
        assert start.log_prob(LOC[:2]) == pytest.approx(expected, rel=1e-9)

    def tempered(x):
        return 0.25 * target(x)[0] + 0.75 * start.log_prob(x)

    options = {"max_steps": 4, "tempering": 1.0, "sticking_the_landing": sticking, "steps_per_round": 1}
    gradient, z = first_gradient(gradients, flow, target, callbacks=lambda flow, record: True, **options)
    agrees(gradient, differences(reverse_kl(flow, z, tempered, frozen=sticking), flow.params))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("model", SMOOTH)
def test_at_a_perfect_fit_sticking_the_landing_has_no_gradient(model, dtype, gradients):
    target, flow = SMOOTH[model]("float64"), SMOOTH[model](dtype)
    flow.params = target.params
    room = 2e-4 if dtype == "float32" else 1e-12
    sticking, _ = first_gradient(gradients, flow, target.log_prob_and_grad)
    plain, _ = first_gradient(gradients, flow, target.log_prob_and_grad, sticking_the_landing=False)
    assert np.abs(sticking).max() < room
    assert np.abs(plain).max() > 0.02


def test_at_a_gaussian_that_the_flow_is_sticking_the_landing_stays(gradients):
    flow = npflows.RealNVP(2, 2, (8,), dtype="float64", rng=0)  # starts as the identity
    loc, scale = np.array([30.0, -0.1]), np.array([4.0, 0.02])
    flow.standardize.set(loc, scale)

    def target(x):
        z = (x - loc) / scale
        return -0.5 * (z**2).sum(axis=1), -z / scale

    assert np.abs(first_gradient(gradients, flow, target)[0]).max() < 1e-12
    assert np.abs(first_gradient(gradients, flow, target, sticking_the_landing=False)[0]).max() > 0.02
    before = flow.params
    short_run(flow, target)
    np.testing.assert_allclose(flow.params, before, atol=1e-3)
    assert min(flow.history["ess"]) > 0.9999


def test_the_gradient_is_a_mean_over_the_batch(gradients):
    flow, target = SMOOTH["MAF"]("float64"), Gaussian()
    sizes = [np.linalg.norm(first_gradient(gradients, flow, target, n)[0]) for n in (200, 5000)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.9)  # a sum would be 25 times as large
