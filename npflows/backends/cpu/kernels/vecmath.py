"""Elementary functions that vectorize: scalar code without branches or calls, for use in compiled loops over lanes.

`math.exp` and its like are calls into the C library, one number at a time, 5 to 40 times slower.  Each function takes a
float32 or a float64 and returns the same type, within 3 units in the last place over the whole range (sinpi, cospi and
arctan within 5).  NaN propagates.

The float32 and the float64 functions are one text, built twice with constants of the type: one float64 constant in
float32 code would halve its speed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
from numba import types
from numba.extending import overload

from npflows.backends.cpu.compiler.jit import OVERLOADED, inlined

Real = TypeVar("Real", np.float32, np.float64)


@inlined
def _polynomial(x, coefficients):
    """Horner's scheme, highest power first."""
    p = coefficients[0]
    for k in range(1, len(coefficients)):
        p = p * x + coefficients[k]
    return p


def _build(
    real: type,
    unsigned: type,
    ln2_split: tuple[float, float],
    exp_coefficients: list[float],
    log_coefficients: list[float],
    sine_terms: int,
    arctan_terms: int,
) -> SimpleNamespace:
    """The functions for one type.

    `ln2_split` is ln(2) in two parts, the first with so few bits that its product with an exponent is exact.
    exp(r) = 1 + r + r**2 * p(r), and log(1 + f) = f - f**2 / 2 + s * (f**2 / 2 + z * p(z)) with s = f / (2 + f) and
    z = s**2; the coefficients of each p begin with the lowest power.
    """
    info: np.finfo = np.finfo(real)
    bias = info.maxexp - 1
    mantissa = unsigned(info.nmant)
    zero, half, one, two = real(0), real(0.5), real(1), real(2)
    inf, nan, smallest_normal = real(math.inf), real(math.nan), real(info.tiny)
    log2_e, ln2 = real(1 / math.log(2)), real(math.log(2))
    ln2_high, ln2_low = real(ln2_split[0]), real(ln2_split[1])

    exp_terms = tuple(map(real, reversed(exp_coefficients)))
    lowest = real((info.minexp - info.nmant - 2) * math.log(2))  # exp of less is 0
    lowest_normal = real(info.minexp * math.log(2) + 1e-4)
    highest = real((info.maxexp + 0.4) * math.log(2))  # exp of more is inf
    saturated = real((info.nmant + 4) * math.log(2))  # expm1 of less than -this is -1, tanh of more than its half is 1
    # Adding it rounds to an integer n, and leaves n + 2 * bias in the lowest bits.
    rounder = real(1.5 * 2.0**info.nmant + 2 * bias)
    bias_and_one = unsigned(bias + 1)

    log_terms = tuple(map(real, reversed(log_coefficients)))
    root_half_bits = real(math.sqrt(0.5)).view(unsigned)
    to_root_half = one.view(unsigned) - root_half_bits
    mantissa_mask = unsigned(2**info.nmant - 1)
    shift = real(2.0**info.nmant)  # an integer below it, put into its lowest bits, is added to it
    shift_bits = shift.view(unsigned)
    normal_offset, denormal_offset = real(2.0**info.nmant + bias), real(2.0**info.nmant + bias + info.nmant)
    root_two_less_one = real(math.sqrt(2) - 1)

    @inlined
    def reduce(x):
        """x = n ln(2) + r: n + 2 * bias in the lowest bits of an integer, n, and exp(r) - 1."""
        shifted = x * log2_e + rounder
        n = shifted - rounder
        r = x - n * ln2_high - n * ln2_low
        return real(shifted).view(unsigned), n, r + r * r * _polynomial(r, exp_terms)

    @inlined
    def exp(x):
        """e^x."""
        bits, _, p = reduce(min(max(x, lowest), highest))  # in this order of arguments NaN survives
        first = bits >> unsigned(1)  # 2**n in two factors, as it may be no normal number
        second = bits - first
        return (one + p) * unsigned(first << mantissa).view(real) * unsigned(second << mantissa).view(real)

    @inlined
    def exp_of_negative(x):
        """e^x for x <= 0, and no less than the smallest normal number."""
        bits, _, p = reduce(max(x, lowest_normal))
        return (one + p) * unsigned((bits - unsigned(bias)) << mantissa).view(real)

    @inlined
    def expm1(x):
        """e^x - 1."""
        bits, n, p = reduce(min(max(x, -saturated), highest))
        scale = unsigned((bits - bias_and_one) << mantissa).view(real)  # 2**(n - 1), as 2**n may overflow
        y = p * scale + (scale - half)
        return p if n == zero else y + y

    @inlined
    def log1p_reduced(f):
        """log(1 + f) for 1 + f from sqrt(1/2) to sqrt(2)."""
        s = f / (two + f)
        z = s * s
        h = half * f * f
        return f - (h - s * (h + z * _polynomial(z, log_terms)))

    @inlined
    def log(x):
        """log(x); -inf at 0, NaN below."""
        denormal = x < smallest_normal
        bits = unsigned(real(x * shift if denormal else x).view(unsigned) + to_root_half)
        n = unsigned((bits >> mantissa) | shift_bits).view(real) - (denormal_offset if denormal else normal_offset)
        f = unsigned((bits & mantissa_mask) + root_half_bits).view(real) - one
        y = n * ln2_high + (n * ln2_low + log1p_reduced(f))
        y = y if x < inf else x
        return y if x > zero else (-inf if x == zero else nan)

    @inlined
    def log1p(x):
        """log(1 + x)."""
        u = one + x
        lost = (x - (u - one)) / u  # NaN for -1 and inf
        return log(u) + (zero if math.isnan(lost) else lost)

    @inlined
    def tanh(x):
        """tanh(x)."""
        t = expm1(min(two * abs(x), saturated))
        y = t / (t + two)
        return -y if x < zero else y

    @inlined
    def softplus(x):
        """log(1 + e^x)."""
        e = exp(-abs(x))
        large = e > root_two_less_one
        y = log1p_reduced(half * e - half if large else e)
        return max(x, zero) + (y + (ln2 if large else zero))

    @inlined
    def sigmoid(x):
        """1 / (1 + e^-x)."""
        e = exp(-abs(x))
        return (one if x > zero else e) / (one + e)

    sine = tuple(real((-1) ** k * math.pi ** (2 * k + 1) / math.factorial(2 * k + 1)) for k in reversed(range(sine_terms)))

    @inlined
    def turns(x):
        """abs(x) less the even integer next to it, exactly."""
        y = half * abs(x)
        part = y - np.floor(y)
        return two * (part - one if part > half else part)

    @inlined
    def sine_of_half_turn(x):
        """sin(pi x) for x from -1/2 to 1/2, by its series."""
        return x * _polynomial(x * x, sine)

    @inlined
    def sinpi(x):
        """sin(pi x)."""
        r = turns(x)
        y = sine_of_half_turn((one if r > zero else -one) - r if abs(r) > half else r)
        return -y if x < zero else y

    @inlined
    def cospi(x):
        """cos(pi x)."""
        return sine_of_half_turn(half - abs(turns(x)))

    arctangent = tuple(real((-1) ** k / (2 * k + 1)) for k in reversed(range(arctan_terms)))
    quarter_turn, four = real(0.5 * math.pi), real(4)

    @inlined
    def arctan(x):
        """arctan(x): of 1 / x beyond 1, halved twice by a / (1 + sqrt(1 + a^2)), then by its series."""
        far = abs(x) > one
        a = one / x if far else x
        first = one + math.sqrt(one + a * a)
        h = a / first
        second = one + math.sqrt(one + h * h)
        h = h / second
        y = a * (four / (first * second) * _polynomial(h * h, arctangent))
        return (quarter_turn if x > zero else -quarter_turn) - y if far else y

    return SimpleNamespace(exp=exp, exp_of_negative=exp_of_negative, expm1=expm1, log=log, log1p=log1p, tanh=tanh,
                           softplus=softplus, sigmoid=sigmoid, sinpi=sinpi, cospi=cospi, arctan=arctan)  # fmt: skip


