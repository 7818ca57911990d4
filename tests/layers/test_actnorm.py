"""ActNorm: set from data exactly once, layer after layer; and the warning for data far outside the splines."""

import copy
import pickle

import numpy as np
import pytest
from helpers import COPIES, Killed, kill_after, moments

import npflows
from npflows import ActNormLayer, LULinear, NormalizingFlow, Permutation

RNG = np.random.default_rng(0)
X = RNG.gamma(2.0, size=(400, 3)) @ RNG.normal(size=(3, 3)) * [1.0, 50.0, 1e-3] + [0.0, -300.0, 2.0]
OTHER = X.mean(axis=0) + 0.5 * (X - X.mean(axis=0)) + 0.3 * X.std(axis=0)
WEIGHT = RNG.uniform(0.1, 2.0, 400)
CONDITION = RNG.normal(size=(400, 1))
CONDITION = (CONDITION - CONDITION.mean()) / CONDITION.std()
OPTIONS = {"max_epochs": 2, "batch_size": 100, "rng": 2, "progress": False}
FIRST = {**OPTIONS, "max_epochs": 0, "validation_fraction": 0.0}


def nsf(dtype="float64", **options):
    return npflows.NeuralSplineFlow(3, 2, (8,), 4, actnorm=True, dtype=dtype, rng=1, **options)


MODELS = {
    "RealNVP": lambda **o: npflows.RealNVP(3, 2, (8,), actnorm=True, rng=1, **o),
    "MAF": lambda **o: npflows.MAF(3, 2, (8,), actnorm=True, rng=1, **o),
    "IAF": lambda **o: npflows.IAF(3, 2, (8,), actnorm=True, rng=1, **o),
    "NSF": lambda **o: npflows.NeuralSplineFlow(3, 2, (8,), 4, actnorm=True, rng=1, **o),
    "flow of layers": lambda dtype="float32": NormalizingFlow(
        [
            Permutation(3, dtype=dtype),
            ActNormLayer(3, dtype=dtype),
            npflows.MAFLayer(3, (8,), rng=1, dtype=dtype),
            LULinear(3, "natural", dtype=dtype),
            ActNormLayer(3, dtype=dtype),
        ],
        dtype=dtype,
    ),
}
every_model = pytest.mark.parametrize("model", MODELS)


def actnorms(flow):
    return [layer for layer in flow.flow_layers if isinstance(layer, ActNormLayer)]


def settings(flow):
    """Parameters of all ActNorm layers in one array."""
    return np.concatenate([layer.params for layer in actnorms(flow)])


def bent(flow, seed=3):
    """Move all parameters but those of ActNorm, so that no layer is the identity."""
    rng = np.random.default_rng(seed)
    for layer in flow.flow_layers:
        if not isinstance(layer, ActNormLayer):
            layer.params = layer.params + rng.normal(0, 0.2, layer.num_params)
    return flow


@pytest.fixture
def calls(monkeypatch):
    """Shapes of the rows with which ActNorm layers are initialized."""
    seen, original = [], ActNormLayer.initialize

    def spy(self, x, sample_weight=None):
        seen.append(np.shape(x))
        return original(self, x, sample_weight)

    monkeypatch.setattr(ActNormLayer, "initialize", spy)
    return seen


@pytest.mark.parametrize(("dtype", "room"), [("float32", 1e-3), ("float64", 1e-9)])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weights"])
def test_the_output_has_mean_0_and_variance_1_in_each_channel(weight, dtype, room):
    layer = ActNormLayer(3, dtype=dtype)
    assert not layer.initialized
    layer.initialize(X, weight)
    assert layer.initialized
    y, log_det = layer.forward(X)
    mean, variance = moments(y, weight)
    np.testing.assert_allclose(mean, 0, atol=room)
    np.testing.assert_allclose(variance, 1, rtol=room)
    scale = np.sqrt(moments(X, weight)[1])
    np.testing.assert_allclose(log_det, -np.log(scale).sum(), rtol=1e-6)


def test_a_row_of_weight_2_counts_as_two_rows():
    weight = np.where(X[:, 0] > 0, 2.0, 1.0)
    weighted, repeated, plain = (ActNormLayer(3, dtype="float64") for _ in range(3))
    weighted.initialize(X, weight)
    repeated.initialize(np.concatenate([X, X[weight == 2]]))
    plain.initialize(X)
    np.testing.assert_allclose(weighted.params, repeated.params, rtol=1e-12)
    assert np.abs(weighted.params - plain.params).max() > 0.01


