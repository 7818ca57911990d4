"""The reference backend against the compiled layers and flows of the registry, in float64."""

import numpy as np
import pytest
from reference_operations import program_of
from registry import (
    both_directions,
    build,
    condition,
    for_every_layer,
    for_every_model,
    source,
)

from npflows.backends.reference import BACKEND
from npflows.core import evaluation


def compare(obj, direction, rtol=1e-9, atol=1e-10):
    """Values, log-determinants and all gradients of a layer or flow, as one backend gives them and as the other does."""
    inverse, n = direction == "inverse", 5
    x, given = source(obj, n, direction), condition(obj, n)
    rng = np.random.default_rng(6)
    dy, dlog = rng.normal(size=x.shape), rng.normal(size=n)
    is_flow = hasattr(obj, "flow_layers")
    compiled = obj.executable(False) if is_flow else obj.executable()
    ours, state = BACKEND.compile(program_of(obj, with_base=False), obj.dtype), obj.state()
    for values in zip(*(evaluation.transport(e, state, x, given, inverse=inverse)[:2] for e in (ours, compiled))):
        np.testing.assert_allclose(*values, rtol=rtol, atol=atol)
    options = {"dy": dy, "dlog": dlog, "inverse": inverse, "input": True}
    own, expected = (evaluation.pullback(e, state, x, given, **options) for e in (ours, compiled))
    np.testing.assert_allclose(own.dx, expected.dx, rtol=rtol, atol=atol)
    np.testing.assert_allclose(own.dcondition, expected.dcondition, rtol=rtol, atol=atol)
    free = obj.parameters.free
    np.testing.assert_allclose(own.gradient[free], expected.gradient[free], rtol=rtol, atol=atol)


@both_directions
@for_every_layer
def test_a_layer_is_the_same(name, direction):
    compare(build(name), direction)


@both_directions
@for_every_model
def test_a_flow_is_the_same(name, direction):
    compare(build(name), direction, rtol=1e-8, atol=1e-8)


@for_every_model
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-8), ("float32", 2e-4)])
def test_the_density_is_the_same(name, dtype, tolerance):
    flow = build(name, dtype)
    x, given = source(flow, 6, "forward"), condition(flow, 6)
    if flow.support is not None:
        x = flow.preprocessing.to_unconstrained(x).t
    ours, compiled = BACKEND.compile(program_of(flow), flow.dtype), flow.executable()
    options = {"dlog": np.ones(6), "input": True}
    own, expected = (evaluation.pullback(e, flow.state(), x, given, **options) for e in (ours, compiled))
    np.testing.assert_allclose(own.log_prob, expected.log_prob, rtol=tolerance, atol=tolerance)
    alone = evaluation.transport(ours, flow.state(), x, given, y=False, log_det=False, log_prob=True).log_prob
    np.testing.assert_array_equal(alone, own.log_prob)
    if dtype == "float64":
        np.testing.assert_allclose(own.dx, expected.dx, rtol=tolerance, atol=tolerance)
        free = flow.parameters.free
        np.testing.assert_allclose(own.gradient[free], expected.gradient[free], rtol=tolerance, atol=tolerance)
