"""Programs on arrays that lie on the GPU already, as users give and get them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cpu.bijection import CompiledBijection
from npflows.backends.cuda import arrays, kernels, rows, supports, whole_numbers
from npflows.backends.cuda.device import copy, empty, launch, on, require_device, to_device, to_host
from npflows.backends.cuda.draws import draw
from npflows.backends.cuda.memory import Memory
from npflows.core.backend import Pullback, Result, State
from npflows.core.bijection import Bijection, Unconstrained
from npflows.core.counters import Law
from npflows.core.operations import Program

_NOTHING = np.empty((0, 0))


class Carrier:
    """What `CudaProgram` does with such arrays; see `npflows.core.gpu_arrays.TakesGpuArrays`."""

    program: Program
    dtype: np.dtype
    input_dim: int
    output_dim: int
    condition_dim: int
    _memory: Memory

    def bijection(self, given: Bijection) -> Bijection:
        raise NotImplementedError

    def _transport(self, state: State, x: Any, condition: Any, out: Result, inverse: bool, origin: int) -> None:
        raise NotImplementedError

    def _pullback(self, state: State, x: Any, condition: Any, *rest: Any) -> None:
        raise NotImplementedError

    def _chunks(self, n: int) -> list[slice]:
        raise NotImplementedError

    def _condition_affine(self, state: State) -> Any:
        raise NotImplementedError

    take, fetch, give = staticmethod(arrays.take), staticmethod(arrays.fetch), staticmethod(arrays.give)
    on_stream_of, hold = staticmethod(arrays.on_stream_of), staticmethod(arrays.hold)

    def gather(self, table: Any, index: NDArray[np.integer], name: str) -> arrays.GpuArray:
        """See `npflows.core.gpu_arrays.TakesGpuArrays`."""
        require_device()
        with on():
            chosen = self._memory.block(f"chosen {name}", len(index), table.shape[1], np.float64)
            which = self._memory.vector("index", len(index), np.int64)
            copy(np.ascontiguousarray(index, np.int64), which)
            launch(rows.gather, len(index), table, which, chosen)
        return arrays.GpuArray(chosen)

    def enter(self, x: Any, bijection: Bijection) -> Unconstrained:
        """See `npflows.core.gpu_arrays.TakesGpuArrays`."""
        require_device()
        with on():
            x = arrays.own(x)
            line = self._memory.block("line", len(x), x.shape[1], np.float64)
            t, log_det, inside = supports.to_line(self._spec(bijection), x, line)
            entering: Any = arrays.GpuArray(t)
            return Unconstrained(entering, to_host(log_det), to_host(inside) != 0)

    def scatter(self, x: Any, bijection: Bijection, places: NDArray[np.float64]) -> arrays.GpuArray:
        """See `npflows.core.gpu_arrays.TakesGpuArrays`."""
        require_device()
        with on():
            x, none = arrays.own(x), self._memory.resident("no keys", np.zeros(0, np.uint64))
            placed = self._memory.block("placed", len(x), x.shape[1], np.float64)
            return arrays.GpuArray(whole_numbers.place(x, self._whole(bijection), to_device(places), none, placed))

    def maps(self, given: Bijection) -> bool:
        """See `npflows.core.gpu_arrays.TakesGpuArrays`."""
        return isinstance(self.bijection(given), CompiledBijection)

    def _spec(self, given: Bijection) -> Any:
        """What the kernels of a support read, on the GPU."""
        compiled = given if isinstance(given, CompiledBijection) else self.bijection(given)
        assert isinstance(compiled, CompiledBijection)
        return self._memory.resident("support", compiled.spec)

    def carry(
        self,
        state: State,
        x: Any,
        condition: Any,
        *,
        inverse: bool,
        wanted: tuple[bool, bool, bool],
        farthest: float,
        bijection: Bijection | None = None,
    ) -> Result:
        """See `npflows.core.gpu_arrays.TakesGpuArrays`."""
        require_device()
        n = len(x)
        shapes: list[Any] = [(n, self.input_dim if inverse else self.output_dim), n, n]
        results: list[Any] = [empty(shape, np.float64) if want else None for shape, want in zip(shapes, wanted)]
        out = Result(*results)
        if n:
            with on():
                x = _plain(x, n)
                condition = x if condition is None else _plain(condition, n)  # which is not read without one
                if bijection is None:
                    self._transport(state, x, condition, out, inverse, 0)
                elif inverse:
                    self._transport(state, x, condition, out, True, 0)
                    y, more = supports.from_line(self._spec(bijection), out.y)
                    out = Result(y, out.log_det, out.log_prob)
                    supports.finish(more, None, *out)
                else:
                    t, more, inside = supports.to_line(self._spec(bijection), x)
                    self._transport(state, t, condition, out, False, 0)
                    supports.finish(more, inside, *out)
                self._lose(state, condition, farthest, out)
        return out

    def pull(
        self,
        state: State,
        x: Any,
        condition: Any,
        *,
        dlog: Any,
        dy: Any = None,
        inverse: bool = False,
        input: bool = True,
        gradient: bool = True,
        with_condition: bool = True,
        farthest: float,
        bijection: Bijection | None = None,
    ) -> Pullback:
        """See `npflows.core.gpu_arrays.TakesGpuArrays`."""
        require_device()
        x, condition = arrays.own(x), arrays.own(condition)
        n, total = len(x), np.zeros(state.theta.size if gradient else 0)
        dims = self.output_dim if inverse else self.input_dim, self.condition_dim if with_condition else 0
        with on():
            log_prob = empty(n, np.float64)
            dx, dcondition = (empty((n, dim), np.float64) if input and dim else _NOTHING for dim in dims)
            rows = entering = _plain(x, n)
            condition = rows if condition is None else _plain(condition, n)
            dy = rows if dy is None else _plain(dy, n)
            more = inside = None
            if bijection is not None and n:
                dlog = _own_copy(dlog)
                if inverse:
                    t = empty((n, self.input_dim), np.float64)
                    self._transport(state, rows, condition, Result(t, _NOTHING, _NOTHING), True, 0)
                    dy = supports.from_line_vjp(self._spec(bijection), t, dy, dlog)
                else:
                    entering, more, inside = supports.to_line(self._spec(bijection), rows)
                    supports.keep_inside(inside, dlog)
            for part in self._chunks(n):
                buffers = np.empty((1, total.size), self.dtype)
                self._pullback(state, entering[part], condition[part], dy[part], dlog[part], buffers, log_prob[part],
                               dx[part], dcondition[part], inverse, 0, part.start)  # fmt: skip
                total += buffers[0]
            if more is not None and bijection is not None:
                supports.finish(more, inside, None, None, log_prob)
                if dx.size:
                    dx = supports.to_line_vjp(self._spec(bijection), rows, dx, dlog)
            self._lose(state, condition, farthest, (log_prob, dx, dcondition))
            if gradient and not self.all_near(state, condition, farthest):
                total[:] = np.nan
        return Pullback(log_prob, dx, dcondition, total)

    def settle(self, found: Pullback, bijection: Bijection | None) -> None:
        """See `npflows.core.gpu_arrays.TakesGpuArrays`."""
        log_prob, dx, dcondition, _ = found
        with on():
            launch(rows.settle, log_prob.size, log_prob, dx, dcondition if dcondition.size else dx)
            if bijection is not None and bijection.operation().integer:
                whole_numbers.clear(self._whole(bijection), dx)

    def mean(self, draws: Iterable[Pullback]) -> Pullback:
        """See `npflows.core.gpu_arrays.TakesGpuArrays`."""
        with on():
            return whole_numbers.mean(draws)

    def place(
        self, x: Any, bijection: Bijection, places: NDArray[np.float64], keys: NDArray[np.uint64] | None = None
    ) -> Any:  # fmt: skip
        """See `npflows.core.gpu_arrays.TakesGpuArrays`."""
        require_device()
        with on():
            held = to_device(np.zeros(0, np.uint64) if keys is None else keys)
            return whole_numbers.place(_plain(x, len(x)), self._whole(bijection), to_device(places), held)

    def fits(self, x: Any, bijection: Bijection) -> bool:
        """See `npflows.core.gpu_arrays.TakesGpuArrays`."""
        levels = bijection.operation().levels
        if not levels or not len(x):
            return True
        with on():
            return not to_host(whole_numbers.is_unfit(x, levels))[0]

    def quantize(self, x: Any, bijection: Bijection, dtype: np.dtype | None) -> Any:
        """See `npflows.core.gpu_arrays.TakesGpuArrays`."""
        with on():
            return whole_numbers.quantize(x, self._whole(bijection), bijection.operation().levels, dtype)

    def _whole(self, bijection: Bijection) -> Any:
        """The numbers of the columns of whole numbers, on the GPU."""
        return self._memory.resident("whole numbers", np.array(bijection.operation().integer, np.int64))

    def draw(
        self,
        laws: tuple[Law, ...],
        start: int,
        n: int,
        center: NDArray[np.float64] | None = None,
        factor: NDArray[np.float64] | None = None,
    ) -> Any:
        """See `npflows.core.gpu_arrays.TakesGpuArrays`."""
        require_device()
        with on():
            return draw(laws, start, n, center, factor)

    def all_near(self, state: State, condition: Any, farthest: float) -> bool:
        """See `npflows.core.gpu_arrays.TakesGpuArrays`."""
        if not self.condition_dim or not len(condition):
            return True
        with on():
            found = to_device(np.zeros(1, np.int64))
            launch(rows.find_lost, len(condition), condition, self._condition_affine(state), farthest, found)
            return not to_host(found)[0]

    def _lose(self, state: State, condition: Any, farthest: float, values: Any) -> None:
        """NaN in the rows of arrays whose condition is not finite or too far away."""
        for one in values if self.condition_dim else ():
            if one is not None and one.size:
                n = len(condition)
                launch(kernels.lose, n, condition, self._condition_affine(state), farthest, one.reshape(n, one.size // n))


def _own_copy(dlog: Any) -> Any:
    """Numbers (n,) of float64 on the GPU that may be changed."""
    if isinstance(dlog, np.ndarray):
        return to_device(dlog)
    n = dlog.size
    copied = empty(n, np.float64)
    launch(kernels.spread, n, dlog.reshape(n, 1), copied.reshape(n, 1))
    return copied


def _plain(values: Any, n: int) -> Any:
    """n rows of float64 in C order, without a copy where they are so already; one row may stand for all."""
    if len(values) == n and values.dtype == np.float64 and values.is_c_contiguous():
        return values
    plain = empty((n, values.shape[1]), np.float64)
    launch(kernels.spread, n, values, plain)
    return plain
