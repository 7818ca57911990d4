"""Products of two blocks, summed over their lanes: the gradients of weights.

    c (m, k) += a (m, lanes) @ b (k, lanes).T

Sums over the lanes of vectors would keep the registers busy with adding up.  So rows of b are transposed first, square by
square in registers, as many as two vectors have entries: a *panel*, in which they lie side by side, lane after lane, and
which stays in the nearest cache.  Then it is an ordinary product, in which the lanes are the depth: vectors along the rows
of c, and entries of a broadcast against them.

Where c has few columns, whole vectors would not be filled.  There vectors run along the lanes and are summed in the end.

Of a masked layer only a staircase is wanted: a table says for each STEP columns of c in which row they begin.
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
from npflows.backends.cpu.kernels.tiles import ACROSS, HEIGHT, UNEVEN, VECTOR_BYTES, Emit, write_outer

PANEL_ROWS = 2 * 64 // 4
"""Rows of scratch memory for a panel, of vectors of any width."""
DEPTH = 128
"""Lanes of a panel at most, so that it stays in the nearest cache beside what it is multiplied with."""
STEP = 8
"""A table of first rows has an entry for so many columns."""
FEW_COLUMNS, MANY_LANES = max(STEP, VECTOR_BYTES // 4 - 1), 64
"""Up to so many columns, and from so many lanes on, sums over lanes are faster than panels."""


@intrinsic
def _square(typingctx, b, b_at, ldb, last, panel, panel_at):
    """A square of a panel = the transpose of that of b, in which row `last` stands for all after it."""
    i8 = types.int64
    signature = types.void(b, i8, i8, i8, panel, i8)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emit(context, builder, signature, args)
        source, target, row = emit.pointer(0), emit.pointer(4), emit.number(2 * emit.width)
        rows = []
        for i in range(emit.width):
            inside = builder.icmp_signed("<", emit.number(i), args[3])
            rows.append(emit.at(source, (builder.select(inside, emit.number(i), args[3]), args[2])))
        for i, column in enumerate(emit.columns_of(rows)):
            emit.store(column, emit.at(target, (emit.number(i), row)))
        return context.get_dummy_value()

    return signature, codegen


def _tile(height: int, n_vectors: int) -> Callable:
    """c (height, columns) += a (height, n) @ panel (n, columns), for as many columns as vectors have, or fewer of one."""

    @intrinsic
    def tile(typingctx, a, a_at, lda, panel, panel_at, c, c_at, ldc, n, columns):
        i8 = types.int64
        signature = types.void(a, i8, i8, panel, i8, c, i8, i8, i8, i8)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emit(context, builder, signature, args)
            lda, ldc, n, columns = (args[i] for i in (2, 7, 8, 9))
            left, right, out = emit.pointer(0), emit.pointer(3), emit.pointer(5)
            one, step, row = emit.number(1), emit.number(emit.width), emit.number(2 * emit.width)
            mask = emit.first_lanes(columns)
            part = n_vectors == 1
            totals = emit.variables(height, n_vectors)
            entries = [
                (totals[i][j], emit.at(out, (emit.number(i), ldc), (emit.number(j), step)))
                for i in range(height) for j in range(n_vectors)
            ]  # fmt: skip
            for total, place in entries:
                builder.store(emit.load_masked(place, mask) if part else emit.load(place), total)
            with cgutils.for_range(builder, n) as loop:
                lane = emit.at(right, (loop.index, row))
                vectors = [emit.load(emit.at(lane, (emit.number(j), step))) for j in range(n_vectors)]
                for i in range(height):
                    entry = emit.splat(builder.load(emit.at(left, (emit.number(i), lda), (loop.index, one))))
                    for total, vector in zip(totals[i], vectors):
                        emit.add_product(total, entry, vector)
            for total, place in entries:
                if part:
                    emit.store_masked(builder.load(total), place, mask)
                else:
                    emit.store(builder.load(total), place)
            return context.get_dummy_value()

        return signature, codegen

    return tile


def _sum_tile(height: int, width: int) -> Callable:
    """c (height, width) += a (height, n) @ b (width, n).T, by sums over lanes."""

    @intrinsic
    def tile(typingctx, a, a_at, b, b_at, c, c_at, ldc, n):
        i8 = types.int64
        signature = types.void(a, i8, b, i8, c, i8, i8, i8)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emit(context, builder, signature, args)
            ldc, n = args[6], args[7]
            left, right, out = emit.pointer(0), emit.pointer(2), emit.pointer(4)
            down = [emit.at(left, (emit.number(i), n)) for i in range(height)]
            across = [emit.at(right, (emit.number(j), n)) for j in range(width)]
            places = [emit.at(out, (emit.number(i), ldc)) for i in range(height)]
            write_outer(emit, down, across, places, (emit.number(1), emit.number(0), n))
            return context.get_dummy_value()

        return signature, codegen

    return tile


if DISABLED:

    def outer(first_rows, a, b, panel, c, ldc, m, k):
        out = np.lib.stride_tricks.as_strided(c, (m, k), (ldc * c.itemsize, c.itemsize))
        whole = a[:m] @ b[:k].T
        for j in range(0, k, STEP):
            first = first_rows[j // STEP] if len(first_rows) else 0
            out[first:, j : j + STEP] += whole[first:, j : j + STEP]

else:

    def _rows(n_vectors: int) -> Callable:
        """Rows i to m of the result, from one column on, in tiles of this width, for n lanes from lane t on."""
        full, four = _tile(HEIGHT, n_vectors), _tile(4, n_vectors)
        two, one = _tile(2, n_vectors), _tile(1, n_vectors)

        @inlined(always=True)
        def rows(a, t, n, panel, at, c, i, j, ldc, m, columns):
            lda = a.shape[1]
            while i + HEIGHT <= m and m - i != UNEVEN:
                full(a, i * lda + t, lda, panel, at, c, i * ldc + j, ldc, n, columns)
                i += HEIGHT
            while i + 4 <= m:
                four(a, i * lda + t, lda, panel, at, c, i * ldc + j, ldc, n, columns)
                i += 4
            while i + 2 <= m:
                two(a, i * lda + t, lda, panel, at, c, i * ldc + j, ldc, n, columns)
                i += 2
            if i < m:
                one(a, i * lda + t, lda, panel, at, c, i * ldc + j, ldc, n, columns)

        return rows

    _wide_rows, _narrow_rows = _rows(2), _rows(1)

    _sum_4w, _sum_41 = _sum_tile(4, ACROSS), _sum_tile(4, 1)
    _sum_1w, _sum_11 = _sum_tile(1, ACROSS), _sum_tile(1, 1)

    @inlined
    def sums(a, b, c, ldc, m, k):
        """All of c, by sums over lanes."""
        i, n = 0, a.shape[1]
        while i < m:
            j, four = 0, i + 4 <= m
            while j < k:
                several = j + ACROSS <= k
                if four and several:
                    _sum_4w(a, i * n, b, j * n, c, i * ldc + j, ldc, n)
                elif four:
                    _sum_41(a, i * n, b, j * n, c, i * ldc + j, ldc, n)
                elif several:
                    _sum_1w(a, i * n, b, j * n, c, i * ldc + j, ldc, n)
                else:
                    _sum_11(a, i * n, b, j * n, c, i * ldc + j, ldc, n)
                j += ACROSS if several else 1
            i += 4 if four else 1

    @inlined
    def first_row(first_rows, j):
        """The row in which column j begins."""
        return first_rows[j // STEP] if first_rows.size > 0 else 0

    @inlined
    def fill(b, j, t, n, k, panel):
        """The panel of rows of b from row j on, for n lanes from lane t on."""
        lanes, width = b.shape[1], VECTOR_BYTES // b.itemsize
        for first in range(j, min(j + 2 * width, k), width):
            last = min(width, k - first) - 1
            for s in range(0, n, width):
                _square(b, first * lanes + t + s, lanes, last, panel, 2 * width * s + first - j)

    @kernel
    def outer(first_rows, a, b, panel, c, ldc, m, k):
        """c (m, k) += a[:m] @ b[:k].T, for blocks a and b of the same lanes, sixteen or a multiple.

        first_rows: for each STEP columns the first row that is wanted of them, never falling; above it, c may or may not
        be added to.  Empty if all are.  panel: scratch, PANEL_ROWS times the lanes.
        """
        n, width = a.shape[1], VECTOR_BYTES // c.itemsize
        if k <= FEW_COLUMNS and n >= MANY_LANES:
            sums(a, b, c, ldc, m, k)
            return
        for t in range(0, n, DEPTH):
            depth = min(DEPTH, n - t)
            for j in range(0, k, 2 * width):
                half, first = j + width, first_row(first_rows, j)
                fill(b, j, t, depth, k, panel)
                if half + width <= k:
                    both = first_row(first_rows, half)
                    _narrow_rows(a, t, depth, panel, 0, c, first, j, ldc, both, width)
                    _wide_rows(a, t, depth, panel, 0, c, both, j, ldc, m, width)
                    continue
                _narrow_rows(a, t, depth, panel, 0, c, first, j, ldc, m, min(width, k - j))
                if half < k:
                    _narrow_rows(a, t, depth, panel, width, c, first_row(first_rows, half), half, ldc, m, k - half)


OUTER = outer, "outer"
"""The function that networks link to, with its kind."""


@inlined
def add_outer(address, first_rows, a, b, panel, c, ldc, m, k):
    """c (m, k) += a (m, lanes) @ b (k, lanes).T, for blocks a and b; see `outer`."""
    call(address, (first_rows, a, b, panel, c, np.int64(ldc), np.int64(m), np.int64(k)))
