"""Dropout acts in training alone, drops what it should, and its gradient is that of the network that is left."""

import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest

import npflows
from npflows.backends.cpu.kernels.dropout import dropout as drop
from npflows.training.dropout import as_dropout

FLOWS = {
    "tanh": lambda **o: npflows.MAF(3, 2, (8, 8), activation="tanh", **o),
    "elu": lambda **o: npflows.RealNVP(3, 2, (8,), activation="elu", **o),
    "silu, residual blocks": lambda **o: npflows.MAF(3, 2, (8,), activation="silu", residual_blocks=2, **o),
    "tanh, residual blocks": lambda **o: npflows.RealNVP(3, 2, (8,), activation="tanh", residual_blocks=1, **o),
    "spline": lambda **o: npflows.NeuralSplineFlow(3, 1, (8,), 3, activation="tanh", **o),
}


def random_flow(name, dropout):
    flow = FLOWS[name](dropout=dropout, dtype="float64", rng=0)
    flow.params = flow.params + 0.3 * np.random.default_rng(1).normal(size=flow.num_params)
    return flow


def training_loss(flow, x, key):
    """Loss and packed gradient of one training step."""
    gradient, log_prob = np.zeros((1, flow.parameters.theta.size)), np.empty(len(x))
    dlog = np.full(len(x), -1 / len(x))
    flow.accumulate(x, None, dlog, gradient, log_prob=log_prob, key=key)
    return -log_prob.mean(), gradient[0][flow.parameters.free]


@pytest.mark.parametrize("name", FLOWS)
def test_gradient_is_that_of_the_network_that_is_left(name):
    flow, rng = random_flow(name, 0.3), np.random.default_rng(2)
    x, direction = rng.normal(size=(40, 3)), rng.normal(size=flow.num_params)
    params, (_, gradient) = flow.params, training_loss(flow, x, 7)
    step, losses = 1e-5, []
    for sign in (1, -1):
        flow.params = params + sign * step * direction
        losses.append(training_loss(flow, x, 7)[0])
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(gradient @ direction, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", FLOWS)
def test_density_is_that_without_dropout(name):
    x = np.random.default_rng(0).normal(size=(20, 3))
    with_dropout, without = random_flow(name, 0.5), random_flow(name, 0.0)
    np.testing.assert_array_equal(with_dropout.log_prob(x), without.log_prob(x))
    assert training_loss(with_dropout, x, 1)[0] != training_loss(without, x, 1)[0]
    assert training_loss(with_dropout, x, 1)[0] != training_loss(with_dropout, x, 2)[0]


def test_training_has_the_same_bits_for_any_number_of_threads():
    x, params = np.random.default_rng(0).normal(size=(1500, 3)), []
    for n in (1, 2, 5):
        npflows.set_num_threads(n)
        flow = FLOWS["tanh"](dropout=0.2, rng=0)
        params.append(flow.fit(x, max_epochs=2, batch_size=700, rng=0).params.tobytes())
    npflows.set_num_threads(None)
    assert len(set(params)) == 1


def test_mask_drops_its_share_and_differs_from_sample_to_sample_unit_to_unit_layer_to_layer_and_step_to_step():
    def kept(key=1, first=0, layer=0, row=0):
        h = np.ones((50, 400), np.float32)
        drop(round(0.25 * 2**32), key, first, layer, row, h)
        assert set(np.unique(h)) == {np.float32(0), np.float32(1 / 0.75)}
        return h > 0

    here = kept()
    assert here.mean() == pytest.approx(0.75, abs=0.01)
    assert abs(here.mean(axis=0) - 0.75).max() < 0.35
    assert abs(here.mean(axis=1) - 0.75).max() < 0.1
    np.testing.assert_array_equal(kept(first=100)[:, :300], here[:, 100:])  # however samples are cut into blocks
    np.testing.assert_array_equal(kept(row=10)[:40], here[10:])
    for other in (kept(key=2), kept(layer=1), kept(first=400), kept(row=50)):
        assert (other == here).mean() == pytest.approx(0.75**2 + 0.25**2, abs=0.02)


def dropout_of_fit(n, dim=2, condition_dim=0, made_with=0.0, hidden=(64, 64), **options):
    """The share of hidden values that `fit` drops, from the checkpoint that it writes."""
    rng = np.random.default_rng(0)
    flow = npflows.MAF(dim, 1, hidden, condition_dim=condition_dim, dropout=made_with, rng=0)
    condition = rng.normal(size=(n, condition_dim)) if condition_dim else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.npz")
        flow.fit(rng.normal(size=(n, dim)), condition=condition, max_epochs=1, checkpoint=path, rng=0, **options)
        with np.load(path) as arrays:
            return json.loads(str(arrays["run_numbers"]))["options"]["dropout"]


def test_fit_drops_the_more_the_fewer_rows_there_are_for_the_columns():
    assert dropout_of_fit(2000) is None
    assert dropout_of_fit(400, validation_fraction=0) == pytest.approx(20 * 2 / 400)
    assert dropout_of_fit(400) == pytest.approx(20 * 2 / 360)  # the validation rows don't count
    assert dropout_of_fit(400, condition_dim=3, validation_fraction=0) == pytest.approx(20 * 5 / 400)
    assert dropout_of_fit(40) == 0.3
    assert dropout_of_fit(400, hidden=(8,)) is None  # so few parameters don't learn rows by heart
    assert dropout_of_fit(400, schedule="constant") is None


def test_fit_drops_for_longer_where_rows_are_fewer_still():
    flow = npflows.MAF(2, 1, (64, 64), rng=0)
    parts = [as_dropout("auto", flow, n_rows, "cosine").early for n_rows in (400, 134, 40, 10)]
    assert parts == pytest.approx([1 / 3, 1 / 3, (1 / 0.3) ** 0.5 / 3, 0.8])
    dropout = as_dropout("auto", flow, 40, "cosine")
    assert [dropout.at(step, 1000) for step in (0, 608, 609, 999)] == [0.3, 0.3, None, None]
    assert as_dropout(0.3, flow, 40, "cosine").at(999, 1000) == 0.3  # a given share is dropped to the end


def test_what_depends_sharply_on_a_condition_stays_sharp():
    """Dropout in all steps costs 1.3 nats here."""
    rng = np.random.default_rng(0)
    condition = 3 * rng.normal(size=(1300, 2))
    x = condition + 0.1 * rng.normal(size=condition.shape)
    scores = []
    for dropout in ("auto", 0):
        flow = npflows.NeuralSplineFlow(2, condition_dim=2, rng=0)
        flow.fit(x[:300], condition=condition[:300], dropout=dropout, rng=0)
        scores.append(flow.log_prob(x[300:], condition[300:]).mean())
    assert scores[0] > scores[1] - 0.4


def test_tables_of_many_columns_and_few_rows_are_fitted_better():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1300, 10)) @ rng.normal(size=(10, 10))
    flows = [npflows.NeuralSplineFlow(10, rng=0).fit(x[:300], dropout=dropout, rng=0) for dropout in ("auto", 0)]
    with_dropout, without = (flow.log_prob(x[300:]).mean() for flow in flows)
    assert with_dropout > without + 0.1


