"""The arguments that constructors of splines, and of other monotone maps, share."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.core.operations import Bernstein, LogisticMixture, Spline
from npflows.core.options import Options
from npflows.transformers.scalar_maps import monotone, spline


@dataclass(repr=False, eq=False)
class SplineOptions(Options):
    """Arguments of everything that has monotone splines.

    Parameters
    ----------
    num_bins : int
        Bins of each spline, at least 2.
    tail_bound : float
        The splines act on [-tail_bound, tail_bound] and are the identity outside; above 0.
    min_bin_width, min_bin_height : float
        Least share of [-tail_bound, tail_bound] that a bin has; at least 0 and below 1 / num_bins.
    min_derivative : float
        Least derivative at a knot; at least 0 and below 1.  Of quadratic splines that is `min_bin_height`; linear ones have
        none; of cubic ones it is the least share of the largest derivative that an end can have, below 1/3.
    """

    num_bins: int = 8
    tail_bound: float = 3.0
    min_bin_width: float = 1e-3
    min_bin_height: float = 1e-3
    min_derivative: float = 1e-3

    def __post_init__(self, *init_only: Any) -> None:
        super().__post_init__(*init_only)
        checked = self._spline()
        self.num_bins, self.tail_bound = checked.num_bins, checked.tail_bound
        self.min_bin_width, self.min_bin_height = checked.min_bin_width, checked.min_bin_height
        self.min_derivative = checked.min_derivative

    def _spline(self, circular: NDArray[np.bool_] | bool = False) -> Spline:
        """The spline of values that are on circles or not: all of them, or said for each."""
        return spline(
            self.num_bins, self.tail_bound, self.min_bin_width, self.min_bin_height, self.min_derivative, circular
        )


@dataclass(repr=False, eq=False)
class MonotoneOptions(Options):
    """Arguments of the layers of monotone maps that are no splines.

    Parameters
    ----------
    scalar_map : {"logistic_mixture", "bernstein"}
        y = logit(sum_k p_k sigmoid((x - m_k) exp(-s_k))) exp(a) + b, the logit of the distribution function of a mixture of
        logistics, then an affine map (Ho et al. 2019, arXiv:1902.00275, section 3.2), or an increasing Bernstein polynomial
        (Sick et al. 2020, arXiv:2004.00464, equation 9).  Both are smooth.  Their inverses are found by Newton's method to
        rounding, and have exact gradients.
    num_terms : int
        Components of the mixture, at least 1, or raw parameters of the polynomial, at least 2.
    tail_bound : float
        Polynomials act on [-tail_bound, tail_bound]; above 0.
    bounded : bool
        Whether polynomials, of degree num_terms + 4 then, map the interval onto itself, with slopes of 1 at its ends, and
        are the identity outside; else they are of degree num_terms + 1, have any values there, and are lines outside.
    min_scale : float
        The scales exp(s_k) and exp(a) of mixtures lie between it and its inverse; above 0 and below 1.
    """

    _: KW_ONLY
    scalar_map: str = "logistic_mixture"
    num_terms: int = 8
    tail_bound: float = 5.0
    bounded: bool = True
    min_scale: float = 1e-2

    def __post_init__(self, *init_only: Any) -> None:
        super().__post_init__(*init_only)
        checked = self._monotone()
        self.num_terms = checked.multiplier if isinstance(checked, Bernstein) else checked.num_components
        self.tail_bound, self.bounded, self.min_scale = float(self.tail_bound), bool(self.bounded), float(self.min_scale)

    def _monotone(self) -> LogisticMixture | Bernstein:
        """The scalar map."""
        return monotone(self.scalar_map, self.num_terms, self.tail_bound, self.bounded, self.min_scale)
