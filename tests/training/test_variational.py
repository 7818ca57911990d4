"""`fit_variational`: what it learns from a density, its history, and which of its rounds it keeps."""

import math

import numpy as np
import pytest
from helpers import UntilWorse, same_bits
from targets import MODELS, SHORT, WILD, Gaussian, banana, elbo, realnvp, short_run, two_modes

import npflows
from npflows.core.statistics import effective_sample_size


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("model", MODELS)
def test_a_correlated_gaussian_is_found_with_its_evidence(model, d):
    target = Gaussian(d)
    flow = MODELS[model](d)
    flow.fit_variational(target, max_steps=500, batch_size=128, learning_rate=2e-2, rng=0, progress=False)
    result = flow.importance_weights(4000, rng=1)  # the target is remembered
    assert target.evidence - 0.03 < result.elbo < result.log_evidence
    assert result.ess > 0.9 * 4000
    assert abs(result.log_evidence - target.evidence) < 4 * result.log_evidence_error < 0.03
    np.testing.assert_allclose(np.cov(flow.sample(20000, 3).T), target.covariance, atol=0.15)


def test_the_plain_estimator_and_float64_find_it_as_well():
    target, flow = Gaussian(), MODELS["MAF"](2, dtype="float64")
    options = {"max_steps": 500, "batch_size": 128, "learning_rate": 2e-2, "rng": 0, "progress": False}
    flow.fit_variational(target, sticking_the_landing=False, **options)
    assert elbo(flow, target) == pytest.approx(target.evidence, abs=0.05)


def test_one_column_can_be_fitted():
    flow = npflows.NeuralSplineFlow(1, 2, num_bins=6, rng=0)
    flow.standardize.set(3.0, 2.0)
    flow.fit_variational(lambda x: (-np.abs(x[:, 0] - 3), -np.sign(x - 3)), **{**SHORT, "max_steps": 300})
    assert flow.importance_weights(4000, rng=0).log_evidence == pytest.approx(math.log(2), abs=0.05)
    assert elbo(flow, lambda x: -np.abs(x[:, 0] - 3)) > math.log(2) - 0.05


def test_the_first_standardization_is_where_the_run_starts():
    flow, loc, scale = realnvp(), np.array([1000.0, -5.0]), np.array([3.0, 0.1])
    flow.standardize.set(loc, scale)
    asked = []

    def target(x):
        asked.append(x)
        log_p, gradient = banana((x - loc) / scale)
        return log_p, gradient / scale

    short_run(flow, target, max_steps=1)
    np.testing.assert_allclose((np.concatenate(asked).mean(axis=0) - loc) / scale, 0, atol=0.3)
    np.testing.assert_array_equal(flow.standardize.table[:2], [loc, scale])


TEMPERINGS = {
    0.0: [1.0] * 10,
    0.5: [0.2, 0.4, 0.6, 0.8] + [1.0] * 6,
    1.0: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
    0.1: [1.0] * 10,
}


@pytest.mark.parametrize("share", TEMPERINGS)
def test_the_exponent_rises_to_1_over_the_promised_share_of_the_steps(share):
    flow = short_run(max_steps=10, steps_per_round=1, tempering=share)
    assert flow.history["tempering"] == pytest.approx(TEMPERINGS[share])


def smaller_share(tempering, seed):
    """Share of the samples in the mode that has fewer."""
    flow = npflows.MAF(2, 4, (16,), rng=seed)
    flow.standardize.set(0.0, 4.0)
    options = {"max_steps": 600, "batch_size": 128, "learning_rate": 1e-2, "rng": seed, "progress": False}
    left = (flow.fit_variational(two_modes, tempering=tempering, **options).sample(4000, 1)[:, 0] < 0).mean()
    return min(left, 1 - left)


def test_tempering_keeps_both_modes():
    """The smaller mode has 0.3 of the mass, and half of it in an ordinary run; a mode that is lost has next to nothing."""
    kept, lost = ([smaller_share(tempering, seed) for seed in range(5)] for tempering in (0.8, 0.0))
    assert np.median(kept) > 0.15
    assert min(lost) < 0.03, "both modes are kept without tempering: the test shows nothing"


KEYS = ["round", "step", "elbo", "validation_elbo", "ess", "tempering", "learning_rate", "gradient_norm", "skipped_steps",
        "seconds"]  # fmt: skip


