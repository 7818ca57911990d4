"""Convolutions of images with samples as lanes, as matrix products that nothing is copied for.

An image of a block is a *plane* (height + 2, width + 2, lanes) with a border of zeros, one for each channel, so that no
shifted pixel wraps at an edge.  The rows of the right operand of the product are the planes shifted by each offset of the
kernel: a table says where each begins, and the tiles of kernels/matmul.py run along an image row of all lanes at once.

The entries of a table are in pixels, from the first pixel inside the border of the first plane.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from npflows.backends.cpu.compiler.jit import DISABLED, inlined, kernel
from npflows.backends.cpu.kernels.matmul import DEPTH
from npflows.backends.cpu.kernels.tiles import (
    ACROSS,
    FROM_BIAS,
    FROM_RESULT,
    HEIGHT,
    NARROW_BYTES,
    TILE_BYTES,
    VECTOR_BYTES,
    Emit,
    write_outer,
    write_product,
)

COLUMNS = 1024
"""Lanes of all pixels together that an outer product runs along before it goes on to the next rows of the result."""


def offsets(channels: int, kernel_size: int, height: int, width: int) -> np.ndarray:
    """The table of a convolution: where each shifted plane begins, kernel offset by kernel offset, all channels of each."""
    reach = kernel_size // 2
    shifts = np.arange(-reach, reach + 1)
    planes = (height + 2) * (width + 2) * np.arange(channels)
    return ((shifts[:, None] * (width + 2) + shifts).reshape(-1, 1) + planes).ravel()


@inlined
def first_pixel(width, lanes):
    """Entries before the first pixel inside the border of a plane."""
    return (width + 3) * lanes


@inlined
def plane_size(height, width, lanes):
    """Entries of a plane with its border."""
    return (height + 2) * (width + 2) * lanes


def _product_tile(height: int, row_bytes: int) -> Callable:
    """c (height, row_bytes) = start + a (height, k) @ the rows of b that begin at table * lanes."""

    @intrinsic
    def tile(typingctx, table, table_at, a, a_at, a_row, a_column, b, b_at, lanes, c, c_at, ldc, bias, bias_at, k, start):
        i8 = types.int64
        signature = types.void(table, i8, a, i8, i8, i8, b, i8, i8, c, i8, i8, bias, i8, i8, i8)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emit(context, builder, signature, args, 2)
            a_row, a_column, lanes, ldc, k, start = (args[i] for i in (4, 5, 8, 11, 14, 15))
            places, weights, rows, out, biases = (emit.pointer(i) for i in (0, 2, 6, 9, 12))
            one = emit.number(1)
            write_product(
                emit, height, row_bytes // VECTOR_BYTES,
                lambda i, p: emit.at(weights, (i, a_row), (p, a_column)), lambda i: emit.at(out, (i, ldc)),
                biases, k, start, lambda p: emit.at(rows, (builder.load(emit.at(places, (p, one))), lanes)),
            )  # fmt: skip
            return context.get_dummy_value()

        return signature, codegen

    return tile


def _outer_tile(height: int, width: int) -> Callable:
    """c (height, width) += planes of a (height of them) times the rows of b that begin at table * lanes, summed."""

    @intrinsic
    def tile(typingctx, table, table_at, a, a_at, lda, b, b_at, lanes, c, c_at, ldc, count, apart, n):
        i8 = types.int64
        signature = types.void(table, i8, a, i8, i8, b, i8, i8, c, i8, i8, i8, i8, i8)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emit(context, builder, signature, args, 2)
            lda, lanes, ldc = (args[i] for i in (4, 7, 10))
            places, left, right, out = (emit.pointer(i) for i in (0, 2, 5, 8))
            down = [emit.at(left, (emit.number(i), lda)) for i in range(height)]
            across = [
                emit.at(right, (builder.load(emit.at(places, (emit.number(j), emit.number(1)))), lanes))
                for j in range(width)
            ]  # fmt: skip
            write_outer(emit, down, across, [emit.at(out, (emit.number(i), ldc)) for i in range(height)], args[11:14])
            return context.get_dummy_value()

        return signature, codegen

    return tile


if DISABLED:

    def _shifted(table, b, k, height, width, lanes):
        """The rows of b (k, height, width, lanes)."""
        size = b.itemsize
        strides = ((width + 2) * lanes * size, lanes * size, size)
        first = first_pixel(width, lanes)
        view = np.lib.stride_tricks.as_strided
        return np.stack([view(b[first + table[p] * lanes :], (height, width, lanes), strides) for p in range(k)])

    def _planes(c, m, height, width, lanes):
        """The pixels inside the border of m planes (m, height, width, lanes)."""
        whole = c[: m * plane_size(height, width, lanes)].reshape(m, height + 2, width + 2, lanes)
        return whole[:, 1:-1, 1:-1]

    def convolve(table, a, a_row, a_column, b, c, m, k, height, width, lanes, start, bias):
        left = np.lib.stride_tricks.as_strided(a, (m, k), (a_row * a.itemsize, a_column * a.itemsize))
        out = _planes(c, m, height, width, lanes)
        first = out if start == FROM_RESULT else bias[:m, None, None, None] if start == FROM_BIAS else 0
        out[:] = first + np.tensordot(left, _shifted(table, b, k, height, width, lanes), 1)

    def convolve_outer(table, a, b, c, m, k, height, width, lanes):
        left, right = _planes(a, m, height, width, lanes), _shifted(table, b, k, height, width, lanes)
        c[: m * k] += np.tensordot(left, right, ((1, 2, 3), (1, 2, 3))).ravel()

else:
    _wide, _wide_4 = _product_tile(HEIGHT, TILE_BYTES), _product_tile(4, TILE_BYTES)
    _wide_2, _wide_1 = _product_tile(2, TILE_BYTES), _product_tile(1, TILE_BYTES)
    _narrow, _narrow_4 = _product_tile(HEIGHT, NARROW_BYTES), _product_tile(4, NARROW_BYTES)
    _narrow_2, _narrow_1 = _product_tile(2, NARROW_BYTES), _product_tile(1, NARROW_BYTES)
    _outer_4w, _outer_41 = _outer_tile(4, ACROSS), _outer_tile(4, 1)
    _outer_1w, _outer_11 = _outer_tile(1, ACROSS), _outer_tile(1, 1)

    @kernel
    def convolve(table, a, a_row, a_column, b, c, m, k, height, width, lanes, start, bias):
        """c[i] = start + sum over p < k of a[i * a_row + p * a_column] * b shifted to table[p], inside the borders.

        b and c: planes.  start: FROM_ZERO, FROM_RESULT (what c holds) or FROM_BIAS (one number for each plane).
        """
        row, ldc, n = (width + 2) * lanes, plane_size(height, width, lanes), width * lanes
        wide, narrow = TILE_BYTES // c.itemsize, NARROW_BYTES // c.itemsize
        for p in range(0, max(k, 1), DEPTH):
            depth, begin = min(DEPTH, k - p), (start if p == 0 else FROM_RESULT)
            for y in range(height):
                j = 0
                while j < n:
                    r, i = first_pixel(width, lanes) + y * row + j, 0
                    whole = j + wide <= n
                    while i < m:
                        q, o = i * a_row + p * a_column, i * ldc + r
                        if i + HEIGHT <= m:
                            if whole:
                                _wide(table, p, a, q, a_row, a_column, b, r, lanes, c, o, ldc, bias, i, depth, begin)
                            else:
                                _narrow(table, p, a, q, a_row, a_column, b, r, lanes, c, o, ldc, bias, i, depth, begin)
                            i += HEIGHT
                        elif i + 4 <= m:
                            if whole:
                                _wide_4(table, p, a, q, a_row, a_column, b, r, lanes, c, o, ldc, bias, i, depth, begin)
                            else:
                                _narrow_4(table, p, a, q, a_row, a_column, b, r, lanes, c, o, ldc, bias, i, depth, begin)
                            i += 4
                        elif i + 2 <= m:
                            if whole:
                                _wide_2(table, p, a, q, a_row, a_column, b, r, lanes, c, o, ldc, bias, i, depth, begin)
                            else:
                                _narrow_2(table, p, a, q, a_row, a_column, b, r, lanes, c, o, ldc, bias, i, depth, begin)
                            i += 2
                        else:
                            if whole:
                                _wide_1(table, p, a, q, a_row, a_column, b, r, lanes, c, o, ldc, bias, i, depth, begin)
                            else:
                                _narrow_1(table, p, a, q, a_row, a_column, b, r, lanes, c, o, ldc, bias, i, depth, begin)
                            i += 1
                    j += wide if whole else narrow

    @kernel
    def convolve_outer(table, a, b, c, m, k, height, width, lanes):
        """c[i * k + p] += sum over pixels and lanes of plane i of a times b shifted to table[p], inside the borders."""
        row, lda, n = (width + 2) * lanes, plane_size(height, width, lanes), width * lanes
        at_once = max(1, COLUMNS // n)
        for y in range(0, height, at_once):
            count, i = min(at_once, height - y), 0
            r = first_pixel(width, lanes) + y * row
            while i < m:
                j, q = 0, i * lda + r
                if i + 4 <= m:
                    while j < k:
                        if j + ACROSS <= k:
                            _outer_4w(table, j, a, q, lda, b, r, lanes, c, i * k + j, k, count, row, n)
                            j += ACROSS
                        else:
                            _outer_41(table, j, a, q, lda, b, r, lanes, c, i * k + j, k, count, row, n)
                            j += 1
                    i += 4
                else:
                    while j < k:
                        if j + ACROSS <= k:
                            _outer_1w(table, j, a, q, lda, b, r, lanes, c, i * k + j, k, count, row, n)
                            j += ACROSS
                        else:
                            _outer_11(table, j, a, q, lda, b, r, lanes, c, i * k + j, k, count, row, n)
                            j += 1
                    i += 1


CONVOLVE, CONVOLVE_OUTER = (convolve, "convolution"), (convolve_outer, "convolution_outer")
"""The functions that networks link to, with their names."""
