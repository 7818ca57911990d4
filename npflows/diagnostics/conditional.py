"""Calibration of conditional flows: is the truth anywhere among the samples with the right frequency?"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.core.checks import SeedLike, as_int, as_rows
from npflows.core.counters import in_pieces
from npflows.core.optional import scipy
from npflows.core.underflow import ignore_underflow
from npflows.diagnostics.common import own_rng, pieces, rows_of, samples_of_each, warn_if_samples_are_long
from npflows.diagnostics.latent import ks_uniform
from npflows.distribution.transformed import TransformedDistribution

BAND = 0.99
"""Share of each bin's counts that the expected band of a rank histogram holds."""
MOST_BINS = 32
ROWS_PER_BIN = 10


@dataclass(frozen=True)
class SBC:
    """Ranks of simulation-based calibration, uniform if the flow is right.

    Attributes
    ----------
    ranks : ndarray of int (m, d)
        How many of the samples for a row are below it, 0 to n_samples, column by column.
    n_samples : int
    counts : ndarray of int (d, bins)
        Histogram of the ranks; each bin holds as many different ranks.
    expected : float
        The count that each bin should have.
    band : (int, int)
        Within which 99 % of the counts lie if the flow is right.
    chi_squared, p_value : ndarray (d,)
        Pearson's test of each column's counts.
    """

    ranks: NDArray[np.int64] = field(repr=False)
    n_samples: int
    counts: NDArray[np.int64] = field(repr=False)
    expected: float
    band: tuple[int, int]
    chi_squared: NDArray[np.float64]
    p_value: NDArray[np.float64]

    @property
    def p_value_all(self) -> float:
        """That of all columns together: the smallest times their number (Bonferroni)."""
        return float(min(1.0, self.p_value.min() * len(self.p_value)))


