"""Flows in files, pickles and copies: the same bits come back, and nothing that can't be trusted is loaded."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import make_golden
import numpy as np
import pytest
from helpers import COPIES
from registry import build, condition, data, for_every_model

import npflows
from npflows import FlowFileError
from npflows.files.flow_file import FORMAT

pytestmark = pytest.mark.nojit


def maf(dtype="float32", seed=1):
    flow = npflows.MAF(2, 2, (6,), dtype=dtype, rng=seed)
    flow.params = np.random.default_rng(seed).normal(0, 0.3, flow.num_params)
    flow.standardize.set([3.0, -1.0], [2.0, 0.5])
    return flow


X = np.random.default_rng(0).normal([3.0, -1.0], size=(50, 2))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "flow.npz"


def through_file(flow, path):
    flow.save(path)
    return npflows.load(path)


every_copy = pytest.mark.parametrize("how", COPIES)


def same(a, b):
    """Whether two flows are the same to the bit."""
    assert type(a) is type(b)
    assert a.arguments == b.arguments
    assert repr(a) == repr(b)
    assert a.history == b.history
    np.testing.assert_array_equal(a.parameters.theta, b.parameters.theta)
    assert list(a.named_params()) == list(b.named_params())
    x, context = data(a, 40), condition(a, 40)
    np.testing.assert_array_equal(a.log_prob(x, context), b.log_prob(x, context))
    np.testing.assert_array_equal(a.sample(20, 1, condition=condition(a, 20)), b.sample(20, 1, condition=condition(a, 20)))


@every_copy
@for_every_model
def test_a_copy_has_the_same_bits(name, how, path):
    flow = build(name, "float32")
    same(COPIES[how](flow, path), flow)


@every_copy
def test_a_copy_is_independent_and_complete(how, path):
    flow = maf().fit(X, max_epochs=3, rng=0, progress=False)
    flow.columns = ["a", "b"]
    twin = COPIES[how](flow, path)
    assert twin.columns == ["a", "b"]
    assert twin.history == flow.history
    before = flow.log_prob(X)
    layer = twin.flow_layers[1]
    y = layer.forward(X)[0]
    twin.params = twin.params + 0.1  # the layers of the copy see the parameters of the copy
    assert not np.allclose(layer.forward(X)[0], y)
    np.testing.assert_array_equal(layer.params, twin.params[: layer.num_params])
    twin.standardize.set(0.0, 1.0)
    np.testing.assert_array_equal(flow.log_prob(X), before)


@every_copy
def test_a_copy_trains_on_like_the_flow_itself(how, path):
    flow = maf().fit(X, max_epochs=3, rng=0, progress=False)
    twin = COPIES[how](flow, path)
    for each in (flow, twin):
        each.fit(X * 2, max_epochs=3, rng=1, progress=False)
    np.testing.assert_array_equal(twin.standardize.table, flow.standardize.table)
    np.testing.assert_array_equal(twin.params, flow.params)


@pytest.mark.parametrize("name", ["MAF", "IAF", "RealNVP, half, relu", "flow of layers"])
def test_a_flow_loads_across_compute_dtypes(name, path):
    wide, narrow = build(name, "float64"), build(name, "float32")
    x, context = data(wide, 40), condition(wide, 40)
    expected = wide.log_prob(x, context)
    wide.save(path)
    loaded = npflows.load(path, dtype="float32")
    assert loaded.dtype == np.float32
    np.testing.assert_allclose(loaded.log_prob(x, context), expected, rtol=1e-3, atol=1e-3)
    narrow.save(path)
    loaded = npflows.load(path, dtype="float64")
    assert loaded.dtype == np.float64
    np.testing.assert_array_equal(loaded.params, narrow.params)
    assert npflows.load(path).dtype == np.float32


def test_a_pickled_flow_works_in_another_process(path):
    flow = maf()
    path.write_bytes(pickle.dumps(flow))
    assert path.stat().st_size < 20_000
    code = f"import pickle; print(pickle.load(open({str(path)!r}, 'rb')).log_prob([[1.0, 2.0]])[0].hex())"
    environment = {**os.environ, "PYTHONPATH": str(Path(npflows.__file__).parents[1])}
    process = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True)
    assert process.stdout.strip() == flow.log_prob([[1.0, 2.0]])[0].hex(), process.stderr


def test_random_choices_are_kept(path):
    flow = npflows.MAF(5, 3, (8,), orders="random", rng=np.random.default_rng())
    assert through_file(flow, path).orders == flow.orders


class Mine(npflows.Normal):
    """A base of the user's own."""


