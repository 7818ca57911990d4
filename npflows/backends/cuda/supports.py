"""Supports on the GPU: the CPU's kernels for rows of tables, whose texts are made anew for one row of each thread."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from npflows.backends.cpu.kernels import supports
from npflows.backends.cuda.device import cuda, empty, kernel, launch
from npflows.backends.cuda.kernels import texts_calling


class _Kernels:
    """The kernels of the two directions, and what they make of the program's results."""

    def __init__(self) -> None:
        texts = texts_calling(())
        to_line, from_line = texts.again(supports.to_line), texts.again(supports.from_line)
        to_line_vjp, from_line_vjp = texts.again(supports.to_line_vjp), texts.again(supports.from_line_vjp)

        def enter_line(spec, x, t, log_det, inside):
            """From the user's values (n, d) to the line."""
            i = cuda.grid(1)
            if i < x.shape[0]:
                to_line(spec, x[i : i + 1], t[i : i + 1], log_det[i : i + 1], inside[i : i + 1])

        def leave_line(spec, t, x, log_det):
            """From the line to the user's values."""
            i = cuda.grid(1)
            if i < x.shape[0]:
                from_line(spec, t[i : i + 1], x[i : i + 1], log_det[i : i + 1])

        def enter_line_vjp(spec, x, dt, dlog_det, dx):
            """The gradient of what enters the line."""
            i = cuda.grid(1)
            if i < x.shape[0]:
                to_line_vjp(spec, x[i : i + 1], dt[i : i + 1], dlog_det[i : i + 1], dx[i : i + 1])

        def leave_line_vjp(spec, t, dx, dlog_det, dt):
            """The gradient of what leaves it."""
            i = cuda.grid(1)
            if i < t.shape[0]:
                from_line_vjp(spec, t[i : i + 1], dx[i : i + 1], dlog_det[i : i + 1], dt[i : i + 1])

        def keep_inside(inside, dlog):
            """0 in the rows that are outside the support."""
            i = cuda.grid(1)
            if i < inside.size and inside[i] == 0:
                dlog[i] = 0.0

        def add(more, values):
            """values (n,) += more."""
            i = cuda.grid(1)
            if i < values.size:
                values[i] += more[i]

        def mark_outside(inside, outside, values):
            """Another value in the rows (n, d) that are outside the support."""
            i = cuda.grid(1)
            if i < inside.size and inside[i] == 0:
                for k in range(values.shape[1]):
                    values[i, k] = outside

        self.enter_line, self.leave_line = kernel(enter_line), kernel(leave_line)
        self.enter_line_vjp, self.leave_line_vjp = kernel(enter_line_vjp), kernel(leave_line_vjp)
        self.keep_inside = kernel(keep_inside)
        self.add, self.mark_outside = kernel(add), kernel(mark_outside)


_kernels = functools.cache(_Kernels)


def to_line(spec: Any, x: Any, t: Any = None) -> tuple[Any, Any, Any]:
    """Rows (n, d) on the line, in an array that is given or a new one, log |det dt/dx| (n,), and 1 for each row in the
    support, else 0."""
    t = empty(x.shape, np.float64) if t is None else t
    log_det, inside = empty(len(x), np.float64), empty(len(x), np.float64)
    launch(_kernels().enter_line, len(x), spec, x, t, log_det, inside)
    return t, log_det, inside


def from_line(spec: Any, t: Any) -> tuple[Any, Any]:
    """The user's values of rows (n, d) on the line, and log |det dx/dt| (n,)."""
    x, log_det = empty(t.shape, np.float64), empty(len(t), np.float64)
    launch(_kernels().leave_line, len(t), spec, t, x, log_det)
    return x, log_det


def to_line_vjp(spec: Any, x: Any, dt: Any, dlog_det: Any) -> Any:
    """The gradient (n, d) of rows, from those of the rows on the line and of log_det."""
    dx = empty(dt.shape, np.float64)
    launch(_kernels().enter_line_vjp, len(x), spec, x, dt, dlog_det, dx)
    return dx


def from_line_vjp(spec: Any, t: Any, dx: Any, dlog_det: Any) -> Any:
    """The gradient (n, d) of rows on the line, from those of the user's values and of log_det."""
    dt = empty(dx.shape, np.float64)
    launch(_kernels().leave_line_vjp, len(t), spec, t, dx, dlog_det, dt)
    return dt


def keep_inside(inside: Any, dlog: Any) -> None:
    """Rows outside the support have no gradient: 0 in dlog (n,)."""
    launch(_kernels().keep_inside, dlog.size, inside, dlog)


def finish(more: Any, inside: Any, y: Any, log_det: Any, log_prob: Any) -> None:
    """Make the results of a program, None where they are not wanted, those of the user's values."""
    n = more.size
    for values, outside in ((y, math.nan), (log_det, math.nan), (log_prob, -math.inf)):
        if values is not None:
            if values is not y:
                launch(_kernels().add, n, more, values)
            if inside is not None:
                launch(_kernels().mark_outside, n, inside, outside, values.reshape(n, values.size // n))
