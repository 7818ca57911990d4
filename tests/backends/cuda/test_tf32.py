"""The emulated arithmetic of tensor cores."""

import numpy as np
import pytest

from npflows.backends.cuda import tf32

REAL = np.float32


def test_rounding_is_to_the_nearest_and_ties_go_away_from_zero():
    unit = 2.0**-10
    x = np.array([1 + 0.49 * unit, 1 + 0.5 * unit, -1 - 0.5 * unit, 1 - unit / 4, 3.4025e38, np.inf, -0.0], REAL)
    expected = np.array([1, 1 + unit, -1 - unit, 1, np.inf, np.inf, -0.0], REAL)
    own = tf32.rounded_number(x)
    np.testing.assert_array_equal(own, expected)
    np.testing.assert_array_equal(np.signbit(own), np.signbit(expected))


def test_two_numbers_hold_all_but_the_last_bit():
    x = np.random.default_rng(0).normal(size=10000).astype(REAL)
    big, small = tf32.split(x)
    for part in (big, small):
        np.testing.assert_array_equal(tf32.cut(part), part)
    off = np.abs(big.astype(float) + small - x)
    assert (off <= np.spacing(np.abs(x))).all()
    assert np.isnan(tf32.split(REAL(np.nan))[1])


@pytest.mark.parametrize(("adder", "bits"), [(tf32.A100, 24), (tf32.H100, 25)])
def test_what_does_not_fit_is_cut_off(adder, bits):
    """Beside 1 a number counts that has one of the adder's bits; the sum of two that have not is 0."""
    a = np.array([[1, 1, 1]], REAL)
    for exponent, expected in ((bits, 2.0**-bits), (bits + 1, 0)):
        b = np.array([[1], [2.0**-exponent], [-1]], REAL)
        own = tf32.multiply_add(a, b, np.zeros((1, 1), REAL), adder._replace(terms=3))
        assert own == expected
    b = np.array([[1], [2.0**-24], [2.0**-24]], REAL)
    assert tf32.multiply_add(a, b, np.zeros((1, 1), REAL), adder) == 1 + 2.0**-23
    b = np.array([[-1], [-(2.0**-24)], [0]], REAL)
    assert tf32.multiply_add(a, b, np.zeros((1, 1), REAL), adder) == -1


def test_infinities_and_nan_are_those_of_float32():
    a, b = np.array([[np.inf, 1]], REAL), np.array([[1, 0, -1, np.nan], [1, 1, np.inf, 1]], REAL)
    own = tf32.multiply_add(a, b, np.zeros((1, 4), REAL))
    np.testing.assert_array_equal(own, [[np.inf, np.nan, np.nan, np.nan]])


@pytest.mark.parametrize("k", [tf32.LEAST_DEPTH, 256])
@pytest.mark.parametrize("adder", [tf32.A100, tf32.H100])
def test_products_that_are_worth_it_are_as_exact_as_in_float32(k, adder):
    """Or nearly, where half of the terms are 0, as under a mask."""
    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=shape).astype(REAL) for shape in ((tf32.LEAST_ROWS, k), (k, 64)))
    assert tf32.worth_it(*a.shape)
    for weights in (a, np.where(rng.random(a.shape) < 0.5, 0, a).astype(REAL)):
        exact, plain = weights.astype(float) @ b, np.zeros((len(a), 64), REAL)
        for p in range(k):
            plain = (plain + weights[:, p : p + 1].astype(float) * b[p]).astype(REAL)
        off, off_plain = (np.sqrt(np.mean((one - exact) ** 2)) for one in (tf32.product(weights, b, adder), plain))
        assert off <= 1.1 * off_plain


def test_short_and_low_products_are_not_worth_it():
    assert not tf32.worth_it(tf32.LEAST_ROWS, tf32.LEAST_DEPTH - 1)
    assert not tf32.worth_it(tf32.LEAST_ROWS - 1, tf32.LEAST_DEPTH)
