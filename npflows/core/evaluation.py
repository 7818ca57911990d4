"""How programs are run on what users have: tables of any size, layout and dtype, chunk by chunk, so that a memory-mapped
table is never copied whole; everything that comes out is float64.

A `Bijection` between the user's values and unconstrained ones may come before the program.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from npflows.core.backend import Executable, Pullback, Result, Share, State
from npflows.core.bijection import Bijection, Unconstrained
from npflows.core.gpu_arrays import TakesGpuArrays, is_on_gpu

_EMPTY_1, _EMPTY_2 = np.zeros(0), np.zeros((0, 0))


def transport(
    executable: Executable,
    state: State,
    x: NDArray,
    condition: NDArray | None,
    *,
    inverse: bool = False,
    y: bool = True,
    log_det: bool = True,
    log_prob: bool = False,
    bijection: Bijection | None = None,
) -> Result:
    """Carry samples through a program.

    Parameters
    ----------
    executable : Executable
    state : State
    x : ndarray (n, input_dim), or (n, output_dim) for the inverse
    condition : ndarray (n, condition_dim), optional
    inverse : bool
    y, log_det, log_prob : bool
        Which results are wanted.
    bijection : Bijection, optional
        The map before the program.

    Returns
    -------
    Result
        Rows outside the support have y and log_det NaN and log_prob -inf.
    """
    n, chunk = len(x), executable.chunk_rows
    result = Result(
        np.empty((n, executable.input_dim if inverse else executable.output_dim)) if y else _EMPTY_2,
        np.empty(n) if log_det else _EMPTY_1,
        np.empty(n) if log_prob else _EMPTY_1,
    )
    for start in range(0, n, chunk):
        rows, context, out = x, condition, result
        if n > chunk:
            part = slice(start, min(start + chunk, n))
            rows, context = x[part], None if condition is None else condition[part]
            out = Result(result.y[part], result.log_det[part], result.log_prob[part])
        rows, context = as_native(rows), _EMPTY_2 if context is None else as_native(context)
        if bijection is None:
            executable.transport(state, rows, context, out, inverse=inverse, origin=start)
        elif inverse:
            executable.transport(state, rows, context, out, inverse=True, origin=start)
            out.y[:], more = bijection.from_unconstrained(out.y)
            with np.errstate(invalid="ignore"):  # of infinities far out
                out.log_det[:] += more[: out.log_det.size]
        else:
            given = bijection.to_unconstrained(rows)
            executable.transport(state, given.t, context, out, origin=start)
            _add_log_det(given, out)
    return result


def pullback(
    executable: Executable,
    state: State,
    x: NDArray,
    condition: NDArray | None,
    *,
    dlog: NDArray,
    dy: NDArray | None = None,
    inverse: bool = False,
    input: bool = False,
    gradient: bool = True,
    skip_zero: bool = False,
    bijection: Bijection | None = None,
) -> Pullback:
    """Carry cotangents back through a program.

    Parameters
    ----------
    executable, state, x, condition, inverse, bijection
        As in `transport`.
    dlog : ndarray (n,)
        Cotangents of log_prob where the program has a base and is not inverted, else of log_det.
    dy : ndarray (n, output_dim), optional
        Those of the result.
    input, gradient : bool
        Whether the gradients with respect to the input and the condition, and to the parameters, are wanted.
    skip_zero : bool
        Leave out samples whose dlog is 0, whatever they hold.

    Returns
    -------
    Pullback
        The gradient is of theta, in float64.
    """
    n, chunk = len(x), executable.chunk_rows
    log_prob = np.zeros(n)  # what a program without a base leaves as it is
    dx = np.empty((n, executable.output_dim if inverse else executable.input_dim)) if input else _EMPTY_2
    dcondition = np.empty((n, executable.condition_dim)) if input and executable.condition_dim else _EMPTY_2
    total = np.zeros(state.theta.size if gradient else 0)
    for start in range(0, n, chunk):
        part = slice(start, min(start + chunk, n))
        if skip_zero and not dlog[part].all():
            used = start + np.flatnonzero(dlog[part])
            if len(used):
                some = pullback(executable, state, x[used], None if condition is None else condition[used],
                                dlog=dlog[used], gradient=gradient, bijection=bijection)  # fmt: skip
                log_prob[used] = some.log_prob
                total += some.gradient
            continue
        count = executable.buffer_count(part.stop - start, state.theta.nbytes)
        buffers = np.empty((count, total.size), state.theta.dtype)
        accumulate(executable, state, x[part], None if condition is None else condition[part], dlog[part], buffers,
                   dy=None if dy is None else dy[part], log_prob=log_prob[part], dx=dx[part],
                   dcondition=dcondition[part], inverse=inverse, origin=start, bijection=bijection)  # fmt: skip
        for buffer in buffers:
            total += buffer
    return Pullback(log_prob, dx, dcondition, total)


def accumulate(
    executable: Executable,
    state: State,
    x: NDArray,
    condition: NDArray | None,
    dlog: NDArray,
    buffers: NDArray,
    *,
    log_prob: NDArray,
    dy: NDArray | None = None,
    dx: NDArray = _EMPTY_2,
    dcondition: NDArray = _EMPTY_2,
    inverse: bool = False,
    key: int = 0,
    origin: int = 0,
    share: Share | None = None,
    bijection: Bijection | None = None,
) -> None:
    """Carry the cotangents of one chunk back into arrays that are given: gradient buffers (buffer_count, theta.size),
    log_prob (n,), and dx and dcondition unless they are empty.  With a `share` they are those of a part of the batch.

    x and condition may be on the GPU, from `TakesGpuArrays.gather`, where dx is not wanted.
    """
    rows = x if is_on_gpu(x) else as_native(x)
    context = _EMPTY_2 if condition is None else condition if is_on_gpu(condition) else as_native(condition)
    cotangents = _EMPTY_2 if dy is None else as_native(dy)
    dlog, entering, given = as_native(dlog), rows, None
    if bijection is not None and inverse:
        t = np.empty((len(rows), executable.input_dim))
        executable.transport(state, rows, context, Result(t, _EMPTY_1, _EMPTY_1), inverse=True, origin=origin)
        cotangents = bijection.from_unconstrained_vjp(t, cotangents, dlog)
    elif bijection is not None:
        on_gpu = is_on_gpu(rows)
        given = cast(TakesGpuArrays, executable).enter(rows, bijection) if on_gpu else bijection.to_unconstrained(rows)
        entering, dlog = given.t, np.where(given.inside, dlog, 0.0)
    more: dict[str, Any] = {} if share is None else {"share": share}
    executable.pullback(state, entering, context, cotangents, dlog, buffers, log_prob, dx, dcondition, inverse=inverse,
                        key=key, origin=origin, **more)  # fmt: skip
    if given is not None and bijection is not None:
        _add_log_det(given, Result(_EMPTY_2, _EMPTY_1, log_prob))
        if dx.size:
            dx[:] = bijection.to_unconstrained_vjp(rows, dx, dlog)


def _add_log_det(given: Unconstrained, out: Result) -> None:
    """Add the log-determinant of the bijection to what came out; rows outside the support have no density."""
    for values, outside in ((out.y, np.nan), (out.log_det, np.nan), (out.log_prob, -np.inf)):
        if values.size:
            if values.ndim == 1:
                values += given.log_det
            if not given.inside.all():
                values[~given.inside] = outside


def as_native(a: NDArray) -> NDArray:
    """As a contiguous, writable float64 array, which compiled code takes; a copy where it isn't one yet."""
    if type(a) is np.ndarray:
        if a.dtype != np.float64:
            return a.astype(np.float64, order="C")
        if a.flags.carray:
            return a
    return np.require(a, np.float64, ["C", "A", "W", "E"])
