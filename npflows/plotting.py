"""Pictures of tables, samples and training; needs matplotlib, which is imported when the first one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from npflows.validation import as_int, as_numeric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MASSES = (0.95, 0.68)
"""Share of the rows that each contour encloses."""
INK, SHADES, ACCENT = "#3c4654", ("#dfe3e8", "#b4bcc7"), "#d9480f"
"""Colours: data lines, data areas (outer, inner), samples."""
PANEL = 1.5
"""Inches of a panel's side."""
LABELS = 0.7
"""Inches that the names and numbers of an axis take."""


def require_matplotlib() -> None:
    """Raise ImportError with the remedy if matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'npflows[plot]'") from error


def corner(
    data: object,
    samples: object = None,
    *,
    columns: Sequence[str] | None = None,
    ranges: Sequence[tuple[float, float]] | None = None,
    bins: int = 50,
    max_points: int = 3000,
    labels: tuple[str, str] = ("data", "samples"),
    fig: Figure | None = None,
) -> Figure:
    """Every column and every pair of columns of a table, with samples on top.

    On the diagonal the histograms; below it the regions that hold 68 % and 95 % of the data as areas, and those of the
    samples as lines.  Where a flow is right, the lines lie on the edges of the areas.

    Parameters
    ----------
    data : array_like (n, d)
        Rows with NaN or infinite values are left out.
    samples : array_like (m, d), optional
    columns : sequence of str, optional
        Names for the axes.
    ranges : sequence of (low, high), optional
        What each axis shows; by default the middle 99 % of the data and a margin.
    bins : int
        Bins of an axis, at least 8.
    max_points : int
        Rows of data outside their 95 % region to draw as points, in each panel at most.
    labels : (str, str)
        What data and samples are called in the legend.
    fig : matplotlib.figure.Figure, optional
        An empty figure to draw in.

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
    from matplotlib.figure import Figure

    bins, max_points = as_int(bins, "bins", 8), as_int(max_points, "max_points", 0)
    x = _finite_rows(data, "data")
    if not len(x):
        raise ValueError("data has no row to draw")
    d = x.shape[1]
    y = None if samples is None else _finite_rows(samples, "samples")
    if y is not None and y.shape[1] != d:
        raise ValueError(f"samples have {y.shape[1]} columns, the data {d}")
    names = [f"x{i}" for i in range(d)] if columns is None else list(columns)
    if len(names) != d:
        raise ValueError(f"columns names {len(names)} columns, the data have {d}")
    limits = _limits(x) if ranges is None else np.asarray(ranges, dtype=np.float64)
    if limits.shape != (d, 2) or not np.isfinite(limits).all() or (limits[:, 0] >= limits[:, 1]).any():
        raise ValueError(f"ranges must hold (low, high) with low < high for each of the {d} columns, got {ranges!r}")
    edges = [np.linspace(low, high, bins + 1) for low, high in limits]

    if fig is None:
        side = max(PANEL * d + LABELS, 5.0)
        fig = Figure(figsize=(side, side), dpi=150)
    width, height = fig.get_size_inches()
    fig.subplots_adjust(left=LABELS / width, bottom=LABELS / height, right=0.99, top=0.99, wspace=0.06, hspace=0.06)
    axes = fig.subplots(d, d, squeeze=False)
    for i in range(d):
        for j in range(d):
            ax = axes[i, j]
            if j > i:
                ax.set_visible(False)
                continue
            ax.set_xlim(*limits[j])
            ax.set_xticks(_ticks(*limits[j]))
            ax.tick_params(labelsize=10, labelbottom=i == d - 1, labelleft=j == 0 < i, left=j < i, length=2.5, pad=2.5)
            for spine in ax.spines.values():
                spine.set(color="#8a94a3", linewidth=0.7)
            if i == j:
                _diagonal(ax, x[:, i], None if y is None else y[:, i], edges[i])
            else:
                ax.set_ylim(*limits[i])
                ax.set_yticks(_ticks(*limits[i]))
                pair = None if y is None else y[:, [j, i]]
                _panel(ax, x[:, [j, i]], pair, (edges[j], edges[i]), max_points)
            if i == d - 1:
                ax.set_xlabel(names[j], fontsize=13)
            if j == 0 < i:
                ax.set_ylabel(names[i], fontsize=13)
    fig.align_labels()
    _legend(fig, labels, with_samples=y is not None, pairs=d > 1)
    return fig


def _finite_rows(table: object, name: str) -> np.ndarray:
    rows = as_numeric(table, name)
    if rows.ndim != 2 or not rows.shape[1]:
        raise ValueError(f"{name} must have shape (n, d), got {rows.shape}")
    return np.asarray(rows[np.isfinite(rows).all(axis=1)], dtype=np.float64)


def _limits(x: np.ndarray) -> np.ndarray:
    """The middle 99 % of each column and a margin (d, 2)."""
    low, high = np.percentile(x, (0.5, 99.5), axis=0)
    pad = np.where(high > low, 0.06 * (high - low), np.maximum(1e-3 * np.abs(low), 0.5))
    return np.stack([low - pad, high + pad], axis=1)


