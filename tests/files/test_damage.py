"""Files that were damaged, edited or made to harm: each is refused by one kind of error, soon and in little memory."""

import json
import tracemalloc
import zipfile

import make_golden
import numpy as np
import pytest

import npflows
from npflows import FlowFileError

LIMIT = 50e6
"""Bytes that `load` may take besides those for parameters."""
TIMES = 4
"""How many times the parameters' own bytes it may take."""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "flow.npz"


def maf(**options):
    flow = npflows.MAF(2, 2, (6,), rng=1, **options)
    flow.params = np.random.default_rng(1).normal(0, 0.3, flow.num_params)
    return flow


def members(path, flow=None):
    """The arrays of a saved flow, and its description."""
    (flow or maf()).save(path)
    with np.load(path) as file:
        content = dict(file)
    return content, json.loads(str(content["about"]))


def write_unchecked(path, content, about):
    """Write a file without a checksum, as earlier versions did."""
    about = {name: value for name, value in about.items() if name != "checksum"}
    content = {name: array for name, array in content.items() if name != "checksum"}
    np.savez(path, **{**content, "about": np.array(json.dumps(about))})


def peak(call):
    """Bytes that a call takes at most."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def layers(*configurations):
    return {"layers": [{"class": name, "config": config} for name, config in configurations]}


LARGE = {
    "wide layers": ("MAF", {"input_dim": 2, "hidden_dims": [60000, 60000]}),
    "many layers": ("MAF", {"input_dim": 2, "num_layers": 3000000, "hidden_dims": [6]}),
    "random orders": ("MAF", {"input_dim": 60000, "num_layers": 60000, "hidden_dims": [2], "orders": "random"}),
    "many columns": ("RealNVP", {"input_dim": 10**9}),
    "a large image": ("RealNVP", {"input_dim": [100000, 100000, 3]}),
    "a large squeeze": ("NormalizingFlow", layers(("Squeeze", {"num_channels": 60000, "image_size": [600, 600]}))),
    "a large matrix": ("NormalizingFlow", layers(("LULinear", {"input_dim": 50000}))),
    **{
        f"a large {name}": ("NormalizingFlow", layers((name, {"input_dim": 50000})))
        for name in ("Householder", "QRLinear", "SVDLinear")
    },
    "many reflections": ("NormalizingFlow", layers(("Householder", {"input_dim": 2, "num_reflections": 10**9}))),
    "large splines": ("NormalizingFlow", layers(("SplineLayer", {"input_dim": 50000, "num_bins": 900}))),
    "many blocks": ("Glow", {"image_shape": [8, 8, 1], "num_scales": 1, "blocks_per_scale": 10**6}),
    "many scales": ("Glow", {"image_shape": [1, 1, 4], "num_scales": 10**6}),
    "many residual blocks": ("MAF", {"input_dim": 2, "hidden_dims": [64], "residual_blocks": 10**6}),
    "a wide embedding": ("MAF", {"input_dim": 2, "condition_dim": 2, "embedding_dims": [60000, 60000, 2]}),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_small_file_that_asks_for_a_large_flow_is_refused_in_little_memory(name, path):
    content, about = members(path)
    kind, config = LARGE[name]
    write_unchecked(path, content, {**about, "class": kind, "config": config})

    def load():
        with pytest.raises(FlowFileError, match=r"more parameters than are there|more than all its parameters"):
            npflows.load(path)

    assert peak(load) < LIMIT


def test_a_member_that_no_flow_has_is_not_unpacked(path):
    flow = maf()
    flow.save(path)
    n = 20_000_000
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("extra.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": (n,)})
        for _ in range(160):
            member.write(bytes(n // 20))
    loaded = []
    most = peak(lambda: loaded.append(npflows.load(path)))
    np.testing.assert_array_equal(loaded[0].params, flow.params)
    assert most < LIMIT


def test_a_member_that_unpacks_to_a_thousand_times_its_size_is_refused(path):
    content, _ = members(path)
    np.savez_compressed(path, **{**content, "theta": np.zeros(10_000_000)})
    with pytest.raises(FlowFileError, match="theta unpacks to 80000128 bytes"):
        npflows.load(path)


def test_a_packed_file_is_read(path):
    flow = maf()
    content, _ = members(path, flow)
    np.savez_compressed(path, **content)
    np.testing.assert_array_equal(npflows.load(path).params, flow.params)


@pytest.mark.parametrize(
    "flow", [npflows.MAF(16, 4, (512, 512)), npflows.RealNVP(16, 4, (512, 512))], ids=["MAF", "RealNVP"]
)
def test_memory_of_load_follows_the_parameters(flow, path):
    flow.save(path)
    assert peak(lambda: npflows.load(path)) < TIMES * flow.parameters.theta.nbytes


DESCRIPTIONS = {
    "brackets": "[" * 100_000,
    "objects": '{"a":' * 100_000,
    "a list": "[]",
    "a number": "7",
    "nothing": "",
    "NaN": "NaN",
    "many lists": "[" + "[]," * 50_000 + "[]]",
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_description_that_is_none_is_refused(name, path):
    content, _ = members(path)
    np.savez(path, **{**content, "about": np.array(DESCRIPTIONS[name])})
    with pytest.raises(FlowFileError, match="description can't be read"):
        npflows.load(path)


STATES = {
    "pixel_dtype": ["x", "O", [("a", "f4")], 3, "datetime64[s]", "(3,)f4,"],
    "initialized": [3, [1, 2, 3], {"a": 1}, [None, None]],
    "standardized": [None, "yes", 3, []],
    "effective_rows": ["x", [1], -1.0, float("nan"), float("inf"), 10**400],
    "robust_columns": ["x", [1], {"a": 2}, 3],
    "names_from_fit": [3, [True], ["a", "b"], {"a": 1}],
    "columns": ["ab", 3, {"a": 1, "b": 2}],
    "condition_columns": [["a"], 3],
    "verification": [3, [], {"checks": 3}, {"checks": [{}], "flow": 1}],
    "history": [{"a": 3}, {"a": ["x"]}, {"a": [[1]]}, [1]],
    "parameters": [[[1]], [["a", 3]], [3], "ab"],
    "class": [3, None, ["MAF"], {"a": 1}],
    "config": [3, "ab", [1], None],
    "format": [True, 1.0, "1", -1, 10**400],
}


@pytest.mark.parametrize("name", STATES)
def test_an_entry_of_another_kind_is_refused(name, path):
    content, about = members(path, maf(actnorm=True))
    for value in STATES[name]:
        write_unchecked(path, content, {**about, name: value})
        with pytest.raises(FlowFileError):
            npflows.load(path)


ARRAYS = {
    "text": np.array(["a", "b"]),
    "whole numbers": np.arange(4),
    "complex": np.zeros(4, complex),
    "dates": np.zeros(4, "M8[s]"),
    "records": np.zeros(4, [("a", "f4")]),
    "objects": np.array([{}], object),
    "nothing": np.zeros((0, 0)),
    "no bytes": np.zeros(4, "V0"),
    "many axes": np.zeros((1,) * 20),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("member", ["about", "theta", "standardize", "standardize_condition"])
def test_an_array_of_another_kind_is_refused(member, name, path):
    content, about = members(path)
    write_unchecked(path, content, about)
    with np.load(path) as file:
        content = dict(file)
    np.savez(path, **{**content, member: ARRAYS[name]})
    with pytest.raises(FlowFileError):
        npflows.load(path)


def test_a_member_that_is_no_array_is_refused(path):
    content, _ = members(path)
    with zipfile.ZipFile(path, "w") as archive:
        for name in content:
            archive.writestr(f"{name}.npy", b"no array")
    with pytest.raises(FlowFileError, match="is not a complete"):
        npflows.load(path)


def test_a_member_that_is_there_twice_is_refused(path):
    maf().save(path)
    with zipfile.ZipFile(path, "a") as archive:
        data = archive.read("theta.npy")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("theta.npy", data)
    with pytest.raises(FlowFileError, match="twice"):
        npflows.load(path)


EDITS = {
    "a parameter": lambda content, about: content["theta"].__setitem__(3, 0.25),
    "a scale": lambda content, about: content["standardize"].__setitem__((1, 0), 2.0),
    "an option": lambda content, about: about["config"].__setitem__("activation", "tanh"),
    "the order": lambda content, about: about["config"]["orders"].reverse(),
    "a name": lambda content, about: about.__setitem__("columns", ["a", "b"]),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_file_is_told_by_its_checksum(name, path):
    content, about = members(path)
    EDITS[name](content, about)
    np.savez(path, **{**content, "about": np.array(json.dumps(about))})
    with pytest.raises(FlowFileError, match="by its checksum"):
        npflows.load(path)
    del content["checksum"]
    np.savez(path, **{**content, "about": np.array(json.dumps(about))})
    with pytest.raises(FlowFileError, match="by its checksum"):
        npflows.load(path)


def uniform():
    return npflows.MAF(2, 1, (8,), base_distribution=npflows.Uniform(2, -1.3, 1.7), rng=0)


def drifted(path, factor):
    """A file without a checksum whose constants are not those of its configuration."""
    flow = uniform()
    content, about = members(path, flow)
    fixed = ~flow.parameters.free & (flow.parameters.theta != 0)
    content["theta"][fixed] *= factor
    write_unchecked(path, content, about)
    return flow


def test_a_file_whose_constants_drifted_loads_with_those_of_its_configuration(path):
    flow = drifted(path, np.float32(1 + 1e-4))
    with pytest.warns(UserWarning, match="constants differ in their last digits"):
        loaded = npflows.load(path)
    assert loaded.parameters.theta.tobytes() == flow.parameters.theta.tobytes()


def test_a_file_with_other_constants_is_refused(path):
    drifted(path, np.float32(1.5))
    with pytest.raises(FlowFileError, match="a constant differs"):
        npflows.load(path)


def test_averaging_parameters_leaves_constants_alone(path):
    flow = uniform()
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (200, 2))
    flow.fit(x, ema=0.999, max_epochs=3, rng=0, progress=False)
    flow.save(path)
    assert npflows.load(path).parameters.theta.tobytes() == flow.parameters.theta.tobytes()


def test_a_device_is_no_file():
    with pytest.raises((FlowFileError, FileNotFoundError), match=r"device or a pipe|No such file"):
        npflows.load("/dev/zero")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"):
        npflows.load(tmp_path)


@pytest.mark.parametrize("name", ["maf", "spline_every_support"])
def test_a_golden_file_with_a_flipped_byte_is_refused_or_the_same(name, path):
    whole = (make_golden.FOLDER / f"{name}.npz").read_bytes()
    expected = npflows.load(make_golden.FOLDER / f"{name}.npz").learned_arrays()
    for place in range(0, len(whole), 41):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        try:
            found = npflows.load(path).learned_arrays()
        except FlowFileError:
            continue
        for array in expected:
            np.testing.assert_array_equal(found[array], expected[array])
