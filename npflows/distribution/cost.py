"""What long work will take, said before it begins."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from npflows.core.checks import warn_user
from npflows.distribution.transformed import TransformedDistribution

SLOW = 10.0
"""Seconds that a call takes, as expected, without a warning."""
FIRST, MOST = 16, 4096
"""Rows that are timed at first and at most."""
SHARE = 1 / 32
"""Share of all rows that is timed at most."""
CLEAR = 0.1
"""Seconds from which on a time tells what many rows take, however busy the machine is."""


def seconds_a_row(work: Callable[[int], object], n: int) -> float:
    """What `work` takes for a row where n are wanted, without what is compiled or loaded first.

    It is called with some of the rows: few where these take long.
    """

    def timed() -> float:
        started = time.perf_counter()
        work(rows)
        return time.perf_counter() - started

    most = max(FIRST, min(MOST, int(SHARE * n)))
    rows = FIRST
    work(rows)
    while True:
        seconds = min(timed(), timed())  # the machine may do something else in one of them
        if seconds > CLEAR or rows >= most:
            return seconds / rows
        rows = min(4 * rows, most)


def warn_if_long(seconds: float, what: str, shorter: str = "") -> None:
    """Warn that a call will take so many seconds, if these are many.

    Parameters
    ----------
    seconds : float
    what : str
        The name of the call.
    shorter : str
        Its arguments that make it shorter, in words.
    """
    if seconds > SLOW:
        advice = f": {shorter} make it shorter" if shorter else ""
        warn_user(f"{what} will take about {seconds:.0f} s{advice}")


def warn_if_drawing_is_long(
    flow: TransformedDistribution, n: int, what: str, shorter: str = "", context: NDArray | None = None
) -> None:  # fmt: skip
    """Warn before n samples are drawn with their densities, with conditions (n, condition_dim) perhaps, if it takes long.

    A few are drawn to tell, by a generator of their own.
    """
    if n <= 4 * FIRST:
        return

    def draw(rows: int) -> None:
        flow.sample_and_log_prob(rows, np.random.default_rng(0), condition=None if context is None else context[:rows])

    warn_if_long(n * seconds_a_row(draw, n), what, shorter)
