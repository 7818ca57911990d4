"""`fit`: what it learns, what each option does, and what it does when numbers go wrong."""

import contextlib
import math

import numpy as np
import pytest
from helpers import COPIES_TOLD, SHARED_TOLD, UntilWorse, fitted, same_bits

import npflows
from npflows.backends.cpu.adam import Adam
from npflows.training import fit as fit_module

pytestmark = SHARED_TOLD
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(600, 2)) @ [[1.0, 2.0], [0.0, 1.0]] + [1.0, -2.0]
WEIGHT = RNG.uniform(0.1, 2.0, 600)
OTHER = RNG.normal(size=(200, 2)) @ [[1.0, 2.0], [0.0, 1.0]] + [1.0, -2.0]


def maf(layers=2, **options):
    return npflows.MAF(2, layers, (8,), rng=1, **options)


def full_batch(x, flow=None, **options):
    """A fit in which every step sees all rows, so that their order is all but irrelevant."""
    options = {"max_epochs": 40, "batch_size": len(x), "learning_rate": 1e-2, "validation_fraction": 0.0, **options}
    return fitted(flow or maf(), x, **options)


def nll(flow, x=OTHER, weight=None):
    return flow.nll_and_grad(x, weight)[0]


def banana(n, rng):
    """Rows of a bent density, and the density's logarithm there."""
    u, e = np.random.default_rng(rng).normal(size=(2, n))
    log_prob = -0.5 * (u**2 + e**2) - math.log(2 * math.pi) - math.log(2 * 0.3)
    return np.column_stack([2 * u + 3, u**2 + 0.3 * e]), log_prob


@pytest.mark.parametrize("model", [npflows.MAF, npflows.RealNVP])
def test_the_fit_comes_close_to_the_true_density(model):
    x, _ = banana(4000, 1)
    held_out, truth = banana(2000, 2)
    flow = model(2, 4, (24,), rng=0).fit(x, max_epochs=40, batch_size=200, learning_rate=5e-3, rng=0, progress=False)
    assert nll(flow, held_out) + truth.mean() < 0.06
    shares = np.array([0.05, 0.25, 0.5, 0.75, 0.95])[:, None]
    below = (flow.sample(4000, 5) < np.quantile(x, shares, axis=0)).mean(axis=1)
    assert np.abs(below - shares).max() < 0.06  # by chance alone 4000 rows and 4000 samples differ by about 0.01


def test_a_column_of_58000_keeps_its_digits():
    steps = np.random.default_rng(0).normal(size=(2000, 2))
    x, held_out = (58000 + 0.003 * part for part in (steps[:1000], steps[1000:]))
    flow = fitted(maf(), x, max_epochs=10)
    truth = -0.5 * (steps[1000:] ** 2).sum(axis=1) - math.log(2 * math.pi) - 2 * math.log(0.003)
    assert nll(flow, held_out) + truth.mean() < 0.1  # a scale that is off by a tenth costs 0.02, one by a half 0.3
    assert np.std(flow.sample(2000, 0), axis=0) == pytest.approx([0.003, 0.003], rel=0.1)


def test_the_density_is_in_the_units_of_the_columns():
    flow, scaled = fitted(maf(), TABLE), fitted(maf(), TABLE * [1024.0, 0.25])  # powers of 2: standardized to the same bits
    np.testing.assert_array_equal(scaled.params, flow.params)
    shifted = flow.log_prob(OTHER) - math.log(1024 * 0.25)
    np.testing.assert_allclose(scaled.log_prob(OTHER * [1024.0, 0.25]), shifted, rtol=1e-12)


