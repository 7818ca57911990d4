"""`fit_variational` and the rest of a flow: wrong options, a second run, a fit before or after, copies, bases, images."""

import sys

import numpy as np
import pytest
from helpers import COPIES, refused, same_bits
from targets import FIT, MODELS, Gaussian, X, banana, elbo, realnvp, short_run

import npflows


def test_a_flow_with_a_condition_is_refused():
    flow = realnvp(condition_dim=2)
    message = "takes flows without a condition; this one has condition_dim=2"
    refused(ValueError, message, lambda flow: short_run(flow), flow)


OPTIONS = {
    "unknown": ({"steps": 5}, TypeError, "unexpected keyword argument 'steps'"),
    "steps": ({"max_steps": 2.5}, ValueError, "max_steps must be a whole number of at least 0, got 2.5"),
    "batch": ({"batch_size": 0}, ValueError, "batch_size must be a whole number of at least 1, got 0"),
    "validation": ({"validation_size": -1}, ValueError, "validation_size must be a whole number of at least 0, got -1"),
    "round": ({"steps_per_round": 0}, ValueError, "steps_per_round must be a whole number of at least 1, got 0"),
    "negative tempering": ({"tempering": -0.1}, ValueError, "tempering must be a finite number of at least 0, got -0.1"),
    "tempering": ({"tempering": 50}, ValueError, "tempering is a share of the steps, between 0 and 1, got 50"),
    "learning rate": ({"learning_rate": 0}, ValueError, "learning_rate must be a finite number above 0, got 0"),
    "patience": ({"patience": 0}, ValueError, "patience must be a whole number of at least 1, got 0"),
    "ema": ({"ema": 1.0}, ValueError, "ema must lie between 0 and 1, got 1.0"),
    "resume": ({"resume": True}, ValueError, "resume=True needs checkpoint="),
    "seed": ({"rng": "seed"}, TypeError, "rng must be a non-negative int, a numpy.random.Generator or None, got 'seed'"),
    "callbacks": ({"callbacks": [3]}, TypeError, r"callbacks must be functions of \(flow, record\), got 3"),
}


@pytest.mark.parametrize("case", OPTIONS.values(), ids=OPTIONS)
def test_a_wrong_option_is_refused_before_anything_is_changed(case):
    options, error, message = case
    target = Gaussian()
    refused(error, message, lambda flow: short_run(flow, target, **options), realnvp())
    assert target.calls == 0


def test_a_second_call_continues_from_the_present_parameters():
    flow = short_run(max_steps=300, learning_rate=2e-2)
    reached = elbo(flow)
    short_run(flow, max_steps=10, learning_rate=1e-6)
    assert flow.history["round"] == [1]
    assert flow.history["elbo"][0] == pytest.approx(reached, abs=0.2)
    assert reached > elbo(realnvp()) + 0.3
    assert elbo(flow) == pytest.approx(reached, abs=1e-3)


def test_the_first_parameters_are_kept_if_nothing_is_better():
    flow = short_run(max_steps=300, learning_rate=2e-2)
    reached = elbo(flow)
    short_run(flow, max_steps=10, learning_rate=1.0, schedule="constant")
    assert elbo(flow) > reached - 0.05


def test_a_fit_afterwards_continues_without_a_new_standardization():
    flow = MODELS["NSF, ActNorm"](2)
    flow.standardize.set([1.0, 2.0], [2.0, 5.0])
    short_run(flow, Gaussian(), max_steps=300)
    table, before = flow.standardize.table.copy(), flow.params
    x = flow.sample(400, 0)
    nll = -flow.log_prob(x).mean()
    flow.fit(x, **{**FIT, "max_epochs": 0})
    np.testing.assert_array_equal(flow.params, before)
    flow.fit(x, learning_rate=1e-6, validation_fraction=0.0, dropout=None, **FIT)
    np.testing.assert_array_equal(flow.standardize.table, table)
    assert flow.history["train_loss"][0] == pytest.approx(nll, abs=0.05)
    assert next(iter(flow.history)) == "epoch"


