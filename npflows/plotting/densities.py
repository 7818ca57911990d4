"""Densities of flows of one or two columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from npflows.core.checks import SeedLike, as_flag, as_int, as_numeric
from npflows.core.underflow import ignore_underflow
from npflows.distribution.transformed import TransformedDistribution
from npflows.plotting.style import (
    ACCENT,
    FLAMES,
    INK,
    LEGEND,
    SHADES,
    TICKS,
    as_ranges,
    at_whole_numbers,
    figure_of,
    finite_rows,
    label,
    mass_levels,
    middle,
    names_of,
    own_axes,
    require_matplotlib,
)
from npflows.support.columns import Column

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = (ACCENT, "#1c7293", "#5f8d3c", "#8a4fa3", "#b58900", "#c2255c", "#0b7a75", "#6b4f3a")
"""Colors of the densities for different conditions."""
SAMPLES = 4000
"""Number of samples that give the range of an axis where there are no data."""


class Mixture(Protocol):
    """Flows that are drawn as one, an ensemble."""

    @property
    def members(self) -> Sequence[TransformedDistribution]:
        """The flows, of which each has an equal part."""
        ...

    @property
    def latent_dim(self) -> int:
        """Columns of each."""
        ...

    @property
    def support(self) -> list[Column] | None:
        """Where the columns live."""
        ...

    def sample(self, n_samples: int, rng: SeedLike = None, temperature: float = 1.0, *, condition: Any = None) -> Any:
        """Draw samples of the mixture."""


@ignore_underflow
def density_1d(
    flow: TransformedDistribution | Mixture,
    ranges: ArrayLike | None = None,
    condition: ArrayLike | None = None,
    data: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    n_points: int = 500,
    ax: Axes | None = None,
) -> Figure:
    """Draw the density of a flow of one column, and a histogram of data behind it.

    For an integer column the probability of each number is drawn.

    Parameters
    ----------
    flow : NormalizingFlow or Ensemble
        A flow of one column; of an ensemble the density of the mixture is drawn, in a band of a standard deviation of its
        members' densities.
    ranges : (low, high), optional
        The range of the axis; by default the middle 99 % of the data, or of samples, and a margin, within the support.
    condition : array_like (condition_dim,) or (m, condition_dim), optional
        Where the flow takes one; each of several, 8 at most, gets a line.
    data : array_like (n,) or (n, 1), optional
    weights : array_like (n,), optional
        Weights of the data.
    n_points : int
        Points at which the density is computed.
    ax : matplotlib.axes.Axes, optional
        The axes to draw into; those of a new figure by default.

    Returns
    -------
    matplotlib.figure.Figure
    """
    require_matplotlib()
    mixture, members = flow, _members(flow)
    flow = members[0]
    _check(flow, 1)
    n_points, conditions = as_int(n_points, "n_points", 2), _conditions(flow, condition)
    if len(conditions) > len(LINES):
        raise ValueError(f"density_1d draws {len(LINES)} conditions at most, got {len(conditions)}")
    x, weight = _data(flow, data, weights)
    (low, high), whole = _limits(mixture, ranges, conditions, x)[0], _whole(flow)[0]
    ax = own_axes(ax)
    if x is not None:
        edges = _centers(low, high, _bins(x, low, high), whole)[1]
        heights = np.histogram(x[:, 0], edges, weights=weight)[0] / (len(x) * np.diff(edges))
        ax.stairs(heights, edges, fill=True, color=SHADES[1], label="data")
    points = _centers(low, high, n_points, whole)[0]
    for color, given in zip(LINES, conditions):
        densities = np.exp([member.log_prob(points[:, None], given) for member in members])
        density = densities.mean(axis=0)
        style = {"marker": "o", "markersize": 4, "linestyle": ":", "linewidth": 1.0} if whole else {"linewidth": 1.8}
        ax.plot(points, density, color=color, label=_about(flow, given, len(members)), **style)
        if len(members) > 1:
            spread = densities.std(axis=0, ddof=1)
            ax.fill_between(points, np.maximum(density - spread, 0), density + spread, color=color, alpha=0.25, linewidth=0)
    ax.set_xlim(low, high)
    ax.set_ylim(bottom=0)
    at_whole_numbers(ax.xaxis, whole)
    label(ax, _names(flow)[0], "probability" if whole else "probability density")
    ax.legend(frameon=False, fontsize=LEGEND, loc="best")
    return figure_of(ax)


@ignore_underflow
def density_2d(
    flow: TransformedDistribution | Mixture,
    ranges: ArrayLike | None = None,
    condition: ArrayLike | None = None,
    data: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    n_points: int = 200,
    max_points: int = 1500,
    colorbar: bool = True,
    ax: Axes | None = None,
) -> Figure:
    """Draw the density of a flow of two columns, contours that enclose 68 % and 95 % of it, and data as points.

    Parameters
    ----------
    flow : NormalizingFlow or Ensemble
        A flow of two columns; of an ensemble the density of the mixture is drawn.
    ranges : sequence of (low, high), optional
        The range of each axis; by default the middle 99 % of the data, or of samples, and a margin, within the support.
    condition : array_like (condition_dim,), optional
        Where the flow takes one.
    data : array_like (n, 2), optional
    weights : array_like (n,), optional
        Weights of the data: points are chosen with probabilities in proportion.
    n_points : int
        Points along each side at which the density is computed.
    max_points : int
        Largest number of rows to draw, chosen at random, the same each time.
    colorbar : bool
        Whether to draw a color bar, for which the axes become smaller.
    ax : matplotlib.axes.Axes, optional
        The axes to draw into; those of a new figure by default.

    Returns
    -------
    matplotlib.figure.Figure
    """
    require_matplotlib()
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.lines import Line2D

    mixture, members = flow, _members(flow)
    flow = members[0]
    _check(flow, 2)
    colorbar = as_flag(colorbar, "colorbar")
    n_points, max_points = as_int(n_points, "n_points", 8), as_int(max_points, "max_points", 0)
    conditions = _conditions(flow, condition)
    if len(conditions) > 1:
        raise ValueError(f"density_2d draws one condition, got {len(conditions)}: draw each into axes of its own")
    x, weight = _data(flow, data, weights)
    limits, whole = _limits(mixture, ranges, conditions, x), _whole(flow)
    (a, a_edges), (b, b_edges) = (_centers(limits[i, 0], limits[i, 1], n_points, whole[i]) for i in (0, 1))
    grid = np.stack(np.meshgrid(a, b, indexing="ij"), axis=-1).reshape(-1, 2)
    densities = np.exp([member.log_prob(grid, conditions[0]) for member in members])
    density = densities.mean(axis=0).reshape(len(a), len(b))

    ax = own_axes(ax, (6.2, 5.0) if colorbar else (5.2, 5.0))
    flames = LinearSegmentedColormap.from_list("flames", FLAMES)
    top = np.nanquantile(density, 0.9995)  # a spike in one cell would leave the others white
    mesh = ax.pcolormesh(a_edges, b_edges, density.T, cmap=flames, vmin=0, vmax=top if top > 0 else None, rasterized=True)
    handles = []
    if not any(whole):
        levels = mass_levels(density)
        if 0 < levels[0] < levels[1] < density.max():
            ax.contour(a, b, density.T, levels, colors=INK, linewidths=(0.8, 1.3))
            handles.append(Line2D([], [], color=INK, linewidth=1.0, label="regions of 68 % and 95 %"))
    if x is not None and len(x) and max_points:
        rng = np.random.default_rng(0)
        share = None if weight is None else weight / weight.sum()
        chosen = rng.choice(len(x), max_points, p=share) if len(x) > max_points or share is not None else np.arange(len(x))
        ax.plot(*x[chosen].T, ".", color=INK, markersize=2.2, markeredgewidth=0, alpha=0.75, rasterized=True)
        handles.append(Line2D([], [], color=INK, marker=".", markersize=5, linestyle="", label="data"))
    ax.set_xlim(*limits[0])
    ax.set_ylim(*limits[1])
    for axis, integer in zip((ax.xaxis, ax.yaxis), whole):
        at_whole_numbers(axis, integer)
    label(ax, *_names(flow))
    about = _about(flow, conditions[0], len(members))
    if about != "flow":
        ax.set_title(about, fontsize=LEGEND)
    if handles:
        ax.legend(handles=handles, fontsize=LEGEND - 1, framealpha=0.8, edgecolor="none", loc="upper right")
    if colorbar:
        bar = figure_of(ax).colorbar(mesh, ax=ax, extend="max" if density.max() > top else "neither")
        bar.set_label("probability" if all(whole) else "probability density", fontsize=LEGEND)
        bar.ax.tick_params(labelsize=TICKS - 1, length=3)
        bar.outline.set_linewidth(0.5)
    return figure_of(ax)


def _members(flow: TransformedDistribution | Mixture) -> Sequence[TransformedDistribution]:
    """The flows whose mean density is drawn: those of an ensemble, or the one."""
    if isinstance(flow, TransformedDistribution):
        return [flow]
    if not hasattr(flow, "members"):
        raise TypeError(f"flow must be a flow or an Ensemble, got {type(flow).__name__}")
    return flow.members


def _check(flow: TransformedDistribution, d: int) -> None:
    if flow.latent_dim != d:
        have = "1 column" if flow.latent_dim == 1 else f"{flow.latent_dim} columns"
        other = (
            f"use density_{flow.latent_dim}d" if flow.latent_dim in (1, 2) else "corner(data, flow.sample(n)) draws those"
        )
        raise ValueError(f"density_{d}d draws flows of {d} column{'s' * (d > 1)}, this one has {have}: {other}")


def _conditions(flow: TransformedDistribution, condition: ArrayLike | None) -> list[np.ndarray | None]:
    if not flow.condition_dim:
        if condition is not None:
            raise ValueError("this flow takes no condition (condition_dim=0), but one was given")
        return [None]
    if condition is None:
        raise ValueError(f"this flow needs a condition of {flow.condition_dim} values: pass condition=")
    rows = flow.conditioning.each(condition, "a density")
    if not len(rows):
        raise ValueError("condition must have at least one row")
    return list(rows)


def _about(flow: TransformedDistribution, condition: np.ndarray | None, members: int = 1) -> str:
    """The name in the legend of the density for a condition."""
    if condition is None:
        return "flow" if members == 1 else f"{members} flows"
    names = flow.condition_columns or ([f"c{i}" for i in range(len(condition))] if len(condition) > 1 else ["condition"])
    shown = [f"{name} = {value:.4g}" for name, value in zip(names, condition)]
    return ", ".join(shown[:4]) + (", ..." if len(shown) > 4 else "")


def _names(flow: TransformedDistribution) -> list[str]:
    return names_of(flow.headers.x.labels if flow.columns else None, None, flow.latent_dim)


def _data(
    flow: TransformedDistribution, data: ArrayLike | None, weights: ArrayLike | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if data is None:
        return None, None
    d, table = flow.latent_dim, as_numeric(data, "data", flow.preprocessing.header)
    x, weight = finite_rows(table[:, None] if table.ndim == 1 == d else table, "data", weights)
    if x.shape[1] != d:
        raise ValueError(f"data must have {d} columns, got {x.shape[1]}")
    if not len(x):
        raise ValueError("data has no row to draw")
    return x, weight


def _whole(flow: TransformedDistribution) -> list[bool]:
    """Whether each column is an integer one."""
    return [column.is_integer for column in flow.support] if flow.support else [False] * flow.latent_dim


def _limits(
    flow: TransformedDistribution | Mixture,
    ranges: ArrayLike | None,
    conditions: list[np.ndarray | None],
    x: np.ndarray | None,
) -> np.ndarray:
    """The range of each axis (d, 2): periodic columns and few integers in full, no value outside the support."""
    d = flow.latent_dim
    if ranges is not None:
        return as_ranges(ranges, d)
    if x is None:
        drawn = [flow.sample(SAMPLES // len(conditions), 0, condition=c).reshape(-1, d) for c in conditions]
        x = np.concatenate(drawn)
        x = x[np.isfinite(x).all(axis=1)]
        if not len(x):
            raise ValueError("no sample of the flow is finite: pass ranges=")
    limits = middle(x)
    for i, column in enumerate(flow.support or []):
        low, high = column.bounds
        if getattr(column, "is_integer", False):
            low, high = low - 0.5, high + 0.5
            limits[i] = (low, high) if high - low <= 40 else np.clip(limits[i], low, high)
        else:
            limits[i] = (low, high) if column.is_periodic else np.clip(limits[i], low, high)
    return limits


def _centers(low: float, high: float, n: int, whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """Centers and edges of the cells of an axis: integers, or n equal cells."""
    if whole:
        centers = np.arange(np.ceil(low), np.floor(high) + 1)
        return centers, np.append(centers - 0.5, centers[-1:] + 0.5)
    edges = np.linspace(low, high, n + 1)
    return 0.5 * (edges[1:] + edges[:-1]), edges


def _bins(x: np.ndarray, low: float, high: float) -> int:
    """The number of bins by the rule of Freedman and Diaconis, from 10 to 80."""
    first, third = np.percentile(x, (25, 75))
    width = 2 * (third - first) / np.cbrt(len(x))
    return int(np.clip((high - low) / width, 10, 80)) if width > 0 else 40
