"""Location and scale of columns, by mean and standard deviation unless a few rows would decide them."""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.core.statistics import effective_sample_size, weighted_quantiles

DOMINATED = 5.0
"""A standard deviation so many times that of the bulk of the rows comes from the others."""
TAIL = 0.01
"""Share of the rows at either end that is not of the bulk; more in small tables, so that one row is left out."""
LARGEST_TAIL = 0.1
SENTINEL_ROWS = 3
"""Rows that share an extreme value, at least, where it stands for something else than a number."""
SENTINEL_GAP = 10.0
"""It is farther from the narrowest half of the rows than this is wide, so many times."""
FEWEST_VALUES = 10
"""Values that are left without those, at least."""
SAMPLE_ROWS, SAMPLE_VALUES = 20000, 1 << 21
"""Rows, and values of them, from which quantiles are taken, at most."""


class RobustScale(NamedTuple):
    """Location and scale of columns that few rows do not decide.

    Attributes
    ----------
    loc, scale : ndarray (d,)
    is_robust : ndarray of bool (d,)
        Where they differ from mean and standard deviation, which few rows would have decided.
    sentinel : ndarray (d,)
        There, a value far from most others that several rows share, NaN where there is none.
    """

    loc: NDArray[np.float64]
    scale: NDArray[np.float64]
    is_robust: NDArray[np.bool_]
    sentinel: NDArray[np.float64]


def sample_places(n: int, width: int, most_rows: int = SAMPLE_ROWS) -> NDArray[np.int64]:
    """Places of rows, evenly spaced among n of so many values, from which quantiles are taken."""
    most = min(most_rows, max(100, SAMPLE_VALUES // max(width, 1)))
    return np.arange(n) if n <= most else np.linspace(0, n - 1, most).astype(np.int64)


def robust_location_scale(
    values: NDArray, weight: NDArray | None, mean: NDArray[np.float64], deviation: NDArray[np.float64]
) -> RobustScale:
    """Mean and standard deviation, replaced in columns where they come from a few rows.

    The bulk of a column is its central 98 % of the weight, without sentinels: values that several rows share, far from the
    narrowest half of the rows.  Where the standard deviation is more than `DOMINATED` times that of a normal
    distribution with this central range, location and scale are those of the rows without sentinels; the median and
    the central range, unless mean and standard deviation of these are fine.

    Parameters
    ----------
    values : ndarray (n, d)
        Finite values: all, or a sample of them.
    weight : ndarray (n,), optional
    mean, deviation : ndarray (d,)
        Mean and standard deviation, 0 in columns that are constant, of all values.
    """
    loc, scale, sentinel = mean.copy(), deviation.copy(), np.full(len(mean), np.nan)
    is_robust = np.zeros(len(mean), bool)
    weight = np.ones(len(values)) if weight is None else weight
    values, weight = values[weight > 0], weight[weight > 0]
    if len(values) < FEWEST_VALUES:
        return RobustScale(loc, scale, is_robust, sentinel)
    order = np.argsort(values, axis=0, kind="stable")
    for d in np.flatnonzero(deviation > 0):
        column, shares = values[order[:, d], d].astype(np.float64), weight[order[:, d]]
        found = _bulk(column, shares)
        if found is not None and deviation[d] > DOMINATED * found[1]:
            loc[d], scale[d], sentinel[d] = found
            is_robust[d] = True
    return RobustScale(loc, scale, is_robust, sentinel)


def _bulk(values: NDArray[np.float64], weight: NDArray[np.float64]) -> tuple[float, float, float] | None:
    """Location and scale of sorted values without sentinels, and one of these or NaN; None where they have no width."""
    values, weight, sentinel = _without_sentinels(values, weight)
    tail = _tail(weight)
    low, median, high = weighted_quantiles(values, weight, (tail, 0.5, 1 - tail))
    width = (high - low) / (NormalDist().inv_cdf(1 - tail) - NormalDist().inv_cdf(tail))
    unit = max(abs(values[0]), abs(values[-1]), np.finfo(np.float64).tiny)
    mean = unit * np.average(values / unit, weights=weight)
    deviation = unit * np.sqrt(np.average((values / unit - mean / unit) ** 2, weights=weight))
    if width > 0 and deviation > DOMINATED * width:
        return float(median), float(width), sentinel
    return (float(mean), float(deviation), sentinel) if values[0] < values[-1] and deviation > 0 else None


def _tail(weight: NDArray[np.float64]) -> float:
    """Share of the weight at either end that is not of the bulk."""
    return float(np.clip(1.5 / effective_sample_size(weight), TAIL, LARGEST_TAIL))


def _without_sentinels(
    values: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Sorted values and weights without sentinels, and the one of these that has the most weight.

    Several rows share each, or merged rows that have more weight than is left out at an end.  They are far from the
    shortest interval that has half of the weight, in terms of its width, or of the gaps beside it where it has none.
    """
    total = weight.cumsum()
    stops = np.minimum(np.searchsorted(total, total - weight + 0.5 * total[-1]), len(values) - 1)
    widths = values[stops] - values
    widths[total - weight > 0.5 * total[-1]] = np.inf
    start = int(np.argmin(widths))
    low, high = values[start], values[stops[start]]
    beside = np.concatenate([low - values[values < low][-1:], values[values > high][:1] - high])
    width = high - low if high > low else beside.min(initial=np.inf)
    far = (values < low - SENTINEL_GAP * width) | (values > high + SENTINEL_GAP * width)
    if not far.any():
        return values, weight, np.nan
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    same = counts[which]
    share = np.bincount(which, weight)[which] / total[-1]
    sentinels = far & ((same >= SENTINEL_ROWS) | (share > _tail(weight)))
    if not sentinels.any() or (~sentinels).sum() < FEWEST_VALUES:
        return values, weight, np.nan
    most = values[sentinels][np.argmax(share[sentinels])]
    return values[~sentinels], weight[~sentinels], float(most)
