"""Sums over samples: the gradients of parameters.

The weights of a dense or masked network have for gradient the product of two blocks, a cotangent and what the weights were
multiplied with, summed over the samples.  Both still lie in scratch memory when a layer's vjp has run; which rows they are
is found by running the text of the vjp once, on one lane and without its arithmetic (`products_of`).  Other gradients each
thread adds up for its own sample, and the sum over samples is the product with a row of ones.

The same bits each time: samples are cut into pieces by their number and that of parameters alone, a number of a piece's
gradient has one thread that adds sample after sample, and pieces are added in their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cpu.kernels import mlp
from npflows.backends.cpu.kernels.outer import OUTER
from npflows.backends.cuda.device import SIMULATED, cuda, device_function, kernel
from npflows.backends.cuda.link import Called, number_of
from npflows.backends.cuda.products import HIGH, UNSIGNED, WIDE, make_add_column, stride_of
from npflows.backends.cuda.texts import Texts, text_of

TILE, DEPTH, RUN = (4, 4, 2) if SIMULATED else (64, 32, 8)
"""Rows and columns of a tile; samples that are in shared memory at a time, and of these how many neighbors read side by
side."""
SQUARE, ACROSS, THREADS = HIGH * WIDE, TILE // WIDE, TILE * TILE // (HIGH * WIDE)
"""Numbers of a thread's tile; threads side by side along columns, and all of a block."""
STRIDE, RIGHT = stride_of(TILE), DEPTH * stride_of(TILE)
"""Between samples in shared memory, and where the second block's numbers begin; see products.py."""
STRIDE_1, STRIDE_2, STRIDE_3, STRIDE_4 = (UNSIGNED(i * STRIDE) for i in (1, 2, 3, 4))
SHARED_SUMS = 2 * RIGHT
"""Numbers in shared memory."""
PIECES = ((1 << 18, 128, 32), (math.inf, 256, 16))
"""Up to how many parameters, samples of a piece at least, and pieces at most: each has a gradient of all of them."""


WORK, TEMP, SEEN, OWN, ONES = range(5)
BLOCKS = {"work": WORK, "temp": TEMP, "context": SEEN, "x": SEEN, "dtheta": OWN, "dout": OWN}
"""The arguments of vjp kernels whose rows outer products are of; a layer has a context where a network has x."""


class Place(NamedTuple):
    """Rows of a block, by the block's name and the first of them."""

    block: str
    row: int


class OuterProduct(NamedTuple):
    """gradient[start + i * ldc + j] += the sum over samples of a[i] * b[j], for i < m and j < k; without b, of a[i]."""

    a: Place
    b: Place | None
    start: int
    ldc: int
    m: int
    k: int


add_column = device_function(make_add_column(HIGH))


