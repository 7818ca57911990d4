"""Masked autoregressive layers: the map of each value is conditioned on those before it.

The direction in which the network's input is known (MAF: data -> latent) is one pass of the masked network; the other is
a nonlinear triangular solve that finishes one feature after another and uses every weight once (networks/made.py), and so
is the gradient through it.  The network sees the cosine and sine of a value on a circle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from npflows.backends.cpu.compiler.calls import Link, as_real, call
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.kernels.blocks import gather, scatter
from npflows.core.checks import as_choice, as_dtype, as_int, as_order, as_widths
from npflows.core.parameters import taken_over
from npflows.layers.layer import Layer
from npflows.networks.made import MADENetwork
from npflows.networks.options import network_options
from npflows.transformers.affine import SCALE_ACTIVATIONS, Affine
from npflows.transformers.rational_quadratic import RationalQuadratic

# spec: this header, then the order, where in what the network sees each value begins and where its scalar map's spec does,
# the network's spec, the scalar map's for all values and for one
(DIM, MULTIPLIER, NETWORK_THETA, THETA_PER_VALUE, NETWORK_SPEC, MAP_SPEC, NETWORK_FORWARD, NETWORK_VJP, ADVANCE, RETREAT,
 WEIGHTS, MAP_FORWARD, MAP_INVERSE, MAP_VJP, MAP_SOLVE, SEEN, N_SEEN, PER_BOUND, HEADER) = range(19)  # fmt: skip
# work: the input in order, what the network sees of it where that has circles, the raw parameters, the network's own


@inlined
def parts(spec, work):
    """x (dim, lanes) in order, what the network sees of it (n_seen, lanes), raw (dim * multiplier, lanes) and the network's
    work."""
    n = spec[DIM]
    a = spec[SEEN]
    b = a + spec[N_SEEN]
    c = b + n * spec[MULTIPLIER]
    return work[:n], work[a:b], work[b:c], work[c:]


@inlined
def place_of(spec, k):
    """The first row of the k-th value in what the network sees, and whether it has two, being on a circle."""
    first = spec[HEADER + spec[DIM] + k]
    return first, spec[HEADER + spec[DIM] + k + 1] - first > 1


@inlined
def per_bound(spec, like):
    """1 / bound, for values on circles, which are the interval [-bound, bound]."""
    return like.dtype.type(as_real(spec[PER_BOUND]))


@inlined
def see(spec, x, seen, k):
    """Put the k-th value where the network sees it, if that is not x itself, as it is without circles."""
    first, on_circle = place_of(spec, k)
    source, cosine, turn = x[k], seen[first], per_bound(spec, x)
    if on_circle:
        sine = seen[first + 1]
        for t in range(source.size):
            cosine[t] = vecmath.cospi(source[t] * turn)
            sine[t] = vecmath.sinpi(source[t] * turn)
    else:
        for t in range(source.size):
            cosine[t] = source[t]


@inlined
def add_seen(spec, seen, through, k, target):
    """Add the gradient that reaches the k-th value through the network, from that of what the network sees."""
    first, on_circle = place_of(spec, k)
    if on_circle:
        turn = per_bound(spec, seen) * seen.dtype.type(np.pi)
        cosine, sine, dcosine, dsine = seen[first], seen[first + 1], through[first], through[first + 1]
        for t in range(target.size):
            target[t] += turn * (cosine[t] * dsine[t] - sine[t] * dcosine[t])
    else:
        for t in range(target.size):
            target[t] += through[first, t]


@inlined
def network_part(spec, theta):
    return spec[spec[NETWORK_SPEC] : spec[MAP_SPEC]], theta[: spec[NETWORK_THETA]]


@inlined
def map_spec_of_value(spec, k):
    """The scalar map's spec for the k-th value."""
    return spec[spec[HEADER + 2 * spec[DIM] + 1 + k] :]


@inlined
def map_of_value(spec, theta, k):
    """The scalar map's parameters for the k-th value."""
    start = spec[NETWORK_THETA] + k * spec[THETA_PER_VALUE]
    return theta[start : start + spec[THETA_PER_VALUE]]


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    x, seen, raw, network_work = parts(spec, work)
    inner, weights = network_part(spec, theta)
    y = temp[: spec[DIM]]
    gather(block, spec, HEADER, x)
    if spec[SEEN] > 0:
        for k in range(spec[DIM]):
            see(spec, x, seen, k)
    call(spec[NETWORK_FORWARD], (inner, weights, context, key, first, seen, raw, network_work, temp))
    gather(block, spec, HEADER, y)
    call(spec[MAP_FORWARD], (spec[spec[MAP_SPEC] :], theta[spec[NETWORK_THETA] :], y, raw, log_det))
    scatter(y, spec, HEADER, block)


