"""The reference networks, scalar maps and base distributions by themselves."""

import math

import numpy as np
import pytest
import scipy.signal
import scipy.special
import scipy.stats

from npflows.backends.cpu.kernels.dropout import dropout
from npflows.backends.reference import bases
from npflows.backends.reference.activations import ACTIVATIONS
from npflows.backends.reference.common import Given, packed
from npflows.backends.reference.convnet import convolve, convolve_input_vjp, convolve_weight_vjp
from npflows.backends.reference.dropout import dropout_factors
from npflows.backends.reference.networks import network, network_vjp
from npflows.backends.reference.scalar_maps import LIMIT, scalar_map, scalar_map_vjp
from npflows.backends.reference.spline import constrain, evaluate
from npflows.core.operations import (
    Affine,
    Cauchy,
    Cylinder,
    Laplace,
    Logistic,
    Made,
    Mlp,
    Normal,
    Spline,
    StudentT,
    Uniform,
)

ALONE = Given(np.zeros((1, 0)))
SPLINE = Spline(5, 3.0, 1e-3, 1e-3, 1e-3)
BASES = {
    "normal": (Normal(2), [0.5, -1.0, 2.0, 0.3], scipy.stats.norm([0.5, -1.0], [2.0, 0.3])),
    "normal, learned": (Normal(2, True), [0.5, -1.0, 0.7, -1.2], scipy.stats.norm([0.5, -1.0], np.exp([0.7, -1.2]))),
    "Student's t": (StudentT(2), np.log([3.0, 0.7]), scipy.stats.t([3.0, 0.7])),
    "Student's t, nearly normal": (StudentT(2), np.log([2e3, 40.0]), scipy.stats.t([2e3, 40.0])),
    "Laplace": (Laplace(2), [0.5, -1.0, 0.7, -1.2], scipy.stats.laplace([0.5, -1.0], np.exp([0.7, -1.2]))),
    "Cauchy": (Cauchy(2), [0.5, -1.0, 0.7, -1.2], scipy.stats.cauchy([0.5, -1.0], np.exp([0.7, -1.2]))),
    "logistic": (Logistic(2), [0.5, -1.0, 0.7, -1.2], scipy.stats.logistic([0.5, -1.0], np.exp([0.7, -1.2]))),
    "uniform": (Uniform(2), [-4.0, -5.0, 4.5, 6.0], scipy.stats.uniform([-4.0, -5.0], [8.5, 11.0])),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivative_of_an_activation(name):
    function, derivative = ACTIVATIONS[name]
    u = np.linspace(-4, 4, 40)  # without the kink at 0
    np.testing.assert_allclose((function(u + 1e-6) - function(u - 1e-6)) / 2e-6, derivative(u), atol=1e-9)
    with np.errstate(invalid="ignore"):
        assert np.isnan(function(np.array([np.nan]))).all()
    assert np.isfinite(derivative(np.array([-800.0, 800.0]))).all()


def test_a_dense_network_by_hand():
    operation = Mlp((1,), "relu", condition_dim=1, n_in=2, n_out=1)
    params = {
        "weight_0": [[1.0, -2.0]],
        "bias_0": [0.5],
        "condition_weight": [[3.0]],
        "weight_1": [[2.0]],
        "bias_1": [-1.0],
    }
    theta = packed(operation.shapes, {name: np.array(value) for name, value in params.items()})
    given = Given(np.array([[1.0], [-9.0]]))
    out = network(operation, theta, np.array([[1.0, 0.25], [1.0, 0.25]]), given)
    np.testing.assert_allclose(out, [[2 * (1.0 - 0.5 + 0.5 + 3.0) - 1], [-1.0]])


def test_a_masked_network_sees_the_features_before_alone_whatever_the_weights():
    operation = Made.of(4, 2, (9, 8), (1, 2, 1, 1), activation="tanh")
    theta = np.random.default_rng(0).normal(size=operation.size)
    x = np.random.default_rng(1).normal(size=(1, 5))
    feature = np.repeat(np.arange(4), operation.feature_rows)
    for row in range(8):
        dout = np.eye(8)[row : row + 1]
        gradients = network_vjp(operation, theta, x, dout, ALONE)
        np.testing.assert_array_equal(gradients.x[0] != 0, feature < row // 2)
        weight = operation.views(gradients.theta)["weight_0"]
        assert not weight[~operation.mask(0)].any()


@pytest.mark.parametrize("size", [1, 3])
def test_convolution_is_that_of_scipy_and_its_gradients_are_its_transposes(size):
    rng = np.random.default_rng(0)
    x, weight, dy = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, size, size, 3)), rng.normal(size=(2, 2, 4, 5))
    expected = [[sum(scipy.signal.correlate2d(image[i], kernel[..., i], "same") for i in range(3)) for kernel in weight]
                for image in x]  # fmt: skip
    np.testing.assert_allclose(convolve(x, weight), expected, atol=1e-13)
    scalar = (dy * expected).sum()  # the convolution is linear in both
    assert (convolve_input_vjp(weight, dy) * x).sum() == pytest.approx(scalar)
    assert (convolve_weight_vjp(x, size, dy) * weight).sum() == pytest.approx(scalar)
    assert convolve_input_vjp(weight, dy).shape == x.shape
    assert convolve_weight_vjp(x, size, dy).shape == weight.shape


