"""How the reference backend runs programs, and what else a backend does."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import npflows
from npflows.backends.cpu.adam import Adam
from npflows.backends.cpu.kernels.activations import ACTIVATIONS
from npflows.backends.reference import BACKEND
from npflows.core import evaluation
from npflows.core.backend import Result, State
from npflows.core.operations import (
    Affine,
    Autoregressive,
    ConvNet,
    Coupling,
    Custom,
    LULinear,
    Made,
    Mlp,
    Normal,
    Permutation,
    Placed,
    Program,
    Spline,
    Uniform,
)

FLOAT64 = np.dtype("float64")
EMPTY_1, EMPTY_2 = np.zeros(0), np.zeros((0, 0))
DROPOUT = {"dropout": 0.4}


def program(dropout=0.0, base=None):
    """A program with everything: standardization, an embedded condition, layers of three values and of the first two."""
    operations = [
        Coupling((0,), (1, 2), Mlp((6, 6), "tanh", dropout=dropout, condition_dim=2, n_in=1, n_out=4), Affine("tanh")),
        LULinear((1, 0)),
        Autoregressive((2, 0, 1), Made.of(3, 2, (6,), (1, 1, 1), activation="silu", dropout=dropout), Affine("tanh", True)),
        Permutation((1, 2, 0)),
        Mlp((4,), "silu", dropout=dropout, n_in=2, n_out=2),
        base or Normal(3, True),
    ]
    offsets = np.append(0, np.cumsum([operation.size for operation in operations]))
    *layers, embedding, base = map(Placed, operations, offsets.tolist())
    return Program(tuple(layers), 3, 3, base, 2, embedding, standardized=True), int(offsets[-1])


def setting(n=4, dropout=0.0, base=None):
    made, size = program(dropout, base)
    rng = np.random.default_rng(0)
    tables = [np.stack([rng.normal(size=d), scale, np.log(scale)]) for d in (3, 2) for scale in [rng.uniform(0.5, 2, d)]]
    state = State(0.4 * rng.normal(size=size), *tables)
    return BACKEND.compile(made, FLOAT64), made, state, rng.normal(size=(n, 3)), rng.normal(size=(n, 2))


def pull(executable, state, x, condition, dlog, dy=EMPTY_2, buffers=1, **options):
    """Everything that `pullback` fills."""
    n = len(x)
    out = {"log_prob": np.full(n, 7.0), "dx": np.empty((n, 3)), "dcondition": np.empty((n, 2))}
    gradients = np.full((buffers, state.theta.size), 7.0)
    executable.pullback(state, x, condition, dy, dlog, gradients, **out, **options)
    return out["log_prob"], out["dx"], out["dcondition"], gradients


def assert_slope(gradient, function, at):
    direction = np.random.default_rng(3).normal(size=at.shape)
    slope = (function(at + 1e-6 * direction) - function(at - 1e-6 * direction)) / 2e-6
    assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_gradients_of_the_density():
    executable, _, state, x, condition = setting(dropout=0.4)
    dlog = np.array([1.0, -0.5, 2.0, 0.3])

    def total(theta=state.theta, x=x, condition=condition):
        return dlog @ pull(executable, state._replace(theta=theta), x, condition, dlog, key=5, origin=10)[0]

    _, dx, dcondition, (gradient,) = pull(executable, state, x, condition, dlog, key=5, origin=10)
    assert_slope(dx, lambda x: total(x=x), x)
    assert_slope(dcondition, lambda c: total(condition=c), condition)
    assert_slope(gradient, lambda theta: total(theta=theta), state.theta)
    assert total() != dlog @ pull(executable, state, x, condition, dlog)[0]


@pytest.mark.parametrize("inverse", [False, True])
def test_gradients_of_the_map(inverse):
    executable, made, state, x, condition = setting()
    if not inverse:
        executable = BACKEND.compile(made.__class__(made.layers, 3, 3, None, 2, made.embedding, True), FLOAT64)
    rng = np.random.default_rng(1)
    dy, dlog = rng.normal(size=(4, 3)), rng.normal(size=4)

    def total(theta=state.theta, x=x, condition=condition):
        result = evaluation.transport(executable, state._replace(theta=theta), x, condition, inverse=inverse)
        return (dy * result.y).sum() + dlog @ result.log_det

    log_prob, dx, dcondition, (gradient,) = pull(executable, state, x, condition, dlog, dy, inverse=inverse)
    assert (log_prob == 7).all()  # there is none to fill in
    assert_slope(dx, lambda x: total(x=x), x)
    assert_slope(dcondition, lambda c: total(condition=c), condition)
    assert_slope(gradient, lambda theta: total(theta=theta), state.theta)


def test_round_trip_and_density():
    executable, made, state, x, condition = setting()
    z, log_det, log_prob = evaluation.transport(executable, state, x, condition, log_prob=True)
    back, log_det_back, _ = evaluation.transport(executable, state, z, condition, inverse=True)
    np.testing.assert_allclose(back, x, atol=1e-12)
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-12)
    loc, log_scale = state.theta[made.base.offset :].reshape(2, 3)
    q = (z - loc) / np.exp(log_scale)
    expected = (-0.5 * q**2 - log_scale - 0.5 * np.log(2 * np.pi)).sum(axis=1) + log_det
    np.testing.assert_allclose(log_prob, expected)


def test_log_det_is_that_of_the_jacobian_in_the_units_of_x():
    executable, _, state, x, condition = setting()
    moves = 1e-6 * np.eye(3)
    ends = [evaluation.transport(executable, state, x[:1] + sign * moves, condition[[0, 0, 0]]).y for sign in (1, -1)]
    expected = np.linalg.slogdet((ends[0] - ends[1]) / 2e-6)[1]
    assert evaluation.transport(executable, state, x, condition).log_det[0] == pytest.approx(expected, abs=1e-7)


def test_a_sample_keeps_its_random_mask_however_the_samples_are_cut():
    executable, _, state, x, condition = setting(n=30, dropout=0.4)
    dlog = np.ones(30)
    whole, part = (pull(executable, state, x[a:], condition[a:], dlog[a:], key=3, origin=100 + a)[0] for a in (0, 11))
    np.testing.assert_allclose(part, whole[11:], rtol=1e-13)


def test_a_table_longer_than_a_chunk():
    executable, _, state, x, condition = setting(n=20)
    expected = evaluation.transport(executable, state, x, condition, log_prob=True)
    executable.chunk_rows = 7
    for values, whole in zip(evaluation.transport(executable, state, x, condition, log_prob=True), expected):
        np.testing.assert_allclose(values, whole, rtol=1e-13)


def test_what_is_not_asked_for_is_not_computed_and_only_the_first_buffer_is_used():
    executable, _, state, x, condition = setting()
    out = Result(EMPTY_2, EMPTY_1, np.empty(4))
    executable.transport(state, x, condition, out)
    assert np.isfinite(out.log_prob).all()
    log_prob, *_, gradients = pull(executable, state, x, condition, np.ones(4), buffers=3)
    np.testing.assert_array_equal(log_prob, out.log_prob)
    assert gradients[0].any()
    assert not gradients[1:].any()
    dx = np.empty((4, 3))
    executable.pullback(state, x, condition, EMPTY_2, np.ones(4), np.empty((1, 0)), log_prob, dx, EMPTY_2)
    np.testing.assert_array_equal(dx, pull(executable, state, x, condition, np.ones(4))[1])
    assert executable.buffer_count(1000, 100) == 1


def test_parameters_of_float32_are_evaluated_in_float64():
    executable, _, state, x, condition = setting()
    narrow = state._replace(theta=state.theta.astype(np.float32))
    wide = state._replace(theta=narrow.theta.astype(np.float64))
    own, expected = (evaluation.transport(executable, s, x, condition).y for s in (narrow, wide))
    np.testing.assert_array_equal(own, expected)


def test_nan_gives_nan_and_what_is_out_of_range_has_no_density():
    executable, _, state, x, condition = setting(n=6)
    x[0, 1], condition[1, 0], x[2, 0], x[3, 2], condition[4, 1] = np.nan, np.nan, np.inf, 1e300, -np.inf
    log_prob = evaluation.transport(executable, state, x, condition, log_prob=True).log_prob
    np.testing.assert_array_equal(np.isnan(log_prob), [True, True, False, False, False, False])
    np.testing.assert_array_equal(np.isneginf(log_prob), [False, False, True, True, True, False])
    np.testing.assert_array_equal(log_prob, pull(executable, state, x, condition, np.ones(6))[0])


def test_outside_a_uniform_base_there_is_no_density():
    made = Program((), 2, 2, Placed(Uniform(2), 0))
    executable, state = BACKEND.compile(made, FLOAT64), State(np.array([0.0, 0.0, 1.0, 4.0]))
    log_prob = evaluation.transport(executable, state, np.array([[0.5, 3.0], [2.0, 3.0]]), None, log_prob=True).log_prob
    np.testing.assert_allclose(log_prob, [-np.log(4.0), -np.inf])
    without = BACKEND.compile(Program((), 2, 2), FLOAT64)
    with pytest.raises(ValueError, match="without a base distribution"):
        evaluation.transport(without, state, np.zeros((1, 2)), None, log_prob=True)


@pytest.mark.parametrize("as_base", [False, True])
def test_what_only_numba_can_run_is_refused_by_name(as_base):
    custom = Placed(Custom("MyLayer", 2, (), lambda link: [], 0), 0)
    made = Program((), 2, 2, custom) if as_base else Program((custom,), 2, 2)
    with pytest.raises(NotImplementedError, match=r"can't run MyLayer, which npflows.extend compiles with Numba"):
        BACKEND.compile(made, FLOAT64)


def test_wide_layers_are_run_on_fewer_samples():
    places = tuple(range(32 * 32))
    network = ConvNet(32, 32, (1, 512, 512, 2), places, tuple(range(2 * 32 * 32)), "relu")
    layer = Coupling(places, tuple(range(1024, 2048)), network, Affine("tanh"))
    wide, narrow = (BACKEND.compile(Program(layers, 2048, 2048), FLOAT64) for layers in ((Placed(layer, 0),), ()))
    assert 1 <= wide.chunk_rows < 64
    assert narrow.chunk_rows > 1000
    assert wide.rows_within(10**7) < narrow.rows_within(10**7) == 10**7 // 2048


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 1e-6)])
def test_the_optimizer_takes_the_compiled_steps(dtype, tolerance):
    rng = np.random.default_rng(0)
    start, free = rng.normal(size=50).astype(dtype), rng.uniform(size=50) < 0.8
    for decay, clip in ((0.0, None), (0.1, 2.0)):
        own = BACKEND.compile(Program((), 1, 1), np.dtype(dtype)).optimizer(start.copy(), free, decay, clip)
        compiled = Adam(start.copy(), free, decay, clip)
        for step in range(6):
            if step == 4:
                own.forget(), compiled.forget()
            buffers = (10.0**step * rng.normal(size=(3, 50))).astype(dtype)
            outcomes = [optimizer.step(buffers, 0.01) for optimizer in (own, compiled)]
            assert outcomes[0].taken
            assert outcomes[0].gradient_norm == pytest.approx(outcomes[1].gradient_norm, rel=tolerance)
            np.testing.assert_allclose(own.theta, compiled.theta, rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(own.theta[~free], start[~free])
        before, steps = own.theta.copy(), own.steps
        buffers[1, np.flatnonzero(free)[0]] = np.nan
        with np.errstate(invalid="ignore"):
            assert not own.step(buffers, 0.01).taken
        np.testing.assert_array_equal(own.theta, before)
        assert own.steps == steps == compiled.steps


def test_a_network_by_itself():
    flow = npflows.ConditionalNormalizingFlow(
        [npflows.CouplingLayer([1, 0], (4,), condition_dim=2, rng=0)], condition_dim=3, embedding_dims=(5, 2), rng=0
    )
    embedding = flow.conditioning.embedding
    x = np.random.default_rng(0).normal(size=(7, 3))
    operation = Mlp((5,), embedding.activation, n_in=3, n_out=2)
    own = BACKEND.network(operation, embedding.parameters.theta, x)
    np.testing.assert_allclose(own, embedding(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_activation_by_itself(name, dtype):
    values = np.linspace(-3, 3, 32).reshape(2, 16).astype(dtype)
    expected = values.copy()
    BACKEND.activate(name, values)
    ACTIVATIONS[name][0](expected, expected.copy())
    np.testing.assert_allclose(values, expected, rtol=1e-12 if dtype == "float64" else 1e-5, atol=1e-7)


@pytest.mark.parametrize("inverse", [False, True])
def test_a_spline_by_itself(inverse):
    rng = np.random.default_rng(0)
    transform = npflows.RationalQuadraticSplineTransform(5)
    widths, heights, derivatives = transform.constrain_parameters(
        *(rng.normal(size=(20, 2, k)) for k in (5, 5, 6))
    )  # fmt: skip
    x = rng.uniform(-4, 4, (20, 2))
    operation = Spline(5, 3.0, 1e-3, 1e-3, 1e-3)
    shares = [(sizes / 6.0 - 1e-3) / (1 - 5e-3) for sizes in (widths, heights)]
    constrained = np.concatenate([*shares, derivatives[..., 1:-1]], axis=-1)
    expected = transform.apply_spline(x, widths, heights, derivatives, inverse)
    for own, other in zip(BACKEND.spline(operation, x, constrained, inverse), expected):
        np.testing.assert_allclose(own, other, rtol=1e-11, atol=1e-11)


def test_it_imports_neither_numba_nor_scipy():
    code = (
        "import sys, types; package = types.ModuleType('npflows'); package.__path__ = [sys.argv[1]];"
        "backends = types.ModuleType('npflows.backends'); backends.__path__ = [sys.argv[1] + '/backends'];"
        "sys.modules.update({'npflows': package, 'npflows.backends': backends, 'numba': None, 'scipy': None});"
        "from npflows.backends.reference import BACKEND; print(BACKEND.name)"
    )
    folder = str(Path(npflows.__file__).parent)
    result = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "reference"
