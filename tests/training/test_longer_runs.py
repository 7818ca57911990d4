"""Runs that are made longer with resume=True, and what may differ when they are."""

import numpy as np
import pytest
from helpers import fitted, same_bits
from targets import short_run

import npflows
from npflows import FlowFileError

X = np.random.default_rng(0).normal(size=(300, 2)) @ [[1.0, 0.5], [0.0, 1.0]]


def maf():
    return npflows.MAF(2, 2, (8,), rng=1)


def fit(flow=None, **options):
    return fitted(flow or maf(), X, **{"learning_rate": 1e-2, "schedule": "constant", **options})


@pytest.mark.parametrize(
    "options",
    [{}, {"ema": 0.99}, {"schedule": "plateau", "patience": 4}, {"validation_fraction": 0.0, "warmup_steps": 30}],
    ids=str,
)
def test_a_finished_run_made_longer_has_the_bits_of_a_long_one(options, path):
    for epochs in (3, 5, 9):
        flow = fit(max_epochs=epochs, checkpoint=path, resume=True, **options)
    same_bits(flow, fit(max_epochs=9, **options))


def test_an_interrupted_run_may_be_made_longer_too(path):
    fit(max_epochs=5, checkpoint=path, callbacks=lambda flow, record: record["epoch"] == 2)
    same_bits(fit(max_epochs=9, checkpoint=path, resume=True), fit(max_epochs=9))


def test_the_cosine_schedule_goes_on_as_that_of_the_new_length(path):
    fit(max_epochs=4, checkpoint=path, schedule="cosine")
    rates = fit(max_epochs=8, checkpoint=path, schedule="cosine", resume=True).history["learning_rate"]
    whole = [fit(max_epochs=n, schedule="cosine").history["learning_rate"] for n in (4, 8)]
    assert rates == whole[0] + whole[1][4:]


def test_patience_and_the_learning_rate_may_change(path):
    fit(max_epochs=3, checkpoint=path, patience=5)
    flow = fit(max_epochs=6, checkpoint=path, patience=None, learning_rate=1e-3, resume=True)
    assert flow.history["learning_rate"] == [1e-2] * 3 + [1e-3] * 3


def test_a_run_whose_patience_is_at_an_end_says_that_it_can_not_go_on(path):
    options = {"learning_rate": 1e-12, "checkpoint": path}
    n = len(fit(max_epochs=50, patience=2, **options).history["epoch"])
    assert n < 50
    fit(max_epochs=50, patience=2, resume=True, **options)  # as before: there is nothing to say
    with pytest.warns(UserWarning, match="without improvement, and nothing is trained now: give a larger patience"):
        flow = fit(max_epochs=60, patience=2, resume=True, **options)
    assert len(flow.history["epoch"]) == n
    flow = fit(max_epochs=n + 2, patience=None, resume=True, **options)
    assert len(flow.history["epoch"]) == n + 2


def test_a_run_can_not_be_made_shorter_than_it_is(path):
    fit(max_epochs=5, checkpoint=path)
    with pytest.raises(FlowFileError, match="has 5 epochs behind it: give max_epochs of at least that, got 3"):
        fit(max_epochs=3, checkpoint=path, resume=True)


def test_what_may_not_change_is_refused_with_the_way(path):
    fit(max_epochs=2, checkpoint=path)
    message = r"(?s)batch_size is 32.*\n.*another learning_rate, max_epochs, patience alone; .* npflows\.load\("
    with pytest.raises(FlowFileError, match=message):
        fit(max_epochs=4, checkpoint=path, resume=True, batch_size=32)


@pytest.mark.parametrize("options", [{}, {"tempering": 0.5}, {"steps_per_round": 7}], ids=str)
def test_a_variational_run_is_made_longer(options, path):
    options = {"schedule": "constant", **options}
    for steps in (40, 60, 70):
        flow = short_run(max_steps=steps, checkpoint=path, resume=True, **options)
    assert flow.history["step"][-1] == 70
    flow_again = short_run(max_steps=70, checkpoint=path, resume=True, **options)
    same_bits(flow, flow_again)
    if not options.get("tempering") and "steps_per_round" not in options:
        same_bits(flow, short_run(max_steps=70, **options))
