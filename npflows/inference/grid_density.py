"""Densities of some columns of a flow, the others integrated over, perhaps at given values of some."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from npflows.core.checks import as_choice, as_condition, as_int, as_numeric, as_rng, warn_user
from npflows.inference.cubature import Surroundings, importance, quadrature
from npflows.inference.unconstrained import Line
from npflows.support import Column, Periodic

if TYPE_CHECKING:
    from npflows.flow import NormalizingFlow

GRID = {1: 101, 2: 41}
"""Points of a grid's axis that nobody gave, by the number of columns."""
METHODS = ["auto", "quadrature", "importance"]
QUICK, MOST = 2, 3
"""Columns that are integrated over by quadrature, where not asked for and at most."""
REFERENCE, NEAR = 8192, 256
"""Samples that show quadrature where the mass lies, and how many of them around a point."""
UNCERTAIN = 1 / 3
"""Relative error of the density of what is given from which on there is a warning."""
LEAST = 32
"""Samples that importance sampling needs around a point."""
SHARE, USED = 1 / 64, 1 << 19
"""Share of the samples that importance sampling uses at a point, at most, and how many at all points, about."""


@dataclass(frozen=True)
class GridDensity:
    """A density on a grid.

    Attributes
    ----------
    grid : ndarray (n,), tuple of ndarray, or ndarray (n, k)
        The values of one column, the axes of several, or points.
    density, error : ndarray (n,) or (n_1, ..., n_k)
        The density there, in the units of the columns, and its standard error; with quadrature, an estimate of its error
        that is rather too large.
    columns : tuple
        Names of the columns, or their indices where the flow has no names.
    method : {"exact", "quadrature", "importance"}
    """

    grid: np.ndarray | tuple[np.ndarray, ...]
    density: np.ndarray
    error: np.ndarray
    columns: tuple
    method: str


def marginal(
    flow: NormalizingFlow,
    columns: object,
    grid: object = None,
    *,
    condition: object = None,
    method: str = "auto",
    n_samples: int = 1 << 18,
    rng: object = None,
) -> GridDensity:
    """The density of some columns, all others integrated over.

    Parameters
    ----------
    columns : int, str, or sequence of them
        Indices, or names as in the flow's `columns`.
    grid : array_like, optional
        Of one column its values (n,).  Of k columns a list or tuple of k axes, on whose product the density is wanted, or
        an ndarray (n, k) of points.  By default, for one or two columns, equal steps over what samples cover.
    condition : array_like (condition_dim,), optional
        Where the flow takes one.
    method : {"auto", "quadrature", "importance"}
        Adaptive quadrature, for at most 3 remaining columns, or importance sampling, where samples of the flow that lie
        around a point are moved to it, the other columns following by linear regression, and weighted by the densities
        before and after.  "auto" is quadrature for at most 2 remaining columns.
    n_samples : int
        Samples of the flow in all, for importance sampling; the error falls with their root.
    rng : int, numpy.random.Generator or None

    Returns
    -------
    GridDensity
        With grid, density, error, columns and method.  Where an error of importance sampling is more than a third of the
        density, few samples came near, and both are no more than a hint.

    Raises
    ------
    ValueError
        If a column is unknown, or grid or method do not fit.
    """
    return _density(flow, columns, {}, grid, condition, method, n_samples, rng)


def conditional(
    flow: NormalizingFlow,
    columns: object,
    given: Mapping,
    grid: object = None,
    *,
    condition: object = None,
    method: str = "auto",
    n_samples: int = 1 << 18,
    rng: object = None,
) -> GridDensity:
    """The density of some columns where others have given values, the rest integrated over.

    Parameters
    ----------
    columns, grid, condition, method, n_samples, rng
        As in `marginal`; "quadrature" needs at most 3 columns that are not given.
    given : dict
        Values of other columns, by index or name.

    Returns
    -------
    GridDensity
        Whose density is that of `columns` alone: over a grid that covers everything it integrates to 1.

    Raises
    ------
    ValueError
        As in `marginal`, or if the flow has no density at the given values.

    Warns
    -----
    UserWarning
        If too few samples came near the given values to say what the density is there.
    """
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f"given must be a dict from columns to their values, for instance {{0: 1.5}}, got {given!r}")
    return _density(flow, columns, given, grid, condition, method, n_samples, rng)