@kernel
def inverse(spec, theta, context, key, first, block, log_det, work, temp):
    x, seen, raw, network_work = parts(spec, work)
    inner, weights = network_part(spec, theta)
    m = spec[MULTIPLIER]
    for k in range(spec[DIM]):
        call(spec[ADVANCE], (inner, weights, context, key, first, seen, raw, network_work, temp, k))
        value, target = x[k : k + 1], block[spec[HEADER + k]]
        for t in range(target.size):
            value[0, t] = target[t]
        call(spec[MAP_INVERSE], (map_spec_of_value(spec, k), map_of_value(spec, theta, k), value,
                                 raw[k * m : (k + 1) * m], log_det))  # fmt: skip
        if spec[SEEN] > 0:
            see(spec, x, seen, k)
        for t in range(target.size):
            target[t] = value[0, t]


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    x, seen, raw, network_work = parts(spec, work)
    inner, weights = network_part(spec, theta)
    n, end = spec[DIM], spec[DIM] + spec[N_SEEN]
    direct, through = temp[:n], temp[n:end]
    gather(dblock, spec, HEADER, direct)
    call(spec[MAP_VJP], (spec[spec[MAP_SPEC] :], theta[spec[NETWORK_THETA] :], x, raw, direct, dlog_det,
                         dtheta[spec[NETWORK_THETA] :]))  # fmt: skip
    call(spec[NETWORK_VJP], (inner, weights, context, key, first, seen, raw, through, network_work, temp[end:],
                             dtheta[: spec[NETWORK_THETA]], dcontext))  # fmt: skip
    for k in range(n):
        add_seen(spec, seen, through, k, direct[k])
    scatter(direct, spec, HEADER, dblock)


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """With y = f(x), cotangents (dx, m) of the inverse and dL = -m: solve J^T dY = -dx - dL grad log_det by
    back-substitution, the last value first, while the gradients of the units that it unlocks become final;
    the parameters' gradients are those of the forward vjp at (dY, dL), and dy = -dY."""
    x, seen, raw, network_work = parts(spec, work)
    inner, weights = network_part(spec, theta)
    n, m, end = spec[DIM], spec[MULTIPLIER], spec[N_SEEN]
    through, direct, dY, dL = temp[:end], temp[end : end + 1], temp[end + 1 : end + 2], temp[end + 2]
    network_temp = temp[end + 3 :]
    for t in range(dlog_det.size):
        dL[t] = -dlog_det[t]
    for k in range(n - 1, -1, -1):
        call(spec[RETREAT], (inner, weights, context, key, first, through, raw, network_work, network_temp, k))
        value, draw, target = x[k : k + 1], raw[k * m : (k + 1) * m], dblock[spec[HEADER + k]]
        map_spec, map_theta, dmap_theta = map_spec_of_value(spec, k), map_of_value(spec, theta, k), map_of_value(
            spec, dtheta, k)  # fmt: skip
        add_seen(spec, seen, through, k, target)
        for t in range(target.size):
            dY[0, t] = -target[t]
        call(spec[MAP_SOLVE], (map_spec, map_theta, value, draw, dY, dL, dmap_theta))
        for t in range(target.size):
            direct[0, t] = dY[0, t]
            target[t] = -dY[0, t]
        call(spec[MAP_VJP], (map_spec, map_theta, value, draw, direct, dL, dmap_theta))
    call(spec[RETREAT], (inner, weights, context, key, first, through, raw, network_work, network_temp, -1))
    call(spec[WEIGHTS], (inner, weights, context, key, first, seen, raw, through, network_work, network_temp,
                         dtheta[: spec[NETWORK_THETA]], dcontext))  # fmt: skip


class Autoregressive(Layer, abstract=True):
    """A masked autoregressive layer of any scalar map; `MAFLayer` and `IAFLayer` are the affine ones.

    `forward` takes the direction in which the network's input is known, unless `inverted`.  Values that the network takes
    for circular, in their order, are on circles: the interval [-bound, bound] whose ends are the same point.
    """

    def __init__(
        self,
        order: np.ndarray,
        network: MADENetwork,
        transformer: Affine | RationalQuadratic,
        dtype: object,
        *,
        inverted: bool = False,
        bound: float = 1.0,
    ) -> None:
        self._network, self._transformer = network, transformer
        self._inverted, self._bound = inverted, bound
        self.order = order
        n = len(order)
        parameters = taken_over(network, "network.")
        self._network_theta = sum(p.value.size for p in parameters)
        parameters += transformer.parameters(n)
        super().__init__(
            n,
            parameters,
            work_rows=self._seen_from + network.n_in + n * transformer.multiplier + network.work_rows,
            temp_rows=n + network.n_in + 3 + network.temp_rows,
            condition_dim=network.condition_dim,
            dtype=dtype,
        )

    @property
    def _seen_from(self) -> int:
        """The row of work from which on the network sees values: x itself, unless it sees more rows."""
        n = len(self.order)
        return n if self._network.n_in > n else 0

    @property
    def kernels(self) -> tuple[Callable, ...]:
        if self._inverted:
            return inverse, forward, inverse_vjp, forward_vjp
        return forward, inverse, forward_vjp, inverse_vjp

    def spec(self, link: Link) -> list[int]:
        network, maps, inner = self._network.kernels, self._transformer.kernels, self._network.spec(link)
        n = self.input_dim
        network_spec = HEADER + 3 * n + 1
        map_specs, map_spec = self._transformer.spec(), network_spec + len(inner)
        starts: dict[tuple[int, ...], int] = {}
        for k in range(n):  # values of a kind share one
            one = tuple(self._transformer.spec(k))
            if one not in starts:
                starts[one] = map_spec + len(map_specs)
                map_specs += one
        return [
            n,
            self._transformer.multiplier,
            self._network_theta,
            self._transformer.theta_per_value,
            network_spec,
            map_spec,
            link(*network["forward"], forward),
            link(*network["vjp"], forward_vjp),
            link(*network["advance"], inverse),
            link(*network["retreat"], inverse_vjp),
            link(*network["weights"], inverse_vjp),
            link(maps["forward"], "transformer", forward),
            link(maps["inverse"], "transformer", inverse),
            link(maps["vjp"], "transformer_vjp", forward_vjp, inverse_vjp),
            link(maps["solve"], "transformer_vjp", inverse_vjp),
            self._seen_from,
            self._network.n_in,
            *np.array([1 / self._bound]).view(np.int64).tolist(),
            *self.order.tolist(),
            *self._network.entered(),
            *(starts[tuple(self._transformer.spec(k))] for k in range(n)),
            *inner,
            *map_specs,
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
