"""The mixture of normal distributions as base whose numbers a network gives: its log-density and gradient.

The rows of z after the samples are scratch, a term for each component and one row more, and then what the network gave:
logits, locations and logarithms of scales, which the gradient replaces by their gradients.
"""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.kernels.gaussian_mixture import DIM, HALF_LOG_2PI, N_COMPONENTS, highest_of, pack
from npflows.backends.cpu.link import KERNELS, BaseKernels
from npflows.core import operations


@inlined(distinct=True)
def start_term(logits, constant, term):
    """term = logit - constant for all lanes."""
    for t in range(term.size):
        term[t] = logits[t] - constant


@inlined(distinct=True)
def add_column(x, loc, log_scale, half, term):
    """term -= ((x - loc) / scale)^2 / 2 + log(scale) for all lanes."""
    for t in range(x.size):
        q = (x[t] - loc[t]) * vecmath.exp(-log_scale[t])
        term[t] -= half * q * q + log_scale[t]


@inlined
def fill_terms(dim, n, z, raw, terms):
    """The logarithm of each component's part of the density, but for the sum of the weights: one row for each."""
    dtype = z.dtype.type
    for k in range(n):
        start_term(raw[k], dtype(dim * HALF_LOG_2PI), terms[k])
        for d in range(dim):
            row = n + k * dim + d
            add_column(z[d], raw[row], raw[row + n * dim], dtype(0.5), terms[k])


@inlined
def sum_of_exp(terms, top, n, t):
    """sum_k exp(terms_k - top) of a lane."""
    total = terms.dtype.type(0)
    for k in range(n):
        total += vecmath.exp(terms[k, t] - top)
    return total


@kernel
def log_prob(spec, theta, z, log_prob):
    """log p = log sum_k w_k prod_d N(z_d; loc_kd, scale_kd)."""
    dim, n = spec[DIM], spec[N_COMPONENTS]
    terms, raw = z[dim : dim + n], z[dim + n + 1 :]
    fill_terms(dim, n, z, raw, terms)
    for t in range(z.shape[1]):
        top, highest = highest_of(terms, n, t), highest_of(raw, n, t)
        total, norm = sum_of_exp(terms, top, n, t), sum_of_exp(raw, highest, n, t)
        log_prob[t] += (np.float64(top) - np.float64(highest)) + (np.log(np.float64(total)) - np.log(np.float64(norm)))


@inlined(distinct=True)
def component_vjp(x, share, loc, log_scale, dx):
    """Of one column and component: dx -= share q / scale; loc becomes its gradient share q / scale, and log_scale its own
    share (q^2 - 1)."""
    one = x.dtype.type(1)
    for t in range(x.size):
        inverse = vecmath.exp(-log_scale[t])
        q = (x[t] - loc[t]) * inverse
        slope = share[t] * q * inverse
        loc[t] = slope
        log_scale[t] = share[t] * (q * q - one)
        dx[t] -= slope


@kernel
def log_prob_vjp(spec, theta, z, dlog_prob, dtheta):
    """With the share r_k that component k has in the density of a sample and q = (z - loc) / scale: dz = -sum_k r_k q /
    scale, dloc = r_k q / scale, dlog(scale) = r_k (q^2 - 1), dlogits = r_k - w_k, each times dlog_prob."""
    dim, n = spec[DIM], spec[N_COMPONENTS]
    shares, dx, raw = z[dim : dim + n], z[dim + n], z[dim + n + 1 :]
    fill_terms(dim, n, z, raw, shares)
    for t in range(z.shape[1]):
        top, highest = highest_of(shares, n, t), highest_of(raw, n, t)
        share, weight = dlog_prob[t] / sum_of_exp(shares, top, n, t), dlog_prob[t] / sum_of_exp(raw, highest, n, t)
        for k in range(n):
            shares[k, t] = vecmath.exp(shares[k, t] - top) * share
            raw[k, t] = shares[k, t] - vecmath.exp(raw[k, t] - highest) * weight
    for d in range(dim):
        for t in range(z.shape[1]):
            dx[t] = 0
        for k in range(n):
            row = n + k * dim + d
            component_vjp(z[d], shares[k], raw[row], raw[row + n * dim], dx)
        for t in range(z.shape[1]):
            z[d, t] = dx[t]


KERNELS[operations.ConditionalGaussianMixture] = BaseKernels(
    lambda operation: (log_prob, log_prob_vjp),
    pack,
    lambda operation: operation.n_components + 1 + operation.conditioner.n_out,
)
