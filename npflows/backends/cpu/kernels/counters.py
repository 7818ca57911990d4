"""Random numbers from counters, as `npflows.core.counters` defines them: the same bits for any number of threads.

All arithmetic is in 64 bits on words of 32, which never overflows: a product of two is one instruction for several lanes.
"""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.calls import fetch_add
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import vecmath
from npflows.core.counters import FARTHEST, INCREMENTS, MULTIPLIERS

GROUP = 64
"""Blocks that are drawn at once, all of them even where fewer are wanted, so that no value depends on how many are."""
PIECE = 32 * GROUP
"""Blocks that a thread takes at a time."""
SCRATCH = 3 * GROUP
"""Values of scratch memory."""

_M0, _M1, _W0, _W1 = (np.uint64(number) for number in (*MULTIPLIERS, *INCREMENTS))
_LOW, _HALF, _UNUSED, _ONE = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(12), np.uint64(0x3FF << 52)


@inlined
def two_rounds(c0, c1, c2, c3, k0, k1):
    """The counter and the key two rounds later; calls of it are vectorized, which a loop is not."""
    p0, p1 = c0 * _M0, c2 * _M1
    c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
    k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    p0, p1 = c0 * _M0, c2 * _M1
    c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
    return c0, c1, c2, c3, (k0 + _W0) & _LOW, (k1 + _W1) & _LOW


@inlined
def philox(c0, c1, c2, c3, k0, k1):
    """The four words of a counter, after ten rounds."""
    c0, c1, c2, c3, k0, k1 = two_rounds(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = two_rounds(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = two_rounds(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = two_rounds(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = two_rounds(c0, c1, c2, c3, k0, k1)
    return c0, c1, c2, c3


@inlined
def from_one(low, high):
    """A float64 from 1 to 2, 2 excluded, with 52 bits of two words."""
    return np.uint64(((low | (high << _HALF)) >> _UNUSED) | _ONE).view(np.float64)


@inlined(distinct=True)
def blocks(key, first, a, b):
    """Two such numbers, a (GROUP,) and b (GROUP,), from each block."""
    k0, k1, c2, c3 = np.uint64(key[0]), np.uint64(key[1]), np.uint64(key[2]), np.uint64(key[3])
    for t in range(GROUP):
        block = np.uint64(first + t)
        w0, w1, w2, w3 = philox(block & _LOW, block >> _HALF, c2, c3, k0, k1)
        a[t], b[t] = from_one(w0, w1), from_one(w2, w3)


@inlined(distinct=True)
def make_uniform(a, b):
    """From these numbers to uniform ones, in place."""
    for t in range(GROUP):
        a[t], b[t] = a[t] - 1.0, b[t] - 1.0


@inlined
def two_normal(a, b):
    """Two standard normal numbers from two of these."""
    r, turn = np.sqrt(-2.0 * vecmath.log(2.0 - a)), 2.0 * b - 3.0
    return r * vecmath.cospi(turn), r * vecmath.sinpi(turn)


@inlined(distinct=True)
def make_normal(a, b):
    """From these numbers to normal ones, in place."""
    for t in range(GROUP):
        a[t], b[t] = two_normal(a[t], b[t])


@inlined(distinct=True)
def store(a, b, values):
    """values (n,) = a[0], b[0], a[1], ..."""
    for t in range(values.size // 2):
        values[2 * t], values[2 * t + 1] = a[t], b[t]
    if values.size % 2:
        values[-1] = a[values.size // 2]


@kernel
def draw(scratch, counter, key, first, is_normal, values):
    """Fill values (n,), two from a block, with standard normal or uniform numbers; key (4,), and the first block."""
    a, b = scratch[:GROUP], scratch[GROUP : 2 * GROUP]
    while True:
        start = fetch_add(counter, 0, 1) * 2 * PIECE
        if start >= values.size:
            break
        for at in range(start, min(start + 2 * PIECE, values.size), 2 * GROUP):
            blocks(key, first + at // 2, a, b)
            if is_normal:
                make_normal(a, b)
            else:
                make_uniform(a, b)
            store(a, b, values[at : min(at + 2 * GROUP, values.size)])


@inlined
def one_student_t(df, a, b):
    """A number of Student's t from two of these."""
    square = df * vecmath.expm1(-2.0 / df * vecmath.log(2.0 - a))
    return min(np.sqrt(square), FARTHEST) * vecmath.cospi(2.0 * b - 3.0)


@inlined(distinct=True)
def make_student_t(df, a, b):
    """From these numbers to Student's t, in place of a; df (GROUP,)."""
    for t in range(GROUP):
        a[t] = one_student_t(df[t], a[t], b[t])


@kernel
def draw_student_t(scratch, counter, key, first, df, values):
    """Fill values (n,), one from a block, with Student's t; the degrees of freedom (d,) are those of columns in turn."""
    a, b, each = scratch[:GROUP], scratch[GROUP : 2 * GROUP], scratch[2 * GROUP : SCRATCH]
    while True:
        start = fetch_add(counter, 0, 1) * PIECE
        if start >= values.size:
            break
        for at in range(start, min(start + PIECE, values.size), GROUP):
            for t in range(GROUP):
                each[t] = df[(at + t) % df.size]
            blocks(key, first + at, a, b)
            make_student_t(each, a, b)
            n = min(GROUP, values.size - at)
            values[at : at + n] = a[:n]
