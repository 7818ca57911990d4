"""`fit_variational`: what it learns from a density, its gradients, its options, and what it does when things go wrong."""

import copy
import math
import pickle
import sys

import numpy as np
import pytest

import npflows
from npflows import FlowFileError, TrainingError
from npflows.inference.importance import effective_sample_size
from npflows.training.adam import Adam

MATRIX = np.array([[1.0, 0.0, 0.0], [1.2, 0.6, 0.0], [-0.5, 0.3, 0.8]])
LOC = np.array([0.5, -1.0, 0.3])


class Gaussian:
    """A correlated normal density in d dimensions, and how often it was asked."""

    def __init__(self, d=2, constant=3.0):
        covariance = (MATRIX @ MATRIX.T)[:d, :d]
        self.loc, self.precision, self.constant, self.calls = LOC[:d], np.linalg.inv(covariance), constant, 0
        self.covariance, self.evidence = covariance, constant + 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]

    def __call__(self, x):
        self.calls += 1
        pull = (x - self.loc) @ self.precision
        return self.constant - 0.5 * (pull * (x - self.loc)).sum(axis=1), -pull


def banana(x):
    """A bent density that no flow here represents exactly."""
    u, v = x[:, 0] / 2, x[:, 1] - 0.5 * x[:, 0] ** 2
    return -0.5 * (u**2 + v**2), np.column_stack([v * x[:, 0] - u / 2, -v])


def realnvp(dim=2, **options):
    return npflows.RealNVP(dim, 2, (8,), rng=1, **options)


def smooth(model, dtype="float64", dim=2, **options):
    """A flow with smooth networks that is not the identity, in units of its own."""
    flow = model(dim, 2, (8,), activation="tanh", dtype=dtype, rng=0, **options)
    rng = np.random.default_rng(1)
    flow.params = flow.params + rng.normal(0, 0.3, flow.num_params)
    flow.standardize.set(rng.normal(size=dim), [0.5, 1.5, 1.0][:dim])
    return flow


SHORT = {"max_steps": 60, "batch_size": 64, "steps_per_round": 10, "validation_size": 128, "learning_rate": 1e-2,
         "rng": 2, "progress": False}  # fmt: skip


def fitted(flow=None, target=banana, **options):
    """A small flow after a short run, silent and with a seed."""
    return (flow or realnvp()).fit_variational(target, **{**SHORT, **options})


def elbo(flow, target=banana, n=4000, rng=9):
    return flow.importance_weights(n, target, rng).elbo


def same_bits(a, b):
    np.testing.assert_array_equal(a.params, b.params)
    np.testing.assert_array_equal(a.standardize.table, b.standardize.table)
    assert list(a.history) == list(b.history)
    for name in set(a.history) - {"seconds"}:
        np.testing.assert_array_equal(a.history[name], b.history[name], err_msg=name)


MODELS = {
    "RealNVP": lambda d, **o: npflows.RealNVP(d, 4, (16,), rng=0, **o),
    "MAF": lambda d, **o: npflows.MAF(d, 3, (16,), rng=0, **o),
    "IAF": lambda d, **o: npflows.IAF(d, 3, (16,), rng=0, **o),
    "NSF": lambda d, **o: npflows.NeuralSplineFlow(d, 2, (16,), 5, rng=0, **o),
    "NSF, ActNorm": lambda d, **o: npflows.NeuralSplineFlow(d, 2, (16,), 5, actnorm=True, rng=0, **o),
}


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


@pytest.fixture
def gradients(monkeypatch):
    """The gradient of each step, of the free parameters."""
    seen, step = [], Adam.step

    def spy(self, buffers, rate):
        seen.append(buffers.sum(axis=0, dtype=np.float64)[self.free])
        return step(self, buffers, rate)

    monkeypatch.setattr(Adam, "step", spy)
    return seen


def first_gradient(gradients, flow, target, n=150, **options):
    """The gradient of one step from noise that is known, and that noise."""
    gradients.clear()
    copy.deepcopy(flow).fit_variational(
        target, **{**SHORT, "max_steps": 1, "batch_size": n, "validation_size": 0, **options}
    )
    assert len(gradients) == 1
    return gradients[0], flow.base.sample(n, 2)


def differences(loss, params):
    """Central differences of a function of the parameters."""
    steps = 1e-5 * np.eye(len(params))
    return np.array([loss(params + step) - loss(params - step) for step in steps]) / 2e-5


def agrees(gradient, expected):
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    assert np.abs(expected).max() > 0.05
    assert (np.abs(expected) > 1e-4).mean() > 0.5


def reverse_kl(flow, z, log_p, *, frozen=False):
    """Mean of log q - log p over the samples that the noise makes, as a function of the parameters.

    With `frozen`, log q keeps its present parameters, so that only the samples move.
    """
    moving, present = copy.deepcopy(flow), copy.deepcopy(flow)

    def loss(params):
        moving.params = params
        x, log_det = moving.inverse(z)
        log_q = present.log_prob(x) if frozen else moving.base.log_prob(z) - log_det
        return (log_q - log_p(x)).mean()

    return loss


