"""Convolutions on one thread, beside matrix products of the same sizes, whose right operand is laid out for them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from npflows.backends.cpu.compiler.calls import address
from npflows.backends.cpu.kernels.convolution import CONVOLVE, CONVOLVE_OUTER, offsets

from . import loops, products
from .common import DTYPES, Repeat, few
from .kernels import best

FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = "forward", "input gradient", "weight gradient"


class Convolution(NamedTuple):
    """Of square images in blocks of 16 samples, as wide flows of images have them."""

    channels_in: int
    channels_out: int
    kernel_size: int
    side: int
    lanes: int = 16

    def __str__(self) -> str:
        k = self.kernel_size
        return f"{k}x{k}, {self.channels_in} to {self.channels_out} channels, {self.side}x{self.side} pixels"

    def product(self, kind: str) -> tuple[int, int]:
        """Rows of the result and how many products each entry sums (weight gradient: its columns)."""
        area = self.kernel_size**2
        if kind == INPUT_GRADIENT:
            return self.channels_in, area * self.channels_out
        return self.channels_out, area * self.channels_in

    @property
    def columns(self) -> int:
        """Pixels of all samples."""
        return self.side**2 * self.lanes

    def own(self, kind: str, dtype: str) -> Repeat:
        """npflows' kernel, called by address as the networks call it."""
        rng, side, (m, k) = np.random.default_rng(0), self.side, self.product(kind)
        size = side, side, self.lanes
        table = offsets(k // self.kernel_size**2, self.kernel_size, side, side)
        left = self._planes(m, dtype) if kind == WEIGHT_GRADIENT else rng.standard_normal(m * k).astype(dtype)
        right, result = self._planes(k // self.kernel_size**2, dtype), np.zeros_like(self._planes(m, dtype))
        if kind == WEIGHT_GRADIENT:
            number, weights = address(*CONVOLVE_OUTER, np.dtype(dtype)), np.zeros(m * k, dtype)
            return lambda n: loops.own_convolution_outer(number, table, left, right, weights, m, k, *size, n)
        number = address(*CONVOLVE, np.dtype(dtype))
        return lambda n: loops.own_convolution(number, table, left, right, result, m, k, *size, n)

    def _planes(self, channels: int, dtype: str) -> np.ndarray:
        """Images with a border of zeros, flat."""
        planes = np.zeros((channels, self.side + 2, self.side + 2, self.lanes), dtype)
        inside = planes[:, 1:-1, 1:-1]
        inside[:] = np.random.default_rng(1).standard_normal(inside.shape)
        return planes.ravel()

    def matmul(self, contender: str, kind: str, dtype: str) -> Repeat:
        """The product of the same sizes."""
        return products.CONTENDERS[contender](
            "outer" if kind == WEIGHT_GRADIENT else "product", *self.product(kind), self.columns, dtype
        )


CONVOLUTIONS = {str(c): c for c in (
    Convolution(2, 64, 3, 16), Convolution(64, 64, 1, 16), Convolution(64, 4, 3, 16),
    Convolution(12, 512, 3, 8), Convolution(512, 512, 1, 8), Convolution(512, 24, 3, 8),
)}  # fmt: skip
"""Those of a block of Glow: its first scale at width 64, its second at width 512."""


class Convolutions:
    """GFLOP/s of one thread: more is better."""

    params = (list(few(*CONVOLUTIONS)), [FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT], few(*DTYPES))
    param_names = ("convolution", "what", "dtype")
    unit = "GFLOP/s"
    timeout = 180

    def _rate(self, run: Repeat, convolution: str, what: str) -> float:
        (m, k), columns = CONVOLUTIONS[convolution].product(what), CONVOLUTIONS[convolution].columns
        run(1)
        with threadpool_limits(1):
            return 2e-9 * m * k * columns / best(run)

    def track_npflows(self, convolution: str, what: str, dtype: str) -> float:
        return self._rate(CONVOLUTIONS[convolution].own(what, dtype), convolution, what)

    def track_product_by_npflows(self, convolution: str, what: str, dtype: str) -> float:
        return self._rate(CONVOLUTIONS[convolution].matmul("npflows", what, dtype), convolution, what)

    def track_product_by_numpy(self, convolution: str, what: str, dtype: str) -> float:
        return self._rate(CONVOLUTIONS[convolution].matmul("NumPy", what, dtype), convolution, what)
