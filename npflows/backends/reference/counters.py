"""Random numbers from counters, as `npflows.core.counters` defines them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npflows.core.counters import FARTHEST, INCREMENTS, MULTIPLIERS, ROUNDS

LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox(counter: NDArray[np.uint64], key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The words (4, n) of counters (4, n) for a key (2,); all are numbers below 2^32."""
    c0, c1, c2, c3 = counter
    for i in range(ROUNDS):
        k0, k1 = (np.uint64((int(word) + i * step) & int(LOW)) for word, step in zip(key, INCREMENTS))
        p0, p1 = (c * np.uint64(m) for c, m in zip((c0, c2), MULTIPLIERS))
        c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ k0, p1 & LOW, (p0 >> HALF) ^ c3 ^ k1, p0 & LOW
    return np.stack([c0, c1, c2, c3])


def from_zero(key: NDArray[np.int64], first: int, n: int) -> NDArray[np.float64]:
    """The two numbers of n blocks (2, n), from 0 to 1, 1 excluded."""
    words = key.astype(np.uint64)
    block = np.arange(first, first + n, dtype=np.uint64)
    counter = np.stack([block & LOW, block >> HALF, *(np.full_like(block, word) for word in words[2:])])
    w = philox(counter, words[:2])
    bits = np.stack([w[0] | w[1] << HALF, w[2] | w[3] << HALF])
    return (bits >> np.uint64(12)) * 2.0**-52


def cosine_and_sine(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """cos(pi a) and sin(pi a) (2, n), also where they are small, for a from -1 to 1."""
    size = np.abs(a)
    return np.stack([np.sin(np.pi * (0.5 - size)), np.sign(a) * np.sin(np.pi * np.minimum(size, 1 - size))])


def blocks_of(first: int, n: int) -> tuple[int, int, slice]:
    """The blocks, first and number, that have n values from the first on, two each; and which of their values these are."""
    skipped = first % 2
    return first // 2, (skipped + n + 1) // 2, slice(skipped, skipped + n)


def uniforms(key: NDArray[np.int64], first: int, n: int) -> NDArray[np.float64]:
    """n numbers from 0 to 1."""
    *blocks, part = blocks_of(first, n)
    return from_zero(key, *blocks).T.ravel()[part]


def normals(key: NDArray[np.int64], first: int, n: int) -> NDArray[np.float64]:
    """n standard normal numbers."""
    *blocks, part = blocks_of(first, n)
    a, b = from_zero(key, *blocks)
    return (np.sqrt(-2 * np.log(1 - a)) * cosine_and_sine(2 * b - 1)).T.ravel()[part]


def student_ts(key: NDArray[np.int64], first: int, df: NDArray[np.float64]) -> NDArray[np.float64]:
    """Student's t with the degrees of freedom df, of any shape."""
    a, b = from_zero(key, first, df.size).reshape(2, *df.shape)
    with np.errstate(over="ignore"):
        r = np.minimum(np.sqrt(df * np.expm1(-2 / df * np.log(1 - a))), FARTHEST)
    return r * cosine_and_sine(2 * b - 1)[0]