def on_half_lines(dtype):
    return smooth(npflows.IAF, dtype, support=[npflows.support.positive(-2.0), npflows.support.interval(-3.0, 8.0)])


SMOOTH = {
    "RealNVP": lambda dtype: smooth(npflows.RealNVP, dtype, 3),
    "MAF": lambda dtype: smooth(npflows.MAF, dtype),
    "IAF": lambda dtype: smooth(npflows.IAF, dtype),
    "NSF": lambda dtype: smooth(npflows.NeuralSplineFlow, dtype, num_bins=3),
    "normal of its own": lambda dtype: smooth(
        npflows.MAF, base_distribution=npflows.Normal(2, 1.0, 0.5, dtype=dtype), dtype=dtype
    ),
    "constant Student t": lambda dtype: smooth(
        npflows.MAF, base_distribution=npflows.StudentT(2, 6.0, learnable=False, dtype=dtype), dtype=dtype
    ),
    "half-line and interval": on_half_lines,
}
every_estimator = pytest.mark.parametrize("sticking", [False, True], ids=["plain", "sticking the landing"])


@every_estimator
@pytest.mark.parametrize("model", SMOOTH)
def test_the_gradient_of_a_step_is_the_derivative_of_its_loss(model, sticking, gradients):
    flow = SMOOTH[model]("float64")
    target = Gaussian(flow.input_dim)
    gradient, z = first_gradient(gradients, flow, target, sticking_the_landing=sticking)
    loss = reverse_kl(flow, z, lambda x: target(x)[0], frozen=sticking)
    agrees(gradient, differences(loss, flow.params))


@every_estimator
@pytest.mark.parametrize("model", ["MAF", "normal of its own", "half-line and interval"])
def test_the_gradient_while_tempering_is_that_of_the_tempered_loss_in_units_of_x(model, sticking, gradients):
    flow, target = SMOOTH[model]("float64"), Gaussian()
    start = copy.deepcopy(flow)
    start.params = 0 * flow.params  # the identity: the base in the units of x
    if model == "normal of its own":
        z = (LOC[:2] - flow.standardize.loc) / flow.standardize.scale
        expected = flow.base.log_prob(z) - np.log(flow.standardize.scale).sum()
        assert start.log_prob(LOC[:2]) == pytest.approx(expected, rel=1e-9)

    def tempered(x):
        return 0.25 * target(x)[0] + 0.75 * start.log_prob(x)

    options = {"max_steps": 4, "tempering": 1.0, "sticking_the_landing": sticking, "steps_per_round": 1}
    gradient, z = first_gradient(gradients, flow, target, callbacks=lambda flow, record: True, **options)
    agrees(gradient, differences(reverse_kl(flow, z, tempered, frozen=sticking), flow.params))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("model", SMOOTH)
def test_at_a_perfect_fit_sticking_the_landing_has_no_gradient(model, dtype, gradients):
    target, flow = SMOOTH[model]("float64"), SMOOTH[model](dtype)
    flow.params = target.params
    room = 2e-4 if dtype == "float32" else 1e-12
    sticking, _ = first_gradient(gradients, flow, target.log_prob_and_grad)
    plain, _ = first_gradient(gradients, flow, target.log_prob_and_grad, sticking_the_landing=False)
    assert np.abs(sticking).max() < room
    assert np.abs(plain).max() > 0.02


def test_at_a_gaussian_that_the_flow_is_sticking_the_landing_stays(gradients):
    flow = npflows.RealNVP(2, 2, (8,), dtype="float64", rng=0)  # starts as the identity
    loc, scale = np.array([30.0, -0.1]), np.array([4.0, 0.02])
    flow.standardize.set(loc, scale)

    def target(x):
        z = (x - loc) / scale
        return -0.5 * (z**2).sum(axis=1), -z / scale

    assert np.abs(first_gradient(gradients, flow, target)[0]).max() < 1e-12
    assert np.abs(first_gradient(gradients, flow, target, sticking_the_landing=False)[0]).max() > 0.02
    before = flow.params
    fitted(flow, target)
    np.testing.assert_allclose(flow.params, before, atol=1e-3)
    assert min(flow.history["ess"]) > 0.9999


def test_the_gradient_is_a_mean_over_the_batch(gradients):
    flow, target = SMOOTH["MAF"]("float64"), Gaussian()
    sizes = [np.linalg.norm(first_gradient(gradients, flow, target, n)[0]) for n in (200, 5000)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.9)  # a sum would be 25 times as large


def test_the_first_standardisation_is_where_the_run_starts():
    flow, loc, scale = realnvp(), np.array([1000.0, -5.0]), np.array([3.0, 0.1])
    flow.standardize.set(loc, scale)
    asked = []

    def target(x):
        asked.append(x)
        log_p, gradient = banana((x - loc) / scale)
        return log_p, gradient / scale

    fitted(flow, target, max_steps=1)
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
    flow = fitted(max_steps=10, steps_per_round=1, tempering=share)
    assert flow.history["tempering"] == pytest.approx(TEMPERINGS[share])


