"""Products of whole matrices: a matrix of weights times a block (rows, lanes), the work of the whole GPU.

Each block of threads has a tile of the result, some rows and some lanes.  Sums go in the order of `products.py`, so that
the size of a tile, which is chosen by how many there are, changes no bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cpu.kernels.tiles import FROM_BIAS, FROM_RESULT
from npflows.backends.cuda.device import SIMULATED, cuda, device_function, kernel, launch_blocks, to_device
from npflows.backends.cuda.products import DEPTH, HIGH, UNSIGNED, stride_of
from npflows.backends.cuda.sums import OuterProduct

THREADS, ACROSS = (4, 2) if SIMULATED else (128, 16)
"""Threads of a block, and how many of them are side by side along the lanes."""
TURN = 4 if SIMULATED else 8
"""Columns of weights that are multiplied in a turn of the innermost loop."""
ENOUGH = 128
"""Tiles that are work for a GPU: where there are fewer large ones, small ones are taken."""


class Product(NamedTuple):
    """c[c_row + i] = start + the sum over p < k of theta[a + i * a_row + p * a_column] * b[b_row + p], for i < m, in all
    lanes of two blocks b and c; the bias begins at theta[bias]."""

    a: int
    a_row: int
    a_column: int
    bias: int
    b_row: int
    c_row: int
    m: int
    k: int
    start: int


class Shape(NamedTuple):
    """A tile of the result, of as many rows and lanes as all threads have.

    Attributes
    ----------
    high : int
        Rows of a thread's part.
    halves, wide : int
        It has so many times so many lanes side by side; the former lie apart, so that neighboring threads read from
        different banks.
    """

    high: int
    halves: int
    wide: int

    @property
    def rows(self) -> int:
        return THREADS // ACROSS * self.high

    @property
    def lanes(self) -> int:
        return ACROSS * self.halves * self.wide

    @property
    def shared(self) -> int:
        """Numbers in shared memory: a slice of the block, then one of the weights."""
        return DEPTH * (self.lanes + stride_of(self.rows))


def shapes_of(high: int) -> tuple[Shape, Shape]:
    """The large and the small tile, where a thread has so many rows of the large one."""
    if SIMULATED:
        return Shape(high, 2, 1), Shape(max(high // 2, 1), 1, 2)
    return Shape(high, 2, 4), Shape(2, 2, 4)


SHAPES = {np.dtype(np.float32): shapes_of(HIGH), np.dtype(np.float64): shapes_of(HIGH // 2)}
"""By dtype: of float32 tiles have 64 or 16 rows and 128 lanes."""


class Matrices(Protocol):
    """A way to multiply."""

    name: str

    def prepare(self, products: Sequence[Product]) -> Any:
        """What `multiply` wants of products that do not depend on each other."""

    def multiply(self, prepared: Any, theta: Any, offset: int, b: Any, c: Any) -> None:
        """Launch them, with the parameters from theta[offset] on."""

    def leave(self, products: Sequence[OuterProduct]) -> tuple[list[OuterProduct], list[OuterProduct]]:
        """Of the sums over samples those that are left to sums.py, and those that `add` takes."""

    def add(
        self, products: Sequence[OuterProduct], blocks: Mapping[str, Any], gradients: Any, offset: int, n: int
    ) -> None:  # fmt: skip
        """Add outer products of n samples to gradients (pieces, size), from number `offset` on."""


class Tiles:
    """Products by npflows' own kernels."""

    name = "npflows"

    def __init__(self, dtype: np.dtype) -> None:
        self._shapes = SHAPES[np.dtype(dtype)]
        self._kernels = [_made(np.dtype(dtype).type, shape) for shape in self._shapes]
        self._bytes = [shape.shared * np.dtype(dtype).itemsize for shape in self._shapes]

    def prepare(self, products: Sequence[Product]) -> list[Any]:
        """The tables of large and of small tiles, on the GPU."""
        return [to_device(tiles_of_rows(products, shape.rows)) for shape in self._shapes]

    def multiply(self, prepared: list[Any], theta: Any, offset: int, b: Any, c: Any) -> None:
        """See `Matrices`."""
        large = prepared[0].shape[0] * (c.shape[1] // self._shapes[0].lanes)
        size = 0 if large >= ENOUGH else 1
        table = prepared[size]
        grid = c.shape[1] // self._shapes[size].lanes, table.shape[0]
        launch_blocks(self._kernels[size], grid, THREADS, table, theta, offset, b, c, shared_bytes=self._bytes[size])

    def leave(self, products: Sequence[OuterProduct]) -> tuple[list[OuterProduct], list[OuterProduct]]:
        """See `Matrices`."""
        return list(products), []

    def add(
        self, products: Sequence[OuterProduct], blocks: Mapping[str, Any], gradients: Any, offset: int, n: int
    ) -> None:  # fmt: skip
        """See `Matrices`: none are."""


def tiles_of_rows(products: Sequence[Product], rows: int) -> NDArray[np.int64]:
    """The table of all tiles of so many rows: the product, and the tile's first row."""
    table = [(*product, first) for product in products for first in range(0, product.m, rows)]
    return np.array(table, np.int64).reshape(len(table), len(Product._fields) + 1)


def make_multiply(real: Any, shape: Shape) -> Any:
    """The kernel of tiles, for a compute dtype."""
    entry = cuda.types.float32 if real is np.float32 else cuda.types.float64
    high, halves, wide, square = *shape, shape.high * shape.halves * shape.wide
    rows, lanes, stride = shape.rows, shape.lanes, stride_of(shape.rows)
    weights, values = DEPTH * lanes, min(THREADS, lanes)
    values_step = THREADS // values
    n_values, n_weights = DEPTH // values_step, rows * DEPTH // THREADS
    n_brought = n_values + n_weights
    step_1, step_2, step_3, step_4 = (UNSIGNED(i * stride) for i in (1, 2, 3, 4))
    lanes_1, lanes_2, lanes_3, lanes_4 = (UNSIGNED(i * lanes) for i in (1, 2, 3, 4))
    turn, turn_lanes = UNSIGNED(TURN * stride), UNSIGNED(TURN * lanes)
    half, zero = UNSIGNED(lanes // halves), real(0)

    @device_function
    def add_column(shared, i, j, sums):
        """sums (high, halves, wide) += high weights, from number i on, times the values from j on."""
        for r in range(high):
            for h in range(halves):
                for t in range(wide):
                    x = shared[j + UNSIGNED(h) * half + UNSIGNED(t)]
                    sums[(r * halves + h) * wide + t] += shared[i + UNSIGNED(r)] * x

    @device_function
    def add_columns(shared, i, j, sums):
        """The same for four columns."""
        add_column(shared, i, j, sums)
        add_column(shared, i + step_1, j + lanes_1, sums)
        add_column(shared, i + step_2, j + lanes_2, sums)
        add_column(shared, i + step_3, j + lanes_3, sums)

    def multiply(table, theta, offset, b, c):
        """Each block of threads has a row of the table (`tiles_of_rows`) and some lanes."""
        shared = cuda.shared.array(0, entry)  # of the launch's size; values, then weights
        line, thread = table[cuda.blockIdx.y], cuda.threadIdx.x
        a, a_row, a_column, bias = offset + line[0], line[1], line[2], offset + line[3]
        b_row, c_row, m, k, start, i0 = line[4], line[5], line[6], line[7], line[8], line[9]
        sums = cuda.local.array(square, entry)
        mine, lane = thread // ACROSS * high, thread % ACROSS * wide
        begins = cuda.blockIdx.x * lanes
        for r in range(high):
            begun = theta[UNSIGNED(bias + i0 + mine + r)] if start == FROM_BIAS and i0 + mine + r < m else zero
            for j in range(halves * wide):
                sums[r * halves * wide + j] = begun
        # what each thread brings: values of one lane, and weights of one column or of one row
        value_row, column_of_b = thread // values, b[:, begins + thread % values]
        from_value = UNSIGNED(b_row + value_row)
        if a_column == 1:  # neighbors bring weights that lie side by side
            row, column, row_step, column_step = thread // DEPTH, thread % DEPTH, THREADS // DEPTH, 0
        else:
            row, column, row_step, column_step = thread % rows, thread // rows, 0, THREADS // rows
        to, to_step = UNSIGNED(weights + column * stride + row), UNSIGNED(column_step * stride + row_step)
        at, left = UNSIGNED(a + (i0 + row) * a_row + column * a_column), m - i0 - row
        whole_rows = i0 + rows <= m
        a_step, a_slice = UNSIGNED(row_step * a_row + column_step * a_column), UNSIGNED(DEPTH * a_column)
        to_value = UNSIGNED(value_row * lanes + thread % values)
        brought = cuda.local.array(n_brought, entry)  # the next slice, while this one is multiplied
        for p0 in range(-DEPTH, k, DEPTH):
            if p0 >= 0:
                cuda.syncthreads()
                for p in range(n_values):
                    shared[to_value + UNSIGNED(p * values_step * lanes)] = brought[p]
                for r in range(n_weights):
                    shared[to + UNSIGNED(r) * to_step] = brought[n_values + r]
                cuda.syncthreads()
            n = k - p0 - DEPTH
            if n >= DEPTH and whole_rows:
                for p in range(n_values):
                    brought[p] = column_of_b[from_value + UNSIGNED(p * values_step)]
                for r in range(n_weights):
                    brought[n_values + r] = theta[at + UNSIGNED(r) * a_step]
            else:
                for p in range(n_values):
                    there = value_row + p * values_step < n
                    brought[p] = column_of_b[from_value + UNSIGNED(p * values_step)] if there else zero
                for r in range(n_weights):
                    inside = r * row_step < left and column + r * column_step < n
                    brought[n_values + r] = theta[at + UNSIGNED(r) * a_step] if inside else zero
            from_value += UNSIGNED(DEPTH)
            at += a_slice
            n = min(DEPTH, n + DEPTH) if p0 >= 0 else 0
            i, j = UNSIGNED(weights + mine), UNSIGNED(lane)
            for _ in range(0, n, TURN):  # the compiler does not unroll it; what lies beyond n is 0
                add_columns(shared, i, j, sums)
                if TURN > 4:
                    add_columns(shared, i + step_4, j + lanes_4, sums)
                i, j = i + turn, j + turn_lanes
        for r in range(high):
            if i0 + mine + r < m:
                row_of_result = UNSIGNED(c_row + i0 + mine + r)
                for h in range(halves):
                    for t in range(wide):
                        here = UNSIGNED(begins + lane + t) + UNSIGNED(h) * half
                        total = sums[(r * halves + h) * wide + t]
                        c[row_of_result, here] = c[row_of_result, here] + total if start == FROM_RESULT else total

    return kernel(multiply, f"{real.__name__} {rows} {lanes}")


_made: Callable[[Any, Shape], Any] = functools.cache(make_multiply)
