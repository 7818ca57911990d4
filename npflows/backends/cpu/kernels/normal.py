"""The normal base distribution: its log-density and gradient."""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.jit import kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.link import KERNELS, BaseKernels
from npflows.core import operations

HALF_LOG_2PI = 0.9189385332046727


@kernel
def log_prob(spec, theta, z, log_prob):
    """log p = -(z - loc)^2 / (2 scale^2) - log(scale) - log(2 pi) / 2; twin of scipy.stats.norm.logpdf."""
    n = z.shape[0]
    for d in range(n):
        loc, scale = np.float64(theta[d]), np.float64(theta[n + d])
        constant, inverse = -np.log(scale) - HALF_LOG_2PI, 1.0 / scale
        for t in range(z.shape[1]):
            q = (np.float64(z[d, t]) - loc) * inverse
            log_prob[t] += constant - 0.5 * q * q


@kernel
def log_prob_vjp(spec, theta, z, dlog_prob, dtheta):
    """dz = -dlog_prob (z - loc) / scale^2."""
    n = z.shape[0]
    for d in range(n):
        loc, precision = theta[d], z.dtype.type(1) / (theta[n + d] * theta[n + d])
        for t in range(z.shape[1]):
            z[d, t] = -dlog_prob[t] * (z[d, t] - loc) * precision


@kernel
def learned_log_prob(spec, theta, z, log_prob):
    """The same; theta holds logarithms of the scales."""
    n = z.shape[0]
    for d in range(n):
        loc, log_scale = np.float64(theta[d]), np.float64(theta[n + d])
        constant, inverse = -log_scale - HALF_LOG_2PI, np.exp(-log_scale)
        for t in range(z.shape[1]):
            q = (np.float64(z[d, t]) - loc) * inverse
            log_prob[t] += constant - 0.5 * q * q


@kernel(reassociate=True)
def learned_log_prob_vjp(spec, theta, z, dlog_prob, dtheta):
    """With q = (z - loc) / scale: dz = -dlog_prob q / scale = -dloc, dlog(scale) = dlog_prob (q^2 - 1)."""
    n, one = z.shape[0], z.dtype.type(1)
    for d in range(n):
        loc, inverse = theta[d], vecmath.exp(-theta[n + d])
        dloc, dlog_scale = z.dtype.type(0), z.dtype.type(0)
        for t in range(z.shape[1]):
            q = (z[d, t] - loc) * inverse
            slope = dlog_prob[t] * q * inverse
            dloc += slope
            dlog_scale += dlog_prob[t] * (q * q - one)
            z[d, t] = -slope
        if dtheta.size > 0:
            dtheta[d] += dloc
            dtheta[n + d] += dlog_scale


KERNELS[operations.Normal] = BaseKernels(
    lambda operation: (learned_log_prob, learned_log_prob_vjp) if operation.learnable else (log_prob, log_prob_vjp)
)
