"""Matrix products on blocks, tile by tile in vector registers.

In the products of a network one operand is a block, whose rows lie contiguously in lanes.  So vectors of lanes are loaded
straight from it and weights are broadcast against them, or two blocks are multiplied lane by lane and summed: nothing has
to be copied first, as a BLAS must.  For the sizes of flows on tables that is as fast as a BLAS tuned to the CPU, and two to
four times faster than one that does not know it (benchmarks/RESULTS.md); a lane's result does not depend on how many lanes
there are; and there is no library with threads of its own to keep in check.

The tiles are written as LLVM instructions on vectors of this CPU's width; all else is ordinary code around them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npflows.backends.cpu.compiler.calls import call
from npflows.backends.cpu.compiler.jit import DISABLED, inlined, kernel

DEPTH = 256
"""Rows of the right operand that a tile runs along at a time."""
FROM_ZERO, FROM_RESULT, FROM_BIAS = range(3)
"""What a product starts from: nothing, what the result holds, or a number for each row."""


def _registers() -> tuple[int, int, int]:
    """Bytes of a vector, bytes of a tile's row and height of a tile, such that tiles fill this CPU's registers."""
    try:
        features = binding.get_host_cpu_features()
    except RuntimeError:  # unknown for some architectures
        features = {}
    if features.get("avx512f"):
        return 64, 128, 8
    return (32 if features.get("avx") else 16), 64, 6


VECTOR_BYTES, TILE_BYTES, HEIGHT = _registers()
NARROW_BYTES = 64
"""A row of a tile for what is left over: sixteen lanes of float32."""


class Emit:
    """Writes vector instructions for arrays of one dtype, that of argument number `of`; vectors are as wide as this CPU's,
    or have so many lanes."""

    def __init__(
        self, context: Any, builder: Any, signature: Any, args: Any, of: int = 0, lanes: int | None = None
    ) -> None:
        self.context, self.builder, self.signature, self.args = context, builder, signature, args
        dtype = signature.args[of].dtype
        self.real, self.itemsize = context.get_value_type(dtype), dtype.bitwidth // 8
        self.width = lanes or VECTOR_BYTES // self.itemsize
        self.vector = ir.VectorType(self.real, self.width)

    def number(self, i: int) -> Any:
        return ir.Constant(ir.IntType(64), i)

    def pointer(self, i: int) -> Any:
        """Entry args[i + 1] of the array that is argument i."""
        array = self.context.make_array(self.signature.args[i])(self.context, self.builder, self.args[i])
        return self.builder.gep(array.data, [self.args[i + 1]])

    def at(self, pointer: Any, *steps: tuple[Any, Any]) -> Any:
        """pointer + the sum of count * stride over `steps`."""
        for count, stride in steps:
            pointer = self.builder.gep(pointer, [self.builder.mul(count, stride)])
        return pointer

    def load(self, pointer: Any, vector: Any = None) -> Any:
        place = self.builder.bitcast(pointer, (vector or self.vector).as_pointer())
        return self.builder.load(place, align=self.itemsize)

    def first_lanes(self, n: Any) -> Any:
        """A mask of the first n lanes."""
        index = ir.VectorType(ir.IntType(32), self.width)
        undefined, zero = ir.Constant(index, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        lane = self.builder.insert_element(undefined, self.builder.trunc(n, ir.IntType(32)), zero)
        return self.builder.icmp_signed("<", ir.Constant(index, list(range(self.width))),
                                        self.shuffle(lane, undefined, [0] * self.width))  # fmt: skip

    def load_masked(self, pointer: Any, mask: Any) -> Any:
        """The lanes of the mask, zero in the others, whose memory is not touched."""
        place = self.builder.bitcast(pointer, self.vector.as_pointer())
        name = f"llvm.masked.load.v{self.width}f{8 * self.itemsize}.p0"
        kinds = [place.type, ir.IntType(32), mask.type, self.vector]
        function = cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(self.vector, kinds), name)
        return self.builder.call(function, [place, ir.Constant(ir.IntType(32), self.itemsize), mask, self.zeros()])

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, self.builder.bitcast(pointer, value.type.as_pointer()), align=self.itemsize)

    def zeros(self) -> Any:
        return ir.Constant(self.vector, [0.0] * self.width)

    def variables(self, rows: int, columns: int) -> list[list[Any]]:
        return [[cgutils.alloca_once(self.builder, self.vector) for _ in range(columns)] for _ in range(rows)]

    def shuffle(self, a: Any, b: Any, lanes: list[int]) -> Any:
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
        return self.builder.shuffle_vector(a, b, mask)

    def splat(self, value: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        lane = self.builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        return self.shuffle(lane, undefined, [0] * self.width)

    def add_product(self, total: Any, a: Any, b: Any) -> None:
        """variable total += a * b."""
        name = f"llvm.fma.v{self.width}f{8 * self.itemsize}"
        function_type = ir.FunctionType(self.vector, [self.vector] * 3)
        function = cgutils.get_or_insert_function(self.builder.module, function_type, name)
        self.builder.store(self.builder.call(function, [a, b, self.builder.load(total)]), total)

    def transposed(self, rows: list[Any]) -> list[Any]:
        """The columns of a square: in each stage, pairs of rows swap their blocks off the diagonal."""
        n, block, rows = len(rows), 1, list(rows)
        while block < n:
            for i in (i for i in range(n) if not i & block):
                a, b = rows[i], rows[i + block]
                rows[i] = self.shuffle(a, b, [n + j - block if j & block else j for j in range(n)])
                rows[i + block] = self.shuffle(a, b, [n + j if j & block else j + block for j in range(n)])
            block *= 2
        return rows

    def fold(self, a: Any, b: Any, group: int) -> Any:
        """Halve every group of neighbouring lanes of a and of b by adding its halves; the result has all groups."""
        starts = range(0, a.type.count + (b.type.count if b is not None else 0), group)
        low = [s + i for s in starts for i in range(group // 2)]
        high = [s + group // 2 + i for s in starts for i in range(group // 2)]
        other = ir.Constant(a.type, ir.Undefined) if b is None else b
        return self.builder.fadd(self.shuffle(a, other, low), self.shuffle(a, other, high))

    def sums(self, vectors: list[Any]) -> list[Any]:
        """The sum over each vector's lanes, the sums side by side in as few vectors as hold them."""
        group = self.width
        while group > 1:
            if len(vectors) > 1:
                vectors = [self.fold(a, b, group) for a, b in zip(vectors[::2], vectors[1::2])]
            else:
                vectors = [self.fold(vectors[0], None, group)]
            group //= 2
        return vectors


