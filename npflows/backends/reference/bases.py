"""Base distributions: the log-density of z (n, dim), and its gradient."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.core.operations import Cylinder, Normal, StudentT, Uniform

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
SMALLEST, LARGEST = StudentT.log_df_bounds


class BaseGradients(NamedTuple):
    """Gradients of a scalar with respect to z (n, dim) and to the parameters, which is 0 for those that are fixed."""

    z: NDArray
    theta: NDArray


@singledispatch
def log_prob(operation: Any, theta: NDArray, z: NDArray) -> NDArray:
    """The log-density (n,)."""
    raise NotImplementedError(f"the reference backend has no base distribution {type(operation).__name__}")


@singledispatch
def log_prob_vjp(operation: Any, theta: NDArray, z: NDArray, dlog_prob: NDArray) -> BaseGradients:
    """Gradients of a scalar from that with respect to the log-density (n,)."""
    raise NotImplementedError(f"the reference backend has no base distribution {type(operation).__name__}")


@log_prob.register
def _(operation: Normal, theta: NDArray, z: NDArray) -> NDArray:
    """-(z - loc)^2 / (2 scale^2) - log scale - log(2 pi) / 2."""
    loc, log_scale = _loc_and_log_scale(operation, theta)
    q = (z - loc) * np.exp(-log_scale)
    return (-0.5 * q * q - log_scale - HALF_LOG_2PI).sum(axis=1)


@log_prob_vjp.register
def _(operation: Normal, theta: NDArray, z: NDArray, dlog_prob: NDArray) -> BaseGradients:
    """With q = (z - loc) / scale:  dz = -q / scale,  dloc = q / scale,  dlog scale = q^2 - 1."""
    loc, log_scale = _loc_and_log_scale(operation, theta)
    q = (z - loc) * np.exp(-log_scale)
    slope = dlog_prob[:, None] * q * np.exp(-log_scale)
    if not operation.learnable:
        return BaseGradients(-slope, np.zeros_like(theta))
    dlog_scale = dlog_prob @ (q * q - 1.0)
    return BaseGradients(-slope, np.concatenate([slope.sum(axis=0), dlog_scale]))


def _loc_and_log_scale(operation: Normal, theta: NDArray) -> tuple[NDArray, NDArray]:
    params = operation.views(theta)
    return params["loc"], params["log_scale"] if operation.learnable else np.log(params["scale"])


@log_prob.register
def _(operation: StudentT, theta: NDArray, z: NDArray) -> NDArray:
    """log G((v + 1) / 2) - log G(v / 2) - log(pi v) / 2 - (v + 1) / 2 log(1 + z^2 / v) for v degrees of freedom
    (Jaini et al. 2020, arXiv:1907.04481)."""
    v = np.exp(np.clip(theta, SMALLEST, LARGEST))
    constant = np.array([log_gamma_ratio(one) for one in v]) - 0.5 * np.log(math.pi * v)
    return (constant - 0.5 * (v + 1.0) * np.log1p(z * z / v)).sum(axis=1)


@log_prob_vjp.register
def _(operation: StudentT, theta: NDArray, z: NDArray, dlog_prob: NDArray) -> BaseGradients:
    """dz = -(v + 1) z / (v + z^2),  dv = (psi((v + 1) / 2) - psi(v / 2) - 1 / v) / 2 - log(1 + z^2 / v) / 2
    + (v + 1) / (2 v) z^2 / (v + z^2), and d log v = v dv; 0 for degrees of freedom at a bound."""
    v = np.exp(np.clip(theta, SMALLEST, LARGEST))
    constant = np.array([0.5 * (digamma(0.5 * (one + 1.0)) - digamma(0.5 * one) - 1.0 / one) for one in v])
    ratio = z * z / v
    dv = dlog_prob @ (constant - 0.5 * np.log1p(ratio) + 0.5 * (v + 1.0) / v * ratio / (1.0 + ratio))
    dz = -dlog_prob[:, None] * (v + 1.0) * z / (v + z * z)
    return BaseGradients(dz, np.where((theta > SMALLEST) & (theta < LARGEST), v * dv, 0.0))


def log_gamma_ratio(v: float) -> float:
    """log G((v + 1) / 2) - log G(v / 2), by its series where the two would cancel."""
    if v > 1e3:
        return 0.5 * math.log(0.5 * v) - 0.25 / v + 1 / (24 * v * v * v)
    return math.lgamma(0.5 * (v + 1)) - math.lgamma(0.5 * v)


def digamma(x: float) -> float:
    """The derivative of log G(x) for x > 0: psi(x) = psi(x + 1) - 1 / x, then the asymptotic series (Abramowitz and Stegun
    1964, 6.3.5 and 6.3.18)."""
    total = 0.0
    while x < 10.0:
        total -= 1.0 / x
        x += 1.0
    y = 1.0 / (x * x)
    series = y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y * (1 / 240 - y * (1 / 132)))))
    return total + math.log(x) - 0.5 / x - series


@log_prob.register
def _(operation: Uniform, theta: NDArray, z: NDArray) -> NDArray:
    """-log(high - low) between the bounds, -inf outside."""
    low, high = operation.views(theta).values()
    each = np.where((low <= z) & (z <= high), -np.log(high - low), -np.inf)
    return np.where(np.isnan(z), np.nan, each).sum(axis=1)


@log_prob_vjp.register
def _(operation: Uniform, theta: NDArray, z: NDArray, dlog_prob: NDArray) -> BaseGradients:
    return BaseGradients(np.zeros_like(z), np.zeros_like(theta))


@log_prob.register
def _(operation: Cylinder, theta: NDArray, z: NDArray) -> NDArray:
    """-z^2 / 2 - log(2 pi) / 2 on the line, -log(2 bound) on a circle."""
    on_circle = 0.0 * z - math.log(2.0 * theta[0])
    return np.where(operation.circular, on_circle, -0.5 * z * z - HALF_LOG_2PI).sum(axis=1)


@log_prob_vjp.register
def _(operation: Cylinder, theta: NDArray, z: NDArray, dlog_prob: NDArray) -> BaseGradients:
    """dz = -z on the line, 0 on a circle."""
    return BaseGradients(np.where(operation.circular, 0.0, -dlog_prob[:, None] * z), np.zeros_like(theta))