def two_modes(x):
    """A mixture with 0.3 of its mass at (-3, 0) and 0.7 at (3, 0): log-density and gradient."""
    away = np.stack([x - [-3.0, 0.0], x - [3.0, 0.0]])
    terms = np.log([[0.3], [0.7]]) - 0.5 * (away**2).sum(axis=2) / 0.5**2
    log_p = np.logaddexp(*terms)
    return log_p, -(np.exp(terms - log_p)[:, :, None] * away).sum(axis=0) / 0.5**2


def smaller_share(tempering, seed):
    """Share of the samples in the mode that has fewer."""
    flow = npflows.MAF(2, 4, (16,), rng=seed)
    flow.standardize.set(0.0, 4.0)
    options = {"max_steps": 600, "batch_size": 128, "learning_rate": 1e-2, "rng": seed, "progress": False}
    left = (flow.fit_variational(two_modes, tempering=tempering, **options).sample(4000, 1)[:, 0] < 0).mean()
    return min(left, 1 - left)


def test_tempering_keeps_both_modes():
    kept, lost = ([smaller_share(tempering, seed) for seed in (1, 2, 4, 5)] for tempering in (0.8, 0.0))
    assert min(kept) > 0.15
    assert np.mean(kept) > 0.25
    assert min(lost) < 0.05, "both modes are kept without tempering: the test shows nothing"


KEYS = ["round", "step", "elbo", "validation_elbo", "ess", "tempering", "learning_rate", "gradient_norm", "skipped_steps",
        "seconds"]  # fmt: skip


def test_the_history_has_one_record_for_each_round():
    flow = fitted(max_steps=25)
    assert list(flow.history) == KEYS
    assert flow.history["round"] == [1, 2, 3]
    assert flow.history["step"] == [10, 20, 25]
    assert {len(values) for values in flow.history.values()} == {3}
    assert flow.history["skipped_steps"] == [0, 0, 0]
    assert min(flow.history["gradient_norm"]) > 0
    assert np.isfinite(np.array(list(flow.history.values()))).all()


@pytest.mark.parametrize(("steps", "rounds"), [(0, 0), (1, 1), (99, 99), (100, 100), (250, 125), (1000, 100)])
def test_by_default_a_round_is_a_hundredth_of_the_steps(steps, rounds):
    flow = fitted(max_steps=steps, steps_per_round=None, batch_size=2, validation_size=2)
    assert len(flow.history.get("round", ())) == rounds
    assert flow.history.get("step", [0])[-1] == steps


def test_no_steps_leave_the_flow_as_it_is():
    flow, target = realnvp(), Gaussian()
    before = flow.params
    assert fitted(flow, target, max_steps=0) is flow
    np.testing.assert_array_equal(flow.params, before)
    assert flow.history == {}
    assert flow.importance_weights(100, rng=0).log_weights.shape == (100,)


def on_noise(flow, target=banana):
    """ELBO and effective share of the samples that the noise of seed 2 makes."""
    x, log_det = flow.inverse(noise := flow.base.sample(128, 2))
    log_weights = target(x)[0] - flow.base.log_prob(noise) + log_det
    return log_weights.mean(), effective_sample_size(log_weights) / 128


def test_each_round_is_judged_on_the_same_noise():
    seen = []
    flow = fitted(realnvp(dtype="float64"), callbacks=lambda flow, record: seen.append(on_noise(flow)))
    np.testing.assert_allclose(flow.history["validation_elbo"], np.array(seen)[:, 0], rtol=1e-9)
    np.testing.assert_allclose(flow.history["ess"], np.array(seen)[:, 1], rtol=1e-9)


def test_the_elbo_of_a_round_is_the_mean_over_its_steps():
    flow = realnvp(dtype="float64")
    rng = np.random.default_rng(2)
    rng.standard_normal((128, 2))
    x, log_det = flow.inverse(z := rng.standard_normal((64, 2)))
    first = (banana(x)[0] - flow.base.log_prob(z) + log_det).mean()
    steps = fitted(flow, max_steps=4, steps_per_round=1).history["elbo"]
    assert steps[0] == pytest.approx(first, rel=1e-9)
    together = fitted(realnvp(dtype="float64"), max_steps=4, steps_per_round=4).history["elbo"]
    assert together == pytest.approx([np.mean(steps)], rel=1e-9)


WILD = {"learning_rate": 0.2, "schedule": "constant", "max_steps": 3000}


class UntilWorse:
    """A callback that ends a run with a round worse than the best one."""

    def __init__(self, key="validation_elbo"):
        self.key, self.passed, self.over = key, [], False

    def __call__(self, flow, record):
        self.passed.append(flow.params)
        judged = flow.history[self.key]
        self.over = len(judged) >= 4 and judged[-1] < max(judged) - 0.01
        return self.over

    def best(self, flow):
        """The parameters of the best round."""
        assert self.over
        return self.passed[np.argmax(flow.history[self.key])]


