"""Coupling layers: some values are left unchanged and condition the map of the others (Dinh et al., arXiv:1605.08803)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from npflows.backends.cpu.compiler.calls import Link, as_real, call
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.backends.cpu.kernels.blocks import gather, scatter
from npflows.core.checks import as_choice, as_dtype, as_mask, as_widths
from npflows.core.parameters import taken_over
from npflows.layers.actnorm import initial_rows
from npflows.layers.layer import Layer
from npflows.networks.convnet import ConvNet
from npflows.networks.mlp import MLP
from npflows.networks.options import network_options
from npflows.transformers.additive import Additive
from npflows.transformers.affine import SCALE_ACTIVATIONS, Affine
from npflows.transformers.rational_quadratic import RationalQuadratic

# spec: this header, then the indices of the values kept (those on circles last) and of those moved, the network's spec, the
# scalar map's
(N_LINE, N_CIRCLE, PER_BOUND, N_MOVED, MULTIPLIER, NETWORK_THETA, NETWORK_SPEC, MAP_SPEC, NETWORK_FORWARD, NETWORK_VJP,
 MAP_FORWARD, MAP_INVERSE, MAP_VJP, MAP_SOLVE, HEADER) = range(15)  # fmt: skip
# work: what the network sees of the kept values, the moved values before the map, the raw parameters, the network's own


@inlined
def n_features(spec):
    """Values that the network sees: one of each kept value on the line, cosine and sine of each on a circle."""
    return spec[N_LINE] + 2 * spec[N_CIRCLE]


@inlined
def start_of_moved(spec):
    return HEADER + spec[N_LINE] + spec[N_CIRCLE]


@inlined
def parts(spec, work):
    """kept (n_features, lanes), moved (n_moved, lanes), raw (n_moved * multiplier, lanes) and the network's work."""
    a = n_features(spec)
    b = a + spec[N_MOVED]
    c = b + spec[N_MOVED] * spec[MULTIPLIER]
    return work[:a], work[a:b], work[b:c], work[c:]


@inlined
def per_bound(spec, like):
    """1 / bound, for values on circles, which are the interval [-bound, bound]."""
    return like.dtype.type(as_real(spec[PER_BOUND]))


@inlined
def see(spec, block, kept):
    """kept = what the network sees of a block."""
    n, m = spec[N_LINE], spec[N_CIRCLE]
    gather(block, spec, HEADER, kept[:n])
    turn = per_bound(spec, block)
    for k in range(m):
        source, cosine, sine = block[spec[HEADER + n + k]], kept[n + k], kept[n + m + k]
        for t in range(source.size):
            cosine[t] = vecmath.cospi(source[t] * turn)
            sine[t] = vecmath.sinpi(source[t] * turn)


@inlined
def add_kept(spec, kept, dkept, dblock):
    """Add the gradient of what the network sees to that of the kept values."""
    n, m = spec[N_LINE], spec[N_CIRCLE]
    for k in range(n):
        target = dblock[spec[HEADER + k]]
        for t in range(dkept.shape[1]):
            target[t] += dkept[k, t]
    turn = per_bound(spec, dblock) * dblock.dtype.type(np.pi)
    for k in range(n, n + m):
        target = dblock[spec[HEADER + k]]
        for t in range(dkept.shape[1]):
            target[t] += turn * (kept[k, t] * dkept[m + k, t] - kept[m + k, t] * dkept[k, t])


