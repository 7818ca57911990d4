"""The rational-quadratic spline by itself: the identity at zero, its knots, its root, its gradients, its density."""

import functools

import naive_spline
import numpy as np
import pytest
from registry import both_directions, both_dtypes, randomize

from npflows import (
    NeuralSplineFlow,
    RationalQuadraticSplineTransform,
    SplineAutoregressiveLayer,
    SplineCouplingLayer,
    SplineLayer,
)
from npflows.layers.elementwise import Elementwise
from npflows.transformers.rational_quadratic import RationalQuadratic

BINS, BOUND = 6, 2.5
LEAST = {"min_bin_width": 1e-3, "min_bin_height": 2e-3, "min_derivative": 5e-4}
TRANSFORM = RationalQuadraticSplineTransform(BINS, BOUND, **LEAST)
SLACK = {dtype: 20 * np.finfo(dtype).eps * BOUND for dtype in ("float32", "float64")}  # what rounding may do to x and y
OTHER = {"forward": "inverse", "inverse": "forward"}


def raw_parameters(kind, n=10):
    """Raw parameters (n, 3 K - 1) of n splines."""
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(n, 3 * BINS - 1))
    if kind == "strong":
        raw *= 4
    elif kind == "extreme":  # bins at the least size or next to the whole interval, slopes at the least or 30
        raw = rng.choice([-30.0, 0.0, 30.0], raw.shape)
    elif kind == "huge":  # exp of them overflows
        raw[:, : 2 * BINS] = rng.choice([-1e4, 0.0, 1e4], (n, 2 * BINS))
    elif kind == "flat":
        raw[:, 2 * BINS :] = -30
    elif kind == "steep":
        raw[:, 2 * BINS :] = 30
    elif kind == "one bin":
        raw[:] = rng.choice([-30.0, 30.0], raw.shape)
        raw[:, : 2 * BINS] = 0
        raw[np.arange(n), rng.integers(0, BINS, n)] = 30
        raw[np.arange(n), BINS + rng.integers(0, BINS, n)] = 30
    return raw


KINDS = ("random", "strong", "extreme", "huge", "flat", "steep", "one bin")
for_every_kind = pytest.mark.parametrize("kind", KINDS)


def layer_of(raw, dtype="float64", circular=False, least=LEAST):
    """One column through the spline of these raw parameters."""
    if circular:
        layer = Elementwise(1, RationalQuadratic(BINS, BOUND, **least, circular=True), dtype)
    else:
        layer = SplineLayer(1, BINS, BOUND, **least, dtype=dtype)
    layer.params = raw
    return layer


def parameters_of(raw):
    """Widths, heights and derivatives for `TRANSFORM`, from raw parameters (n, 3 K - 1)."""
    raw = raw[:, None]
    return TRANSFORM.constrain_parameters(raw[..., :BINS], raw[..., BINS : 2 * BINS], raw[..., 2 * BINS :])


def knots_of(raw, least=LEAST):
    """Knots in x and in y (K + 1,)."""
    left = naive_spline.knots(raw[:BINS], BOUND, least["min_bin_width"])
    return left, naive_spline.knots(raw[BINS : 2 * BINS], BOUND, least["min_bin_height"])


def difficult(knots, dtype, n=500):
    """A grid, the knots and the ends with the numbers on each side of them: (n, 1), in order and in [-B, B]."""
    bound = np.array(knots[-1], dtype)
    special = np.concatenate([knots.astype(dtype), [-bound, bound]])
    up, down = np.nextafter(special, np.inf, dtype=dtype), np.nextafter(special, -np.inf, dtype=dtype)
    x = np.concatenate([np.linspace(-bound, bound, n, dtype=dtype), special, up, down])
    return np.unique(np.clip(x, -bound, bound)).astype(np.float64)[:, None]


def paper(x, left, right, slopes):
    """Equations 4 and 5 of arXiv:1906.04032 for x (n,) in [-B, B], knots and slopes (K + 1,): y and dy/dx."""
    k = np.clip(np.searchsorted(left, x, side="right") - 1, 0, len(left) - 2)
    xi = (x - left[k]) / (left[k + 1] - left[k])
    s = (right[k + 1] - right[k]) / (left[k + 1] - left[k])
    below = s + (slopes[k + 1] + slopes[k] - 2 * s) * xi * (1 - xi)
    y = right[k] + (right[k + 1] - right[k]) * (s * xi**2 + slopes[k] * xi * (1 - xi)) / below
    above = slopes[k + 1] * xi**2 + 2 * s * xi * (1 - xi) + slopes[k] * (1 - xi) ** 2
    return y, s**2 * above / below**2


@both_dtypes
@both_directions
@pytest.mark.parametrize(("bins", "bound"), [(2, 3.0), (5, 0.3), (8, BOUND), (64, 100.0)])
def test_raw_zeros_are_the_identity(bins, bound, direction, dtype):
    layer, eps = SplineLayer(1, bins, bound, dtype=dtype), np.finfo(dtype).eps
    x = difficult(np.linspace(-bound, bound, bins + 1), dtype)
    y, log_det = getattr(layer, direction)(x)
    np.testing.assert_allclose(y, x, rtol=0, atol=2 * eps * bound)
    np.testing.assert_allclose(log_det, 0, atol=2 * eps)