# exp: minimax fits of this project's own on |r| < ln(2) / 2, for the relative error of expm1.
# log, ln2: fdlibm, e_log.c, and its float32 version in FreeBSD's msun, e_logf.c and e_expf.c.
_SINGLE = _build(
    np.float32,
    np.uint32,
    (6.9314575195e-01, 1.4286067653e-06),
    [0.5, 0.16666666, 0.041666348, 0.0083333915, 0.0013941652, 0.00019845959],
    [0.66666662693, 0.40000972152, 0.28498786688, 0.24279078841],
    7,
    6,
)  # fmt: skip
_DOUBLE = _build(
    np.float64,
    np.uint64,
    (6.93147180369123816490e-01, 1.90821492927058770002e-10),
    [
        0.5000000000000006, 0.16666666666666588, 0.04166666666657676, 0.008333333333389545, 0.001388888893156468,
        0.00019841269719023238, 2.4801505274015094e-05, 2.7557407526397404e-06, 2.762603780749333e-07,
        2.5053780580927525e-08,
    ],
    [
        6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01,
        1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01,
    ],
    11,
    12,
)  # fmt: skip


def _by_type(function: Callable) -> Any:
    """The function of this name, chosen by the type of its argument, in compiled code as well as in Python."""
    single, double = getattr(_SINGLE, function.__name__), getattr(_DOUBLE, function.__name__)
    outside = [inlined(getattr(built, "py_func", built), python=True) for built in (single, double)]

    @functools.wraps(function)
    def by_type(x: Any) -> Any:
        real, built = (np.float32, outside[0]) if isinstance(x, np.float32) else (np.float64, outside[1])
        with np.errstate(all="ignore"):  # for when it is not compiled: overflow and 0 / 0 give the inf and NaN wanted
            return real(built(real(x)))

    @overload(by_type, jit_options=OVERLOADED)
    def compiled(x):
        if x not in (types.float32, types.float64):
            return None
        built = single if x == types.float32 else double
        return lambda x: built(x)

    return by_type


@_by_type
def exp(x: Any) -> Any:
    """e to the power of x, accurate also where the result is denormal."""


@_by_type
def exp_of_negative(x: Any) -> Any:
    """e to the power of x <= 0, or the smallest normal number where it is less: four fifths of the cost of `exp`."""


@_by_type
def expm1(x: Any) -> Any:
    """exp(x) - 1, accurate near zero."""


@_by_type
def log(x: Any) -> Any:
    """Natural logarithm: -inf at zero, NaN below."""


@_by_type
def log1p(x: Any) -> Any:
    """log(1 + x), accurate near zero: -inf at -1, NaN below."""


@_by_type
def tanh(x: Any) -> Any:
    """Hyperbolic tangent, accurate near zero."""


@_by_type
def softplus(x: Any) -> Any:
    """log(1 + exp(x)), accurate far into both tails."""


@_by_type
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), accurate far into the lower tail."""


@_by_type
def sinpi(x: Any) -> Any:
    """sin(pi x), exactly 0 at whole numbers."""


@_by_type
def cospi(x: Any) -> Any:
    """cos(pi x)."""


@_by_type
def arctan(x: Any) -> Any:
    """The angle between -pi / 2 and pi / 2 whose tangent is x."""
