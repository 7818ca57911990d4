"""Splines of the other kinds: their formulas by other means, their tails, extreme parameters, and what is refused."""

import itertools

import numpy as np
import pytest
from registry import both_directions, both_dtypes
from scipy.interpolate import CubicHermiteSpline
from spline_cases import softmax

import npflows
from npflows import NeuralSplineFlow, NormalizingFlow, SplineCouplingLayer, SplineLayer, support
from npflows.core.operations import SPLINES

BINS, BOUND, LEAST = 5, 2.0, 1e-3
KINDS = [kind for kind in SPLINES if kind != "rational_quadratic"]
ENDS = {"tails": "end_slope"}
CASES = {
    **{kind: {"spline": kind} for kind in KINDS},
    **{f"{kind}, slopes of the ends": {"spline": kind, **ENDS} for kind in SPLINES},
    "quadratic, free ends": {"spline": "quadratic", "free_ends": True},
    "rational_linear, free ends": {"spline": "rational_linear", "free_ends": True},
    "quadratic, end weight": {"spline": "quadratic", "end_weight": 0.5},
}
for_every_case = pytest.mark.parametrize("name", CASES)


def layer_of(name, n=1, dtype="float64", scale=1.5, seed=0):
    layer = SplineLayer(n, BINS, BOUND, dtype=dtype, **CASES[name])
    raw = layer.parameters.views()["raw"]
    raw[...] = scale * np.random.default_rng(seed).normal(size=raw.shape)
    return layer


def sizes(raw, least=LEAST):
    return 2 * BOUND * (least + (1 - BINS * least) * softmax(raw))


def edges(raw):
    return np.concatenate([[-BOUND], -BOUND + np.cumsum(sizes(raw))])


def slopes(layer, x):
    return np.exp(layer.forward(x[:, None])[1])


def test_linear_splines_are_interpolated():
    layer = layer_of("linear")
    x = np.linspace(-BOUND, BOUND, 301)
    y = np.interp(x, np.linspace(-BOUND, BOUND, BINS + 1), edges(layer.params))
    np.testing.assert_allclose(layer.forward(x[:, None])[0][:, 0], y, atol=1e-14)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("quadratic")])
def test_quadratic_splines_are_integrals_of_lines(name):
    layer = layer_of(name)
    raw, widths = layer.params, sizes(layer.params[:BINS])
    knots = edges(raw[:BINS])
    density = np.logaddexp(0, raw[BINS:]) + 1e-3
    if density.size < BINS:  # the ends are the mean, or what nflows has for it
        weight = CASES[name].get("end_weight", 1.0)
        share = np.r_[weight, np.ones(BINS - 2), weight] * widths / (2 * BOUND)
        end = (share[0] * density[0] + share[-1] * density[-1] + share[1:-1] @ (density[:-1] + density[1:])) / 2
        density = np.r_[0, density, 0]
        density[[0, -1]] = end / (1 - (share[0] + share[-1]) / 2)
    mean = widths @ (density[:-1] + density[1:]) / (4 * BOUND)
    d = LEAST + (1 - LEAST) * density / mean
    x = np.linspace(-BOUND, BOUND, 40001)
    slope = np.interp(x, knots, d)
    y = -BOUND + np.concatenate([[0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(x))])
    np.testing.assert_allclose(layer.forward(x[:, None])[0][:, 0], y, atol=1e-6)
    np.testing.assert_allclose(slopes(layer, x), slope, rtol=1e-9)
    if name == "quadratic":
        np.testing.assert_allclose(slopes(layer, np.array([-BOUND, BOUND])), 1, rtol=1e-12)


@pytest.mark.parametrize("name", ["cubic", "cubic, slopes of the ends"])
def test_cubic_splines_are_those_of_hermite_with_the_slopes_of_steffen(name):
    layer = layer_of(name)
    raw = layer.params
    x, y = edges(raw[:BINS]), edges(raw[BINS : 2 * BINS])
    s, w = np.diff(y) / np.diff(x), np.diff(x)
    odds = np.exp(raw[2 * BINS :]) * (1 / 3 - LEAST) / (2 / 3 - LEAST)
    ends = 3 * (LEAST + (1 - 2 * LEAST) * odds / (1 + odds))
    middle = (s[:-1] * w[1:] + s[1:] * w[:-1]) / (w[:-1] + w[1:])
    inner = np.minimum(2 * np.minimum(s[:-1], s[1:]), middle)
    expected = CubicHermiteSpline(x, y, np.r_[ends[0] * s[0], inner, ends[1] * s[-1]])
    at = np.linspace(-BOUND, BOUND, 501)
    np.testing.assert_allclose(layer.forward(at[:, None])[0][:, 0], expected(at), atol=1e-13)
    np.testing.assert_allclose(slopes(layer, at), expected(at, 1), rtol=1e-10)


@pytest.mark.parametrize("name", ["rational_linear", "rational_linear, free ends"])
def test_rational_linear_splines_have_the_given_values_and_slopes_at_the_knots_and_are_smooth(name):
    layer = layer_of(name)
    raw = layer.params
    x, y = edges(raw[:BINS]), edges(raw[BINS : 2 * BINS])
    d = LEAST + np.logaddexp(0, raw[2 * BINS : -BINS] + np.log(np.expm1(1 - LEAST)))
    d = d if d.size > BINS else np.r_[1, d, 1]
    np.testing.assert_allclose(layer.forward(x[:, None])[0][:, 0], y, atol=1e-13)
    np.testing.assert_allclose(slopes(layer, x), d, rtol=1e-11)
    shares = 0.025 + 0.95 / (1 + np.exp(-raw[-BINS:]))
    at = x[:-1] + shares * np.diff(x)
    below, above = at - 1e-11, at + 1e-11
    np.testing.assert_allclose(slopes(layer, below), slopes(layer, above), rtol=1e-6)
    values = layer.forward(np.concatenate([below, above])[:, None])[0][:, 0].reshape(2, -1)
    np.testing.assert_allclose(values[0], values[1], atol=1e-8)


