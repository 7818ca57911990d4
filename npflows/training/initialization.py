"""Settings from the data, made once, before the first step: the standardization, and layers that start from the values
that enter them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from npflows.core.checks import as_condition, as_rows, as_weights, warn_user
from npflows.core.tables import Headers
from npflows.core.underflow import ignore_underflow
from npflows.distribution.transformed import Flow, TransformedDistribution
from npflows.layers.layer import Layer
from npflows.support.columns import Column, Interval, Positive, Real
from npflows.training.rows import Rows

MARGIN = 0.05
"""Share of a bounded base's support left free at either end."""
INITIAL_ROWS = 10000
"""Rows, drawn at random, that layers are set from at most."""
INITIAL_VALUES = 1 << 25
"""Values of the layer with the most scratch, for all of these rows together."""
FAR = 3.0
"""Values so many tail bounds from the center are far outside."""


@ignore_underflow
def set_from_data(
    flow: TransformedDistribution, train: Rows, validation: Rows | None, standardize: bool, rng: np.random.Generator
) -> None:  # fmt: skip
    """Set everything that has not been set from data yet, and warn if splines do not reach the data."""
    if standardize:
        standardize_once(flow, train, validation)
    flow.preprocessing.remember(train.x.dtype)
    if _pending(flow):
        n_rows = min(INITIAL_ROWS, _most_rows(flow))
        x, weight, condition = train.take(rng.permutation(len(train))[:n_rows])
        _layer_after_layer(flow, x, weight, condition, rng)
    warn_of_tails(flow, train)


def standardize_once(flow: TransformedDistribution, train: Rows, validation: Rows | None) -> None:
    """Set the standardization of samples and conditions, unless it is set."""
    if not flow.preprocessing.is_standardized:
        flow.standardize.set(*standardization(flow, train, validation))
        if train.condition is not None:
            rows = train.normalized()
            loc, scale = moments(lambda: ((c, weight) for _, weight, c in rows.pieces() if c is not None), len(rows))
            flow.standardize_condition(loc, np.where(scale == 0, 1.0, scale))
        flow.preprocessing.mark_standardized()


def _pending(flow: TransformedDistribution) -> list[Layer]:
    return [layer for layer in flow.data_dependent_layers if not layer.initialized]


def _most_rows(flow: TransformedDistribution) -> int:
    """Rows that there is memory for where layers are set."""
    return max(2, flow.executable().rows_within(INITIAL_VALUES))


@ignore_underflow
def initialize(
    flow: Flow, x: ArrayLike, sample_weight: ArrayLike | None = None, condition: ArrayLike | None = None
) -> Flow:
    """Set the standardization, if it is not set, and each `ActNormLayer` that is not initialized yet from the
    values that enter it when x enters the flow; returns the flow.

    `fit` does this by itself, with training rows.

    Parameters
    ----------
    x : array_like (n, input_dim)
        Finite, at least one row.  Where there are too many for memory, layers are set from some of them.
    sample_weight : array_like (n,), optional
    condition : array_like, optional
        See `forward`.
    """
    headers = Headers.of(flow.headers, x, condition)
    rows, _ = as_rows(x, flow.input_shape, "x", headers.x)
    weight = as_weights(sample_weight, len(rows))
    context = as_condition(condition, len(rows), flow.condition_dim, headers.condition)
    flow.conditioning.check_finite(context, "initialize")
    if not len(rows) or not np.isfinite(rows).all():
        raise ValueError("initialize needs at least one row, and finite values only")
    used = np.arange(len(rows)) if weight is None else np.flatnonzero(weight)
    flow.preprocessing.check(rows, "x")
    flow.headers.take(headers)
    standardize_once(flow, Rows(rows, used, weight, context), None)
    rng = np.random.default_rng(0)
    if len(used) > _most_rows(flow):
        used = rng.permutation(used)[: _most_rows(flow)]
        weight, context = (None if v is None else v[used] for v in (weight, context))
        rows = rows[used]
    _layer_after_layer(flow, rows, weight, context, rng)
    return flow


def _layer_after_layer(
    flow: TransformedDistribution,
    rows: np.ndarray,
    weight: np.ndarray | None,
    context: np.ndarray | None,
    rng: np.random.Generator,
) -> None:
    """Set each layer from the values that enter it; whole numbers lie at random places of their cells, as in training."""
    if len(rows) == 1 and _pending(flow):
        warn_user("layers are set from a single row, whose spread says little: give them more")
    t, _, inside = flow.preprocessing.to_unconstrained(flow.preprocessing.scatter(rows, rng))
    rows = np.where(inside[:, None], t, np.nan)
    inner, pending = flow.conditioning.inner(context), len(_pending(flow))
    values = flow.standardize.forward(rows)[0].reshape(len(rows), -1)
    for layer, _ in flow.leaves:
        if not pending:
            break
        entering, given = values[:, : layer.input_dim], {"condition": inner} if layer.condition_dim else {}
        if layer.initialized is False:
            layer.initialize(entering, weight, **given)
            pending -= 1
        entering[:] = layer.forward(entering, **given)[0].reshape(entering.shape)


