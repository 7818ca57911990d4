"""The common style of the pictures: colors, sizes, axes, checks of tables, files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from npflows.core import frames, tables
from npflows.core.atomic import atomic_write
from npflows.core.checks import as_numeric, as_weights
from npflows.files.tables import TableError, check_writable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    AxesLike = Axes | Sequence[Any] | np.ndarray
    """Axes, or several of them."""

MASSES = (0.95, 0.68)
"""Fraction of the rows that each contour encloses."""
INK, SHADES, ACCENT, FRAME = "#3c4654", ("#dfe3e8", "#b4bcc7"), "#d9480f", "#8a94a3"
"""Colors: data lines, data areas (outer, inner), results of a flow, frames."""
FLAMES = ("#ffffff", "#ffe8cc", "#ffc078", "#fd7e14", "#d9480f", "#7c2d12")
"""Color map of a flow's density, from low to high."""
TEXT, TICKS, LEGEND = 12, 10.5, 11
"""Font sizes of the names of axes, of their numbers, and of legends."""
SUFFIXES = (".png", ".pdf", ".svg")
BAND = 0.99
"""Fraction of the values that an expected band holds."""


def require_matplotlib() -> None:
    """Raise an ImportError that says what to install if matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'npflows[plot]'") from error


def check_picture(path: str | os.PathLike[str]) -> Path:
    """The path of a picture, after checking that a picture of this format can be drawn and written there."""
    require_matplotlib()
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise TableError(f"{path}: a picture's suffix is .png, .pdf or .svg")
    check_writable(path)
    return path


def save_picture(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure in the format of the suffix: in full or not at all."""
    path = Path(path)
    with atomic_write(path) as file:
        figure.savefig(file, format=path.suffix[1:].lower())


def own_axes(ax: Axes | None, size: tuple[float, float] = (6.4, 4.2)) -> Axes:
    """The given axes, or those of a new figure, in the common style."""
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=size, dpi=150, layout="constrained").add_subplot()
    plain(ax)
    return ax


def grid_of_axes(
    axes: AxesLike | None, rows: int, columns: int, panel: tuple[float, float], *, sharey: bool = False
) -> np.ndarray:
    """The given axes, or those of a new figure, as an array (rows, columns) in the common style."""
    if axes is None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(panel[0] * columns + 0.5, panel[1] * rows + 0.3), dpi=150, layout="constrained")
        made = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    else:
        made = np.array(axes, dtype=object)
        if made.size != rows * columns:
            raise ValueError(f"axes must be {rows} x {columns} axes, got {made.size}")
        made = made.reshape(rows, columns)
    for ax in made.flat:
        plain(ax)
    return made


def figure_of(ax: Axes) -> Figure:
    """The whole figure that axes belong to, also where they lie in a part of it."""
    return ax.figure.figure


def plain(ax: Axes) -> None:
    """Give axes the common style."""
    ax.tick_params(labelsize=TICKS, length=3, color=FRAME)
    for spine in ax.spines.values():
        spine.set(color=FRAME, linewidth=0.8)


def at_whole_numbers(axis: Axis, whole: bool = True) -> None:
    """Put the ticks of an axis at whole numbers alone, or also between them."""
    axis.get_major_locator().set_params(integer=whole)  # type: ignore[call-arg]


def label(ax: Axes, x: str | None = None, y: str | None = None) -> None:
    """Name the axes."""
    if x is not None:
        ax.set_xlabel(x, fontsize=TEXT)
    if y is not None:
        ax.set_ylabel(y, fontsize=TEXT)


def finite_rows(
    table: ArrayLike, name: str, weights: ArrayLike | None = None, columns: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """The rows (n, d) of a table that are finite, in float64, and their weights, of mean 1.

    Where the table's names are those of `columns` in another order, it is put into that order.
    """
    expected, given_names = None if columns is None else [str(column) for column in columns], frames.names_of(table)
    if expected is not None and given_names is not None and sorted(expected) == sorted(given_names):
        rows = as_numeric(table, name, tables.Header(len(expected), "columns", expected))
    else:
        rows = as_numeric(table, name)
    if rows.ndim != 2 or not rows.shape[1]:
        raise ValueError(f"{name} must have shape (n, d), got {rows.shape}")
    kept = np.isfinite(rows).all(axis=1)
    given = as_weights(weights, len(rows), "weights")
    if given is not None:
        kept &= given > 0
        given = given[kept] / given[kept].mean() if kept.any() else given[kept]
    return np.asarray(rows[kept], dtype=np.float64), given


def names_of(columns: Sequence[str] | None, table: ArrayLike | None, d: int, what: str = "the data have") -> list[str]:
    """Names for d columns: as given, else those of a data frame, else x0, x1, ..."""
    if columns is None:
        columns = frames.names_of(table)
    names = [f"x{i}" for i in range(d)] if columns is None else [str(name) for name in columns]
    if len(names) != d:
        raise ValueError(f"columns names {len(names)} columns, {what} {d}")
    return names


def middle(x: np.ndarray) -> np.ndarray:
    """The range (d, 2) of the middle 99 % of each column of x (n, d), and a margin."""
    low, high = np.percentile(x, (0.5, 99.5), axis=0)
    pad = np.where(high > low, 0.06 * (high - low), np.maximum(1e-3 * np.abs(low), 0.5))
    return np.stack([low - pad, high + pad], axis=1)


def as_ranges(ranges: ArrayLike, d: int) -> np.ndarray:
    """Check ranges: low and high (d, 2) for each column."""
    limits = np.asarray(ranges, dtype=np.float64)
    limits = limits[None] if limits.ndim == 1 == d else limits
    if limits.shape != (d, 2) or not np.isfinite(limits).all() or (limits[:, 0] >= limits[:, 1]).any():
        raise ValueError(f"ranges must hold (low, high) with low < high for each of the {d} columns, got {ranges!r}")
    return limits


def mass_levels(density: np.ndarray) -> list[float]:
    """The levels of the contours that enclose `MASSES` of a density on equal cells."""
    ranked = np.sort(density, axis=None)[::-1]
    mass = np.cumsum(ranked)
    return [float(ranked[min(np.searchsorted(mass, share * mass[-1]), ranked.size - 1)]) for share in MASSES]
