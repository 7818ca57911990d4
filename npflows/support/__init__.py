"""The support of each column: the whole line, half-lines, intervals, circles, whole numbers.

A `Support` is an exact bijection between the users' values and numbers on the line, in float64, in front of a flow: log
for half-lines, logit for intervals, a rotation-invariant interval for circles (Rezende et al. 2020, arXiv:2002.02428).
Whole numbers are the intervals of length 1 above them, in which training and estimates place them at random
(dequantization; Theis et al. 2016, arXiv:1511.01844).
"""

from npflows.support.columns import (
    Column,
    Integer,
    Interval,
    Periodic,
    Positive,
    Real,
    integer,
    interval,
    periodic,
    positive,
    real,
)
from npflows.support.infer import infer
from npflows.support.table import Support

__all__ = [
    "Column",
    "Integer",
    "Interval",
    "Periodic",
    "Positive",
    "Real",
    "Support",
    "infer",
    "integer",
    "interval",
    "periodic",
    "positive",
    "real",
]
