"""Slow, obvious NumPy twins of the spline layers, the linear layer; importing this registers them."""

import numpy as np
from naive import dependence, forward, inverse, mlp

from npflows import LULinear, Rotation, SplineAutoregressiveLayer, SplineCouplingLayer, SplineLayer


def knots(raw, bound, least):
    """Knots from raw widths or heights of one value."""
    share = np.exp(raw - raw.max()) / np.exp(raw - raw.max()).sum()
    sizes = 2 * bound * (least + (1 - len(raw) * least) * share)
    return np.concatenate([[-bound], -bound + np.cumsum(sizes)])


def spline(layer, x, raw, circular=False):
    """Equations 4 to 8 of arXiv:1906.04032 for one value: y and log dy/dx."""
    k, bound = layer.num_bins, layer.tail_bound
    if not -bound < x < bound:
        return x, 0.0
    left, right = knots(raw[:k], bound, layer.min_bin_width), knots(raw[k : 2 * k], bound, layer.min_bin_height)
    shift = np.log(np.expm1(1 - layer.min_derivative))
    slopes = layer.min_derivative + np.logaddexp(0, raw[2 * k :] + shift)
    slopes = np.append(slopes[:k], slopes[0]) if circular else np.concatenate([[1.0], slopes[: k - 1], [1.0]])
    i = min(max(np.searchsorted(left, x, side="right") - 1, 0), k - 1)
    w, h = left[i + 1] - left[i], right[i + 1] - right[i]
    xi, s, d0, d1 = (x - left[i]) / w, h / w, slopes[i], slopes[i + 1]
    below = s + (d0 + d1 - 2 * s) * xi * (1 - xi)
    y = right[i] + h * (s * xi**2 + d0 * xi * (1 - xi)) / below
    slope = s**2 * (d1 * xi**2 + 2 * s * xi * (1 - xi) + d0 * (1 - xi) ** 2) / below**2
    return y, np.log(slope)


def spline_inverse(layer, y, raw, circular=False):
    """By bisection: x and log dx/dy."""
    low, high = -layer.tail_bound, layer.tail_bound
    if not low < y < high:
        return y, 0.0
    for _ in range(70):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if spline(layer, middle, raw, circular)[0] < y else (low, middle)
    return low, -spline(layer, low, raw, circular)[1]


def _circular(layer):
    """Which values of a layer are on circles."""
    return np.zeros(layer.input_dim, bool) if layer.circular is None else layer.circular


def _each(step, layer, x, raw, circular):
    """A scalar map at every entry of x (n, d) with its own raw parameters (n, d, 3 K - 1, or 3 K with circles)."""
    results = np.array([[step(layer, *values) for values in zip(*rows, circular)] for rows in zip(x, raw)])
    results = results.reshape(*x.shape, 2)
    return results[..., 0], results[..., 1].sum(1)


def _raw(layer, inputs, condition):
    raw = mlp(layer.named_params(), inputs, condition, layer.activation, residual_blocks=layer.residual_blocks)
    return raw.reshape(len(inputs), -1, 3 * layer.num_bins - (0 if layer._transformer.circular.any() else 1))


def _coupled(step, layer, x, condition):
    moved, y, circular = layer.mask == 0, x.copy(), _circular(layer)
    angle = np.pi * x[:, ~moved & circular] / layer.tail_bound
    seen = np.concatenate([x[:, ~moved & ~circular], np.cos(angle), np.sin(angle)], axis=1)
    y[:, moved], log_det = _each(step, layer, x[:, moved], _raw(layer, seen, condition), circular[moved])
    return y, log_det


@forward.register
def _(layer: SplineCouplingLayer, x, condition=None):
    return _coupled(spline, layer, x, condition)


@inverse.register
def _(layer: SplineCouplingLayer, y, condition=None):
    return _coupled(spline_inverse, layer, y, condition)


@forward.register
def _(layer: SplineAutoregressiveLayer, x, condition=None):
    y = np.empty_like(x)
    y[:, layer.order], log_det = _each(
        spline, layer, x[:, layer.order], _raw(layer, x[:, layer.order], condition), _circular(layer)
    )
    return y, log_det


@inverse.register
def _(layer: SplineAutoregressiveLayer, y, condition=None):
    x, log_det = np.zeros_like(y), None
    for _ in range(layer.input_dim):
        raw = _raw(layer, x[:, layer.order], condition)
        x[:, layer.order], log_det = _each(spline_inverse, layer, y[:, layer.order], raw, _circular(layer))
    return x, log_det


def _own(step, layer, x):
    raw = layer.named_params()["raw"].astype(np.float64)
    return _each(step, layer, x, np.broadcast_to(raw, (len(x), *raw.shape)), _circular(layer))


@forward.register
def _(layer: SplineLayer, x, condition=None):
    return _own(spline, layer, x)


@inverse.register
def _(layer: SplineLayer, y, condition=None):
    return _own(spline_inverse, layer, y)


def _matrix(layer):
    """L U P, the shift and log |det|."""
    packed = layer.named_params()["matrix"].astype(np.float64)
    lower = np.tril(packed, -1) + np.eye(layer.input_dim)
    upper = np.triu(packed, 1) + np.diag(np.exp(np.diag(packed)))
    return (lower @ upper)[:, np.argsort(layer.order)], layer.named_params()["shift"], np.trace(packed)


@forward.register
def _(layer: LULinear, x, condition=None):
    matrix, shift, log_det = _matrix(layer)
    return x @ matrix.T + shift, np.full(len(x), log_det)


@inverse.register
def _(layer: LULinear, y, condition=None):
    matrix, shift, log_det = _matrix(layer)
    return (y - shift) @ np.linalg.inv(matrix).T, np.full(len(y), -log_det)


def _rotated(layer, x, sign):
    y, b = np.array(x, float), layer.bound
    y[:, layer.circular] = (x[:, layer.circular] + sign * layer.named_params()["angles"] + b) % (2 * b) - b
    return y, np.zeros(len(x))


@forward.register
def _(layer: Rotation, x, condition=None):
    return _rotated(layer, x, 1)


@inverse.register
def _(layer: Rotation, y, condition=None):
    return _rotated(layer, y, -1)


@dependence.register
def _(layer: SplineCouplingLayer, direction="forward"):
    return np.eye(layer.input_dim, dtype=bool) | np.outer(layer.mask == 0, layer.mask == 1)


@dependence.register
def _(layer: SplineAutoregressiveLayer, direction="forward"):
    place = np.argsort(layer.order)
    return place[:, None] >= place


@dependence.register(SplineLayer)
@dependence.register(Rotation)
def _(layer, direction="forward"):
    return np.eye(layer.input_dim, dtype=bool)


@dependence.register
def _(layer: LULinear, direction="forward"):
    return np.ones((layer.input_dim, layer.input_dim), bool)
