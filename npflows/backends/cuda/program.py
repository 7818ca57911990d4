"""Programs run on the GPU: the host launches one kernel after the other, and each carries all samples through one layer."""

from __future__ import annotations

import functools
import threading
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cpu.bijection import CompiledBijection
from npflows.backends.cpu.link import KERNELS
from npflows.backends.cuda import kernels
from npflows.backends.cuda.adam import Adam
from npflows.backends.cuda.device import empty, launch, launch_blocks, require_device, to_device
from npflows.backends.cuda.link import functions_of, scratch_of_lane
from npflows.backends.cuda.memory import Gradient, Memory
from npflows.backends.cuda.steps import Step, base_kernel, own_rows, prepare, sums_of_own
from npflows.backends.cuda.sums import SHARED, SIDE, combine, fill, make_add_products, pieces_of
from npflows.core.backend import Result, State
from npflows.core.bijection import Bijection
from npflows.core.operations import EMBEDDING_LAYER, Custom, Program

CHUNK = 65536
"""Samples that are on the GPU at a time, at most."""
CHUNK_BYTES = 1 << 31
"""Memory for what layers keep and use, about."""


class Passed(NamedTuple):
    """The arrays on the GPU after the way through all layers."""

    n: int
    first: int
    theta: Any
    affine: Any
    condition_affine: Any
    x: Any
    given: Any
    block: Any
    sums: Any
    condition: Any
    context: Any
    works: list[Any]


