"""Products and convolutions of one lane: what stands for the CPU's tiles of vector registers.

All threads of a warp read the same weight at a time, and neighboring numbers of their own.  Sums go in the order of the
rows, as on the CPU.
"""

from __future__ import annotations

from npflows.backends.cpu.kernels.convolution import first_pixel as first_pixel_of
from npflows.backends.cpu.kernels.convolution import plane_size as plane_size_of
from npflows.backends.cpu.kernels.outer import STEP
from npflows.backends.cpu.kernels.tiles import FROM_BIAS, FROM_RESULT
from npflows.backends.cuda.texts import text_of

first_pixel, plane_size = text_of(first_pixel_of), text_of(plane_size_of)


def beginning(start, i, c, bias):
    """What a sum begins with."""
    if start == FROM_RESULT:
        return c[i, 0]
    return bias[i] if start == FROM_BIAS else c.dtype.type(0)


def product(a, a_row, a_column, b, c, m, k, start, bias):
    """c[:m] = start + sum over p < k of a[i * a_row + p * a_column] * b[p], for blocks b and c of one lane.

    Eight sums at a time, as each number of b that is read then serves eight.
    """
    i = 0
    while i + 8 <= m:
        c0, c1 = beginning(start, i, c, bias), beginning(start, i + 1, c, bias)
        c2, c3 = beginning(start, i + 2, c, bias), beginning(start, i + 3, c, bias)
        c4, c5 = beginning(start, i + 4, c, bias), beginning(start, i + 5, c, bias)
        c6, c7 = beginning(start, i + 6, c, bias), beginning(start, i + 7, c, bias)
        at = i * a_row
        for p in range(k):
            value, q = b[p, 0], at + p * a_column
            c0 += a[q] * value
            c1 += a[q + a_row] * value
            c2 += a[q + 2 * a_row] * value
            c3 += a[q + 3 * a_row] * value
            c4 += a[q + 4 * a_row] * value
            c5 += a[q + 5 * a_row] * value
            c6 += a[q + 6 * a_row] * value
            c7 += a[q + 7 * a_row] * value
        c[i, 0], c[i + 1, 0], c[i + 2, 0], c[i + 3, 0] = c0, c1, c2, c3
        c[i + 4, 0], c[i + 5, 0], c[i + 6, 0], c[i + 7, 0] = c4, c5, c6, c7
        i += 8
    while i < m:
        total = beginning(start, i, c, bias)
        for p in range(k):
            total += a[i * a_row + p * a_column] * b[p, 0]
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
    for i in range(m):
        for y in range(height):
            for x in range(width):
                pixel = first_pixel(width, 1) + y * row + x
                total = c.dtype.type(0)
                if start == FROM_RESULT:
                    total = c[i * size + pixel]
                elif start == FROM_BIAS:
                    total = bias[i]
                for p in range(k):
                    total += a[i * a_row + p * a_column] * b[table[p] + pixel]
                c[i * size + pixel] = total


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
