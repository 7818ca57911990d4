"""Supports as kernels: tables of rows (n, d) from the user's values to numbers on the line and back, with gradients.

They do in float64 what the classes of `npflows.support` do in NumPy.  A spec is a header, then an entry for each column
that is not the whole line, for each group of columns, or for all pixels of an image.
"""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.calls import as_real
from npflows.backends.cpu.compiler.jit import inlined, kernel
from npflows.backends.cpu.kernels import column_supports, group_supports, pixel_supports
from npflows.backends.cpu.kernels.blocks import copy
from npflows.backends.cpu.link import bits
from npflows.core.operations import SUPPORT_KINDS, Supports

N_PARTS, BOUND, HEADER = range(3)
# an entry: its kind, the bits of two numbers, how many columns it has, and their numbers
KIND, LOW, HIGH, N_COLUMNS, COLUMNS = range(5)
ORDERED, SIMPLEX, PIXELS = map(SUPPORT_KINDS.index, ("ordered", "simplex", "pixels"))


@inlined
def entry(spec, r):
    """Kind, both numbers, and how many columns there are, of the entry that begins at r."""
    return spec[r + KIND], as_real(spec[r + LOW]), as_real(spec[r + HIGH]), spec[r + N_COLUMNS]


@inlined
def with_unknown(t, inside):
    """Rows with NaN are unknown and not outside: what is outside in them becomes NaN too."""
    for i in range(t.shape[0]):
        if inside[i] == 0.0:
            for d in range(t.shape[1]):
                if np.isnan(t[i, d]):
                    inside[i] = 1.0
            if inside[i] == 1.0:
                for d in range(t.shape[1]):
                    t[i, d] = np.nan


@kernel
def to_line(spec, x, t, log_det, inside):
    """Fill t (n, d), log_det (n,), and inside (n,), which is 1 for rows in the support and else 0."""
    copy(x, t)
    for i in range(x.shape[0]):
        log_det[i], inside[i] = 0.0, 1.0
    r, bound = HEADER, as_real(spec[BOUND])
    for _ in range(spec[N_PARTS]):
        kind, low, high, n = entry(spec, r)
        if kind == PIXELS:
            pixel_supports.to_line(low, high, t, log_det, inside)
        elif kind in (ORDERED, SIMPLEX):
            group_supports.to_line(kind, low, high, spec, r + COLUMNS, n, x, t, log_det, inside)
        else:
            column_supports.to_line(kind, low, high, bound, spec[r + COLUMNS], t, log_det, inside)
        r += COLUMNS + n
    with_unknown(t, inside)


@kernel
def to_line_vjp(spec, x, dt, dlog_det, dx):
    """Fill dx (n, d), from the gradients of t and log_det."""
    copy(dt, dx)
    r, bound = HEADER, as_real(spec[BOUND])
    for _ in range(spec[N_PARTS]):
        kind, low, high, n = entry(spec, r)
        if kind == PIXELS:
            pixel_supports.to_line_vjp(low, high, x, dt, dlog_det, dx)
        elif kind in (ORDERED, SIMPLEX):
            group_supports.to_line_vjp(kind, low, high, spec, r + COLUMNS, n, x, dt, dlog_det, dx)
        else:
            column_supports.to_line_vjp(kind, low, high, bound, spec[r + COLUMNS], x, dt, dlog_det, dx)
        r += COLUMNS + n


@kernel
def from_line(spec, t, x, log_det):
    """Fill x (n, d), whole numbers somewhere in their cells, and log_det (n,), of dx/dt."""
    copy(t, x)
    for i in range(x.shape[0]):
        log_det[i] = 0.0
    r, bound = HEADER, as_real(spec[BOUND])
    for _ in range(spec[N_PARTS]):
        kind, low, high, n = entry(spec, r)
        if kind == PIXELS:
            pixel_supports.from_line(low, high, x, log_det)
        elif kind in (ORDERED, SIMPLEX):
            group_supports.from_line(kind, low, high, spec, r + COLUMNS, n, t, x, log_det)
        else:
            column_supports.from_line(kind, low, high, bound, spec[r + COLUMNS], x, log_det)
        r += COLUMNS + n


@kernel
def from_line_vjp(spec, t, dx, dlog_det, dt):
    """Fill dt (n, d), from the gradients of x and log_det."""
    copy(dx, dt)
    r, bound = HEADER, as_real(spec[BOUND])
    for _ in range(spec[N_PARTS]):
        kind, low, high, n = entry(spec, r)
        if kind == PIXELS:
            pixel_supports.from_line_vjp(low, high, t, dx, dlog_det, dt)
        elif kind in (ORDERED, SIMPLEX):
            group_supports.from_line_vjp(kind, low, high, spec, r + COLUMNS, n, t, dx, dlog_det, dt)
        else:
            column_supports.from_line_vjp(kind, low, high, bound, spec[r + COLUMNS], t, dx, dlog_det, dt)
        r += COLUMNS + n


def pack(supports: Supports) -> list[int]:
    """The spec of a support.

    Raises
    ------
    NotImplementedError
        If a column is of a kind that has no kernels.
    """
    spec = [len(supports.parts), *bits(supports.bound)]
    for part in supports.parts:
        if part.kind not in SUPPORT_KINDS:
            raise NotImplementedError(f"columns {list(part.columns)} have a support that only NumPy evaluates")
        spec += [SUPPORT_KINDS.index(part.kind), *bits(*part.numbers), len(part.columns), *part.columns]
    return spec
