"""Checkpoints of `fit_variational`: a run that was cut off goes on with the same bits, and only with what it began with."""

import copy

import numpy as np
import pytest
from helpers import Killed, kill_after, refused, same_bits
from targets import FIT, MODELS, WILD, X, banana, realnvp, short_run

import npflows
from npflows import FlowFileError


def interrupted(path, rounds=3, flow=None, **options):
    with pytest.raises(Killed):
        short_run(flow, checkpoint=path, callbacks=kill_after(rounds), **options)


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
    whole = short_run(**options)
    interrupted(path, **options)
    same_bits(short_run(checkpoint=path, resume=True, **options), whole)
    same_bits(short_run(checkpoint=path, resume=True, **options), whole)  # once more: there is nothing left to do


@pytest.mark.parametrize("rng", [None, 99])
def test_a_resumed_run_goes_on_with_its_own_noise_whatever_the_seed(rng, path):
    interrupted(path)
    same_bits(short_run(checkpoint=path, resume=True, rng=rng), short_run())


def test_a_run_without_a_seed_goes_on(path):
    interrupted(path, rng=None)
    copied = path.with_name("copy.npz")
    copied.write_bytes(path.read_bytes())
    same_bits(*(short_run(checkpoint=place, resume=True, rng=None) for place in (path, copied)))


def test_a_run_killed_twice_and_before_the_first_round_goes_on(path):
    for rounds in (1, 2, 5):
        interrupted(path, rounds, resume=True)  # the first finds no file and starts anew
    same_bits(short_run(checkpoint=path, resume=True), short_run())


def test_a_checkpoint_can_be_loaded_as_the_best_flow_so_far(path):
    flow = realnvp()
    interrupted(path, 8, flow, **WILD)
    loaded = npflows.load(path)
    np.testing.assert_array_equal(loaded.params, flow.params)
    assert loaded.history == flow.history


def test_a_resumed_flow_knows_its_target_and_that_it_was_fitted(path):
    interrupted(path)
    flow = short_run(MODELS["NSF, ActNorm"](2))
    flow = short_run(target=banana, checkpoint=path, resume=True)
    assert flow.importance_weights(50, rng=0).log_weights.shape == (50,)
    table = flow.standardize.table.copy()
    flow.fit(np.random.default_rng(0).normal(5, 3, (100, 2)), max_epochs=1, rng=0, progress=False)
    np.testing.assert_array_equal(flow.standardize.table, table)


def test_a_checkpoint_of_fit_is_refused_and_one_of_fit_variational_by_fit(tmp_path):
    ours, theirs = tmp_path / "variational.npz", tmp_path / "fit.npz"
    short_run(checkpoint=ours)
    realnvp().fit(X, checkpoint=theirs, **FIT)
    before = ours.read_bytes(), theirs.read_bytes()
    with pytest.raises(FlowFileError, match=r"fit\.npz belongs to another run") as caught:
        short_run(checkpoint=theirs, resume=True)
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
         "tempering_steps is 30, the file has 0", "sticking_the_landing is False, the file has True",
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
        short_run(**{**options, "flow": flow})
    for message in messages:
        assert message in str(caught.value)
    np.testing.assert_array_equal(flow.params, before)
    assert flow.history == {}


def test_a_refused_checkpoint_leaves_nothing_behind(path):
    flow, options, _ = other_run(path, "layers")
    refused(FlowFileError, "another run", lambda flow: short_run(**{**options, "flow": flow}), flow)
