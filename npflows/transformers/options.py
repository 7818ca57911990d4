"""The arguments that all constructors of splines share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.core.operations import Spline
from npflows.core.options import Options
from npflows.transformers.scalar_maps import spline


@dataclass(repr=False, eq=False)
class SplineOptions(Options):
    """Arguments of everything that has monotone rational-quadratic splines.

    Parameters
    ----------
    num_bins : int
        Bins of each spline, at least 2.
    tail_bound : float
        The splines act on [-tail_bound, tail_bound] and are the identity outside; above 0.
    min_bin_width, min_bin_height : float
        Least share of [-tail_bound, tail_bound] that a bin has; below 1 / num_bins.
    min_derivative : float
        Least derivative at a knot; below 1.
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
