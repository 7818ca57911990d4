"""Every entry of the registry on every backend against the reference: values, densities, gradients, one row by itself,
random masks, and rows that are far out or not there."""

import os

import numpy as np
import pytest
from registry import (
    ALL,
    both_directions,
    both_dtypes,
    build,
    condition,
    data,
    for_every_model,
    for_everything,
    fresh,
    parts,
    randomize,
    source,
)

from npflows import NormalizingFlow
from npflows.backends.reference import BACKEND as REFERENCE
from npflows.core import backend as backends
from npflows.core import evaluation

SIMULATED = ["cuda"] if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" else []
NAMES = [name for name in (*backends.available_backends(), *SIMULATED) if name != "reference"]
BACKENDS = {name: backends.select(name) for name in NAMES}
for_every_backend = pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)

ROUNDING = {"float32": 5e-5, "float64": 1e-12}
"""How far values may be off, measured against the largest of their kind where that is above 1."""
OF_GRADIENTS = {"float32": 1e-3, "float64": 1e-9}


def assert_close(actual, expected, tolerance):
    """Equal up to rounding."""
    largest = np.abs(expected).max(initial=1.0, where=np.isfinite(expected))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * largest)


def compiled(obj, backend, with_base):
    """A layer or flow on a backend and on the reference, and what both are given besides samples and conditions."""
    is_flow = isinstance(obj, NormalizingFlow)
    program = obj.program(with_base=with_base) if is_flow else obj.program()
    executables = [one.compile(program, obj.dtype) for one in (backend, REFERENCE)]
    return executables, {"state": obj.state(), "bijection": obj.preprocessing.bijection if is_flow else None}


@pytest.mark.nojit
@for_every_backend
@both_dtypes
@both_directions
@for_everything
def test_the_map_is_the_same(name, direction, dtype, backend):
    obj = build(name, dtype)
    executables, given = compiled(obj, backend, with_base=False)
    x, context = source(obj, 12, direction), condition(obj, 12)
    options = given | {"inverse": direction == "inverse"}
    own, expected = (evaluation.transport(one, x=x, condition=context, **options) for one in executables)
    assert_close(own.y, expected.y, ROUNDING[dtype])
    assert_close(own.log_det, expected.log_det, ROUNDING[dtype])
    for i in range(2):  # in a block of one lane, where the backend has these
        row, seen = x[i : i + 1], None if context is None else context[i : i + 1]
        alone = evaluation.transport(executables[0], x=row, condition=seen, **options)
        assert_close(alone.y[0], expected.y[i], ROUNDING[dtype])
        assert_close(alone.log_det[0], expected.log_det[i], ROUNDING[dtype])


@for_every_backend
@both_dtypes
@both_directions
@for_everything
def test_gradients_of_the_map_are_the_same(name, direction, dtype, backend):
    obj = build(name, dtype)
    executables, given = compiled(obj, backend, with_base=False)
    x, context = source(obj, 20, direction), condition(obj, 20)
    rng = np.random.default_rng(6)
    given |= {"dy": rng.normal(size=x.shape), "dlog": rng.normal(size=20), "inverse": direction == "inverse"}
    own, expected = (evaluation.pullback(one, x=x, condition=context, input=True, **given) for one in executables)
    free = obj.parameters.free
    assert_close(own.dx, expected.dx, OF_GRADIENTS[dtype])
    assert_close(own.dcondition, expected.dcondition, OF_GRADIENTS[dtype])
    assert_close(own.gradient[free], expected.gradient[free], OF_GRADIENTS[dtype])
    given |= {"dy": given["dy"][:1], "dlog": given["dlog"][:1], "gradient": False}  # in a block of one lane
    alone = evaluation.pullback(executables[0], x=x[:1], condition=None if context is None else context[:1], input=True,
                                **given)  # fmt: skip
    assert_close(alone.dx, expected.dx[:1], OF_GRADIENTS[dtype])
    assert_close(alone.dcondition, expected.dcondition[:1], OF_GRADIENTS[dtype])


@pytest.mark.nojit
@for_every_backend
@both_dtypes
@for_every_model
def test_the_density_and_its_gradients_are_the_same(name, dtype, backend):
    flow = build(name, dtype)
    executables, given = compiled(flow, backend, with_base=True)
    x, context = data(flow, 12), condition(flow, 12)
    given |= {"condition": context, "dlog": np.random.default_rng(6).normal(size=12), "input": True}
    own, expected = (evaluation.pullback(one, x=x, **given) for one in executables)
    assert_close(own.log_prob, expected.log_prob, ROUNDING[dtype])
    free = flow.parameters.free
    assert_close(own.dx, expected.dx, OF_GRADIENTS[dtype])
    assert_close(own.dcondition, expected.dcondition, OF_GRADIENTS[dtype])
    assert_close(own.gradient[free], expected.gradient[free], OF_GRADIENTS[dtype])
    for rows in (slice(0, 12), slice(0, 1), slice(7, 8)):
        result = evaluation.transport(executables[0], given["state"], x[rows], None if context is None else context[rows],
                                      log_prob=True, bijection=given["bijection"])  # fmt: skip
        assert_close(result.log_prob, expected.log_prob[rows], ROUNDING[dtype])


