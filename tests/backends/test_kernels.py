"""The parts of kernels: matrix products, activations, calls by address."""

import itertools

import numpy as np
import pytest
from numba.core.errors import TypingError
from registry import both_dtypes

import npflows
from npflows import Base, NormalizingFlow, Permutation
from npflows.backends.cpu.compiler.calls import address, call
from npflows.backends.cpu.compiler.jit import DISABLED, inlined, kernel
from npflows.backends.cpu.kernels import activations, matmul
from npflows.backends.cpu.kernels.outer import PANEL_ROWS, STEP, outer
from npflows.backends.cpu.kernels.tiles import FROM_BIAS, FROM_RESULT, FROM_ZERO
from npflows.backends.cpu.link import ONE_LANE_TWINS, Link


def inside_a_larger_one(rng, rows, columns, dtype):
    """A flat array that begins with a matrix, the length of a row in it, and a view of the matrix.

    Its entries are small whole numbers, so that products are exact whatever the order of the sum.
    """
    whole = rng.integers(-8, 9, (rows + 3, columns + 5)).astype(dtype)
    return whole.ravel(), columns + 5, whole[:rows, :columns]


def block(rng, rows, lanes, dtype):
    """A block with a few rows more, of small whole numbers."""
    return rng.integers(-8, 9, (rows + 3, lanes)).astype(dtype)


def product_of(lanes):
    """The kernel of products of blocks with so many lanes."""
    return ONE_LANE_TWINS.get(matmul.product, matmul.product) if lanes == 1 else matmul.product


HEIGHTS = [1, 2, 3, 5, 6, 7, 8, 11, 17, 24]
LANES = [16, 32, 48, 80, 128]
WIDTHS = [1, 3, 4, 6, 8, 13, 16, 17, 29, 32, 47, 64]
DEPTHS = [0, 1, 2, 5, matmul.DEPTH, matmul.DEPTH + 1, 2 * matmul.DEPTH + 3]


@pytest.mark.nojit
@both_dtypes
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("start", [FROM_ZERO, FROM_RESULT, FROM_BIAS])
def test_product_of_any_size_is_right_and_touches_nothing_else(start, transposed, dtype):
    rng = np.random.default_rng(0)
    lanes = LANES if transposed and start == FROM_BIAS else [1, *LANES]
    for m, n, k in itertools.product([*HEIGHTS, 70], lanes, DEPTHS):
        a, lda, left = inside_a_larger_one(rng, *((k, m) if transposed else (m, k)), dtype)
        b, c, bias = block(rng, k, n, dtype), block(rng, m, n, dtype), rng.integers(-8, 9, m).astype(dtype)
        first = {FROM_ZERO: 0, FROM_RESULT: c[:m], FROM_BIAS: bias[:, None]}[start]
        expected = c.copy()
        expected[:m] = (left.T if transposed else left) @ b[:k] + first
        if start != FROM_RESULT:
            c[:m] = np.nan  # what it held must not matter
        steps = (1, lda) if transposed else (lda, 1)
        product_of(n)(a, *steps, b, c, m, k, start, bias)
        np.testing.assert_array_equal(c, expected)


@pytest.mark.nojit
@both_dtypes
def test_outer_product_of_any_size_is_right_and_touches_nothing_else(dtype):
    rng = np.random.default_rng(0)
    for m, n, k in itertools.product(HEIGHTS, LANES, WIDTHS):
        a, b = block(rng, m, n, dtype), block(rng, k, n, dtype)
        c, ldc, _ = inside_a_larger_one(rng, m, k, dtype)
        expected, size = c.copy(), PANEL_ROWS * n
        expected.reshape(-1, ldc)[:m, :k] += a[:m] @ b[:k].T
        panels = np.full(size + 8, np.nan, dtype)
        outer(np.zeros(0, np.int64), a, b, panels, c, ldc, m, k)
        np.testing.assert_array_equal(c, expected)
        assert np.isnan(panels[size:]).all()


