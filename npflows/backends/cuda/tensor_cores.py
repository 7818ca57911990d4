"""Products of whole matrices in float32 on tensor cores.

Tensor cores multiply numbers of TF32, which have 10 bits of float32's 23.  Each operand is split in two such numbers, a
big and a small one, and a product takes three of theirs: small * big, big * small, big * big.  Tensor cores cut off what
does not fit, so that long sums on them would lose more and more; here they add up eight products at a time, and these sums
are added in float32, rounded to nearest, in order (Ootomo and Yokota 2022, arXiv:2203.03341).

A warp multiplies together, by ``mma.sync.aligned.m16n8k8`` (PTX ISA; from compute capability 8.0 on).  Which rows of a tile
stand for which rows of the instruction is chosen such that a thread's numbers lie side by side in shared memory.

Where an operand is not finite, or so large that its big part overflows, the parts make NaN of what is an infinity or a
number: every result that is not finite is added up again, in float32, until it is NaN.
"""

from __future__ import annotations

import functools
import threading

import numpy as np

from npflows.backends.cpu.kernels.tiles import FROM_BIAS, FROM_RESULT
from npflows.backends.cuda.device import NUMPY, SIMULATED, cuda, device_function, inline_ptx, kernel, running
from npflows.backends.cuda.products import UNSIGNED
from npflows.backends.cuda.tf32 import STEP, cut, multiply_add, rounded_number

CAPABILITY = (8, 0)
"""The least compute capability of GPUs whose tensor cores multiply numbers of TF32."""
WARP = 32
HIGH, WIDE, ACROSS, DEPTH = (1, 2, 4, 16) if SIMULATED else (2, 2, 8, 16)
"""Warps of a block above each other and side by side; instructions side by side in a warp's tile; the depth of a slice."""
DOWN = 2
"""Instructions above each other in a warp's tile, of 16 rows each: four numbers of a column for each thread."""
THREADS, ROWS, LANES = HIGH * WIDE * WARP, HIGH * DOWN * 16, WIDE * ACROSS * 8
"""Threads of a block, and rows and lanes of its tile; there is a thread for each lane."""
ROW_STRIDE, LANE_STRIDE, RESULT_STRIDE = ROWS + 8, LANES + 8, LANES + 4
"""Between columns of weights, rows of values and rows of results in shared memory, such that the numbers that a warp reads
at a time are in different banks."""
VALUES = DEPTH * ROW_STRIDE
"""Where in shared memory the values begin, after the weights."""
EXCHANGED = 10 if SIMULATED else 0
"""Numbers that a thread exchanges with its warp in an instruction, by shared memory in the simulator."""
SHARED = max(VALUES + DEPTH * LANE_STRIDE, ROWS * RESULT_STRIDE) + EXCHANGED * THREADS
"""Numbers in shared memory."""
SUMS, OF_WEIGHTS = ACROSS * DOWN * 4, ROWS * DEPTH // THREADS
"""Results of a thread, and weights of a slice that it brings."""

INDEX, SIGNED = np.uint32, np.int32
"""Numbers of 32 bits, with which the GPU computes addresses in fewer instructions."""
REAL, isfinite = cuda.types.float32, NUMPY.get("isfinite", np.isfinite)


