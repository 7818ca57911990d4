"""Newton's method for an increasing function, within a bracket: the inverse of maps that have none in closed form."""

from __future__ import annotations

from npflows.backends.cpu.compiler.jit import inlined

MOST_STEPS = 100
"""More than halving a bracket of float64 numbers takes; a few do."""


@inlined
def rounding_of(array):
    """The distance from 1 to the next number of the dtype."""
    return array.dtype.type(2.0**-23 if array.itemsize == 4 else 2.0**-52)


@inlined(always=True)
def newton_step(x, error, slope, low, high, last, one):
    """The next x, and the bracket: it is halved where a step leaves it, or where the error was not halved."""
    if error > 0:
        high = x
    else:
        low = x
    new = x - error / slope
    if not (low <= new <= high) or abs(error) + abs(error) > last:
        new = low + (high - low) / (one + one)
    return new, low, high
