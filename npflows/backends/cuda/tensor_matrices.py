"""Products of wide networks in float32 on tensor cores, where these are as exact; others multiply the rest."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npflows.backends.cuda import device, tensor_core_sums, tensor_cores
from npflows.backends.cuda.device import launch_blocks, to_device
from npflows.backends.cuda.matrices import Matrices, Product, tiles_of_rows
from npflows.backends.cuda.sums import OuterProduct, tiles
from npflows.backends.cuda.tf32 import LEAST_ROWS, worth_it


def are_used(dtype: np.dtype) -> bool:
    """Whether wide networks use tensor cores: in float32 on GPUs that have them, unless ``NPFLOWS_TENSOR_CORES=0`` is in
    the environment."""
    wanted = os.environ.get("NPFLOWS_TENSOR_CORES") != "0"
    return wanted and dtype == np.float32 and device.capability() >= tensor_cores.CAPABILITY


class TensorCores:
    """Products by tensor_cores.py; see `npflows.backends.cuda.matrices.Matrices`.

    Parameters
    ----------
    others : Matrices
        What multiplies where tensor cores are not worth it.
    """

    def __init__(self, others: Matrices) -> None:
        self._others, self.name = others, f"tensor cores as 3 x TF32, and {others.name}"
        self._tables: dict[tuple[OuterProduct, ...], Any] = {}

    def prepare(self, products: Sequence[Product]) -> tuple[Any, Any]:
        """See `Matrices`: the table of tiles on the GPU, and what the others want."""
        own = [one for one in products if worth_it(one.m, one.k)]
        rest = [one for one in products if not worth_it(one.m, one.k)]
        table = to_device(tiles_of_rows(own, tensor_cores.ROWS)) if own else None
        return table, self._others.prepare(rest) if rest else None

    def multiply(self, prepared: tuple[Any, Any], theta: Any, offset: int, b: Any, c: Any) -> None:
        """See `Matrices`."""
        table, rest = prepared
        if table is not None:
            lanes = c.shape[1]
            flat = (block.reshape(block.shape[0] * lanes) for block in (b, c))
            grid = -(-lanes // tensor_cores.LANES), table.shape[0]
            launch_blocks(tensor_cores.multiply, grid, tensor_cores.THREADS, table, theta, offset, *flat, lanes,
                          shared_bytes=4 * tensor_cores.SHARED)  # fmt: skip
        if rest is not None:
            self._others.multiply(rest, theta, offset, b, c)

    def leave(self, products: Sequence[OuterProduct]) -> tuple[list[OuterProduct], list[OuterProduct]]:
        """See `Matrices`."""
        own = [one for one in products if _is_own(one)]
        left, taken = self._others.leave([one for one in products if not _is_own(one)])
        if own:
            self._tables[tuple(own)] = to_device(tiles(own, tensor_core_sums.TILE))
        return left, own + taken

    def add(
        self, products: Sequence[OuterProduct], blocks: Mapping[str, Any], gradients: Any, offset: int, n: int
    ) -> None:  # fmt: skip
        """See `Matrices`."""
        own, rest = tuple(filter(_is_own, products)), [one for one in products if not _is_own(one)]
        if own:
            table, work = self._tables[own], blocks["work"]
            seen, last = blocks.get("context", blocks.get("x")), blocks.get("dout", work)
            launch_blocks(tensor_core_sums.add_products, (table.shape[0], gradients.shape[0]), tensor_core_sums.THREADS,
                          table, work, blocks["temp"], seen, last, gradients, offset, n,
                          shared_bytes=4 * tensor_core_sums.SHARED)  # fmt: skip
        if rest:
            self._others.add(rest, blocks, gradients, offset, n)


def _is_own(one: OuterProduct) -> bool:
    """Whether a sum over samples, which are many, is a product that fills tensor cores."""
    return one.b is not None and min(one.m, one.k) >= LEAST_ROWS