def test_the_best_parameters_are_kept():
    flow = fitted(callbacks=(until := UntilWorse()), **WILD)
    np.testing.assert_array_equal(flow.params, until.best(flow))
    assert on_noise(flow)[0] == pytest.approx(max(flow.history["validation_elbo"]), abs=1e-4)


def test_the_moving_average_is_judged_and_kept():
    flow = fitted(ema=0.8, callbacks=(until := UntilWorse()), **WILD)
    assert on_noise(flow)[0] == pytest.approx(max(flow.history["validation_elbo"]), abs=1e-4)
    assert not any(np.array_equal(flow.params, params) for params in until.passed)


def test_without_validation_samples_the_rounds_own_samples_judge():
    flow = fitted(validation_size=0, callbacks=(until := UntilWorse("elbo")), **WILD)
    assert np.isnan(flow.history["validation_elbo"]).all()
    assert np.isnan(flow.history["ess"]).all()
    np.testing.assert_array_equal(flow.params, until.best(flow))


def standard(x):
    """The density that a new flow is."""
    return -0.5 * (x**2).sum(axis=1), -x


def tempered_run(seed):
    passed = []
    options = {**WILD, "tempering": 0.8, "max_steps": 100, "sticking_the_landing": False, "rng": seed}
    return fitted(target=standard, callbacks=lambda flow, _: passed.append(flow.params), **options), passed


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

    flow = fitted(tempering=1.0, learning_rate=0.2, callbacks=callback)
    assert len(passed) == 4
    np.testing.assert_array_equal(flow.params, passed[-1])


def test_patience_ends_the_run_after_so_many_rounds_without_improvement():
    flow = fitted(patience=4, **WILD)
    judged = flow.history["validation_elbo"]
    assert len(judged) == np.argmax(judged) + 1 + 4 < 300
    tempered = fitted(patience=1, tempering=1.0, max_steps=60)
    assert len(tempered.history["round"]) == 6, "patience counts while the target is not yet the one that counts"


def test_max_seconds_ends_the_run():
    flow = fitted(max_steps=10**7, steps_per_round=5, max_seconds=0.05)
    assert 1 <= len(flow.history["round"]) < 10**5
    assert elbo(flow) > elbo(realnvp())


def test_callbacks_see_each_round_and_true_ends_the_run():
    seen = []
    flow = fitted(callbacks=[lambda flow, record: seen.append(record), lambda flow, record: record["round"] == 3])
    assert [record["round"] for record in seen] == flow.history["round"] == [1, 2, 3]
    assert {name: [record[name] for record in seen] for name in seen[0]} == flow.history


def test_schedules_run_over_all_steps():
    cosine = fitted(max_steps=6, steps_per_round=1).history["learning_rate"]
    assert cosine == pytest.approx([0.005 * (1 + math.cos(math.pi * k / 6)) for k in range(6)])
    assert fitted(max_steps=4, steps_per_round=2, schedule="constant").history["learning_rate"] == [0.01, 0.01]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("where", ["callback", "target"])
def test_whatever_interrupts_leaves_the_best_parameters(where, error):
    flow, until = realnvp(), UntilWorse()

    def callback(flow, record):
        if until(flow, record) and where == "callback":
            raise error

    def target(x):
        if until.over:
            raise error
        return banana(x)

    with pytest.raises(error):
        fitted(flow, target, callbacks=callback, **WILD)
    np.testing.assert_array_equal(flow.params, until.best(flow))


class Killed(Exception):
    """The end of a run in the middle."""


def kill_after(rounds):
    def callback(flow, record):
        if record["round"] == rounds:
            raise Killed

    return callback


@pytest.mark.parametrize("validation_size", [0, 128])
def test_the_elbo_is_that_of_the_target_itself_while_tempering(validation_size):
    options = {"max_steps": 1, "batch_size": 128, "learning_rate": 1e-9}
    plain = fitted(validation_size=validation_size, **options)
    tempered = fitted(validation_size=validation_size, **{**options, "max_steps": 4, "steps_per_round": 1}, tempering=1.0)
    assert tempered.history["tempering"][0] == 0.25
    for name in ("elbo", "validation_elbo", "ess"):
        assert tempered.history[name][0] == pytest.approx(plain.history[name][0], rel=1e-6, nan_ok=True)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.npz"


def interrupted(path, rounds=3, flow=None, **options):
    with pytest.raises(Killed):
        fitted(flow, checkpoint=path, callbacks=kill_after(rounds), **options)


