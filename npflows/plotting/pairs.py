"""Corner plots: every column and every pair of columns of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from npflows.core import frames
from npflows.core.checks import as_int
from npflows.core.underflow import ignore_underflow
from npflows.plotting.style import (
    ACCENT,
    FRAME,
    INK,
    SHADES,
    as_ranges,
    figure_of,
    finite_rows,
    mass_levels,
    middle,
    names_of,
    require_matplotlib,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from npflows.plotting.style import AxesLike

PANEL = 1.5
"""Side of a panel in inches."""
LABELS = 0.7
"""Space for the names and numbers of an axis in inches."""


@ignore_underflow
def corner(
    data: ArrayLike,
    samples: ArrayLike | None = None,
    *,
    columns: Sequence[str] | None = None,
    ranges: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    bins: int | None = None,
    max_points: int = 3000,
    labels: tuple[str, str] = ("data", "samples"),
    fig: Figure | None = None,
    axes: AxesLike | None = None,
) -> Figure:
    """Draw every column and every pair of columns of a table, with samples on top.

    The diagonal shows histograms.  Below it, areas are the regions that hold 68 % and 95 % of the data, and lines are those
    of the samples.  Where a flow is right, the lines lie on the edges of the areas.

    Parameters
    ----------
    data : array_like (n, d)
        Rows with NaN or infinite values are left out.
    samples : array_like (m, d), optional
    columns : sequence of str, optional
        Names for the axes; those of a data frame by default.
    ranges : sequence of (low, high), optional
        The range of each axis; by default the middle 99 % of the data and a margin.
    weights : array_like (n,), optional
        Weights of the rows of the data, not negative.
    bins : int, optional
        Bins of an axis, at least 8; by default 15 to 50, more for more data.
    max_points : int
        Largest number of rows outside the 95 % region that each panel shows as points.
    labels : (str, str)
        Names of data and samples in the legend.
    fig : matplotlib.figure.Figure, optional
        An empty figure to draw into.
    axes : array of matplotlib.axes.Axes (d, d), optional
        Axes to draw into; those above the diagonal are hidden.

    Returns
    -------
    matplotlib.figure.Figure
        Made without pyplot; `fig.savefig("corner.png")` writes it.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    require_matplotlib()
    max_points = as_int(max_points, "max_points", 0)
    order = frames.names_of(data) if columns is None else columns
    x, weight = finite_rows(data, "data", weights, order)
    if not len(x):
        raise ValueError("data has no row to draw")
    d = x.shape[1]
    y = None if samples is None else finite_rows(samples, "samples", columns=order)[0]
    if y is not None and y.shape[1] != d:
        raise ValueError(f"samples have {y.shape[1]} columns, the data {d}")
    names = names_of(columns, data, d)
    limits = middle(x) if ranges is None else as_ranges(ranges, d)
    n_bins = int(np.clip(2 * np.cbrt(len(x)), 15, 50)) if bins is None else as_int(bins, "bins", 8)
    edges = [np.linspace(low, high, n_bins + 1) for low, high in limits]
    if fig is not None and axes is not None:
        raise ValueError("corner draws in fig or in axes: give one of them")

    if axes is None:
        fig, grid = _figure(fig, d)
    else:
        grid = np.array(axes, dtype=object)
        if grid.size != d * d:
            raise ValueError(f"axes must be {d} x {d} axes, got {grid.size}")
        grid = grid.reshape(d, d)
        fig = figure_of(grid[0, 0])
    for i in range(d):
        for j in range(d):
            ax = grid[i, j]
            if j > i:
                ax.set_visible(False)
                continue
            ax.set_xlim(*limits[j])
            ax.set_xticks(_ticks(*limits[j]))
            ax.tick_params(labelsize=10, labelbottom=i == d - 1, labelleft=j == 0 < i, left=j < i, length=2.5, pad=2.5)
            for spine in ax.spines.values():
                spine.set(color=FRAME, linewidth=0.7)
            if i == j:
                _diagonal(ax, x[:, i], weight, None if y is None else y[:, i], edges[i])
            else:
                ax.set_ylim(*limits[i])
                ax.set_yticks(_ticks(*limits[i]))
                pair = None if y is None else y[:, [j, i]]
                _panel(ax, x[:, [j, i]], weight, pair, (edges[j], edges[i]), max_points)
            if i == d - 1:
                ax.set_xlabel(names[j], fontsize=13)
            if j == 0 < i:
                ax.set_ylabel(names[i], fontsize=13)
    fig.align_labels(grid.ravel().tolist())
    _legend(fig, grid, labels, with_samples=y is not None)
    return fig


