"""How much a single row may count, so that no choice hangs on a few rows that are far from all others.

The mean of negative log-likelihoods is at the mercy of one fill value.  Losses are therefore compared with a bound, which
is set once, from the losses before the first step, and the same for all epochs.  Only losses beyond it are touched: where
there are none, every number is that of the plain mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SPREADS = 50.0
"""The bound's distance from the median loss, in spreads: rows that such a flow can learn are hardly ever farther."""
FEWEST_SPREADS, PER_ROW = 8.0, 0.1
"""Where few rows are judged by, it is nearer, so that none of them decides: so many spreads for each, but the first number
at least."""
UPPER = 0.9
"""The quantile whose distance from the median is the spread."""
DOMINANT = 0.1
"""Rows dominate a mean if their excess over the bound raises it by this share of a spread."""
FEW = 0.1
"""More rows than this share are no longer a few, and more likely what a step too far has done."""
FEWEST_ROWS = 5
"""Of fewer rows none is far from all others, unless its loss is infinite."""
NAMED = 5
"""Rows that a message names at most."""


class LossBound(NamedTuple):
    """The loss from which on a row counts less.

    Attributes
    ----------
    typical, most : float
        The median of the losses at first, and the bound; infinite where there is none.
    spread : float
        What nine in ten losses are above the median at most.
    """

    typical: float = 0.0
    most: float = math.inf
    spread: float = math.inf

    @classmethod
    def of(
        cls, losses: NDArray[np.float64], weight: NDArray[np.float64] | None, n_columns: int, *, judging: bool
    ) -> LossBound:
        """From losses (n,) with weights, at least one, of rows that are trained on or judged by.

        The spread is at least the square root of `n_columns`, which is about what losses under a flow that fits have.
        """
        order = np.argsort(losses, kind="stable")  # NaN comes last
        reached = np.arange(1, len(losses) + 1.0) if weight is None else np.cumsum(weight[order])
        places = np.searchsorted(reached, np.array([0.5, UPPER]) * reached[-1] * (1 - 1e-12))
        typical, upper = losses[order[np.minimum(places, max(0, len(losses) - 2))]]  # a single row sets no bound
        if not (math.isfinite(typical) and math.isfinite(upper)):
            return cls()
        spread = float(max(upper - typical, math.sqrt(n_columns)))
        spreads = min(SPREADS, max(FEWEST_SPREADS, PER_ROW * len(losses))) if judging else SPREADS
        return cls(float(typical), float(typical) + spreads * spread, spread)

    def far(self, losses: NDArray[np.float64]) -> NDArray[np.intp]:
        """The places of losses beyond the bound, or not a number."""
        return np.flatnonzero(~(losses <= self.most))

    def shares(self, losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """The weights of losses beyond the bound in a gradient: all pull as strongly as one at the bound."""
        return (self.most - self.typical) / (losses - self.typical)

    @property
    def notable(self) -> float:
        """The excess of a mean that is worth a word."""
        return DOMINANT * self.spread


@dataclass
class FarRows:
    """The rows beyond the bound in one pass through some rows.

    Attributes
    ----------
    losses : dict of int to float
        Their losses by their numbers.
    excess : float
        The sum of what they are beyond it, by weight; of those that are finite.
    """

    losses: dict[int, float] = field(default_factory=dict)
    excess: float = 0.0

    def add(
        self, bound: LossBound, numbers: NDArray[np.intp], losses: NDArray[np.float64], weight: NDArray[np.float64] | None
    ) -> float:
        """Note some rows; returns the excess of all of them, infinite ones included."""
        self.losses.update(zip(numbers.tolist(), losses.tolist()))
        beyond = np.where(np.isnan(losses), math.inf, losses) - bound.most
        beyond = beyond if weight is None else beyond * weight
        self.excess += float(beyond[np.isfinite(beyond)].sum())
        return float(beyond.sum())

    def message(self, rows: str, kind: str, n: int, bound: LossBound, consequence: str) -> str | None:
        """A sentence for the user; None where the rows are many, or hardly matter for the mean of n rows."""
        lost = sum(not math.isfinite(loss) for loss in self.losses.values())
        if len(self.losses) > max(1, FEW * n):
            return None
        if not lost and (n < FEWEST_ROWS or not self.excess > bound.notable * n):
            return None
        worst = sorted(self.losses.items(), key=lambda item: (-item[1] if math.isfinite(item[1]) else -math.inf, item[0]))
        which = ", ".join(f"{number} ({loss:.3g})" for number, loss in worst[:NAMED])
        which += f" and {len(worst) - NAMED} more" if len(worst) > NAMED else ""
        does = f"raise it by {self.excess / n:.3g}" if len(worst) > lost else ""
        does += " and " * bool(does and lost) + "make it infinite" * bool(lost)
        return (
            f"{len(worst)} of {n} {rows} dominate the {kind} loss; they {does}: row {which}, where the median began at "
            f"{bound.typical:.3g}; {consequence}.  Look at them: fill values are for missing=, errors to be left out"
        )