@pytest.mark.parametrize("bins", [2, 3, 8, 64])
@pytest.mark.parametrize("least", [1e-3, 1e-2])
def test_raw_zeros_give_equal_bins_and_slopes_of_1(bins, least):
    transform = RationalQuadraticSplineTransform(bins, 3.0, least, least, least)
    widths, heights, derivatives = transform.constrain_parameters(*[np.zeros((2, 3, n)) for n in (bins, bins, bins + 1)])
    np.testing.assert_allclose(widths, 6 / bins, rtol=1e-15)
    np.testing.assert_allclose(heights, 6 / bins, rtol=1e-15)
    np.testing.assert_allclose(derivatives, 1, rtol=1e-15)
    x = np.linspace(-4, 4, 6).reshape(2, 3)
    for inverse in (False, True):
        y, log_det = transform.apply_spline(x, widths, heights, derivatives, inverse)
        np.testing.assert_allclose(y, x, rtol=1e-15)
        np.testing.assert_allclose(log_det, 0, atol=1e-14)


@for_every_kind
def test_bins_fill_the_interval_and_nothing_falls_below_its_least(kind):
    transform, raw = RationalQuadraticSplineTransform(BINS, BOUND, 0.01, 0.02, 0.05), raw_parameters(kind)[:, None]
    widths, heights, derivatives = transform.constrain_parameters(
        raw[..., :BINS], raw[..., BINS : 2 * BINS], raw[..., 2 * BINS :]
    )
    rounding = 1 - 1e-12
    for sizes, least in ((widths, 0.01), (heights, 0.02)):
        np.testing.assert_allclose(sizes.sum(-1), 2 * BOUND, rtol=1e-14)
        assert sizes.min() >= 2 * BOUND * least * rounding
        if kind == "extreme":
            assert sizes.min() == pytest.approx(2 * BOUND * least, rel=1e-9)
    assert derivatives.min() >= 0.05 * rounding
    if kind == "flat":
        np.testing.assert_allclose(derivatives[..., 1:-1], 0.05, rtol=1e-9)
    np.testing.assert_array_equal(derivatives[..., [0, -1]], 1)


def test_raw_parameters_may_be_of_any_size():
    raw = np.array([[[1e4, -1e4, 0.0, 1e300, 3.0, -1e300]]])
    widths, heights, derivatives = TRANSFORM.constrain_parameters(raw, -raw, raw[..., :-1])
    for sizes, largest, least in ((widths, 3, 1e-3), (heights, 5, 2e-3)):
        np.testing.assert_allclose(sizes[0, 0, [largest, 1]], 2 * BOUND * np.array([1 - 5 * least, least]), rtol=1e-12)
    np.testing.assert_allclose(derivatives[0, 0, [2, 4]], [LEAST["min_derivative"], 1e300], rtol=1e-9)


def test_slopes_at_the_ends_are_ignored_or_left_out():
    rng = np.random.default_rng(0)
    raw = [rng.normal(size=(4, 3, n)) for n in (BINS, BINS, BINS + 1)]
    parameters = TRANSFORM.constrain_parameters(*raw)
    for inner in (raw[2][..., 1:-1], np.pad(raw[2][..., 1:-1], [(0, 0), (0, 0), (1, 1)], constant_values=-7.0)):
        for a, b in zip(TRANSFORM.constrain_parameters(*raw[:2], inner), parameters):
            np.testing.assert_array_equal(a, b)
    x, other = rng.uniform(-3, 3, (4, 3)), parameters[2].copy()
    other[..., 0], other[..., -1] = 7.0, -1.0
    for inverse in (False, True):
        for a, b in zip(TRANSFORM.apply_spline(x, *parameters[:2], other, inverse),
                        TRANSFORM.apply_spline(x, *parameters, inverse)):  # fmt: skip
            np.testing.assert_array_equal(a, b)


@pytest.mark.nojit
@both_dtypes
@for_every_kind
def test_knots_go_to_knots(kind, dtype):
    """Within rounding of x and of y, as a slope may be 1000."""
    rounding = 10 * np.finfo(dtype).eps * BOUND
    for raw in raw_parameters(kind, 5):
        layer = layer_of(raw, dtype)
        left, right = knots_of(layer.params.astype(np.float64))
        slack = np.maximum(naive_slopes(left - rounding, raw), naive_slopes(left + rounding, raw))
        y = layer.forward(left[:, None])[0][:, 0]
        assert (np.abs(y - right) <= rounding * (1 + slack)).all()


def naive_slopes(x, raw):
    return np.exp([naive_spline.spline(TRANSFORM, value, raw)[1] for value in x])