def test_a_fit_before_is_where_the_run_starts():
    x = np.random.default_rng(1).normal([50.0, -3.0], [4.0, 0.1], (500, 2))
    flow = realnvp().fit(x, **FIT)
    table = flow.standardize.table.copy()

    def target(x):
        z = (x - [50.0, -3.0]) / [4.0, 0.1]
        return -0.5 * (z**2).sum(axis=1), -z / [4.0, 0.1]

    short_run(flow, target)
    np.testing.assert_array_equal(flow.standardize.table, table)
    assert flow.history["ess"][0] > 0.9


def test_reset_starts_afresh():
    flow = short_run(target=Gaussian()).reset(1)
    np.testing.assert_array_equal(flow.params, realnvp().params)
    flow.fit(X, **FIT)
    np.testing.assert_array_equal(flow.params, realnvp().fit(X, **FIT).params)


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_needs_the_target_again_which_may_be_anything(how, path):
    flow = short_run(target=lambda x: banana(x))
    again = COPIES[how](flow, path)
    assert again.history == flow.history
    with pytest.raises(ValueError, match="importance_weights needs log_density="):
        again.importance_weights(20)
    ours, theirs = flow.importance_weights(200, rng=0), again.importance_weights(200, banana, 0)
    np.testing.assert_array_equal(ours.log_weights, theirs.log_weights)
    table = again.standardize.table.copy()
    again.fit(X, **FIT)
    np.testing.assert_array_equal(again.standardize.table, table)


def test_dropout_is_not_applied():
    dropped, plain = (npflows.MAF(2, 2, (16,), dropout=share, rng=1) for share in (0.5, 0.0))
    np.testing.assert_array_equal(dropped.params, plain.params)
    same_bits(short_run(dropped), short_run(plain))


def heavy():
    return realnvp(base_distribution=npflows.StudentT(2, 3.0))


def test_the_base_stays_as_it_is():
    flow = short_run(heavy(), max_steps=200, learning_rate=2e-2)
    np.testing.assert_array_equal(flow.named_params()["base.log_df"], heavy().named_params()["base.log_df"])
    assert elbo(flow) > elbo(heavy()) + 0.3


def test_the_base_stays_as_it_is_with_weight_decay():
    flow = short_run(heavy(), max_steps=20, weight_decay=0.5)
    np.testing.assert_array_equal(flow.named_params()["base.log_df"], heavy().named_params()["base.log_df"])


def test_weight_decay_draws_the_weights_towards_zero():
    sizes = [np.linalg.norm(short_run(weight_decay=decay, max_steps=200).params) for decay in (0.0, 1.0)]
    assert sizes[1] < 0.9 * sizes[0]


def test_masked_weights_stay_exactly_zero():
    flow = npflows.MAF(2, 2, (8,), rng=1)
    fixed = ~flow.parameters.free
    before = flow.parameters.theta[fixed].copy()
    short_run(flow, weight_decay=0.1, sticking_the_landing=False)
    np.testing.assert_array_equal(flow.parameters.theta[fixed], before)


def test_images_come_to_the_target_as_rows():
    flow, seen = npflows.RealNVP((2, 2, 1), 2, (8,), rng=0), set()

    def target(x):
        seen.add(x.shape[1:])
        return -2.0 * (x**2).sum(axis=1), -4.0 * x

    short_run(flow, target, max_steps=200)
    assert seen == {(4,)}
    assert flow.sample(5000, 0).std(axis=0) == pytest.approx(np.full((2, 2, 1), 0.5), rel=0.1)


def test_progress_shows_rounds_and_how_good_they_are(capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)  # not installed
    flow = short_run(progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert f"round 6/6: ELBO {flow.history['validation_elbo'][-1]:.4f}, ESS {flow.history['ess'][-1]:.1%}\n" in err
    flow = short_run(progress=True, validation_size=0, tempering=1.0, callbacks=lambda flow, record: True)
    err = capfd.readouterr().err
    assert f"round 1/6: ELBO {flow.history['elbo'][0]:.4f}, tempering 0.17\n" in err
