"""Moving rows of blocks (rows, lanes)."""

from __future__ import annotations

from npflows.kernels.jit import inlined


@inlined
def copy(source, target):
    """target = source."""
    for k in range(source.shape[0]):
        for t in range(source.shape[1]):
            target[k, t] = source[k, t]


@inlined
def gather(block, spec, start, rows):
    """rows[k] = block[spec[start + k]]."""
    for k in range(rows.shape[0]):
        source = block[spec[start + k]]
        for t in range(rows.shape[1]):
            rows[k, t] = source[t]


@inlined
def scatter(rows, spec, start, block):
    """block[spec[start + k]] = rows[k]."""
    for k in range(rows.shape[0]):
        target = block[spec[start + k]]
        for t in range(rows.shape[1]):
            target[t] = rows[k, t]
