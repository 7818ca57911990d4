"""Products of whole blocks of threads, in numba.cuda's simulator:

NUMBA_ENABLE_CUDASIM=1 pytest tests/backends/cuda/simulated_products.py
"""

import itertools

import numpy as np
import pytest

from npflows.backends.cpu.kernels import mlp
from npflows.backends.cpu.kernels.tiles import FROM_BIAS, FROM_RESULT, FROM_ZERO
from npflows.backends.cuda import helpers, products, sums
from npflows.backends.cuda.device import kernel, launch_blocks, to_device
from npflows.backends.cuda.kernels import lanes_of_block, texts_calling
from npflows.backends.cuda.link import Called, NumberingLink
from npflows.backends.cuda.memory import whole
from npflows.core.operations import Made

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of lanes beyond the last sample
ROUNDING = {"float32": 1e-5, "float64": 1e-13}
LANES = products.LANES


def multiply(a, transposed, b, c, start, bias, few=False):
    """c = start + a @ b, or a.T @ b, as the kernels of layers come to it, where there are few samples or many; twice, as
    threads without a lane wait for the next product."""
    dtype = c.dtype
    text = (helpers.WITH_HELPERS if few else products.TOGETHER)[dtype]
    texts = texts_calling(())
    together, (lane, end_of_lane) = texts.again(text), lanes_of_block(texts, (Called(text, "product"),))

    def run(theta, a_row, a_column, b, c, d, k, start):
        t, m = lane(theta, c), c.shape[0]
        if t < b.shape[1]:
            bias, a = theta[:m], theta[m:]
            together(a, a_row, a_column, b[:, t : t + 1], d[:, t : t + 1], m, k, start, bias)
            together(a, a_row, a_column, b[:, t : t + 1], c[:, t : t + 1], m, k, start, bias)
            end_of_lane()

    n, k = c.shape[1], len(b)
    b, c = (np.hstack([block, np.full((len(block), whole(n) - n), np.nan, dtype)]) for block in (b, c))
    on_gpu, again = to_device(c), to_device(c)
    steps = (1, a.shape[1]) if transposed else (a.shape[1], 1)
    lanes, shared = (products.FEW_LANES, products.SHARED_OF_FEW) if few else (LANES, products.SHARED)
    theta = to_device(np.concatenate([bias, a.ravel()]))
    launch_blocks(kernel(run), whole(n) // lanes, LANES, theta, *steps, to_device(b), on_gpu, again, k, start,
                  shared_bytes=shared * dtype.itemsize)  # fmt: skip
    np.testing.assert_array_equal(again.copy_to_host()[:, :n], on_gpu.copy_to_host()[:, :n])
    return on_gpu.copy_to_host()[:, :n]


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(("m", "k", "n"), [(1, 3, 2), (4, 1, 1), (9, 5, 4), (8, 8, 7), (17, 4, 5), (6, 0, 3)])
def test_products_are_those_of_numpy(m, k, n, dtype):
    """Rows, depths and lanes that fill tiles and that do not, by rows and by columns, from all that sums may start with."""
    rng = np.random.default_rng(0)
    b, c, bias = (rng.normal(size=shape).astype(dtype) for shape in ((k, n), (m, n), m))
    starts = {FROM_ZERO: 0 * c, FROM_RESULT: c, FROM_BIAS: 0 * c + bias[:, None]}
    for transposed, (start, begun) in itertools.product((False, True), starts.items()):
        a = rng.normal(size=(k, m + 1) if transposed else (m, k + 2)).astype(dtype)
        expected = begun + (a[:, :m].T if transposed else a[:, :k]) @ b
        own = multiply(a, transposed, b, c, start, bias)
        np.testing.assert_allclose(own, expected, rtol=0, atol=ROUNDING[dtype])
        np.testing.assert_array_equal(multiply(a, transposed, b, c, start, bias, few=True), own)


