"""Products and convolutions of one lane: what stands for the CPU's tiles of vector registers.

All threads of a warp read the same weight at a time, and neighboring numbers of their own.  Sums go in the order of the
rows, as on the CPU.
"""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.kernels.convolution import first_pixel as first_pixel_of
from npflows.backends.cpu.kernels.convolution import plane_size as plane_size_of
from npflows.backends.cpu.kernels.outer import STEP
from npflows.backends.cpu.kernels.tiles import FROM_BIAS, FROM_RESULT
from npflows.backends.cuda.texts import text_of

UNSIGNED = np.uint64
first_pixel, plane_size = text_of(first_pixel_of), text_of(plane_size_of)


def beginning(start, i, c, bias):
    """What a sum begins with."""
    if start == FROM_RESULT:
        return c[i, 0]
    return bias[i] if start == FROM_BIAS else c.dtype.type(0)


def plane_beginning(start, i, at, c, bias):
    """What a sum begins with that comes to entry `at` of plane i."""
    if start == FROM_RESULT:
        return c[at]
    return bias[i] if start == FROM_BIAS else c.dtype.type(0)


def product(a, a_row, a_column, b, c, m, k, start, bias):
    """c[:m] = start + sum over p < k of a[i * a_row + p * a_column] * b[p], for blocks b and c of one lane.

    Eight sums at a time, as each number of b that is read then serves eight.  Indices are unsigned where it counts: signed
    ones are looked at first, whether they count from the end.
    """
    one, column = UNSIGNED(1), UNSIGNED(a_column)
    r1 = UNSIGNED(a_row)
    r2, r3, r4 = r1 + r1, r1 + r1 + r1, r1 + r1 + r1 + r1
    r5, r6, r7 = r4 + r1, r4 + r2, r4 + r3
    i = 0
    while i + 8 <= m:
        c0, c1 = beginning(start, i, c, bias), beginning(start, i + 1, c, bias)
        c2, c3 = beginning(start, i + 2, c, bias), beginning(start, i + 3, c, bias)
        c4, c5 = beginning(start, i + 4, c, bias), beginning(start, i + 5, c, bias)
        c6, c7 = beginning(start, i + 6, c, bias), beginning(start, i + 7, c, bias)
        q, p = UNSIGNED(i * a_row), UNSIGNED(0)
        for _ in range(k):
            value = b[p, 0]
            c0 += a[q] * value
            c1 += a[q + r1] * value
            c2 += a[q + r2] * value
            c3 += a[q + r3] * value
            c4 += a[q + r4] * value
            c5 += a[q + r5] * value
            c6 += a[q + r6] * value
            c7 += a[q + r7] * value
            q, p = q + column, p + one
        c[i, 0], c[i + 1, 0], c[i + 2, 0], c[i + 3, 0] = c0, c1, c2, c3
        c[i + 4, 0], c[i + 5, 0], c[i + 6, 0], c[i + 7, 0] = c4, c5, c6, c7
        i += 8
    while i < m:
        total, q, p = beginning(start, i, c, bias), UNSIGNED(i * a_row), UNSIGNED(0)
        for _ in range(k):
            total += a[q] * b[p, 0]
            q, p = q + column, p + one
        c[i, 0] = total
        i += 1


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