@ignore_underflow
def sbc_ranks(
    flow: TransformedDistribution,
    x: ArrayLike,
    condition: ArrayLike | None = None,
    n_samples: int = 255,
    rng: SeedLike = None,
    *,
    bins: int | None = None,
) -> SBC:
    """Simulation-based calibration: the rank of each true value among samples drawn for its condition.

    If the flow is the distribution of x given the condition, all ranks are equally likely, column by column (Talts et al.
    2018, arXiv:1804.06788, theorem 1).  A hill in the middle means that the flow is too wide, two hills at the ends that
    it is too narrow, a slope that it is off to one side.  Ties, of whole numbers for instance, are broken at random.

    Parameters
    ----------
    x : array_like (m, input_dim)
        True values, drawn from the joint distribution with their conditions, that the flow was not fitted to.
    condition : array_like (m, condition_dim), optional
        One for each; not for a flow without a condition.
    n_samples : int
        Samples for each row.
    rng : int, numpy.random.Generator or None
    bins : int, optional
        Of the histogram; must divide n_samples + 1.  By default as many as that allows, up to 32 and so that each holds 10
        rows or more.
    """
    stats = scipy("stats", "diagnostics.sbc_ranks")
    rows, context = rows_of(flow, x, condition)
    n, rng = as_int(n_samples, "n_samples"), in_pieces(own_rng(rng))
    (m, d), possible = rows.shape, n + 1
    if bins is None:
        bins = max((b for b in range(2, min(MOST_BINS, m // ROWS_PER_BIN) + 1) if possible % b == 0), default=0)
        if not bins:
            raise ValueError(
                f"{m} rows with n_samples={n} make no histogram: take n_samples + 1 with a divisor of at most {MOST_BINS}, "
                f"for instance 255, and at least {ROWS_PER_BIN} rows for each bin"
            )
    elif possible % as_int(bins, "bins", 2):
        raise ValueError(f"bins must divide n_samples + 1 = {possible}, got {bins}")
    ranks, parts = np.empty((m, d), np.int64), pieces(m, n, d)
    warn_if_samples_are_long(flow, context, m, n, "sbc_ranks")
    for part in parts:
        samples, true = samples_of_each(flow, context, part, n, rng), rows[part, None]
        ties = (samples == true).sum(axis=1)
        ranks[part] = (samples < true).sum(axis=1) + rng.integers(0, ties + 1)
    return _histogram(ranks, n, bins, stats)


def _histogram(ranks: np.ndarray, n_samples: int, bins: int, stats: ModuleType) -> SBC:
    m = len(ranks)
    place = ranks * bins // (n_samples + 1)
    counts = np.stack([np.bincount(column, minlength=bins) for column in place.T])
    expected = m / bins
    chi_squared = ((counts - expected) ** 2).sum(axis=1) / expected
    band = tuple(int(v) for v in stats.binom.ppf([(1 - BAND) / 2, (1 + BAND) / 2], m, 1 / bins))
    return SBC(ranks, n_samples, counts, expected, (band[0], band[1]), chi_squared, stats.chi2.sf(chi_squared, bins - 1))


@dataclass(frozen=True)
class Tarp:
    """Expected coverage of regions around random points, the diagonal if the flow is right.

    Attributes
    ----------
    level : ndarray (k,)
        Credibility level.
    coverage : ndarray (k,)
        Share of the true values inside their region of that level.
    error : ndarray (k,)
        Standard error of the coverage, by bootstrap over the rows.
    content : ndarray (m,)
        The level at which each true value enters its region; uniform if the flow is right.
    statistic, p_value : float
        Kolmogorov-Smirnov test of that.
    """

    level: NDArray[np.float64] = field(repr=False)
    coverage: NDArray[np.float64] = field(repr=False)
    error: NDArray[np.float64] = field(repr=False)
    content: NDArray[np.float64] = field(repr=False)
    statistic: float
    p_value: float


@ignore_underflow
def tarp_coverage(
    flow: TransformedDistribution,
    x: ArrayLike,
    condition: ArrayLike | None = None,
    n_samples: int = 200,
    rng: SeedLike = None,
    *,
    references: str | ArrayLike = "condition",
    n_levels: int = 51,
    n_bootstrap: int = 100,
) -> Tarp:
    """Tests of accuracy with random points: expected coverage of the joint distribution of all columns.

    For each row a reference point is drawn; the share of the samples that are nearer to it than the true value is uniform
    if the flow is right, wherever the points are, and for all ways to place them only then (Lemos et al. 2023,
    arXiv:2302.03026, theorem 3).  Coverage above the level in its middle means that the flow is too wide, below
    that it is too narrow; an S on its side that it is off.  Distances are taken in standard deviations of x.

    Parameters
    ----------
    x : array_like (m, input_dim)
        True values, drawn from the joint distribution with their conditions, that the flow was not fitted to.
    condition : array_like (m, condition_dim), optional
        One for each; not for a flow without a condition.
    n_samples : int
        Samples for each row.
    rng : int, numpy.random.Generator or None
    references : {"condition", "uniform"} or array_like (m, input_dim)
        "condition": what a linear regression that was fitted to the other half of the rows predicts from the condition,
        and normal noise of the width of x.  "uniform": points that are equally likely anywhere in the range of x, as in
        the paper's experiments; they can't tell a flow that ignores its condition, and is right on average, from one that
        is right.  Or the points themselves, which must not depend on the true value of their row.
    n_levels : int
        Levels of the curve, 0 and 1 included.
    n_bootstrap : int
        Repetitions for its error.
    """
    scipy("stats", "diagnostics.tarp_coverage")  # before anything is sampled
    rows, context = rows_of(flow, x, condition)
    n, rng = as_int(n_samples, "n_samples"), in_pieces(own_rng(rng))
    n_levels, n_bootstrap = as_int(n_levels, "n_levels", 2), as_int(n_bootstrap, "n_bootstrap", 2)
    scale = rows.std(axis=0)
    scale[scale == 0] = 1.0
    points = _references(references, rows, context, scale, flow.input_shape, rng)
    content, parts = np.empty(len(rows)), pieces(len(rows), n, rows.shape[1])
    warn_if_samples_are_long(flow, context, len(rows), n, "tarp_coverage")
    for part in parts:
        samples = samples_of_each(flow, context, part, n, rng)
        point, true = points[part, None] / scale, rows[part] / scale
        squares = ((samples / scale - point) ** 2).sum(axis=2)
        own = ((true - point[:, 0]) ** 2).sum(axis=1)[:, None]
        rank = (squares < own).sum(axis=1) + rng.integers(0, (squares == own).sum(axis=1) + 1)
        content[part] = (rank + rng.uniform(size=len(rank))) / (n + 1)
    level = np.linspace(0, 1, n_levels)
    again = rng.integers(0, len(rows), (n_bootstrap, len(rows)))
    error = np.std([_curve(content[chosen], level) for chosen in again], axis=0, ddof=1)
    statistic, p_value = ks_uniform(content)
    return Tarp(level, _curve(content, level), error, content, statistic, p_value)


def _curve(content: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Share of the contents at or below each level."""
    return np.searchsorted(np.sort(content), level, side="right") / len(content)


def _references(
    references: str | ArrayLike,
    x: NDArray[np.float64],
    condition: NDArray[np.float64] | None,
    scale: NDArray[np.float64],
    shape: tuple[int, ...],
    rng: np.random.Generator,
) -> np.ndarray:
    """Reference points (m, d)."""
    m, d = x.shape
    if not isinstance(references, str):
        points, _ = as_rows(references, shape, "references")
        if len(points) != m or not np.isfinite(points).all():
            raise ValueError(f"references must be {m} finite points, one for each row of x, got {len(points)}")
        return np.array(points, np.float64)
    if references not in ("condition", "uniform"):
        raise ValueError(f"references must be 'condition', 'uniform' or an array of points, got {references!r}")
    if references == "uniform":
        return rng.uniform(x.min(axis=0), x.max(axis=0), (m, d))
    features = np.ones((m, 1)) if condition is None else np.concatenate([np.ones((m, 1)), condition], axis=1)
    points = scale * rng.standard_normal((m, d))
    half = rng.permutation(m) % 2 == 0
    for fitted, predicted in ((half, ~half), (~half, half)):
        points[predicted] += features[predicted] @ np.linalg.lstsq(features[fitted], x[fitted], rcond=None)[0]
    return points