def _figure(fig: Figure | None, d: int) -> tuple[Figure, np.ndarray]:
    """A figure and its axes (d, d), which fill it."""
    from matplotlib.figure import Figure

    if fig is None:
        side = max(PANEL * d + LABELS, 5.0)
        fig = Figure(figsize=(side, side), dpi=150)
    width, height = fig.get_size_inches()
    fig.subplots_adjust(left=LABELS / width, bottom=LABELS / height, right=0.99, top=0.99, wspace=0.06, hspace=0.06)
    return fig, fig.subplots(d, d, squeeze=False)


def _ticks(low: float, high: float) -> np.ndarray:
    """Two or three round numbers, none so near an edge that it would touch a number of the next panel."""
    from matplotlib.ticker import MaxNLocator

    room = 0.06 * (high - low)
    ticks = np.asarray(MaxNLocator(3, steps=[1, 2, 3, 4, 5, 10]).tick_values(low, high))
    return ticks[(ticks > low + room) & (ticks < high - room)]


def _diagonal(
    ax: Axes, x: np.ndarray, weight: np.ndarray | None, y: np.ndarray | None, edges: np.ndarray
) -> None:  # fmt: skip
    """Draw histograms, as densities of the whole column including values outside of the panel."""
    width = np.diff(edges)
    heights = np.histogram(x, edges, weights=weight)[0] / (len(x) * width)
    top = heights.max()
    ax.stairs(heights, edges, fill=True, color=SHADES[1])
    if y is not None and len(y):
        heights = np.histogram(y, edges)[0] / (len(y) * width)
        top = max(top, heights.max())
        ax.stairs(heights, edges, color=ACCENT, linewidth=1.3)
    ax.set_ylim(0, 1.1 * top if top > 0 else 1)
    ax.set_yticks([])


def _panel(
    ax: Axes,
    x: np.ndarray,
    weight: np.ndarray | None,
    y: np.ndarray | None,
    edges: tuple[np.ndarray, np.ndarray],
    max_points: int,
) -> None:
    """Draw regions of the data as areas and those of the samples as lines."""
    centers = [0.5 * (e[1:] + e[:-1]) for e in edges]
    density, levels = regions(x, edges, weight)
    inside = [np.clip(np.searchsorted(e, column) - 1, 0, len(e) - 2) for e, column in zip(edges, x.T)]
    outside = np.flatnonzero(density[inside[0], inside[1]] < levels[0])[:max_points]
    ax.plot(*x[outside].T, ".", color=SHADES[1], markersize=1.2, markeredgewidth=0, rasterized=True, zorder=0.5)
    if levels[0] < levels[1] < density.max():
        ax.contourf(*centers, density.T, [*levels, density.max()], colors=SHADES)
        ax.contour(*centers, density.T, levels, colors=INK, linewidths=0.5)
    if y is None or not len(y):
        return
    density, levels = regions(y, edges)
    if levels[0] < levels[1] < density.max():
        ax.contour(*centers, density.T, levels, colors=ACCENT, linewidths=1.2)


def regions(
    x: np.ndarray, edges: tuple[np.ndarray, np.ndarray], weight: np.ndarray | None = None
) -> tuple[np.ndarray, list[float]]:  # fmt: skip
    """A smoothed histogram of two columns, and the levels of the contours that enclose `MASSES` of it."""
    density = np.histogram2d(x[:, 0], x[:, 1], bins=edges, weights=weight)[0]
    kernel = np.exp(-0.5 * np.arange(-3, 4) ** 2.0)
    kernel /= kernel.sum()
    for axis in (0, 1):
        density = np.apply_along_axis(np.convolve, axis, density, kernel, mode="same")
    return density, mass_levels(density)


def _legend(fig: Figure, grid: np.ndarray, labels: tuple[str, str], with_samples: bool) -> None:
    """Draw the legend in the upper right corner of the grid, where no panel is."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list = [Patch(facecolor=SHADES[1], edgecolor=INK, linewidth=0.5, label=labels[0])]
    if with_samples:
        handles.append(Line2D([], [], color=ACCENT, linewidth=1.6, label=labels[1]))
    left, right = grid[0, 0].get_position(), grid[0, -1].get_position()
    size = min(15.0, 3 + 1.3 * fig.bbox.width / fig.figure.dpi * (right.x1 - left.x0))
    fig.legend(handles=handles, loc="upper right", bbox_to_anchor=(1.0, 1.0), bbox_transform=grid[0, -1].transAxes,
               frameon=False, fontsize=size, title="regions of 68 % and 95 %" if len(grid) > 1 else None,
               title_fontsize=size)  # fmt: skip
