"""Scalar maps of values (n, d), each by itself, with raw parameters (n, d, multiplier) and perhaps learned ones.

`scalar_map` evaluates one and `scalar_map_vjp` carries cotangents back, in either direction.  spline.py has the spline.
"""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.backends.reference.common import sigmoid, softplus
from npflows.core.operations import CLIPS, Additive, Affine

LIMIT = 708.0
"""The largest log-scale: its exponential neither overflows nor vanishes."""
OFFSET = Affine.sigmoid_offset


class MapGradients(NamedTuple):
    """Gradients of a scalar: of the values (n, d), the raw parameters (n, d, multiplier) and the learned ones."""

    x: NDArray
    raw: NDArray
    theta: NDArray


@singledispatch
def scalar_map(
    operation: Any, theta: NDArray, x: NDArray, raw: NDArray, *, inverse: bool = False
) -> tuple[NDArray, NDArray]:  # fmt: skip
    """y (n, d) and log dy/dx (n, d) of x (n, d); of the inverse map where that is asked for."""
    raise NotImplementedError(f"the reference backend has no scalar map {type(operation).__name__}")


@singledispatch
def scalar_map_vjp(
    operation: Any, theta: NDArray, x: NDArray, raw: NDArray, dy: NDArray, dlog: NDArray, *, inverse: bool = False
) -> MapGradients:
    """Gradients of a scalar from those with respect to y and to log dy/dx, both (n, d)."""
    raise NotImplementedError(f"the reference backend has no scalar map {type(operation).__name__}")


@scalar_map.register
def _(operation: Additive, theta: NDArray, x: NDArray, raw: NDArray, *, inverse: bool = False) -> tuple[NDArray, NDArray]:
    """y = x + t (Dinh et al. 2015, arXiv:1410.8516, section 3.2); x = y - t."""
    shift = raw[..., 0]
    return x - shift if inverse else x + shift, np.zeros_like(x)


@scalar_map_vjp.register
def _(
    operation: Additive,
    theta: NDArray,
    x: NDArray,
    raw: NDArray,
    dy: NDArray,
    dlog: NDArray,
    *,
    inverse: bool = False,
) -> MapGradients:
    return MapGradients(dy, (-dy if inverse else dy)[..., None], np.zeros(0))


@scalar_map.register
def _(operation: Affine, theta: NDArray, x: NDArray, raw: NDArray, *, inverse: bool = False) -> tuple[NDArray, NDArray]:
    """y = x exp(s) + t, or y = (x - t) exp(-s) where the shift comes first or the other is inverted."""
    shift, s = raw[..., 0], np.clip(log_scale(operation, theta, raw[..., 1]), -LIMIT, LIMIT)
    if operation.shift_first == inverse:
        return x * np.exp(s) + shift, s
    return (x - shift) * np.exp(-s), -s


@scalar_map_vjp.register
def _(
    operation: Affine,
    theta: NDArray,
    x: NDArray,
    raw: NDArray,
    dy: NDArray,
    dlog: NDArray,
    *,
    inverse: bool = False,
) -> MapGradients:
    """y = x exp(s) + t:  dx = dy exp(s),  dt = dy,  ds = dy x exp(s) + dlog;  y = (x - t) exp(-s):  dx = dy exp(-s),
    dt = -dx,  ds = -dx (x - t) - dlog.  A log-scale that is clamped has no gradient."""
    shift, free = raw[..., 0], log_scale(operation, theta, raw[..., 1])
    s = np.clip(free, -LIMIT, LIMIT)
    if operation.shift_first == inverse:
        dx, dshift = dy * np.exp(s), dy
        ds = dx * x + dlog
    else:
        dx = dy * np.exp(-s)
        dshift, ds = -dx, -dx * (x - shift) - dlog
    ds = np.where(np.abs(free) < LIMIT, ds, 0.0)
    dr, dtheta = log_scale_vjp(operation, theta, raw[..., 1], ds)
    return MapGradients(dx, np.stack([dshift, dr], axis=-1), dtheta)


