"""The conditional mixture of normal distributions is zuko's and that of its formula, and its samples follow it; a flow on
it has the condition in everything, and what needs the base alone is refused."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from registry import both_dtypes, randomize

import npflows
from npflows import MAF, ConditionalGaussianMixture, CouplingLayer, MAFLayer, NormalizingFlow, Standardize
from npflows.backends.reference import BACKEND as REFERENCE
from npflows.core import backend, evaluation
from npflows.diagnostics import coverage, pit
from npflows.export.errors import NotExportableError
from npflows.export.tracing import trace
from npflows.hosts import frozen

ZUKO = Path(__file__).parents[1] / "fixtures" / "zuko" / "mixture.npz"


def alone(dim=2, condition_dim=1, n_components=3, dtype="float64", strength=0.8):
    """A flow that is nothing but the base."""
    base = ConditionalGaussianMixture(dim, condition_dim, n_components, (8,), dtype=dtype, rng=1)
    flow = NormalizingFlow([Standardize(dim, dtype=dtype)], base, dtype=dtype)
    rng = np.random.default_rng(2)
    flow.params = flow.params + strength * rng.normal(size=flow.num_params) / 3
    return flow


def numbers(flow, condition):
    """Weights, means and standard deviations that the network gives for one condition, by hand."""
    base, params = flow.base, flow.base.named_params()
    u = params["weight_0"] @ np.atleast_1d(condition) + params["bias_0"]
    raw = params["weight_1"] @ (u / (1 + np.exp(-u))) + params["bias_1"]
    k, table = base.n_components, (base.n_components, base.dim)
    weights = np.exp(raw[:k]) / np.exp(raw[:k]).sum()
    return weights, raw[k : k + k * base.dim].reshape(table), np.exp(raw[k + k * base.dim :]).reshape(table)


def test_numbers_are_zukos():
    given = np.load(ZUKO)
    base = ConditionalGaussianMixture(3, 2, 4, (8, 7), dtype="float64")
    flow = NormalizingFlow([Standardize(3, dtype="float64")], base, dtype="float64")
    flow.params = np.concatenate([given[name].ravel() for name in given if name.startswith("network.")])
    np.testing.assert_allclose(flow.log_prob(given["x"], given["condition"]), given["log_prob"], rtol=1e-12, atol=1e-12)
    _, dx, dcondition = flow.log_prob_and_grad(given["x"], given["condition"], wrt="both")
    np.testing.assert_allclose(dx, given["dx"], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(dcondition, given["dcondition"], rtol=1e-10, atol=1e-12)


@pytest.mark.nojit
@both_dtypes
def test_density_is_the_sum_of_scipys(dtype):
    flow, c = alone(dtype=dtype), np.linspace(-2, 2, 20)[:, None]
    x = flow.sample(20, 0, condition=c)
    expected = [
        np.log(sum(w * scipy.stats.norm(m, s).pdf(row).prod() for w, m, s in zip(*numbers(flow, one))))
        for row, one in zip(x, c)
    ]
    tolerance = {"float32": 2e-5, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(flow.log_prob(x, c), expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(flow.base_under(c).log_prob(x), expected, rtol=tolerance, atol=tolerance)


@both_dtypes
def test_a_sample_alone_has_the_same_bits(dtype):
    flow, c = alone(dtype=dtype), np.linspace(-2, 2, 20)[:, None]
    x = flow.sample(20, 0, condition=c)
    log_prob, dx, dcondition = flow.log_prob_and_grad(x, c, wrt="both")
    np.testing.assert_array_equal(flow.log_prob(x, c), log_prob)
    for i in range(20):
        single = flow.log_prob_and_grad(x[i], c[i], wrt="both")
        for found, expected in zip((flow.log_prob(x[i], c[i]), *single), (log_prob[i], log_prob[i], dx[i], dcondition[i])):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("condition", [-1.5, 0.0, 1.0])
def test_integral_is_one(condition):
    flow = alone(strength=0.4)
    side = np.linspace(-12, 12, 481)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    mass = np.exp(flow.log_prob(grid, [condition])).sum() * (side[1] - side[0]) ** 2
    assert mass == pytest.approx(1, abs=1e-6)


def on_layers(dtype="float64"):
    options = {"activation": "tanh", "condition_dim": 2, "dtype": dtype, "rng": 0}
    layers = [CouplingLayer([0, 1, 0], (8,), **options), MAFLayer(3, (8,), **options)]
    base = ConditionalGaussianMixture(3, 2, 3, (6, 5), dtype=dtype, rng=1)
    return randomize(NormalizingFlow(layers, base, condition_dim=4, embedding_dims=(5, 2), dtype=dtype, rng=0))


def test_gradients_are_those_of_differences():
    flow, rng, step = on_layers(), np.random.default_rng(0), 1e-5
    c, x = rng.normal(size=(12, 4)), rng.normal(size=(12, 3))
    _, dx, dcondition = flow.log_prob_and_grad(x, c, wrt="both")
    for found, move in ((dx, lambda d: (x + d, c)), (dcondition, lambda d: (x, c + d))):
        for i in range(found.shape[1]):
            d = step * np.eye(found.shape[1])[i]
            slope = (flow.log_prob(*move(d)) - flow.log_prob(*move(-d))) / (2 * step)
            np.testing.assert_allclose(found[:, i], slope, rtol=1e-6, atol=1e-7)
    start, (_, gradient) = flow.params, flow.nll_and_grad(x, condition=c)
    for i in range(flow.num_params):
        ends = []
        for sign in (1, -1):
            moved = start.copy()
            moved[i] += sign * step
            flow.params = moved
            ends.append(flow.nll_and_grad(x, condition=c)[0])
        assert gradient[i] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-7)


def test_dropout_is_the_same_on_either_backend():
    flow, rng = on_layers(), np.random.default_rng(0)
    program = flow.program().with_dropout(0.4)
    assert program.base.operation.conditioner.dropout == program.dropout == 0.4
    c, x = rng.normal(size=(40, 4)), rng.normal(size=(40, 3))
    results = []
    for one in (backend.select(), REFERENCE):
        executable, log_prob = one.compile(program, flow.dtype), np.empty(40)
        gradient = np.zeros((1, flow.parameters.theta.size))
        evaluation.accumulate(executable, flow.state(), x, c, np.ones(40), gradient, log_prob=log_prob, key=7)
        results.append((log_prob, gradient[0, flow.parameters.free]))
    for found, expected in zip(*results):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert not np.allclose(results[0][0], flow.log_prob(x, c))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_samples_follow_the_density(temperature):
    flow = alone()
    c = np.repeat([[-1.0], [0.3], [2.0]], 4000, axis=0)
    x, log_prob = flow.sample_and_log_prob(len(c), 5, temperature, condition=c)
    for i in range(0, len(c), 4000):
        part, (weights, loc, scale) = x[i : i + 4000], numbers(flow, c[i])
        center = weights @ loc
        plain = center + (part - center) / temperature
        density = sum(w * scipy.stats.norm(m, s).pdf(plain).prod(axis=1) for w, m, s in zip(weights, loc, scale))
        np.testing.assert_allclose(log_prob[i : i + 4000], np.log(density / temperature**2), rtol=1e-10, atol=1e-10)
        u = flow.base_under(c[i : i + 1]).cdf(plain)
        for column in u.T:  # uniform, and independent of each other
            assert scipy.stats.kstest(column, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(u.T)[0, 1]) < 4 / np.sqrt(len(u))
    np.testing.assert_array_equal(flow.sample(6, 1, condition=[0.3]), flow.sample(9, 1, condition=np.full((9, 1), 0.3))[:6])
    assert flow.sample_each(7, c[[0, 5000]], 0).shape == (2, 7, 2)
    for none in ([0.3], np.zeros((0, 1))):
        assert flow.sample(0, 1, temperature, condition=none).shape == flow.to_unit_cube(x[:0], none).shape == (0, 2)


def test_many_samples_are_those_of_the_parts(monkeypatch):
    flow, c = alone(), np.random.default_rng(0).normal(size=(50, 1))
    x = flow.sample(50, 3, condition=c)
    u = flow.to_unit_cube(x, c)
    monkeypatch.setattr("npflows.base.conditional_mixture.VALUES_AT_ONCE", 100)
    np.testing.assert_allclose(flow.sample(50, 3, condition=c), x, rtol=1e-12)
    np.testing.assert_allclose(flow.to_unit_cube(x, c), u, rtol=1e-12)


def test_there_and_back_by_the_unit_cube():
    flow, rng = on_layers(), np.random.default_rng(3)
    c = rng.normal(size=(30, 4))
    x = flow.sample(30, 2, condition=c)
    u = flow.to_unit_cube(x, c)
    assert ((u > 0) & (u < 1)).all()
    np.testing.assert_allclose(flow.from_unit_cube(u, c), x, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(flow.to_unit_cube(x[0], c[0]), u[0], rtol=1e-12)
    assert np.isfinite(flow.from_unit_cube(np.zeros((1, 3)), c[0])).all()


def test_diagnostics_know_the_condition():
    flow, c = on_layers(), np.random.default_rng(4).normal(size=(2000, 4))
    x = flow.sample(2000, 6, condition=c)
    assert pit(flow, x, c).p_value.min() > 1e-3
    found = coverage(flow, x, condition=c)
    np.testing.assert_allclose(found.ball, found.levels, atol=0.05)


def test_the_standardized_base_alone_has_the_condition():
    flow, rng = on_layers(), np.random.default_rng(4)
    x, c = rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
    result = flow.pullback(x, c, with_layers=False, dlog=np.ones(5), input=True)
    z, log_scale = (x - flow.standardize.loc) / flow.standardize.scale, np.log(flow.standardize.scale).sum()
    np.testing.assert_allclose(result.log_prob, flow.base_under(c).log_prob(z) - log_scale, rtol=1e-12)
    assert result.dcondition.any()


def test_a_frozen_column_is_that_of_its_condition():
    flow = alone(1)
    column = frozen(flow, [0.7])
    assert repr(flow.base_under([0.7])) == f"{flow.base!r} under one condition"
    weights, loc, scale = numbers(flow, 0.7)
    expected = scipy.stats.norm(loc[:, 0], scale[:, 0]).cdf(np.linspace(-3, 3, 9)[:, None]) @ weights
    np.testing.assert_allclose(column.cdf(np.linspace(-3, 3, 9)), expected, rtol=1e-9)
    np.testing.assert_allclose(column.cdf(column.ppf([0.1, 0.5, 0.9])), [0.1, 0.5, 0.9], rtol=1e-9)


def test_at_first_the_condition_has_no_effect():
    flow = NormalizingFlow([Standardize(2)], ConditionalGaussianMixture(2, 3, 4, rng=0))
    x, c = np.ones((1, 2)), np.eye(3)
    assert len(set(flow.log_prob(np.repeat(x, 3, axis=0), c))) == 1
    means = flow.base.named_params()["bias_2"][4:12]
    assert len(set(means)) == 8
    np.testing.assert_array_equal(means, ConditionalGaussianMixture(2, 3, 4, rng=0).named_params()["bias_2"][4:12])


def test_what_is_learned_depends_on_the_condition():
    rng = np.random.default_rng(0)
    c = rng.uniform(-1, 1, (4000, 1))
    sign = np.where(rng.random((4000, 1)) < 0.5 + 0.4 * np.sign(c), 1.0, -1.0)
    x = 3 * sign * (1 + c) + 0.3 * rng.normal(size=(4000, 1))
    base = ConditionalGaussianMixture(1, 1, 2, (16,), rng=0, dtype="float64")
    flow = NormalizingFlow([Standardize(1, dtype="float64")], base, dtype="float64")
    flow.fit(x, condition=c, max_epochs=60, learning_rate=1e-2, rng=0, progress=False)
    samples = flow.sample_each(2000, [[0.5], [-0.5]], rng=1)
    assert (samples[0] > 0).mean() == pytest.approx(0.9, abs=0.05)
    assert (samples[1] > 0).mean() == pytest.approx(0.1, abs=0.05)
    assert np.median(np.abs(samples[0])) == pytest.approx(4.5, abs=0.3)


def test_files_copies_and_pickles_have_the_same_bits(tmp_path):
    flow, rng = on_layers("float32"), np.random.default_rng(1)
    x, c = rng.normal(size=(9, 3)), rng.normal(size=(9, 4))
    flow.save(tmp_path / "flow.npz")
    for other in (npflows.load(tmp_path / "flow.npz"), copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        np.testing.assert_array_equal(other.log_prob(x, c), flow.log_prob(x, c))
        np.testing.assert_array_equal(other.sample(9, 0, condition=c), flow.sample(9, 0, condition=c))


def test_nan_stays_and_far_out_the_density_is_zero():
    flow = alone(dtype="float32")
    x = np.array([[0.0, np.nan], [0.0, 0.0], [np.inf, 0.0], [1e30, 0.0]])
    c = np.array([[0.0], [np.nan], [0.0], [0.0]])
    log_prob, dx, dcondition = flow.log_prob_and_grad(x, c, wrt="both")
    assert np.isnan(log_prob[:2]).all()
    assert (log_prob[2:] == -np.inf).all()
    assert not dx[2:].any()
    assert not dcondition[2:].any()


def mixture(width):
    return ConditionalGaussianMixture(2, width)


def under(flow, n):
    return flow.base_under(np.zeros((n, 1)))


WRONG = {
    "a width other than the layers'": (
        lambda: NormalizingFlow([MAFLayer(2, (4,), condition_dim=3)], mixture(2)),
        r"all layers and the base, 2 here, with a condition must have the same condition_dim, got \[2, 3\]",
    ),
    "a width other than the embedding's": (
        lambda: NormalizingFlow([Standardize(2)], mixture(2), condition_dim=4, embedding_dims=(5,)),
        "the embedding gives 5 values where the layers take 2",
    ),
    "a width other than the flow's": (
        lambda: NormalizingFlow([Standardize(2)], mixture(2), condition_dim=4),
        "condition_dim is 4, and the layers take 2 values",
    ),
    "a model without a condition": (
        lambda: MAF(2, 1, (4,), base_distribution=mixture(2)),
        "the base has condition_dim=2 where the layers see 0 values",
    ),
    "no condition": (lambda: alone().log_prob(np.zeros((1, 2))), "condition"),
    "no width": (lambda: mixture(0), "condition_dim must be a whole number of at least 1"),
    "an activation": (lambda: ConditionalGaussianMixture(2, 1, activation="gelu"), "activation must be one of"),
    "conditions of other samples": (
        lambda: under(alone(), 2).log_prob(np.zeros((3, 2))),
        "there must be one condition, or one for each of the 3 samples, got 2",
    ),
    "the base alone": (lambda: alone().base.sample(3), r"under each condition: use flow\.base_under\(condition\)"),
    "its center": (lambda: alone().base.center, r"under each condition: use flow\.base_under\(condition\)"),
    "its density": (lambda: alone().base.log_prob([[0.0, 0.0]]), r"use flow\.base_under\(condition\)"),
    "its cumulative distribution": (lambda: alone().base.cdf([[0.0, 0.0]]), r"use flow\.base_under\(condition\)"),
    "its quantiles": (lambda: alone().base.ppf([[0.5, 0.5]]), r"use flow\.base_under\(condition\)"),
    "the base under no condition": (
        lambda: alone().base_under(None),
        "ConditionalGaussianMixture needs a condition, got None",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_refused(what):
    make, message = WRONG[what]
    with pytest.raises(ValueError, match=message):
        make()


def test_a_model_takes_it():
    base = ConditionalGaussianMixture(2, 3, rng=0)
    flow = MAF(2, 1, (4,), base_distribution=base, condition_dim=5, embedding_dims=(4, 3), rng=0)
    assert flow.log_prob(np.zeros((4, 2)), np.ones(5)).shape == (4,)
    with pytest.raises(ValueError, match="fit_variational takes flows without a condition"):
        flow.fit_variational(lambda x: (x[:, 0], x))


@pytest.mark.parametrize("what", ["log_prob", "log_prob_and_grad", "sample"])
def test_files_of_c_and_onnx_have_no_such_base(what):
    with pytest.raises(NotExportableError, match=r"ConditionalGaussianMixture can't be exported: .*'forward' or 'inverse'"):
        trace(on_layers(), what)
    assert sorted(trace(on_layers(), "forward").outputs) == ["log_det", "z"]
