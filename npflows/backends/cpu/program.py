"""Programs made into the plans that the compiled drivers run, one chunk of samples at a time.

How samples are cut into blocks, and blocks into gradient buffers, follows from their number alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cpu import driver, kernels  # noqa: F401 the kernels enter themselves in KERNELS
from npflows.backends.cpu.adam import Adam
from npflows.backends.cpu.bijection import CompiledBijection
from npflows.backends.cpu.compiler.calls import address
from npflows.backends.cpu.link import (
    KERNELS,
    LANE_MULTIPLE,
    ONE_LANE_TWINS,
    BaseKernels,
    LayerKernels,
    Link,
    NetworkKernels,
    Scratch,
    scratch,
    temp_of_base,
)
from npflows.backends.cpu.threads import pool as threads
from npflows.core.backend import HostBuffers, Result, Share, State
from npflows.core.bijection import Bijection
from npflows.core.operations import Placed, Program

CHUNK = 65536
"""Samples that one run of a driver takes at most."""
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


class CompiledProgram(HostBuffers):
    """A program compiled for one dtype; see `npflows.core.backend.Executable`.

    Parameters
    ----------
    program : Program
    dtype : numpy.dtype
    """

    def __init__(self, program: Program, dtype: np.dtype) -> None:
        self.program, self.dtype = program, np.dtype(dtype)
        self.input_dim, self.output_dim, self.condition_dim = program.input_dim, program.output_dim, program.condition_dim
        self._dims = (program.input_dim, program.output_dim)
        self._block_rows = max(*self._dims, program.output_dim + temp_of_base(program.base))
        layers = [placed.operation for placed in program.layers]
        sizes = [scratch(layer) for layer in layers]
        self._widest = max((size.work + size.temp for size in sizes), default=1)
        self._is_wide = (
            max((size.work + size.temp for size in sizes), default=0) * BLOCKS[1] * self.dtype.itemsize > WIDE_BYTES
        )
        self.has_one_lane = all(KERNELS[type(layer)].one_lane(layer) for layer in layers)
        self.recomputed = self._choose_recomputed(layers, sizes)
        embedding = Scratch() if program.embedding is None else scratch(program.embedding.operation)
        base_network = Scratch() if program.base_network is None else scratch(program.base_network.operation)
        self._temp_rows = max((size.temp for size in (*sizes, embedding, base_network)), default=0)
        self._context_rows = program.condition_dim if program.embedding is None else program.embedding.operation.n_out
        self._kept_rows = sum(
            layer.dim if again else size.work for layer, size, again in zip(layers, sizes, self.recomputed)
        )
        self._embedding_rows, self._base_network_rows = embedding.work, base_network.work
        self.scratch_rows = self._rows_of_scratch(sizes)
        self.chunk_rows = min(CHUNK, max(1, CHUNK_VALUES // max(self._dims) // BLOCKS[0]) * BLOCKS[0])
        self._bijection: tuple[Bijection, Bijection] | None = None
        self._plans: dict[tuple[bool, bool, bool, bool], NDArray[np.int64]] = {}
        self._turned: dict[bool, list[tuple[int, int, int]]] = {}

    def bijection(self, given: Bijection) -> Bijection:
        """See `npflows.core.backend.Executable`; supports without kernels are evaluated by NumPy."""
        if self._bijection is None or self._bijection[0] is not given:
            try:
                self._bijection = given, CompiledBijection(given.operation())
            except NotImplementedError:
                self._bijection = given, given
        return self._bijection[1]

    def block_width(self, n: int) -> int:
        """Samples of a block when there are n of them."""
        if self._is_wide:
            return LANE_MULTIPLE
        return BLOCKS[0] if n >= LARGE else BLOCKS[1]

    def buffer_count(self, n: int, n_bytes: int) -> int:
        """Gradient buffers of `n_bytes` for n samples: as many threads as that can work at once."""
        blocks = -(-n // self.block_width(n))
        return min(blocks, max(8, blocks // 4), max(4, BUFFER_BYTES // max(n_bytes, 1)))

    def rows_within(self, n_values: int) -> int:
        """Samples whose scratch in the layer with the most is at most so many numbers."""
        return n_values // max(self._widest, 1)

    def optimizer(self, theta: NDArray, free: NDArray, weight_decay: float, clip_norm: float | None) -> Adam:
        """Adam for a parameter vector; see `npflows.core.backend.Executable`."""
        return Adam(theta, free, weight_decay, clip_norm)

    def _choose_recomputed(self, layers: Sequence[Any], sizes: Sequence[Scratch]) -> list[bool]:
        """Which layers are run again on the way back, from their inputs, instead of keeping their work: those with the
        most work, as many as it takes for the rest to fit."""
        again = [False] * len(layers)
        lane_bytes = self.block_width(LARGE) * self.dtype.itemsize
        kept = sum(size.work for size in sizes)
        dims = [layer.dim for layer in layers]
        for i in sorted(range(len(layers)), key=lambda i: dims[i] - sizes[i].work):
            saved = sizes[i].work - dims[i]
            if kept * lane_bytes <= KEEP_BYTES or saved <= 0:
                break
            again[i] = True
            kept -= saved
        return again

    def _rows_of_scratch(self, sizes: Sequence[Scratch]) -> tuple[int, int]:
        """Rows of a thread's scratch memory, without a gradient and with one."""
        shared = max((size.work for size in sizes), default=0)
        samples, networks = self._block_rows + self._context_rows, (self._embedding_rows, self._base_network_rows)
        in_doubles = (1 + max(self._dims)) * 8 // self.dtype.itemsize  # sums, and samples on their way through a factor
        if self.program.embedding is not None:
            samples += self.condition_dim
        kept = self._kept_rows + (shared if any(self.recomputed) else 0)
        back = in_doubles + 2 * samples + 1 + self._temp_rows + kept + sum(networks)
        return in_doubles + samples + self._temp_rows + max(shared, *networks), back

    def _scratch(self, n: int, gradient: bool) -> int:
        """Bytes of scratch memory that a thread needs for n samples."""
        lanes = -(-min(n, self.block_width(n)) // LANE_MULTIPLE) * LANE_MULTIPLE
        return self.scratch_rows[gradient] * lanes * self.dtype.itemsize

    def plan(
        self, inverse: bool, gradient: bool, one_lane: bool = False, by_column: bool = False
    ) -> NDArray[np.int64]:  # fmt: skip
        """The numbers that drivers read for one direction; kernels are compiled when a plan is first wanted.

        With `by_column`, for one lane alone, it is for parameters as `turned` gives them, on the way forward.
        """
        key = inverse, gradient, one_lane, by_column
        if key not in self._plans:
            self._plans[key] = self._plan(*key)
        return self._plans[key]

    def turned(self, theta: NDArray, inverse: bool) -> NDArray:
        """The parameters with the matrices by column that networks read so in one direction."""
        self.plan(inverse, False, one_lane=True, by_column=True)
        result = theta.copy()
        for start, rows, columns in self._turned[inverse]:
            part = slice(start, start + rows * columns)
            result[part] = theta[part].reshape(rows, columns).T.ravel()
        return result

    def turned_bytes(self) -> int:
        """The size of the matrices that networks read by column on the way from data to latent."""
        self.plan(False, False, one_lane=True, by_column=True)
        return sum(rows * columns for _, rows, columns in self._turned[False]) * self.dtype.itemsize

    def _plan(self, inverse: bool, gradient: bool, one_lane: bool, by_column: bool) -> NDArray[np.int64]:
        program, dtype = self.program, self.dtype
        header = [0] * driver.HEADER
        header[driver.N_LAYERS] = len(program.layers)
        header[driver.IN_ROWS], header[driver.OUT_ROWS] = self._dims[::-1] if inverse else self._dims
        header[driver.BLOCK_ROWS], header[driver.TEMP_ROWS] = self._block_rows, self._temp_rows
        header[driver.CONDITION_ROWS], header[driver.CONTEXT_ROWS] = self.condition_dim, self._context_rows
        header[driver.ONE_LANE] = int(one_lane)
        if program.standardized:
            header[driver.STANDARDIZATION] = driver.LAST if inverse else driver.FIRST
        records: list[int] = []
        specs: list[int] = []
        turned: list[tuple[int, int, int]] = []
        position = driver.HEADER + driver.RECORD * len(program.layers)
        work, shared = 0, self._kept_rows
        triples = list(zip(program.layers, map(scratch, (layer.operation for layer in program.layers)), self.recomputed))
        for (layer, offset), size, again in reversed(triples) if inverse else triples:
            table: LayerKernels = KERNELS[type(layer)]
            functions = tuple(table.functions(layer)[1::2] if inverse else table.functions(layer)[::2])[: 1 + gradient]
            link = Link(dtype, functions, one_lane, by_column)
            spec = table.pack(layer, link)
            turned += [place for network in link.turned for place in _matrices(network, offset)]
            run = tuple(ONE_LANE_TWINS.get(function, function) for function in functions) if one_lane else functions
            records += [
                address(run[0], "layer", dtype),
                address(run[1], "layer_vjp", dtype) if gradient else 0,
                layer.dim,
                position,
                position + len(spec),
                offset,
                offset + layer.size,
                shared if again else work,
                size.work,
                work if again else driver.NONE,
            ]
            specs += spec
            position += len(spec)
            work += layer.dim if again else size.work
        if program.base is not None and not inverse:
            specs += self._place_base(header, program.base, position, gradient)
            position = driver.HEADER + len(records) + len(specs)
        networks = {driver.EMBEDDING: program.embedding, driver.BASE_NETWORK: None if inverse else program.base_network}
        for place, network in networks.items():
            if network is not None:
                specs += self._place_network(header, place, network, position, gradient, one_lane, by_column)
                position = driver.HEADER + len(records) + len(specs)
                turned += _matrices(*network) if by_column else []
        if by_column:
            self._turned[inverse] = turned
        return np.array(header + records + specs, np.int64)

    def _place_base(self, header: list[int], placed: Placed, position: int, gradient: bool) -> list[int]:
        """Enter the base in the header; its spec."""
        base, offset = placed
        table: BaseKernels = KERNELS[type(base)]
        log_prob, log_prob_vjp = table.functions(base)
        spec = table.pack(base, Link(self.dtype, (log_prob,)))
        header[driver.BASE] = address(log_prob, "base", self.dtype)
        header[driver.BASE_VJP] = address(log_prob_vjp, "base_vjp", self.dtype) if gradient else 0
        header[driver.BASE_SPEC], header[driver.BASE_SPEC_END] = position, position + len(spec)
        header[driver.BASE_THETA], header[driver.BASE_THETA_END] = offset, offset + base.size
        header[driver.BASE_TEMP] = temp_of_base(placed)
        network = self.program.base_network
        header[driver.BASE_NETWORK_ROWS] = 0 if network is None else network.operation.n_out
        return spec

    def _place_network(
        self,
        header: list[int],
        place: int,
        placed: Placed,
        position: int,
        gradient: bool,
        one_lane: bool,
        by_column: bool,
    ) -> list[int]:
        """Enter the embedding or the network of the base in the header; its spec."""
        network, offset = placed
        table: NetworkKernels = KERNELS[type(network)]
        functions = tuple(table.roles[role][0] for role in ("forward", "vjp"))[: 1 + gradient]
        spec = Link(self.dtype, functions, one_lane).pack(network)
        forward = table.by_column if by_column and table.by_column is not None else functions[0]
        header[place + driver.NETWORK] = address(forward, "network", self.dtype)
        header[place + driver.NETWORK_VJP] = address(functions[1], "network_vjp", self.dtype) if gradient else 0
        header[place + driver.NETWORK_SPEC : place + driver.NETWORK_SPEC_END + 1] = position, position + len(spec)
        header[place + driver.NETWORK_THETA : place + driver.NETWORK_THETA_END + 1] = offset, offset + network.size
        header[place + driver.NETWORK_WORK] = scratch(network).work
        return spec

    def transport(
        self, state: State, x: NDArray, condition: NDArray, out: Result, *, inverse: bool = False, origin: int = 0
    ) -> None:
        """See `npflows.core.backend.Executable`."""
        n = len(x)
        width = self.block_width(n)
        plan = self.plan(inverse, False, n == 1 and self.has_one_lane)
        threads.run(driver.transport, "transport", -(-n // width), self._scratch(n, False), self.dtype,
                    (plan, *state, x, condition, 0, origin, width, *out))  # fmt: skip

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
        share: Share | None = None,
    ) -> None:
        """See `npflows.core.backend.Executable`."""
        n, first, pieces = (len(x), 0, len(buffers)) if share is None else share
        width = self.block_width(n)
        plan = self.plan(inverse, True, n == 1 and self.has_one_lane and not buffers.shape[1])
        threads.run(driver.pullback, "pullback", len(buffers), self._scratch(n, True), self.dtype,
                    (plan, *state, x, condition, key, origin, width, dy, dlog, log_prob, dx, dcondition, -(-n // width),
                     first, pieces, buffers))  # fmt: skip

    def buffer_rows(self, n: int, count: int, place: int) -> int:
        """See `npflows.core.backend.Divisible`."""
        width = self.block_width(n)
        return min(n, place * -(-n // width) // count * width)


def _matrices(network: Any, offset: int) -> list[tuple[int, int, int]]:
    """Where the matrices of a network begin that lies at an offset, with their rows and columns."""
    offsets = network.offsets
    return [(offset + offsets[name], *shape) for name, shape in network.shapes.items() if len(shape) == 2]