def test_a_constant_channel_is_centered_and_keeps_its_scale():
    x = np.column_stack([X[:, 0], np.full(400, 58000.1), np.zeros(400)])
    layer = ActNormLayer(3, dtype="float64")
    layer.initialize(x)
    y, _ = layer.forward(x)
    np.testing.assert_allclose(y[:, 1:], 0, atol=1e-8)
    np.testing.assert_array_equal(layer.named_params()["logs"][1:], 0)
    assert y[:, 0].std() == pytest.approx(1)


@pytest.mark.parametrize("unit", [1e-30, 1e15])
def test_channels_in_extreme_units_are_normalized(unit):
    layer = ActNormLayer(3, dtype="float64")
    layer.initialize(X[:, :1] * [unit, 1.0, -unit])
    np.testing.assert_allclose(layer.forward(X[:, :1] * [unit, 1.0, -unit])[0].std(axis=0), 1, rtol=1e-9)


def test_one_row_is_only_centered():
    layer = ActNormLayer(3, dtype="float64")
    layer.initialize(X[:1])
    np.testing.assert_array_equal(layer.params, [0, 0, 0, *-X[0]])


WRONG = {
    "empty": (np.zeros((0, 3)), None, "at least one row, and finite values only"),
    "NaN": (np.where(np.arange(1200).reshape(400, 3) == 7, np.nan, X), None, "finite values only"),
    "infinite": (np.where(np.arange(1200).reshape(400, 3) == 7, np.inf, X), None, "finite values only"),
    "columns": (X[:, :2], None, r"x must have shape \(n, 3\), got \(400, 2\)"),
    "too few weights": (X, WEIGHT[:5], "sample_weight must have length 400"),
    "negative weights": (X, -WEIGHT, "sample_weight must not be negative"),
    "no weight": (X, 0 * WEIGHT, "sample_weight must not be all zero"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_what_it_can_not_start_from_is_refused(case):
    x, weight, message = case
    layer = ActNormLayer(3)
    flow = NormalizingFlow([layer, ActNormLayer(3)])
    for call in (layer.initialize, flow.initialize):
        with pytest.raises(ValueError, match=message):
            call(x, weight)
    assert not any(part.initialized for part in (layer, *actnorms(flow)))
    np.testing.assert_array_equal(np.concatenate([layer.params, flow.params]), 0)


def test_text_is_refused():
    with pytest.raises(TypeError, match="x must be an array of numbers"):
        ActNormLayer(2).initialize([["a", "b"]])


@every_model
def test_until_it_is_initialized_it_is_the_identity(model):
    flow = bent(MODELS[model](dtype="float64"))
    without = [layer for layer in flow.flow_layers if not isinstance(layer, ActNormLayer)]
    other = NormalizingFlow(without, dtype="float64")
    x = RNG.normal(size=(50, 3))
    np.testing.assert_array_equal(flow.log_prob(x), other.log_prob(x))
    assert not any(layer.initialized for layer in actnorms(flow))


def entering(flow, x):
    """The rows that enter each ActNorm layer, layer by layer, by the layers' own public methods."""
    rows = x
    for layer in flow.flow_layers:
        if isinstance(layer, ActNormLayer):
            yield layer, rows
        rows, _ = layer.forward(rows)


@every_model
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weights"])
def test_fit_initializes_layer_after_layer(model, weight, calls):
    flow = bent(MODELS[model](dtype="float64"))
    flow.fit(X, sample_weight=weight, **FIRST)
    assert calls == [(400, 3)] * 2
    for layer, rows in entering(flow, X):
        assert layer.initialized
        mean, variance = moments(layer.forward(rows)[0], weight)
        np.testing.assert_allclose(mean, 0, atol=1e-9)
        np.testing.assert_allclose(variance, 1, rtol=1e-9)
    assert np.abs(actnorms(flow)[-1].params).max() > 0.01, "nothing to normalize: the test shows nothing"


def test_fit_initializes_with_training_rows_alone():
    flow, other = nsf(), X * 100
    flow.fit(X, validation_data=other, **{**OPTIONS, "max_epochs": 0})
    expected = nsf().fit(X, **FIRST)
    np.testing.assert_allclose(settings(flow), settings(expected), rtol=1e-9, atol=1e-12)


CONDITIONS = {
    "standard": ({}, CONDITION),
    "in units of its own": ({}, 1000 + 50 * CONDITION),
    "embedding": ({"embedding_dims": (8, 3)}, CONDITION),
}


@pytest.mark.parametrize("case", CONDITIONS.values(), ids=CONDITIONS)
def test_fit_initializes_with_the_conditions_of_the_rows(case):
    options, condition = case
    flow = npflows.MAF(3, 2, (8,), actnorm=True, condition_dim=1, log_tails=None, dtype="float64", rng=1, **options)
    first = flow.flow_layers[2]
    first.params = first.params + np.random.default_rng(3).normal(0, 0.3, first.num_params)
    flow.fit(X, condition=condition, **FIRST)
    mean, variance = moments(flow.forward(X, condition)[0])  # what the second ActNorm gives: the last layer is the identity
    np.testing.assert_allclose(mean, 0, atol=1e-9)
    np.testing.assert_allclose(variance, 1, rtol=1e-9)
    assert np.abs(actnorms(flow)[1].params).max() > 0.1
    with pytest.raises(ValueError, match="needs a condition"):
        flow.initialize(X)


def test_a_large_table_is_sampled(monkeypatch, calls):
    monkeypatch.setattr("npflows.training.initialization.INITIAL_ROWS", 150)
    nsf().fit(X, **FIRST)
    assert calls == [(150, 3)] * 2


@every_model
def test_initialize_is_public_and_leaves_initialized_layers_alone(model, calls):
    flow = bent(MODELS[model](dtype="float64"))
    x = (X - X.mean(axis=0)) / X.std(axis=0)
    assert flow.initialize(x, WEIGHT) is flow
    for layer, rows in entering(flow, x):
        np.testing.assert_allclose(moments(layer.forward(rows)[0], WEIGHT)[1], 1, rtol=1e-9)
    before = flow.params
    flow.initialize(2 * x + 1)
    np.testing.assert_array_equal(flow.params, before)
    assert len(calls) == 2


def test_a_layer_that_is_initialized_already_stays_and_the_others_follow_it(calls):
    first = ActNormLayer(3, dtype="float64")
    first.initialize(X[:100] * 3)
    flow = NormalizingFlow([first, ActNormLayer(3, dtype="float64")], dtype="float64")
    flow.initialize(X)
    np.testing.assert_array_equal(flow.flow_layers[1].params, first.params)
    assert len(calls) == 2
    np.testing.assert_allclose(moments(flow.forward(X)[0])[1], 1, rtol=1e-9)
    assert np.abs(flow.flow_layers[2].params).max() > 0.1


def test_initialize_before_fit_does_no_harm():
    flow, expected = nsf().initialize(X), nsf()
    for one in (flow, expected):
        one.fit(X, **FIRST)
    assert -flow.log_prob(X).mean() < -expected.log_prob(X).mean() + 1


COPIES_AND_ITSELF = {
    "the flow itself": lambda flow, path: flow,
    "save and load in another dtype": lambda flow, path: (flow.save(path), npflows.load(path, dtype="float64"))[1],
    **COPIES,
}


@every_model
@pytest.mark.parametrize("how", COPIES_AND_ITSELF)
def test_once_fitted_it_is_never_set_from_data_again(how, model, tmp_path, calls):
    flow = MODELS[model]().fit(X, **OPTIONS)
    assert len(calls) == 2
    again = COPIES_AND_ITSELF[how](flow, tmp_path / "flow.npz")
    before, table = settings(again), again.standardize.table.copy()
    np.testing.assert_array_equal(before, settings(flow))
    again.fit(OTHER, **FIRST)
    again.initialize(OTHER)
    np.testing.assert_array_equal(settings(again), before)
    np.testing.assert_array_equal(again.standardize.table, table)
    assert len(calls) == 2


@pytest.mark.parametrize("how", COPIES_AND_ITSELF)
def test_what_was_never_fitted_can_still_be_set(how, tmp_path, calls):
    again = COPIES_AND_ITSELF[how](MODELS["flow of layers"](), tmp_path / "flow.npz")
    assert not any(layer.initialized for layer in actnorms(again))
    again.fit(X, **FIRST)
    assert len(calls) == 2


def test_a_copied_layer_knows_that_it_is_initialized():
    layer = ActNormLayer(3)
    layer.initialize(X)
    for again in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), NormalizingFlow([layer]).flow_layers[1]):
        assert again.initialized
        np.testing.assert_array_equal(again.params, layer.params)


