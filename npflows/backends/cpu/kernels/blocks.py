"""Rows of blocks (rows, lanes): moving them, adding multiples of one to another, sums over their lanes."""

from __future__ import annotations

from npflows.backends.cpu.compiler.jit import inlined


@inlined
def copy(source, target):
    """target = source."""
    for k in range(source.shape[0]):
        for t in range(source.shape[1]):
            target[k, t] = source[k, t]


@inlined
def copy_negative(source, target):
    """target = -source."""
    for k in range(source.shape[0]):
        for t in range(source.shape[1]):
            target[k, t] = -source[k, t]


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


@inlined
def add_row(block, i, j, weight):
    """Row i += weight * row j."""
    target, source = block[i], block[j]
    for t in range(target.size):
        target[t] += weight * source[t]


@inlined(distinct=True)
def add_row_to(total, row):
    """total += row, in float64.

    A loop that has numbers of both widths is vectorized for the wider ones, so that this is one of its own.
    """
    for t in range(total.size):
        total[t] += row[t]


@inlined(distinct=True)
def subtract_row_from(total, row):
    """total -= row, in float64."""
    for t in range(total.size):
        total[t] -= row[t]


@inlined
def scale_row(block, i, weight):
    """Row i *= weight."""
    target = block[i]
    for t in range(target.size):
        target[t] *= weight


@inlined
def negate(row):
    """row = -row."""
    for t in range(row.size):
        row[t] = -row[t]


@inlined
def shift_row(row, value):
    """row += value."""
    for t in range(row.size):
        row[t] += value


@inlined(reassociate=True)
def dot(a, b):
    """Sum over lanes of a * b."""
    result = a.dtype.type(0)
    for t in range(a.size):
        result += a[t] * b[t]
    return result


@inlined(reassociate=True)
def total(a):
    """Sum over lanes."""
    result = a.dtype.type(0)
    for t in range(a.size):
        result += a[t]
    return result
