"""The base distribution of tables with columns on circles: its log-density and gradient."""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.jit import kernel
from npflows.backends.cpu.kernels.normal import HALF_LOG_2PI
from npflows.backends.cpu.link import KERNELS, BaseKernels
from npflows.core import operations

# spec: for each column whether it is on a circle; theta: half the circumference


@kernel
def log_prob(spec, theta, z, log_prob):
    """log p = -z^2 / 2 - log(2 pi) / 2 on the line, -log(2 bound) on a circle."""
    on_circle = -np.log(2.0 * np.float64(theta[0]))
    for d in range(z.shape[0]):
        for t in range(z.shape[1]):
            value = np.float64(z[d, t])
            log_prob[t] += on_circle + 0.0 * value if spec[d] else -0.5 * value * value - HALF_LOG_2PI


@kernel
def log_prob_vjp(spec, theta, z, dlog_prob, dtheta):
    """dz = -dlog_prob z on the line, 0 on a circle."""
    for d in range(z.shape[0]):
        for t in range(z.shape[1]):
            z[d, t] = z.dtype.type(0) if spec[d] else -dlog_prob[t] * z[d, t]


KERNELS[operations.Cylinder] = BaseKernels(
    lambda operation: (log_prob, log_prob_vjp), lambda operation, link: [int(flag) for flag in operation.circular]
)