class CudaProgram:
    """A program for one dtype; see `npflows.core.backend.Executable`.

    Parameters
    ----------
    program : Program
    dtype : numpy.dtype

    Raises
    ------
    NotImplementedError
        If it has a layer or base distribution of the user's own, which is compiled for the CPU.
    """

    def __init__(self, program: Program, dtype: np.dtype) -> None:
        for placed in filter(None, (*program.layers, program.base)):
            if isinstance(placed.operation, Custom):
                raise NotImplementedError(
                    f"{placed.operation.name} is of your own making, compiled for the CPU alone, and has no CUDA kernel: "
                    f"use flow.to('cpu')"
                )
        self.program, self.dtype = program, np.dtype(dtype)
        self.input_dim, self.output_dim, self.condition_dim = program.input_dim, program.output_dim, program.condition_dim
        self._rows = max(program.input_dim, program.output_dim)
        self._context_rows = program.condition_dim if program.embedding is None else program.embedding.operation.n_out
        parts = [*program.layers, *filter(None, [program.embedding])]
        sizes = [scratch_of_lane(placed.operation) for placed in parts]
        self._temp_rows = max((size.temp for size in sizes), default=0)
        self._work_rows = max((size.work for size in sizes), default=0)
        own = max((own_rows(placed.operation) for placed in parts), default=1)
        rows = sum(size.work for size in sizes) + self._temp_rows + own + 4 * self._rows + 4 * self._context_rows
        self.chunk_rows = max(256, min(CHUNK, CHUNK_BYTES // (rows * self.dtype.itemsize) // 256 * 256))
        self._memory, self._lock = Memory(), threading.Lock()
        self._steps: dict[tuple[bool, bool], tuple[list[Step], Step | None]] = {}
        self._bijection: tuple[Bijection, Bijection] | None = None

    def bijection(self, given: Bijection) -> Bijection:
        """See `npflows.core.backend.Executable`: it is evaluated on the CPU."""
        if self._bijection is None or self._bijection[0] is not given:
            try:
                self._bijection = given, CompiledBijection(given.operation())
            except NotImplementedError:
                self._bijection = given, given
        return self._bijection[1]

    def buffer_count(self, n: int, n_bytes: int) -> int:
        """One gradient buffer: pieces are added up on the GPU."""
        return 1

    def gradient_buffers(self, sizes: Collection[int], theta: NDArray) -> dict[int, Any]:
        """See `npflows.core.backend.Executable`."""
        return dict.fromkeys(sizes, Gradient(theta.size))

    def rows_within(self, n_values: int) -> int:
        """Samples whose scratch in the layer with the most is at most so many numbers."""
        return n_values // max(self._work_rows + self._temp_rows, 1)

    def optimizer(self, theta: NDArray, free: NDArray, weight_decay: float, clip_norm: float | None) -> Adam:
        """Adam for a parameter vector; see `npflows.core.backend.Executable`."""
        return Adam(theta, free, weight_decay, clip_norm, self._memory)

    def transport(
        self, state: State, x: NDArray, condition: NDArray, out: Result, *, inverse: bool = False, origin: int = 0
    ) -> None:
        """See `npflows.core.backend.Executable`."""
        require_device()
        with self._lock:
            self._transport(state, x, condition, out, inverse, origin)

    def _transport(
        self, state: State, x: NDArray, condition: NDArray, out: Result, inverse: bool, origin: int
    ) -> None:  # fmt: skip
        """`transport`, by one thread at a time."""
        for part in self._chunks(len(x)):
            passed = self._pass(state, x[part], condition[part], inverse, False, 0, origin + part.start)
            if out.y.size:
                y = self._memory.block("y", passed.n, out.y.shape[1], np.float64)
                launch(_ends().leave, passed.n, passed.block, passed.affine, *self._mapped(state, inverse), y)
                out.y[part] = y.copy_to_host()
            if out.log_det.size:
                out.log_det[part] = passed.sums.copy_to_host()
            if out.log_prob.size:
                out.log_prob[part] = self._add_base(passed)

    def pullback(
        self,
        state: State,
        x: NDArray,
        condition: NDArray,
        dy: NDArray,
        dlog: NDArray,
        buffers: Any,
        log_prob: NDArray,
        dx: NDArray,
        dcondition: NDArray,
        *,
        inverse: bool = False,
        key: int = 0,
        origin: int = 0,
    ) -> None:
        """See `npflows.core.backend.Executable`."""
        require_device()
        with self._lock:
            self._pullback(state, x, condition, dy, dlog, buffers, log_prob, dx, dcondition, inverse, key, origin)

    def _pullback(
        self,
        state: State,
        x: NDArray,
        condition: NDArray,
        dy: NDArray,
        dlog: NDArray,
        buffers: Any,
        log_prob: NDArray,
        dx: NDArray,
        dcondition: NDArray,
        inverse: bool,
        key: int,
        origin: int,
    ) -> None:
        """`pullback`, by one thread at a time."""
        gradients, wanted = None, bool(buffers.size)
        if wanted:
            gradients = self._memory.block("gradients", pieces_of(len(x)), state.theta.size, self.dtype)
            launch(fill, gradients.size, gradients.reshape(gradients.size), self.dtype.type(0))
        for part in self._chunks(len(x)):
            passed = self._pass(state, x[part], condition[part], inverse, True, key, origin + part.start)
            with np.errstate(all="ignore"):
                dlog_det = to_device(dlog[part].astype(self.dtype))
            if self.program.base is not None and not inverse:
                log_prob[part] = self._add_base(passed)
            dblock = self._leave_program(state, passed, dy[part], dlog_det, gradients, inverse)
            dgiven = self._pass_back(passed, dblock, dlog_det, gradients, inverse, key)
            if dx.size:
                dX = self._memory.block("dX", passed.n, dx.shape[1], np.float64)
                mapped, mixed = self._mapped(state, not inverse)
                launch(
                    _ends().leave_cotangent, passed.n, dblock, passed.affine, mapped, mixed, self._u(passed.n, mixed), dX
                )
                dx[part] = dX.copy_to_host()
            if dcondition.size:
                dC = self._memory.block("dC", passed.n, self.condition_dim, np.float64)
                launch(_ends().leave_condition, passed.n, dgiven, passed.given, passed.condition_affine, dC)
                dcondition[part] = dC.copy_to_host()
        if gradients is not None:
            gradient = buffers.array if isinstance(buffers, Gradient) else None
            if gradient is None:
                gradient = empty(state.theta.size, self.dtype)
            launch(combine, gradient.size, gradients, gradient)
            if isinstance(buffers, Gradient):
                buffers.array = gradient
            else:
                buffers[:] = 0
                buffers[0] = gradient.copy_to_host()

    def _chunks(self, n: int) -> list[slice]:
        return [slice(start, min(start + self.chunk_rows, n)) for start in range(0, n, self.chunk_rows)]

    def _mapped(self, state: State, inverse: bool) -> tuple[bool, bool]:
        """Whether what leaves in one direction is mapped to the user's units, and whether that mixes columns."""
        mapped = self.program.standardized and inverse and state.standardization.shape[1] > 0
        return mapped, mapped and len(state.standardization) > 3

    def _u(self, n: int, wanted: bool) -> Any:
        """Scratch memory of float64 for maps that mix columns."""
        return self._memory.block("u", self._rows if wanted else 1, n, np.float64)

    def _pass(
        self, state: State, x: NDArray, condition: NDArray, inverse: bool, gradient: bool, key: int, first: int
    ) -> Passed:
        """Bring samples to the GPU and carry them through all layers; for a gradient what each layer leaves is kept."""
        memory, n, (steps, embedding) = self._memory, len(x), self._prepared(inverse, gradient)
        table = state.standardization if state.standardization.shape[1] else np.zeros((3, 1))
        theta, affine = memory.resident("theta", state.theta), memory.resident("standardization", table)
        total = float(sum(state.standardization[2])) if self.program.standardized else 0.0
        X = to_device(x)
        block, sums = memory.block("block", self._rows, n, self.dtype), memory.vector("sums", n, np.float64)
        mapped, mixed = self._mapped(state, not inverse)
        launch(_ends().enter, n, X, affine, mapped, mixed, total if inverse else -total, self._u(n, mixed), block, sums)
        given, condition_affine, seen, context = self._see(state, condition, n, embedding, key, first)
        works = []
        temp = memory.block("temp", self._temp_rows, n, self.dtype)
        for number, step in enumerate(steps):
            name = f"work {number}" if gradient else "work"
            works.append(memory.block(name, scratch_of_lane(step.operation).work, n, self.dtype))
            launch(step.run, n, step.spec, theta, step.start, step.end, context, _layer_key(key, number), first,
                   memory.block("block", step.operation.dim, n, self.dtype), sums, works[-1], temp)  # fmt: skip
        return Passed(n, first, theta, affine, condition_affine, X, given, block, sums, seen, context, works)

    def _see(
        self, state: State, condition: NDArray, n: int, embedding: Step | None, key: int, first: int
    ) -> tuple[Any, Any, Any, Any]:
        """The condition on the GPU, its standardization, the standardized condition, and what the layers see of it."""
        memory, dim = self._memory, self.condition_dim
        if not dim:
            none = memory.block("context", 1, n, self.dtype)
            return memory.resident("no condition", np.zeros((1, 1))), None, none, none
        table = state.condition_standardization
        if not table.shape[1]:
            table = np.array([np.zeros(dim), np.ones(dim), np.full(dim, np.inf)])
        given, affine = to_device(condition[:, :dim]), memory.resident("condition", table)
        seen = memory.block("condition", dim, n, self.dtype)
        launch(_ends().enter_condition, n, given, affine, seen)
        if embedding is None:
            return given, affine, seen, seen
        context = memory.block("context", self._context_rows, n, self.dtype)
        work, temp = self._embedding_scratch(n)
        launch(embedding.run, n, embedding.spec, memory.resident("theta", state.theta), embedding.start, embedding.end,
               _layer_key(key, EMBEDDING_LAYER), first, seen, context, work, temp)  # fmt: skip
        return given, affine, seen, context

    def _embedding_scratch(self, n: int) -> tuple[Any, Any]:
        assert self.program.embedding is not None
        rows = scratch_of_lane(self.program.embedding.operation).work
        return self._memory.block("embedding", rows, n, self.dtype), self._memory.block(
            "temp", self._temp_rows, n, self.dtype
        )

    def _add_base(self, passed: Passed) -> NDArray:
        """The log-densities of samples."""
        assert self.program.base is not None
        base, start = self.program.base
        run, spec = base_kernel(base, self.dtype, False)
        log_prob = self._memory.vector("log_prob", passed.n, np.float64)
        launch(run, passed.n, self._memory.resident("base spec", spec), passed.theta, start, start + base.size,
               passed.block[: self.output_dim], passed.x, passed.given, int(self.condition_dim > 0), passed.sums,
               log_prob)  # fmt: skip
        return log_prob.copy_to_host()

    def _leave_program(
        self, state: State, passed: Passed, dy: NDArray, dlog_det: Any, gradients: Any, inverse: bool
    ) -> Any:
        """The cotangents (rows, n) of what left the layers."""
        memory, n = self._memory, passed.n
        dblock = memory.block("dblock", self._rows, n, self.dtype)
        if self.program.base is None or inverse:
            mapped, mixed = self._mapped(state, inverse)
            launch(_ends().enter_cotangent, n, to_device(dy), passed.affine, mapped, mixed, self._u(n, mixed), dblock)
            return dblock
        base, start = self.program.base
        run, spec = base_kernel(base, self.dtype, True)
        launch(kernels.copy, n, passed.block, dblock)
        rows = 0 if gradients is None else base.size
        own = memory.block("own", rows, n, self.dtype)
        launch(run, n, memory.resident("base spec", spec), passed.theta, start, start + base.size,
               memory.block("dblock", self.output_dim, n, self.dtype), dlog_det, own, rows)  # fmt: skip
        if rows:
            self._add(gradients, sums_of_own(rows), own, own, own, own, start, n)
        return dblock

    def _pass_back(self, passed: Passed, dblock: Any, dlog_det: Any, gradients: Any, inverse: bool, key: int) -> Any:
        """Carry cotangents back through all layers, in place; returns that of the standardized condition."""
        memory, n, (steps, embedding) = self._memory, passed.n, self._prepared(inverse, True)
        temp = memory.block("temp", self._temp_rows, n, self.dtype)
        dcontext = memory.block("dcontext", self._context_rows, n, self.dtype)
        launch(kernels.clear, n, dcontext)
        for number, (step, work) in reversed(list(enumerate(zip(steps, passed.works)))):
            rows = 0 if gradients is None else own_rows(step.operation)
            own = memory.block("own", rows, n, self.dtype)
            part = memory.block("dblock", step.operation.dim, n, self.dtype)
            launch(step.run_vjp, n, step.spec, passed.theta, step.start, step.end, passed.context, _layer_key(key, number),
                   passed.first, part, dlog_det, work, temp, own, step.own[0], rows, dcontext)  # fmt: skip
            if rows:
                self._add(gradients, step.products, work, temp, passed.context, own, step.start, n)
        if embedding is None:
            return dcontext
        dcondition = memory.block("dcondition", self.condition_dim, n, self.dtype)
        work, temp = self._embedding_scratch(n)
        rows = 0 if gradients is None else 1
        launch(embedding.run_vjp, n, embedding.spec, passed.theta, embedding.start, embedding.end,
               _layer_key(key, EMBEDDING_LAYER), passed.first, passed.condition, dcontext, dcondition, work, temp,
               memory.block("own", rows, n, self.dtype), rows)  # fmt: skip
        if rows:
            self._add(gradients, embedding.products, work, temp, passed.condition, dcontext, embedding.start, n)
        return dcondition

    def _add(self, gradients: Any, products: Any, work: Any, temp: Any, seen: Any, own: Any, offset: int, n: int) -> None:
        """Add products to the gradients of pieces of samples."""
        if products is not None:
            grid = products.shape[0], gradients.shape[0]
            launch_blocks(_add_products(self.dtype), grid, SIDE * SIDE, products, work, temp, seen, own, gradients, offset,
                          n, shared_bytes=SHARED * self.dtype.itemsize)  # fmt: skip

    def _prepared(self, inverse: bool, gradient: bool) -> tuple[list[Step], Step | None]:
        """The layers in the order in which they are run, and the embedding."""
        key = inverse, gradient
        if key not in self._steps:
            layers = self.program.layers[::-1] if inverse else self.program.layers
            made = functools.partial(prepare, dtype=self.dtype, context_rows=self._context_rows)
            steps = [made(placed, functions_of(placed.operation, inverse)[: 1 + gradient]) for placed in layers]
            embedding, last = self.program.embedding, None
            if embedding is not None:
                roles = KERNELS[type(embedding.operation)].roles
                last = made(embedding, (roles["forward"][0], roles["vjp"][0])[: 1 + gradient], is_network=True)
            self._steps[key] = steps, last
        return self._steps[key]


def _layer_key(key: int, layer: int) -> int:
    """A key of each layer's own from that of the step; 0 stays 0."""
    return key * 1024 + layer if key > 0 else 0


_ends = functools.cache(kernels.Ends)
_add_products = functools.cache(lambda dtype: make_add_products(dtype.type))