def pieces_of(n: int, size: int) -> int:
    """The number of pieces of n samples for so many parameters."""
    samples, most = next(rest for largest, *rest in PIECES if size <= largest)
    return min(most, max(1, -(-n // samples)))


def tiles(products: Sequence[OuterProduct], size: int = TILE) -> NDArray[np.int64]:
    """The table of all tiles of so many rows and columns of outer products, no two of which add to the same number: for
    each the two blocks (`BLOCKS`) and first rows in them, the product's place and shape, and the tile's first row and
    column."""
    table = []
    for a, b, start, ldc, m, k in products:
        right = (ONES, 0) if b is None else (BLOCKS[b.block], b.row)
        for i in range(0, m, size):
            table += [(BLOCKS[a.block], a.row, *right, start, ldc, m, k, i, j) for j in range(0, k, size)]
    return np.array(table, np.int64).reshape(len(table), 10)


def products_of(
    function: Callable, blocks: dict[str, Any], called: Sequence[Called], arguments: Sequence[str]
) -> list[OuterProduct]:  # fmt: skip
    """The products that the text of a vjp leaves for later.

    Parameters
    ----------
    function : callable
        The kernel.
    blocks : dict
        Its arguments by name, of one lane: blocks (rows, 1) and vectors.
    called : sequence of Called
        What it calls by their numbers.
    arguments : sequence of str
        Their names, in order.
    """
    found: list[OuterProduct] = []
    known = {number_of(one): one for one in called}

    def place(array: NDArray) -> Place:
        for name, block in blocks.items():
            if isinstance(block, np.ndarray) and np.shares_memory(array, block):
                return Place(name, (array.ctypes.data - block.ctypes.data) // block.itemsize)
        raise ValueError("an outer product of rows that are no argument of the kernel")

    def outer(first_rows: Any, a: Any, b: Any, panel: Any, c: Any, ldc: int, m: int, k: int) -> None:
        found.append(OuterProduct(place(a), place(b), place(c).row, int(ldc), int(m), int(k)))

    def sums(d: NDArray, out: NDArray) -> None:
        if out.size:
            found.append(OuterProduct(place(d), None, place(out).row, 1, len(d), 1))

    def call(number: int, given: tuple) -> None:
        one = known[int(number)]
        if one.kind.startswith("network"):
            texts.again(one.text)(*given)
        elif one.dense and one.kind == OUTER[1]:
            outer(*given)

    texts = Texts(lambda text: text, lambda single, double: double, {mlp.add_lane_sums: sums}, call, {})
    with np.errstate(all="ignore"):
        texts.again(text_of(function))(*(blocks[name] for name in arguments))
    return found


@device_function
def block_of(block, work, temp, seen, own):
    """The block that a table names (`BLOCKS`); for the row of ones any."""
    return work if block == WORK else temp if block == TEMP else seen if block == SEEN else own


def make_add_products(real: Any) -> Any:
    """The kernel that adds outer products to the gradients of pieces, for a compute dtype."""
    entry = cuda.types.float32 if real is np.float32 else cuda.types.float64

    def add_products(table, work, temp, seen, own, gradients, offset, n):
        """Each block of threads has a row of the table (`tiles`) and a piece g of the n samples: to gradients[g] it adds a
        tile of an outer product, or where the right block is of ones the sums of rows."""
        shared = cuda.shared.array(0, entry)  # of the launch's size; in the simulator threads may miss each other's else
        line, thread, g = table[cuda.blockIdx.x], cuda.threadIdx.x, cuda.blockIdx.y
        a, a_row, b, b_row, start, ldc, m, k = line[0], line[1], line[2], line[3], line[4], line[5], line[6], line[7]
        i0, j0 = line[8], line[9]
        left, right = block_of(a, work, temp, seen, own), block_of(b, work, temp, seen, own)
        rows, columns = min(TILE, m - i0), min(TILE, k - j0) if b != ONES else 0
        row, column = thread // ACROSS * HIGH, thread % ACROSS * WIDE
        mine, sample = thread // RUN, thread % RUN  # what it brings to shared memory, of rows and samples
        left_row, right_row = UNSIGNED(a_row + i0 + mine), UNSIGNED(b_row + j0 + mine)
        place = UNSIGNED(sample * STRIDE + mine)
        first, last = g * n // cuda.gridDim.y, (g + 1) * n // cuda.gridDim.y
        sums, zero = cuda.local.array(SQUARE, entry), real(0)
        total = zero
        for i in range(SQUARE):
            sums[i] = zero
        for at in range(first, last, DEPTH):
            cuda.syncthreads()
            for t in range(0, DEPTH, RUN):
                present, p = at + sample + t < last, UNSIGNED(at + sample + t)
                for i in range(0, TILE, THREADS // RUN):
                    x = left[left_row + UNSIGNED(i), p] if present and mine + i < rows else zero
                    y = right[right_row + UNSIGNED(i), p] if present and mine + i < columns else zero
                    shared[place + UNSIGNED(t * STRIDE + i)], shared[place + UNSIGNED(RIGHT + t * STRIDE + i)] = x, y
            cuda.syncthreads()
            if columns > 0:
                i, j = UNSIGNED(row), UNSIGNED(RIGHT + column)
                for _ in range(0, DEPTH, 4):  # the compiler does not unroll it
                    add_column(shared, i, j, sums)
                    add_column(shared, i + STRIDE_1, j + STRIDE_1, sums)
                    add_column(shared, i + STRIDE_2, j + STRIDE_2, sums)
                    add_column(shared, i + STRIDE_3, j + STRIDE_3, sums)
                    i, j = i + STRIDE_4, j + STRIDE_4
            elif thread < TILE:
                for t in range(DEPTH):
                    total += shared[UNSIGNED(t * STRIDE + thread)]
        gradient = gradients[g, offset:]
        for i in range(HIGH):
            for j in range(WIDE):
                if row + i < rows and column + j < columns:
                    gradient[UNSIGNED(start + (i0 + row + i) * ldc + j0 + column + j)] += sums[i * WIDE + j]
        if columns == 0 and thread < rows:
            gradient[UNSIGNED(start + (i0 + thread) * ldc)] += total

    return kernel(add_products, real.__name__)


@kernel
def fill(array, value):
    """Fill a vector."""
    i = cuda.grid(1)
    if i < array.size:
        array[i] = value


@kernel
def combine(gradients, gradient):
    """gradient (p,) = the sum of gradients (g, p), in their order."""
    i = cuda.grid(1)
    if i < gradient.size:
        total = gradients[0, i]
        for g in range(1, gradients.shape[0]):
            total += gradients[g, i]
        gradient[i] = total
