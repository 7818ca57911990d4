"""Marginal and conditional densities of a flow on a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.core.checks import SeedLike, as_choice, as_int, as_rng, warn_user
from npflows.core.progress import Progress
from npflows.core.underflow import ignore_underflow
from npflows.distribution.cost import seconds_a_row, warn_if_long
from npflows.distribution.transformed import TransformedDistribution
from npflows.inference.cubature import least_evaluations, quadrature
from npflows.inference.grids import ColumnsLike, as_column_numbers, as_grid, as_values
from npflows.inference.local_regression import LocalRegression
from npflows.inference.marginal_importance import LATTICE, marginal_importance
from npflows.inference.unconstrained import UnconstrainedDensity

METHODS = ["auto", "quadrature", "importance"]
AUTO_COLUMNS, MOST_COLUMNS = 2, 3
"""Most columns that quadrature integrates over: with method="auto", and at all."""
REFERENCE, NEIGHBORS = 8192, 256
"""Samples that show quadrature where the mass lies, and how many of them around a point."""
UNCERTAIN = 1 / 3
"""Relative error of the density at the given values above which there is a warning."""
LEAST = 32
"""Samples that importance sampling needs around a point."""
MOST_NUMBERS = 1 << 27
"""Numbers in the samples at most, rows times columns."""
FEW = 16
"""Samples that tell, before all are drawn, how many points a default grid has and how long a density takes."""
SHOWN_AFTER = 2.0
"""Seconds after which progress is shown."""
SHARE, USED = 1 / 64, 1 << 19
"""Largest share of the samples that importance sampling uses at a point, and approximate number at all points."""


@dataclass(frozen=True)
class GridDensity:
    """A density on a grid.

    Attributes
    ----------
    grid : ndarray (n,), tuple of ndarray, or ndarray (n, k)
        The values of one column, the axes of several, or points.
    density, error : ndarray (n,) or (n_1, ..., n_k)
        The density there, in the units of the columns, and its standard error; with quadrature, an upper estimate of its
        error.
    columns : tuple
        Names of the columns, or their indices where the flow has no names.
    method : {"exact", "quadrature", "importance"}
    """

    grid: NDArray[np.float64] | tuple[NDArray[np.float64], ...]
    density: NDArray[np.float64]
    error: NDArray[np.float64]
    columns: tuple
    method: str


def marginal(
    flow: TransformedDistribution,
    columns: ColumnsLike,
    grid: ArrayLike | None = None,
    *,
    condition: ArrayLike | None = None,
    method: str = "auto",
    n_samples: int = 1 << 18,
    rng: SeedLike = None,
    progress: bool | str = "auto",
) -> GridDensity:
    """The density of some columns, all others integrated over.

    Parameters
    ----------
    columns : int, str, or sequence of them
        Indices, or names as in the flow's `columns`.
    grid : array_like, optional
        Of one column its values (n,).  Of k columns a list or tuple of k axes, on whose product the density is wanted, or
        an ndarray (n, k) of points.  By default, for one or two columns, equal steps over the range of samples.
    condition : array_like (condition_dim,), optional
        Where the flow takes one; finite.
    method : {"auto", "quadrature", "importance"}
        Adaptive quadrature, for at most 3 remaining columns, or importance sampling: samples of the flow near a point are
        moved to it, the other columns following by linear regression, and weighted by the densities before and after.
        "auto" is quadrature for at most 2 remaining columns.
    n_samples : int
        Samples of the flow in all, for importance sampling; the error falls with their root.
    rng : int, numpy.random.Generator or None
    progress : bool or "auto"
        Whether to show, once it has taken 2 seconds, how many samples are drawn and how many points are done; auto: on a
        terminal.

    Returns
    -------
    GridDensity
        With grid, density, error, columns and method.  Where an error of importance sampling is more than a third of the
        density, few samples were near, and neither is reliable.

    Raises
    ------
    ValueError
        If a column is unknown, or grid or method do not fit; if samples of so many columns would need too much memory; or
        if the samples lie so that no regression on them can be made.

    Warns
    -----
    UserWarning
        If it will take long, as it does for hundreds of columns, with an estimate before any sample is drawn.
    """
    return _density(flow, columns, {}, grid, condition, method, n_samples, rng, progress)


def conditional(
    flow: TransformedDistribution,
    columns: ColumnsLike,
    given: Mapping,
    grid: ArrayLike | None = None,
    *,
    condition: ArrayLike | None = None,
    method: str = "auto",
    n_samples: int = 1 << 18,
    rng: SeedLike = None,
    progress: bool | str = "auto",
) -> GridDensity:
    """The density of some columns where others have given values, the rest integrated over.

    Parameters
    ----------
    columns, grid, condition, method, n_samples, rng, progress
        As in `marginal`; "quadrature" needs at most 3 columns that are not given.
    given : dict
        Values of other columns, by index or name.

    Returns
    -------
    GridDensity
        The density of `columns` alone, which integrates to 1 over a grid that covers all of them.

    Raises
    ------
    ValueError
        As in `marginal`, or if the flow has no density at the given values.

    Warns
    -----
    UserWarning
        If too few samples are near the given values to tell the density there, or as in `marginal`.
    """
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f"given must be a dict from columns to their values, for instance {{0: 1.5}}, got {given!r}")
    return _density(flow, columns, given, grid, condition, method, n_samples, rng, progress)


@ignore_underflow
def _density(
    flow: TransformedDistribution,
    columns: ColumnsLike,
    given: Mapping,
    grid: ArrayLike | None,
    condition: ArrayLike | None,
    method: str,
    n_samples: int,
    rng: SeedLike,
    progress: bool | str,
) -> GridDensity:
    """`marginal`, or `conditional` where values are given."""
    d, shown_progress = flow.latent_dim, Progress(progress, SHOWN_AFTER)
    context = flow.conditioning.finite_rows(condition, 1, "conditional" if given else "marginal")
    chosen = as_column_numbers(columns, d, flow.columns, "columns")
    held = as_column_numbers(list(given), d, flow.columns, "given") if given else np.zeros(0, np.int64)
    both = np.concatenate([chosen, held])
    if len(set(both.tolist())) < len(both):
        raise ValueError(f"columns and given must have no column in common, got {columns!r} and {list(given)!r}")
    values = as_values(list(given.values()))
    over = np.setdiff1d(np.arange(d), held if given else both)
    integers = any(flow.support[i].is_integer for i in over) if flow.support else False
    method = _method(method, d - len(both), len(over), integers)
    density = UnconstrainedDensity(flow, context, cut=method == "quadrature")
    n, generator = as_int(n_samples, "n_samples", 1000), as_rng(rng)
    if method == "importance" and n * d > MOST_NUMBERS:
        raise ValueError(
            f"n_samples={n} of {d} columns would take {n * d * 8 / 1e9:.1f} GB, and several times that in all: give "
            f"n_samples of at most {MOST_NUMBERS // d}"
        )
    drawn = REFERENCE if method == "quadrature" else n
    what, shorter = "conditional" if given else "marginal", "fewer n_samples or points of the grid"
    seconds = _expected_seconds(density, chosen, held, grid, method, drawn)
    warn_if_long(seconds, what, shorter if method == "importance" else "fewer points of the grid")
    shown_progress.begin(drawn, "sample")

    def advance_samples(done: int) -> None:
        shown_progress.update("", drawn, done)

    try:
        first = REFERENCE if method == "quadrature" else n // 4
        reference, _ = density.sample_and_log_prob(first, generator, advance_samples)
        if not len(reference):
            raise ValueError("no sample of the flow is finite, here at least: it has no density to integrate")
        samples = None if method == "quadrature" else density.sample_and_log_prob(n - first, generator, advance_samples)
    finally:
        shown_progress.close()

    def advance(done: int) -> None:
        shown_progress.update("", n_points, done)

    def integrals(fixed: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logarithms (G,) of the integrals over all other columns at x (G, k), and their relative errors."""
        t, log_slope, inside = density.to_unconstrained(x, fixed)
        log_p, error = np.full(len(x), -math.inf), np.zeros(len(x))
        if samples is None:
            regression = LocalRegression(reference, fixed, NEIGHBORS, density.integer)
            log_p[inside], error[inside] = quadrature(density.log_prob, regression, t[inside], advance)
        else:
            share = min(SHARE, USED / (n * len(x)))
            cells = x[:, density.integer[fixed]]
            for cell in np.unique(cells, axis=0) if cells.size else cells[:1]:
                part = inside & (cells == cell).all(axis=1)
                log_p[part], error[part] = _in_cell(density, reference, samples, fixed, t[part], share, advance)
        return log_p + log_slope.sum(axis=1), error

    shown = _near_values(density, reference, held, values) if given else reference
    shown = density.from_unconstrained(shown, np.arange(d))[0]
    grid, points, shape = as_grid(grid, shown[:, chosen], [density.columns[i] for i in chosen])
    n_points = len(points) + len(held[:1])
    shown_progress.begin(n_points, "point")
    try:
        log_p, error = integrals(both, np.concatenate([points, np.tile(values, (len(points), 1))], axis=1))
        if given:
            (log_given,), (error_given,) = integrals(held, values[None])
    except np.linalg.LinAlgError:
        raise ValueError(
            "samples of the flow lie so that no linear regression of columns on each other can be made of them, constant "
            "or spread over many orders of magnitude: give other columns, or more n_samples"
        ) from None
    finally:
        shown_progress.close()
    if given:
        if log_given == -math.inf:
            raise ValueError(f"the flow has no density at {dict(given)!r}")
        if error_given > UNCERTAIN:
            warn_user(f"few samples lie near {dict(given)!r}: the result is uncertain, try more n_samples")
        log_p, error = log_p - log_given, np.hypot(error, error_given)
    with np.errstate(over="ignore", invalid="ignore"):
        p = np.exp(log_p)
        error = np.where(p > 0, error * p, 0.0)
    names = tuple(chosen.tolist() if flow.columns is None else (flow.columns[i] for i in chosen))
    if method == "quadrature" and not len(over):
        method = "exact"
    return GridDensity(grid, p.reshape(shape), error.reshape(shape), names, method)


