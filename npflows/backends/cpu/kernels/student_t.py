"""Student's t as base distribution, for heavy tails (Jaini et al. 2020, arXiv:1907.04481): its log-density and gradient."""

from __future__ import annotations

import math

import numpy as np

from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.link import KERNELS, BaseKernels
from npflows.core import operations

SMALLEST, LARGEST = operations.StudentT.log_df_bounds


@inlined
def digamma(x):
    """Derivative of log gamma for x > 0: recurrence, then the asymptotic series (Abramowitz and Stegun 6.3.18)."""
    total = 0.0
    while x < 10.0:
        total -= 1.0 / x
        x += 1.0
    y = 1.0 / (x * x)
    series = y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y * (1 / 240 - y * (1 / 132)))))
    return total + math.log(x) - 0.5 / x - series


@inlined
def log_gamma_ratio(v):
    """log G((v + 1) / 2) - log G(v / 2), by its series where the two would cancel."""
    if v > 1e3:
        return 0.5 * math.log(0.5 * v) - 0.25 / v + 1 / (24 * v * v * v)
    return math.lgamma(0.5 * (v + 1)) - math.lgamma(0.5 * v)


@inlined
def degrees(log_df):
    """The degrees of freedom, from their logarithm within its bounds."""
    return math.exp(min(max(np.float64(log_df), SMALLEST), LARGEST))


@kernel
def log_prob(spec, theta, z, log_prob):
    """log p = log G((v + 1) / 2) - log G(v / 2) - log(pi v) / 2 - (v + 1) / 2 log(1 + z^2 / v), v degrees of freedom;
    twin of scipy.stats.t.logpdf."""
    for d in range(z.shape[0]):
        v = degrees(theta[d])
        constant = log_gamma_ratio(v) - 0.5 * math.log(math.pi * v)
        power, inverse = 0.5 * (v + 1), 1.0 / v
        for t in range(z.shape[1]):
            value = np.float64(z[d, t])
            log_prob[t] += constant - power * vecmath.log1p(value * value * inverse)


@kernel
def log_prob_vjp(spec, theta, z, dlog_prob, dtheta):
    """dz = -dlog_prob (v + 1) z / (v + z^2), and the derivative by log v."""
    for d in range(z.shape[0]):
        v = degrees(theta[d])
        constant = 0.5 * (digamma(0.5 * (v + 1)) - digamma(0.5 * v) - 1.0 / v)
        total = 0.0
        for t in range(z.shape[1]):
            value, dlog = np.float64(z[d, t]), np.float64(dlog_prob[t])
            ratio = value * value / v
            total += dlog * (constant - 0.5 * vecmath.log1p(ratio) + 0.5 * (v + 1) / v * ratio / (1 + ratio))
            z[d, t] = -dlog * (v + 1) * value / (v + value * value)
        if dtheta.size > 0 and SMALLEST < theta[d] < LARGEST:
            dtheta[d] += total * v


KERNELS[operations.StudentT] = BaseKernels(lambda operation: (log_prob, log_prob_vjp))
