"""Spline layers: the rational-quadratic spline with each kind of conditioner, or none."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.core.checks import SeedLike, as_int, as_rng
from npflows.core.options import DtypeOptions
from npflows.layers.autoregressive import Autoregressive, MaskedLayer
from npflows.layers.coupling import Coupling, MaskCoupling, features_of
from npflows.layers.elementwise import Elementwise
from npflows.networks.mlp import dense
from npflows.transformers.options import SplineOptions


@dataclass(repr=False, eq=False)
class CircularSplineOptions(SplineOptions):
    """Arguments of the spline layers, beside those of `SplineOptions`.

    Parameters
    ----------
    circular : array_like of bool (input_dim,), optional
        Which values are on a circle: the interval [-tail_bound, tail_bound], whose ends are the same point.  Their splines
        have the same slope at both ends, and a network sees their cosine and sine.
    """

    _: KW_ONLY
    circular: ArrayLike | None = None

    def _circles(self, n: int) -> NDArray[np.bool_]:
        """Which of the n values are on a circle; `circular` is None from then on where none is."""
        flags = np.zeros(n, bool) if self.circular is None else np.asarray(self.circular)
        if flags.shape != (n,) or not np.isin(flags, (False, True)).all():
            raise ValueError(f"circular must say for each of {n} values whether it is on a circle, got {self.circular!r}")
        on_circle = flags.astype(bool)
        self.circular = on_circle if on_circle.any() else None
        return on_circle

    @property
    def circle_bound(self) -> float | None:
        return None if self.circular is None else self.tail_bound

    def keep_circles(self, circles: NDArray[np.bool_]) -> NDArray[np.bool_]:
        own = np.zeros(len(circles), bool) if self.circular is None else np.asarray(self.circular)
        if (own != circles).any():
            raise ValueError(
                f"{self!r} takes values {np.flatnonzero(own).tolist()} for circular where "
                f"{np.flatnonzero(circles).tolist()} are on circles"
            )
        return circles


@dataclass(repr=False, eq=False)
class SplineCouplingLayer(CircularSplineOptions, MaskCoupling):
    """Coupling with rational-quadratic splines (Durkan et al. 2019, arXiv:1906.04032).

    The layer starts as the identity.

    Parameters
    ----------
    mask : array_like of 0 and 1
        1: unchanged and conditions the others; 0: transformed.  At least one of each.
    hidden_dims : sequence of int
        Units of the network's hidden layers.
    num_bins, tail_bound, min_bin_width, min_bin_height, min_derivative
        See `npflows.transformers.options.SplineOptions`.
    circular
        See `npflows.layers.spline.CircularSplineOptions`.
    activation, condition_dim, dtype, rng
        See `npflows.networks.options.NetworkOptions`.
    residual_blocks, dropout
        See `npflows.networks.options.DenseOptions`.
    """

    def __post_init__(self, dtype: DTypeLike, rng: SeedLike) -> None:
        super().__post_init__()
        mask = np.asarray(self.mask)
        moved, on_circle = mask == 0, self._circles(mask.size)
        scalar_map = self._spline(on_circle[moved])
        n_out = int(moved.sum()) * scalar_map.multiplier
        network = dense(features_of(mask, on_circle), self.hidden_dims, n_out, **self._network_arguments)
        Coupling.__init__(
            self, mask, network, scalar_map, dtype, rng=as_rng(rng), circular=on_circle, bound=self.tail_bound
        )


@dataclass(repr=False, eq=False)
class SplineAutoregressiveLayer(CircularSplineOptions, MaskedLayer):
    """Masked autoregressive layer with rational-quadratic splines; both directions take one pass over the network.

    Parameters
    ----------
    input_dim, hidden_dims, order
        See `npflows.networks.options.MaskedOptions`.
    num_bins, tail_bound, min_bin_width, min_bin_height, min_derivative
        See `npflows.transformers.options.SplineOptions`.
    circular
        See `npflows.layers.spline.CircularSplineOptions`.
    activation, condition_dim, dtype, rng
        See `npflows.networks.options.NetworkOptions`.
    residual_blocks, dropout
        See `npflows.networks.options.DenseOptions`.
    """

    def __post_init__(self, dtype: DTypeLike, rng: SeedLike) -> None:
        super().__post_init__()
        order = np.asarray(self.order)
        in_order = self._circles(self.input_dim)[order]
        scalar_map = self._spline(in_order)
        network = self._network(scalar_map.multiplier, in_order)
        Autoregressive.__init__(self, order, network, scalar_map, dtype, rng=as_rng(rng), bound=self.tail_bound)


@dataclass(repr=False, eq=False)
class _OfColumns(Elementwise, DtypeOptions):
    """A layer without a network, whose first argument is the number of columns."""

    input_dim: int


@dataclass(repr=False, eq=False)
class SplineLayer(CircularSplineOptions, _OfColumns):
    """A rational-quadratic spline for each column by itself, with parameters of its own.

    Parameters
    ----------
    input_dim : int
        Number of columns.
    num_bins, tail_bound, min_bin_width, min_bin_height, min_derivative
        See `npflows.transformers.options.SplineOptions`.
    circular
        See `npflows.layers.spline.CircularSplineOptions`.
    dtype : {"float32", "float64"}
        The compute dtype.
    """

    def __post_init__(self, dtype: DTypeLike) -> None:
        super().__post_init__()
        n = as_int(self.input_dim, "input_dim")
        scalar_map = self._spline(self._circles(n))
        Elementwise.__init__(self, n, scalar_map, dtype)
