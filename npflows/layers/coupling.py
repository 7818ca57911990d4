"""Coupling layers: some values are left unchanged and condition the map of the others (Dinh et al., arXiv:1605.08803)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.core import operations
from npflows.core.checks import SeedLike, as_choice, as_flag, as_mask, as_positive, as_rng, as_widths
from npflows.core.operations import SCALE_ACTIVATIONS
from npflows.core.parameters import prefixed
from npflows.layers.actnorm import initial_rows
from npflows.layers.circles import CircleLayer, as_circles, check_map
from npflows.networks import convnet, mlp
from npflows.networks.options import DenseOptions
from npflows.transformers.scalar_maps import as_max_scale, as_min_scale, first_parameters


class Coupling(CircleLayer):
    """A coupling of any network and any scalar map: one saved layer; `CouplingLayer` is the affine one.

    Values where the mask is 1 are left unchanged, and the network makes of them the raw parameters of the scalar map of the
    others (Dinh et al. 2017, arXiv:1605.08803).

    Parameters
    ----------
    mask : array_like of 0 and 1
        1: unchanged and conditions the others; 0: transformed.  At least one of each.
    conditioner : network
        Of `npflows.networks.dense` or `npflows.networks.convolutional`, with an input for each value that is unchanged and
        `transformer.multiplier` outputs for each of the others.
    transformer : scalar map
        One of `npflows.transformers`.
    dtype : {"float32", "float64"}
        The compute dtype.
    rng : int, numpy.random.Generator or None
        Draws the first weights; those of the network's last layer are 0.
    circular : array_like of bool, optional
        Which values are on a circle: the interval [-bound, bound], whose ends are the same point.  The network has two
        inputs for each of them that is unchanged, cosine and sine, those of all circles after the other values.
    bound : float
        Half the circumference of the circles, above 0.
    inverted : bool
        Whether `forward` is the inverse of the scalar map.

    Raises
    ------
    ValueError
        If network, scalar map and mask don't fit together.
    """

    mask: ArrayLike

    def __init__(
        self,
        mask: ArrayLike,
        conditioner: operations.Mlp | operations.ConvNet,
        transformer: operations.ScalarMap,
        dtype: DTypeLike = "float32",
        *,
        rng: SeedLike = None,
        circular: ArrayLike | None = None,
        bound: float = 1.0,
        inverted: bool = False,
    ) -> None:
        flags = as_mask(mask)
        self.mask, self.inverted, self.bound = flags, as_flag(inverted, "inverted"), as_positive(bound, "bound")
        self.conditioner, self.transformer = conditioner, transformer
        on_circle = as_circles(circular, flags.size)
        self.circular = on_circle if on_circle.any() else None
        line, circle = np.flatnonzero((flags == 1) & ~on_circle), np.flatnonzero((flags == 1) & on_circle)
        kept, moved = [*line.tolist(), *circle.tolist()], np.flatnonzero(flags == 0).tolist()
        check_map(transformer, on_circle[moved], self.bound)
        check_network(conditioner, len(kept) + len(circle), len(moved) * transformer.multiplier, flags.size)
        self._operation = operations.Coupling(tuple(kept), tuple(moved), conditioner, transformer, len(circle), self.bound,
                                              self.inverted)  # fmt: skip
        self.initialized = False if isinstance(conditioner, operations.ConvNet) and conditioner.actnorm else None
        generator = as_rng(rng)
        first = (
            convnet.first_parameters(conditioner, generator)
            if isinstance(conditioner, operations.ConvNet)
            else mlp.first_parameters(conditioner, generator)
        )
        super().__init__(
            flags.size,
            [*prefixed("network.", first), *first_parameters(transformer, len(moved))],
            condition_dim=conditioner.condition_dim,
            dtype=dtype,
        )

    def operation(self) -> operations.Coupling:
        return self._operation

    def initialize(self, x: ArrayLike, sample_weight: ArrayLike | None = None, condition: ArrayLike | None = None) -> None:
        """Set the activation normalizations of a convolutional network from rows x (n, input_dim) that enter the layer;
        other networks have none."""
        network = self._operation.conditioner
        if not isinstance(network, operations.ConvNet):
            return
        rows, weight, context = initial_rows(self, self.sample_shape, x, sample_weight, condition)
        views = {name.removeprefix("network."): view for name, view in self.parameters.views().items()}
        convnet.initialize(network, views, rows[:, list(self._operation.kept)], weight, context)
        self.initialized = True


def check_network(network: operations.Mlp | operations.ConvNet, n_seen: int, n_given: int, n_values: int) -> None:
    """Refuse a network that does not fit the values that a coupling keeps, or the raw parameters that it is to give.

    Raises
    ------
    TypeError
        If it is no network of couplings.
    ValueError
        If numbers don't fit.
    """
    if not isinstance(network, (operations.Mlp, operations.ConvNet)):
        raise TypeError(f"conditioner must be a network of npflows.networks, dense or convolutional, got {network!r}")
    if (network.n_in, network.n_out) != (n_seen, n_given):
        raise ValueError(f"the network of this coupling needs {n_seen} inputs and {n_given} outputs, got one of "
                         f"{network.n_in} and {network.n_out}")  # fmt: skip
    if isinstance(network, operations.ConvNet) and n_values % (network.height * network.width):
        raise ValueError(f"convolutions of {network.height} x {network.width} pixels don't fit a mask of {n_values} values")


def features_of(mask: NDArray[np.int64], circular: NDArray[np.bool_]) -> int:
    """The number of inputs of a coupling's network: two of each kept value on a circle, one of the others."""
    return int((mask == 1).sum() + ((mask == 1) & circular).sum())


