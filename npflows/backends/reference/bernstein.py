"""Increasing Bernstein polynomials on [-B, B] (Sick et al. 2020, arXiv:2004.00464, equation 9), beyond which the map is a
line.

With X = (x + B) / (2 B), y = sum_i c_i b_i,N(X) and dy/dX = N sum_i (c_{i+1} - c_i) b_i,N-1(X), where
b_i,N(X) = binomial(N, i) X^i (1 - X)^(N - i).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from npflows.backends.reference.complex_step import register, softmax, softplus
from npflows.backends.reference.piecewise_spline import bisect
from npflows.core.operations import Bernstein


def evaluate(operation: Bernstein, x: NDArray, raw: NDArray) -> tuple[NDArray, NDArray]:
    """y and log dy/dx."""
    b = operation.tail_bound
    below, above = x.real < -b, x.real > b
    inner = np.where(below, -b, np.where(above, b, x))
    y, slope = polynomial(operation, (inner + b) / (2 * b), coefficients_of(operation, raw))
    y, log_slope = y + slope * (x - inner), np.log(slope)
    if not operation.bounded:
        return y, log_slope
    return np.where(below | above, x, y), np.where(below | above, 0.0, log_slope)


def evaluate_inverse(operation: Bernstein, y: NDArray, raw: NDArray) -> tuple[NDArray, NDArray]:
    """x and log dx/dy, by halving an interval until there is no number between its ends."""
    b, c = operation.tail_bound, coefficients_of(operation, raw)
    below, above = y < c[..., 0], y > c[..., -1]
    inner = np.where(below, c[..., 0], np.where(above, c[..., -1], y))
    place = bisect(lambda at: polynomial(operation, at, c)[0], inner, np.zeros_like(y), np.ones_like(y))
    place = np.where(below, 0.0, np.where(above, 1.0, place))
    _, slope = polynomial(operation, place, c)
    x, log_slope = 2 * b * place - b + (y - inner) / slope, -np.log(slope)
    if not operation.bounded:
        return x, log_slope
    return np.where(below | above, y, x), np.where(below | above, 0.0, log_slope)


def coefficients_of(operation: Bernstein, raw: NDArray) -> NDArray:
    """The coefficients c (..., N + 1)."""
    b, n = operation.tail_bound, operation.degree
    if operation.bounded:
        first, ends = np.full((*raw.shape[:-1], 1), -b), np.full((*raw.shape[:-1], 2), 2 * b / n)
        increments = np.concatenate([ends, (2 * b - 8 * b / n) * softmax(raw), ends], axis=-1)
    else:
        first, u = raw[..., :1] - b, softplus(raw[..., 1:] + operation.increment_shift)
        increments = np.concatenate([u[..., :1], u, u[..., -1:]], axis=-1)
    return first + np.concatenate([np.zeros_like(first), np.cumsum(increments, axis=-1)], axis=-1)


def polynomial(operation: Bernstein, place: NDArray, c: NDArray) -> tuple[NDArray, NDArray]:
    """y and dy/dx at X."""
    n = operation.degree
    y = sum(c[..., i] * _basis(i, n, place) for i in range(n + 1))
    slope = sum(n * (c[..., i + 1] - c[..., i]) * _basis(i, n - 1, place) for i in range(n))
    return y, slope / (2 * operation.tail_bound)


def _basis(i: int, n: int, place: NDArray) -> NDArray:
    return math.comb(n, i) * place**i * (1 - place) ** (n - i)


register(Bernstein, evaluate, evaluate_inverse)
