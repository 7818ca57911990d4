"""Few samples: blocks of threads of which only the first ones have lanes, and the others help them.

A layer's kernel gives each sample a thread.  Where there are few samples a block has one warp of these threads and three
warps of helpers, so that 4,096 samples are on 128 multiprocessors and not on 32.  The threads with lanes run the text of
the layer.  Where it comes to a product, or to an activation function, the first of them writes into shared memory what is
to be done, each thread of the block does a part of it, and the helpers wait for what comes next.  Results are the same to
the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from npflows.backends.cuda.device import cuda, device_function, moved, pointer_of, running
from npflows.backends.cuda.products import FEW_LANES, HIGH, LANES, TILES, make_multiply, rows_of_product

GROUPS = LANES // FEW_LANES
"""Threads that share a lane, one of which has it."""
INTEGER = cuda.types.int64
KIND, M, K, A_ROW, A_COLUMN, START, A, BIAS, B, C = range(10)
"""Where an order's integers lie in shared memory; the last ones are places in memory."""
NUMBER, ROWS, H, BEFORE, DH = range(M, M + 5)
"""The same of an activation function."""
NONE, PRODUCT, ACTIVATION, ACTIVATION_VJP = range(4)
"""Kinds of orders."""


def make_product_with_helpers(multiply: Callable, least: int) -> Callable:
    """`products.product_together` where only some threads have lanes."""

    def product_with_helpers(a, a_row, a_column, b, c, m, k, start, bias):
        """`products.product`."""
        if m < least:
            rows_of_product(a, a_row, a_column, b, c, 0, m, k, start, bias)
        else:
            if running.threadIdx.x == 0:
                order = running.shared.array(0, INTEGER)
                order[KIND], order[M], order[K], order[A_ROW], order[A_COLUMN] = PRODUCT, m, k, a_row, a_column
                order[START], order[A], order[BIAS] = start, pointer_of(a), pointer_of(bias)
                order[B], order[C] = pointer_of(b), pointer_of(c)
            running.syncthreads()
            multiply(a, a_row, a_column, b, c, m, k, start, bias)
            running.syncthreads()

    product_with_helpers.__qualname__ = f"product_with_helpers_{least}"
    return product_with_helpers


MULTIPLY = make_multiply(HIGH // 2, FEW_LANES)
WITH_HELPERS = {dtype: make_product_with_helpers(MULTIPLY, high) for dtype, high in TILES.items()}
"""Products of dense and masked networks, by dtype."""
_PRODUCTS = set(WITH_HELPERS.values())


def helps(text: Any) -> bool:
    """Whether threads without a lane help with a function."""
    return text in _PRODUCTS


@device_function
def share_of(rows, group):
    """The first row of a group's share."""
    return rows * group // GROUPS


def shared_activation(number: int, kind: str, function: Any) -> Any:
    """A function that kernels call in place of an activation function, or of its gradient, that has a number."""

    def activation(h, before):
        if running.threadIdx.x == 0:
            order = running.shared.array(0, INTEGER)
            order[KIND], order[NUMBER], order[ROWS] = ACTIVATION, number, h.shape[0]
            order[H], order[BEFORE] = pointer_of(h), pointer_of(before)
        running.syncthreads()
        rows = share_of(h.shape[0], 1)
        function(h[:rows], before[:rows])
        running.syncthreads()

    def activation_vjp(h, before, dh):
        if running.threadIdx.x == 0:
            order = running.shared.array(0, INTEGER)
            order[KIND], order[NUMBER], order[ROWS] = ACTIVATION_VJP, number, h.shape[0]
            order[H], order[BEFORE], order[DH] = pointer_of(h), pointer_of(before), pointer_of(dh)
        running.syncthreads()
        rows = share_of(h.shape[0], 1)
        function(h[:rows], before[:rows], dh[:rows])
        running.syncthreads()

    return device_function(activation if kind == "activation" else activation_vjp)


SHARED_KINDS = ("activation", "activation_vjp")
"""The kinds of functions that are shared, by rows."""


def make_lane_or_help(multiply: Any, activate: Any) -> Any:
    """What gives a thread its lane; one without helps until there is nothing more to do, and has a number beyond all."""

    def lane_or_help(theta, blocks):
        thread = running.threadIdx.x
        if thread < FEW_LANES:
            return running.blockIdx.x * FEW_LANES + thread
        order, block = running.shared.array(0, INTEGER), blocks[:, 0:1]
        group, skipped = thread // FEW_LANES, thread % FEW_LANES * block.itemsize
        running.syncthreads()
        while order[KIND] != NONE:
            if order[KIND] == PRODUCT:
                a, bias = moved(theta, order[A]), moved(theta, order[BIAS])
                b, c = moved(block, order[B] + skipped), moved(block, order[C] + skipped)
                multiply(a, order[A_ROW], order[A_COLUMN], b, c, order[M], order[K], order[START], bias)
            else:
                first, last = share_of(order[ROWS], group), share_of(order[ROWS], group + 1)
                h, before = moved(block, order[H] + skipped), moved(block, order[BEFORE] + skipped)
                if order[KIND] == ACTIVATION:
                    activate(order[NUMBER], (h[first:last], before[first:last]))
                else:
                    dh = moved(block, order[DH] + skipped)
                    activate(order[NUMBER], (h[first:last], before[first:last], dh[first:last]))
            running.syncthreads()
            running.syncthreads()
        return blocks.shape[1]

    return device_function(lane_or_help)


@device_function
def dismiss():
    """Tell the threads without a lane that there is nothing more to do."""
    if running.threadIdx.x == 0:
        running.shared.array(0, INTEGER)[KIND] = NONE
    running.syncthreads()