RUNS = {
    "default": {},
    "plain": {"sticking_the_landing": False},
    "tempering": {"tempering": 0.7},
    "ema": {"ema": 0.9},
    "no validation": {"validation_size": 0, "learning_rate": 0.2},
    "plateau": {"schedule": "plateau", "patience": 4, "learning_rate": 0.2},
    "uneven rounds": {"max_steps": 47, "warmup_steps": 20, "weight_decay": 0.1, "clip_norm": None},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(name, path):
    options = RUNS[name]
    whole = fitted(**options)
    interrupted(path, **options)
    same_bits(fitted(checkpoint=path, resume=True, **options), whole)
    same_bits(fitted(checkpoint=path, resume=True, **options), whole)  # once more: there is nothing left to do


@pytest.mark.parametrize("rng", [None, 99])
def test_a_resumed_run_goes_on_with_its_own_noise_whatever_the_seed(rng, path):
    interrupted(path)
    same_bits(fitted(checkpoint=path, resume=True, rng=rng), fitted())


def test_a_run_without_a_seed_goes_on(path):
    interrupted(path, rng=None)
    copied = path.with_name("copy.npz")
    copied.write_bytes(path.read_bytes())
    same_bits(*(fitted(checkpoint=place, resume=True, rng=None) for place in (path, copied)))


def test_a_run_killed_twice_and_before_the_first_round_goes_on(path):
    for rounds in (1, 2, 5):
        interrupted(path, rounds, resume=True)  # the first finds no file and starts anew
    same_bits(fitted(checkpoint=path, resume=True), fitted())


def test_a_checkpoint_can_be_loaded_as_the_best_flow_so_far(path):
    flow = realnvp()
    interrupted(path, 8, flow, **WILD)
    loaded = npflows.load(path)
    np.testing.assert_array_equal(loaded.params, flow.params)
    assert loaded.history == flow.history


def test_a_resumed_flow_knows_its_target_and_that_it_was_fitted(path):
    interrupted(path)
    flow = fitted(MODELS["NSF, ActNorm"](2))
    flow = fitted(target=banana, checkpoint=path, resume=True)
    assert flow.importance_weights(50, rng=0).log_weights.shape == (50,)
    table = flow.standardize.table.copy()
    flow.fit(np.random.default_rng(0).normal(5, 3, (100, 2)), max_epochs=1, rng=0, progress=False)
    np.testing.assert_array_equal(flow.standardize.table, table)


X = np.random.default_rng(0).normal(5, 3, (100, 2))
FIT = {"max_epochs": 3, "rng": 2, "progress": False}


def refused(error, message, call, flow):
    """The call raises, and leaves the flow as it was."""

    def state():
        target = flow._target
        return flow.params, flow.standardize.table.copy(), dict(flow.history), flow._is_standardized, target  # fmt: skip

    before = state()
    with pytest.raises(error, match=message):
        call(flow)
    for a, b in zip(before, state()):
        np.testing.assert_array_equal(a, b)


def test_a_checkpoint_of_fit_is_refused_and_one_of_fit_variational_by_fit(tmp_path):
    ours, theirs = tmp_path / "variational.npz", tmp_path / "fit.npz"
    fitted(checkpoint=ours)
    realnvp().fit(X, checkpoint=theirs, **FIT)
    before = ours.read_bytes(), theirs.read_bytes()
    with pytest.raises(FlowFileError, match=r"fit\.npz belongs to another run") as caught:
        fitted(checkpoint=theirs, resume=True)
    assert "max_steps is 60, the file has None" in str(caught.value)
    message = r"variational\.npz belongs to another kind of run"
    refused(FlowFileError, message, lambda flow: flow.fit(X, checkpoint=ours, resume=True, **FIT), realnvp())
    assert (ours.read_bytes(), theirs.read_bytes()) == before


OTHERS = {
    "model": ({"flow": npflows.MAF(2, 2, (8,), rng=1)}, ["flow is 'MAF', the file has 'RealNVP'"]),
    "layers": ({"flow": npflows.RealNVP(2, 3, (8,), rng=1)}, ["num_coupling_layers is 3, the file has 2"]),
    "validation": ({"validation_size": 100}, ["validation_size is 100, the file has 128"]),
    "generator": ({"rng": np.random.Generator(np.random.Philox(0))}, ["generator is 'Philox', the file has 'PCG64'"]),
    "many options": (
        {"max_steps": 70, "batch_size": 65, "steps_per_round": 11, "tempering": 0.5, "sticking_the_landing": False,
         "learning_rate": 0.5, "ema": 0.9, "patience": 3},
        ["max_steps is 70, the file has 60", "batch_size is 65, the file has 64", "steps_per_round is 11, the file has 10",
         "tempering_steps is 35, the file has 0", "sticking_the_landing is False, the file has True",
         "learning_rate is 0.5, the file has 0.01", "ema is 0.9, the file has None", "patience is 3, the file has None"],
    ),
}  # fmt: skip


def other_run(path, name):
    options, messages = OTHERS[name]
    interrupted(path)
    return copy.deepcopy(options.get("flow", realnvp())), {**options, "checkpoint": path, "resume": True}, messages


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_refused_with_all_that_differs(name, path):
    flow, options, messages = other_run(path, name)
    before = flow.params
    with pytest.raises(FlowFileError, match=r"run\.npz belongs to another run") as caught:
        fitted(**{**options, "flow": flow})
    for message in messages:
        assert message in str(caught.value)
    np.testing.assert_array_equal(flow.params, before)
    assert flow.history == {}


def test_a_refused_checkpoint_leaves_nothing_behind(path):
    flow, options, _ = other_run(path, "layers")
    refused(FlowFileError, "another run", lambda flow: fitted(**{**options, "flow": flow}), flow)


@pytest.mark.parametrize(
    "options", [{}, {"sticking_the_landing": False, "tempering": 0.5, "ema": 0.9}], ids=["default", "rest"]
)
def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads(options):
    flows = []
    for n in (1, 2, 5):
        npflows.set_num_threads(n)
        flows.append(fitted(MODELS["NSF"](2), max_steps=20, batch_size=1000, validation_size=3000, **options))
    same_bits(flows[0], flows[1])
    same_bits(flows[0], flows[2])
    options = {"max_steps": 20, "batch_size": 1000, "validation_size": 3000, **options}
    same_bits(flows[0], fitted(MODELS["NSF"](2), rng=np.random.default_rng(2), **options))
    assert not np.array_equal(flows[0].params, fitted(MODELS["NSF"](2), rng=3, **options).params)


def value(x):
    return banana(x)[0]


def slope(x):
    return banana(x)[1]


TARGETS = {
    "no function": ("banana", TypeError, r"log_density_and_grad must be a function of x \(n, 2\), got 'banana'"),
    "nothing": (None, TypeError, "log_density_and_grad must be a function"),
    "one array": (
        value,
        TypeError,
        r"must return two arrays, the log-density \(n,\) and its gradient \(n, 2\), got ndarray",
    ),
    "returns nothing": (lambda x: None, TypeError, "must return two arrays, .* got NoneType"),
    "three arrays": (lambda x: (*banana(x), 0), TypeError, "must return two arrays, .* got tuple"),
    "a column": (
        lambda x: (value(x)[:, None], slope(x)),
        ValueError,
        r"shapes \(8,\) and \(8, 2\) for x of shape \(8, 2\), got \(8, 1\) and \(8, 2\)",
    ),
    "the sum": (lambda x: (value(x).sum(), slope(x)), ValueError, r"got \(\) and \(8, 2\)"),
    "transposed gradient": (lambda x: (value(x), slope(x).T), ValueError, r"got \(8,\) and \(2, 8\)"),
    "swapped": (lambda x: banana(x)[::-1], ValueError, r"got \(8, 2\) and \(8,\)"),
    "the gradient of the sum": (lambda x: (value(x), slope(x).sum(axis=0)), ValueError, r"got \(8,\) and \(2,\)"),
    "NaN": (lambda x: (value(x) * np.nan, slope(x)), ValueError, r"must be a number or -inf, got nan at x = \["),
    "infinite": (lambda x: (value(x) + np.inf, slope(x)), ValueError, r"must be a number or -inf, got inf at x = \["),
}


def log_normal(x):
    """A wide density on the half-line."""
    with np.errstate(all="raise"):
        t = np.log(x)
        return -((t / 3) ** 2).sum(axis=1) / 2 - t.sum(axis=1), -(t / 9 + 1) / x


def test_the_target_is_never_asked_outside_the_support():
    flow = realnvp(support=[npflows.support.positive()] * 2)
    flow.standardize.set(0.0, 4.0)
    fitted(flow, log_normal, max_steps=300)
    assert flow.history["ess"][-1] > 0.9


@pytest.mark.parametrize("case", TARGETS.values(), ids=TARGETS)
def test_a_wrong_target_is_refused_before_anything_is_changed(case):
    target, error, message = case
    refused(error, message, lambda flow: fitted(flow, target), realnvp())


def test_a_target_that_writes_into_x_is_stopped():
    def shifting(x):
        x -= 1.0
        return banana(x)

    refused(ValueError, "read-only", lambda flow: fitted(flow, shifting), realnvp())


def test_x_is_read_only_float64_rows_at_every_call():
    sizes = []

    def target(x):
        assert (x.dtype, x.ndim, x.flags.writeable) == (np.float64, 2, False)
        sizes.append(len(x))
        return banana(x)

    fitted(target=target, max_steps=20)
    assert sizes[-1] == 128
    assert 64 in sizes


def empty(x):
    """No density anywhere."""
    return np.full(len(x), -np.inf), np.zeros_like(x)


def half(x):
    log_p, gradient = banana(x)
    return np.where(x[:, 0] > 0, log_p, -np.inf), gradient


def hole(x):
    log_p, gradient = banana(x)
    return np.where(x[:, 0] > 2.5, np.nan, log_p), gradient  # not where the first look goes


@pytest.mark.parametrize("target", [empty, half, hole])
def test_a_target_that_is_not_finite_everywhere_ends_with_its_place_and_the_first_parameters(target):
    flow = realnvp()
    before = flow.params
    message = r"round \d+: .* log-density or its gradient is not finite at \d+ of 1000 samples, at \[.*\] for instance: .*"
    with pytest.raises(TrainingError, match=message + "give the flow a support= if parameters are bounded") as caught:
        fitted(flow, target, batch_size=1000, max_steps=100)
    np.testing.assert_array_equal(flow.params, before)
    if target is half:
        place = float(str(caught.value).split("at [")[1].split()[0].rstrip("]"))
        assert place <= 0


def test_a_gradient_of_nan_is_refused_before_anything_is_changed():
    refused(ValueError, "gradient", lambda flow: fitted(flow, lambda x: (value(x), slope(x) * np.nan)), realnvp())


def test_bad_steps_are_counted_and_not_taken():
    calls = []

    def target(x):
        calls.append(len(x))
        log_p, gradient = banana(x)
        return (log_p * np.nan if len(calls) == 5 else log_p), gradient

    flow = fitted(target=target, max_steps=6, steps_per_round=3)  # two calls before, three steps, validation
    assert flow.history["skipped_steps"] == [1, 0]
    assert np.isfinite(flow.history["elbo"]).all()


FORMS = {
    "float32": lambda x: tuple(a.astype(np.float32) for a in banana(x)),
    "lists": lambda x: tuple(a.tolist() for a in banana(x)),
    "Fortran order": lambda x: (banana(x)[0], np.asfortranarray(banana(x)[1])),
    "a view of a larger array": lambda x: (np.repeat(banana(x)[0], 2)[::2], np.repeat(banana(x)[1], 2, axis=1)[:, ::2]),
    "read-only": lambda x: tuple(np.frombuffer(a.tobytes()).reshape(a.shape) for a in banana(x)),
    "a list of two": pytest.param(lambda x: list(banana(x))),
}


@pytest.mark.parametrize("target", FORMS.values(), ids=FORMS)
def test_what_the_target_returns_may_come_in_any_form(target):
    flow, expected = fitted(target=target, max_steps=20), fitted(max_steps=20)
    np.testing.assert_allclose(flow.params, expected.params, atol=1e-5)
    np.testing.assert_allclose(flow.history["elbo"], expected.history["elbo"], rtol=1e-4)


def test_a_target_may_return_the_same_array_each_time_or_x_itself():
    memory = np.empty((1000, 2))

    def target(x):
        memory[: len(x)] = -x
        return -0.5 * (x**2).sum(axis=1), memory[: len(x)]

    one, other = (fitted(target=f, max_steps=20) for f in (target, lambda x: (-0.5 * (x**2).sum(axis=1), -x)))
    same_bits(one, other)
    same_bits(*(fitted(target=f, max_steps=2) for f in (growing, lambda x: (growing(x)[0], x + 0))))


def growing(x):
    """No density, and its gradient is x itself."""
    return 0.5 * (x**2).sum(axis=1), x


WRONG_GRADIENTS = {
    "sign": lambda x: -slope(x),
    "factor": lambda x: 2 * slope(x),
    "zero": lambda x: np.zeros_like(x),
    "swapped columns": lambda x: slope(x)[:, ::-1],
    "one column": lambda x: slope(x) * [1.0, 0.0],
    "of another point": lambda x: slope(x + 0.5),
}


@pytest.mark.parametrize("name", WRONG_GRADIENTS)
def test_a_wrong_gradient_is_a_warning_that_says_where(name):
    message = r"gradient that log_density_and_grad returns does not seem .* at \[.*\] the log-density changes by .* says "
    with pytest.warns(UserWarning, match=message) as caught:
        realnvp().fit_variational(lambda x: (value(x), WRONG_GRADIENTS[name](x)), **{**SHORT, "max_steps": 1})
    assert caught[0].filename == __file__
    assert len(caught) == 1


def funnel(x):
    v, y = x[:, 0], x[:, 1]
    squares = y**2 * np.exp(-v)
    return -(v**2) / 18 - 0.5 * squares - 0.5 * v, np.column_stack([-v / 9 + 0.5 * squares - 0.5, -y * np.exp(-v)])


RIGHT_GRADIENTS = {
    "bent": banana,
    "funnel": funnel,
    "steep": lambda x: (-1e8 * (x**2).sum(axis=1), -2e8 * x),
    "steep and far": lambda x: (-1e4 * ((x - 1e3) ** 2).sum(axis=1), -2e4 * (x - 1e3)),
    "quartic": lambda x: (-1e3 * (x**4).sum(axis=1), -4e3 * x**3),
    "exponential": lambda x: (-np.exp(3 * x).sum(axis=1), -3 * np.exp(3 * x)),
    "with a kink": lambda x: (-np.abs(x).sum(axis=1), -np.sign(x)),
    "flat": lambda x: (np.zeros(len(x)), np.zeros_like(x)),
    "large constant": lambda x: (value(x) + 1e9, slope(x)),
    "float32": lambda x: tuple(a.astype(np.float32) for a in banana(x)),
    "float32, large constant": lambda x: ((value(x) - 1e4).astype(np.float32), slope(x)),
    "two modes": two_modes,
    "wrong where few samples are": lambda x: (value(x), np.where(x[:, :1] > 1, 0, slope(x))),
}


@pytest.mark.parametrize("name", RIGHT_GRADIENTS)
@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e6])
def test_a_right_gradient_raises_no_warning(name, unit):
    flow = realnvp()
    flow.standardize.set(3 * unit, unit)

    def target(x):
        log_p, gradient = RIGHT_GRADIENTS[name](x / unit - 3)
        return log_p, gradient / unit

    fitted(flow, target, max_steps=1)  # warnings are errors


