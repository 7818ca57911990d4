"""The reference backend against the compiled layers and flows of the registry, in float64."""

import numpy as np
import pytest
from reference_operations import of_network, program_of
from registry import both_directions, build, condition, for_every_layer, for_every_model, source

from npflows import IAF, MADE, MAF, NeuralSplineFlow, RealNVP
from npflows.backends.reference import BACKEND
from npflows.core import evaluation
from npflows.core.backend import State
from npflows.core.operations import MadeOutputs, Placed, Program


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


@pytest.mark.parametrize("condition_dim", [0, 2])
def test_the_outputs_of_a_masked_network_are_the_same(condition_dim):
    made = MADE(4, (9, 7), 3, [2, 0, 3, 1], activation="silu", condition_dim=condition_dim, dtype="float64", rng=0)
    made.params = np.random.default_rng(0).normal(size=made.num_params)
    operation = MadeOutputs((2, 0, 3, 1), of_network(made._network))
    executable = BACKEND.compile(Program((Placed(operation, 0),), 4, 12, condition_dim=condition_dim), made.dtype)
    x, given = np.random.default_rng(1).normal(size=(5, 4)), condition(made, 5)
    y = evaluation.transport(executable, State(made.parameters.theta), x, given).y
    np.testing.assert_allclose(y.reshape(5, 3, 4), np.stack(made(x, given), axis=1), rtol=1e-10, atol=1e-12)


DROPOUT = {
    "MAF": lambda **o: MAF(3, 2, (8, 8), activation="tanh", **o),
    "IAF": lambda **o: IAF(3, 2, (8,), activation="elu", **o),
    "RealNVP, residual": lambda **o: RealNVP(3, 2, (8,), activation="silu", residual_blocks=2, **o),
    "NSF, embedding": lambda **o: NeuralSplineFlow(
        3, 2, (8,), 3, activation="tanh", condition_dim=2, embedding_dims=(6, 2), **o
    ),
}


@both_directions
@pytest.mark.parametrize("name", DROPOUT)
def test_a_training_step_with_dropout_is_the_same(name, direction):
    flow, n, inverse = DROPOUT[name](dropout=0.3, dtype="float64", rng=0), 300, direction == "inverse"
    rng = np.random.default_rng(1)
    flow.params = flow.params + 0.3 * rng.normal(size=flow.num_params)
    x, dy, dlog, given = rng.normal(size=(n, 3)), rng.normal(size=(n, 3)), rng.normal(size=n), condition(flow, n)
    free, results = flow.parameters.free, []
    for executable in (BACKEND.compile(program_of(flow), flow.dtype), flow.executable()):
        buffers = np.empty((executable.buffer_count(n, flow.parameters.theta.nbytes), flow.parameters.theta.size))
        log_prob, dx = np.zeros(n), np.empty((n, 3))
        evaluation.accumulate(executable, flow.state(), x, given, dlog, buffers, log_prob=log_prob, dy=dy, dx=dx,
                              inverse=inverse, key=12, origin=5000)  # fmt: skip
        results.append((log_prob, dx, buffers.sum(axis=0)[free]))
    for own, expected in zip(*results):
        np.testing.assert_allclose(own, expected, rtol=1e-8, atol=1e-9)