def test_rows_count_by_their_weights_and_without_their_copies():
    weight = np.where(np.arange(2000) < 400, 1.0, 1e-12)
    assert dropout_of_fit(2000, validation_fraction=0, sample_weight=weight) == pytest.approx(0.1)
    x = np.random.default_rng(0).normal(size=(400, 2))
    once, often = (npflows.MAF(2, 1, (64, 64), rng=0) for _ in range(2))
    once.fit(x, max_epochs=2, validation_fraction=0, rng=0)
    with pytest.warns(UserWarning, match="400 distinct rows are left"):
        often.fit(np.tile(x, (5, 1)), max_epochs=2, validation_fraction=0, rng=0)
    np.testing.assert_allclose(once.params, often.params, rtol=1e-5, atol=1e-6)


def test_dropout_that_was_asked_for_stays():
    assert dropout_of_fit(100, made_with=0.1) is None  # the networks have their own
    assert dropout_of_fit(100, made_with=0.1, dropout=0.2) == 0.2
    assert dropout_of_fit(100, dropout=0) == 0
    assert dropout_of_fit(100, dropout=None) is None


@pytest.mark.parametrize("name", FLOWS)
def test_a_share_given_to_fit_is_that_of_networks_made_with_it(name):
    x = np.random.default_rng(0).normal(size=(100, 3))
    given = random_flow(name, 0.0).fit(x, max_epochs=2, dropout=0.3, rng=0)
    made = random_flow(name, 0.3).fit(x, max_epochs=2, rng=0)
    none = random_flow(name, 0.3).fit(x, max_epochs=2, dropout=0, rng=0)
    np.testing.assert_array_equal(given.params, made.params)
    assert not np.array_equal(given.params, none.params)
    assert given.dropout == 0  # the flow itself is what it was


def test_an_embedding_drops_too():
    rng = np.random.default_rng(0)
    x, condition = rng.normal(size=(100, 2)), rng.normal(size=(100, 3))
    make = lambda share: npflows.MAF(2, 1, (8,), condition_dim=3, embedding_dims=(6, 4), dropout=share, rng=0)  # noqa: E731
    given = make(0.0).fit(x, condition=condition, max_epochs=2, dropout=0.3, rng=0)
    made = make(0.3).fit(x, condition=condition, max_epochs=2, rng=0)
    np.testing.assert_array_equal(given.params, made.params)


@pytest.mark.parametrize(
    ("dropout", "error", "message"),
    [
        ("some", ValueError, "dropout must be 'auto', None, or a share of at least 0 and below 1, got 'some'"),
        (1.0, ValueError, "dropout must be below 1, got 1.0"),
        (-0.1, ValueError, "dropout must be a finite number of at least 0, got -0.1"),
        ([0.1], ValueError, "dropout must be a finite number"),
    ],
)
def test_bad_shares_are_refused(dropout, error, message):
    flow = npflows.MAF(2, 1, (8,), rng=0)
    with pytest.raises(error, match=re.escape(message)):
        flow.fit(np.random.default_rng(0).normal(size=(100, 2)), dropout=dropout)
    assert not flow.history
