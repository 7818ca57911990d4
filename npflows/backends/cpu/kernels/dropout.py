"""Random masks that need no memory: each bit comes from hashing the step's key, the layer, the unit and the sample.

So recomputation, any cut into blocks and any number of threads see the same mask.
"""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.jit import inlined, kernel


@inlined
def hash_bits(a, b, c):
    """32 well-mixed bits from three numbers."""
    x = np.uint32(np.uint32(a) * np.uint32(0x9E3779B1))
    x = np.uint32(np.uint32(x ^ np.uint32(b)) * np.uint32(0x85EBCA77))
    x = np.uint32(x ^ np.uint32(x >> np.uint32(16)))
    x = np.uint32(np.uint32(x ^ np.uint32(c)) * np.uint32(0xC2B2AE3D))
    x = np.uint32(x ^ np.uint32(x >> np.uint32(15)))
    x = np.uint32(x * np.uint32(0x27D4EB2F))
    return np.uint32(x ^ np.uint32(x >> np.uint32(13)))


@kernel
def dropout(threshold, key, first, layer, row, h):
    """Set values of h (rows, lanes) to 0 with probability threshold / 2**32 and scale up the others; its own gradient too.

    `row` is the number of h's first row in the layer, `first` that of its first sample.
    """
    scale, zero = h.dtype.type(4294967296.0 / (4294967296.0 - threshold)), h.dtype.type(0)
    limit = np.uint32(threshold)
    for u in range(h.shape[0]):
        for t in range(h.shape[1]):
            h[u, t] = zero if hash_bits(first + t, (row + u) * 64 + layer, key) < limit else h[u, t] * scale
