"""The time that a run may take."""

from __future__ import annotations

import math
from time import monotonic

from npflows.training.communicator import Alone, Communicator

KNOWN = 0.02
"""Share of the time after which the steps so far say how long the others take."""


class Budget:
    """The time that a run may take, and how many steps fit into what is left of it.

    Without a limit the clock is never read.  Of several ranks that of the first one counts.

    Parameters
    ----------
    seconds : float
        From now on; infinity for no limit.
    comm : Communicator, optional
        The ranks that take the steps together.
    """

    def __init__(self, seconds: float = math.inf, comm: Communicator | None = None) -> None:
        self.is_limited, self._comm = math.isfinite(seconds), Alone() if comm is None else comm
        self._end = monotonic() + seconds if self.is_limited else math.inf
        self._steps, self._pace = 0, 0.0
        self._first_end = self._last_end = 0.0
        self._after_steps = 0.0

    @property
    def is_up(self) -> bool:
        """Whether no time is left but for what follows the steps of a round."""
        return self.is_limited and bool(self._comm.broadcast(monotonic() + self._after_steps >= self._end))

    def expect(self, seconds_per_step: float) -> None:
        """The pace of an earlier run that this one continues, until that of this one is known."""
        self._pace = seconds_per_step

    def steps_left(self) -> float:
        """How many steps fit into the time that is left; infinity without a limit, or as long as that is not known.

        All that has passed since the first step counts, what is done between rounds included.  The first step itself does
        not: much is compiled in it.
        """
        if not self.is_limited:
            return math.inf
        now = monotonic()
        if self._steps > 1 and now - self._first_end >= KNOWN * (self._end - self._first_end):
            self._pace = (now - self._first_end) / (self._steps - 1)
        left = self._end - self._after_steps - now
        return self._comm.broadcast(max(0.0, left / self._pace) if self._pace > 0 else math.inf)

    def end_step(self) -> bool:
        """Note that a step is over; whether the round should end with it, as the time is up."""
        if not self.is_limited:
            return False
        self._last_end = monotonic()
        if self._steps == 0:
            self._first_end = self._last_end
        self._steps += 1
        return bool(self._comm.broadcast(self._last_end + self._after_steps >= self._end))

    def end_round(self) -> None:
        """Note that a round is over: what followed its last step, validation for instance, takes as long the next time."""
        if self.is_limited:
            self._after_steps = monotonic() - self._last_end