@pytest.mark.parametrize("key", [1, 5 * 1024 + 3, (1 << 40) + 77])
def test_random_masks_have_the_bits_of_the_compiled_ones(key):
    h = np.ones((30, 40))
    dropout(round(0.3 * 2**32), key, 1000, 2, 0, h)
    factors = dropout_factors(0.3, 40, 30, 2, Given(np.zeros((40, 0)), key, 1000))
    np.testing.assert_array_equal(factors, h.T)
    assert 0.2 < (factors == 0).mean() < 0.4


def test_there_is_no_mask_outside_training():
    assert (dropout_factors(0.3, 40, 30, 2, Given(np.zeros((40, 0)))) == 1).all()
    assert (dropout_factors(0.0, 40, 30, 2, Given(np.zeros((40, 0)), 5)) == 1).all()


def test_a_log_scale_out_of_range_is_clamped_and_has_no_gradient():
    x, raw = np.array([[1.0, -2.0, 0.5]]), np.array([[[0.0, 1e4], [3.0, -1e4], [0.0, 1.0]]])
    y, log_slope = scalar_map(Affine("none"), np.zeros(0), x, raw)
    np.testing.assert_allclose(log_slope, [[LIMIT, -LIMIT, 1.0]])
    np.testing.assert_allclose(y, [[math.exp(LIMIT), 3.0, 0.5 * math.e]])
    gradients = scalar_map_vjp(Affine("none"), np.zeros(0), x, raw, np.ones((1, 3)), np.ones((1, 3)))
    np.testing.assert_allclose(gradients.raw[0, :, 1], [0.0, 0.0, 0.5 * math.e + 1.0])


@pytest.mark.parametrize("inverse", [False, True])
def test_a_spline_is_the_identity_outside_and_nan_stays(inverse):
    x = np.array([[-3.5, 3.0 + 1e-9, np.inf, -np.inf, np.nan]])
    raw = np.random.default_rng(0).normal(size=(1, 5, SPLINE.multiplier))
    with np.errstate(invalid="ignore"):
        y, log_slope = scalar_map(SPLINE, np.zeros(0), x, raw, inverse=inverse)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(log_slope, [[0, 0, 0, 0, np.nan]])


def test_the_ends_of_a_spline_stay_where_they_are():
    ends = np.array([[-3.0, 3.0]])
    raw = np.random.default_rng(0).normal(size=(1, 2, SPLINE.multiplier))
    for inverse in (False, True):
        y, log_slope = scalar_map(SPLINE, np.zeros(0), ends, raw, inverse=inverse)
        np.testing.assert_allclose(y, ends, rtol=1e-14)
        np.testing.assert_allclose(log_slope, 0, atol=1e-12)  # slope 1 at both ends


def test_a_spline_on_a_circle_has_the_same_slope_at_both_ends():
    spline = Spline(5, 3.0, 1e-3, 1e-3, 1e-3, (True, False))
    raw = np.repeat(np.random.default_rng(0).normal(size=(1, 2, spline.multiplier)), 2, axis=0)
    ends = np.array([[-3.0, -3.0], [3.0, 3.0]])
    _, log_slope = scalar_map(spline, np.zeros(0), ends, raw)
    np.testing.assert_allclose(log_slope[0], log_slope[1], atol=1e-12)
    assert abs(log_slope[0, 0]) > 0.01
    assert log_slope[0, 1] == pytest.approx(0, abs=1e-12)


def test_zeros_give_the_identity():
    x = np.linspace(-2.9, 2.9, 30)[:, None]
    y, log_slope = scalar_map(SPLINE, np.zeros(0), x, np.zeros((30, 1, SPLINE.multiplier)))
    np.testing.assert_allclose(y, x, atol=1e-14)
    np.testing.assert_allclose(log_slope, 0, atol=1e-14)