NETWORKS = ("dense", "conv")


def coupling_network(
    network: str,
    mask: NDArray[np.int64],
    hidden_dims: Sequence[int],
    multiplier: int,
    *,
    actnorm: bool,
    activation: str,
    condition_dim: int,
    residual_blocks: int = 0,
    dropout: float = 0.0,
    residual_activations: str = "all",
    gated: bool = False,
    condition_in: str = "first",
) -> operations.Mlp | operations.ConvNet:
    """The network of a coupling that gives `multiplier` parameters for each moved value; the mask has the shape of a
    sample."""
    if network == "dense":
        n_kept = int(mask.sum())
        return mlp.dense(n_kept, hidden_dims, (mask.size - n_kept) * multiplier, activation=activation,
                         residual_blocks=residual_blocks, dropout=dropout, residual_activations=residual_activations,
                         gated=gated, condition_in=condition_in, condition_dim=condition_dim)  # fmt: skip
    if mask.ndim != 3:
        raise ValueError(f"network='conv' needs a mask (height, width, channels), got one of shape {mask.shape}")
    if residual_blocks or dropout:
        raise ValueError("network='conv' has no residual_blocks and no dropout: leave both at 0")
    return convnet.convolutional(
        mask, hidden_dims, multiplier, activation=activation, actnorm=actnorm, condition_dim=condition_dim
    )


@dataclass(repr=False, eq=False)
class MaskCoupling(Coupling, DenseOptions, abstract=True):
    """A coupling of a given mask, whose network has given hidden layers.

    Parameters
    ----------
    mask : array_like of 0 and 1
        1: unchanged and conditions the others; 0: transformed.  At least one of each.
    hidden_dims : sequence of int
        Units of the network's hidden layers.
    activation, condition_dim, dtype, rng
        See `npflows.networks.options.NetworkOptions`.
    residual_blocks, dropout, residual_activations, gated, condition_in
        See `npflows.networks.options.DenseOptions`.
    """

    mask: ArrayLike
    hidden_dims: Sequence[int] = (128, 128)

    def __post_init__(self, *init_only: Any) -> None:
        super().__post_init__(*init_only)
        self.mask, self.hidden_dims = as_mask(self.mask), as_widths(self.hidden_dims)