def _density(
    flow: NormalizingFlow,
    columns: object,
    given: Mapping,
    grid: object,
    condition: object,
    method: str,
    n_samples: int,
    rng: object,
) -> GridDensity:
    """`marginal` and `conditional`."""
    chosen = as_columns(flow, columns, "columns")
    held = as_columns(flow, list(given), "given") if given else np.zeros(0, np.int64)
    both = np.concatenate([chosen, held])
    if len(set(both.tolist())) < len(both):
        raise ValueError(f"columns and given must have no column in common, got {columns!r} and {list(given)!r}")
    values = np.array([_number(value) for value in given.values()])
    d, context = flow.latent_dim, as_condition(condition, 1, flow.condition_dim)
    over = np.setdiff1d(np.arange(d), held if given else both)
    method = _method(method, d - len(both), len(over), any(flow.support[i].is_integer for i in over if flow.support))
    line = Line(flow, context, cut=method == "quadrature")
    n, generator = as_int(n_samples, "n_samples", 1000), as_rng(rng)
    reference, _ = line.draw(REFERENCE if method == "quadrature" else n // 4, generator)
    samples = None if method == "quadrature" else line.draw(n - n // 4, generator)

    def integrals(fixed: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logarithms (G,) of the integrals over all other columns at x (G, k), and their relative errors."""
        t, log_slope, inside = line.to_unconstrained(x, fixed)
        log_p, error = np.full(len(x), -math.inf), np.zeros(len(x))
        if samples is None:
            around = Surroundings(reference, fixed, NEAR, line.whole)
            log_p[inside], error[inside] = quadrature(line.log_density, around, t[inside])
        else:
            share = min(SHARE, USED / (n * len(x)))
            cells = x[:, line.whole[fixed]]
            for cell in np.unique(cells, axis=0) if cells.size else cells[:1]:
                part = inside & (cells == cell).all(axis=1)
                log_p[part], error[part] = _in_cell(line, reference, samples, fixed, t[part], share)
        return log_p + log_slope.sum(axis=1), error

    shown = line.from_unconstrained(reference if not given else _nearest(line, reference, held, values), np.arange(d))[0]
    grid, points, shape = as_grid(grid, shown[:, chosen], [line.columns[i] for i in chosen])
    log_p, error = integrals(both, np.concatenate([points, np.tile(values, (len(points), 1))], axis=1))
    if given:
        (log_given,), (error_given,) = integrals(held, values[None])
        if log_given == -math.inf:
            raise ValueError(f"the flow has no density at {dict(given)!r}")
        if error_given > UNCERTAIN:
            warn_user(f"few samples lie near {dict(given)!r}: the result is uncertain, try more n_samples")
        log_p, error = log_p - log_given, np.hypot(error, error_given)
    with np.errstate(over="ignore", invalid="ignore"):
        density = np.exp(log_p)
        error = np.where(density > 0, error * density, 0.0)
    names = tuple(chosen.tolist() if flow.columns is None else (flow.columns[i] for i in chosen))
    if method == "quadrature" and not len(over):
        method = "exact"
    return GridDensity(grid, density.reshape(shape), error.reshape(shape), names, method)


def _in_cell(
    line: Line,
    reference: np.ndarray,
    samples: tuple[np.ndarray, np.ndarray],
    fixed: np.ndarray,
    t: np.ndarray,
    share: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Integrals by importance sampling at points t (G, k) with the same whole numbers, from samples that have them too."""
    whole, (rows, log_p), total = fixed[line.whole[fixed]], samples, len(samples[0])
    if len(whole) and len(t):
        cell = t[0, line.whole[fixed]]
        reference = reference[(reference[:, whole] == cell).all(axis=1)]
        same = (rows[:, whole] == cell).all(axis=1)
        rows, log_p = rows[same], log_p[same]
    moving = fixed[~line.whole[fixed]]
    if len(rows) < LEAST or len(reference) < LEAST:
        return np.full(len(t), -math.inf), np.zeros(len(t))
    if not len(moving):
        part = len(rows) / total
        return np.full(len(t), math.log(part)), np.full(len(t), math.sqrt((1 / part - 1) / total))
    around = Surroundings(line.beyond(reference, moving)[0], moving, max(int(share * len(reference)), LEAST), line.whole)
    rows, of = line.beyond(rows, moving)
    return importance(line.log_density, around, rows, log_p[of], t[:, ~line.whole[fixed]], total)


def _nearest(line: Line, reference: np.ndarray, fixed: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Samples near given values of the fixed columns, moved to them."""
    t, _, inside = line.to_unconstrained(values[None], fixed)
    whole = line.whole[fixed]
    same = reference[(reference[:, fixed[whole]] == values[whole]).all(axis=1)]
    if not inside[0] or len(same) < LEAST or whole.all():
        return same if len(same) >= LEAST else reference
    return Surroundings(same, fixed[~whole], NEAR, line.whole).moved(t[0, ~whole])


def as_columns(flow: NormalizingFlow, columns: object, name: str) -> np.ndarray:
    """Indices of columns that are given by index or name."""
    d, names = flow.latent_dim, flow.columns
    wanted = list(columns) if isinstance(columns, (Sequence, np.ndarray)) and not isinstance(columns, str) else [columns]
    result = []
    for column in wanted:
        if isinstance(column, str):
            if names is None:
                raise ValueError(f"this flow has no names of columns: set flow.columns, or give indices, not {column!r}")
            result.append(names.index(as_choice(column, name, names)))
        elif isinstance(column, (int, np.integer)) and not isinstance(column, bool) and -d <= column < d:
            result.append(int(column) % d)
        else:
            raise ValueError(f"{name} must be indices from 0 to {d - 1} or names of columns, got {column!r}")
    if not result or len(set(result)) < len(result):
        raise ValueError(f"{name} must be at least one column, and none twice, got {columns!r}")
    return np.array(result, np.int64)


def as_grid(
    grid: object, samples: np.ndarray, columns: Sequence[Column]
) -> tuple[np.ndarray | tuple[np.ndarray, ...], np.ndarray, tuple[int, ...]]:
    """A grid for the columns of samples (N, k), its points (G, k), and the shape of values there."""
    k = samples.shape[1]
    if grid is None:
        if k not in GRID:
            raise ValueError(f"grid must be given for {k} columns: a list of {k} axes, or an array of points (n, {k})")
        grid = [_covering(column, values, GRID[k]) for column, values in zip(columns, samples.T)]
        grid = grid[0] if k == 1 else grid
    if k > 1 and isinstance(grid, (list, tuple)):
        if len(grid) != k:
            raise ValueError(f"grid must be a list of {k} axes or an array of points (n, {k}), got a list of {len(grid)}")
        axes = [_axis(axis) for axis in grid]
        return tuple(axes), np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, k), tuple(map(len, axes))
    if k == 1:
        axis = _axis(grid[:, 0] if isinstance(grid, np.ndarray) and grid.shape[1:] == (1,) else grid)
        return axis, axis[:, None], axis.shape
    points = as_numeric(grid, "grid").astype(np.float64)
    if points.ndim != 2 or points.shape[1] != k or not points.size or not np.isfinite(points).all():
        raise ValueError(f"grid must be a list of {k} axes or a finite array of points (n, {k}), got shape {points.shape}")
    return points, points, (len(points),)


def _covering(column: Column, values: np.ndarray, n: int) -> np.ndarray:
    """An axis over what samples of a column cover, or over all of it."""
    if column.is_integer:
        return np.arange(values.min(), values.max() + 1)
    if isinstance(column, Periodic):
        return np.linspace(column.low, column.high, n)
    low, high = np.quantile(values, (0.001, 0.999))
    low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
    ends = getattr(column, "low", getattr(column, "lower", -np.inf)), getattr(column, "high", np.inf)
    return np.linspace(max(low, np.nextafter(ends[0], np.inf)), min(high, np.nextafter(ends[1], -np.inf)), n)


def _axis(values: object) -> np.ndarray:
    axis = np.atleast_1d(as_numeric(values, "grid")).astype(np.float64)
    if axis.ndim != 1 or not axis.size or not np.isfinite(axis).all():
        raise ValueError(f"an axis of grid must be finite numbers (n,), got shape {axis.shape}")
    return axis


def _number(value: object) -> float:
    array = as_numeric(value, "a value in given")
    if array.ndim or not np.isfinite(array):
        raise ValueError(f"values in given must be finite numbers, got {value!r}")
    return float(array)


def _method(method: str, rest: int, over: int, whole: bool) -> str:
    """The one for `rest` columns to integrate over at each point, `over` at most at all, with whole numbers or without."""
    as_choice(method, "method", METHODS)
    if method == "auto":
        return "quadrature" if rest <= QUICK and over <= MOST and not whole else "importance"
    if method == "quadrature" and (over > MOST or whole):
        what = "columns of whole numbers" if whole else f"{over} columns, {MOST} at most"
        raise ValueError(f"quadrature can't integrate over {what}: use method='importance'")
    return method
