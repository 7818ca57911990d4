"""Products on tensor cores, in numba.cuda's simulator, where their instructions are emulated:

NUMBA_ENABLE_CUDASIM=1 pytest tests/backends/cuda/simulated_tensor_cores.py
"""

import itertools
import random
import threading

import numpy as np
import pytest
from simulated import TOLERANCE, assert_close, both

from npflows import RealNVP
from npflows.backends.cpu.kernels.tiles import FROM_BIAS, FROM_RESULT, FROM_ZERO
from npflows.backends.cuda import device, link, simulator, sums, tensor_core_sums, tensor_cores, tensor_matrices, wide
from npflows.backends.cuda.device import kernel, launch_blocks, running, to_device
from npflows.core import evaluation

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of what is not finite
REAL = np.float32


def multiply(a, transposed, b, c, start, bias):
    """c = start + a @ b, or a.T @ b, by the kernel."""
    (k, n), m, before = b.shape, len(c), 3
    theta = np.concatenate([np.full(before, np.nan, REAL), a.ravel(), bias])
    steps = (1, a.shape[1]) if transposed else (a.shape[1], 1)
    product = (0, *steps, a.size, 1, 2, m, k, start)
    table = to_device(np.array([(*product, first) for first in range(0, m, tensor_cores.ROWS)], np.int64))
    b, c = np.vstack([np.full((1, n), np.nan, REAL), b]), np.vstack([np.full((2, n), np.nan, REAL), c])
    on_gpu = to_device(c.ravel())
    launch_blocks(tensor_cores.multiply, (-(-n // tensor_cores.LANES), table.shape[0]), tensor_cores.THREADS, table,
                  to_device(theta), before, to_device(b.ravel()), on_gpu, n,
                  shared_bytes=4 * tensor_cores.SHARED)  # fmt: skip
    return on_gpu.copy_to_host().reshape(c.shape)[2:]


def operands(m, k, n, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape).astype(REAL) for shape in ((m, k), (k, n), (m, n)))


def in_float32(a, b, begun=0):
    """The product as float32 gives it, summed in order."""
    total = np.zeros((len(a), b.shape[1]), REAL) + begun
    for p in range(len(b)):
        total = (total + a[:, p : p + 1].astype(float) * b[p]).astype(REAL)
    return total


@pytest.mark.parametrize(("m", "k", "n"), [(3, 9, 5), (33, 5, 70), (32, 8, 64), (2, 0, 3)])
def test_products_are_those_of_numpy(m, k, n):
    """Rows, depths and lanes that fill tiles and that do not, by rows and by columns, from all that sums may start with."""
    rng = np.random.default_rng(0)
    b, c, bias = (rng.normal(size=shape).astype(REAL) for shape in ((k, n), (m, n), m))
    starts = {FROM_ZERO: 0 * c, FROM_RESULT: c, FROM_BIAS: 0 * c + bias[:, None]}
    for (start, begun), transposed in zip(starts.items(), itertools.cycle((False, True))):
        a = rng.normal(size=(k, m + 1) if transposed else (m, k + 2)).astype(REAL)
        expected = begun + (a[:, :m].T if transposed else a[:, :k]).astype(float) @ b
        own = multiply(a, transposed, b, c, start, bias)
        np.testing.assert_allclose(own, expected, rtol=0, atol=5e-6)


def test_what_is_not_finite_is_as_in_float32():
    """Infinities, NaN, and operands or results beyond the largest number, each in its lane and row alone."""
    a, b, c = operands(9, 10, 12)
    largest = np.finfo(REAL).max
    b[3, 0], b[4, 1], b[5, 2], b[6, 3], b[7, 4] = np.inf, -np.inf, np.nan, largest, 1e38
    b[8, 5], a[2, 6] = np.inf, np.inf
    a[:, 3] = REAL(2) ** np.arange(-4, 5)  # numbers of TF32, whose small part is 0
    a[:, 6], a[2, 6], a[4, 8], a[5, 6] = REAL(0.5), np.inf, 0, 2e-38
    b[6, [6, 7]] = 0.25, 0  # infinity times 0 is NaN
    own, plain = multiply(a, False, b, c, FROM_BIAS, c[:, 0]), in_float32(a, b, c[:, :1])
    for kind in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(kind(own), kind(plain))
    finite = np.isfinite(plain)
    assert 0 < finite[:, :6].sum() < 54
    np.testing.assert_allclose(own[finite], plain[finite], rtol=1e-6, atol=5e-6)
    assert all(kind(plain).any() for kind in (np.isnan, np.isposinf, np.isneginf))


def test_a_lane_has_the_same_bits_in_any_company():
    a, b, c = operands(5, 11, 9)
    together = multiply(a, False, b, c, FROM_RESULT, c[:, 0])
    b[:, 8], c[:, 7] = np.nan, np.nan
    np.testing.assert_array_equal(multiply(a, False, b, c, FROM_RESULT, c[:, 0])[:, :7], together[:, :7])
    np.testing.assert_array_equal(multiply(a, False, b[:, :3], c[:, :3], FROM_RESULT, c[:, 0]), together[:, :3])


@pytest.fixture(params=[0, 1])
def ahead(request, monkeypatch):
    """The warp that is as far ahead of the other one as barriers allow."""

    class InOrder(random.Random):
        def shuffle(self, threads):
            threads.sort(key=lambda thread: thread.thread_id // tensor_cores.WARP == request.param)

    monkeypatch.setattr(simulator.random, "Random", InOrder)


@pytest.mark.parametrize("slices", [1, 2])
def test_a_slow_warp_sees_its_slice_to_the_end(ahead, slices):
    """Others wait for it before they bring the next slice, or the results."""
    a, b, c = operands(3, slices * tensor_cores.DEPTH, 40)
    own = multiply(a, False, b, c, FROM_ZERO, c[:, 0])
    np.testing.assert_allclose(own, a.astype(float) @ b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("slices", [1, 2])
def test_so_it_does_in_weight_gradients(ahead, slices):
    m, k, n = 3, 40, slices * tensor_core_sums.DEPTH
    (temp, *_), (work, *_) = operands(m + 1, n, 1), operands(k + 2, n, 1, seed=1)
    own = add_products(work, temp, np.zeros((1, 3 + m * k), REAL), m, k, n)[0, 3:]
    np.testing.assert_allclose(own, (temp[1:].astype(float) @ work[2:].T).ravel(), rtol=0, atol=1e-5)


def test_small_numbers_are_not_lost():
    """Denormal numbers, and such as have a denormal small part."""
    a, b, c = operands(4, 8, 4)
    for scale in (1e-30, 1e-36, 1e-40):
        small = (b * scale).astype(REAL)
        own = multiply(a, False, small, c, FROM_ZERO, c[:, 0])
        np.testing.assert_allclose(own, a.astype(float) @ small, rtol=0, atol=1e-6 * scale + 2.0**-134)


@pytest.mark.parametrize(("m", "k", "n", "pieces"), [(3, 66, 5, 1), (33, 6, 5, 2)])
def test_weight_gradients_are_sums_over_samples(m, k, n, pieces):
    """To what is there already; samples beyond the last one count for nothing."""
    rng = np.random.default_rng(3)
    work, temp = rng.normal(size=(k + 2, n + 1)).astype(REAL), rng.normal(size=(m + 1, n + 1)).astype(REAL)
    work[:2], temp[0] = np.nan, np.nan
    gradients = rng.normal(size=(pieces, 3 + m * k)).astype(REAL)
    expected = gradients.sum(axis=0)
    expected[3:] += (temp[1:, :n].astype(float) @ work[2:, :n].T).ravel()
    np.testing.assert_allclose(add_products(work, temp, gradients, m, k, n).sum(axis=0), expected, rtol=0, atol=5e-6)
    temp[2, 0], work[3, 1], work[4, 0] = np.inf, np.nan, 1e38
    own = add_products(work, temp, 0 * gradients, m, k, n).sum(axis=0)[3:]
    plain = in_float32(temp[1:, :n], work[2:, :n].T).ravel()
    for kind in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(kind(own), kind(plain))
    finite = np.isfinite(plain)
    np.testing.assert_allclose(own[finite], plain[finite], rtol=1e-6, atol=5e-6)


def add_products(work, temp, gradients, m, k, n):
    """gradients + the sums over samples of temp[1:] * work[2:], from number 3 on, by the kernel."""
    wanted = [sums.OuterProduct(sums.Place("temp", 1), sums.Place("work", 2), 0, k, m, k)]
    table, on_gpu = to_device(sums.tiles(wanted, tensor_core_sums.TILE)), to_device(gradients)
    left, right = to_device(work), to_device(temp)
    launch_blocks(tensor_core_sums.add_products, (table.shape[0], len(gradients)), tensor_core_sums.THREADS, table, left,
                  right, left, right, on_gpu, 3, n, shared_bytes=4 * tensor_core_sums.SHARED)  # fmt: skip
    return on_gpu.copy_to_host()


def test_a_wide_network_is_what_the_reference_says(monkeypatch):
    """Its products and weight gradients by tensor cores, but for those that are left to others."""
    monkeypatch.setattr(device, "capability", lambda: (8, 0))
    monkeypatch.setattr(link, "WIDE", 1)
    monkeypatch.setattr(tensor_matrices, "worth_it", lambda m, k: k > 1)
    monkeypatch.setattr(tensor_matrices, "LEAST_ROWS", 2)
    launched, launch = [], tensor_matrices.launch_blocks
    monkeypatch.setattr(tensor_matrices, "launch_blocks", lambda kernel, *given, **more: (
        launched.append(kernel), launch(kernel, *given, **more)))  # fmt: skip
    flow, rng = RealNVP(3, 1, (5, 4), mask_type="half", rng=0), np.random.default_rng(4)
    flow.params = flow.params + 0.3 * rng.normal(size=flow.params.size)
    x = rng.normal(size=(2, 3))
    given = {"state": flow.state(), "x": x, "condition": np.zeros((2, 0)), "dlog": rng.normal(size=2), "input": True}
    own, expected = (evaluation.pullback(one, **given) for one in both(flow.program(), flow.dtype))
    of_values, of_gradients = TOLERANCE["float32"]
    assert_close(own.log_prob, expected.log_prob, of_values)
    assert_close(own.dx, expected.dx, of_gradients)
    assert_close(own.gradient, expected.gradient, of_gradients)
    assert {tensor_cores.multiply, tensor_core_sums.add_products} == set(launched)
    assert launched.count(tensor_core_sums.add_products) == 1


def test_they_are_used_where_they_are_and_not_refused(monkeypatch):
    single, double = np.dtype(np.float32), np.dtype(np.float64)
    monkeypatch.setattr(device, "capability", lambda: (8, 0))
    assert wide.chosen(single).name == "tensor cores as 3 x TF32, and npflows"
    assert wide.chosen(double).name == "npflows"
    monkeypatch.setattr(device, "capability", lambda: (7, 5))
    assert wide.chosen(single).name == "npflows"
    monkeypatch.setattr(device, "capability", lambda: (9, 0))
    assert wide.chosen(single).name == "tensor cores as 3 x TF32, and npflows"
    monkeypatch.setenv("NPFLOWS_TENSOR_CORES", "0")
    assert wide.chosen(single).name == "npflows"


@kernel
def leave_a_thread_out(out):
    if running.threadIdx.x:
        threading.current_thread().syncwarp(tensor_cores.WARP)
    out[running.threadIdx.x] = 1


def test_half_a_warp_is_an_error():
    """An instruction of a warp that not all of its threads come to, which would hang on a GPU."""
    out = to_device(np.zeros(tensor_cores.WARP))
    with pytest.raises(RuntimeError, match="threads of a warp wait for others"):
        launch_blocks(leave_a_thread_out, 1, tensor_cores.WARP, out)
    np.testing.assert_array_equal(out.copy_to_host(), np.eye(tensor_cores.WARP)[0])
