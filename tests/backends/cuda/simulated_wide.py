"""Networks that are run product by product, in numba.cuda's simulator:

    NUMBA_ENABLE_CUDASIM=1 pytest tests/backends/cuda/simulated_wide.py

Here a network is wide from one unit on; in place of cuBLAS there is what multiplies matrices by column with NumPy, where
addresses of memory say that they lie.
"""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest
import simulated
import simulated_recording

from npflows import MAF, RealNVP
from npflows.backends.cpu.kernels.tiles import FROM_BIAS, FROM_RESULT, FROM_ZERO
from npflows.backends.cuda import cublas, device, link, matrices, wide
from npflows.backends.cuda.device import to_device
from npflows.backends.cuda.matrices import Product, Tiles
from npflows.backends.cuda.memory import whole
from npflows.backends.cuda.sums import OuterProduct, Place

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # kernels are Python here
NARROW = link.WIDE
ENTRIES = [
    ("coupling, learned gain", "float64"),
    ("coupling, residual blocks", "float64"),
    ("spline coupling, circles", "float64"),
    ("MAF layer, condition", "float32"),
    ("MAF layer, one feature, condition", "float64"),
    ("spline, autoregressive, many circles, residual", "float64"),
    ("mixture of logistics, coupling", "float64"),
    ("MAF, embedded condition", "float64"),
    ("coupling, gates", "float64"),
    ("IAF layer, gates, degrees given", "float32"),
]
"""Of each kind of layer, map and network one."""


class ByColumn:
    """Stands for libcublas.so: products of matrices by column, at addresses."""

    def __init__(self, status=0):
        self.asked, self.handles = [], 0

        def create(handle):
            self.handles += 1
            handle._obj.value = 77
            return status

        def noting(name):
            return lambda *given: self.asked.append((name, *given)) or 0

        self.cublasCreate_v2 = self._function(create)
        for name in ("cublasSetStream_v2", "cublasSetWorkspace_v2", "cublasSetMathMode"):
            setattr(self, name, self._function(noting(name)))
        self.cublasSgemm_v2 = self._function(lambda *given: self._multiply(ctypes.c_float, *given))
        self.cublasDgemm_v2 = self._function(lambda *given: self._multiply(ctypes.c_double, *given))

    @staticmethod
    def _function(text):
        """A function that can be given types, as ctypes has them."""
        return type("Function", (), {"__call__": lambda self, *given: text(*given)})()

    def _multiply(self, real, handle, left, right, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc):
        assert handle.value == 77
        self.asked.append((real, m, n, k))

        def matrix(address, rows, columns, ld):
            assert ld >= max(rows, 1)
            size = max(ld * (columns - 1) + rows, 0)
            numbers = np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(real)), (size,)) if size else np.empty(0)
            return np.lib.stride_tricks.as_strided(numbers, (rows, columns), (numbers.itemsize, ld * numbers.itemsize))

        a = matrix(A, k, m, lda).T if left == cublas.TRANSPOSED else matrix(A, m, k, lda)
        b = matrix(B, n, k, ldb).T if right == cublas.TRANSPOSED else matrix(B, k, n, ldb)
        c = matrix(C, m, n, ldc)
        before = beta._obj.value * c if beta._obj.value else 0
        c[:] = alpha._obj.value * (a @ b) + before
        return 0


@pytest.fixture(autouse=True)
def all_are_wide(monkeypatch):
    monkeypatch.setattr(link, "WIDE", 1)


@pytest.fixture
def by_cublas(monkeypatch):
    """cuBLAS is there; what was asked of it."""
    loaded = ByColumn()
    library = cublas.Library(loaded)
    monkeypatch.setattr(cublas, "find", lambda: library)
    return loaded


@pytest.fixture
def count(monkeypatch):
    """How often something was run product by product."""
    runs, launch = [], wide.WideRun.launch
    monkeypatch.setattr(wide.WideRun, "launch", lambda self, *given: (runs.append(1), launch(self, *given)))
    return runs


@pytest.mark.parametrize(("name", "dtype"), ENTRIES)
def test_entries_are_what_the_reference_says(name, dtype, count):
    simulated.test_every_entry_is_what_the_reference_says(name, dtype, simulated.N)
    assert len(count) >= 3


@pytest.mark.parametrize("name", ["coupling, learned gain", "MAF, embedded condition"])
def test_entries_by_cublas_are_what_the_reference_says(name, by_cublas):
    simulated.test_every_entry_is_what_the_reference_says(name, "float64", simulated.N)
    assert len([one for one in by_cublas.asked if one[0] is ctypes.c_double]) > 20


def test_training_goes_where_it_goes_on_the_cpu(count):
    """With dropout, and with the same bits each time."""
    simulated.test_training_goes_where_it_goes_on_the_cpu("MAF")
    assert count