def test_the_history_has_one_record_for_each_round():
    flow = short_run(max_steps=25)
    assert list(flow.history) == KEYS
    assert flow.history["round"] == [1, 2, 3]
    assert flow.history["step"] == [10, 20, 25]
    assert {len(values) for values in flow.history.values()} == {3}
    assert flow.history["skipped_steps"] == [0, 0, 0]
    assert min(flow.history["gradient_norm"]) > 0
    assert np.isfinite(np.array(list(flow.history.values()))).all()


@pytest.mark.parametrize(("steps", "rounds"), [(0, 0), (1, 1), (99, 99), (100, 100), (250, 125), (1000, 100)])
def test_by_default_a_round_is_a_hundredth_of_the_steps(steps, rounds):
    flow = short_run(max_steps=steps, steps_per_round=None, batch_size=2, validation_size=2)
    assert len(flow.history.get("round", ())) == rounds
    assert flow.history.get("step", [0])[-1] == steps


def test_no_steps_leave_the_flow_as_it_is():
    flow, target = realnvp(), Gaussian()
    before = flow.params
    assert short_run(flow, target, max_steps=0) is flow
    np.testing.assert_array_equal(flow.params, before)
    assert flow.history == {}
    assert flow.importance_weights(100, rng=0).log_weights.shape == (100,)


def on_noise(flow, target=banana):
    """ELBO and effective share of the samples that the noise of seed 2 makes."""
    x, log_det = flow.inverse(noise := flow.base.sample(128, 2))
    log_weights = target(x)[0] - flow.base.log_prob(noise) + log_det
    return log_weights.mean(), effective_sample_size(log_weights, log=True) / 128


def test_each_round_is_judged_on_the_same_noise():
    seen = []
    flow = short_run(realnvp(dtype="float64"), callbacks=lambda flow, record: seen.append(on_noise(flow)))
    np.testing.assert_allclose(flow.history["validation_elbo"], np.array(seen)[:, 0], rtol=1e-9)
    np.testing.assert_allclose(flow.history["ess"], np.array(seen)[:, 1], rtol=1e-9)


def test_the_elbo_of_a_round_is_the_mean_over_its_steps():
    flow = realnvp(dtype="float64")
    rng = np.random.default_rng(2)
    flow.base.sample(128, rng)
    x, log_det = flow.inverse(z := flow.base.sample(64, rng))
    first = (banana(x)[0] - flow.base.log_prob(z) + log_det).mean()
    steps = short_run(flow, max_steps=4, steps_per_round=1).history["elbo"]
    assert steps[0] == pytest.approx(first, rel=1e-9)
    together = short_run(realnvp(dtype="float64"), max_steps=4, steps_per_round=4).history["elbo"]
    assert together == pytest.approx([np.mean(steps)], rel=1e-9)


def test_the_best_parameters_are_kept():
    flow = short_run(callbacks=(until := UntilWorse("validation_elbo")), **WILD)
    np.testing.assert_array_equal(flow.params, until.best(flow))
    assert on_noise(flow)[0] == pytest.approx(max(flow.history["validation_elbo"]), abs=1e-4)


def test_the_moving_average_is_judged_and_kept():
    flow = short_run(ema=0.8, callbacks=(until := UntilWorse("validation_elbo")), **WILD)
    assert on_noise(flow)[0] == pytest.approx(max(flow.history["validation_elbo"]), abs=1e-4)
    assert not any(np.array_equal(flow.params, params) for params in until.passed)


def test_without_validation_samples_the_rounds_own_samples_judge():
    flow = short_run(validation_size=0, callbacks=(until := UntilWorse("elbo")), **WILD)
    assert np.isnan(flow.history["validation_elbo"]).all()
    assert np.isnan(flow.history["ess"]).all()
    np.testing.assert_array_equal(flow.params, until.best(flow))


def standard(x):
    """The density that a new flow is."""
    return -0.5 * (x**2).sum(axis=1), -x


def tempered_run(seed):
    passed = []
    options = {**WILD, "tempering": 0.8, "max_steps": 100, "sticking_the_landing": False, "rng": seed}
    return short_run(target=standard, callbacks=lambda flow, _: passed.append(flow.params), **options), passed


