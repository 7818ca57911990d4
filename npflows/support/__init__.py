"""The support of each column: the whole line, half-lines, intervals, circles, whole numbers, ordered columns, simplices.

A `Support` is an exact bijection between the users' values and numbers on the line, in float64, in front of a flow: log
for half-lines, logit for intervals, a rotation-invariant interval for circles (Rezende et al. 2020, arXiv:2002.02428),
logarithms of gaps and of ratios for groups of columns.  Whole numbers are the intervals of length 1 above them, in which
training and estimates place them at random (dequantization; Theis et al. 2016, arXiv:1511.01844).
"""

from npflows.support.columns import (
    Below,
    Column,
    Integer,
    Interval,
    Periodic,
    Positive,
    Real,
    below,
    integer,
    interval,
    periodic,
    positive,
    real,
)
from npflows.support.groups import Group, Ordered, Simplex, ordered, simplex
from npflows.support.infer import infer
from npflows.support.table import Support

__all__ = [
    "Below",
    "Column",
    "Group",
    "Integer",
    "Interval",
    "Ordered",
    "Periodic",
    "Positive",
    "Real",
    "Simplex",
    "Support",
    "below",
    "infer",
    "integer",
    "interval",
    "ordered",
    "periodic",
    "positive",
    "real",
    "simplex",
]
