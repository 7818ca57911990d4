"""Masked autoregressive layers: the map of each value is conditioned on those before it.

The direction in which the network's input is known (MAF: data -> latent) is one pass of the masked network; the other is
a nonlinear triangular solve that finishes one feature after another and uses every weight once (networks/made.py), and so
is the gradient through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from npflows.engine.params import Parameter
from npflows.kernels.blocks import gather, scatter
from npflows.kernels.calls import Link, call
from npflows.kernels.jit import inlined, kernel
from npflows.layers.layer import Layer
from npflows.networks.made import MADENetwork
from npflows.networks.options import network_options
from npflows.transformers.affine import SCALE_ACTIVATIONS, Affine
from npflows.transformers.rational_quadratic import RationalQuadratic
from npflows.validation import as_choice, as_dtype, as_int, as_order, as_widths

# spec: this header, then the order, the network's spec, the scalar map's
(DIM, MULTIPLIER, NETWORK_THETA, THETA_PER_VALUE, NETWORK_SPEC, MAP_SPEC, NETWORK_FORWARD, NETWORK_VJP, ADVANCE, RETREAT,
 WEIGHTS, MAP_FORWARD, MAP_INVERSE, MAP_VJP, MAP_SOLVE, HEADER) = range(16)  # fmt: skip
# work: the input in order, the raw parameters, the network's own


@inlined
def parts(spec, work):
    """x (dim, lanes) in order, raw (dim * multiplier, lanes) and the network's work."""
    a, b = spec[DIM], spec[DIM] * (1 + spec[MULTIPLIER])
    return work[:a], work[a:b], work[b:]


@inlined
def network_part(spec, theta):
    return spec[spec[NETWORK_SPEC] : spec[MAP_SPEC]], theta[: spec[NETWORK_THETA]]


@inlined
def map_of_value(spec, theta, k):
    """The scalar map's parameters for the k-th value."""
    start = spec[NETWORK_THETA] + k * spec[THETA_PER_VALUE]
    return theta[start : start + spec[THETA_PER_VALUE]]


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    x, raw, network_work = parts(spec, work)
    inner, weights = network_part(spec, theta)
    y = temp[: spec[DIM]]
    gather(block, spec, HEADER, x)
    call(spec[NETWORK_FORWARD], (inner, weights, context, key, first, x, raw, network_work, temp))
    gather(block, spec, HEADER, y)
    call(spec[MAP_FORWARD], (spec[spec[MAP_SPEC] :], theta[spec[NETWORK_THETA] :], y, raw, log_det))
    scatter(y, spec, HEADER, block)


@kernel
def inverse(spec, theta, context, key, first, block, log_det, work, temp):
    x, raw, network_work = parts(spec, work)
    inner, weights = network_part(spec, theta)
    m = spec[MULTIPLIER]
    for k in range(spec[DIM]):
        call(spec[ADVANCE], (inner, weights, context, key, first, x, raw, network_work, temp, k))
        value, target = x[k : k + 1], block[spec[HEADER + k]]
        for t in range(target.size):
            value[0, t] = target[t]
        call(spec[MAP_INVERSE], (spec[spec[MAP_SPEC] :], map_of_value(spec, theta, k), value, raw[k * m : (k + 1) * m],
                                 log_det))  # fmt: skip
        for t in range(target.size):
            target[t] = value[0, t]


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    x, raw, network_work = parts(spec, work)
    inner, weights = network_part(spec, theta)
    n = spec[DIM]
    direct, through = temp[:n], temp[n : 2 * n]
    gather(dblock, spec, HEADER, direct)
    call(spec[MAP_VJP], (spec[spec[MAP_SPEC] :], theta[spec[NETWORK_THETA] :], x, raw, direct, dlog_det,
                         dtheta[spec[NETWORK_THETA] :]))  # fmt: skip
    call(spec[NETWORK_VJP], (inner, weights, context, key, first, x, raw, through, network_work, temp[2 * n :],
                             dtheta[: spec[NETWORK_THETA]], dcontext))  # fmt: skip
    for k in range(n):
        target = dblock[spec[HEADER + k]]
        for t in range(target.size):
            target[t] = direct[k, t] + through[k, t]


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """With y = f(x), cotangents (dx, m) of the inverse and dL = -m: solve J^T dY = -dx - dL grad log_det by
    back-substitution, the last value first, while the gradients of the units that it unlocks become final;
    the parameters' gradients are those of the forward vjp at (dY, dL), and dy = -dY."""
    x, raw, network_work = parts(spec, work)
    inner, weights = network_part(spec, theta)
    n, m = spec[DIM], spec[MULTIPLIER]
    through, direct, dY, dL = temp[:n], temp[n : n + 1], temp[n + 1 : n + 2], temp[n + 2]
    network_temp = temp[n + 3 :]
    for t in range(dlog_det.size):
        dL[t] = -dlog_det[t]
    for k in range(n - 1, -1, -1):
        call(spec[RETREAT], (inner, weights, context, key, first, through, raw, network_work, network_temp, k))
        value, draw, target = x[k : k + 1], raw[k * m : (k + 1) * m], dblock[spec[HEADER + k]]
        map_spec, map_theta, dmap_theta = spec[spec[MAP_SPEC] :], map_of_value(spec, theta, k), map_of_value(
            spec, dtheta, k)  # fmt: skip
        for t in range(target.size):
            dY[0, t] = -target[t] - through[k, t]
        call(spec[MAP_SOLVE], (map_spec, map_theta, value, draw, dY, dL, dmap_theta))
        for t in range(target.size):
            direct[0, t] = dY[0, t]
            target[t] = -dY[0, t]
        call(spec[MAP_VJP], (map_spec, map_theta, value, draw, direct, dL, dmap_theta))
    call(spec[RETREAT], (inner, weights, context, key, first, through, raw, network_work, network_temp, -1))
    call(spec[WEIGHTS], (inner, weights, context, key, first, x, raw, through, network_work, network_temp,
                         dtheta[: spec[NETWORK_THETA]], dcontext))  # fmt: skip


