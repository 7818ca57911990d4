"""Products of two blocks, summed over their lanes: the gradients of weights.

    c (m, k) += a (m, lanes) @ b (k, lanes).T

Sums over the lanes of vectors would keep the registers busy with adding up.  So b is transposed first, square by square in
registers, into *panels*: 64 bytes of its rows side by side, lane after lane.  Then it is an ordinary product, in which the
lanes are the depth: vectors along the rows of c, and entries of a broadcast against them.  The layout of panels is the same
for vectors of any width, so that kernels that were compiled for different CPUs may share them.
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
from npflows.backends.cpu.kernels.tiles import HEIGHT, VECTOR_BYTES, Emit, tile_height

PANEL_BYTES = 64
MULTIPLE = 16
"""Panels hold a multiple of so many rows, at most."""


def panel_rows(k: int) -> int:
    """Rows of scratch memory for the panels of k rows."""
    return -(-k // MULTIPLE) * MULTIPLE


@intrinsic
def _square(typingctx, b, b_at, ldb, last, panels, panels_at):
    """A square of panels = its transpose, rows of b of which the `last` one stands for all after it."""
    i8 = types.int64
    signature = types.void(b, i8, i8, i8, panels, i8)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emit(context, builder, signature, args)
        source, target, one = emit.pointer(0), emit.pointer(4), emit.number(1)
        rows = []
        for i in range(emit.width):
            inside = builder.icmp_signed("<", emit.number(i), args[3])
            rows.append(emit.load(emit.at(source, (builder.select(inside, emit.number(i), args[3]), args[2]))))
        row = emit.number(PANEL_BYTES // emit.itemsize)
        for i, column in enumerate(emit.transposed(rows)):
            emit.store(column, emit.at(target, (emit.number(i), row), (one, emit.number(0))))
        return context.get_dummy_value()

    return signature, codegen


def _tile(height: int, n_vectors: int) -> Callable:
    """c (height, columns) += a (height, n) @ panels (n, columns), for as many columns as vectors have, or fewer of one."""

    @intrinsic
    def tile(typingctx, a, a_at, lda, panels, panels_at, apart, c, c_at, ldc, n, columns):
        i8 = types.int64
        signature = types.void(a, i8, i8, panels, i8, i8, c, i8, i8, i8, i8)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emit(context, builder, signature, args)
            lda, apart, ldc, n, columns = (args[i] for i in (2, 5, 8, 9, 10))
            left, right, out = emit.pointer(0), emit.pointer(3), emit.pointer(6)
            one, step, row = emit.number(1), emit.number(emit.width), emit.number(PANEL_BYTES // emit.itemsize)
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
                vectors = [emit.load(emit.at(lane, (emit.number(j), apart))) for j in range(n_vectors)]
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


if DISABLED:

    def outer(a, b, panels, known, c, ldc, m, k):
        out = np.lib.stride_tricks.as_strided(c, (m, k), (ldc * c.itemsize, c.itemsize))
        out += a[:m] @ b[:k].T

else:

    def _rows(n_vectors: int) -> Callable:
        """All rows of the result, from one column on, in tiles of this width."""
        full, four = _tile(HEIGHT, n_vectors), _tile(4, n_vectors)
        two, one = _tile(2, n_vectors), _tile(1, n_vectors)

        @inlined
        def rows(a, panels, at, apart, c, j, ldc, m, columns):
            i, n = 0, a.shape[1]
            while i < m:
                q, o, height = i * n, i * ldc + j, tile_height(m - i)
                if height == HEIGHT:
                    full(a, q, n, panels, at, apart, c, o, ldc, n, columns)
                elif height == 4:
                    four(a, q, n, panels, at, apart, c, o, ldc, n, columns)
                elif height == 2:
                    two(a, q, n, panels, at, apart, c, o, ldc, n, columns)
                else:
                    one(a, q, n, panels, at, apart, c, o, ldc, n, columns)
                i += height

        return rows

    _wide_rows, _narrow_rows = _rows(2), _rows(1)

    @inlined
    def place(j, n, panel):
        """Where the j-th row of b begins in panels of so many rows."""
        return j // panel * panel * n + j % panel

    @kernel
    def outer(a, b, panels, known, c, ldc, m, k):
        """c (m, k) += a[:m] @ b[:k].T, for blocks a and b of the same lanes, sixteen or a multiple.

        panels: scratch, `panel_rows(k)` times the lanes; from an earlier call it holds the first `known` rows of b.
        """
        n, width, panel = a.shape[1], VECTOR_BYTES // c.itemsize, PANEL_BYTES // c.itemsize
        for j in range(known // width * width, k, width):
            for t in range(0, n, width):
                _square(b, j * n + t, n, min(width, k - j) - 1, panels, place(j, n, panel) + t * panel)
        j, apart = 0, width if 2 * width <= panel else n * panel
        while j + 2 * width <= k:
            _wide_rows(a, panels, place(j, n, panel), apart, c, j, ldc, m, width)
            j += 2 * width
        while j < k:
            _narrow_rows(a, panels, place(j, n, panel), apart, c, j, ldc, m, min(width, k - j))
            j += width


OUTER = outer, "outer"
"""The function that networks link to, with its kind."""


@inlined
def add_outer(address, a, b, panels, known, c, ldc, m, k):
    """c (m, k) += a (m, lanes) @ b (k, lanes).T, for blocks a and b; see `outer`."""
    call(address, (a, b, panels, np.int64(known), c, np.int64(ldc), np.int64(m), np.int64(k)))
