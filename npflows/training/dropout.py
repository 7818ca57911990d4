"""How much `fit` drops of what the networks hide: the more, the fewer rows there are for the columns."""

from __future__ import annotations

from typing import NamedTuple

from npflows.core.checks import as_positive
from npflows.distribution.transformed import TransformedDistribution

PER_COLUMN, LEAST, MOST = 20.0, 0.05, 0.3
"""The share is PER_COLUMN columns over rows, none where that is below LEAST, and MOST at most (benchmarks/defaults.py)."""
EARLY, LATEST = 1 / 3, 0.8
"""Part of the steps in which it is dropped, and the largest: throughout, it would blur what depends sharply on a condition.
It grows with the root of how many times the share would be above MOST."""


class Dropout(NamedTuple):
    """The dropout of all networks in a run.

    Attributes
    ----------
    share : float or None
        Share of the hidden values; None for what each network was made with.
    early : float
        The part of the run's steps for which that holds; afterwards it is None.
    """

    share: float | None = None
    early: float = 1.0

    def at(self, step: int, end: float) -> float | None:
        """The share in a step of a run that is planned to end after so many."""
        return None if self.early < 1 and step >= self.early * end else self.share


AS_MADE = Dropout()
"""What the networks were made with."""


def as_dropout(
    dropout: float | str | None, flow: TransformedDistribution, n_rows: float, schedule: str
) -> Dropout:  # fmt: skip
    """The dropout of a fit to so many distinct rows.

    Raises
    ------
    ValueError
        If `dropout` is neither None, "auto" nor a number of at least 0 and below 1.
    """
    if dropout is None:
        return AS_MADE
    if isinstance(dropout, str):
        if dropout != "auto":
            raise ValueError(f"dropout must be 'auto', None, or a share of at least 0 and below 1, got {dropout!r}")
        share = PER_COLUMN * (flow.latent_dim + flow.condition_dim) / max(n_rows, 1.0)
        if share < LEAST or schedule != "cosine" or flow.num_params < n_rows or flow.program().dropout:
            return AS_MADE
        return Dropout(min(share, MOST), min(EARLY * max(1.0, share / MOST) ** 0.5, LATEST))
    share = as_positive(dropout, "dropout", zero=True)
    if share >= 1:
        raise ValueError(f"dropout must be below 1, got {dropout!r}")
    return Dropout(share)
