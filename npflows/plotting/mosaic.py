"""Mosaics of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from npflows.core.checks import as_int, as_numeric
from npflows.plotting.style import INK, TICKS, figure_of, own_axes, require_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP, HEADING = 0.08, 0.3
"""Space between images, and above each for its title, as fractions of their height."""
WIDTH = 6.4
"""Width of a new figure in inches."""


def images(
    images: ArrayLike,
    ax: Axes | None = None,
    *,
    columns: int | None = None,
    titles: Sequence[str] | None = None,
    limits: tuple[float, float] | None = None,
    cmap: str = "gray",
) -> Figure:
    """Draw images side by side, samples of a flow for instance.

    Parameters
    ----------
    images : array_like (n, height, width, channels), or (rows, columns, height, width, channels)
        Gray images have one channel, color images three; a single image may come without the first axis.  NaN is blank.
    ax : matplotlib.axes.Axes, optional
        The axes to draw into; those of a new figure by default.
    columns : int, optional
        Images in a row; by default about as many as rows, or the number in the array.
    titles : sequence of str, optional
        One for each image, above it.
    limits : (low, high), optional
        Values at the two ends of the color scale, (0, 255) for instance; by default the lowest and the highest one.
    cmap : str
        Matplotlib's color map of images with one channel: "gray" from black to white, "Greys" from white to black.

    Returns
    -------
    matplotlib.figure.Figure
    """
    require_matplotlib()
    import matplotlib

    values = as_numeric(images, "images").astype(np.float64)
    if values.ndim == 5:
        columns = values.shape[1] if columns is None else columns
        values = values.reshape(-1, *values.shape[2:])
    values = values[None] if values.ndim == 3 else values
    if values.ndim != 4 or values.shape[3] not in (1, 3):
        raise ValueError(
            f"images must have shape (n, height, width, channels) with 1 or 3 channels, got {np.shape(images)}"
        )
    if not values.size:
        raise ValueError("images has no image to draw")
    n, height, width, _ = values.shape
    if titles is not None and len(titles) != n:
        raise ValueError(f"titles names {len(titles)} images, there are {n}")
    low, high = _ends(values, limits)
    columns = min(n, math.ceil(math.sqrt(n)) if columns is None else as_int(columns, "columns"))
    rows = -(-n // columns)

    gap = max(1, round(GAP * height))
    head = gap if titles is None else max(2, round(HEADING * height))
    shades = np.clip((values - low) / ((high - low) or 1), 0, 1)
    paint = shades if values.shape[3] == 3 else matplotlib.colormaps[cmap](shades[..., 0])
    sheet = np.zeros((rows * (height + head) - (gap if titles is None else 0), columns * (width + gap) - gap, 4))
    top = 0 if titles is None else head
    corners = [(top + i // columns * (height + head), i % columns * (width + gap)) for i in range(n)]
    for (y, x), image, value in zip(corners, paint, values):
        cell = sheet[y : y + height, x : x + width]
        cell[..., :3], cell[..., 3] = np.nan_to_num(image[..., :3]), ~np.isnan(value).any(axis=2)

    ax = own_axes(ax, (WIDTH, WIDTH * sheet.shape[0] / sheet.shape[1]))
    ax.imshow(sheet, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if titles is not None:
        points = 72 * ax.get_position().width * figure_of(ax).get_size_inches()[0] / sheet.shape[1]  # of a pixel
        for (y, x), title in zip(corners, titles):
            ax.text(x + width / 2 - 0.5, y - 0.5 - 0.15 * head, title, fontsize=min(TICKS, 0.7 * head * points), color=INK,
                    ha="center", va="bottom")  # fmt: skip
    return figure_of(ax)


def _ends(values: np.ndarray, limits: ArrayLike | None) -> tuple[float, float]:
    """The values at the ends of the color scale."""
    if limits is None:
        known = values[np.isfinite(values)]
        return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    ends = np.asarray(limits)
    if ends.shape != (2,) or ends.dtype.kind not in "biuf" or not np.isfinite(ends).all() or ends[0] >= ends[1]:
        raise ValueError(f"limits must be two numbers, low < high, got {limits!r}")
    return float(ends[0]), float(ends[1])
