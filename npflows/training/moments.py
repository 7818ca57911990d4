"""Location and scale of a table's columns, in two passes through rows that come in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.core.location_scale import robust_location_scale, sample_places
from npflows.training.rows import Rows

LARGEST_SHIFT = 1e-3
"""A mean that is farther off, in standard deviations, is corrected."""

Pieces = Callable[[], Iterator[tuple[np.ndarray, np.ndarray | None]]]
Values = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
"""The values (n, k) that are looked at, from x (n, d) and the condition of some rows."""


class Moments(NamedTuple):
    """What two passes tell of each of k columns.

    Attributes
    ----------
    loc, scale : ndarray (k,)
        Mean and standard deviation, 0 where a column is constant.
    low, high : ndarray (k,)
        The smallest and the largest value.
    """

    loc: NDArray[np.float64]
    scale: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


class LocationScale(NamedTuple):
    """Location and scale by which k columns are standardized.

    Attributes
    ----------
    loc, scale : ndarray (k,)
        Mean and standard deviation, 0 where a column is constant; others where a few rows would decide them.
    low, high : ndarray (k,)
        The smallest and the largest value.
    is_robust : ndarray of bool (k,)
        The columns that a few rows would decide.
    sentinel : ndarray (k,)
        In these, the value far from all others that several rows share, NaN where there is none.
    """

    loc: NDArray[np.float64]
    scale: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    is_robust: NDArray[np.bool_]
    sentinel: NDArray[np.float64]

    @property
    def is_constant(self) -> NDArray[np.bool_]:
        """Which columns have one value only."""
        return self.low == self.high


def moments(pieces: Pieces, n: int) -> Moments:
    """Mean, standard deviation and range of n rows that come in pieces with their weights, of mean 1."""
    loc, variance, shift = np.zeros((3, 1))
    low, high = np.full((2, 1), [[np.inf], [-np.inf]])
    for x, weight in pieces():
        share = np.full(len(x), 1 / n) if weight is None else weight / n
        loc = loc + _weighted_sum(share, np.ascontiguousarray(x, np.float64))  # the layout would change the last bits
        low, high = np.minimum(low, x.min(axis=0)), np.maximum(high, x.max(axis=0))
    largest = np.maximum(np.abs(low), np.abs(high))
    unit = np.where(largest > 0, largest, 1.0)  # squares of deviations in this unit neither overflow nor vanish
    for x, weight in pieces():
        share = np.full(len(x), 1 / n) if weight is None else weight / n
        deviation = np.ascontiguousarray(x, np.float64) / unit - loc / unit
        variance, shift = variance + _weighted_sum(share, deviation**2), shift + _weighted_sum(share, deviation)
    wrong = np.abs(shift) > LARGEST_SHIFT * np.sqrt(variance)  # the rounding of the mean, where values hardly differ
    loc = np.where(wrong, loc + unit * shift, loc)
    variance = np.where(wrong, np.maximum(variance - shift**2, 0.0), variance)
    scale = unit * np.sqrt(variance)
    return Moments(np.where(low == high, low, loc), np.where(low == high, 0.0, scale), low, high)


def _weighted_sum(shares: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum (k,) of values (n, k) by their shares (n,), in einsum's own loops: that of a BLAS follows its number of
    threads."""
    return np.einsum("n,nk->k", shares, values)


def location_scale(rows: Rows, values: Values, channels: int | None = None) -> LocationScale:
    """Location and scale of values of some rows, weights included; robust ones where a few rows would decide them.

    Parameters
    ----------
    rows : Rows
        Without missing entries, or with values that stand in for them.
    values : callable
        Gives the values (n, k) from x (n, d) and the condition of n rows.
    channels : int, optional
        Where the values are images of so many channels, all pixels of a channel are taken together.
    """
    rows = rows.normalized()
    loc, scale, low, high = moments(lambda: ((values(x, c), weight) for x, weight, c in rows.pieces()), len(rows))
    if channels is not None:
        loc, scale = of_channels(loc, scale, channels)
        low, high = low.reshape(-1, channels).min(axis=0), high.reshape(-1, channels).max(axis=0)
        scale = np.where(low == high, 0.0, scale)
    width = len(loc)
    x, weight, condition = rows.take(sample_places(len(rows), width))
    sample = values(x, condition)
    if channels is not None:
        sample, weight = of_pixels(sample, weight, channels)
    robust = robust_location_scale(sample, weight, loc, scale)
    return LocationScale(robust.loc, robust.scale, low, high, robust.is_robust, robust.sentinel)


def of_channels(loc: np.ndarray, scale: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of images, all pixels together, from those of each value."""
    means, variances = loc.reshape(-1, channels), scale.reshape(-1, channels) ** 2
    mean = means.mean(axis=0)
    return mean, np.sqrt((variances + (means - mean) ** 2).mean(axis=0))


def of_pixels(images: np.ndarray, weight: np.ndarray | None, channels: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels (n, channels), evenly spaced among those of images, and their weights."""
    pixels = images.reshape(-1, channels)
    chosen = sample_places(len(pixels), channels)
    return pixels[chosen], None if weight is None else weight[chosen // (len(pixels) // len(images))]