def write_product(emit: Emit, height: int, n_vectors: int, left: Any, out: Any, biases: Any, k: Any, start: Any,
                   row_of: Callable) -> None:  # fmt: skip
    """A tile of a product: `left(i, p)` is where a weight lies, `row_of(p)` where the lanes do that it multiplies,
    `out(i)` where a row of the result lies."""
    builder = emit.builder
    step = emit.number(emit.width)
    totals = emit.variables(height, n_vectors)
    tiles = [(i, j) for i in range(height) for j in range(n_vectors)]
    places = {(i, j): emit.at(out(emit.number(i)), (emit.number(j), step)) for i, j in tiles}
    with builder.if_else(builder.icmp_signed("==", start, emit.number(FROM_RESULT))) as (add, other):
        with add:
            for i, j in tiles:
                builder.store(emit.load(places[i, j]), totals[i][j])
        with other, builder.if_else(builder.icmp_signed("==", start, emit.number(FROM_BIAS))) as (biased, zero):
            with biased:
                for i in range(height):
                    value = emit.splat(builder.load(emit.at(biases, (emit.number(i), emit.number(1)))))
                    for total in totals[i]:
                        builder.store(value, total)
            with zero:
                for i, j in tiles:
                    builder.store(emit.zeros(), totals[i][j])
    with cgutils.for_range(builder, k) as loop:
        row = row_of(loop.index)
        vectors = [emit.load(emit.at(row, (emit.number(j), step))) for j in range(n_vectors)]
        for i in range(height):
            weight = emit.splat(builder.load(left(emit.number(i), loop.index)))
            for j in range(n_vectors):
                emit.add_product(totals[i][j], weight, vectors[j])
    for i, j in tiles:
        emit.store(builder.load(totals[i][j]), places[i, j])


