"""Bases q scale + loc with one density for each q, Laplace, Cauchy or logistic: their log-density and gradient."""

from __future__ import annotations

import math

import numpy as np

from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.link import KERNELS, BaseKernels
from npflows.core import operations

DENSITIES = (operations.Laplace, operations.Cauchy, operations.Logistic)
LAPLACE, CAUCHY, LOGISTIC = range(3)
LOG_2, LOG_PI = math.log(2), math.log(math.pi)
FAR = 1e10
"""From here on 1 + q^2 is q^2 to the last bit, and q^2 may overflow."""


@inlined
def log_density(density, q):
    """The log-density of a q in float64; NaN stays NaN."""
    size = abs(q)
    if density == LAPLACE:
        return -size - LOG_2
    if density == LOGISTIC:
        return -size - 2.0 * vecmath.softplus(-size)
    if size > FAR:
        return -LOG_PI - 2.0 * math.log(size)
    return -LOG_PI - vecmath.log1p(size * size)


@inlined
def slopes(density, q, one):
    """The derivatives f of the log-density of q, and of that of (z - loc) / scale with respect to log(scale): -q f - 1."""
    if density == LAPLACE:
        size = abs(q)
        return (-q / size if q != one - one else one - one), size - one
    if density == LOGISTIC:
        t = vecmath.tanh(q / (one + one))
        return -t, q * t - one
    share = one / (one + q * q)
    return -(q + q) * share, one - share - share


@kernel
def log_prob(spec, theta, z, log_prob):
    """log p = log f((z - loc) / scale) - log(scale)."""
    n = z.shape[0]
    for d in range(n):
        loc, log_scale = np.float64(theta[d]), np.float64(theta[n + d])
        inverse = np.exp(-log_scale)
        for t in range(z.shape[1]):
            log_prob[t] += log_density(spec[0], (np.float64(z[d, t]) - loc) * inverse) - log_scale


@kernel(reassociate=True)
def log_prob_vjp(spec, theta, z, dlog_prob, dtheta):
    """dz = dlog_prob f / scale = -dloc."""
    n, one = z.shape[0], z.dtype.type(1)
    for d in range(n):
        loc, inverse = theta[d], vecmath.exp(-theta[n + d])
        dloc, dlog_scale = z.dtype.type(0), z.dtype.type(0)
        for t in range(z.shape[1]):
            f, growth = slopes(spec[0], (z[d, t] - loc) * inverse, one)
            slope = dlog_prob[t] * f * inverse
            dloc -= slope
            dlog_scale += dlog_prob[t] * growth
            z[d, t] = slope
        if dtheta.size > 0:
            dtheta[d] += dloc
            dtheta[n + d] += dlog_scale


for _density in DENSITIES:
    KERNELS[_density] = BaseKernels(
        lambda operation: (log_prob, log_prob_vjp), lambda operation, link: [DENSITIES.index(type(operation))]
    )
