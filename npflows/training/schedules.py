"""Learning rates over a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

SCHEDULES = ("constant", "cosine", "plateau")
WARMUP, MOST_WARMUP_STEPS = 10, 200
"""The rate of the cosine schedule rises over one in so many of the steps, and over the second number at most."""


@dataclass
class Schedule:
    """The learning rate of each step.

    Attributes
    ----------
    kind : {"constant", "cosine", "plateau"}
        cosine: half a period from `peak` to 0 over the run; plateau: halved whenever the validation loss has not
        improved for `plateau_epochs`.
    peak : float
    total_steps : int
    warmup_steps : int or None
        The rate rises linearly over so many steps first.  None: with "cosine" a share of all, with the others none.
    plateau_epochs : int
    factor : float
        The product of the reductions by recoveries and plateaus so far.
    """

    kind: str
    peak: float
    total_steps: int
    warmup_steps: int | None
    plateau_epochs: int
    factor: float = 1.0

    def rate(self, step: int) -> float:
        """The learning rate of step 0, 1, 2, ..."""
        rate, warmup = self.peak * self.factor, self._warmup
        if step < warmup:
            return rate * (step + 1) / warmup
        if self.kind == "cosine":
            done = (step - warmup) / max(1, self.total_steps - warmup)
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return rate

    @property
    def _warmup(self) -> int:
        """Steps over which the rate rises."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return min(MOST_WARMUP_STEPS, self.total_steps // WARMUP) if self.kind == "cosine" else 0

    def end_epoch(self, waited: int) -> None:
        if self.kind == "plateau" and waited and waited % self.plateau_epochs == 0:
            self.factor *= 0.5
