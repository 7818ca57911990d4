"""State dicts are read without PyTorch, and nothing in a file is executed."""

import collections
import contextlib
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

import npflows
from npflows.convert import ConversionError, read_state_dict

FILE = Path(__file__).parents[1] / "fixtures" / "nflows" / "maf_batch_norm.pt"


class Reduced:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def archive(path, content, folder="archive"):
    """A zip as PyTorch writes it, of given bytes of a pickle."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{folder}/data.pkl", content)
    return path


def test_tensors(tmp_path):
    arrays = read_state_dict(FILE)
    weight = arrays["_transform._transforms.1.autoregressive_net.initial_layer.weight"]
    assert (weight.dtype, weight.shape) == (np.float64, (7, 3))
    assert arrays["_transform._transforms.1.autoregressive_net.initial_layer.degrees"].dtype == np.int64
    assert weight.flags.writeable


def test_nothing_is_executed(tmp_path):
    marker = tmp_path / "executed"
    attacks = [Reduced(os.mkdir, str(marker)), Reduced(eval, f"__import__('os').mkdir({str(marker)!r})")]
    for number, attack in enumerate(attacks):
        path = archive(tmp_path / f"{number}.pt", pickle.dumps({"weight": attack}))
        with pytest.raises(ConversionError, match="nothing was executed"):
            read_state_dict(path)
    assert not marker.exists()


def test_a_whole_module_is_refused(tmp_path):
    content = b"cnflows.flows.base\nFlow\n."
    with pytest.raises(
        ConversionError, match=r"names nflows\.flows\.base\.Flow, .* torch\.save\(model\.state_dict\(\), path\)"
    ):
        read_state_dict(archive(tmp_path / "whole.pt", content))


@pytest.mark.parametrize(("content", "message"), [
    (pickle.dumps([1, 2]), "holds a list, no state dict"),
    (pickle.dumps({"epoch": 3}), "holds more than arrays by name, 'epoch'"),
    (pickle.dumps(collections.OrderedDict(a=1))[:-4], "is no complete state dict"),
])  # fmt: skip
def test_other_contents(content, message, tmp_path):
    with pytest.raises(ConversionError, match=message):
        read_state_dict(archive(tmp_path / "f.pt", content))


def tensor_pickle(size, offset, shape, strides):
    """The pickle of one tensor of float32, as PyTorch writes it."""
    import types

    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    class FloatStorage:
        pass

    def _rebuild_tensor_v2():
        pass

    FloatStorage.__module__, FloatStorage.__qualname__ = "torch", "FloatStorage"
    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    torch.FloatStorage, utils._rebuild_tensor_v2, torch._utils = FloatStorage, _rebuild_tensor_v2, utils

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", FloatStorage, "0", "cpu", size) if isinstance(value, Storage) else None

    tensor = Reduced(_rebuild_tensor_v2, Storage(), offset, shape, strides, False, collections.OrderedDict())
    stream = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "torch", torch)
        patch.setitem(__import__("sys").modules, "torch._utils", utils)
        Pickler(stream, protocol=2).dump(collections.OrderedDict(w=tensor))
    return stream.getvalue()


@pytest.mark.parametrize(("offset", "shape", "strides", "wanted"), [
    (1, (2, 2), (1, 2), [[1, 3], [2, 4]]),
    (0, (), (), 0),
    (0, (0, 3), (3, 1), np.zeros((0, 3))),
])  # fmt: skip
def test_strides(offset, shape, strides, wanted, tmp_path):
    path = archive(tmp_path / "f.pt", tensor_pickle(6, offset, shape, strides))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/data/0", np.arange(6, dtype="f4").tobytes())
    np.testing.assert_array_equal(read_state_dict(path)["w"], wanted)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"), [(0, (7,), (1,)), (-1, (2,), (1,)), (0, (2, 2), (5, 1)), (3, (2,), (-1,))]
)
def test_a_tensor_beyond_its_numbers_is_refused(offset, shape, strides, tmp_path):
    path = archive(tmp_path / "f.pt", tensor_pickle(6, offset, shape, strides))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/data/0", np.arange(6, dtype="f4").tobytes())
    with pytest.raises(ConversionError, match="reaches beyond its numbers"):
        read_state_dict(path)


def test_damaged_files(tmp_path):
    content = FILE.read_bytes()
    path = tmp_path / "f.pt"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ConversionError, match="is no zip file"):
        read_state_dict(path)
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(content)
        for place in rng.integers(len(content), size=8):
            damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        with contextlib.suppress(ConversionError):
            read_state_dict(path)


def test_load_names_what_a_foreign_file_is(tmp_path):
    with pytest.raises(
        ValueError, match=r"is a file of PyTorch, .* npflows\.convert takes state dicts of nflows, zuko and others over"
    ):
        npflows.load(FILE)
    path = tmp_path / "flow.pkl"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match="is a pickle, as pzflow and others write them"):
        npflows.load(path)
