"""Gradients of scalar maps by complex steps.

For a function that is analytic next to x, Im f(x + i h) / h is f'(x) up to h^2, and as nothing is subtracted h may be so
small that the rest is below rounding (Squire and Trapp 1998, SIAM Review 40, 110).  All raw parameters of a value take
their steps at once, along a first axis.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.backends.reference.scalar_maps import MapGradients, scalar_map, scalar_map_vjp

STEP = 1e-100
Map = Callable[[NDArray, NDArray], tuple[NDArray, NDArray]]
"""y (..., n, d) and log dy/dx of x (..., n, d) with raw parameters (..., n, d, multiplier), all of them complex perhaps."""


def register(kind: type, evaluate: Callable, evaluate_inverse: Callable) -> None:
    """Enter a scalar map by two functions of its operation, x and the raw parameters: y and log dy/dx, and the same of the
    inverse; its gradients are those by complex steps."""

    @scalar_map.register(kind)
    def _(
        operation: Any, theta: NDArray, x: NDArray, raw: NDArray, *, inverse: bool = False
    ) -> tuple[NDArray, NDArray]:  # fmt: skip
        return evaluate_inverse(operation, x, raw) if inverse else evaluate(operation, x, raw)

    @scalar_map_vjp.register(kind)
    def _(
        operation: Any, theta: NDArray, x: NDArray, raw: NDArray, dy: NDArray, dlog: NDArray, *, inverse: bool = False
    ) -> MapGradients:
        result = evaluate_inverse(operation, x, raw) if inverse else None
        return gradients(partial(evaluate, operation), x, raw, dy, dlog, result)


def partial_derivatives(function: Map, x: NDArray, raw: NDArray) -> tuple[NDArray, NDArray]:
    """Derivatives of y and of log dy/dx by x, then by each raw parameter (1 + multiplier, n, d)."""
    m = raw.shape[-1]
    moved_x = np.repeat(x[None].astype(complex), 1 + m, axis=0)
    moved_raw = np.repeat(raw[None].astype(complex), 1 + m, axis=0)
    moved_x[0] += 1j * STEP
    for j in range(m):
        moved_raw[1 + j, ..., j] += 1j * STEP
    y, log_slope = function(moved_x, moved_raw)
    return y.imag / STEP, log_slope.imag / STEP


def gradients(
    function: Map, x: NDArray, raw: NDArray, dy: NDArray, dlog: NDArray, result: tuple[NDArray, NDArray] | None = None
) -> MapGradients:
    """Gradients of a scalar from those of y and log dy/dx.

    Those of the inverse map where its `result` is given, x = f^-1(y; p) and log dx/dy.  As f(x; p) = y, changes obey
    f' x. + (df/dp) p. = y..  Cotangents dx and m of x and of its log-slope therefore give dy = -dY, where
    dY = (-dx - dL d(log f')/dx) / f' and dL = -m, and dp = what f gives for the cotangents dY and dL.
    """
    of_y, of_log = partial_derivatives(function, x if result is None else result[0], raw)
    if result is not None:
        dy, dlog = (-dy + dlog * of_log[0]) * np.exp(result[1]), -dlog
    dx = -dy if result is not None else dy * of_y[0] + dlog * of_log[0]
    return MapGradients(dx, np.moveaxis(dy * of_y[1:] + dlog * of_log[1:], 0, -1), np.zeros(0))


def softplus(x: NDArray) -> NDArray:
    """log(1 + exp(x)), of complex numbers too."""
    return np.where(x.real > 0, x, 0.0) + np.log1p(np.exp(np.where(x.real > 0, -x, x)))


def sigmoid(x: NDArray) -> NDArray:
    """1 / (1 + exp(-x)), of complex numbers too."""
    return np.exp(-softplus(-x))


def softmax(values: NDArray) -> NDArray:
    """exp(v_i) / sum_j exp(v_j) along the last axis, of complex numbers too."""
    powers = np.exp(values - values.real.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
