"""Weights: a row of weight 2 is two rows, and how many rows all of them are worth."""

import copy
import json
import pickle

import helpers
import numpy as np
import pytest
from helpers import COPIES_TOLD, SHARED_TOLD, fitted

import npflows
from npflows import MAF, ConditionalRealNVP, NeuralSplineFlow, RealNVP
from npflows.support import interval, periodic, positive

pytestmark = [COPIES_TOLD, SHARED_TOLD]
RNG = np.random.default_rng(0)
X, C = RNG.uniform(0.1, 0.9, (2, 80, 2))
TWICE = RNG.random(80) < 0.4
WEIGHT = 1.0 + TWICE
AGAIN = np.concatenate([np.arange(80), np.flatnonzero(TWICE)])

MODELS = {
    "MAF": lambda **o: MAF(2, 2, (8,), **o),
    "RealNVP, Student's t": lambda **o: RealNVP(2, 2, (8,), base_distribution="student_t", **o),
    "NSF": lambda **o: NeuralSplineFlow(2, 2, (8,), 4, **o),
    "NSF, supports": lambda **o: NeuralSplineFlow(
        2, 2, (8,), 4, linear="permutation", support=[periodic(0, 1), positive()], **o
    ),
    "ActNorm, support": lambda **o: MAF(2, 2, (8,), actnorm=True, support=[interval(0, 1), positive()], **o),
    "condition": lambda **o: ConditionalRealNVP(2, 2, 2, (8,), actnorm=True, embedding_dims=(4, 2), **o),
}
for_every_model = pytest.mark.parametrize("model", MODELS)


def flow_of(model, strength=0.2):
    flow = MODELS[model](rng=0, dtype="float64")
    flow.params = flow.params + strength * np.random.default_rng(1).normal(size=flow.num_params)
    return flow


def given(flow, rows=slice(None), name="condition"):
    return {name: C[rows]} if flow.condition_dim else {}


@for_every_model
def test_a_row_of_weight_2_is_two_rows_in_the_loss_and_its_gradient(model):
    flow = flow_of(model)
    weighted, repeated = flow.nll_and_grad(X, WEIGHT, **given(flow)), flow.nll_and_grad(X[AGAIN], **given(flow, AGAIN))
    assert weighted[0] == pytest.approx(repeated[0], rel=1e-12)
    np.testing.assert_allclose(weighted[1], repeated[1], rtol=1e-9, atol=1e-13)
    assert abs(weighted[0] - flow.nll_and_grad(X, **given(flow))[0]) > 1e-4
    scaled = flow.nll_and_grad(X, 1000 * WEIGHT, **given(flow))
    assert scaled[0] == pytest.approx(weighted[0], rel=1e-12)