def test_a_second_fit_goes_on_where_the_first_ended():
    flow = nsf().fit(X, **{**OPTIONS, "max_epochs": 20, "learning_rate": 1e-2})
    before = -flow.log_prob(X).mean()
    flow.fit(X, **{**OPTIONS, "learning_rate": 1e-6}, dropout=0)
    assert flow.history["train_loss"][0] == pytest.approx(before, abs=0.1)


def test_training_moves_it():
    start, flow = nsf().fit(X, **FIRST), nsf()
    flow.fit(X, **{**OPTIONS, "validation_fraction": 0.0, "max_epochs": 10, "learning_rate": 1e-2})
    assert (np.abs(settings(flow) - settings(start)) > 1e-4).mean() > 0.9


def test_reset_makes_it_possible_again(calls):
    flow = MODELS["MAF"]().fit(X, **OPTIONS)
    flow.reset(1)
    np.testing.assert_array_equal(settings(flow), 0)
    flow.fit(OTHER, **OPTIONS)
    assert len(calls) == 4
    np.testing.assert_array_equal(flow.params, MODELS["MAF"]().fit(OTHER, **OPTIONS).params)


@pytest.mark.parametrize("model", MODELS)
def test_a_resumed_run_is_not_initialized_again_and_has_the_same_bits(model, tmp_path, calls):
    options = {**OPTIONS, "max_epochs": 4, "checkpoint": tmp_path / "run.npz"}
    with pytest.raises(Killed):
        MODELS[model]().fit(X, callbacks=kill_after(2), **options)
    assert len(calls) == 2
    resumed = MODELS[model]().fit(X, resume=True, **options)
    assert len(calls) == 2
    assert all(layer.initialized for layer in actnorms(resumed))
    resumed.fit(OTHER, **FIRST)
    whole = MODELS[model]().fit(X, **{**OPTIONS, "max_epochs": 4})
    np.testing.assert_array_equal(resumed.params, whole.params)


