"""Quantiles of the symmetric beta distribution, in float64, for draws on a GPU; on the CPU they are SciPy's."""

from __future__ import annotations

import math

EPSILON = 2.0**-53
MOST_TERMS, MOST_STEPS = 100_000, 200
"""Where loops end that have ended long before."""


def fraction_of(x, shape):
    """The continued fraction h of I_x(a, a) = h (x (1 - x))^a / (a B(a, a)), for x <= 1/2 (DLMF 8.17.22, by the method of
    Lentz 1976, Applied Optics 15, 668)."""
    d = 1.0 / (1.0 - 2.0 * shape * x / (shape + 1.0))
    c, h = 1.0, d
    for m in range(1, MOST_TERMS):
        odd = m * (shape - m) * x / ((shape - 1.0 + 2.0 * m) * (shape + 2.0 * m))
        d, c = 1.0 / (1.0 + odd * d), 1.0 + odd / c
        h *= d * c
        even = -(shape + m) * (2.0 * shape + m) * x / ((shape + 2.0 * m) * (shape + 1.0 + 2.0 * m))
        d, c = 1.0 / (1.0 + even * d), 1.0 + even / c
        h *= d * c
        if abs(d * c - 1.0) < EPSILON:
            break
    return h


def lower_quantile_by(fraction_of):
    """The x <= 1/2 with I_x(a, a) = p, for 0 <= p <= 1/2; `half` is the fraction at 1/2, where p is 1/2.

    Newton's method in log x finds the root of log I_x - log p, which is concave there for a > 1 and convex for a < 1, so
    that all steps but the first go one way.
    """

    def lower_quantile(p, shape, half):
        if p <= 0.0:
            return 0.0
        least = math.log(2.0 * p)
        top = math.log(0.5)
        y = (least + math.log(half)) / shape - 2.0 * math.log(2.0)  # as if it were x^a
        for _ in range(MOST_STEPS):
            y = top if y > top else y
            x = math.exp(y)
            h = fraction_of(x, shape)
            distance = 1.0 - 2.0 * x
            mass = math.log1p(-distance * distance) if x > 0.25 else math.log(4.0) + y + math.log1p(-x)
            step = (shape * mass + math.log(h / half) - least) * (1.0 - x) * h / shape
            y -= step
            if abs(step) <= 2.0 * EPSILON * abs(y):
                break
        return math.exp(top if y > top else y)

    return lower_quantile