def write_outer(emit: Emit, down: list[Any], across: list[Any], out: list[Any], images: tuple[Any, ...]) -> None:
    """A tile of an outer product: sums over lanes of rows that begin at `down` times rows that begin at `across`.

    `images` are how many stretches of lanes there are, how far apart they begin and how long they are; `out` is where the
    rows of the result lie.
    """
    builder = emit.builder
    totals = emit.variables(len(down), len(across))
    for total in (t for row in totals for t in row):
        builder.store(emit.zeros(), total)
    step, (count, apart, n) = emit.number(emit.width), images
    with cgutils.for_range(builder, count) as outer, cgutils.for_range(builder, builder.sdiv(n, step)) as loop:
        lanes = ((outer.index, apart), (loop.index, step))
        right = [emit.load(emit.at(place, *lanes)) for place in across]
        for place, row in zip(down, totals):
            left = emit.load(emit.at(place, *lanes))
            for total, value in zip(row, right):
                emit.add_product(total, left, value)
    for place, row in zip(out, totals):
        for value in emit.sums([builder.load(total) for total in row]):
            emit.store(builder.fadd(emit.load(place, value.type), value), place)
            place = emit.at(place, (emit.number(value.type.count), emit.number(1)))


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


def _outer_tile(height: int, width: int) -> Callable:
    """c (height, width) += a (height, n) @ b (width, n).T."""

    @intrinsic
    def tile(typingctx, a, a_at, lda, b, b_at, ldb, c, c_at, ldc, n):
        i8 = types.int64
        signature = types.void(a, i8, i8, b, i8, i8, c, i8, i8, i8)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emit(context, builder, signature, args)
            lda, ldb, ldc, n = (args[i] for i in (2, 5, 8, 9))
            left, right, out = emit.pointer(0), emit.pointer(3), emit.pointer(6)
            down = [emit.at(left, (emit.number(i), lda)) for i in range(height)]
            across = [emit.at(right, (emit.number(j), ldb)) for j in range(width)]
            places = [emit.at(out, (emit.number(i), ldc)) for i in range(height)]
            write_outer(emit, down, across, places, (emit.number(1), emit.number(0), n))
            return context.get_dummy_value()

        return signature, codegen

    return tile


if DISABLED:

    def product(a, a_row, a_column, b, c, m, k, start, bias):
        left = np.lib.stride_tricks.as_strided(a, (m, k), (a_row * a.itemsize, a_column * a.itemsize))
        c[:m] = left @ b[:k] + (c[:m] if start == FROM_RESULT else bias[:m, None] if start == FROM_BIAS else 0)

    def outer(a, b, c, ldc, m, k):
        out = np.lib.stride_tricks.as_strided(c, (m, k), (ldc * c.itemsize, c.itemsize))
        out += a[:m] @ b[:k].T

