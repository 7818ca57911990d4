"""Learning rates over a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

SCHEDULES = ("constant", "cosine", "plateau")


@dataclass
class Schedule:
    """The learning rate of each step.

    Attributes
    ----------
    kind : {"constant", "cosine", "plateau"}
        cosine: half a period from `peak` to 0 over the run; plateau: halved whenever the validation loss has not
        improved for `plateau_epochs`.
    peak : float
    total_steps, warmup_steps : int
        The rate rises linearly over the first `warmup_steps`.
    plateau_epochs : int
    factor : float
        The product of the reductions by recoveries and plateaus so far.
    """

    kind: str
    peak: float
    total_steps: int
    warmup_steps: int
    plateau_epochs: int
    factor: float = 1.0

    def rate(self, step: int) -> float:
        """The learning rate of step 0, 1, 2, ..."""
        rate = self.peak * self.factor
        if step < self.warmup_steps:
            return rate * (step + 1) / self.warmup_steps
        if self.kind == "cosine":
            done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return rate

    def end_epoch(self, waited: int) -> None:
        if self.kind == "plateau" and waited and waited % self.plateau_epochs == 0:
            self.factor *= 0.5
