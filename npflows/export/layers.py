"""Layers as graphs, in both directions: y (dim,) and the log-determinant (1,) of x (dim,)."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.core.factors import reflections, triangle
from npflows.core.operations import (
    ActNorm,
    Autoregressive,
    Conv1x1,
    Coupling,
    Elementwise,
    Householder,
    LogTails,
    LULinear,
    Permutation,
    QRLinear,
    Rotation,
    SVDLinear,
)
from npflows.export import graph as g
from npflows.export import monotone_maps  # noqa: F401 - it registers scalar maps
from npflows.export.errors import NotExportableError
from npflows.export.graph import Value
from npflows.export.networks import MadeSteps, network
from npflows.export.scalar_maps import scalar_map

MOST_STEPS = 128
"""Columns of which the sequential direction of an autoregressive layer is written out, at most."""
NO_LOG_DET = np.zeros(1)


@singledispatch
def layer(
    operation: Any, theta: NDArray, x: Value, context: Value, dtype: str, *, inverse: bool = False
) -> tuple[Value, Value]:  # fmt: skip
    """The result of a layer, or of its inverse, and its log-determinant."""
    name = getattr(operation, "name", type(operation).__name__)
    raise NotExportableError(
        f"a layer {name} can't be exported: of your own layers there are compiled kernels alone, no formula"
    )


@layer.register
def _(operation: Permutation, theta: NDArray, x: Value, context: Value, dtype: str, *, inverse: bool = False) -> Any:
    """y[k] = x[order[k]]."""
    return (g.place(x, operation.order, operation.dim) if inverse else g.take(x, operation.order)), NO_LOG_DET


@layer.register
def _(operation: Rotation, theta: NDArray, x: Value, context: Value, dtype: str, *, inverse: bool = False) -> Any:
    """y = x + angle in [-bound, bound)."""
    around = 2 * operation.bound
    turned = g.take(x, operation.places) + (-theta if inverse else theta)
    turned = turned - around * g.floor(turned / around + 0.5)
    return _with(x, operation.places, turned), NO_LOG_DET


@layer.register
def _(operation: LogTails, theta: NDArray, x: Value, context: Value, dtype: str, *, inverse: bool = False) -> Any:
    """y = sign(x) (bound + arsinh(|x| - bound)) where |x| is larger; log |dy/dx| = -log cosh(v), v being arsinh."""
    values = g.take(x, operation.places)
    beyond = g.maximum(g.absolute(values) - operation.bound, 0.0)
    v = beyond if inverse else g.arcsinh(beyond)
    if inverse:
        power = g.expm1(v)
        size = 0.5 * (power + power / (1.0 + power))  # sinh
    else:
        size = v
    result = g.where(beyond > 0.0, g.sign(values) * (operation.bound + size), values)
    log_cosh = v + g.log1p(g.exp(-2.0 * v)) - np.log(2)
    return _with(x, operation.places, result), g.total(log_cosh if inverse else -log_cosh)


@layer.register
def _(operation: ActNorm, theta: NDArray, x: Value, context: Value, dtype: str, *, inverse: bool = False) -> Any:
    """y = (x + bias) exp(logs), channel after channel of each pixel."""
    params, pixels = operation.views(theta), operation.dim // operation.channels
    logs, bias = np.tile(params["logs"], pixels), np.tile(params["bias"], pixels)
    y = x * np.exp(-logs) - bias if inverse else (x + bias) * np.exp(logs)
    return y, np.array([-logs.sum() if inverse else logs.sum()])


@layer.register
def _(operation: Conv1x1, theta: NDArray, x: Value, context: Value, dtype: str, *, inverse: bool = False) -> Any:
    """y = W x at every pixel."""
    c, n = operation.channels, operation.dim // operation.channels
    matrix = operation.views(theta)["matrix"]
    pixels = g.reshape(x, (n, c))
    if operation.parameterization == "full":
        _, log_abs_det = np.linalg.slogdet(matrix)
        pixels = g.matmul(pixels, np.linalg.inv(matrix) if inverse else matrix)
    else:
        log_abs_det, (lower, upper) = np.trace(matrix), _factors(matrix)
        pixels = _solved(pixels, lower, upper) if inverse else g.matmul(pixels, lower @ upper)
    return g.reshape(pixels, (operation.dim,)), np.array([-n * log_abs_det if inverse else n * log_abs_det])


@layer.register
def _(operation: LULinear, theta: NDArray, x: Value, context: Value, dtype: str, *, inverse: bool = False) -> Any:
    """y = L S U x[order] + shift."""
    params = operation.views(theta)
    lower, upper = _factors(params["matrix"])
    upper = upper * np.reshape(operation.signs or (1,) * operation.dim, (-1, 1))
    log_det = np.array([np.trace(params["matrix"])])
    if inverse:
        return g.place(_solved(x - params["shift"], lower, upper), operation.order, operation.dim), -log_det
    return g.matmul(g.take(x, operation.order), lower @ upper) + params["shift"], log_det


@layer.register
def _(operation: Householder, theta: NDArray, x: Value, context: Value, dtype: str, *, inverse: bool = False) -> Any:
    """y = Q x, whose inverse is the transpose."""
    matrix = reflections(operation.views(theta)["vectors"])
    return g.matmul(x, matrix.T if inverse else matrix), NO_LOG_DET


@layer.register
def _(operation: QRLinear, theta: NDArray, x: Value, context: Value, dtype: str, *, inverse: bool = False) -> Any:
    """y = Q R x + shift."""
    params = operation.views(theta)
    orthogonal, upper = reflections(params["vectors"]), triangle(params["upper"])
    log_det = np.array([np.trace(params["upper"])])
    if inverse:
        return g.matmul(g.matmul(x - params["shift"], orthogonal.T), np.linalg.inv(upper)), -log_det
    return g.matmul(x, orthogonal @ upper) + params["shift"], log_det


@layer.register
def _(operation: SVDLinear, theta: NDArray, x: Value, context: Value, dtype: str, *, inverse: bool = False) -> Any:
    """y = Q_1 D Q_2 x + shift."""
    params = operation.views(theta)
    left, right, logs = reflections(params["left"]), reflections(params["right"]), params["logs"]
    log_det = np.array([logs.sum()])
    if inverse:
        return g.matmul(x - params["shift"], right.T * np.exp(-logs) @ left.T), -log_det
    return g.matmul(x, left * np.exp(logs) @ right) + params["shift"], log_det


def _factors(matrix: NDArray) -> tuple[NDArray, NDArray]:
    """L and U, which lie in one matrix: L's diagonal is 1, and the matrix has the logarithm of U's."""
    return np.tril(matrix, -1) + np.eye(len(matrix)), np.triu(matrix, 1) + np.diag(np.exp(np.diag(matrix)))


def _solved(y: Value, lower: NDArray, upper: NDArray) -> Value:
    """U^-1 L^-1 y."""
    return g.matmul(g.matmul(y, np.linalg.inv(lower)), np.linalg.inv(upper))


@layer.register
def _(operation: Elementwise, theta: NDArray, x: Value, context: Value, dtype: str, *, inverse: bool = False) -> Any:
    """A map of each value with raw parameters of its own."""
    raw = operation.views(theta)["raw"]
    y, log_slopes = scalar_map(operation.transformer, theta[raw.size :], x, raw, dtype, np.arange(operation.dim),
                               inverse=inverse != operation.inverted)  # fmt: skip
    return y, g.total(log_slopes)


@layer.register
def _(operation: Coupling, theta: NDArray, x: Value, context: Value, dtype: str, *, inverse: bool = False) -> Any:
    """y[moved] = f(x[moved]; network(x[kept]))."""
    of_network, of_map = np.split(theta, [operation.conditioner.size])
    moved, n = operation.moved, len(operation.moved)
    kept = g.take(x, operation.kept) if operation.kept else np.zeros(0)
    if operation.n_circles:
        on_line = len(operation.kept) - operation.n_circles
        angle = np.pi / operation.bound * g.take(kept, np.arange(on_line, len(operation.kept)))
        line = [g.take(kept, np.arange(on_line))] if on_line else []
        kept = g.concat([*line, g.cos(angle), g.sin(angle)])
    raw = network(operation.conditioner, operation.conditioner.views(of_network), kept, context)
    raw = g.reshape(raw, (n, g.shape_of(raw)[0] // n))
    y, log_slopes = scalar_map(
        operation.transformer, of_map, g.take(x, moved), raw, dtype, np.arange(n), inverse=inverse != operation.inverted
    )
    return _with(x, moved, y), g.total(log_slopes)


@layer.register
def _(operation: Autoregressive, theta: NDArray, x: Value, context: Value, dtype: str, *, inverse: bool = False) -> Any:
    """y_k = f(x_k; network(x before k)), at once where x is known, else value by value."""
    of_network, of_map = np.split(theta, [operation.conditioner.size])
    params, n, m = operation.conditioner.views(of_network), operation.dim, operation.transformer.multiplier
    ordered = g.take(x, operation.order)
    if operation.inverted == inverse:
        seen = g.concat([part for k in range(n) for part in _seen(operation, k, g.take(ordered, [k]))]) if any(
            rows > 1 for rows in operation.conditioner.feature_rows) else ordered  # fmt: skip
        raw = g.reshape(network(operation.conditioner, params, seen, context), (n, m))
        y, log_slopes = scalar_map(operation.transformer, of_map, ordered, raw, dtype, np.arange(n))
        return g.place(y, operation.order, n), g.total(log_slopes)
    if n > MOST_STEPS:
        raise NotExportableError(
            f"this direction of an autoregressive layer of {n} columns takes one column after the other, and would be "
            f"written out as {n} steps; at most {MOST_STEPS} are"
        )
    steps, entered = MadeSteps(operation.conditioner, params, context), list[Value]()
    values, slopes = [], []
    for k in range(n):
        raw = g.reshape(steps.outputs(k, entered), (1, m))
        value, log_slope = scalar_map(operation.transformer, of_map, g.take(ordered, [k]), raw, dtype, np.array([k]),
                                      inverse=True)  # fmt: skip
        values.append(value)
        slopes.append(log_slope)
        entered += _seen(operation, k, value)
    return g.place(g.concat(values), operation.order, n), g.total(g.concat(slopes))


def _seen(operation: Autoregressive, k: int, value: Value) -> list[Value]:
    """What the network sees of the k-th value: itself, or its cosine and sine."""
    if operation.conditioner.feature_rows[k] == 1:
        return [value]
    angle = np.pi / operation.bound * value
    return [g.cos(angle), g.sin(angle)]


def _with(x: Value, places: tuple[int, ...], values: Value) -> Value:
    """x with other values in some places."""
    n = g.shape_of(x)[0]
    rest = np.setdiff1d(np.arange(n), places)
    if not len(rest):
        return g.place(values, places, n)
    return g.place(g.concat([g.take(x, rest), values]), [*rest, *places], n)
