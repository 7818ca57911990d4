"""Checkpoints: a run that was cut off goes on with the same bits, and only with what it began with."""

import contextlib
import json

import numpy as np
import pytest
from helpers import COPIES_TOLD, Killed, fitted, kill_after, same_bits

import npflows
from npflows import FlowFileError
from npflows.backends.cpu.compiler.jit import DISABLED

pytestmark = [pytest.mark.nojit, COPIES_TOLD]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 2)) @ [[1.0, 0.5], [0.0, 1.0]]
WEIGHT = RNG.uniform(0.5, 1.5, 300)
OTHER = RNG.normal(size=(50, 2))


def maf():
    return npflows.MAF(2, 2, (8,), rng=1)


def generator(kind="PCG64", seed=5):
    return np.random.Generator(getattr(np.random, kind)(seed))


def fit(flow=None, x=X, **options):
    return fitted(flow or maf(), x, **{"max_epochs": 6, "learning_rate": 1e-2, **options})


def interrupted(path, epochs=3, flow=None, x=X, **options):
    with pytest.raises(Killed):
        fit(flow, x, checkpoint=path, callbacks=[kill_after(epochs)], **options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.npz"


@pytest.fixture
def saved(path):
    """A checkpoint of a run that was killed."""
    interrupted(path)
    return path


RUNS = {
    "plain": {},
    "ema": {"ema": 0.9},
    "ema, best epoch long ago": {"ema": 0.5, "learning_rate": 0.5},
    "weights": {"sample_weight": WEIGHT},
    "plateau": {"schedule": "plateau", "patience": 4, "learning_rate": 0.1},
    "warm-up": {"warmup_steps": 20, "weight_decay": 0.1, "clip_norm": None},
    "validation data": {"validation_data": OTHER, "validation_weight": WEIGHT[:50]},
    "no validation": {"validation_fraction": 0.0},
    "bad steps": {"learning_rate": 1e30},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(name, path):
    if DISABLED and name == "bad steps":
        pytest.skip("NumPy warns of the overflow that is meant to happen")
    options = RUNS[name]
    whole = fit(**options)
    interrupted(path, **options)
    same_bits(fit(checkpoint=path, resume=True, **options), whole)
    same_bits(fit(checkpoint=path, resume=True, **options), whole)  # once more: there is nothing left to do


@pytest.mark.parametrize("kind", ["PCG64", "MT19937", "Philox", "SFC64"])
def test_every_kind_of_generator_goes_on(kind, path):
    whole = fit(rng=generator(kind))
    interrupted(path, rng=generator(kind))
    same_bits(fit(checkpoint=path, resume=True, rng=generator(kind, 99)), whole)


def test_a_run_without_a_seed_goes_on_with_its_own_split(path):
    states = []
    with pytest.raises(Killed):
        fit(rng=None, checkpoint=path, callbacks=[lambda flow, _: states.append(flow.params), kill_after(3)])
    resumed = [fit(checkpoint=path, resume=True, rng=None, callbacks=[kill_after(99)]) for _ in range(2)]
    same_bits(*resumed)
    assert len(resumed[0].history["epoch"]) == 6
    assert len(states) == 3


def test_a_run_killed_twice_and_before_the_first_epoch_goes_on(path):
    for epochs in (1, 2, 5):
        interrupted(path, epochs, resume=True)  # the first finds no file and starts anew
    same_bits(fit(checkpoint=path, resume=True), fit())


def test_without_resume_a_checkpoint_is_written_anew(saved):
    same_bits(fit(checkpoint=saved), fit())
    with np.load(saved) as content:
        assert json.loads(str(content["about"]))["history"]["epoch"] == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_can_be_loaded_as_the_best_flow_so_far(path):
    flow = maf()
    interrupted(path, flow=flow)
    loaded = npflows.load(path)
    np.testing.assert_array_equal(loaded.params, flow.params)
    np.testing.assert_array_equal(loaded.log_prob(OTHER), flow.log_prob(OTHER))


def test_an_interrupted_write_leaves_the_last_checkpoint(monkeypatch, path):
    savez, calls = np.savez, []

    def failing(file, **content):
        calls.append(file)
        if len(calls) == 3:
            file.write(b"half")
            raise OSError("disk full")
        savez(file, **content)

    monkeypatch.setattr(np, "savez", failing)
    with pytest.raises(OSError, match="disk full"):
        fit(checkpoint=path)
    assert [file.name for file in path.parent.iterdir()] == ["run.npz"]
    monkeypatch.undo()
    same_bits(fit(checkpoint=path, resume=True), fit())


OTHERS = {
    "layers": ({"flow": npflows.MAF(2, 3, (8,), rng=1)}, ["num_layers is 3, the file has 2"]),
    "model": ({"flow": npflows.IAF(2, 2, (8,), rng=1)}, ["flow is 'IAF', the file has 'MAF'"]),
    "dtype": ({"flow": npflows.MAF(2, 2, (8,), dtype="float64", rng=1)}, ["dtype is 'float64', the file has 'float32'"]),
    "values": ({"x": X + 1e-9}, ["training data", "validation data"]),
    "order of the rows": ({"x": X[::-1]}, ["training data"]),
    "fewer rows": ({"x": X[:250]}, ["rows"]),
    "more rows": ({"x": np.concatenate([X, X])}, ["training data"]),
    "weights": ({"sample_weight": WEIGHT}, ["training data"]),
    "validation data": ({"validation_data": OTHER}, ["training data is '300 rows", "validation data is '50 rows"]),
    "generator": ({"rng": generator("MT19937")}, ["generator is 'MT19937', the file has 'PCG64'"]),
    "many options": (
        {"batch_size": 32, "learning_rate": 0.5, "ema": 0.9, "clip_norm": None, "weight_decay": 0.1, "patience": 3,
         "schedule": "constant", "warmup_steps": 2, "max_epochs": 9},
        ["batch_size is 32, the file has 64", "learning_rate is 0.5, the file has 0.01", "ema is 0.9, the file has 0.99",
         "clip_norm is None, the file has 5.0", "weight_decay is 0.1, the file has 0.0", "patience is 3, the file has 15",
         "schedule is 'constant', the file has 'cosine'", "warmup_steps is 2, the file has None", "steps is "],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_refused_with_all_that_differs(name, saved):
    options, messages = OTHERS[name]
    flow = options.get("flow") or maf()
    before = flow.params
    with pytest.raises(FlowFileError, match=r"run\.npz belongs to another run") as caught:
        fit(**{**options, "flow": flow}, checkpoint=saved, resume=True)
    for message in messages:
        assert message in str(caught.value)
    np.testing.assert_array_equal(flow.params, before)
    np.testing.assert_array_equal(flow.standardize.table, [[0, 0], [1, 1], [0, 0]])
    assert flow.history == {}


def refused(path, match):
    flow, before = maf(), path.read_bytes()
    with pytest.raises(FlowFileError, match=match):
        fit(flow, checkpoint=path, resume=True)
    np.testing.assert_array_equal(flow.params, maf().params)
    np.testing.assert_array_equal(flow.standardize.table, [[0, 0], [1, 1], [0, 0]])
    assert path.read_bytes() == before


def test_a_truncated_or_empty_checkpoint_is_refused(saved):
    content = saved.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        saved.write_bytes(content[:length])
        refused(saved, "is not a complete" if length else "is an empty file")


def test_flipped_bits_in_a_checkpoint_are_refused(saved):
    content = saved.read_bytes()
    with np.load(saved) as arrays:
        theta = arrays["run_best"].tobytes()
    for place in (content.index(theta), content.index(theta) + 40, content.index("best_loss".encode("utf-32-le"))):
        saved.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        refused(saved, "is not a complete")


def test_a_saved_flow_is_no_checkpoint(path):
    maf().save(path)
    refused(path, "is not a checkpoint")


def changed(path, name, change):
    """Change an array of a checkpoint, and make it one of the earlier versions, which had no checksum."""
    with np.load(path) as file:
        content = {key: array for key, array in file.items() if not key.endswith("checksum")}
    about = json.loads(str(content["about"]))
    about.pop("checksum")
    content["about"] = np.array(json.dumps(about))
    content[name] = change(content[name])
    np.savez(path, **{key: value for key, value in content.items() if value is not None})


CHANGES = {
    "missing": lambda array: None,
    "too short": lambda array: array[:-1] if array.ndim else np.array("{}"),
    "no number": lambda array: np.full(array.shape, np.nan, array.dtype) if array.dtype.kind == "f" else np.array("x"),
    "strings": lambda array: np.full(array.shape, "?"),
}
PARTS = ["about", "standardize", "run_best", "run_average", "run_m", "run_v", "run_train", "run_validation",
         "run_numbers"]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("part", PARTS)
def test_a_checkpoint_with_wrong_content_is_refused(part, change, saved):
    changed(saved, part, CHANGES[change])
    refused(saved, r"run\.npz")


def test_a_checkpoint_with_a_scale_that_is_not_positive_is_refused(saved):
    changed(saved, "standardize", lambda table: -table)
    refused(saved, "standardize")


@pytest.mark.parametrize("rows", [[-1], [0, 0], [300]], ids=["negative", "double", "too large"])
def test_row_numbers_that_can_not_be_are_refused(rows, saved):
    changed(saved, "run_train", lambda train: np.concatenate([rows, train[len(rows) :]]).astype(np.int64))
    refused(saved, "belongs to another run")


@pytest.mark.parametrize("name", ["best_loss", "round", "step", "adam_steps", "factor", "generator"])
def test_a_checkpoint_that_lost_a_count_is_refused(name, saved):
    def without(numbers):
        content = json.loads(str(numbers))
        del content[name]
        return np.array(json.dumps(content))

    changed(saved, "run_numbers", without)
    refused(saved, r"run\.npz")


def test_resume_needs_a_file_name():
    with pytest.raises(ValueError, match="resume=True needs checkpoint="):
        fit(resume=True)


HISTORIES = {
    "no seconds": lambda history: history.pop("seconds"),
    "nothing": lambda history: history["seconds"].__setitem__(0, None),
    "another round": lambda history: history["train_loss"].append(1.0),
    "text": lambda history: history["epoch"].__setitem__(0, "1"),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_a_history_of_another_kind_is_refused(name, saved):
    def edited(text):
        about = json.loads(str(text))
        HISTORIES[name](about["history"])
        return np.array(json.dumps(about))

    changed(saved, "about", edited)
    refused(saved, r"run\.npz")


NUMBERS = {"generator": {"bit_generator": "PCG64"}, "round": 1.5, "step": -1, "factor": 0, "best_loss": float("nan"),
           "adam_steps": True, "options": 3, "train_bound_most": "x"}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_of_another_kind_is_refused_before_the_flow_is_changed(name, saved):
    changed(saved, "run_numbers", lambda text: np.array(json.dumps({**json.loads(str(text)), name: NUMBERS[name]})))
    refused(saved, r"run\.npz")


@pytest.mark.parametrize("place", ["history", "about", "numbers", "options"])
def test_a_whole_number_beyond_any_count_is_refused(place, saved):
    def edited(text):
        content = json.loads(str(text))
        if place == "history":
            content["history"]["epoch"][0] = 10**400
        elif place == "options":
            content["options"]["max_epochs"] = 10**400
        else:
            content["effective_rows" if place == "about" else "averaged"] = 10**400
        return np.array(json.dumps(content))

    changed(saved, "run_numbers" if place in ("numbers", "options") else "about", edited)
    refused(saved, r"run\.npz")
    with (
        pytest.raises(npflows.FlowFileError, match="whole number of 401 digits")
        if place in ("history", "about")
        else (contextlib.nullcontext())
    ):
        npflows.load(saved)


@pytest.mark.parametrize("part", ["about", "run_numbers"])
def test_an_edited_checkpoint_is_told_by_its_checksum(part, saved):
    with np.load(saved) as file:
        content = dict(file)
    text = str(content[part])
    content[part] = np.array(text.replace("0.01", "0.02") if part == "run_numbers" else text.replace('"relu"', '"tanh"'))
    assert str(content[part]) != text
    np.savez(saved, **content)
    refused(saved, "by its checksum")
