"""Samples from the user's units into a block, and back: an affine map in float64, which may mix columns.

The map, `affine` (3, d), is location, scale and the share of each column in the log-determinant; below them may stand the
d rows of a triangular factor F (see `npflows.core.backend.State`).
"""

from __future__ import annotations

import math

import numpy as np

from npflows.backends.cpu.compiler.jit import inlined

FACTOR = 3  # the row at which the factor begins
TAIL = 2  # the row of where the tails of conditions begin


@inlined
def load(X, a, width, affine, wanted, x):
    """x (rows, lanes) = X[a : a + width].T, standardized in float64; lanes beyond width repeat the last sample."""
    for d in range(X.shape[1]):
        for t in range(x.shape[1]):
            value = X[a + min(t, width - 1), d]
            if wanted:
                value = (value - affine[0, d]) / affine[1, d]
            x[d, t] = value


@inlined
def load_cotangent(X, a, width, affine, wanted, dx):
    """The same for cotangents of what `affine` maps to the user's units; zero beyond width."""
    for d in range(X.shape[1]):
        for t in range(dx.shape[1]):
            value = X[a + t, d] if t < width else 0.0
            if wanted:
                value = value * affine[1, d]
            dx[d, t] = value


@inlined
def load_standardized(C, a, width, affine, c):
    """c (rows, lanes) = C[a : a + width].T, standardized, with tails drawn in by a logarithm; lanes beyond width repeat the
    last sample."""
    for d in range(C.shape[1]):
        for t in range(c.shape[1]):
            value = C[a + min(t, width - 1), d]
            if affine.shape[1] > 0:
                value = (value - affine[0, d]) / affine[1, d]
                beyond = abs(value) - affine[TAIL, d]
                if beyond > 0.0:
                    drawn_in = affine[TAIL, d] + math.asinh(beyond)
                    value = drawn_in if value > 0.0 else -drawn_in
            c[d, t] = value


@inlined
def store_condition_cotangent(dc, C, a, width, affine, dC):
    """dC[a : a + width].T = the cotangent of the user's conditions, from that of what `load_standardized` gives."""
    store_cotangent(dc, a, width, affine, affine.shape[1] > 0, dC)
    for d in range(affine.shape[1]):
        for t in range(width):
            beyond = abs((C[a + t, d] - affine[0, d]) / affine[1, d]) - affine[TAIL, d]
            if beyond > 0.0:
                dC[a + t, d] /= math.sqrt(1.0 + beyond * beyond)


@inlined
def store(x, a, width, affine, wanted, Y):
    """Y[a : a + width].T = x, in the user's units."""
    for d in range(Y.shape[1]):
        for t in range(width):
            value = np.float64(x[d, t])
            if wanted:
                value = value * affine[1, d] + affine[0, d]
            Y[a + t, d] = value


@inlined
def store_cotangent(dx, a, width, affine, wanted, dX):
    """dX[a : a + width].T = the cotangent of the user's units, from that of what `load` gives."""
    for d in range(dX.shape[1]):
        scale = affine[1, d] if wanted else 1.0
        for t in range(width):
            dX[a + t, d] = dx[d, t] / scale


@inlined
def has_factor(affine):
    """Whether the affine map mixes columns by a triangular factor, which stands below its first three rows."""
    return affine.shape[0] > FACTOR


@inlined
def load_mixed(X, a, width, affine, u, x):
    """`load` through a factor F: x with F x = (X[a : a + width].T - location) / scale; u (rows, lanes) is float64."""
    for d in range(X.shape[1]):
        row = u[d]
        for t in range(x.shape[1]):
            row[t] = (X[a + min(t, width - 1), d] - affine[0, d]) / affine[1, d]
        for k in range(d):
            factor, before = affine[FACTOR + d, k], u[k]
            if factor != 0.0:
                for t in range(x.shape[1]):
                    row[t] -= factor * before[t]
        for t in range(x.shape[1]):
            row[t] /= affine[FACTOR + d, d]
            x[d, t] = row[t]


@inlined
def load_mixed_cotangent(X, a, width, affine, u, dx):
    """`load_cotangent` through a factor F: dx = F.T (scale X[a : a + width].T)."""
    for d in range(X.shape[1]):
        for t in range(dx.shape[1]):
            u[d, t] = X[a + t, d] * affine[1, d] if t < width else 0.0
    for k in range(X.shape[1]):
        row = u[k]  # the rows below are as they were
        for t in range(dx.shape[1]):
            row[t] *= affine[FACTOR + k, k]
        for d in range(k + 1, X.shape[1]):
            factor, below = affine[FACTOR + d, k], u[d]
            if factor != 0.0:
                for t in range(dx.shape[1]):
                    row[t] += factor * below[t]
        for t in range(dx.shape[1]):
            dx[k, t] = row[t]


@inlined
def store_mixed(x, a, width, affine, Y):
    """Y[a : a + width].T = scale F x + location."""
    for d in range(Y.shape[1]):
        for t in range(width):
            value = 0.0
            for k in range(d + 1):
                value += affine[FACTOR + d, k] * np.float64(x[k, t])
            Y[a + t, d] = value * affine[1, d] + affine[0, d]


@inlined
def store_mixed_cotangent(dx, a, width, affine, u, dX):
    """dX[a : a + width].T = F^-T dx / scale."""
    for d in range(dX.shape[1] - 1, -1, -1):
        row = u[d]
        for t in range(width):
            row[t] = dx[d, t]
        for k in range(d + 1, dX.shape[1]):
            factor, below = affine[FACTOR + k, d], u[k]
            if factor != 0.0:
                for t in range(width):
                    row[t] -= factor * below[t]
        for t in range(width):
            row[t] /= affine[FACTOR + d, d]
            dX[a + t, d] = row[t] / affine[1, d]
