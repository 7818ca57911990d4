"""The uniform base distribution."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.base.base import Base
from npflows.core import operations
from npflows.core.backend import select
from npflows.core.checks import as_int
from npflows.core.counters import Law, place
from npflows.core.parameters import Parameter


class Uniform(Base):
    """Independent uniform columns; the density is zero outside.

    Parameters
    ----------
    dim : int
        Number of columns.
    low, high : float or array_like (dim,)
        Bounds of each column, low < high.
    dtype : {"float32", "float64"}
    """

    def __init__(self, dim: int, low: ArrayLike = 0.0, high: ArrayLike = 1.0, *, dtype: DTypeLike = "float32") -> None:
        self.dim = as_int(dim, "dim")
        self.low, self.high = self._columns(low, "low"), self._columns(high, "high")
        if (self.low >= self.high).any():
            raise ValueError(f"low must be below high in every column, got low={low!r}, high={high!r}")
        super().__init__(dim, [Parameter("low", self.low, False), Parameter("high", self.high, False)], dtype=dtype)

    def operation(self) -> operations.Uniform:
        return operations.Uniform(self.dim)

    @property
    def support(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        views = self.parameters.views()
        return views["low"].astype(np.float64), views["high"].astype(np.float64)

    @property
    def center(self) -> NDArray[np.float64]:
        low, high = self.support
        return 0.5 * (low + high)

    def cdf(self, z: ArrayLike) -> NDArray[np.float64]:
        low, high = self.support
        return self._by_column(lambda z: np.clip((z - low) / (high - low), 0.0, 1.0), z, "z")

    def ppf(self, u: ArrayLike) -> NDArray[np.float64]:
        low, high = self.support
        return self._by_column(
            lambda u: np.where((u >= 0) & (u <= 1), np.minimum(low + u * (high - low), high), np.nan), u, "u"
        )

    def laws(self, n: int, rng: np.random.Generator) -> tuple[Law, ...]:
        low, high = self.support
        return (Law("uniform", place(rng, "uniform", n * self.dim), np.arange(self.dim), high - low, low),)

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        (low, high), values = self.support, n * self.dim
        z = select().uniforms(place(rng, "uniform", values), values).reshape(n, self.dim)
        z *= high - low
        z += low
        return z
