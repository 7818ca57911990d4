"""Settings from the data, made once, before the first step: the standardization, and layers that start from the values
that enter them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from npflows.core.checks import as_condition, as_rows, as_weights, warn_user
from npflows.core.table import with_roles
from npflows.core.tables import Headers
from npflows.core.underflow import ignore_underflow
from npflows.distribution.transformed import Flow, TransformedDistribution
from npflows.layers.layer import Layer
from npflows.support.columns import Below, Column, Interval, Positive, Real
from npflows.support.groups import Group
from npflows.training.correlations import Standardization
from npflows.training.inspection import inspect_table
from npflows.training.rows import Rows
from npflows.training.standardization import standardize_once

INITIAL_ROWS = 10000
"""Rows, drawn at random, that layers are set from at most."""
INITIAL_VALUES = 1 << 25
"""Values of the layer with the most scratch, for all of these rows together."""
FAR = 3.0
"""Values so many tail bounds from the center are far outside."""


@ignore_underflow
def set_from_data(
    flow: TransformedDistribution,
    table: Rows,
    train: Rows,
    validation: Rows | None,
    standardize: Standardization | None,
    rng: np.random.Generator,
) -> None:
    """Set everything that has not been set from data yet, and warn of tables without a density and of data that splines
    do not reach.

    `table` are the rows as they came: merging equal ones would hide the values that many of them have.
    """
    told = [] if standardize is None else standardize_once(flow, train, validation, standardize)
    inspect_table(flow, table, told)
    flow.preprocessing.remember(train.x.dtype)
    if _pending(flow):
        n_rows = min(INITIAL_ROWS, _most_rows(flow))
        x, weight, condition = train.take(rng.permutation(len(train))[:n_rows])
        _layer_after_layer(flow, x, weight, condition, rng)
    warn_of_tails(flow, train, told)


def _pending(flow: TransformedDistribution) -> list[Layer]:
    return [layer for layer in flow.data_dependent_layers if not layer.initialized]


def _most_rows(flow: TransformedDistribution) -> int:
    """Rows that there is memory for where layers are set."""
    return max(2, flow.executable().rows_within(INITIAL_VALUES))


@ignore_underflow
def initialize(
    flow: Flow,
    x: ArrayLike,
    sample_weight: ArrayLike | None = None,
    condition: ArrayLike | None = None,
    *,
    log_weight: ArrayLike | None = None,
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
    log_weight : array_like (n,), optional
        Logarithms of the weights, instead of `sample_weight`.
    """
    x, condition, sample_weight, log_weight = with_roles(x, condition, sample_weight, log_weight)
    headers = Headers.of(flow.headers, x, condition)
    rows, _ = as_rows(x, flow.input_shape, "x", headers.x)
    weight = as_weights(sample_weight, len(rows), logarithms=log_weight)
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


def warn_of_tails(flow: TransformedDistribution, rows: Rows, told: Sequence[str] = ()) -> None:
    """Name the columns with values far outside the interval on which the first splines act, without those told of."""
    bound = next((layer.tail_bound for layer in flow.flow_layers if hasattr(layer, "tail_bound")), None)
    if bound is None:
        return
    low, high, beyond = np.zeros((3, flow.latent_dim))
    for x, _, _ in rows.pieces():
        values = flow.standardize.forward(flow.preprocessing.on_line(x))[0]
        low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
        beyond += (np.abs(values) > bound).sum(axis=0)
    labels = flow.preprocessing.labels
    farthest = np.where(high >= -low, high, low)
    far = [
        f"{labels[d]} ({int(beyond[d])} of {len(rows)} rows, the farthest at {farthest[d]:.3g}; "
        f"{_remedy(flow.support[d] if flow.support else Real(), farthest[d])})"
        for d in np.flatnonzero(np.abs(farthest) > FAR * bound)
        if labels[d] not in told
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
    if isinstance(column, Below) and farthest > 0:
        return (
            f"its logarithm goes far, as values come near {column.upper:g}: raise tail_bound, or raise the end of "
            f"below({column.upper:g}), or take base_distribution='student_t'"
        )
    if isinstance(column, Group):
        return f"values come very near an edge of {column!r}: raise tail_bound, or take base_distribution='student_t'"
    if column.is_integer:
        return "most values are at one end of its range: raise tail_bound, or narrow the range"
    if isinstance(column, Interval):
        return f"values come very near an end of {column!r}: raise tail_bound, or widen the interval"
    return "remove outliers, transform the column, or raise tail_bound"
