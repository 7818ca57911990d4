"""Kernels never count an index from the end, as what is compiled takes it as it is (npflows/backends/cuda/indexing.py), in
numba.cuda's simulator:

NUMBA_ENABLE_CUDASIM=1 pytest tests/backends/cuda/simulated_indices.py
"""

import numpy as np
import pytest
from numba import cuda
from registry import build, condition, source

from npflows import NormalizingFlow
from npflows.backends.cuda import device, program
from npflows.core import backend as backends
from npflows.core import evaluation

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # kernels are Python here
KINDS = (
    "coupling, learned gain", "MAF layer, condition", "spline of each column, circles", "LU", "QR", "SVD",
    "1x1 convolution, full", "log tails", "rotation", "given permutation", "flow of Standardize alone", "Glow block",
)  # fmt: skip
"""Entries that have a kernel of each kind."""


class Strict(np.ndarray):
    """An array that refuses indices and slices of which Python would count from the end, or which lie outside."""

    def _look_at(self, key):
        for one, size in zip(key if isinstance(key, tuple) else (key,), self.shape):
            if isinstance(one, slice):
                fits = (one.start or 0) >= 0 and (one.stop is None or one.stop >= 0) and one.step is None
            else:
                fits = 0 <= one < size
            if not fits:
                raise IndexError(f"a kernel has the index {key} in an array of the shape {self.shape}")

    def __getitem__(self, key):
        self._look_at(key)
        return super().__getitem__(key)

    def __setitem__(self, key, value):
        self._look_at(key)
        super().__setitem__(key, value)


@pytest.fixture
def strict(monkeypatch):
    """All arrays of kernels are `Strict`."""
    kind, launch_blocks = type(cuda.device_array(1)), device.launch_blocks

    def launch(function, blocks, threads, *arguments, shared_bytes=0):
        strict = (kind(one._ary.view(Strict)) if isinstance(one, kind) else one for one in arguments)
        launch_blocks(function, blocks, threads, *strict, shared_bytes=shared_bytes)

    monkeypatch.setattr(device, "launch_blocks", launch)
    monkeypatch.setattr(program, "launch_blocks", launch)


def test_an_index_that_counts_from_the_end_is_refused(strict):
    @device.kernel
    def take_last(array):
        array[0] = array[-1]

    with pytest.raises(IndexError, match=r"the index -1 in an array of the shape \(2,\)"):
        device.launch(take_last, 1, device.to_device(np.zeros(2)))


@pytest.mark.parametrize("name", KINDS)
def test_kernels_count_no_index_from_the_end(strict, name):
    obj = build(name, "float64")
    is_flow = isinstance(obj, NormalizingFlow)
    made = backends.select("cuda").compile(obj.program(with_base=False) if is_flow else obj.program(), obj.dtype)
    for inverse in (False, True):
        x = source(obj, 2, "inverse" if inverse else "forward")
        given = {"x": x, "condition": condition(obj, 2), "inverse": inverse}
        evaluation.transport(made, obj.state(), **given)
        evaluation.pullback(made, obj.state(), dy=x, dlog=np.ones(2), input=True, **given)
