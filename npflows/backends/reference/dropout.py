"""Random masks that need no memory: each bit comes from hashing the step's key, the layer, the unit and the sample
(Srivastava et al. 2014, Journal of Machine Learning Research 15, 1929, with the scale at training time).

Every backend draws the same bits, for any cut of the samples into chunks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npflows.backends.reference.common import Given

WHOLE = 1 << 32
"""The number of values that 32 bits have."""


def hash_bits(a: NDArray, b: NDArray, c: int) -> NDArray[np.uint32]:
    """32 well-mixed bits from three numbers, of which the lowest 32 bits count; all products are modulo 2^32."""
    a, b, word = a.astype(np.uint32), b.astype(np.uint32), np.uint32(c % WHOLE)
    x = a * np.uint32(0x9E3779B1)
    x = (x ^ b) * np.uint32(0x85EBCA77)
    x = x ^ (x >> np.uint32(16))
    x = (x ^ word) * np.uint32(0xC2B2AE3D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x27D4EB2F)
    return x ^ (x >> np.uint32(13))


def dropout_factors(probability: float, n: int, units: int, layer: int, given: Given) -> NDArray:
    """The factors of the values (n, units) of a hidden layer: 0 with the given probability, else 1 / (1 -
    probability), so that their mean stays; 1 for all values outside training."""
    threshold = round(probability * WHOLE)
    if threshold == 0 or given.key == 0:
        return np.ones((1, 1))
    samples = given.first + np.arange(n, dtype=np.int64)[:, None]
    places = np.arange(units, dtype=np.int64)[None, :] * 64 + layer
    dropped = hash_bits(samples, places, given.key) < np.uint32(threshold)
    return np.where(dropped, 0.0, WHOLE / (WHOLE - threshold))