def test_classes_of_the_user_are_loaded_when_they_are_given(path):
    flow = npflows.MAF(2, 1, (4,), base_distribution=Mine(2, 0.5), rng=0)
    flow.save(path)
    with pytest.raises(FlowFileError, match="Mine is unknown here: pass it in classes="):
        npflows.load(path)
    np.testing.assert_array_equal(npflows.load(path, classes=[Mine]).log_prob(X), flow.log_prob(X))


def rewritten(path, changes, **arrays):
    """A saved flow with other content, in a file that is whole and, as those of earlier versions, without a checksum."""
    maf().save(path)
    with np.load(path) as file:
        content = dict(file)
    del content["checksum"]
    description = {**json.loads(str(content["about"])), **changes}
    description.pop("checksum")
    content = {**content, "about": np.array(json.dumps(description)), **arrays}
    np.savez(path, **{name: array for name, array in content.items() if array is not None})


THETA, TABLE = maf().parameters.theta, np.array([[3.0, -1.0], [2.0, 0.5]])
MASKED = int(np.flatnonzero(~maf().parameters.free)[0])
CONFIG = maf().arguments


def at(array, place, value):
    changed = array.astype(np.float64)
    changed[place] = value
    return changed


NOT_FITTING = {
    "newer format": ({"format": FORMAT + 1, "npflows": "9.1"}, {}, r"file format \d+, written by npflows 9\.1.* upgrade"),
    "format 0": ({"format": 0}, {}, "file format 0"),
    "no number as format": ({"format": None}, {}, "file format None"),
    "unknown class": ({"class": "Glove"}, {}, r"a Glove, which is .* pass load\(..., classes=\[Glove\]\)"),
    "a layer": ({"class": "MAFLayer", "config": {"input_dim": 2, "hidden_dims": [6]}}, {}, "MAFLayer"),
    "a strange class": ({"class": ["MAF"]}, {}, "MAF"),
    "unknown option": ({"config": {**CONFIG, "color": 3}}, {}, "MAF has no parameter color"),
    "wrong option": ({"config": {**CONFIG, "activation": "cubic"}}, {}, "activation must be one of .* got 'cubic'"),
    "no options": ({"config": []}, {}, "can't be made|can't be read"),
    "strange options": ({"config": 3}, {}, "can't be made|can't be read"),
    "strange history": ({"history": 3}, {}, "can't be read"),
    "strange names": ({"parameters": 3}, {}, "can't be read"),
    "too few columns": ({"columns": ["a"]}, {}, "columns are .'a'., expected 2 names"),
    "no theta": ({}, {"theta": None}, "is not a flow: it has no theta"),
    "no description": ({}, {"about": None, "standardize": None}, "is not a flow: it has no about, standardize"),
    "description that is no JSON": ({}, {"about": np.array("{")}, "description can't be read"),
    "theta too short": ({}, {"theta": THETA[:-1]}, r"theta is float32 \(\d+,\), expected \(\d+,\) of floats"),
    "theta of whole numbers": ({}, {"theta": THETA.astype(int)}, "theta is int64"),
    "theta not finite": ({}, {"theta": at(THETA, [0, 1], np.nan)}, "theta has 2 values that are not finite"),
    "theta too large": ({}, {"theta": at(THETA, 0, 1e300)}, "theta has 1 values that are not finite in float32"),
    "masked weight": ({}, {"theta": at(THETA, MASKED, 1.0)}, "theta is not zero where a mask demands it"),
    "tiny masked weight": ({}, {"theta": at(THETA, MASKED, 1e-12)}, "theta is not zero where a mask demands it"),
    "scale of zero": ({}, {"standardize": at(TABLE, (1, 0), 0.0)}, "standardize holds scales that are not positive"),
    "location not finite": ({}, {"standardize": at(TABLE, (0, 0), np.inf)}, "standardize holds .* not finite"),
    "wrong table": ({}, {"standardize": TABLE[:, :1]}, r"standardize is float64 \(2, 1\), expected \(2, 2\) of floats"),
    "object array": ({}, {"theta": np.array([{}], object)}, "allow_pickle"),
}


