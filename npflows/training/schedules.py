"""Learning rates over a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

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
        Steps of the run at most.
    warmup_steps : int or None
        The rate rises linearly over so many steps first.  None: with "cosine" a share of all, with the others none.
        Where time ends the run, this share at most.
    plateau_epochs : int
    factor : float
        The product of the reductions by recoveries and plateaus so far.
    end : float
        The planned number of steps: all, or as many as there is time for.
    """

    kind: str
    peak: float
    total_steps: int
    warmup_steps: int | None
    plateau_epochs: int
    factor: float = 1.0
    end: float = field(init=False)
    _is_warm: bool = field(default=False, init=False)
    _fallen: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.end = self.total_steps

    def rate(self, step: int, steps_left: float = math.inf) -> float:
        """The learning rate of step 0, 1, 2, ..., when there is time for so many more, itself included.

        The planned end may move with each call.  Where it moves away, the rate of the cosine schedule stays as it is until
        it has caught up: it never rises again.
        """
        self.end = min(self.total_steps, step + steps_left)
        rate, warmup = self.peak * self.factor, self._warmup
        self._is_warm |= step >= warmup
        if not self._is_warm:
            return rate * (step + 1) / warmup
        if self.kind == "cosine":
            done = (step - warmup) / max(1, self.end - warmup)
            self._fallen = max(self._fallen, min(1.0, done))
            rate *= 0.5 * (1 + math.cos(math.pi * self._fallen))
        return rate

    @property
    def _warmup(self) -> int:
        """Steps over which the rate rises."""
        share = int(self.end) // WARMUP
        if self.warmup_steps is not None:
            return self.warmup_steps if self.end == self.total_steps else min(self.warmup_steps, share)
        return min(MOST_WARMUP_STEPS, share) if self.kind == "cosine" else 0

    def end_epoch(self, waited: int) -> None:
        if self.kind == "plateau" and waited and waited % self.plateau_epochs == 0:
            self.factor *= 0.5