def test_a_flow_with_a_condition_is_refused():
    flow = realnvp(condition_dim=2)
    message = "takes flows without a condition; this one has condition_dim=2"
    refused(ValueError, message, lambda flow: fitted(flow), flow)


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
    refused(error, message, lambda flow: fitted(flow, target, **options), realnvp())
    assert target.calls == 0


def test_a_second_call_continues_from_the_present_parameters():
    flow = fitted(max_steps=300, learning_rate=2e-2)
    reached = elbo(flow)
    fitted(flow, max_steps=10, learning_rate=1e-6)
    assert flow.history["round"] == [1]
    assert flow.history["elbo"][0] == pytest.approx(reached, abs=0.2)
    assert reached > elbo(realnvp()) + 0.3
    assert elbo(flow) == pytest.approx(reached, abs=1e-3)


def test_the_first_parameters_are_kept_if_nothing_is_better():
    flow = fitted(max_steps=300, learning_rate=2e-2)
    reached = elbo(flow)
    fitted(flow, max_steps=10, learning_rate=1.0, schedule="constant")
    assert elbo(flow) > reached - 0.05


def test_a_fit_afterwards_continues_without_a_new_standardisation():
    flow = MODELS["NSF, ActNorm"](2)
    flow.standardize.set([1.0, 2.0], [2.0, 5.0])
    fitted(flow, Gaussian(), max_steps=300)
    table, before = flow.standardize.table.copy(), flow.params
    x = flow.sample(400, 0)
    nll = -flow.log_prob(x).mean()
    flow.fit(x, **{**FIT, "max_epochs": 0})
    np.testing.assert_array_equal(flow.params, before)
    flow.fit(x, learning_rate=1e-6, **FIT)
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

    fitted(flow, target)
    np.testing.assert_array_equal(flow.standardize.table, table)
    assert flow.history["ess"][0] > 0.9