@pytest.mark.parametrize("name", NOT_FITTING)
def test_a_file_that_does_not_fit_is_refused(name, path):
    changes, arrays, message = NOT_FITTING[name]
    rewritten(path, changes, **arrays)
    with pytest.raises(FlowFileError, match=message) as caught:
        npflows.load(path)
    assert str(path) in str(caught.value)


def test_every_mismatch_is_listed(path):
    names = [[name, list(view.shape)] for name, view in maf().named_params().items()]
    names[0][1] = [9, 9]
    names[1][0] = "layers.1.nonsense"
    rewritten(path, {"parameters": names}, theta=THETA[:5], standardize=-TABLE)
    with pytest.raises(FlowFileError) as caught:
        npflows.load(path)
    for part in (r"has shape (9, 9), expected (6, 2)", "layers.1.nonsense (6,) is not expected",
                 "layers.1.network.bias_0 (6,) is missing", "theta is float32 (5,)", "standardize holds"):  # fmt: skip
        assert part in str(caught.value)


def test_a_truncated_file_is_refused(path):
    maf().save(path)
    content = path.read_bytes()
    for length in [0, 1, 3, 4, 30, *range(100, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(FlowFileError, match=r"is not a complete|is an empty file|is a text"):
            npflows.load(path)


def test_flipped_bits_never_give_another_flow(path):
    flow = maf()
    flow.save(path)
    content, expected = path.read_bytes(), flow.log_prob(X)
    refused = 0
    for place in [*range(0, len(content) - 400, 23), *range(len(content) - 400, len(content))]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            twin = npflows.load(path)
        except FlowFileError:
            refused += 1
        else:  # a bit without meaning: a date, a flag
            np.testing.assert_array_equal(twin.log_prob(X), expected)
    assert refused > 300


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", pickle.dumps([1, 2]), b"PK\x03\x04"], ids=["csv", "pickle", "zip"])
def test_another_kind_of_file_is_refused(content, path):
    path.write_bytes(content)
    with pytest.raises(FlowFileError, match=r"is not a complete|is a pickle|is a text"):
        npflows.load(path)


def test_a_single_array_is_refused(tmp_path):
    np.save(tmp_path / "array.npy", X)
    with pytest.raises(FlowFileError, match=r"array\.npy is an array, or several as equinox writes"):
        npflows.load(tmp_path / "array.npy")


def test_a_missing_file_is_an_os_error(path):
    with pytest.raises(FileNotFoundError, match="No such file"):
        npflows.load(path)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file_alone(monkeypatch, error, path):
    maf(seed=1).save(path)
    before = path.read_bytes()

    def half(file, **arrays):
        file.write(before[:500])
        raise error

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(type(error)):
        maf(seed=2).save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["flow.npz"]


@pytest.mark.filterwarnings("ignore:.* dominate the training loss:UserWarning")
@pytest.mark.filterwarnings("ignore:x has standardized values far outside:UserWarning")
@pytest.mark.parametrize("name", make_golden.FLOWS)
def test_a_golden_file_is_read_and_computes_the_same(name):
    file = make_golden.FOLDER / f"{name}.npz"
    assert file.stat().st_size < 20_000
    flow = npflows.load(file)
    inputs, wanted = make_golden.recorded(name)
    values = make_golden.expected(flow, inputs)
    assert make_golden.deviation(values, wanted) < make_golden.TOLERANCE[flow.dtype.name]
    assert flow.dtype == ("float64" if name.endswith("float64") else "float32")
    assert flow.columns == (list("abcdef"[: flow.input_dim]) if len(flow.input_shape) == 1 else None)
    assert flow.condition_columns == (list("ABCDE"[: flow.condition_dim]) or None)
    assert flow.history["epoch"] == [1, 2]
    context = condition(flow, 200)
    flow.fit(flow.sample(200, 0, condition=context), condition=context, max_epochs=1, progress=False, rng=0)
    assert flow.history["epoch"] == [1]


def test_golden_files_are_flows_and_their_numbers():
    files = {file.name for file in make_golden.FOLDER.iterdir()}
    assert files == {f"{name}{suffix}" for name in make_golden.FLOWS for suffix in (".npz", ".json")}


def test_golden_numbers_tell_other_parameters():
    flow = npflows.load(make_golden.FOLDER / "maf.npz")
    flow.params = flow.params + 1e-3
    inputs, wanted = make_golden.recorded("maf")
    assert make_golden.deviation(make_golden.expected(flow, inputs), wanted) > make_golden.TOLERANCE["float32"]
