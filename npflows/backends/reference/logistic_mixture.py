"""The logit of the distribution function of a mixture of logistics, then an affine map (Ho et al. 2019, arXiv:1902.00275,
section 3.2): y = logit(sum_k p_k sigmoid((x - m_k) exp(-s_k))) exp(a) + b."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npflows.backends.reference.complex_step import register, softplus
from npflows.backends.reference.piecewise_spline import bisect
from npflows.core.operations import LogisticMixture


def evaluate(operation: LogisticMixture, x: NDArray, raw: NDArray) -> tuple[NDArray, NDArray]:
    """y and log dy/dx: log C, log(1 - C) and the logarithm of the density of the mixture are logarithms of sums of
    exponentials, and d logit(C) / dC = 1 / (C (1 - C))."""
    b, a, p, m, s = parts(operation, raw)
    z = (x[..., None] - m) * np.exp(-s)
    below, above = log_total(p - softplus(-z)), log_total(p - softplus(z))
    log_density = log_total(p - s - softplus(-z) - softplus(z))
    return (below - above) * np.exp(a) + b, log_density - below - above + log_total(p) + a


def evaluate_inverse(operation: LogisticMixture, y: NDArray, raw: NDArray) -> tuple[NDArray, NDArray]:
    """x and log dx/dy; x lies between the values m_k + exp(s_k) (y - b) / exp(a) of single components."""
    b, a, _, m, s = parts(operation, raw)
    ends = m + np.exp(s) * ((y - b) * np.exp(-a))[..., None]
    x = bisect(lambda x: evaluate(operation, x, raw)[0], y, ends.min(axis=-1), ends.max(axis=-1))
    return x, -evaluate(operation, x, raw)[1]


def parts(operation: LogisticMixture, raw: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
    """b, a, the logits of the components, their locations and log-scales."""
    p, m, s = np.split(raw[..., 2:], 3, axis=-1)
    return (raw[..., 0], clipped(operation, raw[..., 1]), p, m + np.array(operation.offsets),
            clipped(operation, s))  # fmt: skip


def clipped(operation: LogisticMixture, r: NDArray) -> NDArray:
    """Log-scales from raw ones, r / (1 + |r| / L) with L = -log(least_scale)."""
    return r / (1 + np.where(r.real < 0, -r, r) / operation.limit)


def log_total(values: NDArray) -> NDArray:
    """log sum_k exp(v_k) along the last axis."""
    top = values.real.max(axis=-1, keepdims=True)
    return (top + np.log(np.exp(values - top).sum(axis=-1, keepdims=True)))[..., 0]


register(LogisticMixture, evaluate, evaluate_inverse)