@dataclass(repr=False, eq=False)
class CouplingLayer(MaskCoupling):
    """Affine coupling: y = x where the mask is 1, and y = x * exp(s) + t where it is 0.

    One network maps the unchanged values to s and t (Dinh et al. 2017, arXiv:1605.08803, equations 7 and 8).  The layer
    starts as the identity, but for a sigmoid.

    Parameters
    ----------
    mask : array_like of 0 and 1
        1: unchanged and conditions the others; 0: transformed.  At least one of each.  For images it may have their shape
        (height, width, channels), and must have for convolutions.
    hidden_dims : sequence of int
        Units of the network's hidden layers, or channels of its hidden convolutions.
    scale_activation : {"tanh", "tanh_gain", "none", "sigmoid", "softplus", "soft_clip", "hard_clip", "tanh_clip", \
"sigmoid_clip", "atan_clip"}
        How the log-scale s is bounded: by tanh, by tanh times a learned gain for each value (for each channel where the
        network is convolutional), not at all but for one clamp where exp would overflow, as the logarithm of
        sigmoid(r + 2) or softplus(r), with `min_scale` added, or by a clip, between -b and b = -log(min_scale): softly as
        r / (1 + |r| / b), hard as r itself up to the ends (the upper one is log(max_scale)), or as b tanh(r),
        b (2 sigmoid(r) - 1) or 0.636 b arctan(r), FrEIA's clamps.
    network : {"dense", "conv"}
        conv: a 3x3 convolution, 1x1 ones for all further `hidden_dims`, and a 3x3 one, which see 0 in the place of what is
        transformed.
    actnorm : bool
        Whether activation normalization follows each hidden convolution; see `ActNormLayer`.
    shift_first : bool
        y = (x - t) * exp(-s) instead.
    min_scale : float
        What is added to a sigmoid or softplus before its logarithm is taken, at least 0, or the least scale of a clip,
        between 0 and 1; with other scales it is 0.
    max_scale : float, optional
        The largest scale of a "softplus", of a "sigmoid" with min_scale, where there is one, and of "hard_clip", whose
        default is 1 / min_scale.
    image_shape : (int, int, int), optional
        The shape (height, width, channels) of a mask that is given flat.
    activation, condition_dim, dtype, rng
        See `npflows.networks.options.NetworkOptions`.
    residual_blocks, dropout, residual_activations, gated, condition_in
        See `npflows.networks.options.DenseOptions`.
    """

    scale_activation: str = "tanh"
    _: KW_ONLY
    network: str = "dense"
    actnorm: bool = False
    shift_first: bool = False
    image_shape: Sequence[int] | None = None
    min_scale: float = 0.0
    max_scale: float | None = None

    def __post_init__(self, dtype: DTypeLike, rng: SeedLike) -> None:
        shape = np.shape(self.mask) if self.image_shape is None else tuple(self.image_shape)
        super().__post_init__()
        mask = np.asarray(self.mask)
        if len(shape) not in (1, 3) or math.prod(shape) != mask.size:
            raise ValueError(f"mask must have shape (dim,) or (height, width, channels), got {shape}")
        self.image_shape = shape if len(shape) == 3 else None
        self.network = as_choice(self.network, "network", NETWORKS)
        self.actnorm, self.shift_first = as_flag(self.actnorm, "actnorm"), as_flag(self.shift_first, "shift_first")
        self.scale_activation = as_choice(self.scale_activation, "scale_activation", SCALE_ACTIVATIONS)
        conditioner = coupling_network(self.network, mask.reshape(shape), self.hidden_dims, operations.Affine.multiplier,
                                       actnorm=self.actnorm, **self._network_arguments)  # fmt: skip
        n_gains = int((mask.reshape(shape) == 0).any(axis=(0, 1)).sum()) if self.network == "conv" else None
        self.min_scale = as_min_scale(self.min_scale, self.scale_activation)
        self.max_scale, most = as_max_scale(self.max_scale, self.min_scale, self.scale_activation)
        transformer = operations.Affine(self.scale_activation, shift_first=self.shift_first, n_gains=n_gains,
                                        least=self.min_scale, most=most)  # fmt: skip
        Coupling.__init__(self, mask, conditioner, transformer, dtype, rng=as_rng(rng))

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return (self.input_dim,) if self.image_shape is None else tuple(self.image_shape)
