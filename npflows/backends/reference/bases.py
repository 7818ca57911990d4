"""Base distributions: the log-density of z (n, dim), and its gradient."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.backends.reference.common import softplus
from npflows.core.operations import (
    Beta,
    Cauchy,
    ConditionalGaussianMixture,
    Cylinder,
    GaussianMixture,
    Laplace,
    Logistic,
    Normal,
    StudentT,
    Uniform,
)

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
SMALLEST, LARGEST = StudentT.log_df_bounds


class BaseGradients(NamedTuple):
    """Gradients of a scalar with respect to z (n, dim) and to the parameters, which is 0 for those that are fixed; or to
    what a network gave instead of them (n, n_out)."""

    z: NDArray
    theta: NDArray


@singledispatch
def log_prob(operation: Any, theta: NDArray, z: NDArray) -> NDArray:
    """The log-density (n,); theta is what a network gave for each sample (n, n_out) where the operation has one."""
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


@log_prob.register
def _(operation: Beta, theta: NDArray, z: NDArray) -> NDArray:
    """log_constant - log bound + (shape - 1) log(1 - (z / bound)^2) between the bounds, -inf outside."""
    q = z / theta[0]
    inside = np.abs(q) < 1
    within = operation.log_constant - np.log(theta[0]) + (operation.shape - 1) * np.log1p(-(np.where(inside, q, 0.0) ** 2))
    return np.where(np.isnan(q), np.nan, np.where(inside, within, -np.inf)).sum(axis=1)


@log_prob_vjp.register
def _(operation: Beta, theta: NDArray, z: NDArray, dlog_prob: NDArray) -> BaseGradients:
    """dz = -2 (shape - 1) z / (bound^2 - z^2), 0 outside."""
    inside = np.abs(z) < theta[0]
    slope = -2 * (operation.shape - 1) * z / np.where(inside, theta[0] ** 2 - z**2, 1.0)
    return BaseGradients(np.where(inside, dlog_prob[:, None] * slope, 0.0), np.zeros_like(theta))


@log_prob.register(Laplace)
@log_prob.register(Cauchy)
@log_prob.register(Logistic)
def _(operation: Laplace | Cauchy | Logistic, theta: NDArray, z: NDArray) -> NDArray:
    """log f(q) - log scale with q = (z - loc) / scale: f(q) = exp(-|q|) / 2, 1 / (pi (1 + q^2)) or
    exp(-|q|) / (1 + exp(-|q|))^2."""
    loc, log_scale = operation.views(theta).values()
    size = np.abs((z - loc) * np.exp(-log_scale))
    if isinstance(operation, Laplace):
        each = -size - math.log(2)
    elif isinstance(operation, Cauchy):
        each = -math.log(math.pi) - 2 * np.log(np.hypot(1.0, size))
    else:
        each = -size - 2 * softplus(-size)
    return (each - log_scale).sum(axis=1)


@log_prob_vjp.register(Laplace)
@log_prob_vjp.register(Cauchy)
@log_prob_vjp.register(Logistic)
def _(operation: Laplace | Cauchy | Logistic, theta: NDArray, z: NDArray, dlog_prob: NDArray) -> BaseGradients:
    """With the derivative g of log f, -sign q, -2 q / (1 + q^2) or -tanh(q / 2):  dz = g / scale,  dloc = -g / scale,
    dlog scale = -q g - 1."""
    loc, log_scale = operation.views(theta).values()
    q = (z - loc) * np.exp(-log_scale)
    if isinstance(operation, Laplace):
        g = -np.sign(q)
    elif isinstance(operation, Cauchy):
        g = -2 * q / (1 + q * q)
    else:
        g = -np.tanh(0.5 * q)
    slope = dlog_prob[:, None] * g * np.exp(-log_scale)
    return BaseGradients(slope, np.concatenate([-slope.sum(axis=0), dlog_prob @ (-q * g - 1.0)]))


def _numbers(operation: GaussianMixture | ConditionalGaussianMixture, theta: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Logits (..., k), locations and logarithms of scales (..., k, d), from all numbers in one row (...)."""
    n, dim = operation.n_components, operation.dim
    logits, loc, log_scale = np.split(theta, [n, n + n * dim], axis=-1)
    shape = (*theta.shape[:-1], n, dim)
    return logits, loc.reshape(shape), log_scale.reshape(shape)


def _terms(
    operation: GaussianMixture | ConditionalGaussianMixture, theta: NDArray, z: NDArray
) -> tuple[NDArray, NDArray, NDArray]:
    """log w_k N(z; loc_k, scale_k) (n, k), q = (z - loc) / scale (n, k, d), and w (k,) or (n, k)."""
    logits, loc, log_scale = _numbers(operation, theta)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights = weights / weights.sum(axis=-1, keepdims=True)
    q = (z[:, None, :] - loc) * np.exp(-log_scale)
    return np.log(weights) + (-0.5 * q * q - log_scale - HALF_LOG_2PI).sum(axis=2), q, weights


@log_prob.register(GaussianMixture)
@log_prob.register(ConditionalGaussianMixture)
def _(operation: GaussianMixture | ConditionalGaussianMixture, theta: NDArray, z: NDArray) -> NDArray:
    """log sum_k w_k N(z; loc_k, scale_k) with w = softmax(logits)."""
    return np.logaddexp.reduce(_terms(operation, theta, z)[0], axis=1)


@log_prob_vjp.register(GaussianMixture)
@log_prob_vjp.register(ConditionalGaussianMixture)
def _(
    operation: GaussianMixture | ConditionalGaussianMixture, theta: NDArray, z: NDArray, dlog_prob: NDArray
) -> BaseGradients:
    """With the share r_k of component k in the density:  dz = -sum_k r_k q_k / scale_k,  dloc_k = r_k q_k / scale_k,
    dlog scale_k = r_k (q_k^2 - 1),  dlogits = r - w; of each sample, or their sums."""
    terms, q, weights = _terms(operation, theta, z)
    inverse = np.exp(-_numbers(operation, theta)[2])
    shares = dlog_prob[:, None] * np.exp(terms - np.logaddexp.reduce(terms, axis=1)[:, None])
    slope = shares[:, :, None] * q * inverse
    parts = shares - weights * dlog_prob[:, None], slope, shares[:, :, None] * (q * q - 1.0)
    each = np.concatenate([part.reshape(len(z), -1) for part in parts], axis=1)
    return BaseGradients(-slope.sum(axis=1), each.sum(axis=0) if theta.ndim == 1 else each)