@inlined
def condition_map(spec, theta, context, key, first, block, work, temp):
    """Fill kept and raw: the parameters of the map, from the values that are left unchanged."""
    kept, _, raw, network_work = parts(spec, work)
    see(spec, block, kept)
    call(spec[NETWORK_FORWARD], (spec[spec[NETWORK_SPEC] : spec[MAP_SPEC]], theta[: spec[NETWORK_THETA]], context, key,
                                 first, kept, raw, network_work, temp))  # fmt: skip


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    condition_map(spec, theta, context, key, first, block, work, temp)
    _, moved, raw, _ = parts(spec, work)
    y = temp[: spec[N_MOVED]]
    gather(block, spec, start_of_moved(spec), moved)
    gather(block, spec, start_of_moved(spec), y)
    call(spec[MAP_FORWARD], (spec[spec[MAP_SPEC] :], theta[spec[NETWORK_THETA] :], y, raw, log_det))
    scatter(y, spec, start_of_moved(spec), block)


@kernel
def inverse(spec, theta, context, key, first, block, log_det, work, temp):
    condition_map(spec, theta, context, key, first, block, work, temp)
    _, moved, raw, _ = parts(spec, work)
    gather(block, spec, start_of_moved(spec), moved)
    call(spec[MAP_INVERSE], (spec[spec[MAP_SPEC] :], theta[spec[NETWORK_THETA] :], moved, raw, log_det))
    scatter(moved, spec, start_of_moved(spec), block)


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    kept, moved, raw, network_work = parts(spec, work)
    a, b = spec[N_MOVED], spec[N_MOVED] + n_features(spec)
    dmoved, dkept = temp[:a], temp[a:b]
    gather(dblock, spec, start_of_moved(spec), dmoved)
    call(spec[MAP_VJP], (spec[spec[MAP_SPEC] :], theta[spec[NETWORK_THETA] :], moved, raw, dmoved, dlog_det,
                         dtheta[spec[NETWORK_THETA] :]))  # fmt: skip
    scatter(dmoved, spec, start_of_moved(spec), dblock)
    call(spec[NETWORK_VJP], (spec[spec[NETWORK_SPEC] : spec[MAP_SPEC]], theta[: spec[NETWORK_THETA]], context, key,
                             first, kept, raw, dkept, network_work, temp[b:], dtheta[: spec[NETWORK_THETA]],
                             dcontext))  # fmt: skip
    add_kept(spec, kept, dkept, dblock)


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    """With y = f(x), cotangents (dx, m) of the inverse and dL = -m: solve J^T dY = -dx - dL grad log_det on the moved
    half, push (dY, dL) through the forward vjp, and dy = -dY."""
    kept, moved, raw, network_work = parts(spec, work)
    a = spec[N_MOVED]
    b, c = 2 * a, 2 * a + n_features(spec)
    dY, dmoved, dkept, dL = temp[:a], temp[a:b], temp[b:c], temp[c]
    map_spec, map_theta = spec[spec[MAP_SPEC] :], theta[spec[NETWORK_THETA] :]
    dmap_theta = dtheta[spec[NETWORK_THETA] :]
    gather(dblock, spec, start_of_moved(spec), dY)
    for t in range(dlog_det.size):
        dL[t] = -dlog_det[t]
        for k in range(a):
            dY[k, t] = -dY[k, t]
    call(spec[MAP_SOLVE], (map_spec, map_theta, moved, raw, dY, dL, dmap_theta))
    for k in range(a):
        for t in range(dlog_det.size):
            dmoved[k, t] = dY[k, t]
            dY[k, t] = -dY[k, t]
    call(spec[MAP_VJP], (map_spec, map_theta, moved, raw, dmoved, dL, dmap_theta))
    call(spec[NETWORK_VJP], (spec[spec[NETWORK_SPEC] : spec[MAP_SPEC]], theta[: spec[NETWORK_THETA]], context, key,
                             first, kept, raw, dkept, network_work, temp[c + 1 :], dtheta[: spec[NETWORK_THETA]],
                             dcontext))  # fmt: skip
    scatter(dY, spec, start_of_moved(spec), dblock)
    add_kept(spec, kept, dkept, dblock)


