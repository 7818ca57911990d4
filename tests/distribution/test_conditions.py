"""Conditional flows: what a condition does, and that none is ever made up."""

import copy
import math
import pickle

import numpy as np
import pytest
from helpers import SHARED_TOLD, fitted

import npflows
from npflows import (
    IAF,
    MAF,
    ConditionalNormalizingFlow,
    ConditionalRealNVP,
    CouplingLayer,
    NeuralSplineFlow,
    NormalizingFlow,
    RealNVP,
    one_hot,
)
from npflows.backends.cpu.program import CompiledProgram
from npflows.distribution import transformed

RNG = np.random.default_rng(0)
X, C = RNG.normal(size=(2, 40, 2))
MODELS = {
    "MAF": lambda **o: MAF(2, 2, (8,), **o),
    "IAF": lambda **o: IAF(2, 2, (8,), **o),
    "RealNVP": lambda **o: RealNVP(2, 2, (8,), **o),
    "NSF": lambda **o: NeuralSplineFlow(2, 2, (8,), 4, affine_ends=False, **o),
    "NSF, autoregressive": lambda **o: NeuralSplineFlow(2, 2, (8,), 4, conditioner="autoregressive", **o),
    "conditional RealNVP": lambda **o: ConditionalRealNVP(2, o.pop("condition_dim"), 2, (8,), **o),
    "image": lambda **o: RealNVP((2, 1, 1), 2, (8,), **o),
    "conditional image": lambda **o: ConditionalRealNVP((2, 1, 1), o.pop("condition_dim"), 2, (8,), **o),
    "layers": lambda condition_dim, **o: ConditionalNormalizingFlow(
        [CouplingLayer([0, 1], (8,), condition_dim=condition_dim, rng=0)]
    ),
}
for_every_model = pytest.mark.parametrize("model", MODELS)


def conditional(model="MAF", condition_dim=2, strength=0.3, **options):
    """A flow on which the condition has an effect."""
    flow = MODELS[model](**{"condition_dim": condition_dim, "rng": 0, **options})
    flow.params = flow.params + strength * np.random.default_rng(1).normal(size=flow.num_params)
    return flow


def flat(x):
    return np.reshape(x, (*np.shape(x)[: -3 if np.ndim(x) > 3 else -1], -1))


