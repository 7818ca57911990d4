"""Training rows that stay in the memory of the GPU, so that a batch is chosen there and never sent to it."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from npflows.core.gpu_arrays import TakesGpuArrays
from npflows.distribution.preprocessing import Preprocessing
from npflows.distribution.transformed import TransformedDistribution
from npflows.training.rows import Rows


class HeldRows:
    """Rows on the GPU; `of` makes them.

    Parameters
    ----------
    memory : TakesGpuArrays
    rows : Rows
    x, condition : array
        Tables from `TakesGpuArrays.hold`; no condition is None.
    preprocessing : Preprocessing
    """

    def __init__(
        self, memory: TakesGpuArrays, rows: Rows, x: Any, condition: Any, preprocessing: Preprocessing
    ) -> None:  # fmt: skip
        self._memory, self._rows, self._x, self._condition = memory, rows, x, condition
        self._whole = preprocessing.bijection if preprocessing.has_integers else None

    @classmethod
    def of(cls, flow: TransformedDistribution, rows: Rows) -> HeldRows | None:
        """The rows; None where batches are made on the host: without a GPU, where values are missing or have a support
        that only NumPy evaluates, and where there is not enough room."""
        memory, bijection = flow.executable(), flow.preprocessing.bijection
        tables = [rows.x] if rows.condition is None else [rows.x, rows.condition]
        plain = all(isinstance(table, np.ndarray) for table in tables) and rows.missing is None
        if not isinstance(memory, TakesGpuArrays) or not plain or not (bijection is None or memory.maps(bijection)):
            return None
        held = [memory.hold(cast(np.ndarray, table)) for table in tables]
        if any(table is None for table in held):
            return None
        return cls(memory, rows, held[0], held[1] if len(held) > 1 else None, flow.preprocessing)

    def take(self, which: np.ndarray, rng: np.random.Generator) -> tuple[Any, np.ndarray | None, Any]:
        """x, weight and condition of some of the rows, as `Rows.take` gives them, x and condition on the GPU; whole numbers
        are placed in their cells as `Preprocessing.scatter` does."""
        numbers = self._rows.index[which]
        weight = None if self._rows.weight is None else self._rows.weight[numbers]
        condition = None if self._condition is None else self._memory.gather(self._condition, numbers, "condition")
        x = self._memory.gather(self._x, numbers, "x")
        if self._whole is not None:
            x = self._memory.scatter(x, self._whole, self._whole.random_places(len(which), rng))
        return x, weight, condition