@pytest.mark.parametrize("by", ["npflows", "cuBLAS"])
def test_recorded_steps_are_those_launched_one_by_one(by, monkeypatch, request):
    if by == "cuBLAS":
        request.getfixturevalue("by_cublas")
    make = lambda: simulated_recording.spread(MAF(3, 2, (4,), condition_dim=2, rng=1).to("cuda"))  # noqa: E731
    found = simulated_recording.steps(make(), (4, 4, 4, 3, 4))
    simulated_recording.one_by_one(monkeypatch)
    simulated_recording.assert_same(found, simulated_recording.steps(make(), (4, 4, 4, 3, 4)))


def test_from_the_third_step_on_nothing_is_launched_by_the_program(by_cublas, monkeypatch):
    flow, counts = simulated_recording.spread(MAF(3, 2, (4,), rng=1).to("cuda")), []
    launch = wide.WideRun.launch
    monkeypatch.setattr(wide.WideRun, "launch", lambda self, *given: (counts.append(1), launch(self, *given)))
    asked = []

    def between(flow):
        asked.append((len(counts), len(by_cublas.asked)))
        counts.clear()
        by_cublas.asked.clear()

    by_cublas.asked.clear()
    simulated_recording.steps(flow, (3, 3, 3), between)
    launches, products = zip(*asked)
    assert launches[0] == launches[1] == 4
    assert launches[2] == 0
    assert products[2] == products[1] == products[0] > 0


def test_the_way_forward_has_the_bits_of_a_narrow_network(monkeypatch, count):
    x = np.random.default_rng(0).normal(size=(5, 4))
    for make in (lambda: MAF(4, 2, (9, 6), rng=1), lambda: RealNVP(4, 2, (9, 6), rng=1)):
        found = []
        for least in (1, NARROW):
            monkeypatch.setattr(link, "WIDE", least)
            flow = simulated_recording.spread(make()).to("cuda")
            found.append(flow.forward(x)[0])
        np.testing.assert_array_equal(*found)
    assert len(count) == 4


def test_only_wide_networks_are_run_so(monkeypatch, count):
    monkeypatch.setattr(link, "WIDE", 6)
    x = np.ones((2, 3))
    MAF(3, 1, (5,), rng=0).to("cuda").log_prob(x)
    assert not count
    MAF(3, 1, (5, 6), rng=0).to("cuda").log_prob(x)
    assert len(count) == 1


def product(a, transposed, b, c, start, bias, way):
    """c = start + a @ b, or a.T @ b, among rows and lanes that stay."""
    dtype, (m, n), k = c.dtype, c.shape, len(b)
    theta = np.concatenate([np.full(3, np.nan, dtype), bias, a.ravel()])
    steps = (1, a.shape[1]) if transposed else (a.shape[1], 1)
    one = Product(2 + len(bias), *steps, 2, 1, 2, m, k, start)
    left, right = np.full((k + 2, whole(n)), np.nan, dtype), np.full((m + 3, whole(n)), 7, dtype)
    left[1 : k + 1, :n], right[2 : m + 2, :n] = b, c
    result = to_device(right)
    way.multiply(way.prepare([one]), to_device(theta), 1, to_device(left), result)
    found = result.copy_to_host()
    assert (found[[0, 1, -1]] == 7).all()
    return found[2 : m + 2, :n]


WAYS = {
    "large tiles": lambda dtype, monkeypatch: monkeypatch.setattr(matrices, "ENOUGH", 0) or Tiles(dtype),
    "small tiles": lambda dtype, monkeypatch: monkeypatch.setattr(matrices, "ENOUGH", 1 << 30) or Tiles(dtype),
    "cuBLAS": lambda dtype, monkeypatch: cublas.Cublas(cublas.Library(ByColumn()), dtype),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("m", "k", "n"), [(1, 3, 2), (4, 1, 1), (9, 5, 4), (8, 8, 7), (17, 4, 5), (6, 0, 3), (1, 1, 9)])
def test_products_are_those_of_numpy(m, k, n, dtype, way, monkeypatch):
    """By rows and by columns, from all that sums may start with."""
    rng, multiplies = np.random.default_rng(0), WAYS[way](np.dtype(dtype), monkeypatch)
    b, c, bias = (rng.normal(size=shape).astype(dtype) for shape in ((k, n), (m, n), m))
    starts = {FROM_ZERO: 0 * c, FROM_RESULT: c, FROM_BIAS: 0 * c + bias[:, None]}
    for transposed, beside in ((False, 2), (True, 1), (True, 0)):
        for start, begun in starts.items():
            a = rng.normal(size=(k, m + beside) if transposed else (m, k + beside)).astype(dtype)
            expected = begun + (a[:, :m].T if transposed else a[:, :k]) @ b
            own = product(a, transposed, b, c, start, bias, multiplies)
            np.testing.assert_allclose(own, expected, rtol=0, atol=1e-5 if dtype == "float32" else 1e-13)