def spoilt(x):
    """A copy of x (20, d) with rows that are far out, further and further, and rows with NaN."""
    x = x.copy()
    x[1:9] *= np.array([1e2, 1e3, 1e4, 1e6, -1e6, 1e10, -1e15, 1e30])[:, None]
    x[9, 0], x[10, -1], x[11], x[12, 0], x[13] = 1e5, -1e5, np.nan, np.nan, np.inf
    return x


@for_every_backend
@for_every_model
def test_far_out_and_where_there_is_nothing_the_density_is_the_same(name, backend):
    flow = build(name)
    executables, given = compiled(flow, backend, with_base=True)
    x, context = spoilt(data(flow, 20)), condition(flow, 20)
    own, expected = (
        evaluation.transport(one, x=x, condition=context, log_prob=True, **given).log_prob for one in executables
    )
    assert np.isnan(own[11:13]).all()
    assert own[13] == -np.inf
    np.testing.assert_allclose(own, expected, rtol=1e-9)


@for_every_backend
@both_directions
@for_everything
def test_far_out_the_map_is_the_same(name, direction, backend):
    obj = build(name)
    executables, given = compiled(obj, backend, with_base=False)
    x, context = spoilt(source(obj, 20, direction)), condition(obj, 20)
    given["inverse"] = direction == "inverse"
    own, expected = (evaluation.transport(one, x=x, condition=context, **given) for one in executables)
    near = (np.abs(x) < 1e6).all(axis=1)  # beyond it what circles leave of x is all rounding
    near &= np.isfinite(np.column_stack([expected.y, expected.log_det])).all(axis=1)  # inversely, tails overflow
    for i in np.flatnonzero(near):
        np.testing.assert_allclose(own.log_det[i], expected.log_det[i], rtol=1e-9, atol=1e-9)
        assert_close(own.y[i], expected.y[i], 1e-9)


def with_dropout(name):
    """The object with random masks in its networks; None where it has no network that could have any."""
    try:
        obj = randomize(ALL[name](dtype="float64", rng=np.random.default_rng(1), dropout=0.4))
    except (TypeError, ValueError):
        return None
    networks = [operation.conditioner for operation, _ in obj.program().layers if hasattr(operation, "conditioner")]
    return obj if any(getattr(network, "hidden", ()) for network in networks) else None


WITH_DROPOUT = [name for name in ALL if with_dropout(name) is not None]


def test_most_entries_have_networks_with_dropout():
    assert len(WITH_DROPOUT) > len(ALL) / 2


def step(executable, obj, direction, key, given):
    """log_prob, and the gradients of a train step whose first sample is number 5000."""
    n = 40
    x, context = source(obj, n, direction), condition(obj, n)
    rng = np.random.default_rng(6)
    dy, dlog = rng.normal(size=x.shape), rng.normal(size=n)
    size = obj.parameters.theta.size
    buffers = np.empty((executable.buffer_count(n, obj.parameters.theta.nbytes), size), obj.dtype)
    log_prob, dx, dcondition = np.zeros(n), np.empty(x.shape), np.empty((n, obj.condition_dim))
    evaluation.accumulate(executable, x=x, condition=context, dlog=dlog, buffers=buffers, log_prob=log_prob, dy=dy, dx=dx,
                          dcondition=dcondition, inverse=direction == "inverse", key=key, origin=5000, **given)  # fmt: skip
    return log_prob, dx, dcondition, buffers.sum(axis=0)[obj.parameters.free]


@for_every_backend
@both_directions
@pytest.mark.parametrize("name", WITH_DROPOUT)
def test_the_masks_of_a_train_step_are_the_same(name, direction, backend):
    obj = with_dropout(name)
    executables, given = compiled(obj, backend, with_base=True)
    own, expected = (step(one, obj, direction, 12, given) for one in executables)
    for values, wanted in zip(own, expected):
        assert_close(values, wanted, 1e-9)
    assert not np.allclose(own[-1], step(executables[0], obj, direction, 13, given)[-1])
    assert not np.allclose(own[-1], step(executables[0], obj, direction, 0, given)[-1])


@for_everything
def test_operations_name_the_parameters_that_there_are(name):
    obj = fresh(name)
    owners = [leaf for part in parts(obj) for leaf, _ in part.leaves() if part.program().layers]
    operations = [(owner, owner.operation()) for owner in owners]
    if isinstance(obj, NormalizingFlow):
        operations.append((obj.base, obj.base.operation()))
        if obj.conditioning.embedding is not None:
            operations.append((obj.conditioning.embedding, obj.conditioning.embedding.operation))
    for owner, operation in operations:
        assert list(operation.shapes.items()) == [(p.name, p.value.shape) for p in owner.parameters.entries]
        assert operation.size == owner.theta_size
    program = obj.program()
    placed = [*program.layers, *(one for one in (program.embedding, program.base) if one is not None)]
    ends = [offset + operation.size for operation, offset in placed]
    assert [offset for _, offset in placed] == [0, *ends[:-1]][: len(placed)]
    assert (ends or [0])[-1] == obj.theta_size