CALLS = {
    "forward": lambda flow, c: flow.forward(X, condition=c),
    "inverse": lambda flow, c: flow.inverse(X, condition=c),
    "forward_vjp": lambda flow, c: flow.forward_vjp(X, X, condition=c),
    "inverse_vjp": lambda flow, c: flow.inverse_vjp(X, X, condition=c),
    "log_prob": lambda flow, c: flow.log_prob(X, condition=c),
    "log_prob_and_grad": lambda flow, c: flow.log_prob_and_grad(X, condition=c),
    "nll_and_grad": lambda flow, c: flow.nll_and_grad(X, condition=c),
    "bits_per_dim": lambda flow, c: flow.bits_per_dim(X, condition=c),
    "calling it": lambda flow, c: flow(X, condition=c),
    "sample": lambda flow, c: flow.sample(40, 0, condition=c),
    "generate": lambda flow, c: flow.generate(40, 0, condition=c),
    "sample_and_log_prob": lambda flow, c: flow.sample_and_log_prob(40, 0, condition=c),
    "initialize": lambda flow, c: flow.initialize(X, condition=c),
    "fit": lambda flow, c: fitted(flow, X, condition=c),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_missing_condition_is_an_error_and_so_is_one_that_is_not_wanted(call):
    flow, without = conditional(), MAF(2, 2, (8,), rng=0)
    before = flow.params
    with pytest.raises(ValueError, match="this flow needs a condition of 2 values for each sample: pass condition="):
        CALLS[call](flow, None)
    for given in (C, C[0], np.zeros(2), 0.0):
        with pytest.raises(ValueError, match=r"this flow takes no condition \(condition_dim=0\), but one was given"):
            CALLS[call](without, given)
    np.testing.assert_array_equal(flow.params, before)
    for given, message in ((C[:, :1], r"condition must have shape \(n, 2\), got \(40, 1\)"),
                           (C[:39], "one row, or one for each of the 40 samples, got 39"),
                           (C.T, r"condition must have shape \(n, 2\), got \(2, 40\)")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            CALLS[call](flow, given)
    with pytest.raises(TypeError, match="condition must be an array of numbers"):
        CALLS[call](flow, [["a", "b"]])


def test_sample_each_needs_conditions_as_well():
    with pytest.raises(ValueError, match="sample_each needs conditions"):
        conditional().sample_each(3, None)
    with pytest.raises(ValueError, match=r"takes no condition \(condition_dim=0\): use sample"):
        MAF(2, 1, (8,)).sample_each(3, C)
    with pytest.raises(ValueError, match=r"condition must have shape \(n, 2\), got \(40, 1\)"):
        conditional().sample_each(3, C[:, :1])


@SHARED_TOLD
def test_validation_rows_need_their_own_conditions():
    with pytest.raises(ValueError, match="this flow needs a condition"):
        fitted(conditional(), X, condition=C, validation_data=X)
    with pytest.raises(ValueError, match="belong to validation_data, which is missing"):
        fitted(conditional(), X, condition=C, validation_condition=C)
    flow = fitted(
        conditional(),
        X,
        condition=C,
        validation_data=X[:10],
        validation_condition=C[:10],
        max_epochs=1,
        learning_rate=1e-30,
    )
    assert flow.history["validation_loss"][0] == pytest.approx(-flow.log_prob(X[:10], C[:10]).mean(), rel=1e-5)


@for_every_model
def test_one_condition_is_for_all_samples_and_n_conditions_are_taken_one_for_one(model):
    flow = conditional(model)
    one = flow.sample(40, 3, condition=C[0])
    np.testing.assert_array_equal(flow.sample(40, 3, condition=C[:1]), one)
    np.testing.assert_array_equal(flow.sample(40, 3, condition=np.tile(C[0], (40, 1))), one)
    each = flow.sample(40, 3, condition=C)
    np.testing.assert_allclose(each[0], one[0], rtol=1e-5, atol=1e-6)
    assert not np.allclose(each[1:], one[1:], atol=1e-3)
    backwards = flow.sample(40, 3, condition=C[::-1])
    np.testing.assert_allclose(backwards[20], flow.sample(40, 3, condition=C[19])[20], rtol=1e-5, atol=1e-6)
    log_prob = flow.log_prob(one, C[0])
    np.testing.assert_array_equal(flow.log_prob(one, np.tile(C[0], (40, 1))), log_prob)
    assert flow.log_prob(one[5], C[0]) == pytest.approx(log_prob[5], rel=1e-5)
    assert not np.allclose(flow.log_prob(one, C[1]), log_prob, atol=1e-3)


@for_every_model
def test_sample_each_gives_n_samples_for_each_condition(model, monkeypatch):
    flow = conditional(model)
    shape = flow.input_shape
    samples = flow.sample_each(50, C[:7], 3)
    assert samples.shape == (7, 50, *shape)
    np.testing.assert_array_equal(samples.reshape(-1, *shape), flow.sample(350, 3, condition=np.repeat(C[:7], 50, axis=0)))
    monkeypatch.setattr(transformed, "CHUNK", 120)  # in pieces of two conditions
    np.testing.assert_allclose(flow.sample_each(50, C[:7], 3), samples, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(transformed, "CHUNK", 7)  # more samples than fit into a piece
    assert flow.sample_each(50, C[:7], 3).shape == (7, 50, *shape)
    assert flow.sample_each(50, C[0], 3).shape == (1, 50, *shape)
    assert flow.sample_each(0, C[:7], 3).shape == (7, 0, *shape)
    assert flow.sample_each(5, np.zeros((0, 2)), 3).shape == (0, 5, *shape)


def test_samples_of_each_condition_are_where_it_says():
    centers = RNG.normal(size=(5, 2)) * 3
    c = np.repeat(centers, 200, axis=0)
    flow = fitted(
        MAF(2, 2, (8,), condition_dim=2, rng=0),
        c + 0.1 * RNG.normal(size=c.shape),
        condition=c,
        max_epochs=60,
        learning_rate=1e-2,
    )
    samples = flow.sample_each(300, centers, 0)
    np.testing.assert_allclose(samples.mean(axis=1), centers, atol=0.2)


def test_ten_thousand_conditions_are_one_run(monkeypatch):
    runs, transport = [], CompiledProgram.transport

    def counted(self, state, x, *arguments, **options):
        runs.append(len(x))
        transport(self, state, x, *arguments, **options)

    monkeypatch.setattr(CompiledProgram, "transport", counted)
    flow, c = conditional(embedding_dims=(6, 3)), RNG.normal(size=(10000, 2))
    flow.sample(10000, 0, condition=c)
    flow.sample_each(1, c, 0)
    flow.log_prob(np.zeros((10000, 2)), c)
    assert runs == [10000] * 3


@for_every_model
def test_a_condition_is_standardized_from_the_training_rows(model):
    """Powers of 2, so that standardized values have the same bits."""
    x = X.reshape(40, *MODELS[model](condition_dim=2).input_shape)
    plain, scaled = (fitted(MODELS[model](condition_dim=2, rng=0), x, condition=c) for c in (C, C * [1024.0, 0.25]))
    np.testing.assert_array_equal(scaled.params, plain.params)
    np.testing.assert_array_equal(scaled.log_prob(x, C * [1024.0, 0.25]), plain.log_prob(x, C))
    moved = fitted(MODELS[model](condition_dim=2, rng=0), x, condition=58000 + 0.003 * C)
    np.testing.assert_allclose(moved.log_prob(x, 58000 + 0.003 * C), plain.log_prob(x, C), atol=2e-3)


def test_the_standardization_of_conditions_is_weighted_set_once_and_forgotten_by_reset():
    weight = np.where(np.arange(40) < 20, 1.0, 3.0)
    flow = fitted(conditional(), X, condition=C, sample_weight=weight, validation_fraction=0.0)
    loc = np.average(C, axis=0, weights=weight)
    np.testing.assert_allclose(flow.conditioning.table[0], loc)
    np.testing.assert_allclose(flow.conditioning.table[1], np.sqrt(np.average((C - loc) ** 2, axis=0, weights=weight)))
    fitted(flow, X, condition=100 * C, validation_fraction=0.0)
    np.testing.assert_allclose(flow.conditioning.table[0], loc)
    flow.reset(0)
    assert flow.conditioning.table.size == 0
    assert fitted(conditional(), X, condition=C, standardize=False).conditioning.table.size == 0


def test_a_constant_condition_is_no_trouble():
    c = np.column_stack([C[:, 0], np.full(40, 7.0)])
    with pytest.warns(UserWarning, match="column 1 of the condition has one value"):
        flow = fitted(conditional(), X, condition=c)
    assert np.isfinite(flow.log_prob(X, c)).all()
    assert np.isfinite(flow.log_prob(X, [0.0, 8.0])).all()


def test_a_condition_that_is_not_finite_is_named_and_dropped_if_wanted():
    c = C.copy()
    c[3, 1], c[5, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"the condition of x has NaN or infinite values in 2 rows \(3, 5\); clean"):
        fitted(conditional(), X, condition=c)
    with pytest.raises(ValueError, match=r"x or its condition has NaN or infinite values in 3 rows .*, columns 1; clean"):
        fitted(conditional(), np.where(np.arange(40)[:, None] == [50, 7, 50][: X.shape[1]], np.nan, X), condition=c)
    good = np.isfinite(c).all(axis=1)
    with pytest.warns(UserWarning, match="dropped 2 of 40 rows"):
        dropped = fitted(conditional(), X, condition=c, on_invalid="drop")
    np.testing.assert_array_equal(dropped.params, fitted(conditional(), X[good], condition=C[good]).params)
    log_prob = dropped.log_prob(X, c)
    np.testing.assert_array_equal(np.isfinite(log_prob), good)
    assert np.isnan(log_prob[3])


@for_every_model
def test_for_each_condition_the_density_integrates_to_one(model):
    flow = conditional(model, strength=0.1)
    axis = np.linspace(-12, 12, 401)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, *flow.input_shape)
    for c in C[:3]:
        assert np.exp(flow.log_prob(grid, c)).sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=2e-3)


@for_every_model
def test_copies_keep_what_was_learned_of_the_condition(model, tmp_path):
    flow = conditional(model)
    x = X.reshape(40, *flow.input_shape)
    fitted(flow, x, condition=100 + 5 * C).save(tmp_path / "flow.npz")
    for other in (npflows.load(tmp_path / "flow.npz"), pickle.loads(pickle.dumps(flow)), copy.deepcopy(flow)):
        assert type(other) is type(flow)
        np.testing.assert_array_equal(other.log_prob(x, 100 + 5 * C), flow.log_prob(x, 100 + 5 * C))
        np.testing.assert_array_equal(other.sample_each(3, 100 + C, 0), flow.sample_each(3, 100 + C, 0))


# the common base


def test_conditional_flows_have_one_base_which_wants_a_condition():
    assert issubclass(ConditionalRealNVP, ConditionalNormalizingFlow)
    assert issubclass(ConditionalRealNVP, RealNVP)
    message = "ConditionalNormalizingFlow needs layers with a condition, and none here has condition_dim above 0"
    with pytest.raises(ValueError, match=message):
        ConditionalNormalizingFlow([CouplingLayer([0, 1], (8,))])
    for width in (0, -1, None, 1.5):
        with pytest.raises(ValueError, match="condition_dim must be a whole number of at least 1, got"):
            ConditionalRealNVP(2, width)


def test_a_condition_of_another_width_than_the_layers_is_refused():
    layers = [CouplingLayer([0, 1], (8,), condition_dim=2)]
    for cls in (NormalizingFlow, ConditionalNormalizingFlow):
        with pytest.raises(ValueError, match="condition_dim is 3, and the layers take 2 values"):
            cls(layers, condition_dim=3)
        with pytest.raises(ValueError, match="the embedding gives 5 values where the layers take 2"):
            cls(layers, condition_dim=3, embedding_dims=(8, 5))
    with pytest.raises(ValueError, match=r"condition_dim \(with embedding_dims\) must be a whole number"):
        NormalizingFlow(layers, embedding_dims=(8, 2))


# embedding


def test_an_embedding_is_trained_with_the_flow_and_learns_what_matters():
    """The mean is a wiggle of the condition that layers without hidden units can't follow."""
    c = np.random.default_rng(0).uniform(-3, 3, (1500, 1))
    x = np.sin(2 * c) + 0.2 * np.random.default_rng(1).normal(size=(1500, 1))
    flow = MAF(1, 1, (), condition_dim=1, embedding_dims=(64, 32, 4), rng=0)
    before = {name: value.copy() for name, value in flow.named_params().items() if name.startswith("embedding.")}
    fitted(flow, x, condition=c, max_epochs=80, learning_rate=2e-2)
    assert len(before) == 6
    for name, value in before.items():
        assert not np.array_equal(flow.named_params()[name], value), name
    entropy = 0.5 * math.log(2 * math.pi * math.e * 0.2**2)
    without = fitted(MAF(1, 1, (), condition_dim=1, rng=0), x, condition=c, max_epochs=80, learning_rate=2e-2)
    assert -flow.log_prob(x, c).mean() < entropy + 0.1 < -without.log_prob(x, c).mean() - 0.3


@pytest.mark.parametrize("model", [name for name in MODELS if name != "layers"])
def test_every_model_takes_an_embedding(model):
    flow = conditional(model, 3, embedding_dims=(6, 2))
    assert flow.condition_dim == 3
    c = RNG.normal(size=(40, 3))
    x = X.reshape(40, *flow.input_shape)
    start = flow.nll_and_grad(x, condition=c)[0]
    fitted(flow, x, condition=c, max_epochs=20, learning_rate=1e-2, validation_fraction=0.0)
    assert flow.nll_and_grad(x, condition=c)[0] < start
    with pytest.raises(ValueError, match=r"embedding_dims|condition_dim must be .* at least 1"):
        MODELS[model](condition_dim=0, embedding_dims=(6, 2))


def test_an_embedding_that_is_no_list_of_widths_is_refused():
    for dims in ((0,), (3, 1.5), "3"):
        with pytest.raises(ValueError, match="embedding_dims must be whole numbers of at least 1"):
            MAF(2, condition_dim=2, embedding_dims=dims)


# class labels


def test_labels_become_conditions():
    np.testing.assert_array_equal(one_hot([2, 0, 1]), [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(one_hot([1, 0], 3), [[0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(one_hot(2, 4), [0, 0, 1, 0])
    np.testing.assert_array_equal(one_hot(np.array([True, False])), [[0, 1], [1, 0]])
    np.testing.assert_array_equal(one_hot([1.0, 0.0]), [[0, 1], [1, 0]])
    assert one_hot([], 3).shape == (0, 3)
    assert one_hot([3, 1]).dtype == np.float64


WRONG = {
    "negative": ([0, -1], None, ValueError, "labels must be at least 0, got -1 to 0"),
    "only negative": ([-2], None, ValueError, "labels must be at least 0, got -2 to -2"),
    "too high": ([0, 3], 3, ValueError, "labels must lie between 0 and 2, got 0 to 3"),
    "halves": ([0.5, 1], None, ValueError, "labels must be whole numbers in one dimension"),
    "NaN": ([np.nan, 1], None, ValueError, "labels must be whole numbers in one dimension"),
    "infinite": ([np.inf, 1], 2, ValueError, "labels must be whole numbers in one dimension"),
    "a column": ([[0], [1]], None, ValueError, r"whole numbers in one dimension, got int64 of shape \(2, 1\)"),
    "words": (["a", "b"], None, TypeError, "labels must be an array of numbers"),
    "no classes": ([0], 0, ValueError, "num_classes must be a whole number of at least 1, got 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_labels_are_refused(case):
    labels, n, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        one_hot(labels, n)


def test_a_flow_learns_what_each_class_looks_like():
    labels = np.random.default_rng(0).integers(0, 3, 1500)
    centers, spreads = np.array([[0.0, 3.0], [4.0, -1.0], [-3.0, 0.0]]), np.array([0.2, 1.0, 0.5])
    x = centers[labels] + spreads[labels, None] * np.random.default_rng(1).normal(size=(1500, 2))
    flow = ConditionalRealNVP(2, 3, 4, (16,), rng=0)
    fitted(flow, x, condition=one_hot(labels), max_epochs=60, learning_rate=1e-2)
    samples = flow.sample_each(2000, one_hot([0, 1, 2]), 3)
    np.testing.assert_allclose(samples.mean(axis=1), centers, atol=0.5)  # they lie 4 to 7 apart
    np.testing.assert_allclose(samples.std(axis=1), np.repeat(spreads[:, None], 2, axis=1), rtol=0.4)  # a factor of 2
    scores = np.column_stack([flow.log_prob(x, one_hot(k, 3)) for k in range(3)])
    assert (scores.argmax(axis=1) == labels).mean() > 0.97


def test_a_class_that_no_training_row_has_is_no_trouble():
    labels = RNG.integers(0, 2, 40)
    flow = fitted(MAF(2, 1, (8,), condition_dim=3, rng=0), X, condition=one_hot(labels, 3))
    assert np.isfinite(flow.log_prob(X, one_hot(2, 3))).all()


# with support


def test_conditions_and_supports_go_together():
    support = [npflows.support.positive(), npflows.support.integer(0, 3)]
    c = np.random.default_rng(0).normal(size=(600, 1))
    rng = np.random.default_rng(1)
    x = np.column_stack([np.exp(c[:, 0] + 0.1 * rng.normal(size=600)), rng.binomial(3, 1 / (1 + np.exp(-2 * c[:, 0])))])
    flow = NeuralSplineFlow(2, 2, (12,), 4, condition_dim=1, support=support, rng=0)
    fitted(flow, x, condition=c, max_epochs=40, learning_rate=1e-2)
    samples = flow.sample_each(2000, [[-1.5], [1.5]], 0)
    np.testing.assert_allclose(np.log(samples[..., 0]).mean(axis=1), [-1.5, 1.5], atol=0.2)
    np.testing.assert_allclose(samples[..., 1].mean(axis=1), 3 / (1 + np.exp([3.0, -3.0])), atol=0.35)
    assert (samples[..., 0] > 0).all()
    assert set(np.unique(samples[..., 1])) <= {0, 1, 2, 3}
    with pytest.raises(ValueError, match="this flow needs a condition"):
        flow.log_prob(x)


def test_conditions_that_are_missing_or_too_many_are_told():
    flow = conditional()
    with pytest.raises(ValueError, match=r"sample_each needs conditions \(m, 2\), got None"):
        flow.sample_each(3, None)
    with pytest.raises(ValueError, match="condition must have one row, got 40"):
        flow.marginal(0, condition=C)
