"""Mixtures of logistics and Bernstein polynomials: their formulas by other means, inverses to rounding, refusals."""

import numpy as np
import pytest
from registry import both_directions, both_dtypes
from scipy.interpolate import BPoly
from scipy.stats import logistic
from spline_cases import softmax

import npflows
from npflows import Autoregressive, Coupling, Elementwise, MonotoneCouplingLayer, MonotoneLayer, NormalizingFlow, networks
from npflows.transformers import Bernstein, LogisticMixture, PiecewiseSpline

BOUND = 2.0
CASES = {
    "mixture": {"num_terms": 4},
    "one logistic": {"num_terms": 1},
    "bounded polynomial": {"scalar_map": "bernstein", "num_terms": 6, "tail_bound": BOUND},
    "polynomial": {"scalar_map": "bernstein", "num_terms": 6, "tail_bound": BOUND, "bounded": False},
}
for_every_case = pytest.mark.parametrize("name", CASES)


def layer_of(name, n=1, dtype="float64", scale=1.0, seed=0):
    layer = MonotoneLayer(n, dtype=dtype, **CASES[name])
    raw = layer.parameters.views()["raw"]
    raw[...] = scale * np.random.default_rng(seed).normal(size=raw.shape)
    return layer


def test_the_mixture_is_that_of_its_formula():
    layer, k = layer_of("mixture"), 4
    shift, scale, *rest = layer.params
    weights, means, scales = np.reshape(rest, (3, k))
    means = means + np.array([-1.5, -0.5, 0.5, 1.5])
    limit = -np.log(1e-2)
    scales, scale = (np.exp(r / (1 + np.abs(r) / limit)) for r in (scales, scale))
    x = np.linspace(-6, 6, 201)
    weights = softmax(weights)
    below = sum(p * logistic.cdf(x, m, s) for p, m, s in zip(weights, means, scales))
    above = sum(p * logistic.sf(x, m, s) for p, m, s in zip(weights, means, scales))
    density = sum(p * logistic.pdf(x, m, s) for p, m, s in zip(weights, means, scales))
    y, log_det = layer.forward(x[:, None])
    np.testing.assert_allclose(y[:, 0], np.log(below / above) * scale + shift, atol=1e-12)
    np.testing.assert_allclose(log_det, np.log(density / (below * above) * scale), atol=1e-12)


def test_far_out_the_mixture_is_its_widest_logistic():
    layer = layer_of("mixture")
    for x in (1e3, -1e5, 1e8):
        y, log_det = layer.forward([[x]])
        np.testing.assert_allclose(layer.inverse(y)[0], [[x]], rtol=1e-13)
        np.testing.assert_allclose(y[0] / x, np.exp(log_det), rtol=1e-2)


def test_components_that_are_equal_to_begin_with_part():
    layer = MonotoneLayer(1, num_terms=2, dtype="float64")
    gradient = layer.forward_vjp([[0.3], [1.0]], [[1.0], [0.5]], 1.0).params
    assert abs(gradient[2] - gradient[3]) > 1e-3
    assert abs(gradient[4] - gradient[5]) > 1e-3


@pytest.mark.parametrize("name", ["bounded polynomial", "polynomial"])
def test_the_polynomial_is_that_of_its_formula(name):
    layer, n = layer_of(name), 6
    raw = layer.params
    if name == "polynomial":
        shift = np.log(np.expm1(2 * BOUND / (n + 1)))
        inner = np.logaddexp(0, raw[1:] + shift)
        increments, first = np.r_[inner[0], inner, inner[-1]], raw[0] - BOUND
    else:
        ends = np.full(2, 2 * BOUND / (n + 4))
        increments, first = np.r_[ends, (2 * BOUND - 4 * ends[0]) * softmax(raw), ends], -BOUND
    coefficients = first + np.r_[0, np.cumsum(increments)]
    expected = BPoly(coefficients[:, None], [-BOUND, BOUND])
    x = np.linspace(-BOUND, BOUND, 201)
    y, log_det = layer.forward(x[:, None])
    np.testing.assert_allclose(y[:, 0], expected(x), atol=1e-13)
    np.testing.assert_allclose(np.exp(log_det), expected.derivative()(x), rtol=1e-12)
    beyond = np.array([-50.0, -2.5, 2.0001, 3e4])[:, None]
    end = np.sign(beyond) * BOUND
    slope = expected.derivative()(end)
    np.testing.assert_allclose(layer.forward(beyond)[0], expected(end) + slope * (beyond - end), rtol=1e-12)
    if name == "bounded polynomial":
        np.testing.assert_array_equal(layer.forward(beyond)[0], beyond)
    np.testing.assert_allclose(expected.derivative(2)(end), 0, atol=1e-10)


