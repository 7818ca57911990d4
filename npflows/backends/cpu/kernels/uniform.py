"""The uniform base distribution: its log-density and gradient."""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.jit import kernel
from npflows.backends.cpu.link import KERNELS, BaseKernels
from npflows.core import operations


@kernel
def log_prob(spec, theta, z, log_prob):
    """log p = -log(high - low) between the bounds, -inf outside; twin of scipy.stats.uniform.logpdf."""
    n = z.shape[0]
    for d in range(n):
        low, high = theta[d], theta[n + d]
        inside = -np.log(np.float64(high) - np.float64(low))
        for t in range(z.shape[1]):
            value = z[d, t]
            if low <= value <= high:
                log_prob[t] += inside
            else:
                log_prob[t] = np.nan if np.isnan(value) else log_prob[t] - np.inf


@kernel
def log_prob_vjp(spec, theta, z, dlog_prob, dtheta):
    """dz = 0."""
    z[:, :] = 0


KERNELS[operations.Uniform] = BaseKernels(lambda operation: (log_prob, log_prob_vjp))