@pytest.mark.parametrize("kind", ["random", "strong", "steep"])
def test_slope_at_a_knot_is_the_derivative_given_and_the_same_on_both_sides(kind):
    """By differences of the map itself; bins of unequal width, so that no factor of the width hides."""
    raw = raw_parameters(kind)
    widths, heights, derivatives = parameters_of(raw)
    for i in range(len(raw)):
        own = [np.broadcast_to(p[i], (BINS + 1, *p[i].shape)) for p in (widths, heights, derivatives)]
        at = np.concatenate([[-BOUND], np.cumsum(widths[i, 0]) - BOUND])[:, None]
        at[-1] = BOUND
        y, log_det = TRANSFORM.apply_spline(at, *own)
        np.testing.assert_allclose(np.exp(log_det), derivatives[i, 0], rtol=1e-9)
        step = 1e-6 * widths[i].min()
        for side in (step, -step):  # beyond the ends it is that of the identity, 1
            near, far = (TRANSFORM.apply_spline(at + n * side, *own)[0] for n in (1, 2))
            np.testing.assert_allclose(
                ((4 * near - 3 * y - far) / (2 * side))[:, 0], derivatives[i, 0], rtol=1e-5, atol=1e-6
            )
            log_det_near = TRANSFORM.apply_spline(at + 1e-6 * side, *own)[1]
            np.testing.assert_allclose(log_det_near, log_det, atol=1e-9)


@both_dtypes
@both_directions
@for_every_kind
def test_beyond_the_bound_is_the_identity_and_on_it_the_map_is_continuous(kind, direction, dtype):
    bound = np.array(BOUND, dtype)
    beyond = np.array([np.nextafter(bound, np.inf, dtype=dtype), 2.6, 4.0, 1e5, 1e30, np.finfo(dtype).max, np.inf], dtype)
    beyond = np.concatenate([beyond, -beyond]).astype(np.float64)[:, None]
    ends = np.array([[-BOUND], [BOUND]])
    rounding = 10 * np.finfo(dtype).eps
    for raw in raw_parameters(kind):
        layer = layer_of(raw, dtype)
        y, log_det = getattr(layer, direction)(beyond)
        np.testing.assert_array_equal(y, beyond)
        np.testing.assert_array_equal(log_det, 0)
        y, log_det = getattr(layer, direction)(ends)
        np.testing.assert_allclose(y, ends, rtol=0, atol=SLACK[dtype])
        if kind == "random":
            np.testing.assert_allclose(log_det, 0, atol=1000 * rounding)


@pytest.mark.nojit
@for_every_kind
def test_transform_is_that_of_the_paper(kind):
    rng, raw = np.random.default_rng(1), raw_parameters(kind, 15)
    x, parameters = rng.uniform(-1.1 * BOUND, 1.1 * BOUND, (15, 1)), parameters_of(raw)
    y, log_det = TRANSFORM.apply_spline(x, *parameters)
    expected = np.array([naive_spline.spline(TRANSFORM, *pair) for pair in zip(x[:, 0], raw)])
    by_layers = np.array([np.hstack(layer_of(own).forward(value)) for value, own in zip(x, raw)])
    for result in (np.column_stack([y, log_det]), by_layers):
        np.testing.assert_allclose(result[:, 0], expected[:, 0], rtol=0, atol=1e-11)
        np.testing.assert_allclose(result[:, 1], expected[:, 1], rtol=1e-9, atol=1e-9)
    back, log_det_back = TRANSFORM.apply_spline(y, *parameters, inverse=True)
    again = TRANSFORM.apply_spline(back, *parameters)
    np.testing.assert_allclose(again[0], y, rtol=0, atol=1e-8)
    np.testing.assert_allclose(again[1], -log_det_back, atol=1e-7)


