"""Scalar maps, checked, and their first parameters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npflows.core.checks import as_int, as_positive
from npflows.core.operations import ScalarMap, Spline
from npflows.core.parameters import Parameter

FIRST_GAIN = 3.0
"""The first value of learned gains: wide enough for sharp tables, and not so wide that outliers get absurd densities."""


def spline(
    num_bins: int,
    tail_bound: float,
    min_bin_width: float,
    min_bin_height: float,
    min_derivative: float,
    circular: NDArray[np.bool_] | bool = False,
) -> Spline:
    """A monotone rational-quadratic spline.

    Parameters
    ----------
    num_bins, tail_bound, min_bin_width, min_bin_height, min_derivative
        See `npflows.transformers.options.SplineOptions`.
    circular : bool or array_like of bool
        Whether values are on a circle: all of them, or said for each.
    """
    bins, bound = as_int(num_bins, "num_bins", 2), as_positive(tail_bound, "tail_bound")
    for name, size in (("min_bin_width", min_bin_width), ("min_bin_height", min_bin_height)):
        if as_positive(size, name) * bins >= 1:
            raise ValueError(f"{name} must be below 1 / num_bins = {1 / bins:g}, got {size!r}")
    if as_positive(min_derivative, "min_derivative") >= 1:
        raise ValueError(f"min_derivative must be below 1, got {min_derivative!r}")
    flags = np.atleast_1d(np.asarray(circular, bool)).tolist()
    return Spline(bins, bound, as_positive(min_bin_width, "min_bin_width"), as_positive(min_bin_height, "min_bin_height"),
                  as_positive(min_derivative, "min_derivative"), tuple(flags))  # fmt: skip


def first_parameters(operation: ScalarMap, n: int) -> list[Parameter]:
    """Parameters of the map of n values, besides those that a conditioner gives."""
    return [Parameter(name, np.full(shape, FIRST_GAIN)) for name, shape in operation.shapes(n).items()]


def as_min_scale(value: float, scale_activation: str) -> float:
    """The least scale of an affine map, after a check."""
    least = as_positive(value, "min_scale", zero=True)
    if least and scale_activation not in ("sigmoid", "softplus"):
        raise ValueError(f"min_scale needs scale_activation='sigmoid' or 'softplus', got {scale_activation!r}")
    return least
