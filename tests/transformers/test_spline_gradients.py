"""Gradients of the rational-quadratic spline: in each bin, on knots, and at the ends of float's range."""

import numpy as np
import pytest
from registry import both_directions, both_dtypes, randomize
from spline_cases import BINS, BOUND, LEAST, difficult, for_every_kind, knots_of, layer_of, raw_parameters

from npflows import (
    NeuralSplineFlow,
    SplineAutoregressiveLayer,
    SplineCouplingLayer,
)


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
