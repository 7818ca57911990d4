"""The spline on a circle: value and slope meet at the seam."""

import functools

import numpy as np
import pytest
from registry import both_directions, both_dtypes
from spline_cases import (
    BINS,
    BOUND,
    LEAST,
    SLACK,
    assert_between,
    difficult,
    for_every_kind,
    knots_of,
    layer_of,
    paper,
    raw_parameters,
    slopes_of,
)


def circular_of(raw, dtype="float64"):
    """A circular spline and its knots and slopes (K + 1,): the last slope is the first again."""
    slopes = slopes_of(raw)
    return layer_of(raw, dtype, circular=True), (*knots_of(raw), np.append(slopes, slopes[0]))


@both_dtypes
@for_every_kind
def test_circular_spline_is_that_of_the_paper_with_a_slope_of_its_own_at_the_seam(kind, dtype):
    slack = SLACK[dtype]
    for seam, raw in zip([-30.0, -3.0, 0.0, 1.0, 30.0], raw_parameters(kind, 5)):
        raw = np.insert(raw, 2 * BINS, seam)
        layer, (left, right, slopes) = circular_of(raw, dtype)
        x = difficult(left, dtype, 50)
        y, log_det = layer.forward(x)
        assert_between(y, functools.partial(around, left, right, slopes), x, slack)
        back, log_det_back = layer.inverse(y)
        assert_between(y, functools.partial(around, left, right, slopes), back, slack)
        assert np.isfinite(log_det_back).all()
        ends = np.array([[-BOUND], [BOUND]])
        at_ends, log_det = layer.forward(ends)
        np.testing.assert_allclose(at_ends, ends, rtol=0, atol=slack * (1 + slopes[0]))
        if dtype == "float64":
            np.testing.assert_allclose(np.exp(log_det), slopes[0], rtol=1e-6)
            np.testing.assert_allclose(np.exp(-layer.inverse(ends)[1]), slopes[0], rtol=1e-6)
            inside = np.linspace(-BOUND, BOUND, 40)[1:-1]
            expected = np.log(paper(inside, left, right, slopes)[1])
            np.testing.assert_allclose(layer.forward(inside[:, None])[1], expected, rtol=1e-8, atol=1e-8)


def around(left, right, slopes, x):
    """y by the paper; beyond the ends it goes on with the slope at the seam, as rounding may lead there."""
    y, _ = paper(np.clip(x, -BOUND, BOUND), left, right, slopes)
    return y + slopes[0] * (x - np.clip(x, -BOUND, BOUND))


@both_directions
def test_circular_zeros_are_the_identity_and_beyond_the_bound_is_too(direction):
    x = np.linspace(-BOUND, BOUND, 101)[:, None]
    y, log_det = getattr(circular_of(np.zeros(3 * BINS))[0], direction)(x)
    np.testing.assert_allclose(y, x, rtol=0, atol=1e-15)
    np.testing.assert_allclose(log_det, 0, atol=1e-14)
    beyond = np.array([[3.0], [-1e30], [np.nextafter(BOUND, 3)]])
    y, log_det = getattr(circular_of(np.random.default_rng(0).normal(size=3 * BINS))[0], direction)(beyond)
    np.testing.assert_array_equal(y, beyond)
    np.testing.assert_array_equal(log_det, 0)


@pytest.mark.nojit
def test_on_a_circle_value_and_slope_meet_at_the_seam():
    """Going round the circle the map is smooth there too: differences across the seam are the slope on it."""
    layer, (_, _, slopes) = circular_of(np.random.default_rng(0).normal(size=3 * BINS))
    step = 1e-6
    y, log_det = layer.forward([[BOUND - step], [BOUND], [-BOUND], [-BOUND + step]])
    np.testing.assert_allclose(y[[1, 2], 0], [BOUND, -BOUND], rtol=1e-15)
    np.testing.assert_allclose([y[1, 0] - y[0, 0], y[3, 0] - y[2, 0]], step * slopes[0], rtol=1e-4)
    np.testing.assert_allclose(np.exp(log_det), slopes[0], rtol=1e-4)
    assert abs(slopes[0] - 1) > 0.05


@pytest.mark.nojit
@both_dtypes
@both_directions
def test_both_ends_teach_the_one_slope_at_the_seam(direction, dtype):
    raw = np.random.default_rng(0).normal(size=3 * BINS)
    layer, (_, _, slopes) = circular_of(raw, dtype)
    sign = 1 if direction == "forward" else -1
    expected = np.zeros(3 * BINS)
    expected[2 * BINS] = (
        sign * (1 - np.exp(LEAST["min_derivative"] - slopes[0])) / slopes[0]
    )  # of log slope, by its raw parameter
    for end in (-BOUND, BOUND):
        gradient = getattr(layer, f"{direction}_vjp")([[end]], [[0.0]], 1.0).params
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1000 * np.finfo(dtype).eps)
