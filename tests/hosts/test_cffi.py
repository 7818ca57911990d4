"""Densities called through cffi, by the handle and by the address of a function."""

import numpy as np
import pytest

import npflows

cffi = pytest.importorskip("cffi")

STRUCT = """
typedef struct npflows_density {
    int64_t (*evaluate)(const double *x, int64_t n, int64_t dim, const double *condition, int64_t condition_rows,
                        int64_t condition_dim, double *grad, double *dcondition, double *log_prob,
                        const struct npflows_density *density);
    int64_t (*sample)(const double *z, int64_t n, int64_t dim, const double *condition, int64_t condition_rows,
                      int64_t condition_dim, double *x, const struct npflows_density *density);
    int64_t dim, condition_dim, abi;
} npflows_density;
"""
"""What npflows.h declares, for a parser that knows no preprocessor."""


@pytest.fixture
def ffi():
    ffi = cffi.FFI()
    ffi.cdef(STRUCT)
    return ffi


def test_by_the_handle(ffi):
    flow = npflows.MAF(3, 2, (8,), condition_dim=2, rng=0)
    x, condition = np.random.default_rng(0).normal(size=(7, 3)), np.array([[0.5, -1.0]])
    density = npflows.embed(flow)
    found = ffi.cast("npflows_density *", density.handle)
    assert (found.dim, found.condition_dim) == (3, 2)
    out, grad = np.empty(7), np.empty((7, 3))
    rows, given, values, slopes = (ffi.from_buffer("double[]", a) for a in (x, condition, out, grad))
    assert found.evaluate(rows, 7, 3, given, 1, 2, slopes, ffi.NULL, values, found) == 0
    log_prob, gradient = flow.log_prob_and_grad(x, condition)
    np.testing.assert_array_equal(out, log_prob)
    np.testing.assert_array_equal(grad, gradient)
    assert found.evaluate(rows, 7, 4, given, 1, 2, slopes, ffi.NULL, values, found) < 0  # rows of another length


def test_by_the_address_of_a_function(ffi):
    flow = npflows.MAF(3, 2, (8,), rng=0)
    x = np.random.default_rng(0).normal(size=3)
    density = npflows.embed(flow)
    function = ffi.cast("double (*)(double *)", density.function("double (double *)"))
    assert function(ffi.from_buffer("double[]", x)) == flow.log_prob(x)
