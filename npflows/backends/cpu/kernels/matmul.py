"""Matrix products on blocks, tile by tile in vector registers.

In the products of a network one operand is a block, whose rows lie contiguously in lanes.  So vectors of lanes are loaded
straight from it and weights are broadcast against them: nothing has to be copied first, as a BLAS must.  For the sizes of
flows on tables that is as fast as a BLAS tuned to the CPU, and two to four times faster than one that does not know it
(benchmarks/RESULTS.md); a lane's result does not depend on how many lanes there are; and there is no library with threads
of its own to keep in check.

The tiles are written as LLVM instructions on vectors of the CPU's width; all else is ordinary code around them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npflows.backends.cpu.compiler.calls import call
from npflows.backends.cpu.compiler.jit import DISABLED, inlined, kernel
from npflows.backends.cpu.kernels.tiles import (
    FROM_BIAS,
    FROM_RESULT,
    HEIGHT,
    NARROW_BYTES,
    TILE_BYTES,
    UNEVEN,
    VECTOR_BYTES,
    Emit,
    write_product,
)
from npflows.backends.cpu.link import ONE_LANE_TWINS

DEPTH = 256
"""Rows of the right operand that a tile runs along at a time."""


def _vector_tile(height: int) -> Callable:
    """c (height, 1) = start + a (height, k) @ b (k, 1), for rows of a and entries of b that lie side by side.

    Squares of a are transposed in registers, so that the result is one vector whose sums are taken in the order of k.
    """

    @intrinsic
    def tile(typingctx, a, a_at, a_row, b, b_at, c, c_at, bias, bias_at, k, start):
        i8 = types.int64
        signature = types.void(a, i8, i8, b, i8, c, i8, bias, i8, i8, i8)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emit(context, builder, signature, args, lanes=height)
            a_row, k, start = args[2], args[9], args[10]
            left, right, out, biases = (emit.pointer(i) for i in (0, 3, 5, 7))
            one, step = emit.number(1), emit.number(height)
            total = cgutils.alloca_once_value(builder, emit.zeros())
            for kind, source in ((FROM_RESULT, out), (FROM_BIAS, biases)):
                with builder.if_then(builder.icmp_signed("==", start, emit.number(kind))):
                    builder.store(emit.load(source), total)
            rows = [emit.at(left, (emit.number(i), a_row)) for i in range(height)]

            def multiply(column: Any, load: Callable) -> None:
                entries = load(emit.at(right, (column, one)))
                squares = emit.transposed([load(emit.at(row, (column, one))) for row in rows])
                for p in range(height):
                    emit.add_product(total, squares[p], emit.shuffle(entries, entries, [p] * height))

            whole = builder.sdiv(k, step)
            with cgutils.for_range(builder, whole) as loop:
                multiply(builder.mul(loop.index, step), emit.load)
            done = builder.mul(whole, step)
            with builder.if_then(builder.icmp_signed("<", done, k)):
                mask = emit.first_lanes(builder.sub(k, done))
                multiply(done, lambda place: emit.load_masked(place, mask))
            emit.store(builder.load(total), out)
            return context.get_dummy_value()

        return signature, codegen

    return tile


def _column_tile(n_vectors: int) -> Callable:
    """c (columns, 1) = start + a (k, columns).T @ b (k, 1), for as many columns as vectors have, or fewer in the last."""

    @intrinsic
    def tile(typingctx, a, a_at, a_row, b, c, c_at, bias, bias_at, k, start, columns):
        i8 = types.int64
        signature = types.void(a, i8, i8, b, c, i8, bias, i8, i8, i8, i8)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emit(context, builder, signature, args)
            a_row, k, start, columns = args[2], args[8], args[9], args[10]
            left, right, out, biases = emit.pointer(0), emit.first(3), emit.pointer(4), emit.pointer(6)
            one, step, last = emit.number(1), emit.number(emit.width), n_vectors - 1
            mask = emit.first_lanes(builder.sub(columns, emit.number(last * emit.width)))

            def load(place: Any, j: int) -> Any:
                return emit.load_masked(place, mask) if j == last else emit.load(place)

            places = [emit.at(out, (emit.number(j), step)) for j in range(n_vectors)]
            [totals] = emit.variables(1, n_vectors)
            for total in totals:
                builder.store(emit.zeros(), total)
            for kind, source in ((FROM_RESULT, out), (FROM_BIAS, biases)):
                with builder.if_then(builder.icmp_signed("==", start, emit.number(kind))):
                    for j, total in enumerate(totals):
                        builder.store(load(emit.at(source, (emit.number(j), step)), j), total)

            def add_row(p: Any, load_last: Callable) -> None:
                entry = emit.splat(builder.load(emit.at(right, (p, one))))
                for j, total in enumerate(totals):
                    place = emit.at(left, (p, a_row), (emit.number(j), step))
                    emit.add_product(total, load_last(place) if j == last else emit.load(place), entry)

            final = builder.sub(k, one)
            with cgutils.for_range(builder, final) as loop:  # what a vector has beyond the columns is of the next row
                add_row(loop.index, emit.load)
            with builder.if_then(builder.icmp_signed(">", k, emit.number(0))):
                add_row(final, lambda place: emit.load_masked(place, mask))
            for total, place in zip(totals[:last], places):
                emit.store(builder.load(total), place)
            emit.store_masked(builder.load(totals[last]), places[last], mask)
            return context.get_dummy_value()

        return signature, codegen

    return tile


def _product_tile(height: int, row_bytes: int) -> Callable:
    """c (height, row_bytes) = start + a (height, k) @ b (k, row_bytes)."""

    @intrinsic
    def tile(typingctx, a, a_at, a_row, a_column, b, b_at, ldb, c, c_at, ldc, bias, bias_at, k, start):
        i8 = types.int64
        signature = types.void(a, i8, i8, i8, b, i8, i8, c, i8, i8, bias, i8, i8, i8)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emit(context, builder, signature, args)
            a_row, a_column, ldb, ldc, k, start = (args[i] for i in (2, 3, 6, 9, 12, 13))
            weights, rows, out, biases = (emit.pointer(i) for i in (0, 4, 7, 10))
            write_product(
                emit, height, row_bytes // VECTOR_BYTES,
                lambda i, p: emit.at(weights, (i, a_row), (p, a_column)), lambda i: emit.at(out, (i, ldc)),
                biases, k, start, lambda p: emit.at(rows, (p, ldb)),
            )  # fmt: skip
            return context.get_dummy_value()

        return signature, codegen

    return tile


if DISABLED:

    def product(a, a_row, a_column, b, c, m, k, start, bias):
        left = np.lib.stride_tricks.as_strided(a, (m, k), (a_row * a.itemsize, a_column * a.itemsize))
        c[:m] = left @ b[:k] + (c[:m] if start == FROM_RESULT else bias[:m, None] if start == FROM_BIAS else 0)

else:

    def _rows(row_bytes: int) -> Callable:
        """All rows of a result, from one column on, in tiles of this width."""
        full, four = _product_tile(HEIGHT, row_bytes), _product_tile(4, row_bytes)
        two, one = _product_tile(2, row_bytes), _product_tile(1, row_bytes)

        @inlined(always=True)
        def rows(a, p, a_row, a_column, b, r, ldb, c, j, ldc, bias, m, k, start):
            i = 0
            while i + HEIGHT <= m and m - i != UNEVEN:
                full(a, i * a_row + p, a_row, a_column, b, r, ldb, c, i * ldc + j, ldc, bias, i, k, start)
                i += HEIGHT
            while i + 4 <= m:
                four(a, i * a_row + p, a_row, a_column, b, r, ldb, c, i * ldc + j, ldc, bias, i, k, start)
                i += 4
            while i + 2 <= m:
                two(a, i * a_row + p, a_row, a_column, b, r, ldb, c, i * ldc + j, ldc, bias, i, k, start)
                i += 2
            if i < m:
                one(a, i * a_row + p, a_row, a_column, b, r, ldb, c, i * ldc + j, ldc, bias, i, k, start)

        return rows

    _wide_rows, _narrow_rows = _rows(TILE_BYTES), _rows(NARROW_BYTES)
    _columns_1, _columns_2, _columns_3, _columns_4 = map(_column_tile, (1, 2, 3, 4))
    _columns_5, _columns_6, _columns_7, _columns_8 = map(_column_tile, (5, 6, 7, 8))
    _vector_16, _vector_4, _vector_1 = _vector_tile(16), _vector_tile(4), _vector_tile(1)

    @kernel
    def product(a, a_row, a_column, b, c, m, k, start, bias):
        """c[:m] = start + sum over p < k of a[i * a_row + p * a_column] * b[p], for blocks b and c of the same lanes.

        start: FROM_ZERO, FROM_RESULT (what c holds) or FROM_BIAS (one number for each row).
        """
        n = b.shape[1]
        ldb, ldc = n, n
        wide, narrow = TILE_BYTES // c.itemsize, NARROW_BYTES // c.itemsize
        for p in range(0, max(k, 1), DEPTH):  # so that DEPTH rows of b stay in the nearest cache
            depth, begin = min(DEPTH, k - p), (start if p == 0 else FROM_RESULT)
            j = 0
            while j + wide <= n:
                _wide_rows(a, p * a_column, a_row, a_column, b, p * ldb + j, ldb, c, j, ldc, bias, m, depth, begin)
                j += wide
            if narrow < wide:
                while j < n:
                    _narrow_rows(a, p * a_column, a_row, a_column, b, p * ldb + j, ldb, c, j, ldc, bias, m, depth, begin)
                    j += narrow

    @inlined
    def _all_columns(a, a_column, b, c, m, k, start, bias):
        """Passes over the columns, as few and as even as can be: each sum waits for its last step, so that several side by
        side take no longer than one."""
        width = VECTOR_BYTES // c.itemsize
        n_vectors, step = (m + width - 1) // width, 8 * width
        if n_vectors > 8:
            n_passes = (n_vectors + 7) // 8
            step = (n_vectors + n_passes - 1) // n_passes * width
        i = 0
        while i < m:
            n = min(step, m - i)
            wide = (n + width - 1) // width
            if wide == 8:
                _columns_8(a, i, a_column, b, c, i, bias, i, k, start, n)
            elif wide == 7:
                _columns_7(a, i, a_column, b, c, i, bias, i, k, start, n)
            elif wide == 6:
                _columns_6(a, i, a_column, b, c, i, bias, i, k, start, n)
            elif wide == 5:
                _columns_5(a, i, a_column, b, c, i, bias, i, k, start, n)
            elif wide == 4:
                _columns_4(a, i, a_column, b, c, i, bias, i, k, start, n)
            elif wide == 3:
                _columns_3(a, i, a_column, b, c, i, bias, i, k, start, n)
            elif wide == 2:
                _columns_2(a, i, a_column, b, c, i, bias, i, k, start, n)
            else:
                _columns_1(a, i, a_column, b, c, i, bias, i, k, start, n)
            i += step

    @kernel
    def product_of_one(a, a_row, a_column, b, c, m, k, start, bias):
        """The same for blocks of one lane.

        Entries of a that lie side by side are in a row, with a_column 1; or in a column, with a_row 1.
        """
        if a_column != 1:
            _all_columns(a, a_column, b, c, m, k, start, bias)
            return
        i = 0
        while i + 16 <= m:
            _vector_16(a, i * a_row, a_row, b, 0, c, i, bias, i, k, start)
            i += 16
        while i + 4 <= m:
            _vector_4(a, i * a_row, a_row, b, 0, c, i, bias, i, k, start)
            i += 4
        while i < m:
            _vector_1(a, i * a_row, a_row, b, 0, c, i, bias, i, k, start)
            i += 1

    ONE_LANE_TWINS[product] = product_of_one

PRODUCT = product, "product"
"""The function that networks link to, with its kind."""


@inlined
def matmul(address, a, lda, b, c, m, k, start, bias):
    """c (m, lanes) = start + a (m, k) @ b (k, lanes), for blocks b and c."""
    call(address, (a, np.int64(lda), np.int64(1), b, c, np.int64(m), np.int64(k), np.int64(start), bias))


@inlined
def matmul_transposed(address, a, lda, b, c, m, k, start):
    """c (m, lanes) = start + a (k, m).T @ b (k, lanes), for blocks b and c; start is not FROM_BIAS."""
    call(address, (a, np.int64(1), np.int64(lda), b, c, np.int64(m), np.int64(k), np.int64(start), a[:0]))


@inlined
def matmul_by_column(address, a, b, c, m, k, start, bias):
    """`matmul` for blocks of one lane and an a that lies by column, a.T (k, m)."""
    call(address, (a, np.int64(1), np.int64(m), b, c, np.int64(m), np.int64(k), np.int64(start), bias))
