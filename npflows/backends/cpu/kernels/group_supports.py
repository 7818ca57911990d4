"""Groups of columns of a support, in rising order or as parts of a whole, in the formulas of `npflows.support.groups`.

Functions work on the columns `spec[at]`, ..., of row i of a table, in float64.  Where columns in rising order have an upper
end alone, their negative values in reversed order have a lower one: then they are taken `mirrored`.
"""

from __future__ import annotations

import numpy as np

from npflows.backends.cpu.compiler.jit import inlined
from npflows.backends.cpu.kernels import vecmath
from npflows.core.operations import SUPPORT_KINDS

ORDERED, SIMPLEX = map(SUPPORT_KINDS.index, ("ordered", "simplex"))
EPS = float(np.finfo(np.float64).eps)
SMALLEST = 5e-324
"""The smallest number above 0."""


@inlined
def is_mirrored(kind, low, high):
    """Whether columns in rising order have an upper end alone."""
    return kind == ORDERED and low == -np.inf and high < np.inf


@inlined
def has_rest(kind, low, high):
    """Whether values, or the gaps between them, are parts of a whole."""
    return kind == SIMPLEX or (low > -np.inf and high < np.inf)


@inlined
def whole_of(kind, low, high):
    """The whole of which there are parts; the first number of a simplex is its total."""
    return low if kind == SIMPLEX else high - low


@inlined
def n_free(kind, low, high):
    """How many values are free numbers as they are: the first one where there is no end at all."""
    return 1 if kind == ORDERED and low == -np.inf and high == np.inf else 0


@inlined
def contains(kind, low, high, spec, at, n, x, i):
    """Whether row i is inside; one with NaN is not."""
    rest = low
    for k in range(n):
        v = x[i, spec[at + k]]
        rest -= v
        if not np.isfinite(v):
            return False
        if kind == SIMPLEX:
            if not v > 0.0:
                return False
        elif not v > (x[i, spec[at + k - 1]] if k > 0 else low):
            return False
    return rest > 0.0 if kind == SIMPLEX else x[i, spec[at + n - 1]] < high


@inlined
def middle(kind, low, high, n, k):
    """The value in the k-th column of a row that is inside."""
    if kind == SIMPLEX:
        return low / (n + 1)
    if low > -np.inf and high < np.inf:
        return low + (high - low) * (k + 1) / (n + 1)
    if high < np.inf:
        return high - (n - k)
    return (k + 1.0) + (low if low > -np.inf else 0.0)


@inlined
def is_outside(kind, low, high, spec, at, n, x, i):
    """Whether row i is outside; one with NaN is not."""
    unknown = False
    for k in range(n):
        unknown |= np.isnan(x[i, spec[at + k]])
    return not unknown and not contains(kind, low, high, spec, at, n, x, i)


@inlined
def value(kind, low, high, spec, at, n, k, x, i, outside):
    """The k-th value of row i, which is moved inside if it is outside; `mirrored` is as above."""
    mirrored = is_mirrored(kind, low, high)
    j = n - 1 - k if mirrored else k
    v = middle(kind, low, high, n, j) if outside else x[i, spec[at + j]]
    return -v if mirrored else v


@inlined
def part(kind, low, high, spec, at, n, k, x, i, outside):
    """The k-th value of a simplex, or the gap before the k-th of values in rising order."""
    v = value(kind, low, high, spec, at, n, k, x, i, outside)
    if kind == SIMPLEX:
        return v
    if k > 0:
        return v - value(kind, low, high, spec, at, n, k - 1, x, i, outside)
    return v - (-high if is_mirrored(kind, low, high) else low if low > -np.inf else 0.0)


@inlined
def rest_of(kind, low, high, spec, at, n, x, i, outside):
    """What the parts leave of the whole."""
    if kind == ORDERED:
        return high - value(kind, low, high, spec, at, n, n - 1, x, i, outside)
    rest = low
    for k in range(n):
        rest -= value(kind, low, high, spec, at, n, k, x, i, outside)
    return rest


@inlined
def to_line(kind, low, high, spec, at, n, x, t, log_det, inside):
    """The group's columns of t, from those of x; log_det += log |det|; inside becomes 0 where a row is outside."""
    mirrored, parts, free = is_mirrored(kind, low, high), has_rest(kind, low, high), n_free(kind, low, high)
    for i in range(x.shape[0]):
        outside, log_rest, total = is_outside(kind, low, high, spec, at, n, x, i), 0.0, 0.0
        if outside:
            inside[i] = 0.0
        if parts:
            log_rest = vecmath.log(rest_of(kind, low, high, spec, at, n, x, i, outside))
        for k in range(n):
            gap = part(kind, low, high, spec, at, n, k, x, i, outside)
            if k < free:
                t[i, spec[at + k]] = gap
            else:
                log_gap = vecmath.log(gap)
                total += log_gap
                t[i, spec[at + (n - 1 - k if mirrored else k)]] = -log_gap if mirrored else log_gap - log_rest
        log_det[i] += vecmath.log(whole_of(kind, low, high)) - total - log_rest if parts else -total


