"""Samples of base distributions, drawn on the GPU: the same counters, and so the same numbers but for rounding, as on the
CPU; see `npflows.core.counters`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cpu.kernels import counters, vecmath
from npflows.backends.cuda import beta_draws
from npflows.backends.cuda.device import (
    NUMPY,
    choose,
    cuda,
    device_function,
    dispatcher,
    empty,
    kernel,
    launch,
    to_device,
)
from npflows.backends.cuda.kernels import texts_calling
from npflows.backends.cuda.texts import Texts, least, most
from npflows.core.counters import LEAST, Law


def where(condition, a, b):
    """`numpy.where` of numbers."""
    return a if condition else b


def elementary(texts: Texts) -> Texts:
    """Texts for the quantiles of base distributions, which are written with functions of NumPy."""
    sinpi, cospi = texts.again(vecmath._DOUBLE.sinpi), texts.again(vecmath._DOUBLE.cospi)

    def tan(x):
        """Of numbers up to pi / 4; that of the GPU's library is for all, and needs memory for it."""
        turn = x / math.pi
        return sinpi(turn) / cospi(turn)

    made: dict[str, Callable[..., Any]] = {"where": where, "maximum": most, "minimum": least, "tan": tan}
    functions = {**NUMPY, "log1p": math.log1p, **{name: device_function(one) for name, one in made.items()}}
    return Texts(device_function, choose, {}, dispatcher({}, ()), functions)


class _Kernels:
    """The kernels: of laws of which a block of Philox gives two numbers, of Student's t, and of what is made of draws."""

    def __init__(self) -> None:
        texts = texts_calling(())
        philox, from_one = texts.again(counters.philox), texts.again(counters.from_one)
        two_normal, one_student_t = texts.again(counters.two_normal), texts.again(counters.one_student_t)
        low, half = counters._LOW, counters._HALF
        fraction_of = texts.compiled(beta_draws.fraction_of)
        lower_beta = texts.compiled(beta_draws.lower_quantile_by(fraction_of))
        of_numpy = elementary(texts)

        def numbers(key, number):
            """Two numbers from 1 to 2 of a block."""
            block, k0, k1 = np.uint64(number), np.uint64(key[0]), np.uint64(key[1])
            w0, w1, w2, w3 = philox(block & low, block >> half, np.uint64(key[2]), np.uint64(key[3]), k0, k1)
            return from_one(w0, w1), from_one(w2, w3)

        block_of = texts.compiled(numbers)

        def normal(a, b, shape):
            """Two numbers of a law, from two of a block; here of the normal one."""
            return two_normal(a, b)

        def uniform(a, b, shape):
            return a - 1.0, b - 1.0

        def one_of_beta(u, shape):
            x = lower_beta(1.0 - u if u > 0.5 else u, shape[0], shape[1])
            return 1.0 - 2.0 * x if u > 0.5 else 2.0 * x - 1.0

        quantile_of_beta = texts.compiled(one_of_beta)

        def of_beta(a, b, shape):
            return quantile_of_beta(a - 1.0, shape), quantile_of_beta(b - 1.0, shape)

        def pairs_of(law, title):
            """The kernel of a law."""
            two_of = texts.compiled(law)

            def draw_pairs(key, first, shape, columns, scale, shift, z):
                """Values `first` and on of a law, in rows of z (n, dim) and some of its columns, scaled and shifted."""
                pair, k = first // 2 + cuda.grid(1), columns.size
                at = 2 * pair - first
                if at < z.shape[0] * k:
                    a, b = block_of(key, pair)
                    a, b = two_of(a, b, shape)
                    if at >= 0:
                        z[at // k, columns[at % k]] = a * scale[at % k] + shift[at % k]
                    at += 1
                    if at < z.shape[0] * k:
                        z[at // k, columns[at % k]] = b * scale[at % k] + shift[at % k]

            return kernel(draw_pairs, title)

        def of_quantile(quantile):
            """The kernel of a symmetric law."""
            lower_quantile = of_numpy.again(quantile)

            def one(u):
                u = LEAST if u < LEAST else 1 - LEAST if u > 1 - LEAST else u
                lower = lower_quantile(1 - u if u > 0.5 else u)
                return -lower if u > 0.5 else lower

            one_of = texts.compiled(one)

            def two(a, b, shape):
                return one_of(a - 1.0), one_of(b - 1.0)

            return pairs_of(two, f"{quantile.__module__}.{quantile.__qualname__}")

        self.pairs = {"normal": pairs_of(normal, "normal"), "uniform": pairs_of(uniform, "uniform"),
                      "beta": pairs_of(of_beta, "beta")}  # fmt: skip
        self.of_quantile = functools.cache(of_quantile)

        def draw_mixture(key, first, bounds, columns, scale, shift, z):
            """Normal numbers in rows of z become those of a component (components, k), which a number chooses for each."""
            row = cuda.grid(1)
            if row < z.shape[0]:
                a, b = block_of(key, (first + row) // 2)
                u, chosen = (b if (first + row) % 2 else a) - 1.0, 0
                for k in range(scale.shape[0] - 1):
                    chosen += int(bounds[k] <= u)
                for i in range(columns.size):
                    z[row, columns[i]] = shift[chosen, i] + scale[chosen, i] * z[row, columns[i]]

        def draw_student_t(key, first, columns, df, z):
            """The same of Student's t, of which a block gives one value."""
            at, k = cuda.grid(1), columns.size
            if at < z.shape[0] * k:
                a, b = block_of(key, first + at)
                z[at // k, columns[at % k]] = one_student_t(df[at % k], a, b)

        def draw_in(z, center, factor):
            """Distances from the center multiplied by a factor (dim,)."""
            t = cuda.grid(1)
            if t < z.shape[0]:
                for k in range(z.shape[1]):
                    z[t, k] = center[k] + factor[k] * (z[t, k] - center[k])

        self.draw_mixture, self.draw_student_t, self.draw_in = kernel(draw_mixture), kernel(draw_student_t), kernel(draw_in)


_kernels = functools.cache(_Kernels)


def draw(laws: tuple[Law, ...], start: int, n: int, center: Any, factor: Any) -> Any:
    """Samples (n, dim) from number `start` on; see `npflows.core.gpu_arrays.TakesGpuArrays.draw`."""
    made = _kernels()
    z = empty((n, len(np.unique(np.concatenate([law.columns for law in laws])))), np.float64)
    for law in laws:
        width = 1 if law.name == "mixture" else len(law.columns)
        (key, first), values = law.place, n * width
        key, first, columns = to_device(key), first + start * width, to_device(np.asarray(law.columns, np.int64))
        if law.name == "student_t":
            launch(made.draw_student_t, values, key, first, columns, to_device(law.scale), z)
            continue
        arguments = to_device(_numbers(law)), columns, to_device(law.scale), to_device(law.shift), z
        if law.name == "mixture":
            launch(made.draw_mixture, n, key, first, *arguments)
        else:
            pairs = made.pairs[law.name] if law.quantile is None else made.of_quantile(law.quantile)
            launch(pairs, values // 2 + 1, key, first, *arguments)
    if factor is not None:
        launch(made.draw_in, n, z, to_device(center), to_device(factor))
    return z


def _numbers(law: Law) -> NDArray[np.float64]:
    """What a law's kernel reads, one number at least."""
    if law.name == "beta":
        return np.array([law.numbers[0], _half(float(law.numbers[0]))])
    return law.numbers if law.numbers.size else np.zeros(1)


@functools.lru_cache(64)
def _half(shape: float) -> float:
    """The fraction at 1/2 that quantiles are measured by."""
    return beta_draws.fraction_of(0.5, shape)
