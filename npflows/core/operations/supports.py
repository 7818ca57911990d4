"""Supports: the bijection in front of a program, from the user's values to numbers on the line."""

from __future__ import annotations

from dataclasses import dataclass

EDGE = 1e-6
"""Whole numbers are not placed closer than this to the ends of their cells."""
SUPPORT_KINDS = ("positive", "below", "interval", "periodic", "ordered", "simplex", "pixels")


@dataclass(frozen=True)
class SupportPart:
    """A column that is not the whole line, a group of columns, or all pixels of an image.

    Attributes
    ----------
    kind : str
        One of `SUPPORT_KINDS`; `npflows.support` has their formulas.
    columns : tuple of int
    numbers : tuple of float
        Two of them: the lower and the upper end, infinite where there is none; the total of a simplex and 0; the levels of
        pixels and the alpha of their logit, 0 for none.
    """

    kind: str
    columns: tuple[int, ...]
    numbers: tuple[float, float]


@dataclass(frozen=True)
class Supports:
    """The bijection of rows.

    Attributes
    ----------
    dim : int
        Values of a row.
    parts : tuple of SupportPart
        In the order in which they are applied.
    bound : float
        Circles become the interval [-bound, bound].
    integer : tuple of int
        The columns of whole numbers, which are placed in their cells before.
    levels : int
        Values that a pixel has where rows are images, else 0.
    """

    dim: int
    parts: tuple[SupportPart, ...]
    bound: float = 1.0
    integer: tuple[int, ...] = ()
    levels: int = 0