@pytest.mark.parametrize("few", [False, True])
def test_nan_stays_in_its_lane(few):
    rng = np.random.default_rng(1)
    a, b, c = rng.normal(size=(9, 5)), rng.normal(size=(5, 6)), np.zeros((9, 6))
    expected = multiply(a, False, b, c, FROM_ZERO, c[:, 0], few)
    b[3, 4] = np.nan
    own = multiply(a, False, b, c, FROM_ZERO, c[:, 0], few)
    assert np.isnan(own[:, 4]).all()
    others = np.delete(np.arange(6), 4)
    np.testing.assert_array_equal(own[:, others], expected[:, others])


def test_a_lane_has_the_same_bits_in_any_company():
    rng = np.random.default_rng(2)
    a, b, c = (rng.normal(size=shape).astype(np.float32) for shape in ((11, 6), (6, 9), (11, 9)))
    whole = multiply(a, False, b, c, FROM_RESULT, c[:, 0])
    for n in (1, 3, 8):
        np.testing.assert_array_equal(multiply(a, False, b[:, :n], c[:, :n], FROM_RESULT, c[:, 0]), whole[:, :n])


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(("m", "k", "n", "pieces"), [(1, 1, 3, 1), (9, 3, 7, 2), (8, 17, 50, 2), (5, 8, 1, 2)])
def test_weight_gradients_are_sums_over_samples(m, k, n, pieces, dtype):
    """To what is there already, with the sums of rows beside them; samples beyond the last one count for nothing."""
    rng = np.random.default_rng(3)
    work, temp = rng.normal(size=(k + 2, n)).astype(dtype), rng.normal(size=(m + 1, n)).astype(dtype)
    gradients = rng.normal(size=(pieces, 3 + m * k + m)).astype(dtype)
    expected = gradients.sum(axis=0)
    expected[3 : 3 + m * k] += (temp[1:] @ work[2:].T).ravel()
    expected[3 + m * k :] += temp[1:].sum(axis=1)
    wanted = [
        sums.OuterProduct(sums.Place("temp", 1), sums.Place("work", 2), 0, k, m, k),
        sums.OuterProduct(sums.Place("temp", 1), None, m * k, 1, m, 1),
    ]
    table, on_gpu = to_device(sums.tiles(wanted)), to_device(gradients)
    left, right = to_device(work), to_device(temp)
    launch_blocks(sums.make_add_products(np.dtype(dtype).type), (table.shape[0], pieces), sums.THREADS, table, left, right,
                  left, right, on_gpu, 3, n, shared_bytes=sums.SHARED_SUMS * np.dtype(dtype).itemsize)  # fmt: skip
    np.testing.assert_allclose(on_gpu.copy_to_host().sum(axis=0), expected, rtol=0, atol=ROUNDING[dtype])


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("hidden", [(5,), (30, 13), (17, 40, 9)])
def test_merged_panels_cover_the_mask(hidden, few):
    """Each row and column once, with all that is free of it, in panels as high as a tile but for the last."""
    operation = Made.of(7, 2, hidden, (1,) * 7, activation="relu")
    spec = NumberingLink(np.dtype(np.float32), (), few).pack(operation)
    for layer in range(spec[mlp.N_DENSE]):
        record = mlp.HEADER + mlp.RECORD * layer
        mask = operation.mask(layer) > 0
        rows, columns = (
            np.reshape(spec[spec[record + place] :][: 3 * spec[record + count]], (-1, 3))
            for place, count in ((mlp.ROW_PANELS, mlp.N_ROW_PANELS), (mlp.COLUMN_PANELS, mlp.N_COLUMN_PANELS))
        )
        for panels, covered in ((rows, mask), (columns, mask[::-1].T)):
            np.testing.assert_array_equal(panels[1:, 0], panels[:-1, 1])
            assert (panels[0, 0], panels[-1, 1]) == (0, len(covered))
            assert all(panels[:-1, 1] - panels[:-1, 0] >= (products.FEW_ROWS if few else products.ROWS))
            for begin, end, reach in panels:
                depth = reach if covered is mask else len(mask) - reach
                assert not covered[begin:end, depth:].any()
