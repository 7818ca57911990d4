"""Products and convolutions: what stands for the CPU's tiles of vector registers.

The products of dense and masked networks are the work of a whole block of threads, each of which brings its own lane: a
slice at a time of the weights, and of what they are multiplied with, lies in shared memory, and each thread adds up a tile
of the result in registers.  All threads of a block come to the same products, as the text of a network asks its spec alone
where to go.  Where there are few samples only the first threads of a block have lanes, and the others help
(helpers.py).  Convolutions, products of few rows, and those of 1x1 convolutions, whose matrices each thread makes for
itself, are a thread's own: all threads of a warp read the same weight at a time, and neighboring numbers of their lanes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from npflows.backends.cpu.kernels.convolution import first_pixel as first_pixel_of
from npflows.backends.cpu.kernels.convolution import plane_size as plane_size_of
from npflows.backends.cpu.kernels.outer import STEP
from npflows.backends.cpu.kernels.tiles import FROM_BIAS, FROM_RESULT
from npflows.backends.cuda.device import SIMULATED, running
from npflows.backends.cuda.texts import text_of

UNSIGNED = np.uint64
first_pixel, plane_size = text_of(first_pixel_of), text_of(plane_size_of)

LANES, HIGH, WIDE, DEPTH = (4, 2, 2, 4) if SIMULATED else (128, 8, 4, 16)
"""Threads of a block, which are as many lanes; rows, of float32, and lanes of a thread's tile; the depth of a slice.  The
first is a multiple of `ROWS` and of the last, as each thread brings a part of a column or of a row of weights."""
ROWS = HIGH * WIDE
"""Rows of all threads' tiles."""
FEW_LANES, FEW = (2, 2) if SIMULATED else (32, 8192)
"""Lanes of a block of as many threads where there are so few samples or fewer, so that these are on as many multiprocessors
as there are: a warp has lanes, and the other ones help it to multiply.  Sums are added up in the same order."""
FEW_ROWS = LANES // (FEW_LANES // WIDE) * (HIGH // 2)
"""Rows of all threads' tiles there."""
ORDER = 20
"""Numbers in shared memory before the values there, which hold the integers that say what is to be done (helpers.py)."""


def stride_of(rows: int) -> int:
    """Between columns of weights, or other numbers, in shared memory: they begin where four numbers can be read at once, in
    different banks."""
    return rows + 4


SHARED = max(DEPTH * (stride_of(ROWS) + LANES), ROWS * LANES)
"""Numbers in shared memory: a slice of either operand, or the result."""
SHARED_OF_FEW = ORDER + max(DEPTH * (stride_of(FEW_ROWS) + FEW_LANES), FEW_ROWS * FEW_LANES)
"""The same where there are few samples."""


def beginning(start, i, c, bias):
    """What a sum begins with."""
    if start == FROM_RESULT:
        return c[i, 0]
    return bias[i] if start == FROM_BIAS else c.dtype.type(0)


def rows_of_product(a, a_row, a_column, b, c, first, m, k, start, bias):
    """Rows first..m of a product, one after the other."""
    one, column = UNSIGNED(1), UNSIGNED(a_column)
    for i in range(first, m):
        total, q, p = beginning(start, i, c, bias), UNSIGNED(i * a_row), UNSIGNED(0)
        for _ in range(k):
            total += a[q] * b[p, 0]
            q, p = q + column, p + one
        c[i, 0] = total


def make_product(high: int) -> Callable:
    """The product of a thread by itself, with so many sums at a time."""

    def product(a, a_row, a_column, b, c, m, k, start, bias):
        """c[:m] = start + sum over p < k of a[i * a_row + p * a_column] * b[p], for blocks b and c of one lane.

        Several sums at a time, as each number of b that is read then serves all of them.  Indices are unsigned where it
        counts: signed ones are looked at first, whether they count from the end.
        """
        one, row, column = UNSIGNED(1), UNSIGNED(a_row), UNSIGNED(a_column)
        sums = running.local.array(high, c.dtype)
        i = 0
        while i + high <= m:
            for r in range(high):
                sums[r] = beginning(start, i + r, c, bias)
            q, p = UNSIGNED(i * a_row), UNSIGNED(0)
            for _ in range(k):
                value, at = b[p, 0], q
                for r in range(high):
                    sums[r] += a[at] * value
                    at += row
                q, p = q + column, p + one
            for r in range(high):
                c[i + r, 0] = sums[r]
            i += high
        rows_of_product(a, a_row, a_column, b, c, i, m, k, start, bias)

    product.__qualname__ = f"product_of_{high}"
    return product