def test_products_that_depend_on_each_other_are_not_launched_together():
    first = Product(0, 4, 1, 0, 0, 10, 3, 4, FROM_BIAS)
    for other, together in (
        (first._replace(c_row=13), True),
        (first._replace(c_row=12), False),  # writes what the first writes
        (first._replace(c_row=13, b_row=9), False),  # reads it
    ):
        parts = []
        wide.add_to(parts, "work", "work", first)
        wide.add_to(parts, "work", "work", other)
        assert len(parts) == 2 - together
    parts = [wide.Units(0, 3)]
    wide.add_to(parts, "work", "work", first)
    wide.add_to(parts, "temp", "work", first)
    assert len(parts) == 3


def test_tiles_of_any_size_give_the_same_bits(monkeypatch):
    rng = np.random.default_rng(1)
    a, b, c = (rng.normal(size=shape).astype(np.float32) for shape in ((11, 9), (9, 7), (11, 7)))
    found = []
    for way in ("large tiles", "small tiles"):
        tiles = WAYS[way](np.dtype(np.float32), monkeypatch)
        found.append(product(a, False, b, c, FROM_RESULT, c[:, 0], tiles))
    np.testing.assert_array_equal(*found)


def test_weight_gradients_by_cublas_are_sums_over_samples():
    rng, n = np.random.default_rng(2), 6
    way = cublas.Cublas(cublas.Library(ByColumn()), np.dtype(np.float64))
    work, temp, gradients = rng.normal(size=(5, 8)), rng.normal(size=(7, 8)), rng.normal(size=(2, 40))
    wanted = [
        OuterProduct(Place("temp", 2), Place("work", 1), 3, 6, 4, 3),
        OuterProduct(Place("temp", 2), None, 30, 1, 4, 1),
    ]
    left, taken = way.leave(wanted)
    assert (left, taken) == (wanted[1:], wanted[:1])
    on_gpu = to_device(gradients)
    way.add(taken, {"work": to_device(work), "temp": to_device(temp)}, on_gpu, 5, n)
    for i in range(4):
        gradients[0, 8 + 6 * i : 8 + 6 * i + 3] += temp[2 + i, :n] @ work[1:4, :n].T
    np.testing.assert_allclose(on_gpu.copy_to_host(), gradients, rtol=0, atol=1e-13)


def test_cublas_is_asked_on_the_stream_with_a_workspace_of_its_own():
    loaded = ByColumn()
    library = cublas.Library(loaded)
    assert loaded.asked.pop(0)[::2] == ("cublasSetMathMode", cublas.DEFAULT_MATH)
    way, block = cublas.Cublas(library, np.dtype(np.float64)), to_device(np.ones((2, 4)))
    with device.on(5):
        way.multiply([Product(0, 2, 1, 0, 0, 0, 2, 2, FROM_ZERO)], to_device(np.ones(4)), 0, block, block)
    (stream, handle, number), (workspace, _, address, size), (real, *shape) = loaded.asked
    assert (stream, handle.value, number) == ("cublasSetStream_v2", 77, 5)
    assert (workspace, size) == ("cublasSetWorkspace_v2", cublas.WORKSPACE)
    assert address == device.address_of(library._workspace)
    assert (real, *shape) == (ctypes.c_double, 4, 2, 2)
    assert loaded.handles == 1


@pytest.mark.parametrize("fault", ["does not load", "does not start"])
def test_a_broken_cublas_is_told_of_once(fault, monkeypatch):
    def load(path):
        if fault == "does not load":
            raise OSError("libcublasLt.so.12: cannot open shared object file")
        return ByColumn(status=1)

    finder = SimpleNamespace(load_nvidia_dynamic_lib=lambda name: SimpleNamespace(abs_path=f"/opt/lib{name}.so.12"))
    monkeypatch.setattr(cublas, "SIMULATED", False)
    monkeypatch.setattr(cublas.importlib, "import_module", lambda name: finder)
    monkeypatch.setattr(cublas.ctypes, "CDLL", load)
    find = cublas.find.__wrapped__
    with pytest.warns(UserWarning, match=r"cuBLAS is at /opt/libcublas.so.12 and can't be used"):
        assert find() is None
    monkeypatch.setattr(cublas, "find", lambda: None)
    assert wide.chosen(np.dtype(np.float32)).name == "npflows"


def test_cublas_is_chosen_where_it_is_and_not_refused(by_cublas, monkeypatch):
    assert wide.chosen(np.dtype(np.float32)).name == "cuBLAS"
    monkeypatch.setenv("NPFLOWS_CUBLAS", "0")
    assert wide.chosen(np.dtype(np.float32)).name == "npflows"
