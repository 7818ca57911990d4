"""Rows, samples and weights, for all diagnostics."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from npflows.core.checks import SeedLike, as_rng
from npflows.core.statistics import effective_sample_size
from npflows.distribution.cost import MOST, warn_if_drawing_is_long
from npflows.distribution.transformed import TransformedDistribution

VALUES, MOST_VALUES = 4_000_000, 1 << 27
"""Numbers of samples that are held at a time, and at most, where a row has more."""


STREAM = 0x64696167
"""What tells the stream of a seed that diagnostics draw from apart from the one that everybody draws from."""


def own_rng(rng: SeedLike) -> np.random.Generator:
    """A generator from a seed as `as_rng` takes it; of an int, one whose numbers no data have.

    Data, or samples of the flow itself, are often drawn with the same small seed: what is drawn to compare them with, or
    around them, would be the same numbers.
    """
    generator = as_rng(rng)
    if rng is None or isinstance(rng, np.random.Generator):
        return generator
    return np.random.default_rng(np.random.SeedSequence(int(rng), spawn_key=(STREAM,)))


def rows_of(
    flow: TransformedDistribution,
    x: ArrayLike,
    condition: ArrayLike | None,
    name: str = "x",
    least: int = 2,
    condition_name: str = "condition",
) -> tuple[np.ndarray, np.ndarray | None]:
    """Finite rows (n, d) in float64 and their conditions (n, condition_dim), None where the flow takes none."""
    given, _ = flow.preprocessing.rows(x, flow.input_shape, name)
    context = flow.conditioning.of_rows(x, condition, len(given), condition_name)
    rows = np.array(given, np.float64)
    if len(rows) < least:
        raise ValueError(f"{name} must have at least {least} rows, got {len(rows)}")
    _check_finite(rows, name)
    if context is not None:
        context = np.array(context, np.float64)
        flow.conditioning.check_finite(context, "a diagnostic", condition_name)
    return rows, context


def _check_finite(rows: np.ndarray, name: str) -> None:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        are, them = ("1 row is", "it") if len(bad) == 1 else (f"{len(bad)} rows are", "them")
        raise ValueError(f"{name} must be finite: {are} not, the first is row {bad[0]}; leave {them} out")


def effective_size(weights: np.ndarray | None, n: int) -> float:
    """The effective sample size of n rows, by their weights where they have any."""
    return float(n) if weights is None else effective_sample_size(weights)


def samples_of_each(
    flow: TransformedDistribution, condition: np.ndarray | None, rows: slice, n_samples: int, rng: np.random.Generator
) -> np.ndarray:  # fmt: skip
    """n_samples samples for each of the rows: (m, n_samples, d)."""
    m = rows.stop - rows.start
    if condition is None:
        return np.reshape(flow.sample(m * n_samples, rng), (m, n_samples, -1))
    return np.reshape(flow.sample_each(n_samples, condition[rows], rng), (m, n_samples, -1))


def warn_if_samples_are_long(
    flow: TransformedDistribution, condition: np.ndarray | None, n_rows: int, n_samples: int, what: str
) -> None:  # fmt: skip
    """Warn before n_samples samples are drawn for each of so many rows, if it takes long."""
    context = None if condition is None else np.repeat(condition[: 1 + MOST // n_samples], min(n_samples, MOST), axis=0)
    warn_if_drawing_is_long(flow, n_rows * n_samples, what, "fewer rows or n_samples", context)


def pieces(n_rows: int, n_samples: int, dim: int) -> list[slice]:
    """Rows that are worked on at a time, where each has so many samples.

    Raises
    ------
    ValueError
        If those of a single row would need too much memory.
    """
    values = n_samples * dim
    if values > MOST_VALUES:
        raise ValueError(
            f"n_samples={n_samples} of {dim} columns would take {values * 8 / 1e9:.1f} GB for each row, and several times "
            f"that in all: give n_samples of at most {MOST_VALUES // dim}"
        )
    step = max(1, VALUES // max(1, values))
    return [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]