class Autoregressive(Layer):
    """A masked autoregressive layer of any scalar map; `MAFLayer` and `IAFLayer` are the affine ones.

    `forward` takes the direction in which the network's input is known, unless `inverted`.
    """

    def __init__(
        self,
        order: np.ndarray,
        network: MADENetwork,
        transformer: Affine | RationalQuadratic,
        dtype: object,
        *,
        inverted: bool = False,
    ) -> None:
        self._network, self._transformer = network, transformer
        self._inverted = inverted
        self.order = order
        n = len(order)
        parameters = [Parameter(f"network.{p.name}", p.value, p.free) for p in network.parameters]
        self._network_theta = sum(p.size for p in parameters)
        parameters += transformer.parameters(n)
        super().__init__(
            n,
            parameters,
            work_rows=n * (1 + transformer.multiplier) + network.work_rows,
            temp_rows=2 * n + 3 + network.temp_rows,
            condition_dim=network.condition_dim,
            dtype=dtype,
        )

    @property
    def kernels(self) -> tuple[Callable, ...]:
        if self._inverted:
            return inverse, forward, inverse_vjp, forward_vjp
        return forward, inverse, forward_vjp, inverse_vjp

    def spec(self, link: Link) -> list[int]:
        network, maps, inner = self._network.kernels, self._transformer.kernels, self._network.spec(link)
        n = self.input_dim
        return [
            n,
            self._transformer.multiplier,
            self._network_theta,
            self._transformer.theta_per_value,
            HEADER + n,
            HEADER + n + len(inner),
            link(*network["forward"], forward),
            link(*network["vjp"], forward_vjp),
            link(*network["advance"], inverse),
            link(*network["retreat"], inverse_vjp),
            link(*network["weights"], inverse_vjp),
            link(maps["forward"], "transformer", forward),
            link(maps["inverse"], "transformer", inverse),
            link(maps["vjp"], "transformer_vjp", forward_vjp, inverse_vjp),
            link(maps["solve"], "transformer_vjp", inverse_vjp),
            *self.order.tolist(),
            *inner,
            *self._transformer.spec(),
        ]


class _AffineAutoregressive(Autoregressive):
    _inverted: bool

    def __init__(
        self,
        input_dim: int,
        hidden_dims: Sequence[int] = (128, 128),
        order: object = None,
        scale_activation: str = "tanh_gain",
        *,
        activation: str = "relu",
        residual_blocks: int = 0,
        dropout: float = 0.0,
        condition_dim: int = 0,
        dtype: object = "float32",
        rng: object = None,
    ) -> None:
        n = as_int(input_dim, "input_dim")
        self.hidden_dims = as_widths(hidden_dims)
        order = np.arange(n) if order is None else as_order(order, n)
        self.scale_activation = as_choice(scale_activation, "scale_activation", list(SCALE_ACTIVATIONS))
        transformer = Affine(self.scale_activation, shift_first=not self._inverted)
        options = network_options(self, activation, residual_blocks, dropout, condition_dim, rng)
        network = MADENetwork(n, self.hidden_dims, transformer.multiplier, **options)
        network.warn_of_lost_dependence(order)
        super().__init__(order, network, transformer, as_dtype(dtype), inverted=self._inverted)


class MAFLayer(_AffineAutoregressive):
    """Masked autoregressive layer: z = (x - mu(x)) * exp(-log_scale(x)).

    mu and log_scale of a value depend on the values before it in the order (Papamakarios et al. 2017, arXiv:1705.07057,
    equations 3 and 4).  `inverse` and its gradient take one pass too.

    Parameters
    ----------
    input_dim : int
        Number of features, at least 1.
    hidden_dims : sequence of int
        Units of the masked network's hidden layers; input_dim - 1 or more in each, or a warning says what is lost.
    order : array_like of int, optional
        order[k] is the feature that comes k-th; 0, 1, 2, ... by default.
    scale_activation : {"tanh_gain", "tanh", "none"}
        How log_scale is bounded, so that a network that extrapolates gives no absurd density; see `CouplingLayer`.
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}
    residual_blocks : int
        Where above 0, each network has so many residual blocks of the one width in `hidden_dims` instead of plain layers.
    dropout : float
        Share of hidden values that are set to 0 in training only, at least 0 and below 1.
    condition_dim : int
        Width of a condition that every feature depends on.
    dtype : {"float32", "float64"}
        The compute dtype.
    rng : int, numpy.random.Generator or None
        Draws the network's first weights.  The layer starts as the identity.
    """

    _inverted = False


class IAFLayer(_AffineAutoregressive):
    """Inverse autoregressive layer: x = z * exp(log_scale(z)) + mu(z).

    mu and log_scale of a value depend on the latent values before it (Kingma et al. 2016, arXiv:1606.04934, equations 10
    to 12).  `forward`, data to latent, is the sequential direction; it and its gradient take one pass too.

    Parameters
    ----------
    input_dim, hidden_dims, order, scale_activation, activation, residual_blocks, dropout, condition_dim, dtype, rng
        As in `MAFLayer`.
    """

    _inverted = True