@for_every_case
@both_dtypes
@pytest.mark.parametrize("scale", [1.0, 5.0, 20.0])
def test_inverses_are_right_to_rounding(name, dtype, scale):
    rounding = 50 * np.finfo(dtype).eps
    y = np.concatenate([np.linspace(-8, 8, 201), [-1e4, 1e4]])[:, None].astype(dtype)
    for seed in range(5):
        layer = layer_of(name, dtype=dtype, scale=scale, seed=seed)
        x, log_det = layer.inverse(y)
        assert np.isfinite(x).all()
        assert np.isfinite(log_det).all()
        assert (np.diff(x[:-2, 0]) >= 0).all()
        near = np.abs(x) * np.exp(-log_det[:, None]) + np.abs(y) + 10  # what rounding of x, and of sums within, does to y
        off = np.abs(layer.forward(x)[0] - y) / near
        slack = np.array([layer.forward(x + side * rounding * np.abs(x))[0] for side in (-1, 1)])
        between = (slack[0] - rounding * near <= y) & (y <= slack[1] + rounding * near)
        assert (between | (off < rounding)).all()


@for_every_case
@both_directions
def test_nan_stays(name, direction):
    layer = layer_of(name, 2)
    y, log_det = getattr(layer, direction)([[np.nan, 0.3], [0.1, 0.2]])
    assert np.isnan(y[0, 0])
    assert np.isnan(log_det[0])
    assert np.isfinite(y[1]).all()


@for_every_case
def test_the_density_integrates_to_one(name):
    flow = NormalizingFlow([layer_of(name)], dtype="float64")
    nodes, weights = np.polynomial.legendre.leggauss(400)
    total = 0.0
    for low, high in ((-200, -BOUND), (-BOUND, BOUND), (BOUND, 200)):
        middle, half = (low + high) / 2, (high - low) / 2
        total += half * weights @ np.exp(flow.log_prob((middle + half * nodes)[:, None]))
    assert abs(total - 1) < 1e-6


REFUSED = {
    "another map": ({"scalar_map": "sigmoid"}, "scalar_map must be one of 'logistic_mixture', 'bernstein'"),
    "no components": ({"num_terms": 0}, "num_terms"),
    "one coefficient": ({"scalar_map": "bernstein", "num_terms": 1}, "num_terms"),
    "no bound": ({"tail_bound": 0.0}, "tail_bound"),
    "a least scale of 1": ({"min_scale": 1.0}, "min_scale must be below 1"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what):
    options, message = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        MonotoneCouplingLayer([0, 1], (4,), **options)


MAPS = {
    "a mixture": LogisticMixture(3),
    "a polynomial": Bernstein(4, 2.0, bounded=False),
    "a cubic spline": PiecewiseSpline("cubic", 3, 2.0, 1e-3, 1e-3, 1e-3, sloped_tails=True),
    "a rational-linear spline": PiecewiseSpline("rational_linear", 3, 2.0, 1e-3, 1e-3, 1e-3),
}


@pytest.mark.parametrize("name", MAPS)
def test_maps_are_parts_of_layers_of_ones_own(name, tmp_path):
    scalar_map = MAPS[name]
    m = scalar_map.multiplier
    layers = [
        Coupling([1, 0, 1], networks.dense(2, (4,), m, activation="silu"), scalar_map, rng=0),
        Autoregressive([2, 0, 1], networks.masked(3, (5,), m, activation="tanh"), scalar_map, rng=1),
        Elementwise(3, scalar_map, inverted=True),
    ]
    flow = NormalizingFlow(layers, rng=0)
    flow.params = flow.params + 0.3 * np.random.default_rng(2).normal(size=flow.num_params)
    flow.save(tmp_path / "flow.npz")
    x = np.random.default_rng(3).normal(size=(20, 3))
    np.testing.assert_array_equal(npflows.load(tmp_path / "flow.npz").log_prob(x), flow.log_prob(x))
    np.testing.assert_allclose(flow.inverse(flow.forward(x)[0])[0], x, atol=1e-3)


NO_MAPS = {
    "no kind": (lambda: PiecewiseSpline("quartic", 3, 2.0, 0, 0, 0), "PiecewiseSpline needs a kind of"),
    "one bin": (lambda: PiecewiseSpline("linear", 1, 2.0, 0, 0, 0), "num_bins of at least 2"),
    "bins that are too wide": (lambda: PiecewiseSpline("linear", 3, 2.0, 0.5, 0, 0), "bins that fit"),
    "fixed ends": (lambda: PiecewiseSpline("quadratic", 3, 2.0, 0, 0, 0, sloped_tails=True), "free_ends=True"),
    "free ends": (lambda: PiecewiseSpline("cubic", 3, 2.0, 0, 0, 0, free_ends=True), "free_ends=False"),
    "a share": (lambda: PiecewiseSpline("cubic", 3, 2.0, 0, 0, 0.4), "a min_derivative"),
    "a weight": (lambda: PiecewiseSpline("linear", 3, 2.0, 0, 0, 0, end_weight=0.5), "an end_weight"),
    "no polynomial": (lambda: Bernstein(1, 2.0), "num_parameters of at least 2"),
    "no interval": (lambda: Bernstein(3, 0.0), "a tail_bound above 0"),
    "no mixture": (lambda: LogisticMixture(0), "num_components of at least 1"),
    "no scale": (lambda: LogisticMixture(2, 1.0), "a least_scale between 0 and 1"),
}


@pytest.mark.parametrize("what", NO_MAPS)
def test_maps_that_make_no_sense_are_refused(what):
    make, message = NO_MAPS[what]
    with pytest.raises(ValueError, match=message):
        make()
