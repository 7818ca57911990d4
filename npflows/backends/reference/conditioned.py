"""Layers whose scalar maps take their parameters from a network, or from the vector of parameters itself.

Both directions of a scalar map have a gradient, so that a layer's `inverse_vjp` is what its `inverse` says, carried back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npflows.backends.reference.common import Given, Gradients
from npflows.backends.reference.layers import forward, forward_vjp, inverse, inverse_vjp, placed
from npflows.backends.reference.networks import network, network_vjp
from npflows.backends.reference.scalar_maps import MapGradients, scalar_map, scalar_map_vjp
from npflows.core.operations import Autoregressive, Coupling, Elementwise, MadeOutputs


def _each(dlog_det: NDArray, values: NDArray) -> NDArray:
    """The gradient of each value's log-slope, whose sum over a sample is the log-determinant."""
    return np.broadcast_to(dlog_det[:, None], values.shape)


# Coupling: y[kept] = x[kept], y[moved] = f(x[moved]; network(x[kept]))


@forward.register
def _(operation: Coupling, theta: NDArray, x: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    return _couple(operation, theta, x, given, inverse=operation.inverted)


@inverse.register
def _(operation: Coupling, theta: NDArray, y: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    return _couple(operation, theta, y, given, inverse=not operation.inverted)


@forward_vjp.register
def _(
    operation: Coupling, theta: NDArray, x: NDArray, dy: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    return _couple_vjp(operation, theta, x, dy, dlog_det, given, inverse=operation.inverted)


@inverse_vjp.register
def _(
    operation: Coupling, theta: NDArray, y: NDArray, dx: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    return _couple_vjp(operation, theta, y, dx, dlog_det, given, inverse=not operation.inverted)


def _couple(
    operation: Coupling, theta: NDArray, x: NDArray, given: Given, *, inverse: bool
) -> tuple[NDArray, NDArray]:  # fmt: skip
    of_network, of_map = np.split(theta, [operation.conditioner.size])
    moved, y = list(operation.moved), x.copy()
    raw = network(operation.conditioner, of_network, _seen_of_kept(operation, x), given).reshape(len(x), len(moved), -1)
    y[:, moved], log_slopes = scalar_map(operation.transformer, of_map, x[:, moved], raw, inverse=inverse)
    return y, log_slopes.sum(axis=1)


def _couple_vjp(
    operation: Coupling,
    theta: NDArray,
    x: NDArray,
    dy: NDArray,
    dlog_det: NDArray,
    given: Given,
    *,
    inverse: bool,
) -> Gradients:
    of_network, of_map = np.split(theta, [operation.conditioner.size])
    moved, kept, n = list(operation.moved), list(operation.kept), len(x)
    seen = _seen_of_kept(operation, x)
    raw = network(operation.conditioner, of_network, seen, given).reshape(n, len(moved), -1)
    by_map = scalar_map_vjp(operation.transformer, of_map, x[:, moved], raw, dy[:, moved],
                            _each(dlog_det, x[:, moved]), inverse=inverse)  # fmt: skip
    by_network = network_vjp(operation.conditioner, of_network, seen, by_map.raw.reshape(n, -1), given)
    dx = np.empty_like(dy)
    dx[:, moved] = by_map.x
    dx[:, kept] = dy[:, kept] + _seen_of_kept_vjp(operation, seen, by_network.x)
    return Gradients(dx, np.concatenate([by_network.theta, by_map.theta]), by_network.context)


def _seen_of_kept(operation: Coupling, x: NDArray) -> NDArray:
    """The input of the network: kept values on the line, then the cosines and the sines of those on circles."""
    kept = x[:, list(operation.kept)]
    line, circles = np.split(kept, [kept.shape[1] - operation.n_circles], axis=1)
    angle = np.pi * circles / operation.bound
    return np.concatenate([line, np.cos(angle), np.sin(angle)], axis=1)


def _seen_of_kept_vjp(operation: Coupling, seen: NDArray, dseen: NDArray) -> NDArray:
    """The gradient of the kept values:  d cos(a) = -sin(a) da,  d sin(a) = cos(a) da,  a = pi x / bound."""
    m = operation.n_circles
    cuts = [seen.shape[1] - 2 * m, seen.shape[1] - m]
    _, cosine, sine = np.split(seen, cuts, axis=1)
    dline, dcosine, dsine = np.split(dseen, cuts, axis=1)
    return np.concatenate([dline, np.pi / operation.bound * (cosine * dsine - sine * dcosine)], axis=1)


# Autoregressive: the map of the k-th value in order takes its parameters from a network of the values before it


@forward.register
def _(operation: Autoregressive, theta: NDArray, x: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    step = _sequential if operation.inverted else _at_once
    return step(operation, theta, x, given)


@inverse.register
def _(operation: Autoregressive, theta: NDArray, y: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    step = _at_once if operation.inverted else _sequential
    return step(operation, theta, y, given)


@forward_vjp.register
def _(
    operation: Autoregressive, theta: NDArray, x: NDArray, dy: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    step = _sequential_vjp if operation.inverted else _at_once_vjp
    return step(operation, theta, x, dy, dlog_det, given)


@inverse_vjp.register
def _(
    operation: Autoregressive, theta: NDArray, y: NDArray, dx: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    step = _at_once_vjp if operation.inverted else _sequential_vjp
    return step(operation, theta, y, dx, dlog_det, given)


def _at_once(operation: Autoregressive, theta: NDArray, x: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """y_k = f(x_k; network(x)_k), in one pass of the network (Papamakarios et al. 2017, arXiv:1705.07057, equation 4)."""
    of_network, of_map = np.split(theta, [operation.conditioner.size])
    ordered = x[:, list(operation.order)]
    raw = _raw(operation, of_network, ordered, given)
    y, log_slopes = scalar_map(operation.transformer, of_map, ordered, raw)
    return placed(operation.order, y), log_slopes.sum(axis=1)


def _at_once_vjp(
    operation: Autoregressive, theta: NDArray, x: NDArray, dy: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    of_network, of_map = np.split(theta, [operation.conditioner.size])
    order = list(operation.order)
    ordered = x[:, order]
    raw = _raw(operation, of_network, ordered, given)
    by_map = scalar_map_vjp(operation.transformer, of_map, ordered, raw, dy[:, order], _each(dlog_det, ordered))
    by_network = _raw_vjp(operation, of_network, ordered, by_map.raw, given)
    dx = placed(operation.order, by_map.x + by_network.x)
    return Gradients(dx, np.concatenate([by_network.theta, by_map.theta]), by_network.context)


def _sequential(operation: Autoregressive, theta: NDArray, y: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """x_k = f^-1(y_k; network(x)_k): as its k-th outputs see the values before k alone, one pass of the whole network gives
    one value after the other (Papamakarios et al. 2017, arXiv:1705.07057, section 2.2)."""
    of_network, of_map = np.split(theta, [operation.conditioner.size])
    ordered = y[:, list(operation.order)]
    x = np.zeros_like(ordered)
    for k in range(operation.dim):
        raw = _raw(operation, of_network, x, given)
        x[:, k] = scalar_map(operation.transformer, of_map, ordered, raw, inverse=True)[0][:, k]
    raw = _raw(operation, of_network, x, given)
    _, log_slopes = scalar_map(operation.transformer, of_map, ordered, raw, inverse=True)
    return placed(operation.order, x), log_slopes.sum(axis=1)


def _sequential_vjp(
    operation: Autoregressive, theta: NDArray, y: NDArray, dx: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    """The whole gradient of x_k is its own and what reaches it through the network, from the maps of the values after it:
    so one pass of the whole network's gradient gives one value after the other, the last one first."""
    of_network, of_map = np.split(theta, [operation.conditioner.size])
    order = list(operation.order)
    ordered = y[:, order]
    x = _sequential(operation, theta, y, given)[0][:, order]
    raw = _raw(operation, of_network, x, given)

    def through_map(whole: NDArray) -> MapGradients:
        return scalar_map_vjp(operation.transformer, of_map, ordered, raw, whole, _each(dlog_det, ordered), inverse=True)

    whole = dx[:, order]
    for k in reversed(range(operation.dim)):
        through_network = _raw_vjp(operation, of_network, x, through_map(whole).raw, given).x
        whole[:, k] += through_network[:, k]
    by_map = through_map(whole)
    by_network = _raw_vjp(operation, of_network, x, by_map.raw, given)
    dtheta = np.concatenate([by_network.theta, by_map.theta])
    return Gradients(placed(operation.order, by_map.x), dtheta, by_network.context)


def _raw(operation: Autoregressive, theta: NDArray, ordered: NDArray, given: Given) -> NDArray:
    """Raw parameters (n, dim, multiplier) of the maps, from the values in order."""
    outputs = network(operation.conditioner, theta, _seen_in_order(operation, ordered), given)
    return outputs.reshape(len(ordered), operation.dim, -1)


def _raw_vjp(operation: Autoregressive, theta: NDArray, ordered: NDArray, draw: NDArray, given: Given) -> Gradients:
    seen = _seen_in_order(operation, ordered)
    gradients = network_vjp(operation.conditioner, theta, seen, draw.reshape(len(ordered), -1), given)
    return gradients._replace(x=_seen_in_order_vjp(operation, seen, gradients.x))


def _seen_in_order(operation: Autoregressive, ordered: NDArray) -> NDArray:
    """The input of the network: value after value, the cosine and sine of one that is on a circle."""
    columns = []
    for k, rows in enumerate(operation.conditioner.feature_rows):
        angle = np.pi * ordered[:, k] / operation.bound
        columns += [ordered[:, k]] if rows == 1 else [np.cos(angle), np.sin(angle)]
    return np.stack(columns, axis=1)


def _seen_in_order_vjp(operation: Autoregressive, seen: NDArray, dseen: NDArray) -> NDArray:
    """The gradient of the values:  d cos(a) = -sin(a) da,  d sin(a) = cos(a) da,  a = pi x / bound."""
    columns = []
    for start, rows in zip(operation.conditioner.entered, operation.conditioner.feature_rows):
        if rows == 1:
            columns.append(dseen[:, start])
        else:
            cosine, sine = seen[:, start : start + 2].T
            dcosine, dsine = dseen[:, start : start + 2].T
            columns.append(np.pi / operation.bound * (cosine * dsine - sine * dcosine))
    return np.stack(columns, axis=1)


# Elementwise: the raw parameters are learned directly


@forward.register
def _(operation: Elementwise, theta: NDArray, x: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """y_d = f(x_d; raw_d), or its inverse where the layer is inverted."""
    raw, of_map = _own(operation, theta, len(x))
    y, log_slopes = scalar_map(operation.transformer, of_map, x, raw, inverse=operation.inverted)
    return y, log_slopes.sum(axis=1)


@inverse.register
def _(operation: Elementwise, theta: NDArray, y: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """x_d = f^-1(y_d; raw_d)."""
    raw, of_map = _own(operation, theta, len(y))
    x, log_slopes = scalar_map(operation.transformer, of_map, y, raw, inverse=not operation.inverted)
    return x, log_slopes.sum(axis=1)


@forward_vjp.register
def _(
    operation: Elementwise, theta: NDArray, x: NDArray, dy: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    raw, of_map = _own(operation, theta, len(x))
    each = _each(dlog_det, x)
    by_map = scalar_map_vjp(operation.transformer, of_map, x, raw, dy, each, inverse=operation.inverted)
    return _own_gradients(by_map, given)


@inverse_vjp.register
def _(
    operation: Elementwise, theta: NDArray, y: NDArray, dx: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    raw, of_map = _own(operation, theta, len(y))
    each = _each(dlog_det, y)
    by_map = scalar_map_vjp(operation.transformer, of_map, y, raw, dx, each, inverse=not operation.inverted)
    return _own_gradients(by_map, given)


def _own(operation: Elementwise, theta: NDArray, n: int) -> tuple[NDArray, NDArray]:
    """Raw parameters (n, dim, multiplier), the same for all samples, and the map's learned ones."""
    raw = operation.views(theta)["raw"]
    return np.broadcast_to(raw, (n, *raw.shape)), theta[raw.size :]


def _own_gradients(by_map: MapGradients, given: Given) -> Gradients:
    dtheta = np.concatenate([by_map.raw.sum(axis=0).ravel(), by_map.theta])
    return Gradients(by_map.x, dtheta, np.zeros_like(given.context))


# MadeOutputs: the masked network by itself, which has no inverse and no log-determinant


@forward.register
def _(operation: MadeOutputs, theta: NDArray, x: NDArray, given: Given) -> tuple[NDArray, NDArray]:
    """Output j of feature d is value j * D + d of the result, for x in the first D of `dim` values."""
    order = list(operation.order)
    raw = network(operation.conditioner, theta, x[:, order], given).reshape(len(x), len(order), -1)
    outputs = np.empty_like(raw)
    outputs[:, order] = raw
    return outputs.swapaxes(1, 2).reshape(len(x), -1), np.zeros(len(x))


@forward_vjp.register
def _(
    operation: MadeOutputs, theta: NDArray, x: NDArray, dy: NDArray, dlog_det: NDArray, given: Given
) -> Gradients:  # fmt: skip
    order, n = list(operation.order), len(x)
    draw = dy.reshape(n, -1, len(order)).swapaxes(1, 2)[:, order]
    gradients = network_vjp(operation.conditioner, theta, x[:, order], draw.reshape(n, -1), given)
    dx = np.zeros_like(dy)
    dx[:, order] = gradients.x
    return gradients._replace(x=dx)
