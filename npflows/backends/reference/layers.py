"""Layers, which map samples x (n, dim) to y (n, dim) invertibly: the four functions of each, and those without a network.

`forward` and `inverse` give the result and its log-determinant (n,); `forward_vjp` and `inverse_vjp` carry the gradients of
a scalar with respect to these two back to the input, the parameters and the condition.  reflections.py has the layers that
are products of reflections, conditioned.py those that have a network.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.backends.reference.common import Given, Gradients, packed
from npflows.core.operations import ActNorm, Conv1x1, LogTails, LULinear, Permutation, Rotation


@singledispatch
def forward(operation: Any, theta: NDArray, x: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """y (n, dim) and log |det dy/dx| (n,), from data to latent."""
    raise NotImplementedError(f"the reference backend has no layer {type(operation).__name__}")


@singledispatch
def inverse(operation: Any, theta: NDArray, y: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """x (n, dim) and log |det dx/dy| (n,), from latent to data."""
    raise NotImplementedError(f"the reference backend can't invert a layer {type(operation).__name__}")


@singledispatch
def forward_vjp(
    operation: Any, theta: NDArray, x: NDArray, dy: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    """Gradients of a scalar through `forward` at x, from those with respect to y (n, dim) and log_det (n,)."""
    raise NotImplementedError(f"the reference backend has no gradient of a layer {type(operation).__name__}")


@singledispatch
def inverse_vjp(
    operation: Any, theta: NDArray, y: NDArray, dx: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    """Gradients of a scalar through `inverse` at y, from those with respect to x (n, dim) and log_det (n,)."""
    raise NotImplementedError(f"the reference backend can't invert a layer {type(operation).__name__}")


def _gradients(operation: Any, dx: NDArray, given: Given, **of_parameters: NDArray) -> Gradients:
    """Gradients of a layer that sees no condition."""
    return Gradients(dx, packed(operation.shapes, of_parameters), np.zeros_like(given.context))


# Permutation


@forward.register
def _(operation: Permutation, theta: NDArray, x: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """y[k] = x[order[k]]."""
    return x[:, list(operation.order)], np.zeros(len(x))


@inverse.register
def _(operation: Permutation, theta: NDArray, y: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """x[order[k]] = y[k]."""
    return placed(operation.order, y), np.zeros(len(y))


@forward_vjp.register
def _(
    operation: Permutation, theta: NDArray, x: NDArray, dy: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    return _gradients(operation, placed(operation.order, dy), given)


@inverse_vjp.register
def _(
    operation: Permutation, theta: NDArray, y: NDArray, dx: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    return _gradients(operation, dx[:, list(operation.order)], given)


def placed(order: tuple[int, ...], values: NDArray) -> NDArray:
    """The array whose columns `order` are the given values (n, d)."""
    result = np.empty_like(values)
    result[:, list(order)] = values
    return result


# Rotation


@forward.register
def _(operation: Rotation, theta: NDArray, x: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """y = x + angle in [-bound, bound)."""
    return _rotated(operation, x, theta), np.zeros(len(x))


@inverse.register
def _(operation: Rotation, theta: NDArray, y: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """x = y - angle in [-bound, bound)."""
    return _rotated(operation, y, -theta), np.zeros(len(y))


@forward_vjp.register
def _(
    operation: Rotation, theta: NDArray, x: NDArray, dy: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    return _gradients(operation, dy, given, angles=dy[:, list(operation.places)].sum(axis=0))


@inverse_vjp.register
def _(
    operation: Rotation, theta: NDArray, y: NDArray, dx: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    return _gradients(operation, dx, given, angles=-dx[:, list(operation.places)].sum(axis=0))


def _rotated(operation: Rotation, values: NDArray, angles: NDArray) -> NDArray:
    result, around = values.copy(), 2 * operation.bound
    turned = values[:, list(operation.places)] + angles
    result[:, list(operation.places)] = turned - around * np.floor(turned / around + 0.5)
    return result


# Tails that are drawn in by a logarithm


@forward.register
def _(operation: LogTails, theta: NDArray, x: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """y = sign(x) (bound + v) with v = arsinh(|x| - bound), where |x| is larger; log |dy/dx| = -log cosh(v)."""
    beyond = _beyond(operation, x)
    v = np.arcsinh(beyond)
    return np.where(beyond > 0, np.sign(x) * (operation.bound + v), x), -_log_cosh(v).sum(axis=1)


@inverse.register
def _(operation: LogTails, theta: NDArray, y: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """x = sign(y) (bound + sinh(v)) with v = |y| - bound, where that is positive; log |dx/dy| = log cosh(v)."""
    v = _beyond(operation, y)
    return np.where(v > 0, np.sign(y) * (operation.bound + np.sinh(v)), y), _log_cosh(v).sum(axis=1)


@forward_vjp.register
def _(
    operation: LogTails, theta: NDArray, x: NDArray, dy: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    """dx = (dy - sign(x) tanh(v) dlog_det) / cosh(v)."""
    v = np.arcsinh(_beyond(operation, x))
    return _gradients(operation, (dy - np.sign(x) * np.tanh(v) * dlog_det[:, None]) / np.cosh(v), given)


@inverse_vjp.register
def _(
    operation: LogTails, theta: NDArray, y: NDArray, dx: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    """dy = dx cosh(v) + sign(y) tanh(v) dlog_det."""
    v = _beyond(operation, y)
    return _gradients(operation, dx * np.cosh(v) + np.sign(y) * np.tanh(v) * dlog_det[:, None], given)


def _beyond(operation: LogTails, values: NDArray) -> NDArray:
    """How far each value lies beyond the bound, 0 for those inside and those without tails."""
    beyond = np.zeros_like(values)
    places = list(operation.places)
    beyond[:, places] = np.maximum(np.abs(values[:, places]) - operation.bound, 0)
    return beyond


def _log_cosh(v: NDArray) -> NDArray:
    return v + np.log1p(np.exp(-2 * v)) - np.log(2)


# Activation normalization (Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.1)


@forward.register
def _(operation: ActNorm, theta: NDArray, x: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """y = (x + bias) exp(logs) for the channels of each pixel, with the log-determinant pixels * sum logs."""
    params, pixels = operation.views(theta), _pixels(operation, x)
    y = (pixels + params["bias"]) * np.exp(params["logs"])
    return y.reshape(x.shape), np.full(len(x), pixels.shape[1] * params["logs"].sum())


@inverse.register
def _(operation: ActNorm, theta: NDArray, y: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """x = y exp(-logs) - bias."""
    params, pixels = operation.views(theta), _pixels(operation, y)
    x = pixels * np.exp(-params["logs"]) - params["bias"]
    return x.reshape(y.shape), np.full(len(y), -pixels.shape[1] * params["logs"].sum())


@forward_vjp.register
def _(
    operation: ActNorm, theta: NDArray, x: NDArray, dy: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    """dx = dy exp(logs),  dbias = sum dx,  dlogs = sum dy y + pixels sum dlog_det."""
    params = operation.views(theta)
    y, _ = forward(operation, theta, x, given)
    dx = _pixels(operation, dy) * np.exp(params["logs"])
    dlogs = _pixels(operation, dy * y).sum(axis=(0, 1)) + dx.shape[1] * dlog_det.sum()
    return _gradients(operation, dx.reshape(x.shape), given, logs=dlogs, bias=dx.sum(axis=(0, 1)))


@inverse_vjp.register
def _(
    operation: ActNorm, theta: NDArray, y: NDArray, dx: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    """dy = dx exp(-logs),  dbias = -sum dx,  dlogs = -sum dy y - pixels sum dlog_det."""
    params, dpixels = operation.views(theta), _pixels(operation, dx)
    dy = dpixels * np.exp(-params["logs"])
    dlogs = -(dy * _pixels(operation, y)).sum(axis=(0, 1)) - dy.shape[1] * dlog_det.sum()
    return _gradients(operation, dy.reshape(y.shape), given, logs=dlogs, bias=-dpixels.sum(axis=(0, 1)))


def _pixels(operation: ActNorm | Conv1x1, values: NDArray) -> NDArray:
    """Samples (n, dim) as (n, pixels, channels)."""
    return values.reshape(len(values), operation.dim // operation.channels, operation.channels)


# Invertible 1x1 convolution (Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.2)


@forward.register
def _(operation: Conv1x1, theta: NDArray, x: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """y = W x at every pixel, with the log-determinant pixels * log |det W|."""
    w, log_abs_det = _mixing(operation, theta)
    pixels = _pixels(operation, x)
    return (pixels @ w.T).reshape(x.shape), np.full(len(x), pixels.shape[1] * log_abs_det)


@inverse.register
def _(operation: Conv1x1, theta: NDArray, y: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """x = W^-1 y."""
    w, log_abs_det = _mixing(operation, theta)
    pixels = _pixels(operation, y)
    return (pixels @ np.linalg.inv(w).T).reshape(y.shape), np.full(len(y), -pixels.shape[1] * log_abs_det)


@forward_vjp.register
def _(
    operation: Conv1x1, theta: NDArray, x: NDArray, dy: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    """dx = W^T dy,  dW = sum dy x^T."""
    w, _ = _mixing(operation, theta)
    dpixels, pixels = _pixels(operation, dy), _pixels(operation, x)
    dw = np.einsum("npi,npj->ij", dpixels, pixels)
    dmatrix = _mixing_vjp(operation, theta, dw, pixels.shape[1] * dlog_det.sum())
    return _gradients(operation, (dpixels @ w).reshape(x.shape), given, matrix=dmatrix)


@inverse_vjp.register
def _(
    operation: Conv1x1, theta: NDArray, y: NDArray, dx: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    """dy = W^-T dx,  dW = -sum dy x^T."""
    w, _ = _mixing(operation, theta)
    x, _ = inverse(operation, theta, y, given)
    dpixels = _pixels(operation, dx) @ np.linalg.inv(w)
    dw = -np.einsum("npi,npj->ij", dpixels, _pixels(operation, x))
    dmatrix = _mixing_vjp(operation, theta, dw, -dpixels.shape[1] * dlog_det.sum())
    return _gradients(operation, dpixels.reshape(y.shape), given, matrix=dmatrix)


def _mixing(operation: Conv1x1, theta: NDArray) -> tuple[NDArray, float]:
    """W and log |det W|."""
    matrix = operation.views(theta)["matrix"]
    if operation.parameterization == "full":
        return matrix, np.linalg.slogdet(matrix)[1]
    lower, upper = _factors(matrix)
    return lower @ upper, np.trace(matrix)


def _mixing_vjp(operation: Conv1x1, theta: NDArray, dw: NDArray, dlog: float) -> NDArray:
    """The gradient of the parameters from those of W and of log |det W|, which is W^-T with respect to W."""
    matrix = operation.views(theta)["matrix"]
    if operation.parameterization == "full":
        return dw + dlog * np.linalg.inv(matrix).T
    lower, upper = _factors(matrix)
    return _factors_vjp(matrix, dw @ upper.T, lower.T @ dw, dlog)


# Linear layer


@forward.register
def _(operation: LULinear, theta: NDArray, x: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """y = L S U x[order] + shift, with the log-determinant sum log diag U."""
    params = operation.views(theta)
    lower, upper = _signed_factors(operation, params["matrix"])
    y = x[:, list(operation.order)] @ upper.T @ lower.T + params["shift"]
    return y, np.full(len(x), np.trace(params["matrix"]))


@inverse.register
def _(operation: LULinear, theta: NDArray, y: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """x[order] = U^-1 S L^-1 (y - shift)."""
    params = operation.views(theta)
    lower, upper = _signed_factors(operation, params["matrix"])
    x = np.linalg.solve(upper, np.linalg.solve(lower, (y - params["shift"]).T)).T
    return placed(operation.order, x), np.full(len(y), -np.trace(params["matrix"]))


@forward_vjp.register
def _(
    operation: LULinear, theta: NDArray, x: NDArray, dy: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    """With u = S U x[order]:  dL = dy u^T,  du = L^T dy,  d(S U) = du x[order]^T,  dx[order] = (S U)^T du."""
    matrix = operation.views(theta)["matrix"]
    lower, upper = _signed_factors(operation, matrix)
    permuted = x[:, list(operation.order)]
    u, du = permuted @ upper.T, dy @ lower
    dupper = _signs(operation)[:, None] * (du.T @ permuted)
    dmatrix = _factors_vjp(matrix, dy.T @ u, dupper, dlog_det.sum())
    return _gradients(operation, placed(operation.order, du @ upper), given, matrix=dmatrix, shift=dy.sum(axis=0))


@inverse_vjp.register
def _(
    operation: LULinear, theta: NDArray, y: NDArray, dx: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    """With u = L^-1 (y - shift) and x[order] = (S U)^-1 u:  du = (S U)^-T dx[order],  d(S U) = -du x[order]^T,
    dy = L^-T du,  dL = -dy u^T,  dshift = -dy."""
    params = operation.views(theta)
    lower, upper = _signed_factors(operation, params["matrix"])
    u = np.linalg.solve(lower, (y - params["shift"]).T).T
    permuted = np.linalg.solve(upper, u.T).T
    du = np.linalg.solve(upper.T, dx[:, list(operation.order)].T).T
    dy = np.linalg.solve(lower.T, du.T).T
    dupper = _signs(operation)[:, None] * (-du.T @ permuted)
    dmatrix = _factors_vjp(params["matrix"], -dy.T @ u, dupper, -dlog_det.sum())
    return _gradients(operation, dy, given, matrix=dmatrix, shift=-dy.sum(axis=0))


def _signs(operation: LULinear) -> NDArray:
    """The diagonal of S."""
    return np.array(operation.signs or (1,) * operation.dim, np.float64)


def _signed_factors(operation: LULinear, matrix: NDArray) -> tuple[NDArray, NDArray]:
    """L and S U."""
    lower, upper = _factors(matrix)
    return lower, _signs(operation)[:, None] * upper


def _factors(matrix: NDArray) -> tuple[NDArray, NDArray]:
    """L and U, which lie in one matrix: L's diagonal is 1, and the matrix has the logarithm of U's."""
    return np.tril(matrix, -1) + np.eye(len(matrix)), np.triu(matrix, 1) + np.diag(np.exp(np.diag(matrix)))


def _factors_vjp(matrix: NDArray, dlower: NDArray, dupper: NDArray, dlog: float) -> NDArray:
    """The gradient of the matrix from those of its factors and of the sum of its diagonal."""
    diagonal = np.diag(dupper) * np.exp(np.diag(matrix)) + dlog
    return np.tril(dlower, -1) + np.triu(dupper, 1) + np.diag(diagonal)