@COPIES_TOLD
def test_a_row_of_weight_2_counts_as_two_rows():
    weight = np.where(TABLE[:, 0] > 1, 2.0, 1.0)
    twice = np.concatenate([TABLE, TABLE[weight == 2]])
    weighted, repeated, plain = (
        full_batch(x, flow=maf(dtype="float64"), sample_weight=w)
        for x, w in ((TABLE, weight), (twice, None), (TABLE, None))
    )
    np.testing.assert_allclose(weighted.log_prob(OTHER), repeated.log_prob(OTHER), rtol=1e-4)
    assert abs(nll(weighted) - nll(plain)) > 0.03
    once = repeated.nll_and_grad(TABLE, weight)
    np.testing.assert_allclose(once[1], repeated.nll_and_grad(twice)[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("base", ["normal", "uniform"])
@pytest.mark.parametrize("absurd", [1e6, 1e30, 1e300])
def test_rows_of_weight_zero_do_not_matter(base, absurd):
    x, weight = np.insert(TABLE, [0, 100, 300], [absurd, -absurd], axis=0), np.insert(WEIGHT, [0, 100, 300], 0.0)
    with_them, without = (
        full_batch(table, flow=maf(base_distribution=base, dtype="float64"), sample_weight=w, max_epochs=10)
        for table, w in ((x, weight), (TABLE, WEIGHT))
    )
    np.testing.assert_allclose(with_them.standardize.table, without.standardize.table, rtol=1e-9)
    np.testing.assert_allclose(with_them.params, without.params, rtol=1e-6, atol=1e-9)
    assert with_them.history["skipped_steps"] == without.history["skipped_steps"]


@pytest.mark.parametrize("absurd", [1e300, np.inf, np.nan])
def test_rows_of_weight_zero_have_no_gradient(absurd):
    flow = fitted(maf(), TABLE)
    x, weight = np.insert(TABLE, 3, absurd, axis=0), np.insert(WEIGHT, 3, 0.0)
    value, gradient = flow.nll_and_grad(x, weight)
    assert value == pytest.approx(nll(flow, TABLE, WEIGHT), rel=1e-12)
    np.testing.assert_allclose(gradient, flow.nll_and_grad(TABLE, WEIGHT)[1], atol=1e-6)


def test_weights_follow_their_rows_through_shuffling():
    x = np.concatenate([TABLE, OTHER + 50])
    weight = np.where(np.arange(800) < 600, 1.0, 1e-9)
    flow = fitted(maf(), x, sample_weight=weight, max_epochs=20)
    np.testing.assert_allclose(flow.sample(2000, 0).mean(axis=0), TABLE.mean(axis=0), atol=0.3)
    assert nll(flow) < 3.2


def test_conditions_follow_their_rows_through_shuffling():
    rng = np.random.default_rng(0)
    c, c_held_out = rng.normal(size=(2, 1500, 1))
    x, held_out = (np.hstack([3 * c, -c]) + rng.normal(size=(1500, 2)) for c in (c, c_held_out))
    flow = fitted(maf(condition_dim=1), x, condition=c, max_epochs=40, learning_rate=1e-2)
    entropy = math.log(2 * math.pi * math.e)
    assert -flow.log_prob(held_out, c_held_out).mean() == pytest.approx(entropy, abs=0.15)
    np.testing.assert_allclose(flow.sample(2000, 0, condition=[2.0]).mean(axis=0), [6, -2], atol=1.0)  # else 0
    fitted(flow, x, condition=c, validation_data=held_out, validation_condition=c_held_out, max_epochs=1, patience=None)
    assert flow.history["validation_loss"][0] == pytest.approx(-flow.log_prob(held_out, c_held_out).mean(), abs=0.02)


class Split(fit_module.LikelihoodTrainer):
    """Keeps what a run trained and validated on."""

    def __init__(self, flow, train, validation, **options):
        super().__init__(flow, train, validation, **options)
        type(self).train_rows, type(self).validation_rows = train.index, validation.index


def test_validation_fraction_is_the_share_held_out(monkeypatch):
    monkeypatch.setattr(fit_module, "LikelihoodTrainer", Split)
    fitted(maf(), TABLE, max_epochs=1, validation_fraction=0.2)
    assert (len(Split.train_rows), len(Split.validation_rows)) == (480, 120)
    np.testing.assert_array_equal(np.sort(np.concatenate([Split.train_rows, Split.validation_rows])), np.arange(600))
    assert not np.array_equal(np.sort(Split.validation_rows), np.arange(120)), "not drawn at random"


@pytest.mark.parametrize("ema", [None, 0.9])
def test_early_stopping_keeps_the_best_parameters(ema):
    options = {"max_epochs": 300, "learning_rate": 3e-2, "patience": 7, "schedule": "constant", "ema": ema}
    flow = fitted(maf(), TABLE[:40], validation_data=OTHER, validation_weight=WEIGHT[:200], **options)
    losses = flow.history["validation_loss"]
    assert nll(flow, OTHER, WEIGHT[:200]) == pytest.approx(min(losses), rel=1e-6)
    assert len(losses) == np.argmin(losses) + 1 + 7 < 300


def test_ema_keeps_the_moving_average():
    passed = []
    flow = full_batch(TABLE, max_epochs=6, ema=0.8, callbacks=[lambda flow, record: passed.append(flow.params)])
    average = maf().params
    for step, params in enumerate(passed, 1):
        decay = min(0.8, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * params
    assert np.argmin(flow.history["train_loss"]) == 5
    np.testing.assert_allclose(flow.params, average, atol=1e-6)


def rates(**options):
    return full_batch(TABLE, learning_rate=0.01, **options).history["learning_rate"]


def test_each_schedule_gives_the_promised_rates_after_a_warm_up():
    rise = [0.0025, 0.005, 0.0075, 0.01]
    assert rates(schedule="constant", max_epochs=7, warmup_steps=4) == pytest.approx([*rise, 0.01, 0.01, 0.01])
    fall = [0.005 * (1 + math.cos(math.pi * k / 6)) for k in range(6)]
    assert rates(schedule="cosine", max_epochs=6) == pytest.approx(fall)
    assert rates(schedule="cosine", max_epochs=10, warmup_steps=4) == pytest.approx([*rise, *fall])


def test_plateau_halves_the_rate_when_nothing_improves():
    nothing_to_learn = npflows.NormalizingFlow([npflows.Standardize(2)])
    halving = rates(flow=nothing_to_learn, schedule="plateau", max_epochs=30, patience=8)
    first = 0.01  # without validation rows the first epoch says what there is to improve on
    assert halving == pytest.approx([first, 0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025, 0.00125, 0.00125])


def test_weight_decay_draws_the_weights_towards_zero():
    sizes = [np.linalg.norm(full_batch(TABLE, weight_decay=decay).params) for decay in (0.0, 1.0)]
    assert sizes[1] < 0.9 * sizes[0]


def test_max_seconds_ends_the_run():
    flow = fitted(maf(), TABLE, max_epochs=10**6, max_seconds=0.05, patience=None)
    assert 1 <= len(flow.history["epoch"]) < 10**6
    assert nll(flow) < nll(fitted(maf(), TABLE, max_epochs=0))


@pytest.mark.parametrize("callbacks", [3, [print, "later"]])
def test_callbacks_that_are_no_functions_are_refused(callbacks):
    with pytest.raises(TypeError, match=r"callbacks must be functions of \(flow, record\), got (3|'later')"):
        fitted(maf(), TABLE, callbacks=callbacks)


def test_callbacks_see_each_epoch_and_true_ends_the_run():
    seen = []
    flow = fitted(
        maf(), TABLE, callbacks=[lambda flow, record: seen.append(record), lambda flow, record: record["epoch"] == 3]
    )
    assert [record["epoch"] for record in seen] == flow.history["epoch"] == [1, 2, 3]
    assert {name: [record[name] for record in seen] for name in seen[0]} == flow.history


def test_a_second_fit_continues_with_the_first_standardization():
    flow = fitted(maf(), TABLE, max_epochs=30, learning_rate=1e-2)
    table, before = flow.standardize.table.copy(), nll(flow, TABLE)
    fitted(flow, TABLE * 2, max_epochs=0)
    np.testing.assert_array_equal(flow.standardize.table, table)
    assert nll(flow, TABLE) == before
    fitted(flow, TABLE, max_epochs=2, learning_rate=1e-5)
    assert flow.history["train_loss"][0] == pytest.approx(before, abs=0.05)
    assert flow.history["epoch"] == [1, 2]


def test_reset_starts_afresh():
    flow = fitted(maf(), TABLE * 3).reset(1)
    same_bits(flow, maf())
    assert flow.history == {}
    same_bits(fitted(flow, TABLE), fitted(maf(), TABLE))


def test_without_standardization_the_units_stay():
    flow = fitted(maf(), TABLE, standardize=False)
    np.testing.assert_array_equal(flow.standardize.table, [[0, 0], [1, 1], [0, 0]])
    assert nll(flow) < nll(maf())


@COPIES_TOLD
@pytest.mark.parametrize("options", [{}, {"sample_weight": np.tile(WEIGHT, 5), "ema": 0.9}], ids=["plain", "weights, ema"])
def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads(options):
    x, flows = np.tile(TABLE, (5, 1)), []
    for n in (1, 2, 5):
        npflows.set_num_threads(n)
        flows.append(fitted(maf(), x, batch_size=1000, **options))
    same_bits(flows[0], flows[1])
    same_bits(flows[0], flows[2])
    assert not np.array_equal(flows[0].params, fitted(maf(), x, batch_size=1000, **options, rng=3).params)
    same_bits(flows[0], fitted(maf(), x, batch_size=1000, **options, rng=np.random.default_rng(2)))


@pytest.mark.filterwarnings("ignore:.*constant:UserWarning", "ignore:.*more columns than rows:UserWarning")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_tiny_tables_can_be_fitted(n):
    flow = fitted(maf(), TABLE[:n])
    assert len(flow.history["epoch"]) == 4
    assert np.isfinite(flow.log_prob(TABLE[:n])).all()


def test_the_uniform_base_ends_with_the_columns_in_its_support():
    flow = maf(base_distribution="uniform")
    fitted(flow, TABLE, max_epochs=0, validation_fraction=0.0)
    z, _ = flow.forward(TABLE)
    assert z.min() == pytest.approx(0.05, abs=1e-6)
    assert z.max() == pytest.approx(0.95, abs=1e-6)
    start = nll(flow, TABLE)
    with pytest.warns(UserWarning, match="rows left the base's bounds in .* of .* epochs"):
        fitted(flow, TABLE, max_epochs=30, validation_data=TABLE)  # grows until rows fall out: no such step is taken
    assert nll(flow, TABLE) < start
    assert sum(flow.history["skipped_steps"]) > 0
    assert np.isfinite(flow.log_prob(TABLE)).all()


def test_splines_keep_the_bounds_of_a_uniform_base_and_learn():
    base = npflows.Uniform(2, -3.0, 3.0)
    flow = npflows.NeuralSplineFlow(2, 2, (8,), 4, tail_bound=3.0, linear="permutation", base_distribution=base, rng=0)
    fitted(flow, TABLE, max_epochs=0, validation_fraction=0.0)
    start = nll(flow, TABLE)
    fitted(flow, TABLE, max_epochs=15)
    assert nll(flow, TABLE) < start - 0.3
    assert np.isfinite(flow.history["validation_loss"]).all()


@pytest.mark.filterwarnings("ignore:.*dominate the (training|validation) loss:UserWarning")
def test_student_t_learns_heavy_tails():
    x, held_out = np.random.default_rng(0).standard_t(2.0, (2, 3000, 2))
    normal, heavy = (
        fitted(maf(1, base_distribution=base), x, max_epochs=30, learning_rate=1e-2) for base in ("normal", "student_t")
    )
    assert nll(heavy, held_out) < nll(normal, held_out) - 0.1
    assert (heavy.base.degrees_of_freedom < 3.5).all()


def test_a_base_that_is_given_keeps_its_constants():
    base = npflows.Normal(2, [1.0, -1.0], [2.0, 0.5])
    flow = fitted(maf(base_distribution=base), TABLE, max_epochs=30, learning_rate=1e-2)
    np.testing.assert_array_equal(flow.named_params()["base.loc"], [1.0, -1.0])
    np.testing.assert_array_equal(flow.named_params()["base.scale"], [2.0, 0.5])
    assert nll(flow) < nll(fitted(maf(), TABLE, max_epochs=0)) - 0.05


def test_masked_weights_stay_exactly_zero():
    flow = maf(1)
    fixed = ~flow.parameters.free
    before = flow.parameters.theta[fixed].copy()
    fitted(flow, TABLE, max_epochs=20, weight_decay=0.1)
    np.testing.assert_array_equal(flow.parameters.theta[fixed], before)
    z, _ = flow.forward([[1.0, 2.0], [1.0, -7.0]])
    assert z[0, 0] == z[1, 0]


def poison(monkeypatch, bad):
    """Make the gradient NaN in the steps (1, 2, 3, ...) for which `bad` says so; returns the rate of each step."""
    step, asked = Adam.step, []

    def poisoned(self, buffers, rate, *average):
        asked.append(rate)
        if bad(len(asked)):
            buffers[:] = np.nan
        return step(self, buffers, rate, *average)

    monkeypatch.setattr(Adam, "step", poisoned)
    return asked


def test_a_step_that_is_not_finite_is_not_taken(monkeypatch):
    poison(monkeypatch, lambda step: step in (2, 4))
    flow = full_batch(TABLE, max_epochs=5)
    assert flow.history["skipped_steps"] == [0, 1, 0, 1, 0]
    monkeypatch.undo()
    assert nll(flow, TABLE) < nll(fitted(maf(), TABLE, max_epochs=0), TABLE)


def test_repeated_bad_steps_go_back_to_the_best_at_half_the_rate(monkeypatch):
    asked, params = poison(monkeypatch, lambda step: 3 < step <= 8), []
    options = {"schedule": "constant", "ema": None, "callbacks": [lambda flow, _: params.append(flow.params)]}
    flow = full_batch(TABLE, max_epochs=10, **options)
    assert asked == [0.01] * 8 + [0.005] * 2
    np.testing.assert_array_equal(params[7], params[2])
    assert nll(flow, TABLE) < nll(fitted(maf(), TABLE, max_epochs=0), TABLE)


@pytest.mark.parametrize("patience", [None, 2])
def test_bad_steps_without_end_stop_with_the_epoch_and_the_best_parameters(monkeypatch, patience):
    poison(monkeypatch, lambda step: step > 3)
    with pytest.raises(npflows.TrainingError, match=r"epoch 33: .* not finite in 5 steps .* epoch 3\. .* learning_rate"):
        full_batch(TABLE, flow=(flow := maf()), patience=patience)
    monkeypatch.undo()
    same_bits(flow, full_batch(TABLE, max_epochs=40, callbacks=[lambda flow, record: record["epoch"] == 3]), history=False)


@pytest.mark.parametrize("rate", [1e3, 1e30, 1e300])
def test_an_absurd_learning_rate_leaves_a_finite_flow_no_worse_than_at_first(rate):
    flow = fitted(maf(), TABLE, max_epochs=0, validation_data=OTHER)
    before = nll(flow)
    with contextlib.suppress(npflows.TrainingError):
        fitted(flow, TABLE, max_epochs=30, learning_rate=rate, validation_data=OTHER)
    assert nll(flow) <= before + 1e-6


def test_ctrl_c_leaves_the_best_parameters_and_the_history():
    """Steps of a constant 0.05 on 40 rows overfit sooner or later, and the first epoch that does ends the run."""
    flow, is_worse = maf(), UntilWorse("validation_loss")

    def interrupt(flow, record):
        if is_worse(flow, record):
            raise KeyboardInterrupt

    options = {"validation_data": OTHER, "learning_rate": 5e-2, "schedule": "constant", "ema": None, "max_epochs": 1000}
    with pytest.raises(KeyboardInterrupt):
        fitted(flow, TABLE[:40], callbacks=[interrupt], patience=None, **options)
    assert flow.history["epoch"] == list(range(1, len(is_worse.passed) + 1))
    np.testing.assert_array_equal(flow.params, is_worse.best(flow))
    assert nll(flow) == pytest.approx(min(flow.history["validation_loss"]), rel=1e-6)
