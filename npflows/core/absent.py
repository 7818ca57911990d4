"""Entries of a table that are absent: NaN that say why they are there, and the marks that stand for missing ones.

A NaN has room for a number (IEEE 754-2008, 6.2.1), which copies and conversions to other floats keep: so R tells NA from
NaN.  To NumPy all of them are NaN: only who asks for masked entries sees the difference.
"""

from __future__ import annotations

import math
import struct

import numpy as np
from numpy.typing import NDArray

LEAST, MOST = 0x155, 0x1FF
"""The reasons, of nine bits, as many as a NaN of float16 has room for."""
MARK = LEAST + 1
"""An entry that the first mark of its column stood for; for the second one it is one more."""
LARGEST_WHOLE = 2**53
"""Up to it whole numbers and their neighbors are float64, so that one that float32 rounds to may be another value."""


def _because(reason: int) -> float:
    """The NaN of a reason."""
    return float(struct.unpack("<d", struct.pack("<Q", 0x7FF8 << 48 | reason << 42))[0])


MASKED = _because(LEAST)
"""What a masked entry, NA, None and null become."""


def of_mark(place: int) -> float:
    """What an entry becomes that a mark of its column, by its place among them, stands for in the unit of the table."""
    return _because(min(MARK + place, MOST))


def reasons(values: NDArray) -> NDArray[np.uint32]:
    """The reason of each NaN, 0 for those without one and for all that is no NaN."""
    if values.dtype.kind != "f":
        return np.zeros(values.shape, np.uint32)
    is_nan = np.isnan(values)
    found = np.zeros(values.shape, np.uint32)
    if is_nan.any():
        bits = values[is_nan].astype(np.float32).view(np.uint32)
        reason = bits >> 13 & MOST
        found[is_nan] = np.where((bits & 0x1FFF == 0) & (reason >= LEAST), reason, 0)
    return found


def is_masked(values: NDArray) -> NDArray[np.bool_]:
    """Which values are masked entries."""
    return reasons(values) == LEAST


def matches(values: NDArray, mark: float, place: int = 0) -> NDArray[np.bool_]:
    """Which values are a mark, in the precision that they have or had before they stood in a wider table.

    Parameters
    ----------
    mark : float
        NaN stands for every NaN, those of masked entries included, and `MASKED` for these alone.
    place : int
        That of the mark among those of its column.
    """
    if math.isnan(mark):
        found = reasons(values)
        if is_masked(np.float64(mark)):
            return found == LEAST
        return np.isnan(values) & (found < MARK) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    same = values == mark
    with np.errstate(over="ignore"):
        narrow = float(np.float32(mark))
    is_whole = mark.is_integer() and abs(mark) <= LARGEST_WHOLE  # other whole numbers are none of its roundings
    if values.dtype == np.float64 and narrow != mark and math.isfinite(narrow) and not is_whole:
        same |= values == narrow
    return same | (reasons(values) == min(MARK + place, MOST))
