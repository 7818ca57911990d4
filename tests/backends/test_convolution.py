"""Convolutions of blocks are those of SciPy, for every shape and number of lanes."""

import numpy as np
import pytest
import scipy.signal
from registry import both_dtypes

from npflows import AffineCouplingLayer
from npflows.backends.cpu.kernels.convolution import convolve, convolve_outer, offsets
from npflows.backends.cpu.kernels.matmul import DEPTH
from npflows.backends.cpu.kernels.tiles import FROM_BIAS, FROM_RESULT, FROM_ZERO

# m channels of the result, n of the image, height, width, kernel size, lanes
SHAPES = [
    (1, 1, 1, 1, 1, 16), (1, 1, 1, 1, 3, 16), (2, 1, 1, 4, 3, 32), (3, 2, 5, 1, 3, 16), (4, 5, 3, 3, 1, 48),
    (5, 4, 3, 3, 3, 48), (6, 3, 2, 7, 3, 32), (7, 8, 4, 5, 3, 16), (8, 7, 5, 4, 1, 32), (9, 6, 2, 2, 3, 48),
    (12, 17, 3, 2, 3, 16), (17, 12, 1, 3, 3, 32), (17, 17, 2, 3, 1, 16), (13, 9, 7, 3, 3, 16),
]  # fmt: skip
LONG = (3, 40, 2, 3, 3, 16)
"""Its right operand has more rows than are summed at once."""
assert 9 * LONG[1] > DEPTH


def planes(rng, channels, height, width, lanes, dtype, border=0.0):
    """Images (channels, height + 2, width + 2, lanes) of small whole numbers, so that sums are exact in any order."""
    images = np.full((channels, height + 2, width + 2, lanes), border, dtype)
    images[:, 1:-1, 1:-1] = rng.integers(-8, 9, (channels, height, width, lanes))
    return images


def of_size(image, size):
    """A plane without its border where the kernel does not reach it."""
    return image if size == 3 else image[..., 1:-1, 1:-1, :]


@pytest.mark.nojit
@both_dtypes
@pytest.mark.parametrize("columns_first", [False, True])
@pytest.mark.parametrize("start", [FROM_ZERO, FROM_RESULT, FROM_BIAS])
def test_convolution_is_scipys_and_touches_nothing_else(start, columns_first, dtype):
    rng = np.random.default_rng(1)
    for m, n, height, width, size, lanes in [*SHAPES, LONG]:
        weight = rng.integers(-8, 9, (m, size, size, n)).astype(dtype)
        x, bias = planes(rng, n, height, width, lanes, dtype), rng.integers(-8, 9, m).astype(dtype)
        y = planes(rng, m, height, width, lanes, dtype, border=77.0)
        kernels = np.moveaxis(weight, 3, 1)[..., None].astype(np.float64)
        expected = y.copy()
        inside = expected[:, 1:-1, 1:-1]
        first = {FROM_ZERO: 0, FROM_RESULT: inside, FROM_BIAS: bias[:, None, None, None]}[start]
        inside[:] = first + np.stack(
            [scipy.signal.correlate(of_size(x, size).astype(float), k, "valid", "direct")[0] for k in kernels]
        )
        if start != FROM_RESULT:
            y[:, 1:-1, 1:-1] = np.nan  # what it held must not matter
        k = size**2 * n
        flat = weight.reshape(m, k)
        a, steps = (flat.T.copy().ravel(), (1, m)) if columns_first else (flat.ravel(), (k, 1))
        convolve(
            offsets(n, size, height, width), a, *steps, x.ravel(), y.reshape(-1), m, k, height, width, lanes, start, bias
        )
        np.testing.assert_array_equal(y, expected, err_msg=str((m, n, height, width, size, lanes)))


@pytest.mark.nojit
@both_dtypes
def test_gradient_of_the_weight_is_scipys_correlation_of_both_images(dtype):
    rng = np.random.default_rng(2)
    for m, n, height, width, size, lanes in [*SHAPES, LONG]:
        x = planes(rng, n, height, width, lanes, dtype)
        d = planes(rng, m, height, width, lanes, dtype, border=np.nan)  # what lies around the image must not matter
        c = rng.integers(-8, 9, m * size**2 * n + 5).astype(dtype)
        expected = c.copy()
        for i in range(m):
            for j in range(n):
                more = scipy.signal.correlate(of_size(x[j], size), d[i, 1:-1, 1:-1], "valid", "direct")[..., 0]
                expected[: m * size**2 * n].reshape(m, size, size, n)[i, :, :, j] += more
        convolve_outer(offsets(n, size, height, width), d.ravel(), x.ravel(), c, m, size**2 * n, height, width, lanes)
        np.testing.assert_array_equal(c, expected, err_msg=str((m, n, height, width, size, lanes)))


@both_dtypes
def test_nan_in_one_image_leaves_the_others_alone(dtype):
    rng = np.random.default_rng(3)
    layer = AffineCouplingLayer(2, (5, 6), image_size=(3, 4), dtype=dtype, rng=0)
    layer.params = layer.params + 0.2 * rng.normal(size=layer.num_params)
    x = rng.normal(size=(20, 3, 4, 2))
    clean, log_det = layer.forward(x)
    x[7, 2, 1, 0] = np.nan
    spoilt, spoilt_log_det = layer.forward(x)
    assert np.isnan(spoilt[7]).any()
    others = np.arange(20) != 7
    np.testing.assert_array_equal(spoilt[others], clean[others])
    np.testing.assert_array_equal(spoilt_log_det[others], log_det[others])
