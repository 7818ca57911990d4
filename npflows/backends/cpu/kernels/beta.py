"""The symmetric beta distribution on [-bound, bound] as base: its log-density and gradient."""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.calls import as_real
from npflows.backends.cpu.compiler.jit import kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.link import KERNELS, BaseKernels, bits
from npflows.core import operations

# spec: the bits of shape - 1 and of the logarithm of the density at 0 for bound 1; theta: the bound


@kernel
def log_prob(spec, theta, z, log_prob):
    """log p = constant - log bound + (shape - 1) log(1 - (z / bound)^2), -inf outside."""
    bound, power = np.float64(theta[0]), as_real(spec[0])
    constant = as_real(spec[1]) - np.log(bound)
    for d in range(z.shape[0]):
        for t in range(z.shape[1]):
            q = np.float64(z[d, t]) / bound
            if abs(q) < 1.0:
                log_prob[t] += constant + power * vecmath.log((1.0 - q) * (1.0 + q))
            else:
                log_prob[t] = np.nan if np.isnan(q) else log_prob[t] - np.inf


@kernel
def log_prob_vjp(spec, theta, z, dlog_prob, dtheta):
    """dz = -dlog_prob (shape - 1) 2 z / (bound^2 - z^2), 0 outside."""
    bound, power = np.float64(theta[0]), as_real(spec[0])
    for d in range(z.shape[0]):
        for t in range(z.shape[1]):
            value = np.float64(z[d, t])
            inside = abs(value) < bound
            slope = -2.0 * power * value / ((bound - value) * (bound + value) if inside else 1.0)
            z[d, t] = dlog_prob[t] * slope if inside else 0.0 * value


KERNELS[operations.Beta] = BaseKernels(
    lambda operation: (log_prob, log_prob_vjp),
    lambda operation, link: bits(operation.shape - 1, operation.log_constant),
)