@pytest.mark.parametrize("kind", ["random", "strong", "steep"])
def test_inverse_is_the_root_that_bisection_finds(kind):
    rng, raw = np.random.default_rng(2), raw_parameters(kind, 20)
    y = rng.uniform(-1.1 * BOUND, 1.1 * BOUND, (20, 1))
    x, log_det = TRANSFORM.apply_spline(y, *parameters_of(raw), inverse=True)
    expected = np.array([naive_spline.spline_inverse(TRANSFORM, *pair) for pair in zip(y[:, 0], raw)])
    np.testing.assert_allclose(x[:, 0], expected[:, 0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(log_det, expected[:, 1], rtol=1e-6, atol=1e-6)


def test_columns_of_the_transform_have_splines_of_their_own_and_log_dets_add_up():
    rng = np.random.default_rng(0)
    x, raw = rng.uniform(-3, 3, (7, 4)), rng.normal(size=(7, 4, 3 * BINS - 1))
    parameters = TRANSFORM.constrain_parameters(*np.split(raw, [BINS, 2 * BINS], axis=2))
    expected = np.array([[naive_spline.spline(TRANSFORM, *p) for p in zip(*row)] for row in zip(x, raw)])
    y, log_det = TRANSFORM.apply_spline(x.tolist(), *[p.tolist() for p in parameters])
    np.testing.assert_allclose(y, expected[..., 0], atol=1e-12)
    np.testing.assert_allclose(log_det, expected[..., 1].sum(1), atol=1e-12)
    log_dets = [TRANSFORM.apply_spline(x[:, [k]], *[p[:, [k]] for p in parameters])[1] for k in range(4)]
    np.testing.assert_allclose(sum(log_dets), log_det, atol=1e-12)


def assert_between(y, function, x, slack):
    """y = function(x), increasing, for some x and y that are wrong by no more than the slack."""
    low, high = function(x - slack) - slack, function(x + slack) + slack
    assert (y >= low).all(), f"too low by up to {(low - y).max():g}"
    assert (y <= high).all(), f"too high by up to {(y - high).max():g}"


@both_dtypes
@both_directions
@for_every_kind
def test_no_parameters_and_no_value_are_too_much_for_rounding(kind, direction, dtype):
    """Also on knots and next to them; as steep and flat pieces make much of a last digit, both x and y may lack a few."""
    slack = SLACK[dtype]
    for raw in raw_parameters(kind):
        layer = layer_of(raw, dtype)
        double = layer_of(layer.params, "float64")
        left, right = knots_of(layer.params.astype(np.float64))
        start = difficult(left if direction == "forward" else right, dtype)
        end, log_det = getattr(layer, direction)(start)
        back, log_det_back = getattr(layer, OTHER[direction])(end)
        for result in (end, log_det, back, log_det_back):
            assert np.isfinite(result).all()
        assert max(np.abs(end).max(), np.abs(back).max()) <= BOUND + slack
        assert np.diff(end[:, 0]).min() >= -slack

        def exact(x, double=double):
            return double.forward(x)[0]

        if direction == "forward":
            assert_between(end, exact, start, slack)
            assert_between(end, exact, back, 2 * slack)
            low, high, sign = start - slack, start + slack, 1
        else:
            assert_between(start, exact, end, slack)
            assert_between(back, exact, end, slack)
            low, high = (double.inverse(start + move)[0] + move for move in (-slack, slack))
            sign = -1
        # the log-det is that of some x as near as this; it peaks on knots and between them
        near = np.concatenate([low + (high - low) * np.linspace(0, 1, 201), np.clip(left, low, high)], axis=1)
        near = sign * double.forward(near.reshape(-1, 1))[1].reshape(near.shape)
        assert (log_det >= near.min(1) - 5e-4).all()
        assert (log_det <= near.max(1) + 5e-4).all()


@both_dtypes
@pytest.mark.parametrize("least", [1e-6, 1e-12])
def test_least_sizes_next_to_nothing_do_no_harm(least, dtype):
    """The discriminant of the root is all rounding where a bin is a million times steeper than its ends."""
    sizes = dict.fromkeys(LEAST, least)
    for kind in KINDS:
        for raw in raw_parameters(kind):
            layer = layer_of(raw, dtype, least=sizes)
            left, right = knots_of(layer.params.astype(np.float64), sizes)
            for x, direction in ((difficult(left, dtype, 100), "forward"), (difficult(right, dtype, 100), "inverse")):
                y, log_det = getattr(layer, direction)(x)
                assert np.isfinite(log_det).all()
                assert np.abs(y).max() <= BOUND + SLACK[dtype]
                gradients = getattr(layer, f"{direction}_vjp")(x, np.zeros_like(x), 0.0)
                assert not gradients.input.any()
                assert not gradients.params.any()


def numeric(layer, direction, x, a, b, step=1e-6):
    """Central differences of a y + b log_det at x (n, 1) by each parameter (n, m), and by x (n, 1)."""

    def value(params, x):
        layer.params = params
        y, log_det = getattr(layer, direction)(x)
        return a * y[:, 0] + b * log_det

    params = layer.params
    by_params = [(value(params + move, x) - value(params - move, x)) / (2 * step) for move in step * np.eye(params.size)]
    by_x = (value(params, x + step) - value(params, x - step)) / (2 * step)
    layer.params = params
    return np.transpose(by_params), by_x[:, None]


def gradients_of_rows(layer, direction, x, a, b):
    """The same by the vjp, row by row."""
    vjp = getattr(layer, f"{direction}_vjp")
    rows = [vjp(x[[i]], [[a]], b) for i in range(len(x))]
    return np.array([row.params for row in rows]), np.concatenate([row.input for row in rows])


@both_directions
@pytest.mark.parametrize("circular", [False, True], ids=["with tails", "circular"])
@pytest.mark.parametrize(("a", "b"), [(1.0, 0.0), (0.0, 1.0)], ids=["of the value", "of the log-det"])
def test_gradient_of_each_parameter_in_each_bin(a, b, circular, direction):
    rng = np.random.default_rng(3)
    for _ in range(3):
        raw = rng.normal(size=3 * BINS - (not circular))
        layer = layer_of(raw, circular=circular)
        knots = knots_of(raw)[direction == "inverse"]
        inside = knots[:-1, None] + np.diff(knots)[:, None] * [0.02, 0.3, 0.6, 0.98]
        x = np.concatenate([inside.reshape(-1, 1), [[-4.0], [3.0]]])
        for actual, expected in zip(gradients_of_rows(layer, direction, x, a, b), numeric(layer, direction, x, a, b)):
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@both_directions
def test_gradient_of_the_value_on_a_knot_and_on_the_bound_is_that_of_both_sides(direction):
    raw = np.random.default_rng(4).normal(size=3 * BINS - 1)
    layer, x = layer_of(raw), knots_of(raw)[direction == "inverse"][:, None]
    x[-1] = BOUND
    actual, expected = gradients_of_rows(layer, direction, x, 1.0, 0.0), numeric(layer, direction, x, 1.0, 0.0, 1e-7)
    for result, wanted in zip(actual, expected):
        np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-4)
    by_params, _ = gradients_of_rows(layer, direction, x[[0, -1]], 1.0, 1.0)
    np.testing.assert_allclose(by_params, 0, atol=1e-12)  # the ends stay where they are, and so do their slopes


@both_dtypes
@both_directions
@pytest.mark.parametrize("circular", [False, True], ids=["with tails", "circular"])
@for_every_kind
def test_gradients_are_finite_wherever_the_value_lies(kind, circular, direction, dtype):
    for raw in raw_parameters(kind):
        layer = layer_of(np.append(raw, raw[-1]) if circular else raw, dtype, circular)
        left, right = knots_of(layer.params.astype(np.float64))
        inside = difficult(left if direction == "forward" else right, dtype, 100)
        x = np.concatenate([inside, [[-1e30], [1e30], [-3.0], [3.0]]])
        gradients = getattr(layer, f"{direction}_vjp")(x, np.ones_like(x), -1.0)
        assert np.isfinite(gradients.input).all()
        assert np.isfinite(gradients.params).all()
        np.testing.assert_array_equal(gradients.input[-4:], 1)
        tails = getattr(layer, f"{direction}_vjp")(x[-4:], np.ones((4, 1)), -1.0)
        np.testing.assert_array_equal(tails.params, 0)


CONDITIONED = {
    "coupling": lambda dtype: SplineCouplingLayer([1, 0, 0], (), BINS, BOUND, **LEAST, dtype=dtype, rng=0),
    "autoregressive": lambda dtype: SplineAutoregressiveLayer(3, (4,), None, BINS, BOUND, **LEAST, dtype=dtype, rng=0),
}


@both_dtypes
@both_directions
@for_every_kind
@pytest.mark.parametrize("name", CONDITIONED)
def test_a_new_network_hands_its_last_biases_to_the_spline_and_takes_back_their_gradient(name, kind, direction, dtype):
    """Its last weights are zeros, so that each column does, and learns, what it would in a layer of its own."""
    layer, moved = CONDITIONED[name](dtype), {"coupling": [1, 2], "autoregressive": [0, 1, 2]}[name]
    raw, rng = raw_parameters(kind)[: len(moved)], np.random.default_rng(0)
    layer.params = np.concatenate([layer.params[: -raw.size], raw.ravel()])
    x = rng.uniform(-BOUND, BOUND, (40, 3))
    x[:12] = np.repeat([[BOUND], [-BOUND], [0.0], [1e30], [-1e30], [3.0]], 2, axis=0)
    for k, own in zip(moved, raw):
        x[20 : 21 + BINS, k] = knots_of(own)[direction == "inverse"]
    x = x.astype(dtype).astype(np.float64)
    a, b = rng.normal(size=x.shape), rng.normal(size=40)
    gradients = getattr(layer, f"{direction}_vjp")(x, a, b)
    assert np.isfinite(gradients.params).all()
    for k, own, by_raw in zip(moved, raw, gradients.params[-raw.size :].reshape(raw.shape)):
        expected = getattr(layer_of(own, dtype), f"{direction}_vjp")(x[:, [k]], a[:, [k]], b)
        rounding = 100 * np.finfo(dtype).eps
        np.testing.assert_allclose(by_raw, expected.params, rtol=0, atol=rounding * np.abs(expected.params).max())
        np.testing.assert_allclose(gradients.input[:, [k]], expected.input, rtol=rounding)


@both_dtypes
@pytest.mark.parametrize("conditioner", ["coupling", "autoregressive"])
def test_gradients_of_the_density_are_finite_for_extreme_parameters_and_values(conditioner, dtype):
    flow = NeuralSplineFlow(3, 2, (8,), 4, conditioner=conditioner, linear="permutation", dtype=dtype, rng=0)
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(200, 3)), rng.choice([-3.0, 0.0, 3.0, 2.5, -1e15, 1e15], (100, 3))])
    for strength in (1.0, 30.0):
        randomize(flow, strength=strength)
        flow.standardize.set(np.zeros(3), np.ones(3))  # so that the bound is met exactly
        log_prob, gradient = flow.log_prob_and_grad(x)
        assert np.isfinite(log_prob).all()
        assert np.isfinite(gradient).all()
        far = flow.log_prob_and_grad(np.where(np.abs(x) > 10, 1e15 * x, x))[1]
        assert np.isfinite(far).all()
        nll, gradient = flow.nll_and_grad(x)
        assert np.isfinite(nll)
        assert np.isfinite(gradient).all()
        nll, gradient = flow.nll_and_grad(x[:200])
        assert nll < 1e3
        assert np.isfinite(gradient).all()
        assert gradient.any()


