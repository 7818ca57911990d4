"""Trained flows with supports come close to the truth on circles, intervals and whole numbers."""

import functools
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import fitted
from support_cases import TABLE, alone, mixed, strong

import npflows
from npflows import NeuralSplineFlow
from npflows.core import evaluation
from npflows.support import integer, interval, periodic, positive, real

# after training


def around(n, rng, center=350.0, concentration=2.0):
    """Angles in degrees, not far from the seam at 0 = 360."""
    return np.rad2deg(np.random.default_rng(rng).vonmises(np.deg2rad(center), concentration, n)) % 360


@functools.cache
def on_a_circle():
    """One angle with most of its mass around the seam, and more of it to the left."""
    return fitted(alone(periodic(0.0, 360.0), num_layers=2, num_bins=6), around(2000, 0).reshape(-1, 1),
                  max_epochs=30, learning_rate=2e-2)  # fmt: skip


@functools.cache
def on_a_strip():
    """An angle, and a share that depends on it."""
    angle = around(2000, 0)
    share = 1 / (1 + np.exp(-np.cos(np.deg2rad(angle - 30)) - 0.3 * np.random.default_rng(1).normal(size=2000)))
    flow = NeuralSplineFlow(2, 4, (16,), 6, linear="permutation", activation="silu", dtype="float64", rng=0,
                            support=[periodic(0.0, 360.0), interval(0.0, 1.0)])  # fmt: skip
    return fitted(flow, np.column_stack([angle, share]), max_epochs=20, learning_rate=1e-2)


@functools.cache
def on_whole_numbers():
    numbers = np.random.default_rng(0).choice(5, 4000, p=[0.4, 0.05, 0.3, 0.05, 0.2]).reshape(-1, 1)
    flow = fitted(alone(integer(0, 4), num_layers=2, num_bins=12), numbers, max_epochs=40, learning_rate=2e-2)
    return flow, np.bincount(numbers[:, 0]) / 4000


def test_a_fitted_density_on_a_circle_comes_close_to_the_truth():
    held_out = around(4000, 5)
    truth = scipy.stats.vonmises(2.0, loc=np.deg2rad(350.0)).logpdf(np.deg2rad(held_out)) + np.log(np.deg2rad(1.0))
    log_prob = on_a_circle().log_prob(held_out.reshape(-1, 1))
    assert truth.mean() - log_prob.mean() < 0.03
    near = (held_out > 340) | (held_out < 20)
    np.testing.assert_allclose(log_prob[near], truth[near], atol=0.2)
    samples = (on_a_circle().sample(2000, 3)[:, 0] + 180) % 360
    assert scipy.stats.ks_2samp(samples, (held_out + 180) % 360).pvalue > 1e-3


def seam(flow, others=None):
    """log-density and its slope along the angle on either side of the seam, at other values of the second column."""
    ends = []
    for angle in (0.0, np.nextafter(360.0, 0.0)):
        x = np.full((1, 1), angle) if others is None else np.column_stack([np.full(len(others), angle), others])
        log_prob, gradient = flow.log_prob_and_grad(x)
        ends.append(np.column_stack([log_prob, 360 * gradient]))
    return ends


def test_the_density_meets_at_the_seam_in_value_and_slope():
    right, left = seam(on_a_circle())
    np.testing.assert_allclose(right, left, rtol=1e-6, atol=1e-6)
    assert abs(right[0, 1]) > 0.5, "flat at the seam: the test shows nothing"
    right, left = seam(on_a_strip(), np.linspace(0.01, 0.99, 50))
    np.testing.assert_allclose(right, left, rtol=1e-6, atol=1e-6)
    assert np.ptp(right[:, 1]) > 1


