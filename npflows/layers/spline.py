"""Spline layers: the rational-quadratic spline with each kind of conditioner, or none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npflows.core.checks import as_dtype, as_int, as_mask, as_order, as_widths
from npflows.core.operations import Spline
from npflows.layers.autoregressive import Autoregressive
from npflows.layers.coupling import Coupling, features_of
from npflows.layers.elementwise import Elementwise
from npflows.networks.made import masked, warn_of_lost_dependence
from npflows.networks.mlp import dense
from npflows.networks.options import network_options
from npflows.transformers.scalar_maps import spline


class _OnCircles:
    """What spline layers know of values on circles."""

    circular: np.ndarray | None
    tail_bound: float
    input_dim: int

    @property
    def circle_bound(self) -> float | None:
        return None if self.circular is None else self.tail_bound

    def keep_circles(self, circles: np.ndarray) -> np.ndarray:
        own = np.zeros(self.input_dim, bool) if self.circular is None else self.circular
        if (own != circles).any():
            raise ValueError(
                f"{self!r} takes values {np.flatnonzero(own).tolist()} for circular where "
                f"{np.flatnonzero(circles).tolist()} are on circles"
            )
        return circles


class SplineCouplingLayer(_OnCircles, Coupling):
    """Coupling with rational-quadratic splines (Durkan et al. 2019, arXiv:1906.04032).

    Parameters
    ----------
    mask : array_like of 0 and 1
        1: unchanged and conditions the others; 0: transformed.  At least one of each.
    hidden_dims : sequence of int
        Units of the network's hidden layers.
    num_bins : int
        Bins of each spline, at least 2.
    tail_bound : float
        The splines act on [-tail_bound, tail_bound] and are the identity outside.
    min_bin_width, min_bin_height, min_derivative : float
        See `RationalQuadraticSplineTransform`.
    activation : {"relu", "tanh", "silu", "elu", "leaky_relu"}
    residual_blocks : int
        Where above 0, each network has so many residual blocks of the one width in `hidden_dims` instead of plain layers.
    dropout : float
        Share of hidden values that are set to 0 in training only, at least 0 and below 1.
    condition_dim : int
        Width of a condition that the network sees too.
    circular : array_like of bool (input_dim,), optional
        Which values are on a circle: the interval [-tail_bound, tail_bound], whose ends are the same point.  Their splines
        have the same slope at both ends, and the network sees their cosine and sine.
    dtype : {"float32", "float64"}
        The compute dtype.
    rng : int, numpy.random.Generator or None
        Draws the network's first weights.  The layer starts as the identity.
    """

    def __init__(
        self,
        mask: object,
        hidden_dims: Sequence[int] = (128, 128),
        num_bins: int = 8,
        tail_bound: float = 3.0,
        min_bin_width: float = 1e-3,
        min_bin_height: float = 1e-3,
        min_derivative: float = 1e-3,
        *,
        activation: str = "relu",
        residual_blocks: int = 0,
        dropout: float = 0.0,
        condition_dim: int = 0,
        circular: object = None,
        dtype: object = "float32",
        rng: object = None,
    ) -> None:
        self.mask, self.hidden_dims = as_mask(mask), as_widths(hidden_dims)
        moved, on_circle = self.mask == 0, _as_circular(circular, self.mask.size)
        self.circular = on_circle if on_circle.any() else None
        scalar_map = _spline(self, num_bins, tail_bound, min_bin_width, min_bin_height, min_derivative, on_circle[moved])
        options = network_options(self, activation, residual_blocks, dropout, condition_dim, rng)
        generator, n_out = options.pop("rng"), int(moved.sum()) * scalar_map.multiplier
        network = dense(features_of(self.mask, on_circle), self.hidden_dims, n_out, **options)
        super().__init__(
            self.mask, network, scalar_map, as_dtype(dtype), rng=generator, circular=on_circle, bound=self.tail_bound
        )  # fmt: skip


class SplineAutoregressiveLayer(_OnCircles, Autoregressive):
    """Masked autoregressive layer with rational-quadratic splines; both directions take one pass over the network.

    Parameters
    ----------
    input_dim : int
        Number of features, at least 1.
    hidden_dims : sequence of int
        Units of the masked network's hidden layers; input_dim - 1 or more in each, or a warning says what is lost.
    order : array_like of int, optional
        order[k] is the feature that comes k-th; 0, 1, 2, ... by default.
    num_bins, tail_bound, min_bin_width, min_bin_height, min_derivative, activation, residual_blocks, dropout,
    condition_dim, dtype, rng
        As in `SplineCouplingLayer`.
    circular : array_like of bool (input_dim,), optional
        Which values are on a circle; see `SplineCouplingLayer`.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dims: Sequence[int] = (128, 128),
        order: object = None,
        num_bins: int = 8,
        tail_bound: float = 3.0,
        min_bin_width: float = 1e-3,
        min_bin_height: float = 1e-3,
        min_derivative: float = 1e-3,
        *,
        activation: str = "relu",
        residual_blocks: int = 0,
        dropout: float = 0.0,
        condition_dim: int = 0,
        circular: object = None,
        dtype: object = "float32",
        rng: object = None,
    ) -> None:
        n = as_int(input_dim, "input_dim")
        self.hidden_dims = as_widths(hidden_dims)
        order = np.arange(n) if order is None else as_order(order, n)
        on_circle = _as_circular(circular, n)
        self.circular = on_circle if on_circle.any() else None
        in_order = on_circle[order]
        scalar_map = _spline(self, num_bins, tail_bound, min_bin_width, min_bin_height, min_derivative, in_order)
        options = network_options(self, activation, residual_blocks, dropout, condition_dim, rng)
        generator = options.pop("rng")
        network = masked(n, self.hidden_dims, scalar_map.multiplier, circular=in_order, **options)
        warn_of_lost_dependence(network, order)
        super().__init__(order, network, scalar_map, as_dtype(dtype), rng=generator, bound=self.tail_bound)


