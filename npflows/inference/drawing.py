"""Samples of a flow piece by piece, for questions whose answer needs few of them, or none, when it is given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.core.counters import in_pieces
from npflows.distribution.transformed import TransformedDistribution

PIECE_VALUES = 1 << 20
"""Values that the samples of a piece have, about."""
LEAST_ROWS = 256
"""Samples that a piece has at least, where there are so many."""


class Drawn(NamedTuple):
    """A piece of the samples.

    Attributes
    ----------
    rows : slice
        Which of all samples they are.
    x : ndarray (m, *input_shape)
    log_prob : ndarray (m,)
        Their log-density.
    condition : ndarray (m, condition_dim) or None
        Their conditions.
    """

    rows: slice
    x: NDArray[Any]
    log_prob: NDArray[np.float64]
    condition: NDArray[Any] | None


def rows_at_once(dim: int, values: int) -> int:
    """How many samples of `dim` values are drawn, or kept, at a time where so many values are wanted."""
    return max(LEAST_ROWS, values // dim // LEAST_ROWS * LEAST_ROWS)


def draw(
    flow: TransformedDistribution,
    n: int,
    rng: np.random.Generator,
    condition: ArrayLike | None = None,
    values: int | None = None,
) -> Iterator[Drawn]:
    """Draw n samples with their log-densities, in pieces of about so many values; one condition for all or one for each."""
    generator = in_pieces(rng)
    context, step = flow.conditioning.rows(condition, n), rows_at_once(flow.latent_dim, values or PIECE_VALUES)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        part = None if context is None else context[rows]
        x, log_prob = flow.sample_and_log_prob(rows.stop - start, generator, condition=part)
        yield Drawn(rows, x, log_prob, part)