def exchanged(a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
    """The instruction in the simulator: threads of a warp bring their numbers of a (16, 8), b (8, 8) and c (16, 8)
    together, which PTX ISA gives to each, the first one multiplies, and each takes four numbers of a @ b + c."""
    shared, thread = running.shared.array(0, REAL), running.threadIdx.x
    warp = thread // WARP * WARP
    numbers = shared[len(shared) - running.blockDim.x * EXCHANGED :].reshape(-1, WARP, EXCHANGED)[warp // WARP]
    numbers[thread - warp] = a0, a1, a2, a3, b0, b1, c0, c1, c2, c3
    threading.current_thread().syncwarp(WARP)
    if thread == warp:
        row, k, column = np.arange(16)[:, None], np.arange(STEP), np.arange(8)
        a = numbers[row % 8 * 4 + k % 4, row // 8 + k // 4 * 2]
        b = numbers[column * 4 + k[:, None] % 4, 4 + k[:, None] // 4]
        place = row % 8 * 4 + column // 2, 6 + row // 8 * 2 + column % 2
        numbers[place] = multiply_add(cut(a), cut(b), numbers[place])
    threading.current_thread().syncwarp(WARP)
    return tuple(numbers[thread - warp, 6:].copy())


to_tf32 = inline_ptx(
    "{ .reg .b32 bits; add.u32 bits, $1, 0x1000; and.b32 $0, bits, 0xffffe000; }", "=r,r", rounded_number
)  # for numbers the same as cvt.rna.tf32, which takes more instructions; of NaN the small part knows
mma = inline_ptx(
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
    "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};",
    "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f",
    exchanged,
    whole_warp=True,
)


def make_add_step(across: int, row_stride: int, lane_stride: int):
    """The step of a product of warps' tiles (32, across * 8)."""
    row_half, lane_half = UNSIGNED(row_stride * 4), UNSIGNED(lane_stride * 4)

    def add_step(shared, i, j, sums):
        """sums += 8 columns of weights, of which this thread's begin at i, times 8 rows of values, which begin at j."""
        a, small = running.local.array(8, REAL), running.local.array(8, REAL)
        zero = np.float32(0)
        for r in range(4):
            for half in range(2):
                place = r // 2 * 4 + r % 2 + half * 2
                x = shared[i + UNSIGNED(r) + UNSIGNED(half) * row_half]
                a[place] = to_tf32(x)
                small[place] = x - a[place]  # whose last bits tensor cores ignore
        for n in range(across):
            at = j + UNSIGNED(n // 4 * 32 + n % 4)
            x0, x1 = shared[at], shared[at + lane_half]
            b0, b1 = to_tf32(x0), to_tf32(x1)
            small0, small1 = x0 - b0, x1 - b1
            for t in range(DOWN):
                q = t * 4
                d = mma(small[q], small[q + 1], small[q + 2], small[q + 3], b0, b1, zero, zero, zero, zero)
                d = mma(a[q], a[q + 1], a[q + 2], a[q + 3], small0, small1, d[0], d[1], d[2], d[3])
                d = mma(a[q], a[q + 1], a[q + 2], a[q + 3], b0, b1, d[0], d[1], d[2], d[3])
                for part in range(4):
                    sums[(n * DOWN + t) * 4 + part] += d[part]

    return add_step


add_step = device_function(make_add_step(ACROSS, ROW_STRIDE, LANE_STRIDE))


@device_function
def added_again(a, q, column, b, p, lanes, k, begun):
    """begun + the sum over i < k of a[q + i * column] * b[p + i * lanes], in order, until it is NaN."""
    total = begun
    for _ in range(k):
        if total != total:
            break
        total += a[q] * b[p]
        q, p = INDEX(q + column), INDEX(p + lanes)
    return total


@functools.partial(kernel, capability=CAPABILITY)
def multiply(table, theta, offset, b, c, lanes):
    """Products of weights from theta[offset] on with rows of a block b, to rows of a block c, both of so many lanes.

    Each block of threads has a row of the table, a product c = start + a @ b and the first of `ROWS` of its rows, and
    `LANES` lanes.  To what c holds sums are added last.  No array has more than 2^32 numbers.
    """
    shared = running.shared.array(0, REAL)
    sums, zero = running.local.array(SUMS, REAL), np.float32(0)
    values, weights = running.local.array(DEPTH, REAL), running.local.array(OF_WEIGHTS, REAL)
    line, thread, width = table[running.blockIdx.y], running.threadIdx.x, INDEX(lanes)
    first_weight, a_row, a_column, first_bias = offset + line[0], line[1], line[2], offset + line[3]
    b_row, c_row, m, k, start, first = line[4], line[5], line[6], line[7], line[8], line[9]
    lane = running.blockIdx.x * LANES + thread
    if a_column == 1:  # neighbors bring weights that lie side by side
        row, column, row_step, column_step = thread // DEPTH, thread % DEPTH, THREADS // DEPTH, 0
    else:
        row, column, row_step, column_step = thread % ROWS, thread // ROWS, 0, THREADS // ROWS
    to, to_step = UNSIGNED(column * ROW_STRIDE + row), UNSIGNED(column_step * ROW_STRIDE + row_step)
    at, a_step = first_weight + (first + row) * a_row + column * a_column, INDEX(row_step * a_row + column_step * a_column)
    at, value = INDEX(at), INDEX(b_row * lanes + lane)
    rows, depth = SIGNED(m - first - row), SIGNED(k if lane < lanes else 0)  # what is left of them
    group, member, warp = thread % WARP // 4, thread % 4, thread // WARP
    mine, side = warp // WIDE * DOWN * 16 + group * 4, warp % WIDE * ACROSS * 8
    for n in range(ACROSS):
        for t in range(DOWN):
            for half in range(2):
                i = first + mine + t * 2 + half
                begun = theta[UNSIGNED(first_bias + i)] if start == FROM_BIAS and i < m else zero
                sums[(n * DOWN + t) * 4 + half * 2] = begun
                sums[(n * DOWN + t) * 4 + half * 2 + 1] = begun
    for p0 in range(-DEPTH, k, DEPTH):
        if p0 >= 0:
            running.syncthreads()
            for p in range(DEPTH):
                shared[UNSIGNED(VALUES + p * LANE_STRIDE + thread)] = values[p]
            for r in range(OF_WEIGHTS):
                shared[to + UNSIGNED(r) * to_step] = weights[r]
            running.syncthreads()
        q, columns = at, SIGNED(k - p0 - DEPTH - column)  # the next slice comes while this one is multiplied
        for p in range(DEPTH):
            values[p] = b[value] if p < depth else zero
            value = INDEX(value + width)
        for r in range(OF_WEIGHTS):
            weights[r] = theta[q] if r * row_step < rows and r * column_step < columns else zero
            q = INDEX(q + a_step)
        at, depth = INDEX(at + DEPTH * a_column), SIGNED(depth - DEPTH)
        if p0 >= 0:
            i, j = UNSIGNED(member * ROW_STRIDE + mine), UNSIGNED(VALUES + member * LANE_STRIDE + side + group * 4)
            for _ in range(0, DEPTH, STEP):
                add_step(shared, i, j, sums)
                i, j = i + UNSIGNED(STEP * ROW_STRIDE), j + UNSIGNED(STEP * LANE_STRIDE)
    running.syncthreads()
    for n in range(ACROSS):
        for t in range(DOWN):
            for half in range(2):
                place = (mine + t * 2 + half) * RESULT_STRIDE + side + n // 4 * 32 + member * 8 + n % 4
                shared[UNSIGNED(place)] = sums[(n * DOWN + t) * 4 + half * 2]
                shared[UNSIGNED(place + 4)] = sums[(n * DOWN + t) * 4 + half * 2 + 1]
    running.syncthreads()
    if lane < lanes:
        for i in range(min(ROWS, m - first)):
            total, row = shared[UNSIGNED(i * RESULT_STRIDE + thread)], first + i
            result = INDEX((c_row + row) * lanes + lane)
            if not isfinite(total):
                begun, at = theta[UNSIGNED(first_bias + row)] if start == FROM_BIAS else zero, first_weight + row * a_row
                total = added_again(theta, INDEX(at), INDEX(a_column), b, INDEX(b_row * lanes + lane), width, k, begun)
            c[result] = c[result] + total if start == FROM_RESULT else total