@both_dtypes
def test_outer_product_of_a_staircase_has_all_that_is_wanted(dtype):
    rng = np.random.default_rng(0)
    for m, k, n in itertools.product([5, 24, 70], WIDTHS, [16, 48]):
        first_rows = np.sort(rng.integers(0, m + 1, -(-k // STEP)))
        a, b, c = block(rng, m, n, dtype), block(rng, k, n, dtype), np.zeros((m, k), dtype)
        outer(first_rows, a, b, np.full(PANEL_ROWS * n, np.nan, dtype), c.ravel(), k, m, k)
        wanted = np.arange(m)[:, None] >= first_rows[np.arange(k) // STEP]
        np.testing.assert_array_equal(c[wanted], (a[:m] @ b[:k].T)[wanted])


@both_dtypes
def test_product_of_one_lane_reads_nothing_beyond_its_operands(dtype):
    """The memory behind them is often another's, and may hold NaN."""
    rng = np.random.default_rng(3)
    for m, k in itertools.product([1, 4, 16, 21], [1, 3, 8, 15, 16, 17, 33]):
        a, b, bias = rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(k + 20, 1)).astype(dtype), np.ones(m, dtype)
        b[k:] = np.nan
        c = np.empty((m, 1), dtype)
        product_of(1)(a.ravel(), k, 1, b, c, m, k, FROM_BIAS, bias)
        np.testing.assert_allclose(c, a @ b[:k] + 1, rtol=100 * np.finfo(dtype).eps, atol=100 * np.finfo(dtype).eps)


@both_dtypes
def test_nan_in_one_sample_leaves_the_others_alone(dtype):
    rng = np.random.default_rng(1)
    a, bias, b = (rng.normal(size=size).astype(dtype) for size in (45, 9, (5, 48)))
    clean, spoilt = np.empty((2, 9, 48), dtype)
    matmul.product(a, 5, 1, b, clean, 9, 5, FROM_BIAS, bias)
    b[3, 7] = np.nan
    matmul.product(a, 5, 1, b, spoilt, 9, 5, FROM_BIAS, bias)
    assert np.isnan(spoilt[:, 7]).all()
    np.testing.assert_array_equal(np.delete(spoilt, 7, axis=1), np.delete(clean, 7, axis=1))


@both_dtypes
def test_result_of_a_sample_does_not_depend_on_how_many_there_are(dtype):
    rng = np.random.default_rng(2)
    a, bias, column = (rng.normal(size=size).astype(dtype) for size in (19 * 300, 19, (300, 1)))
    results = []
    for n in [1, *LANES]:
        c = np.empty((19, n), dtype)
        product_of(n)(a, 300, 1, np.repeat(column, n, axis=1), c, 19, 300, FROM_BIAS, bias)
        results.append(c)
    np.testing.assert_array_equal(np.concatenate(results, axis=1), np.repeat(results[0], 1 + sum(LANES), axis=1))


FORMULAS = {  # with their derivatives
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "silu": (lambda x: x / (1 + np.exp(-x)), lambda x: (1 + np.exp(-x) + x * np.exp(-x)) / (1 + np.exp(-x)) ** 2),
    "elu": (lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), lambda x: np.exp(np.minimum(x, 0))),
    "leaky_relu": (lambda x: np.where(x > 0, x, 0.01 * x), lambda x: np.where(x > 0, 1, 0.01)),
}


@pytest.mark.nojit
@both_dtypes
@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_activation_and_its_derivative_are_those_of_the_formula(name, dtype):
    function, derivative = FORMULAS[name]
    activate, activate_vjp = activations.ACTIVATIONS[name]
    x = np.linspace(-8, 8, 64).reshape(4, 16).astype(dtype)
    h, before, dh = x.copy(), np.empty_like(x), np.full_like(x, 3)
    activate(h, before)
    activate_vjp(h, before, dh)
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(h, function(x.astype(float)), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(dh, 3 * derivative(x.astype(float)), rtol=3 * tolerance, atol=3 * tolerance)


@both_dtypes
@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_activation_hides_no_nan_and_survives_infinity(name, dtype):
    h = np.array([[np.nan, np.inf, 1e30, -1e30, 0.0]], dtype)
    before = np.empty_like(h)
    activations.ACTIVATIONS[name][0](h, before)
    assert np.isnan(h[0, 0])
    assert h[0, 1] == (1 if name == "tanh" else np.inf)
    assert not np.isnan(h[0, 1:]).any()
    assert h[0, 4] == 0


@kernel
def shift(spec, theta, z, log_prob):
    for t in range(log_prob.size):
        log_prob[t] += theta[0] * spec[0]


@kernel
def refuse(spec, theta, z, log_prob):
    raise ValueError("this kernel refuses")


@inlined(python=True)
def call_base(number, spec, theta, z, log_prob):
    call(number, (spec, theta, z, log_prob))


@inlined(python=True)
def call_with_too_little(number, spec):
    call(number, (spec,))


@pytest.mark.nojit
def test_kernel_is_called_by_its_address():
    number = address(shift, "base", np.float64)
    assert address(shift, "base", np.dtype("float64")) == number
    assert address(refuse, "base", np.float64) != number
    log_prob = np.ones(3)
    call_base(number, np.array([5]), np.array([2.0]), np.zeros((1, 3)), log_prob)
    np.testing.assert_array_equal(log_prob, 11)


@pytest.mark.skipif(DISABLED, reason="it is a Python function then")
def test_inlined_function_refuses_to_be_called_from_python():
    @inlined
    def double(x):
        return 2 * x

    @inlined(python=True)
    def quadruple(x):
        return double(double(x))

    for _ in range(2):
        assert quadruple(3.0) == 12
        with pytest.raises(TypeError, match="double is inlined and called by kernels alone"):
            double(3.0)


@pytest.mark.nojit
def test_link_compiles_only_what_the_kernels_in_use_need():
    link = Link(np.dtype("float64"), (shift,))
    assert link(shift, "base", refuse) == 0
    assert link(shift, "base", refuse, shift) == address(shift, "base", np.float64)


@pytest.mark.skipif(DISABLED, reason="nothing is compiled")
def test_call_that_fits_no_kind_of_kernel_is_refused_at_compile_time():
    with pytest.raises(TypingError, match="no kind of kernel"):
        call_with_too_little(1, np.zeros(1, np.int64))


class Refusing(Base):
    kernels = (refuse, refuse)

    def __init__(self, dim, *, dtype="float32"):
        super().__init__(dim, [], dtype=dtype)


def test_error_in_a_kernel_reaches_the_user_and_leaves_all_in_order():
    flow = NormalizingFlow([Permutation(2, dtype="float64")], Refusing(2, dtype="float64"), dtype="float64")
    for n in (1, 4):
        npflows.set_num_threads(n)
        with pytest.raises(ValueError, match="this kernel refuses"):
            flow.log_prob(np.zeros((2000, 2)))
        assert flow.forward(np.zeros((2000, 2)))[0].shape == (2000, 2)
