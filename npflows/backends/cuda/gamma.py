"""The ratio of gamma functions in the density of Student's t: NVIDIA's log-gamma is a call with a stack of its own."""

from __future__ import annotations

import math

LARGE = 10.0
"""From here on the series is exact to 1.3e-15."""


def log_gamma_ratio(v):
    """log G((v + 1) / 2) - log G(v / 2): G(x + 1) = x G(x), then the asymptotic series of either (DLMF 5.11.8 with h = 1/2
    and 0), subtracted term by term."""
    x, share = 0.5 * v, 1.0
    while x < LARGE:
        share *= x / (x + 0.5)
        x += 1.0
    y = 1.0 / (x * x)
    series = -1 / 8 + y * (1 / 192 + y * (-1 / 640 + y * (17 / 14336 + y * (-31 / 18432 + y * (691 / 180224)))))
    return math.log(share) + 0.5 * math.log(x) + series / x
