"""Programs run on the GPU: the host launches one kernel after the other, and each carries all samples through one layer."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cpu.bijection import CompiledBijection
from npflows.backends.cpu.link import temp_of_base
from npflows.backends.cuda import arrays, kernels
from npflows.backends.cuda.adam import Adam
from npflows.backends.cuda.carrier import Carrier
from npflows.backends.cuda.device import copy, launch, launch_blocks, on, require_device, to_device
from npflows.backends.cuda.link import conditioner_of, functions_of, is_narrow, scratch_of_lane
from npflows.backends.cuda.memory import Gradient, Memory, whole
from npflows.backends.cuda.products import FEW, LANES
from npflows.backends.cuda.recording import Recordings
from npflows.backends.cuda.steps import Step, base_kernel, most_own_rows, own_rows, prepare, prepare_network, sums_of_own
from npflows.backends.cuda.sums import SHARED_SUMS, THREADS, combine, fill, make_add_products, pieces_of
from npflows.core.backend import Result, State
from npflows.core.bijection import Bijection
from npflows.core.operations import BASE_LAYER, EMBEDDING_LAYER, Custom, Program

CHUNK = 65536
"""Samples that are on the GPU at a time, at most."""
CHUNK_BYTES = 1 << 31
"""Memory for what layers keep and use, about."""


class Given(NamedTuple):
    """What a program reads on the GPU: parameters, standardizations, samples (n, dim) and conditions."""

    theta: Any
    affine: Any
    condition_affine: Any
    x: Any
    condition: Any


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


class CudaProgram(Carrier):
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
        self._base_rows = program.output_dim + temp_of_base(program.base)
        self._rows = max(program.input_dim, self._base_rows)
        self._context_rows = program.condition_dim if program.embedding is None else program.embedding.operation.n_out
        parts = [*program.layers, *filter(None, [program.embedding, program.base_network])]
        sizes = [scratch_of_lane(placed.operation) for placed in parts]
        self._temp_rows = max((size.temp for size in sizes), default=0)
        self._work_rows = max((size.work for size in sizes), default=0)
        own = max((most_own_rows(placed.operation) for placed in parts), default=1)
        rows = sum(size.work for size in sizes) + self._temp_rows + own + 4 * self._rows + 4 * self._context_rows
        self.chunk_rows = max(256, min(CHUNK, CHUNK_BYTES // (rows * self.dtype.itemsize) // 256 * 256))
        self._memory = Memory()
        self._steps: dict[tuple[bool, bool, bool], tuple[list[Step], Step | None]] = {}
        self._networks: dict[tuple[bool, bool], Step] = {}
        self._narrow = any(is_narrow(placed.operation) for placed in parts)
        self._bases: dict[bool, tuple[Any, Any]] = {}
        self._recordings = Recordings()
        self._key: int | None = None
        self._drops = any(getattr(conditioner_of(placed.operation), "dropout", 0) for placed in parts)
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
        return Adam(theta, free, weight_decay, clip_norm)

    def transport(
        self, state: State, x: NDArray, condition: NDArray, out: Result, *, inverse: bool = False, origin: int = 0
    ) -> None:
        """See `npflows.core.backend.Executable`."""
        require_device()
        with on():
            self._transport(state, x, condition, out, inverse, origin)

    def _transport(
        self, state: State, x: Any, condition: Any, out: Result, inverse: bool, origin: int
    ) -> None:  # fmt: skip
        """`transport`, by one thread at a time, with all arrays of the host or all on the GPU."""
        y, log_det, log_prob = (values is not None and values.size > 0 for values in out)
        key = self._keys(0)
        for part in self._chunks(len(x)):
            given = self._bring(state, x[part], condition[part])
            passed = self._pass(state, given, inverse, False, key, origin + part.start)
            if y:
                values = self._memory.block("y", passed.n, out.y.shape[1], np.float64)
                launch(_ends().leave, passed.n, passed.block, passed.affine, *self._mapped(state, inverse), values)
                copy(values, out.y[part])
            if log_det:
                copy(passed.sums[: passed.n], out.log_det[part])
            if log_prob:
                copy(self._add_base(passed, False, key), out.log_prob[part])

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
        """See `npflows.core.backend.Executable`; x and condition may be on the GPU, from `gather`."""
        require_device()
        x, condition = arrays.own(x), arrays.own(condition)
        with on():
            self._pullback(state, x, condition, dy, dlog, buffers, log_prob, dx, dcondition, inverse, key, origin)

    def _pullback(
        self,
        state: State,
        x: Any,
        condition: Any,
        dy: Any,
        dlog: Any,
        buffers: Any,
        log_prob: Any,
        dx: Any,
        dcondition: Any,
        inverse: bool,
        key: int,
        origin: int,
    ) -> None:
        """`pullback`, by one thread at a time, with each array of the host or on the GPU."""
        if isinstance(buffers, Gradient) and len(x) <= self.chunk_rows and not (inverse or dx.size):
            self._train(state, x, condition, dlog, buffers, log_prob, key)
            return
        gradients, key = None, self._keys(key)
        if buffers.size:
            gradients = self._gradients(len(x), state.theta.size)
        for part in self._chunks(len(x)):
            given, dlog_det = self._bring(state, x[part], condition[part]), self._of_dtype(dlog[part])
            passed = self._pass(state, given, inverse, True, key, origin + part.start)
            if self.program.base is not None and not inverse:
                copy(self._add_base(passed, True, key), log_prob[part])
            dblock = self._leave_program(state, passed, dy[part], dlog_det, gradients, inverse, key)
            dgiven = self._pass_back(passed, dblock, dlog_det, gradients, inverse, key)
            if dx.size:
                dX = self._memory.block("dX", passed.n, dx.shape[1], np.float64)
                mapped, mixed = self._mapped(state, not inverse)
                launch(
                    _ends().leave_cotangent, passed.n, dblock, passed.affine, mapped, mixed, self._u(passed.n, mixed), dX
                )
                copy(dX, dx[part])
            if dcondition.size:
                dC = self._memory.block("dC", passed.n, self.condition_dim, np.float64)
                launch(_ends().leave_condition, passed.n, dgiven, passed.given, passed.condition_affine, dC)
                copy(dC, dcondition[part])
        if gradients is not None:
            self._combine(gradients, buffers, state.theta.size)

    def _train(
        self, state: State, x: Any, condition: Any, dlog: Any, gradient: Gradient, log_prob: NDArray, key: int
    ) -> None:
        """`pullback` for a step of training: its launches are the same each time, and are recorded."""
        n, given, dlog_det, keys = len(x), self._bring(state, x, condition), self._of_dtype(dlog), self._keys(key)
        gradient.take_memory(self.dtype)

        def launches() -> Any:
            gradients = self._gradients(n, state.theta.size)
            passed = self._pass(state, given, False, True, keys, 0)
            densities = self._add_base(passed, True, keys)
            dblock = self._leave_program(state, passed, None, dlog_det, gradients, False, keys)
            self._pass_back(passed, dblock, dlog_det, gradients, False, keys)
            launch(combine, gradient.size, gradients, gradient.array)
            return densities

        uses = lambda: (*given, dlog_det, keys, gradient.array, self._memory.generation)  # noqa: E731
        copy(self._recordings.run(n, uses, launches), log_prob)

    def _keys(self, key: int) -> Any:
        """The keys of the layers' random masks in a step, on the GPU; 0 where nothing is dropped."""
        if not self._drops:
            return 0
        keys = self._memory.vector("keys", EMBEDDING_LAYER + 1, np.int64)
        if key != self._key:
            copy(np.array([_layer_key(key, layer) for layer in range(keys.size)], np.int64), keys)
            self._key = key
        return keys

    def _gradients(self, n: int, size: int) -> Any:
        """The gradients (pieces, size) of pieces of n samples, all of them 0."""
        gradients = self._memory.block("gradients", pieces_of(n, size), size, self.dtype)
        launch(fill, gradients.size, gradients.reshape(gradients.size), self.dtype.type(0))
        return gradients

    def _combine(self, gradients: Any, buffers: Any, size: int) -> None:
        """The sum of the pieces' gradients, where it is wanted."""
        if isinstance(buffers, Gradient):
            buffers.take_memory(self.dtype)
            launch(combine, size, gradients, buffers.array)
        else:
            gradient = self._memory.vector("gradient", size, self.dtype)
            launch(combine, size, gradients, gradient)
            buffers[:] = 0
            copy(gradient, buffers[0])

    def _of_dtype(self, dlog: Any) -> Any:
        """Cotangents (n,) of logarithms on the GPU, in the compute dtype, and any numbers for what makes blocks whole."""
        n = dlog.size
        values = self._memory.vector("dlog", whole(n), self.dtype)
        if isinstance(dlog, np.ndarray):
            with np.errstate(all="ignore"):
                copy(dlog.astype(self.dtype), values[:n])
        else:
            launch(kernels.spread, n, dlog.reshape(n, 1), values[:n].reshape(n, 1))
        return values

    def _bring(self, state: State, x: Any, condition: Any) -> Given:
        """What a program reads on the GPU; arrays of the host are copied to where the last ones were."""
        memory, dim = self._memory, self.condition_dim
        table = state.standardization if state.standardization.shape[1] else np.zeros((3, 1))
        theta, affine = memory.resident("theta", state.theta), memory.resident("standardization", table)
        X = self._copied("X", x)
        if not dim:
            return Given(theta, affine, None, X, memory.resident("no condition", np.zeros((1, 1))))
        if isinstance(condition, np.ndarray):
            condition = self._copied("given", condition[:, :dim])
        return Given(theta, affine, self._condition_affine(state), X, condition)

    def _copied(self, name: str, values: Any) -> Any:
        """Rows of float64 on the GPU."""
        if not isinstance(values, np.ndarray):
            return values
        n, dim = values.shape
        rows = self._memory.block(name, n, dim, np.float64)
        copy(np.ascontiguousarray(values), rows)
        return rows

    def _chunks(self, n: int) -> list[slice]:
        return [slice(start, min(start + self.chunk_rows, n)) for start in range(0, n, self.chunk_rows)]

    def _mapped(self, state: State, inverse: bool) -> tuple[bool, bool]:
        """Whether what leaves in one direction is mapped to the user's units, and whether that mixes columns."""
        mapped = self.program.standardized and inverse and state.standardization.shape[1] > 0
        return mapped, mapped and len(state.standardization) > 3

    def _u(self, n: int, wanted: bool) -> Any:
        """Scratch memory of float64 for maps that mix columns."""
        return self._memory.block("u", self._rows if wanted else 1, n, np.float64)

    def _pass(self, state: State, given: Given, inverse: bool, gradient: bool, key: Any, first: int) -> Passed:
        """Carry samples through all layers; for a gradient what each layer leaves is kept."""
        memory, n, (steps, embedding) = self._memory, len(given.x), self._prepared(inverse, gradient, len(given.x))
        total = float(sum(state.standardization[2])) if self.program.standardized else 0.0
        block, sums = memory.lanes("block", self._rows, n, self.dtype), memory.vector("sums", whole(n), np.float64)
        mapped, mixed = self._mapped(state, not inverse)
        launch(_ends().enter, n, given.x, given.affine, mapped, mixed, total if inverse else -total, self._u(n, mixed),
               block, sums)  # fmt: skip
        seen, context = self._see(given, n, embedding, key, first)
        works = []
        temp = memory.lanes("temp", self._temp_rows, n, self.dtype)
        for number, step in enumerate(steps):
            name = f"work {number}" if gradient else "work"
            works.append(memory.lanes(name, scratch_of_lane(step.operation).work, n, self.dtype))
            _launch(step, step.run, n, step.spec, given.theta, step.start, step.end, context, _key_of(key, number),
                    first, memory.lanes("block", step.operation.dim, n, self.dtype), sums, works[-1], temp)  # fmt: skip
        return Passed(n, first, given.theta, given.affine, given.condition_affine, given.x, given.condition, block, sums,
                      seen, context, works)  # fmt: skip

    def _see(self, given: Given, n: int, embedding: Step | None, key: Any, first: int) -> tuple[Any, Any]:
        """The standardized condition, and what the layers see of it."""
        memory, dim = self._memory, self.condition_dim
        if not dim:
            none = memory.lanes("context", 1, n, self.dtype)
            return none, none
        seen = memory.lanes("condition", dim, n, self.dtype)
        launch(_ends().enter_condition, n, given.condition, given.condition_affine, seen)
        if embedding is None:
            return seen, seen
        context = memory.lanes("context", self._context_rows, n, self.dtype)
        self._run_network(embedding, n, given.theta, _key_of(key, EMBEDDING_LAYER), first, seen, context, "embedding")
        return seen, context

    def _condition_affine(self, state: State) -> Any:
        """The standardization of conditions on the GPU."""
        table, dim = state.condition_standardization, self.condition_dim
        if not table.shape[1]:
            table = np.array([np.zeros(dim), np.ones(dim), np.full(dim, np.inf)])
        return self._memory.resident("condition", table)

    def _run_network(
        self, network: Step, n: int, theta: Any, key: Any, first: int, x: Any, out: Any, name: str
    ) -> None:  # fmt: skip
        """Fill `out` with what the embedding, or the network of the base, gives for x."""
        work, temp = self._scratch_of(network, n, name)
        _launch(network, network.run, n, network.spec, theta, network.start, network.end, key, first, x, out, work, temp)

    def _network_vjp(
        self, network: Step, passed: Passed, key: Any, x: Any, dout: Any, dx: Any, gradients: Any, name: str
    ) -> None:  # fmt: skip
        """From the gradient of what it gave that of x, and of its parameters."""
        n, rows = passed.n, 0 if gradients is None else 1
        work, temp = self._scratch_of(network, n, name)
        _launch(network, network.run_vjp, n, network.spec, passed.theta, network.start, network.end, key, passed.first, x,
                dout, dx, work, temp, self._memory.lanes("own", rows, n, self.dtype), rows)  # fmt: skip
        if rows:
            self._add(gradients, network.products, work, temp, x, dout, network.start, n)
            if network.matrices is not None:
                blocks = {"work": work, "temp": temp, "x": x, "dout": dout}
                network.matrices.add(network.outer, blocks, gradients, network.start, n)

    def _scratch_of(self, network: Step, n: int, name: str) -> tuple[Any, Any]:
        rows = scratch_of_lane(network.operation).work
        temp = self._memory.lanes("temp", self._temp_rows, n, self.dtype)
        return self._memory.lanes(name, rows, n, self.dtype), temp

    def _few(self, n: int) -> bool:
        """Whether n samples are few (`products.FEW`), where that makes a difference."""
        return self._narrow and n <= FEW

    def _base_network(self, gradient: bool, n: int) -> Step | None:
        """The network from what layers see of the condition to the numbers of the base, if there is one."""
        network = self.program.base_network
        if network is None:
            return None
        key = gradient, self._few(n)
        if key not in self._networks:
            self._networks[key] = prepare_network(
                network, gradient, self.dtype, self._context_rows, self._memory, self._few(n)
            )
        return self._networks[key]

    def _add_base(self, passed: Passed, gradient: bool, key: Any) -> Any:
        """The log-densities of samples, on the GPU."""
        assert self.program.base is not None
        base, start = self.program.base
        run, spec = self._base(False)
        network = self._base_network(gradient, passed.n)
        if network is not None:
            self._run_network(network, passed.n, passed.theta, _key_of(key, BASE_LAYER), passed.first, passed.context,
                              self._numbers(passed.block, network), "base network")  # fmt: skip
        log_prob = self._memory.vector("log_prob", passed.n, np.float64)
        launch(run, passed.n, spec, passed.theta, start, start + base.size,
               passed.block[: self._base_rows], passed.x, passed.given, int(self.condition_dim > 0), passed.sums,
               log_prob)  # fmt: skip
        return log_prob

    def _numbers(self, block: Any, network: Step) -> Any:
        """The last rows that the base is given of a block: what its network gives, or the gradient of that."""
        return block[self._base_rows - network.operation.n_out : self._base_rows]

    def _base(self, gradient: bool) -> tuple[Any, Any]:
        """The kernel of the base, or of its gradient, and its spec on the GPU."""
        assert self.program.base is not None
        if gradient not in self._bases:
            run, spec = base_kernel(self.program.base.operation, self.dtype, gradient)
            self._bases[gradient] = run, to_device(spec)
        return self._bases[gradient]

    def _leave_program(
        self, state: State, passed: Passed, dy: Any, dlog_det: Any, gradients: Any, inverse: bool, key: Any
    ) -> Any:  # fmt: skip
        """The cotangents (rows, n) of what left the layers; that of the context begins as the base's."""
        memory, n = self._memory, passed.n
        dblock = memory.lanes("dblock", self._rows, n, self.dtype)
        dcontext = memory.lanes("dcontext", self._context_rows, n, self.dtype)
        launch(kernels.clear, n, dcontext)
        if self.program.base is None or inverse:
            mapped, mixed = self._mapped(state, inverse)
            dy = to_device(dy) if isinstance(dy, np.ndarray) else dy
            launch(_ends().enter_cotangent, n, dy, passed.affine, mapped, mixed, self._u(n, mixed), dblock)
            return dblock
        base, start = self.program.base
        run, spec = self._base(True)
        launch(kernels.copy, n, passed.block, dblock)
        network = self._base_network(True, n)
        rows = 0 if gradients is None or network is not None else base.size
        own = memory.lanes("own", rows, n, self.dtype)
        launch(run, n, spec, passed.theta, start, start + base.size,
               memory.lanes("dblock", self._base_rows, n, self.dtype), dlog_det, own, rows)  # fmt: skip
        if rows:
            self._add(gradients, sums_of_own(rows), own, own, own, own, start, n)
        if network is not None:
            self._network_vjp(network, passed, _key_of(key, BASE_LAYER), passed.context, self._numbers(dblock, network),
                              dcontext, gradients, "base network")  # fmt: skip
        return dblock

    def _pass_back(self, passed: Passed, dblock: Any, dlog_det: Any, gradients: Any, inverse: bool, key: Any) -> Any:
        """Carry cotangents back through all layers, in place; returns that of the standardized condition."""
        memory, n, (steps, embedding) = self._memory, passed.n, self._prepared(inverse, True, passed.n)
        temp = memory.lanes("temp", self._temp_rows, n, self.dtype)
        dcontext = memory.lanes("dcontext", self._context_rows, n, self.dtype)
        for number, (step, work) in reversed(list(enumerate(zip(steps, passed.works)))):
            rows = 0 if gradients is None else own_rows(step.own)
            own = memory.lanes("own", rows, n, self.dtype)
            part = memory.lanes("dblock", step.operation.dim, n, self.dtype)
            _launch(step, step.run_vjp, n, step.spec, passed.theta, step.start, step.end, passed.context,
                    _key_of(key, number), passed.first, part, dlog_det, work, temp, own, step.own[0], rows,
                    dcontext)  # fmt: skip
            if rows:
                self._add(gradients, step.products, work, temp, passed.context, own, step.start, n)
                if step.matrices is not None:
                    blocks = {"work": work, "temp": temp, "context": passed.context}
                    step.matrices.add(step.outer, blocks, gradients, step.start, n)
        if embedding is None:
            return dcontext
        dcondition = memory.lanes("dcondition", self.condition_dim, n, self.dtype)
        self._network_vjp(embedding, passed, _key_of(key, EMBEDDING_LAYER), passed.condition, dcontext, dcondition,
                          gradients, "embedding")  # fmt: skip
        return dcondition

    def _add(self, gradients: Any, products: Any, work: Any, temp: Any, seen: Any, own: Any, offset: int, n: int) -> None:
        """Add products to the gradients of pieces of samples."""
        if products is not None:
            grid = products.shape[0], gradients.shape[0]
            launch_blocks(_add_products(self.dtype), grid, THREADS, products, work, temp, seen, own, gradients, offset,
                          n, shared_bytes=SHARED_SUMS * self.dtype.itemsize)  # fmt: skip

    def _prepared(self, inverse: bool, gradient: bool, n: int) -> tuple[list[Step], Step | None]:
        """The layers in the order in which they are run, and the embedding, for n samples."""
        key = inverse, gradient, self._few(n)
        if key not in self._steps:
            layers = self.program.layers[::-1] if inverse else self.program.layers
            made = functools.partial(
                prepare, dtype=self.dtype, context_rows=self._context_rows, memory=self._memory, few=self._few(n)
            )
            steps = [made(placed, functions_of(placed.operation, inverse)[: 1 + gradient]) for placed in layers]
            embedding, last = self.program.embedding, None
            if embedding is not None:
                last = prepare_network(embedding, gradient, self.dtype, self._context_rows, self._memory, self._few(n))
            self._steps[key] = steps, last
        return self._steps[key]


def _launch(step: Step, function: Any, n: int, *arguments: Any) -> None:
    """Launch one of a step's kernels for n samples, in whole blocks of threads where these multiply together."""
    if step.matrices is not None:
        function.launch(n, *arguments)
    elif step.lanes:
        launch_blocks(function, whole(n) // step.lanes, LANES, *arguments, shared_bytes=step.shared_bytes)
    else:
        launch(function, n, *arguments)


def _layer_key(key: int, layer: int) -> int:
    """A key of each layer's own from that of the step; 0 stays 0."""
    return key * 1024 + layer if key > 0 else 0


def _key_of(keys: Any, layer: int) -> Any:
    """That of a layer among `CudaProgram._keys`."""
    return keys if isinstance(keys, int) else keys[layer : layer + 1]


_ends = functools.cache(kernels.Ends)
_add_products = functools.cache(lambda dtype: make_add_products(dtype.type))
