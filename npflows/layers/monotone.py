"""Layers of monotone maps that are no splines: mixtures of logistics and Bernstein polynomials, with each kind of
conditioner, or none."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import DTypeLike

from npflows.core.checks import SeedLike, as_flag, as_rng
from npflows.layers.autoregressive import Autoregressive, MaskedLayer
from npflows.layers.coupling import Coupling, MaskCoupling
from npflows.layers.elementwise import Elementwise, OfColumns
from npflows.networks.mlp import dense
from npflows.transformers.options import MonotoneOptions


@dataclass(repr=False, eq=False)
class MonotoneCouplingLayer(MonotoneOptions, MaskCoupling):
    """Coupling with mixtures of logistics (Ho et al. 2019, arXiv:1902.00275) or Bernstein polynomials (Sick et al. 2020,
    arXiv:2004.00464).

    The layer starts as one map of all rows: the identity for polynomials, and next to it for mixtures.

    Parameters
    ----------
    mask : array_like of 0 and 1
        1: unchanged and conditions the others; 0: transformed.  At least one of each.
    hidden_dims : sequence of int
        Units of the network's hidden layers.
    scalar_map, num_terms, tail_bound, bounded, min_scale
        See `npflows.transformers.options.MonotoneOptions`.
    activation, condition_dim, dtype, rng
        See `npflows.networks.options.NetworkOptions`.
    residual_blocks, dropout, residual_activations, gated, condition_in
        See `npflows.networks.options.DenseOptions`.
    inverted : bool
        Whether `forward` is the inverse of the maps.
    """

    inverted: bool = field(default=False, kw_only=True)

    def __post_init__(self, dtype: DTypeLike, rng: SeedLike) -> None:
        super().__post_init__()
        mask, scalar_map = np.asarray(self.mask), self._monotone()
        n_kept = int(mask.sum())
        n_out = (mask.size - n_kept) * scalar_map.multiplier
        network = dense(n_kept, self.hidden_dims, n_out, **self._network_arguments)
        self.inverted = as_flag(self.inverted, "inverted")
        Coupling.__init__(self, mask, network, scalar_map, dtype, rng=as_rng(rng), inverted=self.inverted)


@dataclass(repr=False, eq=False)
class MonotoneAutoregressiveLayer(MonotoneOptions, MaskedLayer):
    """Masked autoregressive layer with mixtures of logistics or Bernstein polynomials; both directions take one pass over
    the network.

    Parameters
    ----------
    input_dim, hidden_dims, order, hidden_degrees
        See `npflows.networks.options.MaskedOptions`.
    scalar_map, num_terms, tail_bound, bounded, min_scale
        See `npflows.transformers.options.MonotoneOptions`.
    activation, condition_dim, dtype, rng
        See `npflows.networks.options.NetworkOptions`.
    residual_blocks, dropout, residual_activations, gated, condition_in
        See `npflows.networks.options.DenseOptions`.
    inverted : bool
        Whether `forward`, data to latent, is the sequential direction, in which the network sees the latent values.
    """

    inverted: bool = field(default=False, kw_only=True)

    def __post_init__(self, dtype: DTypeLike, rng: SeedLike) -> None:
        super().__post_init__()
        scalar_map = self._monotone()
        network = self._network(scalar_map.multiplier)
        self.inverted = as_flag(self.inverted, "inverted")
        Autoregressive.__init__(
            self, np.asarray(self.order), network, scalar_map, dtype, rng=as_rng(rng), inverted=self.inverted
        )


@dataclass(repr=False, eq=False)
class MonotoneLayer(MonotoneOptions, OfColumns):
    """A mixture of logistics or a Bernstein polynomial for each column by itself, with parameters of its own.

    Parameters
    ----------
    input_dim : int
        Number of columns.
    scalar_map, num_terms, tail_bound, bounded, min_scale
        See `npflows.transformers.options.MonotoneOptions`.
    dtype : {"float32", "float64"}
        The compute dtype.
    inverted : bool
        Whether `forward` is the inverse of the map.
    """

    inverted: bool = field(default=False, kw_only=True)

    def __post_init__(self, dtype: DTypeLike) -> None:
        super().__post_init__()
        Elementwise.__init__(self, self.input_dim, self._monotone(), dtype, inverted=self.inverted)
