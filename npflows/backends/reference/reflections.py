"""Linear layers whose orthogonal factors are products of Householder reflections (Tomczak and Welling 2016,
arXiv:1611.09630).

Each is a matrix W of its parameters: y = W x + shift.  The gradient of W goes back to the factors one by one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npflows.backends.reference.common import Given, Gradients, packed
from npflows.backends.reference.layers import forward, forward_vjp, inverse, inverse_vjp
from npflows.core.operations import Householder, QRLinear, SVDLinear

Reflected = Householder | QRLinear | SVDLinear


def product(vectors: NDArray) -> NDArray:
    """H_k ... H_1 with H_j = 1 - 2 v_j v_j^T / |v_j|^2."""
    result = np.eye(vectors.shape[1])
    for v in vectors:
        result = _reflection(v) @ result
    return result


def product_vjp(vectors: NDArray, dproduct: NDArray) -> NDArray:
    """The gradient of the vectors from that of their product.

    With H_k ... H_1 = A H_j B:  G = A^T dproduct B^T is that of H_j, and with s = |v|^2
    dv = -2 / s (G + G^T) v + 4 / s^2 (v^T G v) v.
    """
    result = np.zeros_like(vectors)
    for j, v in enumerate(vectors):
        g = product(vectors[j + 1 :]).T @ dproduct @ product(vectors[:j]).T
        s = v @ v
        result[j] = -2 / s * (g + g.T) @ v + 4 / s**2 * (v @ g @ v) * v
    return result


def _reflection(v: NDArray) -> NDArray:
    return np.eye(len(v)) - 2 / (v @ v) * np.outer(v, v)


@forward.register(Householder)
@forward.register(QRLinear)
@forward.register(SVDLinear)
def _forward(operation: Reflected, theta: NDArray, x: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """y = W x + shift."""
    matrix, shift, log_abs_det = _parts(operation, theta)
    return x @ matrix.T + shift, np.full(len(x), log_abs_det)


@inverse.register(Householder)
@inverse.register(QRLinear)
@inverse.register(SVDLinear)
def _inverse(operation: Reflected, theta: NDArray, y: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """x = W^-1 (y - shift)."""
    matrix, shift, log_abs_det = _parts(operation, theta)
    return np.linalg.solve(matrix, (y - shift).T).T, np.full(len(y), -log_abs_det)


@forward_vjp.register(Householder)
@forward_vjp.register(QRLinear)
@forward_vjp.register(SVDLinear)
def _forward_vjp(
    operation: Reflected, theta: NDArray, x: NDArray, dy: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    """dx = W^T dy,  dW = dy x^T,  dshift = dy."""
    matrix, _, _ = _parts(operation, theta)
    dtheta = _of_parameters(operation, theta, dy.T @ x, dy.sum(axis=0), dlog_det.sum())
    return Gradients(dy @ matrix, dtheta, np.zeros_like(given.context))


@inverse_vjp.register(Householder)
@inverse_vjp.register(QRLinear)
@inverse_vjp.register(SVDLinear)
def _inverse_vjp(
    operation: Reflected, theta: NDArray, y: NDArray, dx: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    """dy = W^-T dx,  dW = -dy x^T,  dshift = -dy."""
    matrix, _, _ = _parts(operation, theta)
    x, _ = _inverse(operation, theta, y, given)
    dy = np.linalg.solve(matrix.T, dx.T).T
    dtheta = _of_parameters(operation, theta, -dy.T @ x, -dy.sum(axis=0), -dlog_det.sum())
    return Gradients(dy, dtheta, np.zeros_like(given.context))


def _parts(operation: Reflected, theta: NDArray) -> tuple[NDArray, NDArray, float]:
    """W, the shift, and log |det W|."""
    params = operation.views(theta)
    if isinstance(operation, QRLinear):
        return product(params["vectors"]) @ _triangle(params["upper"]), params["shift"], np.trace(params["upper"])
    if isinstance(operation, SVDLinear):
        matrix = product(params["left"]) * np.exp(params["logs"]) @ product(params["right"])
        return matrix, params["shift"], params["logs"].sum()
    return product(params["vectors"]), np.zeros(operation.dim), 0.0


def _triangle(upper: NDArray) -> NDArray:
    """R, of whose diagonal there is the logarithm."""
    return np.triu(upper, 1) + np.diag(np.exp(np.diag(upper)))


def _of_parameters(operation: Reflected, theta: NDArray, dw: NDArray, dshift: NDArray, dlog: float) -> NDArray:
    """The gradient of the parameters, from those of W, of the shift and of log |det W|."""
    params = operation.views(theta)
    if isinstance(operation, Householder):
        return packed(operation.shapes, {"vectors": product_vjp(params["vectors"], dw)})
    if isinstance(operation, QRLinear):
        triangle = _triangle(params["upper"])
        dtriangle = product(params["vectors"]).T @ dw
        dupper = np.triu(dtriangle, 1) + np.diag(np.diag(dtriangle) * np.diag(triangle) + dlog)
        dvectors = product_vjp(params["vectors"], dw @ triangle.T)
        return packed(operation.shapes, {"upper": dupper, "vectors": dvectors, "shift": dshift})
    left, right, scales = product(params["left"]), product(params["right"]), np.exp(params["logs"])
    dlogs = np.diag(left.T @ dw @ right.T) * scales + dlog
    dleft = product_vjp(params["left"], dw @ (scales[:, None] * right).T)
    dright = product_vjp(params["right"], (left * scales).T @ dw)
    return packed(operation.shapes, {"left": dleft, "logs": dlogs, "right": dright, "shift": dshift})
