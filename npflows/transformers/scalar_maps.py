"""Scalar maps, checked, and their first parameters."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from npflows.core.checks import as_choice, as_flag, as_int, as_positive
from npflows.core.operations import CLIPS, SPLINES, Bernstein, LogisticMixture, PiecewiseSpline, ScalarMap, Spline
from npflows.core.parameters import Parameter

TAILS = ("identity", "end_slope")
MONOTONE_MAPS = ("logistic_mixture", "bernstein")
FIRST_GAIN = 3.0
"""The first value of learned gains: wide enough for sharp tables, and not so wide that outliers get absurd densities."""


def spline(
    num_bins: int,
    tail_bound: float,
    min_bin_width: float,
    min_bin_height: float,
    min_derivative: float,
    circular: NDArray[np.bool_] | bool = False,
    *,
    free_ends: bool = False,
    least_slope: float = 0.0,
    turned: bool = False,
) -> Spline:
    """A monotone rational-quadratic spline.

    Parameters
    ----------
    num_bins, tail_bound, min_bin_width, min_bin_height, min_derivative
        See `npflows.transformers.options.SplineOptions`.
    circular : bool or array_like of bool
        Whether values are on a circle: all of them, or said for each.
    free_ends, least_slope, turned
        See `npflows.layers.spline.SplineLayerOptions`.
    """
    bins, bound = as_int(num_bins, "num_bins", 2), as_positive(tail_bound, "tail_bound")
    least = {"min_bin_width": min_bin_width, "min_bin_height": min_bin_height, "min_derivative": min_derivative}
    width, height, derivative = (as_positive(value, name, zero=True) for name, value in least.items())
    for name, size in (("min_bin_width", width), ("min_bin_height", height)):
        if size * bins >= 1:
            raise ValueError(f"{name} must be below 1 / num_bins = {1 / bins:g}, got {size!r}")
    if derivative >= 1:
        raise ValueError(f"min_derivative must be below 1, got {min_derivative!r}")
    flags = np.array([as_flag(value, "circular") for value in np.atleast_1d(circular)], bool)
    slope = as_positive(least_slope, "least_slope", zero=True)
    if slope >= 1 or (slope and derivative):
        raise ValueError(
            f"least_slope must be below 1, and needs min_derivative=0, got {least_slope!r} and {min_derivative!r}"
        )
    if flags.any() and (as_flag(free_ends, "free_ends") or as_flag(turned, "turned") or slope):
        raise ValueError("splines of values on circles have no free_ends, no least_slope, and are not turned")
    return Spline(bins, bound, width, height, derivative, tuple(flags.tolist()), as_flag(free_ends, "free_ends"), slope,
                  as_flag(turned, "turned"))  # fmt: skip


def of_kind(rational_quadratic: Spline, kind: str, tails: str, end_weight: float) -> Spline | PiecewiseSpline:
    """A spline of one of the kinds, with the sizes of a rational-quadratic one.

    Parameters
    ----------
    rational_quadratic : Spline
    kind : {"rational_quadratic", "linear", "quadratic", "cubic", "rational_linear"}
    tails : {"identity", "end_slope"}
    end_weight : float
        See `npflows.layers.spline.SplineLayerOptions`.
    """
    given, sloped = rational_quadratic, as_choice(tails, "tails", TAILS) == "end_slope"
    weight = as_positive(end_weight, "end_weight")
    if weight > 1 or (weight < 1 and kind != "quadratic"):
        raise ValueError(f"end_weight must be at most 1, and 1 but for spline='quadratic', got {end_weight!r}")
    if as_choice(kind, "spline", SPLINES) == "rational_quadratic" and not sloped:
        return given
    if any(given.circular) or given.is_clipped:
        raise ValueError(
            f"spline={kind!r} with tails={tails!r} has no circles, no least_slope and is not turned: "
            "these need spline='rational_quadratic' and tails='identity'"
        )
    if given.free_ends and kind in ("linear", "cubic"):
        raise ValueError(f"free_ends is not for spline={kind!r}, whose slopes at the ends are always free: leave it False")
    if kind == "cubic" and given.min_derivative >= 1 / 3:
        raise ValueError(f"min_derivative must be below 1/3 for spline='cubic', got {given.min_derivative!r}")
    free = (given.free_ends or sloped) and kind not in ("linear", "cubic")
    return PiecewiseSpline(kind, given.num_bins, given.tail_bound, given.min_bin_width, given.min_bin_height,
                           given.min_derivative, free, sloped, weight)  # fmt: skip


def monotone(
    scalar_map: str, num_terms: int, tail_bound: float, bounded: bool, min_scale: float
) -> LogisticMixture | Bernstein:
    """A mixture of logistics, or a Bernstein polynomial.

    Parameters
    ----------
    scalar_map, num_terms, tail_bound, bounded, min_scale
        See `npflows.transformers.options.MonotoneOptions`.
    """
    bound, onto, least = (
        as_positive(tail_bound, "tail_bound"),
        as_flag(bounded, "bounded"),
        as_positive(min_scale, "min_scale"),
    )
    if least >= 1:
        raise ValueError(f"min_scale must be below 1, got {min_scale!r}")
    if as_choice(scalar_map, "scalar_map", MONOTONE_MAPS) == "bernstein":
        return Bernstein(as_int(num_terms, "num_terms", 2), bound, onto)
    return LogisticMixture(as_int(num_terms, "num_terms"), least)


def first_parameters(operation: ScalarMap, n: int) -> list[Parameter]:
    """Parameters of the map of n values, besides those that a conditioner gives."""
    return [Parameter(name, np.full(shape, FIRST_GAIN)) for name, shape in operation.shapes(n).items()]


def as_min_scale(value: float, scale_activation: str) -> float:
    """The least scale of an affine map, after a check."""
    least = as_positive(value, "min_scale", zero=True)
    if scale_activation in CLIPS:
        if not 0 < least < 1:
            raise ValueError(f"scale_activation={scale_activation!r} needs min_scale between 0 and 1, got {value!r}")
    elif least and scale_activation not in ("sigmoid", "softplus"):
        raise ValueError(
            f"min_scale needs scale_activation='sigmoid', 'softplus' or one of {', '.join(map(repr, CLIPS))}, got "
            f"{scale_activation!r}"
        )
    return least


def as_max_scale(value: float | None, least: float, scale_activation: str) -> tuple[float | None, float]:
    """The largest scale of an affine map as it was given, after a check, and as a number, infinity for none."""
    if value is None:
        return None, 1 / least if scale_activation == "hard_clip" else math.inf
    most = as_positive(value, "max_scale")
    bounded = scale_activation in ("softplus", "hard_clip") or (scale_activation == "sigmoid" and least > 0)
    if not bounded or most <= least:
        raise ValueError(f"max_scale needs scale_activation='softplus', 'hard_clip', or 'sigmoid' with min_scale above 0, "
                         f"and has to be above min_scale={least}, got {value!r} with {scale_activation!r}")  # fmt: skip
    return most, most