def warn_of_tails(flow: TransformedDistribution, rows: Rows) -> None:
    """Name the columns with values far outside the interval on which the first splines act."""
    bound = next((layer.tail_bound for layer in flow.flow_layers if hasattr(layer, "tail_bound")), None)
    if bound is None:
        return
    low, high, beyond = np.zeros((3, flow.latent_dim))
    for x, _, _ in rows.pieces():
        values = (flow.preprocessing.on_line(x) - flow.standardize.loc) / flow.standardize.scale
        low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
        beyond += (np.abs(values) > bound).sum(axis=0)
    labels = flow.preprocessing.labels
    farthest = np.where(high >= -low, high, low)
    far = [
        f"{labels[d]} ({int(beyond[d])} of {len(rows)} rows, the farthest at {farthest[d]:.3g}; "
        f"{_remedy(flow.support[d] if flow.support else Real(), farthest[d])})"
        for d in np.flatnonzero(np.abs(farthest) > FAR * bound)
    ]
    if far:
        warn_user(
            f"x has standardized values far outside the splines' tail_bound={bound:g}, where the flow is affine and fits "
            f"badly: {', '.join(far)}"
        )


def _remedy(column: Column, farthest: float) -> str:
    """The remedy where a column, as it is standardized on the line, has values so far out."""
    if isinstance(column, Positive) and farthest < 0:
        return (
            f"its logarithm goes far down, as values come near {column.lower:g}: raise tail_bound, or lower the lower end "
            f"of positive({column.lower:g}), or take base_distribution='student_t'"
        )
    if column.is_integer:
        return "most values are at one end of its range: raise tail_bound, or narrow the range"
    if isinstance(column, Interval):
        return f"values come very near an end of {column!r}: raise tail_bound, or widen the interval"
    return "remove outliers, transform the column, or raise tail_bound"


def standardization(flow: TransformedDistribution, rows: Rows, validation: Rows | None) -> tuple[np.ndarray, np.ndarray]:
    """loc and scale that give the columns mean 0 and variance 1, or put all rows inside a bounded base's support; circles
    stay as they are."""
    d, support = rows.x.shape[1], flow.base.support
    if support is not None:
        low, high = np.full(d, np.inf), np.full(d, -np.inf)
        every = rows.pieces() if validation is None else itertools.chain(rows.pieces(), validation.pieces())
        for x, _, _ in every:
            lower, upper = flow.preprocessing.ends_on_line(x)
            low, high = np.minimum(low, lower.min(axis=0)), np.maximum(high, upper.max(axis=0))
        room = (support[1] - support[0]) * (1 - 2 * MARGIN)
        scale = np.where(high > low, (high - low) / room, 1.0)
        loc = 0.5 * (low + high) - scale * 0.5 * (support[0] + support[1])
        _warn_constant(high <= low)
        return loc, scale
    rows = rows.normalized()
    loc, scale = moments(lambda: ((flow.preprocessing.on_line(x), weight) for x, weight, _ in rows.pieces()), len(rows))
    if len(flow.input_shape) == 3:
        loc, scale = of_channels(loc, scale, flow.input_shape)
        scale = np.where(scale == 0, _cell_scale(flow, rows), scale)
        _warn_constant((scale == 0)[: flow.input_shape[2]], "channel")
        return loc, np.where(scale == 0, 1.0, scale)
    circles = flow.preprocessing.periodic
    scale = np.where(scale == 0, _cell_scale(flow, rows), scale)
    _warn_constant((scale == 0) & ~circles)
    return np.where(circles, 0.0, loc), np.where(circles | (scale == 0), 1.0, scale)


def of_channels(loc: np.ndarray, scale: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of images, of all pixels together, from those of each value."""
    means, variances = loc.reshape(-1, shape[2]), scale.reshape(-1, shape[2]) ** 2
    mean = means.mean(axis=0)
    spread = np.sqrt((variances + (means - mean) ** 2).mean(axis=0))
    return np.broadcast_to(mean, means.shape).ravel(), np.broadcast_to(spread, means.shape).ravel()


def _cell_scale(flow: TransformedDistribution, rows: Rows) -> np.ndarray:
    """The standard deviation (d,) of points in the cells of a row's whole numbers, 0 in other columns: the scale of a
    column that is the same whole number in all rows."""
    x, _, _ = rows.take(np.arange(1))
    quarters = [flow.preprocessing.on_line(x, place)[0] for place in (0.25, 0.75)]
    return np.where(flow.preprocessing.integer, (quarters[1] - quarters[0]) / math.sqrt(3), 0.0)


Pieces = Callable[[], Iterator[tuple[np.ndarray, np.ndarray | None]]]


def moments(pieces: Pieces, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, 0 where a column is constant, of n rows that come in pieces with their weights."""
    loc, largest, variance = np.zeros((3, 1))
    for x, weight in pieces():
        share = np.full(len(x), 1 / n) if weight is None else weight / n
        loc = loc + share @ np.ascontiguousarray(x, np.float64)  # the layout would change the last bits
        largest = np.maximum(largest, np.abs(x).max(axis=0))
    unit = np.where(largest > 0, largest, 1.0)  # squares of deviations in this unit neither overflow nor vanish
    for x, weight in pieces():
        share = np.full(len(x), 1 / n) if weight is None else weight / n
        variance = variance + share @ (np.ascontiguousarray(x, np.float64) / unit - loc / unit) ** 2
    relative = np.sqrt(variance)
    return loc, np.where(relative <= 1e-14, 0.0, unit * relative)


def _warn_constant(constant: np.ndarray, what: str = "column") -> None:
    if constant.any():
        columns = ", ".join(map(str, np.flatnonzero(constant)))
        warn_user(
            f"{what} {columns} of x is constant in the training rows and has no density; it is standardized by 1: drop it"
        )
