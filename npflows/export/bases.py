"""Base distributions as graphs: the log-density (1,) of z (dim,), and z from standard normal numbers."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from npflows.export import graph as g
from npflows.export.errors import NotExportableError
from npflows.export.graph import Value

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@singledispatch
def log_prob(operation: Any, theta: NDArray, z: Value) -> Value:
    """The log-density, a number."""
    name = getattr(operation, "name", type(operation).__name__)
    raise NotExportableError(f"a base distribution {name} can't be exported: there are compiled kernels alone, no formula")


@singledispatch
def drawn(operation: Any, theta: NDArray, normals: Value) -> Value:
    """A sample z (dim,) from standard normal numbers (dim,)."""
    raise NotExportableError(
        f"samples of {type(operation).__name__} are no formula of standard normal numbers: draw z with "
        f"flow.base.sample, and use the inverse"
    )


@log_prob.register
@drawn.register
def _(operation: ConditionalGaussianMixture, *_: Any) -> Value:
    raise NotExportableError(
        "a base distribution ConditionalGaussianMixture can't be exported: files have no base with a network; export "
        "'forward' or 'inverse'"
    )


@log_prob.register
def _(operation: Normal, theta: NDArray, z: Value) -> Value:
    loc, log_scale = _loc_and_log_scale(operation, theta)
    q = (z - loc) * np.exp(-log_scale)
    return g.total(-0.5 * q * q - (log_scale + HALF_LOG_2PI))


@drawn.register
def _(operation: Normal, theta: NDArray, normals: Value) -> Value:
    loc, log_scale = _loc_and_log_scale(operation, theta)
    return loc + np.exp(log_scale) * normals


def _loc_and_log_scale(operation: Normal, theta: NDArray) -> tuple[NDArray, NDArray]:
    params = operation.views(theta)
    return params["loc"], params["log_scale"] if operation.learnable else np.log(params["scale"])


@log_prob.register
def _(operation: StudentT, theta: NDArray, z: Value) -> Value:
    """log G((v + 1) / 2) - log G(v / 2) - log(pi v) / 2 - (v + 1) / 2 log(1 + z^2 / v)."""
    v = np.exp(np.clip(theta, *operation.log_df_bounds))
    constant = np.array([_log_gamma_ratio(one) for one in v]) - 0.5 * np.log(math.pi * v)
    return g.total(constant - 0.5 * (v + 1.0) * g.log1p(z * z / v))


def _log_gamma_ratio(v: float) -> float:
    """log G((v + 1) / 2) - log G(v / 2), by its series where the two would cancel."""
    if v > 1e3:
        return 0.5 * math.log(0.5 * v) - 0.25 / v + 1 / (24 * v * v * v)
    return math.lgamma(0.5 * (v + 1)) - math.lgamma(0.5 * v)


@log_prob.register
def _(operation: Uniform, theta: NDArray, z: Value) -> Value:
    low, high = operation.views(theta).values()
    return g.total(g.where((z >= low) & (z <= high), -np.log(high - low), -np.inf))


@drawn.register
def _(operation: Uniform, theta: NDArray, normals: Value) -> Value:
    low, high = operation.views(theta).values()
    return low + (high - low) * g.normal_cdf(normals)


@log_prob.register
def _(operation: Cylinder, theta: NDArray, z: Value) -> Value:
    circular = np.array(operation.circular)
    return g.total(g.where(circular, 0.0 * z - math.log(2.0 * theta[0]), -0.5 * z * z - HALF_LOG_2PI))


@drawn.register
def _(operation: Cylinder, theta: NDArray, normals: Value) -> Value:
    circles, n = np.flatnonzero(operation.circular), operation.dim
    lines = np.flatnonzero(np.logical_not(operation.circular))
    turned = theta[0] * (2.0 * g.normal_cdf(g.take(normals, circles)) - 1.0)
    return g.place(g.concat([g.take(normals, lines), turned]), [*lines, *circles], n) if len(lines) else turned


@log_prob.register
def _(operation: Beta, theta: NDArray, z: Value) -> Value:
    q = z / theta[0]
    inside = (q < 1.0) & (q > -1.0)
    within = g.where(inside, (1.0 - q) * (1.0 + q), 1.0)
    constant = operation.log_constant - math.log(theta[0])
    return g.total(g.where(inside, constant + (operation.shape - 1) * g.log(within), -np.inf))


@log_prob.register(Laplace)
@log_prob.register(Cauchy)
@log_prob.register(Logistic)
def _(operation: Laplace | Cauchy | Logistic, theta: NDArray, z: Value) -> Value:
    loc, log_scale = operation.views(theta).values()
    size = g.absolute((z - loc) * np.exp(-log_scale))
    if isinstance(operation, Laplace):
        each = -size - math.log(2)
    elif isinstance(operation, Logistic):
        each = -size - 2.0 * g.softplus(-size)
    else:
        near = g.minimum(size, 1e10)  # from there on 1 + q^2 is q^2
        each = -math.log(math.pi) - g.where(size > 1e10, 2.0 * g.log(g.maximum(size, 1.0)), g.log1p(near * near))
    return g.total(each - log_scale)


@drawn.register(Laplace)
@drawn.register(Cauchy)
@drawn.register(Logistic)
def _(operation: Laplace | Cauchy | Logistic, theta: NDArray, normals: Value) -> Value:
    """The quantile of the normal number's probability, from the nearer tail."""
    loc, log_scale = operation.views(theta).values()
    p = g.normal_cdf(-g.absolute(normals))
    if isinstance(operation, Laplace):
        size = -g.log(2.0 * p)
    elif isinstance(operation, Logistic):
        size = g.log1p(-p) - g.log(p)
    else:
        size = g.cos(math.pi * p) / g.sin(math.pi * p)
    return loc + np.exp(log_scale) * g.sign(normals) * size


@log_prob.register
def _(operation: GaussianMixture, theta: NDArray, z: Value) -> Value:
    logits, loc, log_scale = operation.views(theta).values()
    constants = logits - np.logaddexp.reduce(logits) - (log_scale + HALF_LOG_2PI).sum(axis=1)
    q = (g.reshape(z, (1, operation.dim)) - loc) * np.exp(-log_scale)
    terms = constants - 0.5 * g.reshape(g.total(q * q), (operation.n_components,))
    top = g.highest(terms)
    top = g.where(top > -np.inf, top, 0.0)
    return g.log(g.total(g.exp(terms - top))) + top