def _ticks(low: float, high: float) -> np.ndarray:
    """Two or three round numbers, none so near an edge that it would touch the next panel's."""
    from matplotlib.ticker import MaxNLocator

    room = 0.06 * (high - low)
    ticks = MaxNLocator(3, steps=[1, 2, 3, 4, 5, 10]).tick_values(low, high)
    return ticks[(ticks > low + room) & (ticks < high - room)]


def _diagonal(ax: Axes, x: np.ndarray, y: np.ndarray | None, edges: np.ndarray) -> None:
    """Histograms as densities of the whole column, what lies outside the panel counted too."""
    width = np.diff(edges)
    heights = np.histogram(x, edges)[0] / (len(x) * width)
    top = heights.max()
    ax.stairs(heights, edges, fill=True, color=SHADES[1])
    if y is not None and len(y):
        heights = np.histogram(y, edges)[0] / (len(y) * width)
        top = max(top, heights.max())
        ax.stairs(heights, edges, color=ACCENT, linewidth=1.3)
    ax.set_ylim(0, 1.1 * top if top > 0 else 1)
    ax.set_yticks([])


def _panel(
    ax: Axes, x: np.ndarray, y: np.ndarray | None, edges: tuple[np.ndarray, np.ndarray], max_points: int
) -> None:  # fmt: skip
    """Regions of the data as areas, those of the samples as lines."""
    centres = [0.5 * (e[1:] + e[:-1]) for e in edges]
    density, levels = _regions(x, edges)
    inside = [np.clip(np.searchsorted(e, column) - 1, 0, len(e) - 2) for e, column in zip(edges, x.T)]
    outside = np.flatnonzero(density[inside[0], inside[1]] < levels[0])[:max_points]
    ax.plot(*x[outside].T, ".", color=SHADES[1], markersize=1.2, markeredgewidth=0, rasterized=True, zorder=0.5)
    if levels[0] < levels[1] < density.max():
        ax.contourf(*centres, density.T, [*levels, density.max()], colors=SHADES)
        ax.contour(*centres, density.T, levels, colors=INK, linewidths=0.5)
    if y is None or not len(y):
        return
    density, levels = _regions(y, edges)
    if levels[0] < levels[1] < density.max():
        ax.contour(*centres, density.T, levels, colors=ACCENT, linewidths=1.2)


def _regions(x: np.ndarray, edges: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, list[float]]:
    """A smooth histogram of two columns, and the levels above which `MASSES` of it lie."""
    density = np.histogram2d(x[:, 0], x[:, 1], bins=edges)[0]
    kernel = np.exp(-0.5 * np.arange(-3, 4) ** 2.0)
    kernel /= kernel.sum()
    for axis in (0, 1):
        density = np.apply_along_axis(np.convolve, axis, density, kernel, mode="same")
    ranked = np.sort(density, axis=None)[::-1]
    mass = np.cumsum(ranked)
    return density, [float(ranked[np.searchsorted(mass, share * mass[-1])]) for share in MASSES]


def _legend(fig: Figure, labels: tuple[str, str], with_samples: bool, pairs: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list = [Patch(facecolor=SHADES[1], edgecolor=INK, linewidth=0.5, label=labels[0])]
    if with_samples:
        handles.append(Line2D([], [], color=ACCENT, linewidth=1.6, label=labels[1]))
    size = min(15.0, 3 + 1.3 * fig.get_figwidth())
    fig.legend(handles=handles, loc="upper right", bbox_to_anchor=(0.985, 0.985), frameon=False, fontsize=size,
               title="regions of 68 % and 95 %" if pairs else None, title_fontsize=size)  # fmt: skip


def training_curve(history: Mapping[str, Sequence[float]], ax: Axes | None = None) -> Figure:
    """How the log-likelihood rose during a fit.

    Parameters
    ----------
    history : mapping
        `flow.history`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a figure of its own by default.

    Returns
    -------
    matplotlib.figure.Figure
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    if not history or not len(history["epoch"]):
        raise ValueError("history is empty: fit the flow first")
    if ax is None:
        figure = Figure(figsize=(6.4, 4.0), dpi=150)
        figure.subplots_adjust(left=0.11, bottom=0.13, right=0.98, top=0.97)
        ax = figure.subplots()
    epochs = np.asarray(history["epoch"])
    train, validation = (-np.asarray(history[name], dtype=np.float64) for name in ("train_loss", "validation_loss"))
    ax.plot(epochs, train, color=INK, linewidth=1.5, label="training")
    if np.isfinite(validation).any():
        best = int(np.nanargmax(validation))
        ax.plot(epochs, validation, color=ACCENT, linewidth=1.5, label="validation")
        ax.plot(epochs[best], validation[best], "o", color=ACCENT, label=f"best, epoch {int(epochs[best])}")
    late = np.concatenate([train[len(train) // 10 :], validation[len(train) // 10 :]])
    late = late[np.isfinite(late)]
    if late.size and np.ptp(late) > 0:
        ax.set_ylim(late.min() - 0.1 * np.ptp(late), late.max() + 0.1 * np.ptp(late))  # the first epochs fall far below
    ax.set_xlabel("epoch")
    ax.set_ylabel("mean log-likelihood per row")
    ax.legend(frameon=False)
    return ax.figure
