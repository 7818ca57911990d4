"""Scalar maps: y from x, monotone, for each value by itself, with `multiplier` raw parameters for each value."""

from __future__ import annotations

import math
from dataclasses import dataclass

from npflows.core.operations.operation import Shapes

SCALE_ACTIVATIONS = ("none", "tanh", "tanh_gain", "sigmoid", "softplus")


@dataclass(frozen=True)
class Affine:
    """y = x exp(s) + t (Dinh et al. 2017, arXiv:1605.08803, equation 8), or, with `shift_first`, y = (x - t) exp(-s)
    (Papamakarios et al. 2017, arXiv:1705.07057, equation 4).

    Raw parameters are (t, r); s is r, tanh r, gain * tanh r, log(sigmoid(r + 2) + least) or log(softplus(r) + least).
    There are `n_gains` learned gains, which the values take in turn; by default one for each value.
    """

    scale_activation: str
    shift_first: bool = False
    n_gains: int | None = None
    least: float = 0.0
    multiplier = 2
    sigmoid_offset = 2.0

    @property
    def theta_per_value(self) -> int:
        """Learned parameters of each value by itself."""
        return 1 if self.scale_activation == "tanh_gain" else 0

    def shapes(self, n: int) -> Shapes:
        """Learned parameters of the map of n values, besides those that a conditioner gives."""
        return {"gain": (self.n_gains or n,)} if self.scale_activation == "tanh_gain" else {}


@dataclass(frozen=True)
class Additive:
    """y = x + t (Dinh et al. 2015, arXiv:1410.8516, section 3.2)."""

    multiplier = 1
    theta_per_value = 0

    def shapes(self, n: int) -> Shapes:
        return {}


@dataclass(frozen=True)
class Spline:
    """The monotone rational-quadratic spline (Durkan et al. 2019, arXiv:1906.04032, equations 4 to 8) on
    [-tail_bound, tail_bound], the identity outside.

    Raw parameters are `num_bins` widths and heights, through softmax, and num_bins - 1 inner derivatives, through softplus;
    for a value on a circle one more, which is that of both ends.  `circular` says it for all values, or for each.
    """

    num_bins: int
    tail_bound: float
    min_bin_width: float
    min_bin_height: float
    min_derivative: float
    circular: tuple[bool, ...] = (False,)
    theta_per_value = 0

    @property
    def multiplier(self) -> int:
        return 3 * self.num_bins - (0 if any(self.circular) else 1)

    @property
    def derivative_shift(self) -> float:
        """The number that is added to a raw derivative, so that 0 gives 1: its softplus is 1 - min_derivative."""
        return math.log(math.expm1(1 - self.min_derivative))

    def shapes(self, n: int) -> Shapes:
        return {}


ScalarMap = Affine | Additive | Spline
