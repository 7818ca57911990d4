"""The logistic function and its logarithm, with SciPy and without."""

import sys

import numpy as np
import pytest
from scipy import special as reference

from npflows import support
from npflows.core import special

T = np.array([-np.inf, -800.0, -700.0, -30.0, -1e-9, -0.0, 0.0, 1e-300, 0.5, 30.0, 800.0, np.inf, np.nan])


@pytest.fixture
def without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    special._functions.cache_clear()
    yield
    special._functions.cache_clear()


def test_with_scipy_the_bits_are_scipys():
    np.testing.assert_array_equal(special.expit(T), reference.expit(T))
    np.testing.assert_array_equal(special.log_expit(T), reference.log_expit(T))


def test_without_scipy_all_digits_are_right(without_scipy):
    assert special.expit(T) is not None
    assert special._functions()[0] is special._expit
    np.testing.assert_allclose(special.expit(T), reference.expit(T), rtol=4e-16, atol=0)
    np.testing.assert_allclose(special.log_expit(T), reference.log_expit(T), rtol=4e-16, atol=0)


def test_a_support_needs_no_scipy(without_scipy):
    columns = support.Support([support.interval(-1, 3), support.integer(0, 4)])
    x = np.array([[0.5, 2.5], [-0.999, 0.25]])
    t, log_det, _ = columns.to_unconstrained(x)
    back, log_slope = columns.from_unconstrained(t)
    np.testing.assert_allclose(back, x, rtol=1e-13)
    np.testing.assert_allclose(log_slope, -log_det, rtol=1e-13)