def circular_of(raw, dtype="float64"):
    """A circular spline and its knots and slopes (K + 1,): the last slope is the first again."""
    layer, least = layer_of(raw, dtype, circular=True), LEAST["min_derivative"]
    slopes = least + np.logaddexp(0, raw[2 * BINS :] + np.log(np.expm1(1 - least)))
    return layer, (*knots_of(raw), np.append(slopes, slopes[0]))


@both_dtypes
@for_every_kind
def test_circular_spline_is_that_of_the_paper_with_a_slope_of_its_own_at_the_seam(kind, dtype):
    slack = SLACK[dtype]
    for seam, raw in zip([-30.0, -3.0, 0.0, 1.0, 30.0], raw_parameters(kind, 5)):
        raw = np.insert(raw, 2 * BINS, seam)
        layer, (left, right, slopes) = circular_of(raw, dtype)
        x = difficult(left, dtype, 50)
        y, log_det = layer.forward(x)
        assert_between(y, functools.partial(circular_naive, left, right, slopes), x, slack)
        back, log_det_back = layer.inverse(y)
        assert_between(y, functools.partial(circular_naive, left, right, slopes), back, slack)
        assert np.isfinite(log_det_back).all()
        ends = np.array([[-BOUND], [BOUND]])
        at_ends, log_det = layer.forward(ends)
        np.testing.assert_allclose(at_ends, ends, rtol=0, atol=slack * (1 + slopes[0]))
        if dtype == "float64":
            np.testing.assert_allclose(np.exp(log_det), slopes[0], rtol=1e-6)
            np.testing.assert_allclose(np.exp(-layer.inverse(ends)[1]), slopes[0], rtol=1e-6)
            inside = np.linspace(-BOUND, BOUND, 40)[1:-1]
            expected = np.log(paper(inside, left, right, slopes)[1])
            np.testing.assert_allclose(layer.forward(inside[:, None])[1], expected, rtol=1e-8, atol=1e-8)


