"""Where no GPU can be used, `flow.to` says so in one sentence, and the flow goes on as it was."""

import os
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest

import npflows
from npflows import MAF, CudaError
from npflows.cli import main

pytestmark = pytest.mark.skipif(os.environ.get("NUMBA_ENABLE_CUDASIM") == "1", reason="a GPU is simulated")
SENTENCE = r"^flow\.to\('cuda'\) needs an NVIDIA GPU and pip install 'npflows\[cuda12\]' \(or cuda13\); .*[^.]$"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """As on a machine without one, whatever is installed."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    for name in [name for name in sys.modules if name.startswith("npflows.backends.cuda.")]:
        monkeypatch.delitem(sys.modules, name)


def test_the_flow_stays_on_the_cpu():
    flow = MAF(2, 1, (4,), rng=0)
    before = flow.log_prob(np.ones((1, 2)))
    for _ in range(2):
        with pytest.raises(CudaError, match=SENTENCE) as error:
            flow.to("cuda")
        assert "\n" not in str(error.value)
    assert flow.device == "cpu"
    np.testing.assert_array_equal(flow.log_prob(np.ones((1, 2))), before)
    assert flow.to("cpu") is flow


def test_another_device_is_refused():
    with pytest.raises(ValueError, match="device must be one of 'cpu', 'cuda', got 'tpu'"):
        MAF(2, 1, (4,), rng=0).to("tpu")


def test_so_do_files_and_the_command(tmp_path, capsys):
    MAF(2, 1, (4,), rng=0).save(tmp_path / "flow.npz")
    with pytest.raises(CudaError, match=SENTENCE):
        npflows.load(tmp_path / "flow.npz", device="cuda")
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    assert main(["score", str(tmp_path / "flow.npz"), str(tmp_path / "x.csv"), "--device", "cuda"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "needs an NVIDIA GPU" in told
    assert main(["score", str(tmp_path / "flow.npz"), str(tmp_path / "x.csv"), "--device", "cpu", "--quiet"]) == 0


def test_nothing_of_cuda_is_imported_without_being_asked_for():
    code = """
import sys
before = set(sys.modules)  # an installed numba-cuda is there from the start, by a hook of its own
import npflows
npflows.MAF(2, 1, (4,))
sys.exit(any("cuda" in name for name in set(sys.modules) - before))
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


class OnGpu:
    """Stands for an array of PyTorch or CuPy on a GPU."""

    def __dlpack_device__(self):
        return 2, 0

    def __array__(self, *_, **__):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


class ByInterface:
    __cuda_array_interface__: ClassVar = {"shape": (1, 2), "typestr": "<f8", "data": (8, False), "version": 3}


@pytest.mark.parametrize("array", [OnGpu(), ByInterface()])
def test_an_array_on_a_gpu_is_refused_by_a_flow_on_the_cpu(array):
    flow = MAF(2, 1, (4,), condition_dim=2, rng=0)
    told = (
        r" lies on a GPU: bring it to the host first, by \.get\(\) of CuPy or \.cpu\(\) of PyTorch; a flow on 'cuda' takes"
    )
    for name, call in {
        "x": lambda: flow.log_prob(array, [0, 1]),
        "z": lambda: flow.inverse(array, [0, 1]),
        "condition": lambda: flow.sample(1, condition=array),
    }.items():
        with pytest.raises(TypeError, match=f"^{name}{told}"):
            call()
    with pytest.raises(TypeError, match=f"^x{told}"):
        flow.fit(array, condition=np.ones((1, 2)))
