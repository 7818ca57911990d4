"""Gradients of weights on tensor cores: products of two blocks, summed over samples, as those of sums.py."""

from __future__ import annotations

import functools

import numpy as np

from npflows.backends.cuda.device import SIMULATED, device_function, kernel, running
from npflows.backends.cuda.products import UNSIGNED
from npflows.backends.cuda.sums import block_of
from npflows.backends.cuda.tensor_cores import CAPABILITY, DOWN, EXCHANGED, REAL, WARP, isfinite, make_add_step
from npflows.backends.cuda.tf32 import STEP

SIDE, DEPTH, RUN = 2, 16 if SIMULATED else 32, 8
"""Warps of a block above each other, and as many side by side; samples that are in shared memory at a time, and of these
how many neighbors read side by side."""
ACROSS = 4
"""Instructions side by side in a warp's tile (32, 32)."""
TILE, THREADS = SIDE * DOWN * 16, SIDE * SIDE * WARP
"""Rows and columns of a tile, and threads of a block."""
STRIDE, RESULT_STRIDE, SUMS = TILE + 8, TILE + 4, ACROSS * DOWN * 4
"""Between samples and between rows of results in shared memory; results of a thread."""
RIGHT = DEPTH * STRIDE
"""Where in shared memory the second block's numbers begin."""
SHARED = max(2 * RIGHT, TILE * RESULT_STRIDE) + EXCHANGED * THREADS
"""Numbers in shared memory."""

add_step = device_function(make_add_step(ACROSS, STRIDE, STRIDE))


@device_function
def added_again(left, i, right, j, first, last):
    """The sum over samples first..last of left[i] * right[j], in order, until it is NaN."""
    total = np.float32(0)
    for p in range(first, last):
        if total != total:
            break
        total += left[i, UNSIGNED(p)] * right[j, UNSIGNED(p)]
    return total


@functools.partial(kernel, capability=CAPABILITY)
def add_products(table, work, temp, seen, own, gradients, offset, n):
    """Each block of threads has a row of the table (`sums.tiles`) and a piece g of the n samples: to gradients[g] it adds a
    tile of an outer product."""
    shared = running.shared.array(0, REAL)
    line, thread, g = table[running.blockIdx.x], running.threadIdx.x, running.blockIdx.y
    a_row, b_row, start, ldc, m, k, i0, j0 = line[1], line[3], line[4], line[5], line[6], line[7], line[8], line[9]
    left, right = block_of(line[0], work, temp, seen, own), block_of(line[2], work, temp, seen, own)
    rows, columns = min(TILE, m - i0), min(TILE, k - j0)
    mine, sample = thread // RUN, thread % RUN  # what it brings to shared memory, of rows and samples
    left_row, right_row = UNSIGNED(a_row + i0 + mine), UNSIGNED(b_row + j0 + mine)
    place = UNSIGNED(sample * STRIDE + mine)
    first, last = g * n // running.gridDim.y, (g + 1) * n // running.gridDim.y
    group, member, warp = thread % WARP // 4, thread % 4, thread // WARP
    row, column = warp // SIDE * DOWN * 16 + group * 4, warp % SIDE * ACROSS * 8
    sums, zero = running.local.array(SUMS, REAL), np.float32(0)
    for i in range(SUMS):
        sums[i] = zero
    for at in range(first, last, DEPTH):
        running.syncthreads()
        for t in range(0, DEPTH, RUN):
            present, p = at + sample + t < last, UNSIGNED(at + sample + t)
            for i in range(0, TILE, THREADS // RUN):
                x = left[left_row + UNSIGNED(i), p] if present and mine + i < rows else zero
                y = right[right_row + UNSIGNED(i), p] if present and mine + i < columns else zero
                shared[place + UNSIGNED(t * STRIDE + i)], shared[place + UNSIGNED(RIGHT + t * STRIDE + i)] = x, y
        running.syncthreads()
        i, j = UNSIGNED(member * STRIDE + row), UNSIGNED(RIGHT + member * STRIDE + column + group * 4)
        for _ in range(0, DEPTH, STEP):
            add_step(shared, i, j, sums)
            i, j = i + UNSIGNED(STEP * STRIDE), j + UNSIGNED(STEP * STRIDE)
    running.syncthreads()
    for part in range(ACROSS):
        for t in range(DOWN):
            for half in range(2):
                to = (row + t * 2 + half) * RESULT_STRIDE + column + member * 8 + part
                shared[UNSIGNED(to)] = sums[(part * DOWN + t) * 4 + half * 2]
                shared[UNSIGNED(to + 4)] = sums[(part * DOWN + t) * 4 + half * 2 + 1]
    running.syncthreads()
    gradient, j = gradients[g, offset:], thread % TILE
    if j < columns:
        for i in range(thread // TILE, rows, THREADS // TILE):
            total = shared[UNSIGNED(i * RESULT_STRIDE + j)]
            if not isfinite(total):
                total = added_again(left, UNSIGNED(a_row + i0 + i), right, UNSIGNED(b_row + j0 + j), first, last)
            gradient[UNSIGNED(start + (i0 + i) * ldc + j0 + j)] += total