@inlined
def to_line_vjp(kind, low, high, spec, at, n, x, dt, dlog_det, dx):
    """The group's columns of dx, from the gradients of t and log_det."""
    mirrored, parts, free = is_mirrored(kind, low, high), has_rest(kind, low, high), n_free(kind, low, high)
    for i in range(x.shape[0]):
        outside, from_rest, after = is_outside(kind, low, high, spec, at, n, x, i), 0.0, 0.0
        if parts:
            for k in range(n):
                from_rest += dt[i, spec[at + k]]
            from_rest = (from_rest + dlog_det[i]) / rest_of(kind, low, high, spec, at, n, x, i, outside)
        for k in range(n - 1, -1, -1):
            target = spec[at + (n - 1 - k if mirrored else k)]
            dpart = -dt[i, target] if mirrored else dt[i, target]
            if k >= free:
                dpart = (dpart - dlog_det[i]) / part(kind, low, high, spec, at, n, k, x, i, outside) + from_rest
            dvalue = dpart if kind == SIMPLEX else dpart - after
            after = dpart
            dx[i, target] = -dvalue if mirrored else dvalue


@inlined
def larger(a, b):
    """The larger one; NaN if either is NaN."""
    return a if a > b or np.isnan(a) else b


@inlined
def smaller(a, b):
    """The smaller one; NaN if either is NaN."""
    return a if a < b or np.isnan(a) else b


@inlined
def set_apart(low, high, spec, at, n, x, i):
    """Keep at least one number's distance between neighbors and from the ends, and values finite."""
    before = low
    for k in range(n):
        before = larger(x[i, spec[at + k]], np.nextafter(before, np.inf))
        x[i, spec[at + k]] = before
    after = high
    for k in range(n - 1, -1, -1):
        after = smaller(x[i, spec[at + k]], np.nextafter(after, -np.inf))
        x[i, spec[at + k]] = after


@inlined
def highest_of(spec, at, n, t, i):
    """The largest of the logarithms of ratios and of 0, that of the rest; NaN if one is NaN."""
    highest = 0.0
    for k in range(n):
        highest = larger(t[i, spec[at + k]], highest)
    return highest


@inlined
def sum_of_ratios(spec, at, n, t, i, highest):
    """The sum of exp(t - highest) over the parts and the rest."""
    total = 0.0
    for k in range(n):
        total += vecmath.exp(t[i, spec[at + k]] - highest)
    return total + vecmath.exp(-highest)


@inlined
def from_parts(kind, low, high, spec, at, n, t, x, i):
    """Row i of x where there is a rest; log |det dx/dt|."""
    width, highest, total = whole_of(kind, low, high), highest_of(spec, at, n, t, i), 0.0
    whole = sum_of_ratios(spec, at, n, t, i, highest)
    left, below, above = width, 0.0, vecmath.exp(-highest) / whole
    for k in range(n):
        share = vecmath.exp(t[i, spec[at + k]] - highest) / whole
        total += t[i, spec[at + k]]
        below += share
        x[i, spec[at + k]] = larger(width * share, SMALLEST) if kind == SIMPLEX else below
        left -= x[i, spec[at + k]]
    if kind == SIMPLEX:
        if left <= 0:
            for k in range(n):
                x[i, spec[at + k]] = larger(x[i, spec[at + k]] * (1 - 4 * (n + 1) * EPS), SMALLEST)
    else:
        for k in range(n - 1, -1, -1):
            below = x[i, spec[at + k]]
            x[i, spec[at + k]] = low + width * below if below < above else high - width * above  # exact near either end
            above += vecmath.exp(t[i, spec[at + k]] - highest) / whole
        set_apart(low, high, spec, at, n, x, i)
    return n * vecmath.log(width) + total - (n + 1) * (highest + vecmath.log(whole))


@inlined
def from_line(kind, low, high, spec, at, n, t, x, log_det):
    """The group's columns of x, kept inside, from those of t; log_det += log |det dx/dt|."""
    mirrored, free = is_mirrored(kind, low, high), n_free(kind, low, high)
    for i in range(t.shape[0]):
        if has_rest(kind, low, high):
            log_det[i] += from_parts(kind, low, high, spec, at, n, t, x, i)
        else:
            v = -high if mirrored else low if low > -np.inf else 0.0
            for k in range(n):
                target = spec[at + (n - 1 - k if mirrored else k)]
                log_gap = -t[i, target] if mirrored else t[i, target]
                if k < free:
                    v += log_gap
                else:
                    v += vecmath.exp(log_gap)
                    log_det[i] += log_gap
                x[i, target] = -v if mirrored else v
            set_apart(low, high, spec, at, n, x, i)


@inlined
def from_line_vjp(kind, low, high, spec, at, n, t, dx, dlog_det, dt):
    """The group's columns of dt, from the gradients of x and log_det."""
    mirrored, parts, free = is_mirrored(kind, low, high), has_rest(kind, low, high), n_free(kind, low, high)
    for i in range(t.shape[0]):
        highest, whole, along, after = 0.0, 1.0, 0.0, 0.0
        if parts:
            highest = highest_of(spec, at, n, t, i)
            whole = sum_of_ratios(spec, at, n, t, i, highest)
        for k in range(n - 1, -1, -1):
            target = spec[at + (n - 1 - k if mirrored else k)]
            dvalue = -dx[i, target] if mirrored else dx[i, target]
            after = dvalue if kind == SIMPLEX else after + dvalue
            if parts:
                share = vecmath.exp(t[i, target] - highest) / whole
                dt[i, target] = whole_of(kind, low, high) * share * after
                along += dt[i, target]
            elif k < free:
                dt[i, target] = after
            else:
                log_gap = -t[i, target] if mirrored else t[i, target]
                d = after * vecmath.exp(log_gap) + dlog_det[i]
                dt[i, target] = -d if mirrored else d
        if parts:
            for k in range(n):
                target = spec[at + k]
                share = vecmath.exp(t[i, target] - highest) / whole
                dt[i, target] += dlog_det[i] * (1 - (n + 1) * share) - share * along