def test_rounds_of_another_target_are_not_the_best():
    """While the target is tempered, a flow that fits it well proves nothing."""
    runs = map(tempered_run, range(50))
    flow, passed = next(run for run in runs if np.argmax(run[0].history["validation_elbo"]) < 7)
    assert flow.history["tempering"][6] < flow.history["tempering"][7] == 1
    best = 7 + np.argmax(flow.history["validation_elbo"][7:])
    np.testing.assert_array_equal(flow.params, passed[best])


def test_a_run_that_ends_while_tempering_keeps_the_last_round():
    passed = []

    def callback(flow, record):
        passed.append(flow.params)
        return record["round"] == 4

    flow = short_run(tempering=1.0, learning_rate=0.2, callbacks=callback)
    assert len(passed) == 4
    np.testing.assert_array_equal(flow.params, passed[-1])


def test_patience_ends_the_run_after_so_many_rounds_without_improvement():
    flow = short_run(patience=4, **WILD)
    judged = flow.history["validation_elbo"]
    assert len(judged) == np.argmax(judged) + 1 + 4 < 300
    tempered = short_run(patience=1, tempering=1.0, max_steps=60)
    assert len(tempered.history["round"]) == 6, "patience counts while the target is not yet the one that counts"


def test_max_seconds_ends_the_run():
    flow = short_run(max_steps=10**7, steps_per_round=5, max_seconds=0.05)
    assert 1 <= len(flow.history["round"]) < 10**5
    assert elbo(flow) > elbo(realnvp())


def test_callbacks_see_each_round_and_true_ends_the_run():
    seen = []
    flow = short_run(callbacks=[lambda flow, record: seen.append(record), lambda flow, record: record["round"] == 3])
    assert [record["round"] for record in seen] == flow.history["round"] == [1, 2, 3]
    assert {name: [record[name] for record in seen] for name in seen[0]} == flow.history


def test_schedules_run_over_all_steps():
    cosine = short_run(max_steps=6, steps_per_round=1).history["learning_rate"]
    assert cosine == pytest.approx([0.005 * (1 + math.cos(math.pi * k / 6)) for k in range(6)])
    assert short_run(max_steps=4, steps_per_round=2, schedule="constant").history["learning_rate"] == [0.01, 0.01]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("where", ["callback", "target"])
def test_whatever_interrupts_leaves_the_best_parameters(where, error):
    flow, until = realnvp(), UntilWorse("validation_elbo")

    def callback(flow, record):
        if until(flow, record) and where == "callback":
            raise error

    def target(x):
        if until.over:
            raise error
        return banana(x)

    with pytest.raises(error):
        short_run(flow, target, callbacks=callback, **WILD)
    np.testing.assert_array_equal(flow.params, until.best(flow))


@pytest.mark.parametrize("validation_size", [0, 128])
def test_the_elbo_is_that_of_the_target_itself_while_tempering(validation_size):
    options = {"max_steps": 1, "batch_size": 128, "learning_rate": 1e-9}
    plain = short_run(validation_size=validation_size, **options)
    tempered = short_run(
        validation_size=validation_size, **{**options, "max_steps": 4, "steps_per_round": 1}, tempering=1.0
    )
    assert tempered.history["tempering"][0] == 0.25
    for name in ("elbo", "validation_elbo", "ess"):
        assert tempered.history[name][0] == pytest.approx(plain.history[name][0], rel=1e-6, nan_ok=True)


@pytest.mark.parametrize(
    "options", [{}, {"sticking_the_landing": False, "tempering": 0.5, "ema": 0.9}], ids=["default", "rest"]
)
def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads(options):
    flows = []
    for n in (1, 2, 5):
        npflows.set_num_threads(n)
        flows.append(short_run(MODELS["NSF"](2), max_steps=20, batch_size=1000, validation_size=3000, **options))
    same_bits(flows[0], flows[1])
    same_bits(flows[0], flows[2])
    options = {"max_steps": 20, "batch_size": 1000, "validation_size": 3000, **options}
    same_bits(flows[0], short_run(MODELS["NSF"](2), rng=np.random.default_rng(2), **options))
    assert not np.array_equal(flows[0].params, short_run(MODELS["NSF"](2), rng=3, **options).params)