class Coupling(Layer, abstract=True):
    """A coupling of any conditioner and any scalar map; `CouplingLayer` is the affine one.

    Values that `circular` marks are on circles, the interval [-bound, bound] whose ends are the same point: the network,
    which has `features_of(mask, circular)` inputs, sees their cosine and sine.
    """

    kernels = (forward, inverse, forward_vjp, inverse_vjp)

    def __init__(
        self,
        mask: np.ndarray,
        network: MLP | ConvNet,
        transformer: Affine | Additive | RationalQuadratic,
        dtype: object,
        *,
        circular: np.ndarray | None = None,
        bound: float = 1.0,
    ) -> None:
        on_circle = np.zeros(mask.size, bool) if circular is None else circular
        line, circle = np.flatnonzero((mask == 1) & ~on_circle), np.flatnonzero((mask == 1) & on_circle)
        self._kept, self._n_circle, self._bound = np.concatenate([line, circle]), len(circle), bound
        self._moved = np.flatnonzero(mask == 0)
        self._network, self._transformer = network, transformer
        self.initialized = False if isinstance(network, ConvNet) and network.actnorm else None
        n_moved = len(self._moved)
        parameters = taken_over(network, "network.")
        self._network_theta = sum(p.value.size for p in parameters)
        parameters += transformer.parameters(n_moved)
        super().__init__(
            mask.size,
            parameters,
            work_rows=network.n_in + n_moved * (1 + transformer.multiplier) + network.work_rows,
            temp_rows=network.n_in + 2 * n_moved + 1 + network.temp_rows,
            condition_dim=network.condition_dim,
            dtype=dtype,
        )

    @property
    def one_lane(self) -> bool:  # type: ignore[override]
        return self._network.one_lane

    def initialize(self, x: object, sample_weight: object = None, condition: object = None) -> None:
        """Set the activation normalisations of a convolutional network from rows x (n, input_dim) that enter the layer."""
        rows, weight, context = initial_rows(self, self.sample_shape, x, sample_weight, condition)
        views = {name.removeprefix("network."): view for name, view in self.parameters.views().items()}
        self._network.initialize(views, rows[:, self._kept], weight, context)
        self.initialized = True

    def spec(self, link: Link) -> list[int]:
        network, maps = self._network.kernels, self._transformer.kernels
        network_spec = HEADER + len(self._kept) + len(self._moved)
        inner = self._network.spec(link)
        return [
            len(self._kept) - self._n_circle,
            self._n_circle,
            *np.array([1 / self._bound]).view(np.int64).tolist(),
            len(self._moved),
            self._transformer.multiplier,
            self._network_theta,
            network_spec,
            network_spec + len(inner),
            link(*network["forward"], forward, inverse),
            link(*network["vjp"], forward_vjp, inverse_vjp),
            link(maps["forward"], "transformer", forward),
            link(maps["inverse"], "transformer", inverse),
            link(maps["vjp"], "transformer_vjp", forward_vjp, inverse_vjp),
            link(maps["solve"], "transformer_vjp", inverse_vjp),
            *self._kept.tolist(),
            *self._moved.tolist(),
            *inner,
            *self._transformer.spec(),
        ]


def features_of(mask: np.ndarray, circular: np.ndarray) -> int:
    """How many values the network of a coupling sees: two of each kept value on a circle."""
    return int((mask == 1).sum() + ((mask == 1) & circular).sum())


NETWORKS = ("dense", "conv")


def coupling_network(
    mask: np.ndarray, hidden_dims: Sequence[int], multiplier: int, network: str, actnorm: bool, options: dict[str, Any]
) -> MLP | ConvNet:  # fmt: skip
    """The network of a coupling that gives `multiplier` parameters for each moved value; `options` as `network_options`
    gives them, the mask in the shape of a sample."""
    if network == "dense":
        n_kept = int(mask.sum())
        return MLP(n_kept, hidden_dims, (mask.size - n_kept) * multiplier, **options)
    if mask.ndim != 3:
        raise ValueError(f"network='conv' needs a mask (height, width, channels), got one of shape {mask.shape}")
    options = dict(options)
    unsupported = options.pop("residual_blocks"), options.pop("dropout")
    if any(unsupported):
        raise ValueError("network='conv' has no residual_blocks and no dropout: leave both at 0")
    return ConvNet.for_mask(mask, hidden_dims, multiplier, actnorm=actnorm, **options)


