"""Pictures of the results of `npflows.diagnostics`: probability transforms, ranks and coverages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from npflows.core.checks import as_flag, as_int
from npflows.core.optional import scipy
from npflows.core.statistics import effective_sample_size
from npflows.core.underflow import ignore_underflow
from npflows.plotting.style import (
    ACCENT,
    BAND,
    FRAME,
    INK,
    LEGEND,
    SHADES,
    TEXT,
    TICKS,
    figure_of,
    grid_of_axes,
    label,
    names_of,
    own_axes,
    require_matplotlib,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from npflows.plotting.style import AxesLike

TAILS = (0.5 - BAND / 2, 0.5 + BAND / 2)
"""Probabilities of the lower and the upper end of a band."""
QUANTILES = 200
"""Largest number of quantiles to draw."""


@ignore_underflow
def latent(pit: Any, axes: AxesLike | None = None, *, bins: int = 20, max_columns: int = 4) -> Figure:
    """Compare latent values with the base distribution: histograms, and quantiles against expected ones.

    The upper row shows the probability integral transform of each latent column, which is uniform if the flow is right.  A
    peak in the middle means that the flow is too wide there, peaks at the ends that it is too narrow.  The lower row is a
    worm plot, which shows the tails: quantiles on a normal scale minus the expected ones.  With several columns the last
    panels show the distance from the center, which also depends on correlations among them.  Bands hold 99 % of the values
    at each point if the flow is right.

    Parameters
    ----------
    pit : npflows.diagnostics.PIT
        Result of `npflows.diagnostics.pit` for held-out rows.
    axes : array of matplotlib.axes.Axes, optional
        Two rows of axes, with one for each column that is drawn and one for the distance; a new figure by default.
    bins : int
        Bins of the histograms.
    max_columns : int
        Number of columns to draw at most; those farthest from uniform are chosen.

    Returns
    -------
    matplotlib.figure.Figure
    """
    require_matplotlib()
    _needs(pit, ("u", "p_value", "statistic"), "latent", "npflows.diagnostics.pit returns")
    bins, most = as_int(bins, "bins", 2), as_int(max_columns, "max_columns")
    u, weights = np.asarray(pit.u), pit.weights
    n, d = u.shape
    effective = n if weights is None else effective_sample_size(weights)
    chosen = np.sort(np.argsort(-pit.statistic, kind="stable")[:most])
    panels = [(f"latent column {i}", u[:, i], f"KS p = {pit.p_value[i]:.2g}") for i in chosen]
    if d > 1:
        panels.append(("distance from center", _content(u), ""))
    grid = grid_of_axes(axes, 2, len(panels), (2.15, 2.1))
    expected = np.full(bins, 1 / bins)
    band = _binomial(effective, expected)
    height = max(1.6, 1.15 * band[1].max() * bins)
    for column, (name, values, note) in zip(grid.T, panels):
        counts = np.histogram(values, bins, (0.0, 1.0), weights=weights)[0]
        shares = counts / (n if weights is None else weights.sum())
        _bars(column[0], shares * bins, band[0][0] * bins, band[1][0] * bins)
        height = max(height, 1.15 * shares.max() * bins)
        column[0].set_title(name, fontsize=LEGEND)
        column[0].text(0.04, 0.96, note, transform=column[0].transAxes, va="top", fontsize=TICKS - 0.5, color=INK)
        _worm(column[1], values, weights, effective)
    for ax in grid[0]:
        ax.set_ylim(0, min(height, 8))
        label(ax, "probability transform")
    reach = min(2.0, max(0.3, *(_extent(ax) for ax in grid[1])))
    for ax in grid[1]:
        ax.set_ylim(-reach, reach)
        label(ax, "normal quantile")
    for ax in grid[:, 1:].flat:
        ax.tick_params(labelleft=False)
    label(grid[0, 0], y="rows / expected")
    label(grid[1, 0], y="found - expected")
    _explain(grid[0, 0])
    return figure_of(grid[0, 0])


@ignore_underflow
def calibration(
    result: Any, axes: AxesLike | None = None, *, columns: Sequence[str] | None = None, difference: bool = False
) -> Figure:  # fmt: skip
    """Draw the calibration of a flow, as one of the diagnostics measured it.

    For `coverage` and `tarp_coverage` the picture shows the coverage against its level: above the diagonal the flow is too
    wide, below too narrow.  For `sbc_ranks` it is a histogram of ranks for each column: a peak in the middle means that the
    flow is too wide, two at the ends that it is too narrow, a slope that it is biased.  Bands hold 99 % of the values at
    each point if the flow is right.

    Parameters
    ----------
    result : npflows.diagnostics.Coverage, Tarp or SBC
        Result for held-out rows.  Many levels make a smooth curve: ``coverage(flow, x, np.linspace(0.02, 0.98, 49))``.
    axes : matplotlib.axes.Axes, optional
        The axes to draw into, for ranks one for each column; those of a new figure by default.
    columns : sequence of str, optional
        Names of the columns.
    difference : bool
        Draw coverage minus level, which shows small deviations.

    Returns
    -------
    matplotlib.figure.Figure
    """
    require_matplotlib()
    difference = as_flag(difference, "difference")
    if all(hasattr(result, name) for name in ("counts", "expected", "band", "p_value")):
        return _ranks(result, axes, columns)
    ax = _one(axes, difference)
    if all(hasattr(result, name) for name in ("levels", "interval", "ball", "error")):
        _coverage(ax, result, columns, difference)
    elif all(hasattr(result, name) for name in ("level", "coverage", "content")):
        _tarp(ax, result, difference)
    else:
        _needs(result, ("levels", "ball"), "calibration",
               "coverage, sbc_ranks and tarp_coverage of npflows.diagnostics return")  # fmt: skip
    ax.set_xlim(0, 1)
    label(ax, "level", "coverage - level" if difference else "share of rows within")
    low, high = ax.get_ylim()
    ax.set_ylim(*((low, high + 0.28 * (high - low)) if difference else (0, 1)))  # room for the legend
    ax.legend(frameon=False, fontsize=LEGEND, loc="upper left")
    return figure_of(ax)


def _needs(result: Any, attributes: tuple[str, ...], function: str, wanted: str) -> None:
    if not all(hasattr(result, name) for name in attributes):
        raise TypeError(f"{function} draws what {wanted}, got {type(result).__name__}")


def _one(axes: AxesLike | None, difference: bool) -> Axes:
    ax = None if axes is None else np.array(axes, dtype=object).ravel()[0]
    return own_axes(ax, (6.4, 4.2) if difference else (4.8, 4.6))


def _ranks(result: Any, axes: AxesLike | None, columns: Sequence[str] | None) -> Figure:
    d = len(result.counts)
    names = names_of(columns, None, d, "the ranks are of")
    if axes is None:
        across = min(d, 4)
        down = -(-d // across)
        grid = grid_of_axes(None, down, across, (2.4, 2.2), sharey=True)
    else:
        grid = grid_of_axes(axes, 1, d, (1, 1))
    top = max(1.6, 1.15 * max(result.counts.max(), result.band[1]) / result.expected)
    for i, ax in enumerate(grid.flat):
        if i >= d:
            ax.set_visible(False)
            continue
        _bars(ax, result.counts[i] / result.expected, *(end / result.expected for end in result.band))
        ax.set_ylim(0, top)
        ax.set_title(names[i], fontsize=TEXT)
        ax.text(
            0.04, 0.96, f"p = {result.p_value[i]:.2g}", transform=ax.transAxes, va="top", fontsize=TICKS - 0.5, color=INK
        )
        label(ax, f"rank / {result.n_samples}" if i + grid.shape[1] >= d else None)
    for ax in grid[:, 0]:
        label(ax, y="rows / expected")
    _explain(grid[0, 0])
    return figure_of(grid[0, 0])


def _coverage(ax: Axes, result: Any, columns: Sequence[str] | None, difference: bool) -> None:
    levels, d = np.asarray(result.levels), result.interval.shape[1]
    rows = np.median(levels * (1 - levels) / np.asarray(result.error) ** 2)
    _frame(ax, rows, difference)
    order, marker = np.argsort(levels), "o" if len(levels) < 12 else None
    for i in range(d):
        found = (result.interval[:, i] - levels * difference)[order]
        name = "intervals of the columns" if i == 0 and d > 1 else "interval of the column" if d == 1 else None
        ax.plot(levels[order], found, color=INK, linewidth=1.0, marker=marker, markersize=3, alpha=0.75, label=name)
    if d > 1:
        ax.plot(levels[order], (result.ball - levels * difference)[order], color=ACCENT, linewidth=1.8, marker=marker,
                markersize=4, label="balls, all columns")  # fmt: skip


def _tarp(ax: Axes, result: Any, difference: bool) -> None:
    level = np.asarray(result.level)
    _frame(ax, len(result.content), difference)
    found = result.coverage - level * difference
    ax.fill_between(level, found - result.error, found + result.error, color=ACCENT, alpha=0.25, linewidth=0)
    ax.plot(level, found, color=ACCENT, linewidth=1.8, label="coverage and its error")
    ax.text(0.97, 0.04, f"KS p = {result.p_value:.2g}", transform=ax.transAxes, ha="right", fontsize=TICKS, color=INK)


def _frame(ax: Axes, rows: float, difference: bool) -> None:
    """Draw the expected coverage and the band around it."""
    level = np.linspace(0, 1, 201)
    low, high = (end - level * difference for end in _binomial(rows, level))
    ax.fill_between(level, low, high, color=SHADES[0], linewidth=0, label="99 % if the flow is right")
    ax.plot(level, level * (not difference), color=SHADES[1], linewidth=1.0, zorder=1)


def _bars(ax: Axes, heights: np.ndarray, low: float, high: float) -> None:
    """Draw a histogram whose bars are expected to be 1, on the expected band."""
    edges = np.linspace(0, 1, len(heights) + 1)
    ax.axhspan(low, high, color=SHADES[0], linewidth=0)
    ax.axhline(1, color=SHADES[1], linewidth=1)
    ax.stairs(heights, edges, baseline=None, color=ACCENT, linewidth=1.5)
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])


def _explain(ax: Axes) -> None:
    ax.text(0.04, 0.04, "band: 99 %\nif the flow is right", transform=ax.transAxes, fontsize=TICKS - 1.5, color=FRAME)


def _worm(ax: Axes, u: np.ndarray, weights: np.ndarray | None, effective: float) -> None:
    """Draw a worm plot: quantiles of u on a normal scale minus the expected ones, on their band."""
    special, beta = scipy("special", "plotting.latent"), scipy("stats", "plotting.latent").beta
    ndtri = special.ndtri
    order = np.argsort(u)
    share = np.arange(1, len(u) + 1) if weights is None else np.cumsum(weights[order]) / weights.sum() * effective
    share = (share if weights is None else share - 0.5 * share[0]) / (effective + 1)
    share = np.clip(share, 1e-300, 1 - 1e-16)
    first, last = ndtri(share[[0, -1]])
    at = special.ndtr(np.linspace(first, last, QUANTILES))
    chosen = np.unique(np.clip(np.searchsorted(share, at), 0, len(u) - 1))
    wanted = ndtri(share[chosen])
    smallest = np.finfo(np.float64).tiny
    found = ndtri(np.clip(u[order][chosen], smallest, 1 - 1e-16))
    low, high = (
        ndtri(beta.ppf(end, share[chosen] * (effective + 1), (1 - share[chosen]) * (effective + 1))) for end in TAILS
    )
    ax.fill_between(wanted, low - wanted, high - wanted, color=SHADES[0], linewidth=0)
    ax.axhline(0, color=SHADES[1], linewidth=1)
    ax.plot(wanted, found - wanted, ".-", color=ACCENT, markersize=3, linewidth=0.8)


def _extent(ax: Axes) -> float:
    """The distance of a curve from 0, without the few largest values."""
    values = np.abs(ax.lines[-1].get_ydata())
    return 1.2 * float(np.quantile(values, 0.97)) if len(values) else 0.0


def _content(u: np.ndarray) -> np.ndarray:
    """The probability (n,) of the ball that reaches to each row, after each column is made normal."""
    ndtri, chi2 = scipy("special", "plotting.latent").ndtri, scipy("stats", "plotting.latent").chi2
    return chi2.cdf((ndtri(np.clip(u, 1e-300, 1 - 1e-16)) ** 2).sum(axis=1), u.shape[1])


def _binomial(n: float, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The band that holds `BAND` of the fractions observed in n rows where the expected one is `share`."""
    binom = scipy("stats", "the expected band of a picture").binom
    rows = max(1, round(n))
    low, high = (binom.ppf(end, rows, share) / rows for end in TAILS)
    return np.where(share > 0, low, 0.0), np.where(share < 1, high, 1.0)