def test_the_gradient_of_an_initialized_flow_is_that_of_its_loss():
    flow = bent(nsf(activation="tanh")).fit(X, **FIRST)
    params, (_, gradient) = flow.params, flow.nll_and_grad(X[:40])
    places = [flow.params.size]  # which parameters are those of ActNorm: they differ after a change
    for layer in actnorms(flow):
        layer.params = layer.params + 1.0
    places = np.flatnonzero(flow.params != params)
    assert len(places) == 12

    def loss(i, step):
        flow.params = params + step * (np.arange(params.size) == i)
        return -flow.log_prob(X[:40]).mean()

    differences = [(loss(i, 1e-6) - loss(i, -1e-6)) / 2e-6 for i in places]
    np.testing.assert_allclose(gradient[places], differences, rtol=1e-5, atol=1e-7)
    assert np.abs(gradient[places]).max() > 0.1


def test_layers_behind_columns_of_whole_numbers_are_set_from_random_places_of_their_cells():
    counts = np.column_stack([RNG.integers(0, 4, 500), RNG.normal(size=500)])
    columns = [npflows.support.integer(0, 3), npflows.support.real()]
    flow = npflows.MAF(2, 2, (8,), actnorm=True, support=columns, dtype="float64", rng=1)
    flow.initialize(counts)
    placed = counts + np.column_stack([np.random.default_rng(5).uniform(0.001, 0.999, 500), np.zeros(500)])
    h = flow.standardize.forward(flow.preprocessing.to_unconstrained(placed).t)[0]
    mean, variance = moments(actnorms(flow)[0].forward(h)[0])
    np.testing.assert_allclose(mean, 0, atol=0.15)
    np.testing.assert_allclose(variance, 1, atol=0.15)
    flow.reset(1).fit(counts, **OPTIONS)
    assert np.isfinite(flow.history["validation_loss"]).all()
