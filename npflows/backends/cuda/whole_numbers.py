"""Whole numbers on the GPU: their places in cells, the density as a mean of draws, and whole numbers of values again.

How images turn their places and how draws are added up are the texts of the CPU's embedded densities.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from npflows.backends.cpu.embedded import evaluation
from npflows.backends.cpu.kernels import pixel_supports
from npflows.backends.cuda.device import NUMPY, cuda, empty, kernel, launch, to_device
from npflows.backends.cuda.kernels import spread, texts_calling
from npflows.core.backend import Pullback
from npflows.core.operations import EDGE


class _Kernels:
    """The kernels, a thread for each row."""

    def __init__(self) -> None:
        texts = texts_calling(())
        hashed, add_draw = texts.again(evaluation.hashed), texts.again(evaluation.add_draw)
        mean_of_draws, level_of = texts.again(evaluation.mean_of_draws), texts.again(pixel_supports.level_of)
        floor = NUMPY.get("floor", np.floor)

        def place(x, columns, places, keys, placed):
            """`npflows.support.cells.CellBijection.cells`: places (1 or n, k), and a key of each column for images."""
            i = cuda.grid(1)
            if i < x.shape[0]:
                for d in range(x.shape[1]):
                    placed[i, d] = x[i, d]
                image = np.uint64(0)
                for j in range(keys.size):
                    value = x[i, columns[j]]
                    image += np.uint64(np.int64(value if math.isfinite(value) else 0.0)) * (keys[j] | np.uint64(1))
                row = i if places.shape[0] > 1 else 0
                for j in range(columns.size):
                    value, share = x[i, columns[j]], places[row, j]
                    if keys.size > 0:
                        share = (share + hashed(image + keys[j])) % 1.0
                        share = EDGE if share < EDGE else 1 - EDGE if share > 1 - EDGE else share
                    is_whole = not math.isfinite(value) or value == floor(value)
                    placed[i, columns[j]] = value + share if is_whole else math.inf

        def find_unfit(x, levels, found):
            """found[0] = 1 where an image has another value than whole numbers below `levels`; all write the same."""
            i = cuda.grid(1)
            if i < x.shape[0]:
                for d in range(x.shape[1]):
                    value = x[i, d]
                    if math.isfinite(value) and (value != floor(value) or value < 0 or value >= levels):
                        found[0] = 1

        def begin_draws(highest, total, dx, dcondition):
            """No draw yet."""
            i = cuda.grid(1)
            if i < total.size:
                highest[i], total[i] = -math.inf, 0.0
                for d in range(dx.shape[1]):
                    dx[i, d] = 0.0
                for d in range(dcondition.shape[1]):
                    dcondition[i, d] = 0.0

        def next_draw(log_prob, with_gradient, dx, dcondition, highest, total, sum_x, sum_condition):
            """One draw more."""
            i = cuda.grid(1)
            if i < total.size:
                j = i + 1
                add_draw(log_prob[i:j], with_gradient, dx[i:j], dcondition[i:j], highest[i:j], total[i:j], sum_x[i:j],
                         sum_condition[i:j])  # fmt: skip

        def end_draws(draws, highest, total, sum_x, sum_condition, log_prob):
            """The logarithm of the mean density and its gradients, in place of the sums."""
            i = cuda.grid(1)
            if i < total.size:
                j = i + 1
                mean_of_draws(draws, highest[i:j], total[i:j], sum_x[i:j], sum_condition[i:j], log_prob[i:j])

        def clear_columns(columns, dx):
            """0 in some columns."""
            i = cuda.grid(1)
            if i < dx.shape[0]:
                for j in range(columns.size):
                    dx[i, columns[j]] = 0.0

        def quantize(columns, levels, x):
            """The whole number of each cell, in place; of images the nearest level."""
            i = cuda.grid(1)
            if i < x.shape[0]:
                for j in range(columns.size):
                    value = x[i, columns[j]]
                    x[i, columns[j]] = level_of(value, levels) if levels > 0 else floor(value)

        self.place, self.find_unfit, self.quantize = kernel(place), kernel(find_unfit), kernel(quantize)
        self.begin_draws, self.next_draw, self.end_draws = kernel(begin_draws), kernel(next_draw), kernel(end_draws)
        self.clear_columns = kernel(clear_columns)


_kernels = functools.cache(_Kernels)


def place(x: Any, columns: Any, places: Any, keys: Any, placed: Any = None) -> Any:
    """Rows (n, d) with whole numbers placed in their cells, in an array that is given or a new one."""
    placed = empty(x.shape, np.float64) if placed is None else placed
    launch(_kernels().place, len(x), x, columns, places, keys, placed)
    return placed


def is_unfit(x: Any, levels: int) -> Any:
    """An array of one number, which is 1 where rows are no images of so many levels, else 0."""
    found = to_device(np.zeros(1, np.int64))
    launch(_kernels().find_unfit, len(x), x, levels, found)
    return found


def mean(draws: Iterable[Pullback]) -> Pullback:
    """The logarithm of the mean density of several draws, and the gradients of that."""
    count = 0
    for found in draws:
        n, with_gradient = found.log_prob.size, found.dx.size > 0
        dx, dcondition = (one if one.size else found.log_prob.reshape(n, 1) for one in (found.dx, found.dcondition))
        if not count:
            sums = empty(dx.shape, np.float64), empty(dcondition.shape, np.float64)
            highest, total, log_prob = (empty(n, np.float64) for _ in range(3))
            launch(_kernels().begin_draws, n, highest, total, *sums)
        launch(_kernels().next_draw, n, found.log_prob, with_gradient, dx, dcondition, highest, total, *sums)
        count += 1
    launch(_kernels().end_draws, n, count, highest, total, *sums, log_prob)
    dx, dcondition = (own if one.size else one for own, one in zip(sums, (found.dx, found.dcondition)))
    return Pullback(log_prob, dx, dcondition, found.gradient)


def clear(columns: Any, dx: Any) -> None:
    """Columns of whole numbers have no gradient."""
    launch(_kernels().clear_columns, len(dx), columns, dx)


def quantize(x: Any, columns: Any, levels: int, dtype: np.dtype | None) -> Any:
    """The whole numbers of values (n, d), in another dtype if one is given."""
    launch(_kernels().quantize, len(x), columns, levels, x)
    if dtype is None or dtype == np.float64:
        return x
    whole = empty(x.shape, dtype)
    launch(spread, len(x), x, whole)
    return whole