def circular_naive(left, right, slopes, x):
    """Beyond the ends goes on with the slope at the seam, as rounding may lead there."""
    y, _ = paper(np.clip(x, -BOUND, BOUND), left, right, slopes)
    return y + slopes[0] * (x - np.clip(x, -BOUND, BOUND))


@both_directions
def test_circular_zeros_are_the_identity_and_beyond_the_bound_is_too(direction):
    x = np.linspace(-BOUND, BOUND, 101)[:, None]
    y, log_det = getattr(circular_of(np.zeros(3 * BINS))[0], direction)(x)
    np.testing.assert_allclose(y, x, rtol=0, atol=1e-15)
    np.testing.assert_allclose(log_det, 0, atol=1e-14)
    beyond = np.array([[3.0], [-1e30], [np.nextafter(BOUND, 3)]])
    y, log_det = getattr(circular_of(np.random.default_rng(0).normal(size=3 * BINS))[0], direction)(beyond)
    np.testing.assert_array_equal(y, beyond)
    np.testing.assert_array_equal(log_det, 0)


@pytest.mark.nojit
def test_on_a_circle_value_and_slope_meet_at_the_seam():
    """Going round the circle the map is smooth there too: differences across the seam are the slope on it."""
    layer, (_, _, slopes) = circular_of(np.random.default_rng(0).normal(size=3 * BINS))
    step = 1e-6
    y, log_det = layer.forward([[BOUND - step], [BOUND], [-BOUND], [-BOUND + step]])
    np.testing.assert_allclose(y[[1, 2], 0], [BOUND, -BOUND], rtol=1e-15)
    np.testing.assert_allclose([y[1, 0] - y[0, 0], y[3, 0] - y[2, 0]], step * slopes[0], rtol=1e-4)
    np.testing.assert_allclose(np.exp(log_det), slopes[0], rtol=1e-4)
    assert abs(slopes[0] - 1) > 0.05


@pytest.mark.nojit
@both_dtypes
@both_directions
def test_both_ends_teach_the_one_slope_at_the_seam(direction, dtype):
    raw = np.random.default_rng(0).normal(size=3 * BINS)
    layer, (_, _, slopes) = circular_of(raw, dtype)
    sign = 1 if direction == "forward" else -1
    expected = np.zeros(3 * BINS)
    expected[2 * BINS] = (
        sign * (1 - np.exp(LEAST["min_derivative"] - slopes[0])) / slopes[0]
    )  # of log slope, by its raw parameter
    for end in (-BOUND, BOUND):
        gradient = getattr(layer, f"{direction}_vjp")([[end]], [[0.0]], 1.0).params
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1000 * np.finfo(dtype).eps)


def axis_of(flow):
    return np.linspace(-10, 10, {1: 200_001, 2: 1201}[flow.input_dim])


def mass(flow):
    """The integral of the density over [-10, 10] in each column."""
    axis = axis_of(flow)
    points = np.stack(np.meshgrid(*[axis] * flow.input_dim, indexing="ij"), -1).reshape(-1, flow.input_dim)
    return np.exp(flow.log_prob(points)).sum() * (axis[1] - axis[0]) ** flow.input_dim