def test_reset_starts_afresh():
    flow = fitted(target=Gaussian()).reset(1)
    np.testing.assert_array_equal(flow.params, realnvp().params)
    flow.fit(X, **FIT)
    np.testing.assert_array_equal(flow.params, realnvp().fit(X, **FIT).params)


COPIES = {
    "save and load": lambda flow, path: (flow.save(path), npflows.load(path))[1],
    "pickle": lambda flow, path: pickle.loads(pickle.dumps(flow)),
    "deepcopy": lambda flow, path: copy.deepcopy(flow),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_needs_the_target_again_which_may_be_anything(how, path):
    flow = fitted(target=lambda x: banana(x))
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
    same_bits(fitted(dropped), fitted(plain))


def heavy():
    return realnvp(base_distribution=npflows.StudentT(2, 3.0))


def test_the_base_stays_as_it_is():
    flow = fitted(heavy(), max_steps=200, learning_rate=2e-2)
    np.testing.assert_array_equal(flow.named_params()["base.log_df"], heavy().named_params()["base.log_df"])
    assert elbo(flow) > elbo(heavy()) + 0.3


def test_the_base_stays_as_it_is_with_weight_decay():
    flow = fitted(heavy(), max_steps=20, weight_decay=0.5)
    np.testing.assert_array_equal(flow.named_params()["base.log_df"], heavy().named_params()["base.log_df"])


def test_weight_decay_draws_the_weights_towards_zero():
    sizes = [np.linalg.norm(fitted(weight_decay=decay, max_steps=200).params) for decay in (0.0, 1.0)]
    assert sizes[1] < 0.9 * sizes[0]


def test_masked_weights_stay_exactly_zero():
    flow = npflows.MAF(2, 2, (8,), rng=1)
    fixed = ~flow.parameters.free
    before = flow.parameters.theta[fixed].copy()
    fitted(flow, weight_decay=0.1, sticking_the_landing=False)
    np.testing.assert_array_equal(flow.parameters.theta[fixed], before)


def test_images_come_to_the_target_as_rows():
    flow, seen = npflows.RealNVP((2, 2, 1), 2, (8,), rng=0), set()

    def target(x):
        seen.add(x.shape[1:])
        return -2.0 * (x**2).sum(axis=1), -4.0 * x

    fitted(flow, target, max_steps=200)
    assert seen == {(4,)}
    assert flow.sample(5000, 0).std(axis=0) == pytest.approx(np.full((2, 2, 1), 0.5), rel=0.1)


def test_progress_shows_rounds_and_how_good_they_are(capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)  # not installed
    flow = fitted(progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert f"round 6/6: ELBO {flow.history['validation_elbo'][-1]:.4f}, ESS {flow.history['ess'][-1]:.1%}\n" in err
    flow = fitted(progress=True, validation_size=0, tempering=1.0, callbacks=lambda flow, record: True)
    err = capfd.readouterr().err
    assert f"round 1/6: ELBO {flow.history['elbo'][0]:.4f}, tempering 0.17\n" in err
