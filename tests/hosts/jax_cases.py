"""Densities in JAX."""

import numpy as np
import pytest

import npflows
from npflows.support import interval, periodic, positive, real

jax = pytest.importorskip("jax")
host = pytest.importorskip("npflows.hosts.jax")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
X = np.random.default_rng(0).normal(size=(5, 3))
C = np.random.default_rng(1).normal(size=(5, 2))


@pytest.fixture(autouse=True)
def double_precision():
    """JAX computes in float64."""
    jax.config.update("jax_enable_x64", True)


def small(**options):
    flow = npflows.MAF(3, 2, (8,), rng=0, **options)
    flow.params = flow.params + 0.1 * np.random.default_rng(0).normal(size=flow.num_params)
    return flow


def test_values_and_gradients_to_the_bit():
    flow = small()
    f = host.log_prob(npflows.embed(flow))
    values, slopes = flow.log_prob_and_grad(X)
    for form in (f, jax.jit(f), jax.vmap(f), jax.jit(jax.vmap(f))):
        np.testing.assert_array_equal(form(X), values)
    for form in (jax.vmap(jax.grad(f)), jax.jit(jax.vmap(jax.grad(f)))):
        np.testing.assert_array_equal(form(X), slopes)
    value, change = jax.jvp(f, (X[0],), (X[1],))
    assert value == values[0]
    np.testing.assert_allclose(change, slopes[0] @ X[1], rtol=1e-12)
    np.testing.assert_array_equal(f(X[None, :, None, :]), values[None, :, None])


def test_conditions():
    flow = small(condition_dim=2)
    f = host.log_prob(npflows.embed(flow))
    np.testing.assert_array_equal(jax.jit(f)(X, C), flow.log_prob(X, C))
    np.testing.assert_array_equal(f(X, C[0]), flow.log_prob(X, C[0]))
    np.testing.assert_array_equal(jax.vmap(f, (0, None))(X, C[0]), flow.log_prob(X, C[0]))
    for mine, expected in zip(jax.grad(f, (0, 1))(X[0], C[0]), flow.log_prob_and_grad(X[0], C[0], wrt="both")[1:]):
        np.testing.assert_array_equal(mine, expected)
    with pytest.raises(ValueError, match="takes a condition of 2 values"):
        f(X)
    with pytest.raises(ValueError, match="takes no condition"):
        host.log_prob(npflows.embed(flow, C[0]))(X, C)


def test_refresh_reaches_compiled_functions():
    flow = small()
    density = npflows.embed(flow)
    f = jax.jit(host.log_prob(density))
    f(X)
    flow.params = flow.params + 0.1
    density.refresh()
    np.testing.assert_array_equal(f(X), flow.log_prob(X))


def test_errors():
    f = host.log_prob(npflows.embed(small()))
    with pytest.raises(ValueError, match=r"x must be float64 of shape \(..., 3\), got float64 of shape \(5, 2\)"):
        f(C)
    with pytest.raises(ValueError, match="x must be float64"):
        f(X.astype(np.float32))
    jax.config.update("jax_enable_x64", False)
    with pytest.raises(RuntimeError, match="jax_enable_x64"):
        host.log_prob(npflows.embed(small()))


def test_bounded_columns_need_transforms():
    flow = npflows.NeuralSplineFlow(4, 2, (8,), support=[positive(), real(), interval(0, 1), periodic(0, 1)], rng=0)
    with pytest.raises(ValueError, match=r"column 0 \(positive\): the logarithm of x - lower; column 2 \(inter"):
        host.log_prob(npflows.embed(flow))
    x = flow.sample(3, 0)
    np.testing.assert_array_equal(host.log_prob(npflows.embed(flow), bounded=True)(x), flow.log_prob(x))
    whole = npflows.MAF(2, 2, (8,), support=[npflows.support.integer(0, 3), real()], rng=0)
    with pytest.raises(ValueError, match="columns 0 are whole numbers"):
        host.log_prob(npflows.embed(whole), bounded=True)
