"""Runs that time ends, on a clock that each step moves: the cosine schedule ends with them."""

import math
import sys

import numpy as np
import pytest
from helpers import Killed, fitted, kill_after, same_bits
from targets import short_run

import npflows
from npflows.training import budget
from npflows.training.likelihood import LikelihoodTrainer
from npflows.training.variational import VariationalTrainer

X = np.random.default_rng(0).normal(size=(400, 2)) @ [[1.0, 0.5], [0.0, 1.0]]
N_BATCHES = 10
"""Of an epoch: 360 training rows in batches of 36."""


class Clock:
    """Seconds that pass only where a test says so, and what each step of a run saw."""

    def __init__(self):
        self.now, self.steps, self.rates, self.exponents = 1000.0, 0, [], []
        self.seconds = lambda step: 1.0

    def __call__(self):
        return self.now

    def during(self, run_step):
        def slow_step(trainer, *given):
            self.rates.append(trainer.schedule.rate(trainer.step, trainer.budget.steps_left()))
            self.now += self.seconds(self.steps)
            self.steps += 1
            return run_step(trainer, *given)

        return slow_step


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(budget, "monotonic", clock)
    for trainer in (LikelihoodTrainer, VariationalTrainer):
        monkeypatch.setattr(trainer, "run_step", clock.during(trainer.run_step))
    return clock


def maf():
    return npflows.MAF(2, 2, (8,), rng=1)


def fit(flow=None, **options):
    return fitted(
        flow or maf(), X, **{"batch_size": 36, "learning_rate": 1e-2, "max_epochs": 10**6, "patience": None, **options}
    )


def falls_to_nothing(rates, peak=1e-2):
    """Whether the rate rises to its peak, then falls without a rise to nearly 0."""
    rates = np.array(rates)
    top = rates.argmax()
    assert rates[top] == pytest.approx(peak, rel=0.01)
    assert top <= max(0.2 * len(rates), 1)
    assert (np.diff(rates[top:]) <= 0).all(), "the rate rises again"
    assert rates[-1] < 0.01 * peak


@pytest.mark.parametrize("max_epochs", [100, 10**6])
def test_the_rate_falls_to_nothing_as_the_time_ends(clock, max_epochs):
    flow = fit(max_seconds=300, max_epochs=max_epochs)
    assert clock.steps == 300
    assert len(flow.history["epoch"]) == 30
    falls_to_nothing(clock.rates)
    middle = 0.5e-2 * (1 + math.cos(math.pi * (150 - 30) / (300 - 30)))
    assert clock.rates[150] == pytest.approx(middle, rel=0.01)
    assert flow.history["learning_rate"] == clock.rates[N_BATCHES - 1 :: N_BATCHES]


SPEEDS = {
    "slower": lambda step: 1.0 if step < 100 else 3.0,
    "faster": lambda step: 1.0 if step < 100 else 0.25,
    "in waves": lambda step: 1.0 + 0.8 * math.sin(step / 7),
    "with a pause": lambda step: 120.0 if step == 80 else 1.0,
    "a first step that compiles": lambda step: 90.0 if step == 0 else 0.5,
}


@pytest.mark.parametrize("seconds", SPEEDS.values(), ids=SPEEDS)
def test_so_it_does_on_machines_whose_speed_changes(clock, seconds):
    clock.seconds = seconds
    fit(max_seconds=300)
    falls_to_nothing(clock.rates)
    assert 1300 <= clock.now < 1300 + 3.5


def test_the_time_for_validation_and_callbacks_is_counted(clock):
    def callback(flow, record):
        clock.now += 5.0

    fit(max_seconds=300, callbacks=callback)
    falls_to_nothing(clock.rates)
    assert 1295 <= clock.now <= 1301


def test_an_epoch_is_cut_where_the_time_ends(clock):
    flow = fit(max_seconds=204)
    assert clock.steps == 204
    assert len(flow.history["epoch"]) == 21
    assert math.isfinite(flow.history["validation_loss"][-1])


