"""Tiles of matrix products, as LLVM instructions on vectors as wide as those of the CPU that Numba compiles for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from npflows.backends.cpu.compiler.target import vector_bytes

FROM_ZERO, FROM_RESULT, FROM_BIAS = range(3)
"""Where a product starts from: zero, the numbers that the result holds, or a number for each row."""


VECTOR_BYTES = vector_bytes()
TILE_BYTES, HEIGHT = (128, 8) if VECTOR_BYTES == 64 else (64, 6)
"""Bytes of a tile's row and height of a tile, such that tiles fill the registers of the CPU that Numba compiles for."""
UNEVEN = 8 if HEIGHT == 6 else 0
"""So many rows are left to two tiles of 4, which are faster than one of 6 and one of 2."""
ACROSS = 4 if VECTOR_BYTES == 64 else 2
"""Width of a tile of four rows whose sums go over lanes, such that it fits as well."""
NARROW_BYTES = 64
"""A row of a tile for what is left over: sixteen lanes of float32."""


class Emit:
    """Writes vector instructions for arrays of one dtype, that of argument number `of`; vectors are as wide as the CPU's,
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
        """An int64 constant."""
        return ir.Constant(ir.IntType(64), i)

    def pointer(self, i: int) -> Any:
        """Entry args[i + 1] of the array that is argument i."""
        array = self.context.make_array(self.signature.args[i])(self.context, self.builder, self.args[i])
        return self.builder.gep(array.data, [self.args[i + 1]])

    def first(self, i: int) -> Any:
        """The first entry of the array that is argument i."""
        return self.context.make_array(self.signature.args[i])(self.context, self.builder, self.args[i]).data

    def at(self, pointer: Any, *steps: tuple[Any, Any]) -> Any:
        """pointer + the sum of count * stride over `steps`."""
        for count, stride in steps:
            pointer = self.builder.gep(pointer, [self.builder.mul(count, stride)])
        return pointer

    def load(self, pointer: Any, vector: Any = None) -> Any:
        """The vector at a place, as if aligned to one entry."""
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

    def store_masked(self, value: Any, pointer: Any, mask: Any) -> None:
        """Store the lanes of the mask; the memory of the others is not touched."""
        place = self.builder.bitcast(pointer, self.vector.as_pointer())
        name = f"llvm.masked.store.v{self.width}f{8 * self.itemsize}.p0"
        kinds = [self.vector, place.type, ir.IntType(32), mask.type]
        function = cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(ir.VoidType(), kinds), name)
        self.builder.call(function, [value, place, ir.Constant(ir.IntType(32), self.itemsize), mask])

    def store(self, value: Any, pointer: Any) -> None:
        """Store a vector at a place, as if aligned to one entry."""
        self.builder.store(value, self.builder.bitcast(pointer, value.type.as_pointer()), align=self.itemsize)

    def zeros(self) -> Any:
        """The vector of zeros."""
        return ir.Constant(self.vector, [0.0] * self.width)

    def variables(self, rows: int, columns: int) -> list[list[Any]]:
        """Vectors on the stack, for (rows, columns) of a tile."""
        return [[cgutils.alloca_once(self.builder, self.vector) for _ in range(columns)] for _ in range(rows)]

    def shuffle(self, a: Any, b: Any, lanes: list[int]) -> Any:
        """The chosen lanes of two vectors, counted through both."""
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
        return self.builder.shuffle_vector(a, b, mask)

    def splat(self, value: Any) -> Any:
        """The vector that has a number in each lane."""
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
        """The columns of a square, or of squares side by side in vectors that are longer: in each stage, pairs of rows swap
        their blocks off the diagonal."""
        n, block, rows = rows[0].type.count, 1, list(rows)
        while block < len(rows):
            for i in (i for i in range(len(rows)) if not i & block):
                a, b = rows[i], rows[i + block]
                rows[i] = self.shuffle(a, b, [n + j - block if j & block else j for j in range(n)])
                rows[i + block] = self.shuffle(a, b, [n + j if j & block else j + block for j in range(n)])
            block *= 2
        return rows

    def columns_of(self, places: list[Any]) -> list[Any]:
        """The columns of a square whose rows are at these places.

        Pieces of 16 bytes go where they belong as they are loaded, so that only squares of that size have to be transposed
        in registers.
        """
        size, columns = 16 // self.itemsize, []
        piece = ir.VectorType(self.real, size)
        for first in range(0, self.width, size):
            at = [self.load(self.at(place, (self.number(first), self.number(1))), piece) for place in places]
            columns += self.transposed([self.joined(at[i::size]) for i in range(size)])
        return columns

    def joined(self, parts: list[Any]) -> Any:
        """Vectors one after the other."""
        while len(parts) > 1:
            parts = [self.shuffle(a, b, list(range(2 * a.type.count))) for a, b in zip(parts[::2], parts[1::2])]
        return parts[0]

    def fold(self, a: Any, b: Any, group: int) -> Any:
        """Halve every group of neighboring lanes of a and of b by adding its halves; the result has all groups."""
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
