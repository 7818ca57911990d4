"""A symmetric beta distribution as base, for latent values between two bounds."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.base.base import Base
from npflows.core import operations
from npflows.core.backend import select
from npflows.core.checks import as_int, as_positive
from npflows.core.counters import Law, place
from npflows.core.optional import scipy
from npflows.core.parameters import Parameter


class Beta(Base):
    """Independent columns on [-bound, bound], each with density proportional to (1 - (z / bound)^2)^(shape - 1).

    That is the beta distribution of two equal shapes, shifted and scaled: flat for 1, and near to a normal distribution
    for a large one.

    Parameters
    ----------
    dim : int
        Number of columns.
    shape : float
        Both shapes of the beta distribution, above 0.
    bound : float
        Where the density ends, above 0.
    dtype : {"float32", "float64"}
    """

    def __init__(self, dim: int, shape: float = 13.0, bound: float = 5.0, *, dtype: DTypeLike = "float32") -> None:
        self.dim, self.shape, self.bound = as_int(dim, "dim"), as_positive(shape, "shape"), as_positive(bound, "bound")
        super().__init__(dim, [Parameter("bound", np.array([self.bound]), False)], dtype=dtype)

    def operation(self) -> operations.Beta:
        return operations.Beta(self.dim, self.shape)

    @property
    def _bound(self) -> float:
        return float(self.parameters.views()["bound"][0])

    @property
    def support(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.full(self.dim, -self._bound), np.full(self.dim, self._bound)

    def cdf(self, z: ArrayLike) -> NDArray[np.float64]:
        betainc = scipy("special", "the cumulative distribution of Beta").betainc
        return self._by_column(
            lambda z: betainc(self.shape, self.shape, np.clip(0.5 + 0.5 * z / self._bound, 0.0, 1.0)), z, "z"
        )

    def ppf(self, u: ArrayLike) -> NDArray[np.float64]:
        return self._by_column(self._quantile, u, "u")

    def _quantile(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        inverse = scipy("special", "the quantile function of Beta").betaincinv
        lower = inverse(self.shape, self.shape, np.where((u >= 0) & (u <= 1), np.minimum(u, 1 - u), np.nan))
        return np.where(u > 0.5, 1 - 2 * lower, 2 * lower - 1) * self._bound

    def laws(self, n: int, rng: np.random.Generator) -> tuple[Law, ...]:
        at, bounds = place(rng, "uniform", n * self.dim), np.full(self.dim, self._bound)
        return (Law("beta", at, np.arange(self.dim), bounds, np.zeros(self.dim), np.array([self.shape])),)

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        values = n * self.dim
        u = select().uniforms(place(rng, "uniform", values), values).reshape(n, self.dim)
        return self._quantile(u)