def log_scale(operation: Affine, theta: NDArray, r: NDArray) -> NDArray:
    """s (n, d) from the raw r: r, tanh r, gain tanh r, log(sigmoid(r + 2) + least), log(softplus(r) + least), or r clipped
    at -log(least)."""
    if operation.scale_activation == "none":
        return r
    if operation.scale_activation == "sigmoid" and not operation.least:
        return -softplus(-(r + OFFSET))
    if operation.scale_activation in ("sigmoid", "softplus"):
        scale = softplus(r) if operation.scale_activation == "softplus" else sigmoid(r + OFFSET)
        return np.minimum(np.log(scale + operation.least), math.log(operation.most))
    if operation.scale_activation in CLIPS:
        return clip(operation, r)
    return _gains(operation, theta, r.shape[1]) * np.tanh(r)


def log_scale_vjp(operation: Affine, theta: NDArray, r: NDArray, ds: NDArray) -> tuple[NDArray, NDArray]:
    """Gradients with respect to r (n, d) and the learned gains.

    d log(sigmoid(u) + least) / du = sigmoid(u) sigmoid(-u) / (sigmoid(u) + least),  d log(softplus(r) + least) / dr =
    sigmoid(r) / (softplus(r) + least),  d tanh r / dr = 1 - tanh(r)^2.
    """
    if operation.scale_activation == "none":
        return ds, np.zeros(0)
    if operation.scale_activation in ("sigmoid", "softplus"):
        ds = np.where(log_scale(operation, theta, r) < math.log(operation.most), ds, 0.0)
    if operation.scale_activation == "sigmoid":
        share = sigmoid(r + OFFSET) / (sigmoid(r + OFFSET) + operation.least) if operation.least else 1.0
        return ds * sigmoid(-(r + OFFSET)) * share, np.zeros(0)
    if operation.scale_activation == "softplus":
        return ds * sigmoid(r) / (softplus(r) + operation.least), np.zeros(0)
    if operation.scale_activation in CLIPS:
        return ds * clip_derivative(operation, r), np.zeros(0)
    t, dgains = np.tanh(r), np.zeros_like(theta)
    if operation.scale_activation == "tanh_gain":
        np.add.at(dgains, np.arange(r.shape[1]) % len(theta), (ds * t).sum(axis=0))
    return ds * _gains(operation, theta, r.shape[1]) * (1.0 - t * t), dgains


def clip(operation: Affine, r: NDArray) -> NDArray:
    """With b = -log(least): r / (1 + |r| / b), r between -b and log(most), b tanh r, b (2 sigmoid(r) - 1) or
    0.636 b arctan r."""
    bound = -math.log(operation.least)
    if operation.scale_activation == "soft_clip":
        return soft_clip(r, bound)
    if operation.scale_activation == "hard_clip":
        return np.clip(r, -bound, math.log(operation.most))
    if operation.scale_activation == "tanh_clip":
        return bound * np.tanh(r)
    if operation.scale_activation == "sigmoid_clip":
        return bound * (2 * sigmoid(r) - 1)
    return operation.atan_factor * bound * np.arctan(r)


def clip_derivative(operation: Affine, r: NDArray) -> NDArray:
    """1 / (1 + |r| / b)^2, 1 within the bounds and 0 outside, b (1 - tanh(r)^2), 2 b sigmoid(r) sigmoid(-r) or
    0.636 b / (1 + r^2)."""
    bound = -math.log(operation.least)
    if operation.scale_activation == "soft_clip":
        return soft_clip_derivative(r, bound)
    if operation.scale_activation == "hard_clip":
        return np.where((-bound < r) & (r < math.log(operation.most)), 1.0, 0.0)
    if operation.scale_activation == "tanh_clip":
        return bound * (1.0 - np.tanh(r) ** 2)
    if operation.scale_activation == "sigmoid_clip":
        return 2 * bound * sigmoid(r) * sigmoid(-r)
    return operation.atan_factor * bound / (1.0 + r * r)


def soft_clip(r: NDArray, bound: float) -> NDArray:
    """r / (1 + |r| / bound)."""
    return r / (1.0 + np.abs(r) / bound)


def soft_clip_derivative(r: NDArray, bound: float) -> NDArray:
    """1 / (1 + |r| / bound)^2."""
    return 1.0 / (1.0 + np.abs(r) / bound) ** 2


def _gains(operation: Affine, theta: NDArray, d: int) -> NDArray:
    """The gain of each of d values, which take the learned ones in turn; 1 where there are none."""
    return theta[np.arange(d) % len(theta)] if operation.scale_activation == "tanh_gain" else np.ones(d)
