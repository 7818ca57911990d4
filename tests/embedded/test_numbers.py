"""Embedded densities give the numbers of the flow's own methods."""

import copy

import embedded_cases as cases
import numpy as np
import pytest
import registry

import npflows

BOTH = pytest.mark.parametrize("dtype", ["float32", "float64"])


def same(a, b):
    for one, other in zip(a, b):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)


def check(flow):
    x, condition = cases.rows_of(flow)
    density, expected = npflows.embed(flow), cases.public(flow, x, condition)
    same(cases.entered(density, x, condition), expected)
    same(cases.entered_alone(density, x, condition), expected)
    out = np.empty(len(x))
    density.log_prob_rows(x, out, condition)
    np.testing.assert_array_equal(out, expected[0])
    alone = [density.log_prob(x[i], None if condition is None else condition[i]) for i in range(len(x))]
    np.testing.assert_array_equal(alone, expected[0])
    check_samples(flow, density)


def check_samples(flow, density):
    rng = np.random.default_rng(6)
    condition = rng.normal(size=(cases.N, flow.condition_dim)) if flow.condition_dim else None
    z = flow.base_under(condition).sample(cases.N, 1, 1.0)
    expected = flow.inverse(z.reshape(-1, *flow.input_shape), condition)[0].reshape(z.shape)
    x, alone = np.empty(z.shape), np.empty(z.shape)
    density.sample_rows(z, x, condition)
    for i in range(len(z)):
        density.sample_row(z[i], alone[i], None if condition is None else condition[i])
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(alone, expected)


@BOTH
@pytest.mark.parametrize("name", registry.MODELS)
def test_every_model_to_the_bit(name, dtype):
    flow = registry.build(name, dtype)
    if flow.preprocessing.has_integers:
        pytest.skip("a mean over points of a cell: to rounding, below")
    check(flow)


@BOTH
def test_every_support_to_the_bit(dtype):
    check(cases.with_support(dtype))
    check(cases.with_support(dtype, condition_dim=2))


@BOTH
def test_standardization_with_a_factor_and_robust_tails(dtype):
    flow = cases.small(dtype)
    x = np.random.default_rng(0).normal(size=(300, 3)) @ [[1, 0.9, 0], [0, 1, 0.5], [0, 0, 1]]
    flow.fit(x, max_epochs=1, standardize="full", progress=False, rng=0)
    assert flow.standardize.factor is not None
    check(flow)


def test_tails_of_conditions():
    flow = cases.small(condition_dim=2)
    flow.standardize_condition([0.1, 0.2], [0.5, 2.0], [1.5, np.inf])
    check(flow)


@BOTH
def test_integers_to_rounding(dtype):
    flow = cases.with_integers(dtype)
    x, _ = cases.rows_of(flow)
    x[10, 0], x[11, 2], x[12, 0] = 1.5, 7, -1
    out, grad, _ = cases.entered(npflows.embed(flow), x, None)
    expected, slopes, _ = cases.public(flow, x, None)
    np.testing.assert_allclose(out, expected, rtol=1e-14)
    np.testing.assert_allclose(grad, slopes, rtol=1e-12, atol=1e-12)
    assert (grad[:, [0, 2]][np.isfinite(out)] == 0).all()
    check_samples(flow, npflows.embed(flow))


@pytest.mark.parametrize("alpha", [None, 0.05])
def test_pixels_to_rounding(alpha):
    flow = npflows.Glow((4, 4, 1), num_scales=1, hidden_dims=(8, 8), levels=8, alpha=alpha, rng=0)
    registry.randomize(flow, strength=0.1)
    x = np.random.default_rng(0).integers(0, 8, (cases.N, 16)).astype(np.float64)
    density = npflows.embed(flow)
    out, grad, _ = cases.entered(density, x, None)
    np.testing.assert_allclose(out, flow.log_prob(x.reshape(-1, 4, 4, 1)), rtol=1e-13)
    assert (grad == 0).all()
    assert density.log_prob(x[0] + 0.5) == -np.inf
    check_samples(flow, density)


def test_fixed_condition():
    flow = cases.small(condition_dim=2)
    x, _ = cases.rows_of(flow)
    density = npflows.embed(flow, [0.3, -0.2])
    assert density.condition_dim == 0
    same(cases.entered(density, x, None)[:2], flow.log_prob_and_grad(x, [0.3, -0.2]))
    same(cases.entered_alone(density, x, None)[:2], flow.log_prob_and_grad(x, [0.3, -0.2]))


def test_one_condition_for_all_rows():
    flow = cases.small(condition_dim=2)
    x, condition = cases.rows_of(flow)
    out = np.empty(len(x))
    npflows.embed(flow).log_prob_rows(x, out, condition[0])
    np.testing.assert_array_equal(out, flow.log_prob(x, condition[0]))


def test_more_rows_than_a_block():
    flow = cases.small()
    x = np.random.default_rng(0).normal(size=(1001, 3))
    same(cases.entered(npflows.embed(flow), x, None)[:2], flow.log_prob_and_grad(x))
    out = np.empty(0)
    npflows.embed(flow).log_prob_rows(np.empty((0, 3)), out)


def test_draws_of_whole_numbers():
    flow = cases.with_integers()
    x, _ = cases.rows_of(flow)
    out = np.empty(len(x))
    npflows.embed(flow, draws=5, rng=3).log_prob_rows(x, out)
    np.testing.assert_allclose(out, flow.log_prob(x, draws=5, rng=3), rtol=1e-14)


def test_condition_gradient_is_the_derivative():
    flow = cases.small("float64", condition_dim=2)
    rng = np.random.default_rng(0)
    x, c, step = rng.normal(size=(20, 3)), rng.normal(size=(20, 2)), 1e-6
    _, _, dcondition = flow.log_prob_and_grad(x, c, wrt="both")
    for d in range(2):
        move = np.eye(2)[d] * step
        slope = (flow.log_prob(x, c + move) - flow.log_prob(x, c - move)) / (2 * step)
        np.testing.assert_allclose(dcondition[:, d], slope, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="needs a flow with a condition"):
        cases.small().log_prob_and_grad(x, wrt="both")


def test_refresh_keeps_the_handle():
    flow = cases.small()
    x = np.array([0.1, 0.2, 0.3])
    density = npflows.embed(flow)
    handle, before = density.handle, copy.deepcopy(flow)
    assert density.is_current
    flow.params = flow.params + 0.1
    assert not density.is_current
    for use in (lambda: density.log_prob(x), lambda: density.handle, lambda: density.function()):
        with pytest.raises(RuntimeError, match="changed since its density was embedded"):
            use()
    density.refresh()
    assert density.handle == handle
    assert density.log_prob(x) == flow.log_prob(x) != before.log_prob(x)