def test_time_that_is_enough_changes_no_bit(clock):
    flow = fit(max_seconds=201, max_epochs=20)
    assert clock.steps == 200
    same_bits(flow, fit(max_epochs=20))


def test_time_for_less_than_an_epoch_is_told(clock):
    with pytest.warns(
        UserWarning, match="max_seconds was up after 6 of the 10 steps of the first epoch.*give it more time"
    ):
        fit(max_seconds=6)
    assert clock.rates[-1] < 0.3e-2


def test_a_long_warm_up_ends_in_time(clock):
    fit(max_seconds=300, warmup_steps=1000)
    falls_to_nothing(clock.rates)


def test_other_schedules_only_end(clock):
    assert set(fit(max_seconds=100, schedule="constant").history["learning_rate"]) == {1e-2}
    assert clock.steps == 100


def test_a_run_that_was_killed_goes_on_with_the_time_that_it_had_left(clock, monkeypatch, path):
    fit(max_seconds=300)
    whole, clock.rates, clock.steps = clock.rates, [], 0
    monkeypatch.setattr("npflows.training.loop.time.perf_counter", clock)
    with pytest.raises(Killed):
        fit(max_seconds=300, checkpoint=path, callbacks=kill_after(15))
    fit(max_seconds=150, checkpoint=path, resume=True)
    assert clock.steps == 300
    np.testing.assert_allclose(clock.rates, whole, rtol=1e-3, atol=1e-6)


def test_more_time_is_a_longer_schedule(clock, monkeypatch, path):
    monkeypatch.setattr("npflows.training.loop.time.perf_counter", clock)
    fit(max_seconds=104, checkpoint=path)
    clock.rates = []
    flow = fit(max_seconds=100, checkpoint=path, resume=True)
    falls_to_nothing(clock.rates, peak=0.5e-2 * (1 + math.cos(math.pi * (104 - 20) / (204 - 20))))
    assert flow.history["epoch"][-1] == 21


def test_a_run_cut_by_time_goes_on_to_max_epochs(clock, path):
    fit(max_seconds=54, max_epochs=8, checkpoint=path)
    clock.rates = []
    flow = fit(max_epochs=8, checkpoint=path, resume=True)
    assert flow.history["epoch"] == list(range(1, 9))
    falls_to_nothing(clock.rates, peak=clock.rates[0])


def test_progress_shows_the_planned_end(clock, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)  # not installed
    monkeypatch.setattr("npflows.core.progress.Progress.seconds_between_lines", 0.0)
    fit(max_seconds=58, progress=True)
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"epoch {i}/6" for i in range(1, 7)]


def test_progress_is_a_bar_with_the_planned_end(clock, capfd):
    pytest.importorskip("tqdm")
    fit(max_seconds=58, progress=True)
    assert "6/6" in capfd.readouterr().err


def variational(**options):
    return short_run(**{"max_steps": 10**5, "steps_per_round": 10, "max_seconds": 200, **options})


def test_a_variational_run_ends_with_its_time_too(clock):
    flow = variational(warmup_steps=10)
    assert flow.history["step"][-1] == clock.steps == 200
    falls_to_nothing(clock.rates)


def test_tempering_is_over_in_time(clock, path):
    flow = variational(tempering=0.5, checkpoint=path)
    exponents = flow.history["tempering"]
    assert exponents[:10] == pytest.approx(np.arange(1, 11) / 10, rel=0.05)
    assert exponents[10:] == [1.0] * 10
    flow = variational(tempering=0.5, checkpoint=path, resume=True, max_seconds=600)
    assert flow.history["tempering"][20:] == [1.0] * 60, "tempered again"


def test_a_variational_run_without_time_for_its_target_is_told(clock):
    with pytest.warns(UserWarning, match="max_seconds was up after 1 of 100000 steps, before.*give it more time"):
        variational(tempering=0.5, max_seconds=1)