@for_every_model
def test_a_row_of_weight_2_is_two_rows_in_what_is_set_from_the_data(model):
    """Standardization of values and conditions, and ActNorm."""
    options = {"max_epochs": 0, "validation_fraction": 0.0}
    weighted = fitted(flow_of(model), X, sample_weight=WEIGHT, **options, **given(flow_of(model)))
    repeated = fitted(flow_of(model), X[AGAIN], **options, **given(flow_of(model), AGAIN))
    np.testing.assert_allclose(weighted.standardize.table, repeated.standardize.table, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(weighted.conditioning.table, repeated.conditioning.table, rtol=1e-12)
    np.testing.assert_allclose(weighted.params, repeated.params, rtol=1e-9, atol=1e-12)
    plain = fitted(flow_of(model), X, **options, **given(flow_of(model)))
    assert abs(weighted.standardize.table - plain.standardize.table).max() > 1e-3
    assert not weighted.data_dependent_layers or not np.allclose(weighted.params, plain.params, atol=1e-3)


@for_every_model
def test_a_row_of_weight_2_is_two_rows_in_the_validation_loss(model):
    flow = flow_of(model)
    options = {"max_epochs": 1, "learning_rate": 1e-300, **given(flow)}
    losses = [
        fitted(flow, X, **options, validation_data=X[rows], validation_weight=weight,
               **given(flow, rows, "validation_condition")).history["validation_loss"][0]
        for rows, weight in ((slice(None), WEIGHT), (AGAIN, None), (slice(None), None))
    ]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    assert abs(losses[0] - losses[2]) > 1e-5


@for_every_model
def test_a_row_of_weight_2_is_two_rows_in_a_step(model):
    """A batch of all rows, so that nothing but the order of a sum is different."""
    options = {"max_epochs": 5, "batch_size": 1000, "validation_fraction": 0.0, "learning_rate": 1e-2}
    flows = [
        fitted(flow_of(model), X[rows], sample_weight=weight, **options, **given(flow_of(model), rows))
        for rows, weight in ((slice(None), WEIGHT), (AGAIN, None), (slice(None), 7 * WEIGHT))
    ]
    log_probs = [flow.log_prob(X, **given(flow)) for flow in flows]
    for flow, log_prob in zip(flows[1:], log_probs[1:]):
        np.testing.assert_allclose(log_prob, log_probs[0], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(flow.history["train_loss"], flows[0].history["train_loss"], rtol=1e-9)


def maf():
    return MAF(2, 1, (4,), rng=0)


def test_effective_rows_says_what_the_weights_are_worth():
    assert maf().effective_rows is None
    assert fitted(maf(), X, validation_fraction=0.0).effective_rows == 80
    assert fitted(maf(), X).effective_rows == 72  # a tenth is held out
    flow = fitted(maf(), X, sample_weight=5 * WEIGHT, validation_fraction=0.0)
    assert flow.effective_rows == pytest.approx(WEIGHT.sum() ** 2 / (WEIGHT**2).sum(), rel=1e-12)
    weight = np.where(np.arange(80) < 50, 1e-200, 0.0)
    assert fitted(maf(), X, sample_weight=weight, validation_fraction=0.0).effective_rows == pytest.approx(50)
    assert fitted(maf(), X, validation_data=X[:7]).effective_rows == 80
    repeated = fitted(maf(), X[AGAIN], validation_fraction=0.0).effective_rows
    assert repeated == pytest.approx(WEIGHT.sum() ** 2 / (WEIGHT**2).sum(), rel=1e-12)
    assert flow.reset(0).effective_rows is None


def test_weights_that_are_worth_few_rows_are_a_warning():
    weight = np.where(np.arange(80) < 10, 1.0, 1e-3)
    with pytest.warns(UserWarning, match=r"the weights are worth 10\.1 rows only, of 80: a few rows have most") as caught:
        fitted(maf(), X, sample_weight=weight, validation_fraction=0.0)
    assert caught[0].filename == helpers.__file__
    fitted(maf(), X, sample_weight=np.where(np.arange(80) < 25, 1.0, 1e-3), validation_fraction=0.0)
    fitted(maf(), X[:15])  # few rows, and that is not the weights' doing
    fitted(maf(), X[:15], sample_weight=WEIGHT[:15])


def test_effective_rows_is_saved_with_the_flow_and_older_files_have_none(tmp_path):
    flow, path = fitted(maf(), X, sample_weight=WEIGHT), tmp_path / "flow.npz"
    flow.save(path)
    for other in (npflows.load(path), pickle.loads(pickle.dumps(flow)), copy.deepcopy(flow)):
        assert other.effective_rows == flow.effective_rows
    maf().save(path)
    assert npflows.load(path).effective_rows is None
    with np.load(path) as content:
        arrays = {name: content[name] for name in content.files if name != "checksum"}
    for value in (..., "many", [3.0]):
        about = json.loads(str(arrays["about"]))
        del about["effective_rows"], about["checksum"]  # which older files lack too
        if value is ...:
            np.savez(path, **{**arrays, "about": np.array(json.dumps(about))})
            assert npflows.load(path).effective_rows is None
            continue
        np.savez(path, **{**arrays, "about": np.array(json.dumps({**about, "effective_rows": value}))})
        with pytest.raises(npflows.FlowFileError, match=r"effective_rows is .* expected a number"):
            npflows.load(path)


def test_effective_rows_is_there_after_a_resume(tmp_path):
    options = {"sample_weight": WEIGHT, "checkpoint": tmp_path / "run.npz"}
    first = fitted(maf(), X, **options, callbacks=lambda flow, record: record["epoch"] == 1)
    second = fitted(maf(), X, **options, resume=True)
    assert first.effective_rows == second.effective_rows == npflows.load(options["checkpoint"]).effective_rows


LOG_WEIGHT = -0.5 * ((3 * (X - 0.5)) ** 2).sum(axis=1)


def test_logarithms_of_weights_are_as_good_as_weights():
    options = {"max_epochs": 3, "validation_data": X[:9]}
    log_weight = np.where(np.arange(80) < 5, -np.inf, LOG_WEIGHT)
    flows = [
        fitted(maf(), X, **options, **given)
        for given in (
            {"log_weight": log_weight, "validation_log_weight": LOG_WEIGHT[:9]},
            {"log_weight": log_weight + 4000, "validation_log_weight": LOG_WEIGHT[:9] - 9000},
            {"sample_weight": np.exp(log_weight), "validation_weight": np.exp(LOG_WEIGHT[:9])},
        )
    ]
    for flow in flows[1:]:
        np.testing.assert_allclose(flow.params, flows[0].params, rtol=1e-4, atol=1e-6)
        assert flow.effective_rows == pytest.approx(flows[0].effective_rows)
    losses = [flow.nll_and_grad(X, **given)[0] for flow in flows[:1]
              for given in ({"log_weight": LOG_WEIGHT - 5000}, {"sample_weight": np.exp(LOG_WEIGHT)})]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    tables = [MAF(2, 2, (8,), actnorm=True, rng=0).initialize(X, **given)
              for given in ({"log_weight": LOG_WEIGHT + 3000}, {"sample_weight": np.exp(LOG_WEIGHT)})]  # fmt: skip
    np.testing.assert_allclose(tables[0].standardize.table, tables[1].standardize.table, rtol=1e-12)


@pytest.mark.parametrize("exponent", [1020, 900, 500, -500, -900, -960])
def test_weights_near_the_ends_of_the_range_of_floats_are_weights(exponent):
    weights = np.exp(LOG_WEIGHT), np.ldexp(np.exp(LOG_WEIGHT), exponent)
    with np.errstate(all="raise", under="ignore"):
        flows = [fitted(maf(), X, sample_weight=weight) for weight in weights]
        losses = [flows[0].nll_and_grad(X, weight)[0] for weight in weights]
    np.testing.assert_array_equal(flows[0].params, flows[1].params)
    assert flows[0].effective_rows == flows[1].effective_rows
    assert losses[0] == losses[1]


def test_equal_rows_of_huge_weights_add_up():
    same = [fitted(maf(), X[AGAIN], sample_weight=np.full(len(AGAIN), w)).effective_rows for w in (1.0, 1e308)]
    assert same[0] == same[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"log_weight": np.zeros(80), "sample_weight": WEIGHT}, "give sample_weight or log_weight, not both"),
        ({"log_weight": np.zeros(79)}, r"log_weight must have length 80, one for each row, got shape \(79,\)"),
        ({"log_weight": np.full(80, np.nan)}, "log_weight must be finite, or -inf for a weight of 0; entry 0 is nan"),
        ({"log_weight": np.append(np.zeros(79), np.inf)}, "entry 79 is inf"),
        ({"log_weight": np.full(80, -np.inf)}, "log_weight must not be -inf for all rows"),
        ({"validation_data": X[:2], "validation_log_weight": [np.nan, 0.0]}, "validation_log_weight must be finite"),
        ({"validation_log_weight": np.zeros(80)}, "validation_log_weight and validation_condition belong to"),
        ({"sample_weight": np.append(WEIGHT[:79], -2.0)}, "must not be negative; entry 79 is -2, and 1 of 80 are"),
    ],
)
def test_bad_logarithms_and_negative_weights_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fitted(maf(), X, **options)