class SplineLayer(_OnCircles, Elementwise):
    """A rational-quadratic spline for each column by itself, with parameters of its own.

    Parameters
    ----------
    input_dim : int
        Number of columns.
    num_bins, tail_bound, min_bin_width, min_bin_height, min_derivative, circular, dtype
        As in `SplineCouplingLayer`.
    """

    def __init__(
        self,
        input_dim: int,
        num_bins: int = 8,
        tail_bound: float = 3.0,
        min_bin_width: float = 1e-3,
        min_bin_height: float = 1e-3,
        min_derivative: float = 1e-3,
        *,
        circular: object = None,
        dtype: object = "float32",
    ) -> None:
        n = as_int(input_dim, "input_dim")
        on_circle = _as_circular(circular, n)
        self.circular = on_circle if on_circle.any() else None
        scalar_map = _spline(self, num_bins, tail_bound, min_bin_width, min_bin_height, min_derivative, on_circle)
        super().__init__(n, scalar_map, as_dtype(dtype))


def _as_circular(circular: object, n: int) -> np.ndarray:
    """Which of n values are on a circle; none by default."""
    flags = np.zeros(n, bool) if circular is None else np.asarray(circular)
    if flags.shape != (n,) or not np.isin(flags, (False, True)).all():
        raise ValueError(f"circular must say for each of {n} values whether it is on a circle, got {circular!r}")
    return flags.astype(bool)


def _spline(
    layer: object,
    num_bins: int,
    tail_bound: float,
    min_bin_width: float,
    min_bin_height: float,
    min_derivative: float,
    circular: bool | np.ndarray = False,
) -> Spline:
    """The spline of a layer, which keeps its arguments."""
    operation = spline(num_bins, tail_bound, min_bin_width, min_bin_height, min_derivative, circular)
    for name in ("num_bins", "tail_bound", "min_bin_width", "min_bin_height", "min_derivative"):
        setattr(layer, name, getattr(operation, name))
    return operation