@pytest.mark.parametrize("conditioner", ["coupling", "autoregressive"])
def test_a_condition_does_not_open_the_seam(conditioner):
    angle = around(500, 3).reshape(-1, 1)
    for n, x, support in ((1, angle, [periodic(0, 360)]), (2, np.hstack([angle, angle / 100]), {0: periodic(0, 360)})):
        flow = NeuralSplineFlow(n, 2, (8,), 4, conditioner=conditioner, linear="permutation", activation="tanh",
                                condition_dim=2, embedding_dims=(6, 3), support=support, dtype="float64",
                                rng=0)  # fmt: skip
        fitted(flow, x, condition=np.random.default_rng(0).normal(size=(500, 2)), learning_rate=1e-2)
        ends = [np.column_stack([np.full((3, 1), a), np.ones((3, n - 1))]) for a in (0.0, np.nextafter(360.0, 0))]
        (right, slope), (left, slope_left) = (flow.log_prob_and_grad(end, [[0.0, 1.0], [2.0, -1], [1, 1]]) for end in ends)
        np.testing.assert_allclose(right, left, rtol=1e-6)
        np.testing.assert_allclose(slope, slope_left, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("conditioner", ["coupling", "autoregressive"])
def test_a_torus_has_no_edge_in_any_direction(conditioner):
    flow = NeuralSplineFlow(3, 3, (12,), 4, conditioner=conditioner, linear="permutation", activation="silu",
                            dtype="float64", rng=0, support=[periodic(0.0, 360.0), periodic(-1, 1), real()])  # fmt: skip
    flow = strong(flow, 0.7)
    x = np.random.default_rng(0).uniform([0, -1, -1], [360, 1, 1], (40, 3))
    for d, low, high in ((0, 0.0, 360.0), (1, -1.0, 1.0)):
        ends = [np.copy(x), np.copy(x)]
        ends[0][:, d], ends[1][:, d] = low, np.nextafter(high, low)
        (right, slope), (left, slope_left) = (flow.log_prob_and_grad(end) for end in ends)
        np.testing.assert_allclose(right, left, rtol=1e-9)
        np.testing.assert_allclose(slope, slope_left, rtol=1e-6, atol=1e-9)
        assert np.ptp(slope[:, d]) > 1e-3, "flat at the seam: the test shows nothing"
    np.testing.assert_allclose(flow.log_prob(x + np.array([360, -4, 0])), flow.log_prob(x), rtol=1e-9)


def test_an_angle_may_come_in_any_turn():
    x = np.array([[10.0], [200.0], [359.0]])
    for turns in (-3, -1, 1, 100):
        np.testing.assert_allclose(on_a_circle().log_prob(x + 360 * turns), on_a_circle().log_prob(x), rtol=1e-9)
    angle = around(300, 0).reshape(-1, 1)
    wrapped, plain = (fitted(alone(periodic(0, 360)), table) for table in ((angle + 180) % 360 - 180, angle))
    np.testing.assert_allclose(wrapped.params, plain.params, rtol=1e-6, atol=1e-9)


def midpoints(low, high, n):
    return low + (high - low) * (np.arange(n) + 0.5) / n, (high - low) / n


def test_a_fitted_density_integrates_to_one_over_its_support():
    x, step = midpoints(0, 360, 4000)
    assert np.exp(on_a_circle().log_prob(x.reshape(-1, 1))).sum() * step == pytest.approx(1, abs=1e-5)
    share, width = midpoints(0, 1, 500)
    grid = np.stack(np.meshgrid(*(midpoints(0, 360, 500)[0], share), indexing="ij"), -1).reshape(-1, 2)
    assert np.exp(on_a_strip().log_prob(grid)).sum() * width * 360 / 500 == pytest.approx(1, abs=2e-3)
    half_line = fitted(alone(positive(2.0)), TABLE[:, :1])
    t, step = midpoints(-15, 15, 4000)
    mass = np.exp(half_line.log_prob((2 + np.exp(t)).reshape(-1, 1)) + t)
    assert mass.sum() * step == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("number", [0, 3, 50, 100])
def test_a_column_with_one_whole_number_has_a_mass_and_no_warning(number):
    x = np.column_stack([np.random.default_rng(0).normal(size=400), np.full(400, float(number))])
    flow = NeuralSplineFlow(2, 3, (16,), support={1: integer(0, 100)}, rng=0)
    fitted(flow, x, max_epochs=15, learning_rate=1e-2)  # warnings are errors
    without = fitted(NeuralSplineFlow(1, 3, rng=0), x[:, :1], max_epochs=15, learning_rate=1e-2)
    lost = without.log_prob(x[:, :1]).mean() - flow.log_prob(x).mean()
    assert lost < 0.4, "the number's mass is far from 1"


@pytest.mark.parametrize("numbers", [np.arange(400) % 5, np.full(400, 4)])
def test_whole_numbers_fit_into_a_base_with_bounds(numbers):
    x, base = np.column_stack([np.random.default_rng(0).normal(size=400), numbers]), npflows.Uniform(2, -3.0, 3.0)
    options = {"tail_bound": 3.0, "linear": "permutation", "base_distribution": base}
    flow = NeuralSplineFlow(2, 2, (8,), support={1: integer(0, 4)}, rng=0, **options)
    fitted(flow, x)
    assert np.isfinite(flow.log_prob(x)).all()
    assert np.isfinite(flow.history["validation_loss"]).all()


def test_the_masses_of_all_whole_numbers_add_up_to_one():
    flow, _ = on_whole_numbers()
    assert np.exp(flow.log_prob(np.arange(5.0).reshape(-1, 1), draws=1000)).sum() == pytest.approx(1, abs=5e-3)
    flow, x = strong(mixed(dtype="float64"), 0.5), np.repeat(TABLE[:1], 6, axis=0)
    x[:, 3] = np.arange(-2, 4)
    without_count = np.exp(flow.log_prob(x, draws=2000)).sum()
    cells, step = midpoints(-2, 4, 6000)
    t = flow.preprocessing.to_unconstrained(
        np.column_stack([np.repeat(TABLE[:1, :3], 6000, 0), cells, np.repeat(TABLE[:1, 4:], 6000, 0)])
    )
    result = evaluation.transport(flow.executable(), flow.state(), t.t, None, y=False, log_det=False, log_prob=True)
    on_line = result.log_prob + t.log_det
    assert without_count == pytest.approx(np.exp(on_line).sum() * step, rel=5e-3)


def test_frequencies_of_whole_numbers_are_learned():
    """Within half of what tells the rarest from the next, 0.15."""
    flow, frequencies = on_whole_numbers()
    np.testing.assert_allclose(np.exp(flow.log_prob(np.arange(5.0).reshape(-1, 1), draws=500)), frequencies, atol=0.075)
    np.testing.assert_allclose(np.bincount(flow.sample(20000, 0)[:, 0].astype(int)) / 20000, frequencies, atol=0.075)


def test_nll_of_whole_numbers_is_a_bound_from_above_and_repeatable():
    flow, _ = on_whole_numbers()
    x = np.random.default_rng(4).integers(0, 5, (3000, 1))
    nll, gradient = flow.nll_and_grad(x)
    assert nll >= -flow.log_prob(x, draws=500).mean() - 0.02
    again = flow.nll_and_grad(x)
    assert nll == again[0]
    np.testing.assert_array_equal(gradient, again[1])


def test_fitting_whole_numbers_gives_the_same_bits_on_any_number_of_threads_and_after_a_resume(tmp_path):
    flows = []
    for n in (1, 3):
        npflows.set_num_threads(n)
        flows.append(fitted(mixed(), TABLE))
    path = tmp_path / "run.npz"
    fitted(mixed(), TABLE, checkpoint=path, callbacks=lambda flow, record: record["epoch"] == 1)
    flows.append(fitted(mixed(), TABLE, checkpoint=path, resume=True))
    np.testing.assert_array_equal(flows[0].params, flows[1].params)
    np.testing.assert_array_equal(flows[0].params, flows[2].params)


def gamma_and_beta(x):
    """Gamma(3, rate 2) times Beta(2, 5) without their constants, and the gradient."""
    a, b = x.T
    log_p = 2 * np.log(a) - 2 * a + np.log(b) + 4 * np.log1p(-b)
    return log_p, np.column_stack([2 / a - 2, 1 / b - 4 / (1 - b)])


def test_a_known_posterior_of_bounded_parameters_is_found():
    flow = NeuralSplineFlow(2, 2, (8,), 6, support=[positive(), interval(0, 1)], activation="silu", rng=0)
    flow.fit_variational(gamma_and_beta, max_steps=500, batch_size=128, learning_rate=1e-2, rng=0, progress=False)
    weighted = flow.importance_weights(4000, rng=1)
    evidence = scipy.special.gammaln(3) - 3 * math.log(2) + scipy.special.betaln(2, 5)
    assert weighted.log_evidence == pytest.approx(evidence, abs=0.02)
    assert weighted.ess > 0.9 * 4000
    x = flow.sample(4000, 2)
    assert scipy.stats.kstest(x[:, 0], scipy.stats.gamma(3, scale=0.5).cdf).statistic < 0.04
    assert scipy.stats.kstest(x[:, 1], scipy.stats.beta(2, 5).cdf).statistic < 0.04


def test_a_known_posterior_of_an_angle_is_found():
    def target(x):
        angle = np.deg2rad(x[:, 0] - 355)
        return 3 * np.cos(angle), np.deg2rad(-3 * np.sin(angle))[:, None]

    flow = alone(periodic(0, 360), num_layers=2)
    flow.fit_variational(target, max_steps=400, batch_size=128, learning_rate=1e-2, rng=0, progress=False)
    weighted = flow.importance_weights(4000, rng=1)
    assert weighted.log_evidence == pytest.approx(math.log(360 * scipy.special.i0(3)), abs=0.02)
    assert weighted.ess > 0.9 * 4000


def test_a_density_of_whole_numbers_has_no_gradient_to_be_drawn_by():
    with pytest.raises(ValueError, match="needs densities with gradients, and this flow has integer columns"):
        mixed().fit_variational(lambda x: (np.zeros(len(x)), 0 * x))
