"""The mixture of normal distributions as base: its log-density and gradient.

The rows of z after the samples are scratch: a term for each component, and one row more.
"""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.link import KERNELS, BaseKernels, Link
from npflows.core import operations

HALF_LOG_2PI = 0.9189385332046727
DIM, N_COMPONENTS = 0, 1


@inlined
def log_total(logits, n):
    """log sum exp of the first n numbers, in float64."""
    top = np.float64(logits[0])
    for k in range(1, n):
        top = max(top, np.float64(logits[k]))
    total = 0.0
    for k in range(n):
        total += np.exp(np.float64(logits[k]) - top)
    return top + np.log(total)


@inlined(distinct=True)
def add_square(x, loc, inverse, half, term):
    """term -= ((x - loc) / scale)^2 / 2 for all lanes."""
    for t in range(x.size):
        q = (x[t] - loc) * inverse
        term[t] -= half * q * q


@inlined
def fill_terms(spec, theta, z, terms):
    """The logarithm of each component's share of the density, one row for each; and `log_total` of the logits."""
    dim, n = spec[DIM], spec[N_COMPONENTS]
    total = log_total(theta, n)
    for k in range(n):
        constant = np.float64(theta[k]) - total - dim * HALF_LOG_2PI
        for d in range(dim):
            constant -= np.float64(theta[n + n * dim + k * dim + d])
        for t in range(z.shape[1]):
            terms[k, t] = constant
        for d in range(dim):
            place = n + k * dim + d
            inverse = vecmath.exp(-theta[place + n * dim])
            add_square(z[d], theta[place], inverse, z.dtype.type(0.5), terms[k])
    return total


@inlined
def highest_of(terms, n, t):
    """The largest term of a lane, or 0 where the density is 0; a NaN is passed over."""
    top = terms[0, t]
    for k in range(1, n):
        top = terms[k, t] if terms[k, t] > top else top
    return top if top > -np.inf else terms.dtype.type(0)


@kernel
def log_prob(spec, theta, z, log_prob):
    """log p = log sum_k w_k prod_d N(z_d; loc_kd, scale_kd)."""
    dim, n = spec[DIM], spec[N_COMPONENTS]
    terms = z[dim : dim + n]
    fill_terms(spec, theta, z, terms)
    for t in range(z.shape[1]):
        top, total = highest_of(terms, n, t), z.dtype.type(0)
        for k in range(n):
            total += vecmath.exp(terms[k, t] - top)
        log_prob[t] += np.float64(top) + np.log(np.float64(total))


@inlined(distinct=True, reassociate=True)
def component_vjp(x, loc, inverse, share, dx):
    """Of one column and component: dx -= share q / scale; the sums over lanes of share q / scale and share (q^2 - 1)."""
    dloc, dlog_scale, one = x.dtype.type(0), x.dtype.type(0), x.dtype.type(1)
    for t in range(x.size):
        q = (x[t] - loc) * inverse
        slope = share[t] * q * inverse
        dloc += slope
        dlog_scale += share[t] * (q * q - one)
        dx[t] -= slope
    return dloc, dlog_scale


@kernel
def log_prob_vjp(spec, theta, z, dlog_prob, dtheta):
    """With the share r_k that component k has in the density of a sample and q = (z - loc) / scale: dz = -sum_k r_k q /
    scale, dloc = r_k q / scale, dlog(scale) = r_k (q^2 - 1), dlogits = r_k - w_k, each times dlog_prob."""
    dim, n = spec[DIM], spec[N_COMPONENTS]
    shares, dx = z[dim : dim + n], z[dim + n]
    log_norm = fill_terms(spec, theta, z, shares)
    for t in range(z.shape[1]):
        top, total = highest_of(shares, n, t), z.dtype.type(0)
        for k in range(n):
            shares[k, t] = vecmath.exp(shares[k, t] - top)
            total += shares[k, t]
        for k in range(n):
            shares[k, t] *= dlog_prob[t] / total
    for d in range(dim):
        for t in range(z.shape[1]):
            dx[t] = 0
        for k in range(n):
            place = n + k * dim + d
            inverse = vecmath.exp(-theta[place + n * dim])
            dloc, dlog_scale = component_vjp(z[d], theta[place], inverse, shares[k], dx)
            if dtheta.size > 0:
                dtheta[place] += dloc
                dtheta[place + n * dim] += dlog_scale
        for t in range(z.shape[1]):
            z[d, t] = dx[t]
    if dtheta.size > 0:
        for k in range(n):
            weight = np.exp(np.float64(theta[k]) - log_norm)
            for t in range(z.shape[1]):
                dtheta[k] += shares[k, t] - weight * dlog_prob[t]


def pack(operation: operations.GaussianMixture | operations.ConditionalGaussianMixture, link: Link) -> list[int]:
    """Columns and components."""
    return [operation.dim, operation.n_components]


KERNELS[operations.GaussianMixture] = BaseKernels(
    lambda operation: (log_prob, log_prob_vjp), pack, lambda operation: operation.n_components + 1
)
