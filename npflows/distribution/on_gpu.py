"""Questions to a flow on a GPU about samples that lie there: the answers stay there.

Samples with a support that only NumPy evaluates go to the host, and the answers come back.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.core.backend import Cotangents, Executable, Pullback
from npflows.core.checks import SeedLike, as_int, as_positive, as_rng, as_vector, as_weights
from npflows.core.gpu_arrays import TakesGpuArrays, is_on_gpu
from npflows.distribution.assembly import Assembly
from npflows.distribution.conditioning import FARTHEST

_NONE = np.zeros((0, 0))


def concerns(flow: Assembly, *given: Any) -> bool:
    """Whether some of it lies on the GPU and the flow runs there."""
    return flow.device != "cpu" and any(map(is_on_gpu, given))


def stays(flow: Any) -> bool:
    """Whether samples need not go over the host: they have no support, or one that is evaluated on the GPU."""
    preprocessing = flow.preprocessing
    return not preprocessing.has_support or _memory(flow.executable()).maps(preprocessing.bijection)


def mapped(flow: Any, x: Any, condition: Any, *, inverse: bool = False) -> tuple[Any, Any]:
    """`TransformedDistribution.forward` or its inverse."""
    if not stays(flow):
        return _by_way_of_the_host(flow, flow.inverse if inverse else flow.forward, "z" if inverse else "x", x, condition)
    y, log_det = _carried(flow, x, condition, inverse, (True, True, False))
    return y, log_det


def log_prob(flow: Any, x: Any, condition: Any, draws: int, rng: SeedLike) -> Any:
    """`TransformedDistribution.log_prob`."""
    if not stays(flow):
        return _by_way_of_the_host(flow, lambda *given: flow.log_prob(*given, draws=draws, rng=rng), "x", x, condition)
    memory, bijection = _memory(flow.executable()), flow.preprocessing.bijection
    with memory.on_stream_of(x, condition) as stream:
        rows, context = _taken(flow, memory, x, condition, "x")
        if not flow.preprocessing.has_integers:
            return _given(flow, memory, rows, context, False, (False, False, True), stream)[0]
        carry = functools.partial(memory.carry, flow.state(), condition=context, inverse=False,
                                  wanted=(False, False, True), farthest=FARTHEST[flow.dtype.name],
                                  bijection=bijection)  # fmt: skip
        found = (Pullback(carry(points).log_prob, _NONE, _NONE, _NONE) for points in _cells(memory, flow, rows, draws, rng))
        return memory.give(memory.mean(found).log_prob, stream)


def log_prob_and_grad(flow: Any, x: Any, condition: Any, wrt: str, draws: int, rng: SeedLike) -> tuple[Any, ...]:
    """`TransformedDistribution.log_prob_and_grad`, with wrt="both" only where there is a condition."""
    if not stays(flow):
        ask = functools.partial(flow.log_prob_and_grad, wrt=wrt, draws=draws, rng=rng)
        return _by_way_of_the_host(flow, ask, "x", x, condition)
    memory, bijection = _memory(flow.executable()), flow.preprocessing.bijection
    with memory.on_stream_of(x, condition) as stream:
        rows, context = _taken(flow, memory, x, condition, "x")
        n = len(rows)
        pull = functools.partial(memory.pull, flow.state(), condition=context, dlog=np.ones(n), gradient=False,
                                 with_condition=wrt == "both", farthest=FARTHEST[flow.dtype.name],
                                 bijection=bijection)  # fmt: skip
        if flow.preprocessing.has_integers and n:
            found = memory.mean(pull(points) for points in _cells(memory, flow, rows, draws, rng))
        else:
            found = pull(rows)
        memory.settle(found, bijection)
        answer = found.log_prob, found.dx.reshape(n, *flow.input_shape), found.dcondition
        return tuple(memory.give(values, stream) for values in answer[: 3 if wrt == "both" else 2])


def pulled(flow: Any, x: Any, dy: Any, dlog_det: Any, condition: Any, inverse: bool) -> Cotangents:
    """`TransformedDistribution.forward_vjp` or `inverse_vjp`; gradients of parameters are on the host, as these are."""
    name, given = ("z", "dx") if inverse else ("x", "dz")
    if not stays(flow):
        pull = flow.inverse_vjp if inverse else flow.forward_vjp
        result, give = pull(*fetched(flow, x, dy, dlog_det, condition)), _memory(flow.executable()).give
        onward = None if result.condition is None else give(result.condition, None)
        return Cotangents(give(result.input, None), result.params, onward)
    memory = _memory(flow.executable(with_base=False))
    with memory.on_stream_of(x, dy, dlog_det, condition) as stream:
        rows, context = _taken(flow, memory, x, condition, name)
        n, rows = len(rows), rows if inverse else _centered(flow, memory, rows)
        cotangents = _as_rows(flow, memory, dy, given)
        if len(cotangents) != n:
            raise ValueError(f"cotangents must have one row for each of the {n} samples, got {len(cotangents)}")
        dlog = as_vector(_fetched(flow, dlog_det), n, "dlog_det")
        found = memory.pull(flow.state(), rows, context, dlog=dlog, dy=cotangents, inverse=inverse,
                            farthest=FARTHEST[flow.dtype.name], bijection=flow.preprocessing.bijection)  # fmt: skip
        dx = memory.give(found.dx.reshape(n, *flow.input_shape), stream)
        dcondition = memory.give(found.dcondition, stream) if flow.condition_dim else None
        return Cotangents(dx, found.gradient[flow.parameters.free], dcondition)


def nll_and_grad(
    flow: Any, x: Any, sample_weight: Any, condition: Any, log_weight: Any
) -> tuple[float, NDArray[np.float64]]:
    """`TransformedDistribution.nll_and_grad`; log-densities come to the host, samples do not."""
    memory = _memory(flow.executable())
    weight, log_weight = _fetched(flow, sample_weight), _fetched(flow, log_weight)
    if not stays(flow):
        given = _fetched(flow, x), weight, _fetched(flow, condition)
        return flow.nll_and_grad(*given, log_weight=log_weight)
    with memory.on_stream_of(x, condition):
        rows, context = _taken(flow, memory, x, condition, "x")
        if not len(rows):
            raise ValueError("x must have at least one row")
        weights = as_weights(weight, len(rows), logarithms=log_weight)
        weights = np.full(len(rows), 1 / len(rows)) if weights is None else weights
        weights = weights / weights.sum()
        if flow.preprocessing.has_integers:
            places = flow.preprocessing.bijection.random_places(len(rows), np.random.default_rng(0))
            rows = memory.place(rows, flow.preprocessing.bijection, places)
        used = np.flatnonzero(weights)
        if len(used) < len(rows):
            if context is not None and len(context) > 1:
                context = memory.gather(context, used, "condition")
            rows, weights = memory.gather(rows, used, "x"), weights[used]
        found = memory.pull(flow.state(), rows, context, dlog=-weights, input=False, farthest=FARTHEST[flow.dtype.name],
                            bijection=flow.preprocessing.bijection)  # fmt: skip
        return float(-(weights * memory.fetch(found.log_prob)).sum()), found.gradient[flow.parameters.free]


def sample(flow: Any, n: int, rng: SeedLike, temperature: float, condition: Any, as_frame: bool | str) -> Any:
    """`TransformedDistribution.sample` under a condition on the GPU, which stays there."""
    memory = _memory(flow.executable())
    if as_frame is not False or not stays(flow):
        x = flow.sample(n, rng, temperature, condition=memory.fetch(condition), as_frame=as_frame)
        return x if as_frame is not False else memory.give(x, None)
    with memory.on_stream_of(condition) as stream:
        context = _as_condition(flow, memory, condition, n)
        if context is None or not memory.all_near(flow.state(), context, FARTHEST[flow.dtype.name]):
            flow.conditioning.finite_rows(memory.fetch(condition), n, "sample")  # says what is wrong with it
        given = memory.fetch(condition) if flow.base.condition_dim else None
        z = _Latent(flow, n, rng, temperature, given).part(memory, 0, n)
        return _given(flow, memory, z, context, True, (True, False, False), stream)[0]


def sampled(flow: Any, n: int, rng: SeedLike, temperature: float, condition: Any) -> NDArray[np.float64]:
    """n samples (n, input_dim) on the host, drawn and carried on the GPU; the condition is finite, (n, condition_dim) or
    None."""
    executable = flow.executable()
    memory, latent = _memory(executable), _Latent(flow, n, rng, temperature, condition)
    x = np.empty((n, flow.input_dim))
    for start in range(0, n, executable.chunk_rows):
        part = slice(start, min(start + executable.chunk_rows, n))
        context = None if condition is None else memory.take(condition[part], "condition")
        z = latent.part(memory, start, part.stop)
        found = memory.carry(flow.state(), z, context, inverse=True, wanted=(True, False, False),
                             farthest=FARTHEST[flow.dtype.name], bijection=flow.preprocessing.bijection)  # fmt: skip
        x[part] = memory.fetch(found.y)
    return x


def latent(flow: Any, n: int, rng: SeedLike, temperature: float, condition: Any) -> NDArray[np.float64]:
    """Samples (n, latent_dim) of the base on the host, those that `sampled` carries."""
    executable = flow.executable()
    drawn, z = _Latent(flow, n, rng, temperature, condition), np.empty((n, flow.latent_dim))
    for start in range(0, n, executable.chunk_rows):
        stop = min(start + executable.chunk_rows, n)
        z[start:stop] = _memory(executable).fetch(drawn.part(_memory(executable), start, stop))
    return z


class _Latent:
    """Samples of the base on the GPU, in parts: drawn there, or on the host where only the base itself can."""

    def __init__(self, flow: Any, n: int, rng: SeedLike, temperature: float, condition: Any) -> None:
        base, generator, temperature = flow.base, as_rng(rng), as_positive(temperature, "temperature")
        self._laws = base.laws(n, generator) if n else ()
        self._center = self._factor = None
        if self._laws is None:
            self._z = flow.base_under(condition).sample(n, generator, temperature)
        elif temperature != 1:
            self._center, self._factor = base.center, np.where(base.tempered, temperature, 1.0)
        self._dim = base.dim

    def part(self, memory: TakesGpuArrays, start: int, stop: int) -> Any:
        """Those from one number to another."""
        if self._laws is None:
            return memory.take(self._z[start:stop], "z")
        if not self._laws:
            return memory.take(np.zeros((0, self._dim)), "z")
        return memory.draw(self._laws, start, stop - start, self._center, self._factor)


def fetched(flow: Any, *values: Any) -> tuple[Any, ...]:
    """Values for a method of the host, with copies of those that lie on the GPU; `TakesGpuArrays.hold` knows them."""
    return tuple(_fetched(flow, one) for one in values)


def _fetched(flow: Any, values: Any) -> Any:
    return _memory(flow.executable()).fetch(values) if is_on_gpu(values) else values


def _memory(executable: Executable) -> TakesGpuArrays:
    assert isinstance(executable, TakesGpuArrays)  # as that of every device is but the CPU
    return executable


def _by_way_of_the_host(flow: Any, method: Callable[..., Any], name: str, x: Any, condition: Any) -> Any:
    memory = _memory(flow.executable())
    rows = _rows(memory.fetch(x), flow.input_shape, name) if is_on_gpu(x) else x
    answer = method(rows, _fetched(flow, condition))
    if isinstance(answer, tuple):
        return tuple(memory.give(values, None) for values in answer)
    return memory.give(answer, None)


def _carried(flow: Any, x: Any, condition: Any, inverse: bool, wanted: tuple[bool, bool, bool]) -> tuple[Any, ...]:
    """What is wanted of y, in the shape of samples, log_det and log_prob."""
    memory = _memory(flow.executable())
    with memory.on_stream_of(x, condition) as stream:
        rows, context = _taken(flow, memory, x, condition, "z" if inverse else "x")
        rows = rows if inverse else _centered(flow, memory, rows)
        return _given(flow, memory, rows, context, inverse, wanted, stream)


def _given(
    flow: Any, memory: Any, rows: Any, context: Any, inverse: bool, wanted: tuple[bool, bool, bool], stream: int | None
) -> tuple[Any, ...]:
    """The same, of rows and conditions that were taken."""
    farthest = FARTHEST[flow.dtype.name]
    y, *sums = memory.carry(flow.state(), rows, context, inverse=inverse, wanted=wanted, farthest=farthest,
                            bijection=flow.preprocessing.bijection)  # fmt: skip
    if y is not None:
        if inverse and flow.preprocessing.has_integers:
            y = memory.quantize(y, flow.preprocessing.bijection, flow.preprocessing.bijection.dtype)
        y = y.reshape(len(rows), *flow.input_shape)
    return tuple(memory.give(values, stream) for values in (y, *sums) if values is not None)


def _taken(flow: Any, memory: TakesGpuArrays, x: Any, condition: Any, name: str) -> tuple[Any, Any]:
    """Rows (n, dim) and conditions on the GPU."""
    rows = _as_rows(flow, memory, x, name)
    if name == "x" and flow.preprocessing.has_integers and not memory.fits(rows, flow.preprocessing.bijection):
        flow.preprocessing.check(memory.fetch(rows), name)  # says what is wrong with them
    return rows, _as_condition(flow, memory, condition, len(rows))


def _centered(flow: Any, memory: TakesGpuArrays, rows: Any) -> Any:
    """Rows with whole numbers in the middle of their cells."""
    preprocessing = flow.preprocessing
    if not preprocessing.has_integers:
        return rows
    return memory.place(rows, preprocessing.bijection, np.full((1, int(preprocessing.integer.sum())), 0.5))


def _cells(memory: TakesGpuArrays, flow: Any, rows: Any, draws: int, rng: SeedLike) -> Iterator[Any]:
    """The rows as many times as there are draws, with whole numbers at random places of their cells."""
    bijection = flow.preprocessing.bijection
    places, keys = bijection.cell_places(as_int(draws, "draws"), as_rng(rng))
    return (memory.place(rows, bijection, place[None], keys) for place in places)


def _as_rows(flow: Any, memory: TakesGpuArrays, x: Any, name: str) -> Any:
    if is_on_gpu(x):
        return _rows(memory.take(x, name), flow.input_shape, name)
    return memory.take(flow.preprocessing.rows(x, flow.input_shape, name)[0], name)


def _as_condition(flow: Any, memory: TakesGpuArrays, condition: Any, n: int) -> Any:
    """One condition, or one for each of n samples, on the GPU; None for a flow without."""
    if not is_on_gpu(condition) or not flow.condition_dim:
        context = flow.conditioning.rows(condition, n)
        return None if context is None else memory.take(context, "condition")
    context = memory.take(condition, "condition")
    if len(context.shape) == 1:
        context = context.reshape(1, context.size)
    context = _rows(context, (flow.condition_dim,), "condition")
    if len(context) not in (1, n):
        raise ValueError(f"condition must have one row, or one for each of the {n} samples, got {len(context)}")
    return context


def _rows(array: Any, shape: tuple[int, ...], name: str) -> Any:
    """(n, dim) rows of an array (n, *shape) or (n, dim)."""
    given, dim = tuple(array.shape), math.prod(shape)
    if len(given) < 2 or given[1:] not in (shape, (dim,)):
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"{name} on a GPU must have a row for each sample, (n, {wanted}), got shape {given}")
    return array if len(given) == 2 else array.reshape(given[0], dim)
