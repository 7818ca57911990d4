"""Hand-derived gradients are those of the maps and densities, in both directions."""

import functools

import numpy as np
import pytest
from helpers import NumpyWithNan
from registry import (
    ALL,
    MODELS,
    both_directions,
    build,
    condition,
    data,
    flat,
    for_every_model,
    for_everything,
    fresh,
    is_smooth,
    parts,
    source,
)

from npflows.core import evaluation

STEPS = (1e-5, 1e-6)
TOLERANCE = 1e-6


def direction_for(value):
    return np.random.default_rng(7).normal(size=value.shape) / np.sqrt(max(1, value.shape[-1]))


def assert_gradient(gradient, function, at):
    """Compare a gradient with central differences of `function`, which gives a number, or one for each row of `at`.

    Where a kink of an activation lies within the step, a shorter one must do.
    """
    move = direction_for(at)
    terms = gradient * move
    slope, typical = terms.sum(-1), np.sqrt((terms**2).sum(-1).max())
    errors = [np.abs((function(at + h * move) - function(at - h * move)) / (2 * h) - slope).max() for h in STEPS]
    assert min(errors) <= TOLERANCE * typical


class Scalar:
    """L = a . y + b log_det of one direction of a layer or flow, for each row, and its gradients."""

    def __init__(self, name, direction, n=9):
        rng = np.random.default_rng(6)
        self.obj = build(name)
        self.at = {"input": source(self.obj, n, direction), "params": self.obj.params, "condition": condition(self.obj, n)}
        self.a, self.b = rng.normal(size=(n, self.obj.input_dim)), rng.normal(size=n)
        self.map, self.vjp = getattr(self.obj, direction), getattr(self.obj, f"{direction}_vjp")

    def __call__(self, what, value):
        """L of every row (n,), of all together for params, where `what` has the given value."""
        point = {**self.at, what: value}
        self.obj.params = point["params"]
        y, log_det = self.map(point["input"], point["condition"])
        self.obj.params = self.at["params"]
        each = (flat(y) * self.a).sum(1) + self.b * log_det
        return each.sum() if what == "params" else each

    def gradients(self, rows=slice(None)):
        """Gradients of the sum of L over some rows."""
        context = self.at["condition"]
        gradients = self.vjp(self.at["input"][rows], self.a[rows], self.b[rows], None if context is None else context[rows])
        return {what: g for what, g in gradients._replace(input=flat(gradients.input))._asdict().items() if g is not None}


@pytest.mark.nojit
@both_directions
@for_everything
def test_vjp_is_the_gradient_for_input_params_and_condition(name, direction):
    scalar = Scalar(name, direction)
    gradients = scalar.gradients()
    assert ("condition" in gradients) == (scalar.obj.condition_dim > 0)
    for what, gradient in gradients.items():
        assert_gradient(gradient, functools.partial(scalar, what), scalar.at[what])


@both_directions
@pytest.mark.parametrize("name", [name for name in ALL if is_smooth(fresh(name))])
def test_remainder_falls_fourfold_when_the_step_halves(name, direction):
    scalar = Scalar(name, direction)
    for what, gradient in scalar.gradients().items():
        at, move = scalar.at[what], direction_for(scalar.at[what])
        start, slope = scalar(what, at), (gradient * move).sum(-1)
        long, short = (np.abs(scalar(what, at + h * move) - start - h * slope).sum() for h in (2e-4, 1e-4))
        rounding = 1e-12 * np.abs(start).sum()
        assert long < rounding or abs(long - 4 * short) < 0.1 * short + 0.1 * rounding


@both_directions
@for_everything
def test_cotangents_of_zero_give_gradients_of_zero(name, direction):
    obj = build(name)
    x = source(obj, 3, direction)
    gradients = getattr(obj, f"{direction}_vjp")(x, np.zeros_like(x), 0.0, condition(obj, 3))
    assert all(not np.any(gradient) for gradient in gradients if gradient is not None)


@both_directions
@for_everything
def test_gradients_of_many_rows_are_those_of_each(name, direction):
    scalar = Scalar(name, direction, n=300)
    every, pieces = scalar.gradients(), [slice(0, 1), slice(1, 101), slice(101, 300)]
    parts = [scalar.gradients(rows) for rows in pieces]
    for what, expected in every.items():
        each = [part[what] for part in parts]
        result = sum(each) if what == "params" else np.concatenate(each)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12 * np.abs(expected).max(initial=1))


@both_directions
@for_every_model
def test_what_memory_held_before_does_not_matter(name, direction, monkeypatch):
    scalar = Scalar(name, direction, n=3)
    expected = scalar.gradients()
    monkeypatch.setattr(evaluation, "np", NumpyWithNan())
    with np.errstate(all="raise", under="ignore"):
        gradients = scalar.gradients()
    for what, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, expected[what])


@both_directions
@for_everything
def test_gradients_in_float32_are_those_in_float64(name, direction):
    single, double = build(name, "float32"), build(name)
    double.params = single.params
    x, context = np.float32(source(single, 40, direction)), condition(single, 40)
    a = np.random.default_rng(0).normal(size=x.shape)
    results = [getattr(obj, f"{direction}_vjp")(x, a, 1.0, context) for obj in (single, double)]
    tolerance = 1e-3 if any(hasattr(part, "num_bins") for part in parts(single)) else 1e-4  # a bend can be sharp
    for actual, expected in zip(*results):
        if expected is not None:
            np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max(initial=1))


@pytest.mark.nojit
@for_every_model
def test_log_prob_and_grad_points_uphill(name):
    flow = build(name)
    x, context = data(flow, 9), condition(flow, 9)
    log_prob, gradient = flow.log_prob_and_grad(x, context)
    np.testing.assert_array_equal(log_prob, flow.log_prob(x, context))
    assert_gradient(flat(gradient), lambda x: flow.log_prob(x, context), x)


@pytest.mark.nojit
@for_every_model
def test_nll_and_grad_is_what_an_optimizer_needs(name):
    flow = build(name)
    x, context, weights = data(flow, 9), condition(flow, 9), np.arange(9.0)

    def nll(params):
        flow.params = params
        value = flow.nll_and_grad(x, weights, context)[0]
        assert value == pytest.approx(-np.average(flow.log_prob(x, context), weights=weights), rel=1e-12)
        return value

    assert_gradient(flow.nll_and_grad(x, weights, context)[1], nll, flow.params)


@pytest.mark.parametrize("name", [name for name in MODELS if fresh(name).condition_dim == 0])
def test_gradient_of_a_sample_goes_through_the_inverse(name):
    """The gradient of a loss of samples, which variational inference needs, from inverse_vjp."""
    flow = build(name)
    z = flow.base.sample(20, 0)

    def loss(params):
        flow.params = params
        x, log_det = flow.inverse(z)
        return (flat(x) ** 2).sum() - log_det.sum()

    x, _ = flow.inverse(z)
    assert_gradient(flow.inverse_vjp(z, 2 * x, -1.0).params, loss, flow.params)