def _expected_seconds(
    density: UnconstrainedDensity, chosen: np.ndarray, held: np.ndarray, grid: ArrayLike | None, method: str, n: int
) -> float:  # fmt: skip
    """About what n samples take and, by quadrature at least, the densities on the grid: told by a few samples."""
    d, few = density.flow.latent_dim, density.sample_and_log_prob(FEW, np.random.default_rng(0))[0]
    if not len(few):
        return 0.0
    shown = density.from_unconstrained(few, np.arange(d))[0][:, chosen]
    n_points = len(as_grid(grid, shown, [density.columns[i] for i in chosen])[1])
    if method == "importance":
        evaluations = int(LATTICE * min(SHARE * n * n_points, USED))
    else:
        evaluations = n_points * least_evaluations(d - len(chosen) - len(held))
        evaluations += least_evaluations(d - len(held)) if len(held) else 0
    drawing = seconds_a_row(lambda rows: density.sample_and_log_prob(rows, np.random.default_rng(0)), n)
    evaluating = seconds_a_row(lambda rows: density.log_prob(few[np.arange(rows) % len(few)]), evaluations)
    return n * drawing + evaluations * evaluating


def _in_cell(
    density: UnconstrainedDensity,
    reference: np.ndarray,
    samples: tuple[np.ndarray, np.ndarray],
    fixed: np.ndarray,
    t: np.ndarray,
    share: float,
    advance: Callable[[int], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Integrals by importance sampling at points t (G, k) with the same integers, from samples that have them too."""
    is_integer, (rows, log_p), total = density.integer[fixed], samples, len(samples[0])
    integers, moving = fixed[is_integer], fixed[~is_integer]
    if len(integers) and len(t):
        cell = t[0, is_integer]
        reference = reference[(reference[:, integers] == cell).all(axis=1)]
        same = (rows[:, integers] == cell).all(axis=1)
        rows, log_p = rows[same], log_p[same]
    if len(rows) < LEAST or len(reference) < LEAST:
        return np.full(len(t), -math.inf), np.zeros(len(t))
    if not len(moving):
        part = len(rows) / total
        return np.full(len(t), math.log(part)), np.full(len(t), math.sqrt((1 / part - 1) / total))
    count = max(int(share * len(reference)), LEAST)
    regression = LocalRegression(density.unrolled(reference, moving)[0], moving, count, density.integer)
    rows, source = density.unrolled(rows, moving)
    return marginal_importance(density.log_prob, regression, rows, log_p[source], t[:, ~is_integer], total, advance)


def _near_values(density: UnconstrainedDensity, reference: np.ndarray, fixed: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Samples near given values of the fixed columns, moved to them; all samples where too few are near."""
    t, _, inside = density.to_unconstrained(values[None], fixed)
    is_integer = density.integer[fixed]
    same = reference[(reference[:, fixed[is_integer]] == values[is_integer]).all(axis=1)]
    if not inside[0] or len(same) < LEAST or is_integer.all():
        return same if len(same) >= LEAST else reference
    return LocalRegression(same, fixed[~is_integer], NEIGHBORS, density.integer).moved(t[0, ~is_integer])


def _method(method: str, rest: int, over: int, integers: bool) -> str:
    """The method to use.

    Parameters
    ----------
    method : str
        As in `marginal`.
    rest : int
        Columns to integrate over at each point of the grid.
    over : int
        Columns to integrate over at most: those that are not given, for `conditional`.
    integers : bool
        Whether there are integers among them.
    """
    as_choice(method, "method", METHODS)
    if method == "auto":
        return "quadrature" if rest <= AUTO_COLUMNS and over <= MOST_COLUMNS and not integers else "importance"
    if method == "quadrature" and (over > MOST_COLUMNS or integers):
        what = "columns of whole numbers" if integers else f"{over} columns, {MOST_COLUMNS} at most"
        raise ValueError(f"quadrature can't integrate over {what}: use method='importance'")
    return method
