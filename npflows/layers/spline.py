"""Spline layers: monotone splines with each kind of conditioner, or none."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.core.checks import SeedLike, as_flag, as_int, as_rng
from npflows.core.operations import PiecewiseSpline, Spline
from npflows.layers.autoregressive import Autoregressive, MaskedLayer
from npflows.layers.circles import as_circles
from npflows.layers.coupling import Coupling, MaskCoupling, features_of
from npflows.layers.elementwise import Elementwise, OfColumns
from npflows.networks.mlp import dense
from npflows.transformers.options import SplineOptions
from npflows.transformers.scalar_maps import of_kind, spline


@dataclass(repr=False, eq=False)
class SplineLayerOptions(SplineOptions):
    """Arguments of the spline layers, beside those of `SplineOptions`.

    Parameters
    ----------
    circular : array_like of bool (input_dim,), optional
        Which values are on a circle: the interval [-tail_bound, tail_bound], whose ends are the same point.  Their splines
        have the same slope at both ends, and a network sees their cosine and sine.
    free_ends : bool
        Whether the slopes at -tail_bound and tail_bound are learned; else they are 1, that of the identity beyond, and the
        density is continuous there.
    least_slope : float
        Above 0, derivatives are exp(r / (1 + |r / log(least_slope)|)), which lies between least_slope and its inverse, and
        raw widths and heights r / (1 + |2 r / log(least_slope)|); `min_derivative` has to be 0 then.
    turned : bool
        Whether a value is turned by half a circle, to (x mod 2 tail_bound) - tail_bound, before the spline (Rezende et al.
        2020, arXiv:2002.02428); networks see it as it is.
    spline : {"rational_quadratic", "linear", "quadratic", "cubic", "rational_linear"}
        The kind of the splines: ratios of quadratic polynomials (Durkan et al. 2019, arXiv:1906.04032), lines in bins of
        one width or parabolas (Mueller et al. 2019, arXiv:1808.03856), cubic polynomials (Durkan et al. 2019,
        arXiv:1906.02145), or ratios of lines, two in each bin (Dolatabadi et al. 2020, arXiv:2001.05168).  Linear and
        cubic ones have no given slope at their ends, where the density jumps unless tails="end_slope".
    tails : {"identity", "end_slope"}
        What is outside of [-tail_bound, tail_bound]: the identity, or a line with the slope of the spline at its end,
        which is learned then.
    end_weight : float
        Of quadratic splines whose ends are not free: the weight in the slope there of the bins beside, above 0 and at
        most 1. With 1 the slope is 1, as that outside; nflows has 0.5.
    """

    _: KW_ONLY
    circular: ArrayLike | None = None
    free_ends: bool = False
    least_slope: float = 0.0
    turned: bool = False
    spline: str = "rational_quadratic"
    tails: str = "identity"
    end_weight: float = 1.0

    def _scalar_map(self, circular: NDArray[np.bool_]) -> Spline | PiecewiseSpline:
        """The splines of values that are on circles or not."""
        return of_kind(self._spline(circular), self.spline, self.tails, self.end_weight)

    def _spline(self, circular: NDArray[np.bool_] | bool = False) -> Spline:
        return spline(
            self.num_bins,
            self.tail_bound,
            self.min_bin_width,
            self.min_bin_height,
            self.min_derivative,
            circular,
            free_ends=self.free_ends,
            least_slope=self.least_slope,
            turned=self.turned,
        )

    def _circles(self, n: int) -> NDArray[np.bool_]:
        """Which of the n values are on a circle; `circular` is None from then on where none is."""
        on_circle = as_circles(self.circular, n)
        self.circular = on_circle if on_circle.any() else None
        return on_circle


@dataclass(repr=False, eq=False)
class SplineCouplingLayer(SplineLayerOptions, MaskCoupling):
    """Coupling with splines, by default rational-quadratic ones (Durkan et al. 2019, arXiv:1906.04032).

    The layer starts as the identity.

    Parameters
    ----------
    mask : array_like of 0 and 1
        1: unchanged and conditions the others; 0: transformed.  At least one of each.
    hidden_dims : sequence of int
        Units of the network's hidden layers.
    num_bins, tail_bound, min_bin_width, min_bin_height, min_derivative
        See `npflows.transformers.options.SplineOptions`.
    circular, free_ends, least_slope, turned, spline, tails, end_weight
        See `npflows.layers.spline.SplineLayerOptions`.
    activation, condition_dim, dtype, rng
        See `npflows.networks.options.NetworkOptions`.
    residual_blocks, dropout, residual_activations, gated, condition_in
        See `npflows.networks.options.DenseOptions`.
    inverted : bool
        Whether `forward` is the inverse of the splines.
    """

    inverted: bool = field(default=False, kw_only=True)

    def __post_init__(self, dtype: DTypeLike, rng: SeedLike) -> None:
        super().__post_init__()
        mask = np.asarray(self.mask)
        moved, on_circle = mask == 0, self._circles(mask.size)
        scalar_map = self._scalar_map(on_circle[moved])
        n_out = int(moved.sum()) * scalar_map.multiplier
        network = dense(features_of(mask, on_circle), self.hidden_dims, n_out, **self._network_arguments)
        Coupling.__init__(
            self,
            mask,
            network,
            scalar_map,
            dtype,
            rng=as_rng(rng),
            circular=on_circle,
            bound=self.tail_bound,
            inverted=as_flag(self.inverted, "inverted"),
        )


@dataclass(repr=False, eq=False)
class SplineAutoregressiveLayer(SplineLayerOptions, MaskedLayer):
    """Masked autoregressive layer with splines, by default rational-quadratic ones; both directions take one pass over
    the network.

    Parameters
    ----------
    input_dim, hidden_dims, order, hidden_degrees
        See `npflows.networks.options.MaskedOptions`.
    num_bins, tail_bound, min_bin_width, min_bin_height, min_derivative
        See `npflows.transformers.options.SplineOptions`.
    circular, free_ends, least_slope, turned, spline, tails, end_weight
        See `npflows.layers.spline.SplineLayerOptions`.
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
        order = np.asarray(self.order)
        in_order = self._circles(self.input_dim)[order]
        scalar_map = self._scalar_map(in_order)
        network = self._network(scalar_map.multiplier, in_order)
        Autoregressive.__init__(
            self,
            order,
            network,
            scalar_map,
            dtype,
            rng=as_rng(rng),
            inverted=as_flag(self.inverted, "inverted"),
            bound=self.tail_bound,
        )


@dataclass(repr=False, eq=False)
class SplineLayer(SplineLayerOptions, OfColumns):
    """A spline, by default a rational-quadratic one, for each column by itself, with parameters of its own.

    Parameters
    ----------
    input_dim : int
        Number of columns.
    num_bins, tail_bound, min_bin_width, min_bin_height, min_derivative
        See `npflows.transformers.options.SplineOptions`.
    circular, free_ends, least_slope, turned, spline, tails, end_weight
        See `npflows.layers.spline.SplineLayerOptions`.
    dtype : {"float32", "float64"}
        The compute dtype.
    inverted : bool
        Whether `forward` is the inverse of the splines.
    """

    inverted: bool = field(default=False, kw_only=True)

    def __post_init__(self, dtype: DTypeLike) -> None:
        super().__post_init__()
        n = as_int(self.input_dim, "input_dim")
        Elementwise.__init__(self, n, self._scalar_map(self._circles(n)), dtype, inverted=self.inverted)