else:
    _wide = _product_tile(HEIGHT, TILE_BYTES)
    _wide_2, _wide_1 = _product_tile(2, TILE_BYTES), _product_tile(1, TILE_BYTES)
    _narrow = _product_tile(HEIGHT, NARROW_BYTES)
    _narrow_2, _narrow_1 = _product_tile(2, NARROW_BYTES), _product_tile(1, NARROW_BYTES)
    _vector_16, _vector_4, _vector_1 = _vector_tile(16), _vector_tile(4), _vector_tile(1)
    _outer_44, _outer_41 = _outer_tile(4, 4), _outer_tile(4, 1)
    _outer_14, _outer_11 = _outer_tile(1, 4), _outer_tile(1, 1)

    @inlined
    def product_of_one(a, a_row, b, c, m, k, start, bias):
        """The product for a block of one lane and rows of a that lie side by side."""
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

    @kernel
    def product(a, a_row, a_column, b, c, m, k, start, bias):
        """c[:m] = start + sum over p < k of a[i * a_row + p * a_column] * b[p], for blocks b and c of the same lanes.

        start: FROM_ZERO, FROM_RESULT (what c holds) or FROM_BIAS (one number for each row).  Of one lane a_column is 1.
        """
        n = b.shape[1]
        if n == 1:
            return product_of_one(a, a_row, b, c, m, k, start, bias)
        ldb, ldc = n, n
        wide, narrow = TILE_BYTES // c.itemsize, NARROW_BYTES // c.itemsize
        for p in range(0, max(k, 1), DEPTH):  # so that DEPTH rows of b stay in the nearest cache
            depth, begin = min(DEPTH, k - p), (start if p == 0 else FROM_RESULT)
            j = 0
            while j < n:
                i, r = 0, p * ldb + j
                if j + wide <= n:
                    while i + HEIGHT <= m:
                        q, o = i * a_row + p * a_column, i * ldc + j
                        _wide(a, q, a_row, a_column, b, r, ldb, c, o, ldc, bias, i, depth, begin)
                        i += HEIGHT
                    while i + 2 <= m:
                        q, o = i * a_row + p * a_column, i * ldc + j
                        _wide_2(a, q, a_row, a_column, b, r, ldb, c, o, ldc, bias, i, depth, begin)
                        i += 2
                    if i < m:
                        q, o = i * a_row + p * a_column, i * ldc + j
                        _wide_1(a, q, a_row, a_column, b, r, ldb, c, o, ldc, bias, i, depth, begin)
                    j += wide
                else:
                    while i + HEIGHT <= m:
                        q, o = i * a_row + p * a_column, i * ldc + j
                        _narrow(a, q, a_row, a_column, b, r, ldb, c, o, ldc, bias, i, depth, begin)
                        i += HEIGHT
                    while i + 2 <= m:
                        q, o = i * a_row + p * a_column, i * ldc + j
                        _narrow_2(a, q, a_row, a_column, b, r, ldb, c, o, ldc, bias, i, depth, begin)
                        i += 2
                    if i < m:
                        q, o = i * a_row + p * a_column, i * ldc + j
                        _narrow_1(a, q, a_row, a_column, b, r, ldb, c, o, ldc, bias, i, depth, begin)
                    j += narrow

    @kernel
    def outer(a, b, c, ldc, m, k):
        """c (m, k) += a[:m] @ b[:k].T, for blocks a and b of the same lanes, sixteen or a multiple."""
        n = a.shape[1]
        lda, ldb, i = n, n, 0
        while i < m:
            j = 0
            if i + 4 <= m:
                while j + 4 <= k:
                    _outer_44(a, i * lda, lda, b, j * ldb, ldb, c, i * ldc + j, ldc, n)
                    j += 4
                while j < k:
                    _outer_41(a, i * lda, lda, b, j * ldb, ldb, c, i * ldc + j, ldc, n)
                    j += 1
                i += 4
            else:
                while j + 4 <= k:
                    _outer_14(a, i * lda, lda, b, j * ldb, ldb, c, i * ldc + j, ldc, n)
                    j += 4
                while j < k:
                    _outer_11(a, i * lda, lda, b, j * ldb, ldb, c, i * ldc + j, ldc, n)
                    j += 1
                i += 1


PRODUCT, OUTER = (product, "product"), (outer, "outer")
"""What the networks link to."""


@inlined
def matmul(address, a, lda, b, c, m, k, start, bias):
    """c (m, lanes) = start + a (m, k) @ b (k, lanes), for blocks b and c."""
    call(address, (a, np.int64(lda), np.int64(1), b, c, np.int64(m), np.int64(k), np.int64(start), bias))


@inlined
def matmul_transposed(address, a, lda, b, c, m, k, start):
    """c (m, lanes) = start + a (k, m).T @ b (k, lanes), for blocks b and c of sixteen lanes or a multiple."""
    call(address, (a, np.int64(1), np.int64(lda), b, c, np.int64(m), np.int64(k), np.int64(start), a[:0]))


@inlined
def add_outer(address, a, b, c, ldc, m, k):
    """c (m, k) += a (m, lanes) @ b (k, lanes).T, for blocks a and b."""
    call(address, (a, b, c, np.int64(ldc), np.int64(m), np.int64(k)))