def test_a_steep_spline_comes_back():
    rng = np.random.default_rng(0)
    x, raw = rng.uniform(-3, 3, (500, 4)), 6 * rng.normal(size=(500, 4, SPLINE.multiplier))
    constrained = constrain(SPLINE, raw)
    y, log_slope = evaluate(SPLINE, x, constrained)
    back, log_slope_back = evaluate(SPLINE, y, constrained, inverse=True)
    error = np.abs(back - x) * np.minimum(np.exp(log_slope), 1.0)  # what one ulp of y becomes
    assert error.max() < 1e-13
    steep = log_slope > -3
    np.testing.assert_allclose(log_slope_back[steep], -log_slope[steep], atol=1e-8)
    order = np.argsort(x[:, 0])
    along, _ = evaluate(SPLINE, x[order, :1], np.broadcast_to(constrained[:1, :1], (500, 1, SPLINE.multiplier)))
    assert (np.diff(along[:, 0]) > 0).all()


@pytest.mark.parametrize("name", BASES)
def test_a_base_distribution_is_that_of_scipy(name):
    operation, theta, distribution = BASES[name]
    z = np.random.default_rng(0).normal(size=(6, 2)) * 2
    np.testing.assert_allclose(
        bases.log_prob(operation, np.array(theta), z), distribution.logpdf(z).sum(axis=1), rtol=1e-10
    )


@pytest.mark.parametrize("name", BASES)
def test_gradients_of_a_base_distribution(name):
    operation, theta, _ = BASES[name]
    theta, rng = np.array(theta), np.random.default_rng(0)
    z, dlog_prob = rng.normal(size=(6, 2)), rng.normal(size=6)
    gradients = bases.log_prob_vjp(operation, theta, z, dlog_prob)
    is_learned = name not in ("normal", "uniform")
    for of, at in (("z", z), ("theta", theta)):
        direction = rng.normal(size=at.shape)
        points = [{"theta": theta, "z": z, of: at + step * direction} for step in (1e-5, -1e-5)]
        ends = [dlog_prob @ bases.log_prob(operation, **point) for point in points]
        slope = (ends[0] - ends[1]) / 2e-5
        if of == "theta" and not is_learned:
            assert not gradients.theta.any()
        else:
            assert (getattr(gradients, of) * direction).sum() == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_a_cylinder_is_normal_on_the_line_and_uniform_on_circles():
    operation, z = Cylinder((True, False)), np.array([[0.3, 1.2], [np.nan, 0.0]])
    values = bases.log_prob(operation, np.array([3.0]), z)
    np.testing.assert_allclose(values, [-math.log(6.0) + scipy.stats.norm.logpdf(1.2), np.nan])
    gradients = bases.log_prob_vjp(operation, np.array([3.0]), z, np.array([2.0, 1.0]))
    np.testing.assert_allclose(gradients.z, [[0.0, -2.4], [0.0, 0.0]])


def test_outside_a_uniform_distribution_the_density_is_zero():
    z = np.array([[0.5, 0.5], [1.5, 0.5], [1.5, np.nan]])
    values = bases.log_prob(Uniform(2), np.array([0.0, 0.0, 1.0, 2.0]), z)
    np.testing.assert_allclose(values, [-math.log(2.0), -np.inf, np.nan])


def test_degrees_of_freedom_at_a_bound_have_no_gradient():
    theta = np.log([0.05, 2e6, 3.0])
    z = np.ones((1, 3))
    gradients = bases.log_prob_vjp(StudentT(3), theta, z, np.ones(1))
    np.testing.assert_array_equal(gradients.theta != 0, [False, False, True])
    expected = scipy.stats.t([0.1, 1e6, 3.0]).logpdf(z).sum()
    assert bases.log_prob(StudentT(3), theta, z)[0] == pytest.approx(expected, rel=1e-9)


def test_digamma():
    x = np.array([0.05, 0.5, 1.0, 3.7, 12.0, 5e5])
    np.testing.assert_allclose([bases.digamma(one) for one in x], scipy.special.digamma(x), rtol=1e-12)


def test_an_unknown_part_is_refused():
    x = np.zeros((1, 1))
    calls = [
        lambda: network(object(), x[0], x, ALONE),
        lambda: network_vjp(object(), x[0], x, x, ALONE),
        lambda: scalar_map(object(), x[0], x, x[..., None]),
        lambda: scalar_map_vjp(object(), x[0], x, x[..., None], x, x),
        lambda: bases.log_prob(object(), x[0], x),
        lambda: bases.log_prob_vjp(object(), x[0], x, x[0]),
    ]
    for call in calls:
        with pytest.raises(NotImplementedError, match=r"the reference backend has no .* object"):
            call()
