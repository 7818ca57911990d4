"""A table and flows with a column of each kind of support."""

import numpy as np

from npflows import NeuralSplineFlow
from npflows.support import integer, interval, periodic, positive, real

NAMES = ["width", "share", "angle", "count", "shift"]
EVERY = [positive(2.0), interval(-1.0, 3.0), periodic(0.0, 360.0), integer(-2, 3), real()]
RNG = np.random.default_rng(0)
TABLE = np.column_stack([
    2 + np.exp(RNG.normal(size=400)),
    RNG.uniform(-0.9, 2.9, 400),
    RNG.uniform(0, 360, 400),
    RNG.integers(-2, 4, 400),
    RNG.normal(size=400),
])  # fmt: skip


def mixed(columns=NAMES, support=EVERY, **options):
    """A flow of one column of each kind."""
    return NeuralSplineFlow(5, 2, (8,), 4, linear="permutation", support=support, columns=columns, **{"rng": 1, **options})


def strong(flow, strength=2.0):
    """The same with parameters far from where they started."""
    flow.params = flow.params + strength * np.random.default_rng(2).normal(size=flow.num_params)
    return flow


def alone(column, **options):
    """A flow of one column."""
    return NeuralSplineFlow(1, support=[column], **{"rng": 1, "dtype": "float64", **options})
