"""The order in which gradient buffers are added up: in pairs, pairs of these, and so on.

Whoever has some buffers that follow each other can add up most of them before it hears of the others, with the same bits.
"""

from __future__ import annotations

from numpy.typing import NDArray


def add_up(parts: dict[int, NDArray], stop: int, count: int) -> dict[int, NDArray]:
    """Add up arrays in place, as far as those that are here suffice.

    The sum of the arrays from i to i + 2 w, with w a power of two and i a multiple of 2 w, is the sum of those before i + w
    plus that of those from i + w on, if there are any.

    Parameters
    ----------
    parts : dict of int to ndarray
        Those from some number up to `stop`: arrays by their numbers, or sums by the number of their first array.
    stop : int
        The number after the last one here.
    count : int
        How many arrays there are, here and elsewhere.

    Returns
    -------
    dict of int to ndarray
        `parts`, the sums that are left: that of all arrays, number 0, where all are here.
    """
    width = 1
    while width < count:
        for i in range(0, stop, 2 * width):
            if i in parts and i + width in parts and min(i + 2 * width, count) <= stop:
                parts[i] += parts.pop(i + width)
        width *= 2
    return parts