class CouplingLayer(Coupling):
    """Affine coupling: y = x where the mask is 1, and y = x * exp(s) + t where it is 0.

    One network maps the unchanged values to s and t (Dinh et al. 2017, arXiv:1605.08803, equations 7 and 8).

    Parameters
    ----------
    mask : array_like of 0 and 1
        1: unchanged and conditions the others; 0: transformed.  At least one of each.  For images it may have their shape
        (height, width, channels), and must have for convolutions.
    hidden_dims : sequence of int
        Units of the network's hidden layers, or channels of its hidden convolutions.
    scale_activation : {"tanh", "tanh_gain", "none", "sigmoid"}
        How the log-scale s is bounded: by tanh, by tanh times a learned gain for each value (for each channel where the
        network is convolutional), not at all but for one clamp where exp would overflow, or as the logarithm of a sigmoid.
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}
    residual_blocks : int
        Where above 0, each network has so many residual blocks of the one width in `hidden_dims` instead of plain layers.
    dropout : float
        Share of hidden values that are set to 0 in training only, at least 0 and below 1.
    network : {"dense", "conv"}
        conv: a 3x3 convolution, 1x1 ones for all further `hidden_dims`, and a 3x3 one, which see 0 in the place of what is
        transformed.
    actnorm : bool
        Whether activation normalisation follows each hidden convolution; see `ActNormLayer`.
    shift_first : bool
        y = (x - t) * exp(-s) instead.
    image_shape : (int, int, int), optional
        The shape (height, width, channels) of a mask that is given flat.
    condition_dim : int
        Width of a condition that the network sees too.
    dtype : {"float32", "float64"}
        The compute dtype.
    rng : int, numpy.random.Generator or None
        Draws the network's first weights.  The layer starts as the identity, but for a sigmoid.
    """

    def __init__(
        self,
        mask: object,
        hidden_dims: Sequence[int] = (128, 128),
        scale_activation: str = "tanh",
        *,
        activation: str = "relu",
        residual_blocks: int = 0,
        dropout: float = 0.0,
        network: str = "dense",
        actnorm: bool = False,
        shift_first: bool = False,
        image_shape: Sequence[int] | None = None,
        condition_dim: int = 0,
        dtype: object = "float32",
        rng: object = None,
    ) -> None:
        self.mask, self.hidden_dims = as_mask(mask), as_widths(hidden_dims)
        shape = np.shape(mask) if image_shape is None else tuple(image_shape)
        if len(shape) not in (1, 3) or math.prod(shape) != self.mask.size:
            raise ValueError(f"mask must have shape (dim,) or (height, width, channels), got {shape}")
        self.image_shape = shape if len(shape) == 3 else None
        self.network = as_choice(network, "network", NETWORKS)
        self.actnorm, self.shift_first = bool(actnorm), bool(shift_first)
        self.scale_activation = as_choice(scale_activation, "scale_activation", list(SCALE_ACTIVATIONS))
        options = network_options(self, activation, residual_blocks, dropout, condition_dim, rng)
        shaped = self.mask.reshape(shape)
        conditioner = coupling_network(shaped, self.hidden_dims, Affine.multiplier, self.network, self.actnorm, options)
        n_gains = int((shaped == 0).any(axis=(0, 1)).sum()) if self.network == "conv" else None
        transformer = Affine(self.scale_activation, shift_first=self.shift_first, n_gains=n_gains)
        super().__init__(self.mask, conditioner, transformer, as_dtype(dtype))

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.image_shape or (self.input_dim,)
