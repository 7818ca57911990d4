"""A program: layers in order, perhaps with a base distribution, made into the plans that the drivers run.

Numbers come in as float64 of any layout, in pieces, so that a memory-mapped table is never copied whole; everything that
comes out is float64.  How samples are cut into blocks, and blocks into gradient buffers, follows from their number alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cpu import driver
from npflows.backends.cpu.compiler.calls import Link, address
from npflows.backends.cpu.threads import pool as threads
from npflows.core.backend import Result, State

if TYPE_CHECKING:
    from npflows.base.base import Base
    from npflows.layers.layer import Layer
    from npflows.networks.embedding import Embedding

CHUNK = 65536
"""Samples that one run of a driver takes at most; more are converted and run chunk by chunk."""
CHUNK_VALUES = 1 << 23
"""Values of samples that one run takes, about."""
BLOCKS = (256, 128)
"""Samples of a block, for large batches and for small ones."""
LARGE = 2048
"""Samples from which a batch is large."""
WIDE_BYTES = 6 << 20
"""Scratch of one layer for a small block above which a sample is wide: it is work enough, and blocks are narrow."""
BUFFER_BYTES = 1 << 26
"""Memory for gradient buffers, about."""
KEEP_BYTES = 1 << 27
"""Memory of a thread for what layers keep for their gradients; those with the most are run again where it does not do."""


class Program:
    """Layers compiled for one dtype.

    Parameters
    ----------
    layers : sequence of Layer
        In the direction data -> latent.
    offsets : sequence of int
        Where each layer's parameters begin in theta; the base's last.
    input_dim : int
        Values of a sample.
    output_dim : int, optional
        Values of a result, `input_dim` by default.
    base : Base, optional
    condition_dim : int
        Values of a condition.
    embedding : Embedding, optional
        What the condition goes through first; its parameters begin at `embedding_offset`.
    front : bool
        Whether a float64 affine map from the user's units comes before the layers.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        offsets: Sequence[int],
        input_dim: int,
        dtype: np.dtype,
        *,
        output_dim: int | None = None,
        base: Base | None = None,
        condition_dim: int = 0,
        embedding: Embedding | None = None,
        embedding_offset: int = 0,
        front: bool = False,
    ) -> None:
        self.dtype = np.dtype(dtype)
        self.condition_dim = condition_dim
        self.input_dim, self.output_dim = self._dims = (input_dim, output_dim or input_dim)
        scratch = [layer.work_rows + layer.temp_rows for layer in layers]
        self._is_wide = max(scratch, default=0) * BLOCKS[1] * self.dtype.itemsize > WIDE_BYTES
        self._again = self._run_again(layers)
        self._temp_rows = max((layer.temp_rows for layer in (*layers, *filter(None, [embedding]))), default=0)
        self._context_rows = condition_dim if embedding is None else embedding.output_dim
        self._embedding, self._embedding_offset = embedding, embedding_offset
        self._kept_rows = sum(layer.rows if again else layer.work_rows for layer, again in zip(layers, self._again))
        self._scratch_rows = self._rows_of_scratch(layers)
        self.chunk_rows = min(CHUNK, max(1, CHUNK_VALUES // max(self._dims) // BLOCKS[0]) * BLOCKS[0])
        self._parts = (list(layers), list(offsets), base, front)
        self._widest = max((layer.work_rows + layer.temp_rows for layer in layers), default=1)
        self._plans: dict[tuple[bool, bool], np.ndarray] = {}

    def block_width(self, n: int) -> int:
        """Samples of a block when there are n of them."""
        if self._is_wide:
            return driver.LANE_MULTIPLE
        return BLOCKS[0] if n >= LARGE else BLOCKS[1]

    def buffer_count(self, n: int, n_bytes: int) -> int:
        """Gradient buffers of `n_bytes` for n samples: as many threads as that can work at once."""
        blocks = -(-n // self.block_width(n))
        return min(blocks, max(8, blocks // 4), max(4, BUFFER_BYTES // max(n_bytes, 1)))

    def rows_within(self, n_values: int) -> int:
        """Samples whose scratch in the layer with the most is at most so many numbers."""
        return n_values // max(self._widest, 1)

    def _run_again(self, layers: Sequence[Layer]) -> list[bool]:
        """Which layers are run again on the way back, from their inputs, instead of keeping their work: those with the most
        work, as many as it takes for the rest to fit."""
        again = [False] * len(layers)
        lane_bytes = self.block_width(LARGE) * self.dtype.itemsize
        kept = sum(layer.work_rows for layer in layers)
        for i in sorted(range(len(layers)), key=lambda i: layers[i].rows - layers[i].work_rows):
            saved = layers[i].work_rows - layers[i].rows
            if kept * lane_bytes <= KEEP_BYTES or saved <= 0:
                break
            again[i] = True
            kept -= saved
        return again

    def _rows_of_scratch(self, layers: Sequence[Layer]) -> tuple[int, int]:
        """Rows of a thread's scratch memory, without a gradient and with one."""
        shared = max((layer.work_rows for layer in layers), default=0)
        samples, embedding = max(self._dims) + self._context_rows, 0
        if self._embedding is not None:
            samples, embedding = samples + self.condition_dim, self._embedding.work_rows
        back = 2 * samples + 1 + self._temp_rows + self._kept_rows + embedding + (shared if any(self._again) else 0)
        return samples + self._temp_rows + max(shared, embedding), back

    def _scratch(self, n: int, gradient: bool) -> int:
        """Bytes of scratch memory that a thread needs for n samples."""
        lanes = -(-min(n, self.block_width(n)) // driver.LANE_MULTIPLE) * driver.LANE_MULTIPLE
        return self._scratch_rows[gradient] * lanes * self.dtype.itemsize

    def plan(self, inverse: bool, gradient: bool) -> np.ndarray:
        """What the drivers read for one direction; compiles what it needs when it is first wanted."""
        if (inverse, gradient) not in self._plans:
            self._plans[inverse, gradient] = self._plan(inverse, gradient)
        return self._plans[inverse, gradient]

    def _plan(self, inverse: bool, gradient: bool) -> np.ndarray:
        layers, offsets, base, front = self._parts
        header = [0] * driver.HEADER
        header[driver.N_LAYERS] = len(layers)
        header[driver.IN_ROWS], header[driver.OUT_ROWS] = self._dims[::-1] if inverse else self._dims
        header[driver.BLOCK_ROWS], header[driver.TEMP_ROWS] = max(self._dims), self._temp_rows
        header[driver.CONDITION_ROWS], header[driver.CONTEXT_ROWS] = self.condition_dim, self._context_rows
        header[driver.ONE_LANE] = int(all(layer.one_lane for layer in layers))
        header[driver.FRONT] = (driver.FRONT_LAST if inverse else driver.FRONT_FIRST) if front else driver.NO_FRONT
        records, specs = [], []
        position = driver.HEADER + driver.RECORD * len(layers)
        work = 0
        shared = self._kept_rows
        triples = list(zip(layers, offsets, self._again))
        for layer, offset, again in reversed(triples) if inverse else triples:
            functions = tuple(layer.kernels[1::2] if inverse else layer.kernels[::2])[: 1 + gradient]
            spec = layer.spec(Link(self.dtype, functions))
            records += [
                address(functions[0], "layer", self.dtype),
                address(functions[1], "layer_vjp", self.dtype) if gradient else 0,
                layer.rows,
                position,
                position + len(spec),
                offset,
                offset + layer.theta_size,
                shared if again else work,
                layer.work_rows,
                work if again else driver.NONE,
            ]
            specs += spec
            position += len(spec)
            work += layer.rows if again else layer.work_rows
        if base is not None and not inverse:
            spec = base.spec()
            header[driver.BASE] = address(base.kernels[0], "base", self.dtype)
            header[driver.BASE_VJP] = address(base.kernels[1], "base_vjp", self.dtype) if gradient else 0
            header[driver.BASE_SPEC], header[driver.BASE_SPEC_END] = position, position + len(spec)
            header[driver.BASE_THETA], header[driver.BASE_THETA_END] = offsets[-1], offsets[-1] + base.theta_size
            specs += spec
            position += len(spec)
        if self._embedding is not None:
            functions = self._embedding.kernels[: 1 + gradient]
            spec = self._embedding.spec(Link(self.dtype, functions))
            header[driver.EMBEDDING] = address(functions[0], "network", self.dtype)
            header[driver.EMBEDDING_VJP] = address(functions[1], "network_vjp", self.dtype) if gradient else 0
            header[driver.EMBEDDING_SPEC], header[driver.EMBEDDING_SPEC_END] = position, position + len(spec)
            start = self._embedding_offset
            header[driver.EMBEDDING_THETA] = start
            header[driver.EMBEDDING_THETA_END] = start + self._embedding.theta_size
            header[driver.EMBEDDING_WORK] = self._embedding.work_rows
            specs += spec
        return np.array(header + records + specs, np.int64)

    def transport(
        self, state: State, x: NDArray, condition: NDArray, out: Result, *, inverse: bool = False, origin: int = 0
    ) -> None:
        n = len(x)
        width = self.block_width(n)
        threads.run(driver.transport, "transport", -(-n // width), self._scratch(n, False), self.dtype,
                    (self.plan(inverse, False), *state, x, condition, 0, origin, width, *out))  # fmt: skip

    def pullback(
        self,
        state: State,
        x: NDArray,
        condition: NDArray,
        dy: NDArray,
        dlog: NDArray,
        buffers: NDArray,
        log_prob: NDArray,
        dx: NDArray,
        dcondition: NDArray,
        *,
        inverse: bool = False,
        key: int = 0,
        origin: int = 0,
    ) -> None:
        n = len(x)
        threads.run(driver.pullback, "pullback", len(buffers), self._scratch(n, True), self.dtype,
                    (self.plan(inverse, True), *state, x, condition, key, origin, self.block_width(n), dy, dlog, log_prob,
                     dx, dcondition, len(buffers), buffers))  # fmt: skip
