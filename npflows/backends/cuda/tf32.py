"""The arithmetic of tensor cores on numbers of TF32, emulated with NumPy.

TF32 has the exponents of float32 and 10 bits of its fraction (NVIDIA, "NVIDIA A100 Tensor Core GPU Architecture", 2020).  A
number of float32 is the sum of two of TF32 but for the last bits of its fraction, and a product of numbers so split takes
three of tensor cores, all but the smallest of the four terms (Ootomo and Yokota 2022, arXiv:2203.03341).

Tensor cores multiply exactly, bring all terms of a sum to the largest exponent among them, cut off what is beyond a few
bits more than a float32 has, add exactly, and cut off again (Fasi and others 2021, doi:10.7717/peerj-cs.330).  How many
terms and bits they have is what north-numerical-computing/MATLAB-tensor-core found for each GPU.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MISSING = 13
"""Bits that TF32 lacks of the fraction of float32."""
FRACTION = 23
"""Bits of float32's fraction."""
LEAST = -133
"""The smallest exponent that terms are brought to."""


class Adder(NamedTuple):
    """How tensor cores add: so many products at a time, with so many bits more than a float32 has."""

    terms: int
    extra: int


A100, H100 = Adder(4, 1), Adder(8, 2)
STEP = 8
"""The depth of an instruction, ``mma.m16n8k8``."""
LEAST_DEPTH, LEAST_ROWS = 64, 32
"""Shorter sums are more exact in float32, of fewer than 32 products, and masks make zeros of half of them
(benchmarks/RESULTS.md, "On a GPU"); with fewer rows half of a tile would be empty."""


def worth_it(m: int, k: int) -> bool:
    """Whether products with so many rows, of sums of k products, are as exact on tensor cores, and fill them."""
    return m >= LEAST_ROWS and k >= LEAST_DEPTH


def cut(x: Any) -> Any:
    """Numbers without the bits that TF32 lacks: what tensor cores see of them."""
    return (np.asarray(x, np.float32).view(np.uint32) & np.uint32(0xFFFFFFFF << MISSING & 0xFFFFFFFF)).view(np.float32)


def rounded_number(x: Any) -> Any:
    """The nearest numbers of TF32, ties away from zero, as `cvt.rna.tf32.f32`, but of NaN it makes anything."""
    with np.errstate(over="ignore"):
        return cut((np.asarray(x, np.float32).view(np.uint32) + np.uint32(1 << (MISSING - 1))).view(np.float32))


def split(x: Any) -> tuple[Any, Any]:
    """Two numbers of TF32 whose sum is x but for the last bit of its fraction, as the big one is rounded to nearest."""
    big = rounded_number(x)
    return big, cut(x - big)


def multiply_add(a: NDArray, b: NDArray, c: NDArray, adder: Adder = H100) -> NDArray:
    """c (..., m, n) + a (..., m, k) @ b (..., k, n) of numbers of TF32, as float32 that tensor cores would give."""
    for p in range(0, a.shape[-1], adder.terms):
        left, right = a[..., :, p : p + adder.terms, None], b[..., None, p : p + adder.terms, :]
        c = _added(left, right, c, adder.extra)
    return c


def _added(left: NDArray, right: NDArray, c: NDArray, extra: int) -> NDArray:
    """The sum of c (..., m, n) and of the products of left (..., m, terms, 1) and right (..., 1, terms, n)."""
    with np.errstate(all="ignore"):
        products = left.astype(float) * right  # exact
        plain = (products.sum(axis=-2) + c).astype(np.float32)
        exponents = _exponent(left) + _exponent(right)
        largest = np.maximum(np.where(products == 0, LEAST, exponents).max(axis=-2), np.where(c == 0, LEAST, _exponent(c)))
        place = FRACTION + extra - np.maximum(largest, LEAST)
        terms = np.trunc(np.ldexp(products, place[..., None, :])).sum(axis=-2) + np.trunc(np.ldexp(c.astype(float), place))
        total = np.ldexp(terms, -place)
        nearest = total.astype(np.float32)
        cut = np.where(np.abs(nearest.astype(float)) > np.abs(total), np.nextafter(nearest, np.float32(0)), nearest)
    return np.where(np.isfinite(plain), cut, plain)


def product(a: NDArray, b: NDArray, adder: Adder = H100) -> NDArray:
    """a @ b as tensor_cores.py multiplies, for numbers without infinities and NaN."""
    (big_a, small_a), (big_b, small_b) = split(a), split(b)
    total = zero = np.zeros((len(a), b.shape[1]), np.float32)
    for p in range(0, len(b), STEP):
        part, here = zero, slice(p, p + STEP)
        for left, right in ((small_a, big_b), (big_a, small_b), (big_a, big_b)):
            part = multiply_add(left[:, here], right[here], part, adder)
        total = total + part
    return total


def _exponent(x: NDArray) -> NDArray:
    """The exponents of numbers, of denormal ones that of the smallest normal one."""
    return np.maximum(np.frexp(x)[1] - 1, -126)