def table(dim, n=1500):
    """Two clumps, in 2-D bent ones."""
    rng = np.random.default_rng(0)
    x = rng.choice([-1.2, 0.8], (n, 1)) + 0.3 * rng.normal(size=(n, 1))
    return x if dim == 1 else np.hstack([x, np.sin(2 * x) + 0.4 * rng.normal(size=(n, 1))])


FLOWS = {
    "one column": lambda **o: NeuralSplineFlow(1, 2, **o),
    "one column, few bins": lambda **o: NeuralSplineFlow(1, 3, num_bins=3, tail_bound=2.0, **o),
} | {
    f"{conditioner}, {linear}": lambda c=conditioner, li=linear, **o: NeuralSplineFlow(
        2, 2, (16,), 5, conditioner=c, linear=li, **o
    )
    for conditioner in ("coupling", "autoregressive")
    for linear in ("lu", "permutation")
}


@pytest.mark.parametrize("name", FLOWS)
def test_density_integrates_to_one_before_and_after_training_and_has_tails(name):
    flow = FLOWS[name](dtype="float64", rng=0)
    x, tolerance = table(flow.input_dim), {1: 1e-7, 2: 2e-4}[flow.input_dim]
    assert mass(flow) == pytest.approx(1, abs=tolerance)
    flow.fit(x, max_epochs=0, progress=False)  # sets the units alone
    before = flow.log_prob(x).mean()
    flow.fit(x, max_epochs=12, batch_size=128, learning_rate=1e-2, rng=0, progress=False)
    assert flow.log_prob(x).mean() > before + 0.2
    assert mass(flow) == pytest.approx(1, abs=tolerance)
    spread = np.array([3.0, 10.0, 100.0, 1e6])[:, None] * flow.tail_bound * x.std(0)
    for sign in (-1, 1):
        log_prob = flow.log_prob(x.mean(0) + sign * spread)
        assert np.isfinite(log_prob).all()
        assert (np.diff(log_prob) < 0).all()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", FLOWS)
def test_density_integrates_to_one_for_random_parameters(name, seed):
    flow = randomize(FLOWS[name](dtype="float64", rng=seed), seed)
    tolerance = {1: 1e-5, 2: 1e-3}[flow.input_dim]
    assert mass(flow) == pytest.approx(1, abs=tolerance)