product, product_of_few = make_product(HIGH), make_product(HIGH // 2)
"""That of few rows is for kernels that have no registers left for the sums of more, in double precision."""


def make_add_column(high: int) -> Callable:
    """The step of a product of tiles (high, WIDE)."""

    def add_column(shared, i, j, sums):
        """sums (high, WIDE) += high weights, from number i on, times WIDE values, from j on."""
        for r in range(high):
            for t in range(WIDE):
                sums[r * WIDE + t] += shared[i + UNSIGNED(r)] * shared[j + UNSIGNED(t)]

    return add_column


def make_multiply(high: int, lanes: int) -> Callable:
    """The product of a block of threads with so many lanes, and with so many rows of a thread's tile."""
    across, groups = lanes // WIDE, LANES // lanes
    each = DEPTH // groups
    rows, square = LANES // across * high, high * WIDE
    stride, first_value = stride_of(rows), ORDER if groups > 1 else 0
    first_weight = first_value + DEPTH * lanes
    step_1, step_2, step_3, step_4 = (UNSIGNED(i * stride) for i in (1, 2, 3, 4))
    lanes_1, lanes_2, lanes_3, lanes_4 = (UNSIGNED(i * lanes) for i in (1, 2, 3, 4))
    unroll = high * groups
    add_column = make_add_column(high)

    def multiply(a, a_row, a_column, b, c, m, k, start, bias):
        """A thread's part in the product, with b and c of a lane that it shares with a thread of each other group."""
        shared = running.shared.array(0, c.dtype)  # values of the lanes, then weights
        sums, values = running.local.array(square, c.dtype), running.local.array(each, c.dtype)
        thread, zero = running.threadIdx.x, c.dtype.type(0)
        mine, lane = thread // across * high, thread % across * WIDE
        group, to_value = thread // lanes, UNSIGNED(first_value + thread)
        if a_column == 1:  # neighbors bring weights that lie side by side
            row, column, row_step, column_step = thread // DEPTH, thread % DEPTH, LANES // DEPTH, 0
        else:
            row, column, row_step, column_step = thread % rows, thread // rows, 0, LANES // rows
        to, to_step = UNSIGNED(first_weight + column * stride + row), UNSIGNED(column_step * stride + row_step)
        a_step, a_slice = UNSIGNED(row_step * a_row + column_step * a_column), UNSIGNED(DEPTH * a_column)
        for first in range(0, m, rows):
            for i in range(high):
                row_of_result = first + mine + i
                begun = bias[UNSIGNED(row_of_result)] if start == FROM_BIAS and row_of_result < m else zero
                for j in range(WIDE):
                    sums[i * WIDE + j] = begun
            at, left = UNSIGNED((first + row) * a_row + column * a_column), m - first - row
            for p0 in range(0, k, DEPTH):
                n, q = min(DEPTH, k - p0), UNSIGNED(p0 + group)
                running.syncthreads()
                if n == DEPTH:
                    for p in range(each):
                        values[p] = b[q + UNSIGNED(p * groups), 0]
                else:
                    for p in range(each):
                        values[p] = b[q + UNSIGNED(p * groups), 0] if p * groups + group < n else zero
                for p in range(each):  # once all are there: each is a wait for memory
                    shared[to_value + UNSIGNED(p * groups * lanes)] = values[p]
                for r in range(rows * DEPTH // LANES):
                    inside = r * row_step < left and column + r * column_step < n
                    shared[to + UNSIGNED(r) * to_step] = a[at + UNSIGNED(r) * a_step] if inside else zero
                at += a_slice
                running.syncthreads()
                i, j = UNSIGNED(first_weight + mine), UNSIGNED(first_value + lane)
                for _ in range(0, n, 4):  # the compiler does not unroll it; what lies beyond n is 0
                    add_column(shared, i, j, sums)
                    add_column(shared, i + step_1, j + lanes_1, sums)
                    add_column(shared, i + step_2, j + lanes_2, sums)
                    add_column(shared, i + step_3, j + lanes_3, sums)
                    i, j = i + step_4, j + lanes_4
            running.syncthreads()
            for i in range(high):
                for j in range(WIDE):
                    shared[UNSIGNED(first_value + (mine + i) * lanes + lane + j)] = sums[i * WIDE + j]
            running.syncthreads()
            q, place, some = UNSIGNED(first + group), to_value, min(rows, m - first) - group
            while some > 0:
                if start == FROM_RESULT:
                    for j in range(0, min(unroll, some), groups):
                        c[q + UNSIGNED(j), 0] += shared[place + UNSIGNED(j * lanes)]
                elif some >= unroll:  # which the compiler unrolls
                    for j in range(high):
                        values[j] = shared[place + UNSIGNED(j * groups * lanes)]
                    for j in range(high):
                        c[q + UNSIGNED(j * groups), 0] = values[j]
                else:
                    for j in range(0, some, groups):
                        c[q + UNSIGNED(j), 0] = shared[place + UNSIGNED(j * lanes)]
                q, place, some = q + UNSIGNED(unroll), place + UNSIGNED(unroll * lanes), some - unroll

    return multiply


def make_product_together(multiply: Callable, high: int) -> Callable:
    """The product where all threads of a block call it at the same time, with the same weights a."""

    def product_together(a, a_row, a_column, b, c, m, k, start, bias):
        """`product`; sums go in the order of p here too; to what the result holds they are added last."""
        if m < high:
            rows_of_product(a, a_row, a_column, b, c, 0, m, k, start, bias)
        else:
            multiply(a, a_row, a_column, b, c, m, k, start, bias)

    product_together.__qualname__ = f"product_together_{high}"
    return product_together


TILES = {np.dtype(np.float32): HIGH, np.dtype(np.float64): HIGH // 2}
"""Rows of a thread's tile by dtype: of doubles fewer fit into registers."""
TOGETHER = {dtype: make_product_together(make_multiply(high, LANES), high) for dtype, high in TILES.items()}


def plane_beginning(start, i, at, c, bias):
    """What a sum begins with that comes to entry `at` of plane i."""
    if start == FROM_RESULT:
        return c[at]
    return bias[i] if start == FROM_BIAS else c.dtype.type(0)


def outer(first_rows, a, b, panel, c, ldc, m, k):
    """c (m, k) += a[:m] @ b[:k].T, of one lane; see `npflows.backends.cpu.kernels.outer.outer`."""
    for j in range(k):
        value = b[j, 0]
        first = first_rows[j // STEP] if first_rows.size > 0 else 0
        for i in range(first, m):
            c[i * ldc + j] += a[i, 0] * value


def no_outer(first_rows, a, b, panel, c, ldc, m, k):
    """What stands for it where a and b stay as they are: it is left to sums.py."""


def convolve(table, a, a_row, a_column, b, c, m, k, height, width, lanes, start, bias):
    """c[i] = start + sum over p < k of a[i * a_row + p * a_column] * b shifted to table[p], inside the borders; b and c:
    planes of one lane."""
    row, size = width + 2, plane_size(height, width, 1)
    r1, column = UNSIGNED(a_row), UNSIGNED(a_column)
    r2, r3 = r1 + r1, r1 + r1 + r1
    for y in range(height):
        for x in range(width):
            pixel, i = first_pixel(width, 1) + y * row + x, 0
            while i < m:
                at, q = i * size + pixel, UNSIGNED(i * a_row)
                c0 = plane_beginning(start, i, at, c, bias)
                if i + 4 <= m:
                    c1 = plane_beginning(start, i + 1, at + size, c, bias)
                    c2 = plane_beginning(start, i + 2, at + 2 * size, c, bias)
                    c3 = plane_beginning(start, i + 3, at + 3 * size, c, bias)
                    for p in range(k):
                        value = b[UNSIGNED(table[p] + pixel)]
                        c0 += a[q] * value
                        c1 += a[q + r1] * value
                        c2 += a[q + r2] * value
                        c3 += a[q + r3] * value
                        q += column
                    c[at], c[at + size], c[at + 2 * size], c[at + 3 * size] = c0, c1, c2, c3
                    i += 4
                else:
                    for p in range(k):
                        c0 += a[q] * b[UNSIGNED(table[p] + pixel)]
                        q += column
                    c[at] = c0
                    i += 1


def convolve_outer(table, a, b, c, m, k, height, width, lanes):
    """c[i * k + p] += sum over pixels of plane i of a times b shifted to table[p], inside the borders; of one lane."""
    row, size = width + 2, plane_size(height, width, 1)
    for i in range(m):
        for p in range(k):
            total = c.dtype.type(0)
            for y in range(height):
                for x in range(width):
                    pixel = first_pixel(width, 1) + y * row + x
                    total += a[i * size + pixel] * b[table[p] + pixel]
            c[i * k + p] += total
