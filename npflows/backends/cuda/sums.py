"""Sums over samples: the gradients of parameters.

The weights of a dense or masked network have for gradient the product of two blocks, a cotangent and what the weights were
multiplied with, summed over the samples.  Both still lie in scratch memory when a layer's vjp has run; which rows they are
is found by running the text of the vjp once, on one lane and without its arithmetic (`products_of`).  Other gradients each
thread adds up for its own sample, and the sum over samples is the product with a row of ones.

The same bits each time: samples are cut into pieces by their number alone, a number of a piece's gradient has one thread
that adds sample after sample, and pieces are added in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cpu.kernels import mlp
from npflows.backends.cuda.device import SIMULATED, cuda, device_function, kernel
from npflows.backends.cuda.link import Called, number_of
from npflows.backends.cuda.products import UNSIGNED
from npflows.backends.cuda.texts import Texts, text_of

SIDE, DEPTH = (2, 4) if SIMULATED else (16, 16)
"""Threads of a block along rows, and along columns, of a tile; samples that are in shared memory at a time."""
TILE, STRIDE = 4 * SIDE, DEPTH + 1
"""Rows and columns of a tile, 4 x 4 for each thread; numbers between rows of shared memory, odd so that they lie in
different banks."""
NEXT, STEP, STEP_2, STEP_3 = (UNSIGNED(i) for i in (1, SIDE * STRIDE, 2 * SIDE * STRIDE, 3 * SIDE * STRIDE))
"""Steps in shared memory: to the next sample, and between the four rows of a thread; unsigned, see products.py."""
SHARED = 2 * TILE * STRIDE
"""Numbers in shared memory."""
PIECE, MOST_PIECES = 256, 16
"""Samples of a piece at least, and pieces at most."""


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


def pieces_of(n: int) -> int:
    """The number of pieces of n samples."""
    return min(MOST_PIECES, max(1, -(-n // PIECE)))


def tiles(products: Sequence[OuterProduct]) -> NDArray[np.int64]:
    """The table of all tiles of outer products, no two of which add to the same number: for each the two blocks (`BLOCKS`)
    and first rows in them, the product's place and shape, and the tile's first row and column."""
    table = []
    for a, b, start, ldc, m, k in products:
        right = (ONES, 0) if b is None else (BLOCKS[b.block], b.row)
        for i in range(0, m, TILE):
            table += [(BLOCKS[a.block], a.row, *right, start, ldc, m, k, i, j) for j in range(0, k, TILE)]
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
        elif one.defers:
            outer(*given)

    texts = Texts(lambda text: text, lambda single, double: double, {mlp.add_lane_sums: sums}, call, {})
    with np.errstate(all="ignore"):
        texts.again(text_of(function))(*(blocks[name] for name in arguments))
    return found


@device_function
def store(gradient, start, ldc, i, j, m, k, total):
    """Add a number to its place, if there is one."""
    if i < m and j < k:
        gradient[start + i * ldc + j] += total


@device_function
def entry_of(block, work, temp, seen, own, row, t):
    """A number of the block that a table names (`BLOCKS`); those of ones are 1."""
    if block == WORK:
        return work[row, t]
    if block == TEMP:
        return temp[row, t]
    if block == SEEN:
        return seen[row, t]
    return own[row, t]


def make_add_products(real: Any) -> Any:
    """The kernel that adds outer products to the gradients of pieces, for a compute dtype."""
    entry = cuda.types.float32 if real is np.float32 else cuda.types.float64

    def add_products(table, work, temp, seen, own, gradients, offset, n):
        """Each block of threads has a row of the table (`tiles`) and a piece g of the n samples: to gradients[g] it adds a
        tile of an outer product."""
        shared = cuda.shared.array(0, entry)  # of the launch's size; in the simulator threads may miss each other's else
        left, right = shared[: TILE * STRIDE], shared[TILE * STRIDE :]
        line, thread, g = table[cuda.blockIdx.x], cuda.threadIdx.x, cuda.blockIdx.y
        a, a_row, b, b_row, start, ldc, m, k = line[0], line[1], line[2], line[3], line[4], line[5], line[6], line[7]
        i0, j0 = line[8], line[9]
        row, column = thread // SIDE, thread % SIDE
        first, last = g * n // cuda.gridDim.y, (g + 1) * n // cuda.gridDim.y
        zero, one = real(0), real(1)
        s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = zero
        s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = zero
        for at in range(first, last, DEPTH):
            cuda.syncthreads()
            for e in range(thread, TILE * DEPTH, SIDE * SIDE):
                i, t = e // DEPTH, e % DEPTH
                inside = at + t < last
                x = y = zero
                if inside and i0 + i < m:
                    x = entry_of(a, work, temp, seen, own, a_row + i0 + i, at + t)
                if inside and j0 + i < k:
                    y = one if b == ONES else entry_of(b, work, temp, seen, own, b_row + j0 + i, at + t)
                left[i * STRIDE + t], right[i * STRIDE + t] = x, y
            cuda.syncthreads()
            p, q = UNSIGNED(row * STRIDE), UNSIGNED(column * STRIDE)
            for _ in range(DEPTH):
                x0, x1, x2, x3 = left[p], left[p + STEP], left[p + STEP_2], left[p + STEP_3]
                y0, y1, y2, y3 = right[q], right[q + STEP], right[q + STEP_2], right[q + STEP_3]
                p, q = p + NEXT, q + NEXT
                s00, s01, s02, s03 = s00 + x0 * y0, s01 + x0 * y1, s02 + x0 * y2, s03 + x0 * y3
                s10, s11, s12, s13 = s10 + x1 * y0, s11 + x1 * y1, s12 + x1 * y2, s13 + x1 * y3
                s20, s21, s22, s23 = s20 + x2 * y0, s21 + x2 * y1, s22 + x2 * y2, s23 + x2 * y3
                s30, s31, s32, s33 = s30 + x3 * y0, s31 + x3 * y1, s32 + x3 * y2, s33 + x3 * y3
        gradient, i, j = gradients[g, offset:], i0 + row, j0 + column
        store(gradient, start, ldc, i, j, m, k, s00)
        store(gradient, start, ldc, i, j + SIDE, m, k, s01)
        store(gradient, start, ldc, i, j + 2 * SIDE, m, k, s02)
        store(gradient, start, ldc, i, j + 3 * SIDE, m, k, s03)
        i += SIDE
        store(gradient, start, ldc, i, j, m, k, s10)
        store(gradient, start, ldc, i, j + SIDE, m, k, s11)
        store(gradient, start, ldc, i, j + 2 * SIDE, m, k, s12)
        store(gradient, start, ldc, i, j + 3 * SIDE, m, k, s13)
        i += SIDE
        store(gradient, start, ldc, i, j, m, k, s20)
        store(gradient, start, ldc, i, j + SIDE, m, k, s21)
        store(gradient, start, ldc, i, j + 2 * SIDE, m, k, s22)
        store(gradient, start, ldc, i, j + 3 * SIDE, m, k, s23)
        i += SIDE
        store(gradient, start, ldc, i, j, m, k, s30)
        store(gradient, start, ldc, i, j + SIDE, m, k, s31)
        store(gradient, start, ldc, i, j + 2 * SIDE, m, k, s32)
        store(gradient, start, ldc, i, j + 3 * SIDE, m, k, s33)

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