@pytest.mark.parametrize("kind", SPLINES)
def test_tails_with_the_slope_of_the_end_are_lines_from_there(kind):
    layer = layer_of(f"{kind}, slopes of the ends")
    for end in (-BOUND, BOUND):
        inside, outside = end * (1 - 1e-12), end + np.sign(end) * np.array([0.0, 1e-9, 1.0, 1e3])
        y, log_slope = layer.forward(outside[:, None])
        slope = slopes(layer, np.array([inside]))[0]
        np.testing.assert_allclose(np.exp(log_slope), slope, rtol=1e-8)
        np.testing.assert_allclose(y[:, 0], end + slope * (outside - end), rtol=1e-8)
        assert abs(slope - 1) > 1e-3


@for_every_case
def test_the_density_integrates_to_one(name):
    flow = NormalizingFlow([layer_of(name, scale=1.0)], dtype="float64")
    widths = np.zeros(BINS) if name.startswith("linear") else layer_of(name, scale=1.0).params[:BINS]
    breaks = np.concatenate([[-60.0], edges(widths), [60.0]])
    nodes, weights = np.polynomial.legendre.leggauss(200)
    total = 0.0
    for low, high in itertools.pairwise(breaks):
        middle, half = (low + high) / 2, (high - low) / 2
        total += half * weights @ np.exp(flow.log_prob((middle + half * nodes)[:, None]))
    assert abs(total - 1) < (1e-3 if name.startswith("rational_linear") else 1e-6)  # which has a bend in each bin


EXTREME = {"strong": 8.0, "extreme": 30.0}


@for_every_case
@both_directions
@both_dtypes
@pytest.mark.parametrize("strength", EXTREME)
def test_extreme_parameters_give_increasing_maps_that_are_finite(name, direction, dtype, strength):
    layer = layer_of(name, dtype=dtype)
    raw = layer.parameters.views()["raw"]
    x = np.linspace(-1.5 * BOUND, 1.5 * BOUND, 801)[:, None]
    for seed in range(5):
        draws = np.random.default_rng(seed)
        raw[...] = EXTREME[strength] * draws.choice([-1.0, 0.0, 1.0], raw.shape)
        y, log_det = getattr(layer, direction)(x)
        assert np.isfinite(y).all()
        assert np.isfinite(log_det).all()
        assert (np.diff(y[:, 0]) >= -1e-5 * BOUND).all()
        back = getattr(layer, {"forward": "inverse", "inverse": "forward"}[direction])(y)[0]
        again = getattr(layer, direction)(back)[0]
        np.testing.assert_allclose(again, y, atol=(2e-4 if dtype == "float32" else 1e-11) * max(1, np.abs(y).max()))


@for_every_case
@both_directions
def test_nan_stays(name, direction):
    layer = layer_of(name, 2)
    y, log_det = getattr(layer, direction)([[np.nan, 0.3], [0.1, 0.2]])
    assert np.isnan(y[0, 0])
    assert np.isnan(log_det[0]) or name.startswith("linear")  # whose slope does not depend on the place in a bin
    assert np.isfinite(y[1]).all()


REFUSED = {
    "an unknown kind": ({"spline": "quartic"}, "spline must be one of"),
    "unknown tails": ({"tails": "linear"}, "tails must be one of"),
    "circles": ({"spline": "cubic", "circular": [True]}, "spline='cubic' with tails='identity' has no circles"),
    "a least slope": ({"tails": "end_slope", "least_slope": 0.1, "min_derivative": 0.0}, "no least_slope"),
    "turned": ({"spline": "linear", "turned": True}, "is not turned"),
    "free ends": ({"spline": "cubic", "free_ends": True}, "free_ends is not for spline='cubic'"),
    "an end weight above 1": ({"spline": "quadratic", "end_weight": 1.5}, "end_weight must be at most 1"),
    "an end weight elsewhere": ({"spline": "cubic", "end_weight": 0.5}, "1 but for spline='quadratic'"),
    "a least share": ({"spline": "cubic", "min_derivative": 0.4}, "min_derivative must be below 1/3"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what):
    options, message = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        SplineLayer(1, **options)


def test_periodic_columns_need_rational_quadratic_splines():
    with pytest.raises(ValueError, match="periodic columns need spline='rational_quadratic'"):
        NeuralSplineFlow(2, 1, (4,), spline="quadratic", support=[support.periodic(0, 1), support.real()])


def test_a_flow_learns_with_each_kind_and_is_the_same_from_its_file(tmp_path):
    x = np.random.default_rng(1).normal(size=(400, 2)) ** 3 / 3
    for kind in KINDS:
        flow = NeuralSplineFlow(2, 1, (8,), 4, spline=kind, tails="end_slope", affine_ends=False, rng=0)
        before = flow.log_prob(x).mean()
        flow.fit(x, max_epochs=3, learning_rate=1e-2, rng=0, progress=False)
        assert flow.log_prob(x).mean() > before
        flow.save(tmp_path / "flow.npz")
        np.testing.assert_array_equal(npflows.load(tmp_path / "flow.npz").log_prob(x), flow.log_prob(x))


def test_the_kinds_are_told_by_repr():
    layer = SplineCouplingLayer([0, 1], (4,), spline="cubic", tails="end_slope")
    assert "spline='cubic', tails='end_slope'" in repr(layer)