WRONG = {
    "one bin": ({"num_bins": 1}, "num_bins must be a whole number of at least 2, got 1"),
    "bins and a half": ({"num_bins": 2.5}, "num_bins must be a whole number of at least 2, got 2.5"),
    "no interval": ({"tail_bound": 0.0}, "tail_bound must be a finite number above 0, got 0.0"),
    "negative bound": ({"tail_bound": -3}, "tail_bound must be a finite number above 0, got -3"),
    "bound NaN": ({"tail_bound": np.nan}, "tail_bound must be a finite number above 0, got nan"),
    "bound infinite": ({"tail_bound": np.inf}, "tail_bound must be a finite number above 0, got inf"),
    "bound missing": ({"tail_bound": None}, "tail_bound must be a finite number above 0, got None"),
    "width that fills": ({"min_bin_width": 0.25}, "min_bin_width must be below 1 / num_bins = 0.25, got 0.25"),
    "height too much": ({"min_bin_height": 0.3}, "min_bin_height must be below 1 / num_bins = 0.25, got 0.3"),
    "many bins": ({"num_bins": 1000}, "min_bin_width must be below 1 / num_bins = 0.001, got 0.001"),
    "width 0": ({"min_bin_width": 0}, "min_bin_width must be a finite number above 0, got 0"),
    "height NaN": ({"min_bin_height": np.nan}, "min_bin_height must be a finite number above 0, got nan"),
    "slope 0": ({"min_derivative": 0.0}, "min_derivative must be a finite number above 0, got 0.0"),
    "slope below 0": ({"min_derivative": -0.1}, "min_derivative must be a finite number above 0, got -0.1"),
    "slope 1": ({"min_derivative": 1.0}, "min_derivative must be below 1, got 1.0"),
}
MAKERS = {
    "transform": RationalQuadraticSplineTransform,
    "layer": lambda **o: SplineLayer(2, **o),
    "coupling": lambda **o: SplineCouplingLayer([0, 1], (4,), **o),
    "autoregressive": lambda **o: SplineAutoregressiveLayer(2, (4,), **o),
    "flow": lambda **o: NeuralSplineFlow(2, 1, (4,), **o),
    "flow of one column": lambda **o: NeuralSplineFlow(1, 1, **o),
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("case", list(WRONG.values()), ids=list(WRONG))
def test_a_spline_that_can_not_be_is_refused(case, maker):
    options, message = case
    with pytest.raises(ValueError, match=message):
        MAKERS[maker](**{"num_bins": 4, **options})


@pytest.mark.parametrize("what", [{"conditioner": "mlp"}, {"linear": "svd"}])
def test_an_unknown_part_of_the_flow_is_refused_with_those_known(what):
    ((name, value),) = what.items()
    with pytest.raises(ValueError, match=f"{name} must be one of .*, got '{value}'"):
        NeuralSplineFlow(2, 1, (4,), **what)


X, SIZES, SLOPES = np.zeros((5, 2)), np.full((5, 2, 4), 1.5), np.ones((5, 2, 5))
UNEVEN, NEGATIVE, NONE, DOWN, HOLE = *np.repeat(SIZES[None], 3, axis=0), *np.repeat(SLOPES[None], 2, axis=0)
UNEVEN[3, 1, 2], NEGATIVE[0, 0], NONE[4, 1] = 1.6, [-1.5, 4.5, 1.5, 1.5], [1.5, 1.5, 3.0, 0.0]
DOWN[4, 0, 2], HOLE[2, 1, 1] = -1.0, np.nan
APPLIED = {
    "x of one axis": ((X[:, 0], SIZES, SIZES, SLOPES), r"x must have shape \(n, d\) .*, got \(5,\) and \(5, 2, 4\)"),
    "x of other rows": ((X[:4], SIZES, SIZES, SLOPES), r"x must have shape .*, got \(4, 2\) and \(5, 2, 4\)"),
    "other columns": ((X[:, :1], SIZES, SIZES, SLOPES), r"x must have shape .*, got \(5, 1\) and \(5, 2, 4\)"),
    "other bins": (
        (X, SIZES[..., :3], SIZES[..., :3], SLOPES[..., :4]),
        r"widths and heights must have shape \(n, d, 4\), got \(5, 2, 3\)",
    ),
    "heights unlike widths": ((X, SIZES, SIZES[:4], SLOPES), r"must have shape \(n, d, 4\), .* and \(4, 2, 4\)"),
    "widths of two axes": ((X, SIZES[0], SIZES, SLOPES), r"widths \(n, d, K\), got \(5, 2\) and \(2, 4\)"),
    "inner slopes alone": ((X, SIZES, SIZES, SLOPES[..., 1:-1]), r"derivatives must have shape \(n, d, 5\), .*2, 3\)"),
    "slopes of other rows": ((X, SIZES, SIZES, SLOPES[1:]), r"derivatives must have shape \(n, d, 5\), got \(4, 2, 5"),
    "slopes of two axes": ((X, SIZES, SIZES, SLOPES[0]), r"derivatives must have shape \(n, d, 5\), got \(2, 5\)"),
    "widths that leave a gap": ((X, UNEVEN, SIZES, SLOPES), r"widths must be positive and sum to 2 \* tail_bound = 6"),
    "heights that leave a gap": ((X, SIZES, UNEVEN, SLOPES), r"heights must be positive and sum to 2 \* tail_bound = 6"),
    "negative height": ((X, SIZES, NEGATIVE, SLOPES), "heights must be positive"),
    "no width": ((X, NONE, SIZES, SLOPES), "widths must be positive"),
    "width NaN": ((X, SIZES * np.nan, SIZES, SLOPES), "widths must be positive"),
    "downhill": ((X, SIZES, SIZES, DOWN), "derivatives must be positive"),
    "slope NaN": ((X, SIZES, SIZES, HOLE), "derivatives must be positive"),
}


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("case", list(APPLIED.values()), ids=list(APPLIED))
def test_bins_that_do_not_fit_are_refused(case, inverse):
    arguments, message = case
    with pytest.raises(ValueError, match=message):
        RationalQuadraticSplineTransform(4).apply_spline(*arguments, inverse)


RAW = {
    "two axes": ([np.zeros((5, 4))] * 3, r"widths and heights must have shape \(n, d, 4\), got \(5, 4\)"),
    "other bins": ([np.zeros((5, 2, 5))] * 3, r"widths and heights must have shape \(n, d, 4\), got \(5, 2, 5\)"),
    "K slopes": ([np.zeros((5, 2, 4))] * 3, r"derivatives must have shape \(n, d, 5\), got \(5, 2, 4\)"),
}


@pytest.mark.parametrize("case", list(RAW.values()), ids=list(RAW))
def test_raw_parameters_of_another_shape_are_refused(case):
    raw, message = case
    with pytest.raises(ValueError, match=message):
        RationalQuadraticSplineTransform(4).constrain_parameters(*raw)


def test_words_are_no_numbers():
    with pytest.raises(TypeError, match="x must be an array of numbers"):
        RationalQuadraticSplineTransform(4).apply_spline([["a", "b"]], SIZES[:1], SIZES[:1], SLOPES[:1])


def test_no_rows_and_nan_go_through_the_transform():
    transform = RationalQuadraticSplineTransform(4)
    for inverse in (False, True):
        y, log_det = transform.apply_spline(X[:0], SIZES[:0], SIZES[:0], SLOPES[:0], inverse)
        assert y.shape == (0, 2)
        assert log_det.shape == (0,)
        x = X.copy()
        x[[1, 3], [0, 1]] = np.nan, np.inf
        y, log_det = transform.apply_spline(x, SIZES, SIZES, SLOPES, inverse)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
        np.testing.assert_array_equal(np.isnan(log_det), [False, True, False, False, False])
        assert y[3, 1] == np.inf
