"""Splines that the tests share: raw parameters of every kind, and the paper's formula."""

import numpy as np
import pytest
from scipy.optimize import bisect

from npflows import RationalQuadraticSplineTransform, SplineLayer
from npflows.layers.elementwise import Elementwise
from npflows.transformers.scalar_maps import spline

BINS, BOUND = 6, 2.5
LEAST = {"min_bin_width": 1e-3, "min_bin_height": 2e-3, "min_derivative": 5e-4}
TRANSFORM = RationalQuadraticSplineTransform(BINS, BOUND, **LEAST)
SLACK = {dtype: 20 * np.finfo(dtype).eps * BOUND for dtype in ("float32", "float64")}  # what rounding may do to x and y
OTHER = {"forward": "inverse", "inverse": "forward"}


def softmax(values):
    """Shares of the last axis.  SciPy's subtracts the logarithm of the sum before 1.9, and loses digits of huge values."""
    shares = np.exp(values - values.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def raw_parameters(kind, n=10):
    """Raw parameters (n, 3 K - 1) of n splines."""
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(n, 3 * BINS - 1))
    if kind == "strong":
        raw *= 4
    elif kind == "extreme":  # bins at the least size or next to the whole interval, slopes at the least or 30
        raw = rng.choice([-30.0, 0.0, 30.0], raw.shape)
    elif kind == "huge":  # exp of them overflows
        raw[:, : 2 * BINS] = rng.choice([-1e4, 0.0, 1e4], (n, 2 * BINS))
    elif kind == "flat":
        raw[:, 2 * BINS :] = -30
    elif kind == "steep":
        raw[:, 2 * BINS :] = 30
    elif kind == "one bin":
        raw[:] = rng.choice([-30.0, 30.0], raw.shape)
        raw[:, : 2 * BINS] = 0
        raw[np.arange(n), rng.integers(0, BINS, n)] = 30
        raw[np.arange(n), BINS + rng.integers(0, BINS, n)] = 30
    return raw


KINDS = ("random", "strong", "extreme", "huge", "flat", "steep", "one bin")
for_every_kind = pytest.mark.parametrize("kind", KINDS)


def layer_of(raw, dtype="float64", circular=False, least=LEAST):
    """One column through the spline of these raw parameters."""
    if circular:
        layer = Elementwise(1, spline(BINS, BOUND, **least, circular=True), dtype)
    else:
        layer = SplineLayer(1, BINS, BOUND, **least, dtype=dtype)
    layer.params = raw
    return layer


def parameters_of(raw):
    """Widths, heights and derivatives for `TRANSFORM`, from raw parameters (n, 3 K - 1)."""
    raw = raw[:, None]
    return TRANSFORM.constrain_parameters(raw[..., :BINS], raw[..., BINS : 2 * BINS], raw[..., 2 * BINS :])


def knots_of(raw, least=LEAST):
    """Knots in x and in y (K + 1,)."""
    left, right = (
        np.cumsum([-1.0, *(2 * (smallest + (1 - BINS * smallest) * softmax(part)))]) * BOUND
        for part, smallest in ((raw[:BINS], least["min_bin_width"]), (raw[BINS : 2 * BINS], least["min_bin_height"]))
    )
    return left, right


def slopes_of(raw):
    """Slopes at the inner knots, or, on a circle, at all but the last."""
    least = LEAST["min_derivative"]
    return least + np.logaddexp(0, raw[2 * BINS :] + np.log(np.expm1(1 - least)))


def difficult(knots, dtype, n=500):
    """A grid, the knots and the ends with the numbers on each side of them: (n, 1), in order and in [-B, B]."""
    bound = np.array(knots[-1], dtype)
    special = np.concatenate([knots.astype(dtype), [-bound, bound]])
    up, down = np.nextafter(special, np.inf, dtype=dtype), np.nextafter(special, -np.inf, dtype=dtype)
    x = np.concatenate([np.linspace(-bound, bound, n, dtype=dtype), special, up, down])
    return np.unique(np.clip(x, -bound, bound)).astype(np.float64)[:, None]


def paper(x, left, right, slopes):
    """Equations 4 and 5 of arXiv:1906.04032 for x (n,) in [-B, B], knots and slopes (K + 1,): y and dy/dx."""
    k = np.clip(np.searchsorted(left, x, side="right") - 1, 0, len(left) - 2)
    xi = (x - left[k]) / (left[k + 1] - left[k])
    s = (right[k + 1] - right[k]) / (left[k + 1] - left[k])
    below = s + (slopes[k + 1] + slopes[k] - 2 * s) * xi * (1 - xi)
    y = right[k] + (right[k + 1] - right[k]) * (s * xi**2 + slopes[k] * xi * (1 - xi)) / below
    above = slopes[k + 1] * xi**2 + 2 * s * xi * (1 - xi) + slopes[k] * (1 - xi) ** 2
    return y, s**2 * above / below**2


def formula(x, raw):
    """y and log dy/dx of numbers x by the paper, for one column's raw parameters (3 K - 1,)."""
    inside = np.abs(x) < BOUND
    y, slope = paper(np.clip(x, -BOUND, BOUND), *knots_of(raw), np.array([1.0, *slopes_of(raw), 1.0]))
    return np.where(inside, y, x), np.where(inside, np.log(slope), 0.0)


def root(y, raw):
    """The x that the paper's formula maps to a number y, by bisection, and log dx/dy."""
    x = bisect(lambda x: formula(x, raw)[0] - y, -BOUND, BOUND, xtol=1e-15, rtol=1e-15) if abs(y) < BOUND else y
    return x, -formula(x, raw)[1]


def assert_between(y, function, x, slack):
    """y = function(x), increasing, for some x and y that are wrong by no more than the slack."""
    low, high = function(x - slack) - slack, function(x + slack) + slack
    assert (y >= low).all(), f"too low by up to {(low - y).max():g}"
    assert (y <= high).all(), f"too high by up to {(y - high).max():g}"
