"""Bases of a location and a scale for each column: Laplace, Cauchy and logistic."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.base.base import Base
from npflows.core import operations
from npflows.core.backend import select
from npflows.core.checks import as_flag, as_int
from npflows.core.counters import LEAST, Law, place
from npflows.core.parameters import Parameter


class LocationScale(Base, abstract=True):
    """Independent columns q scale + loc, whose q have one density, symmetric around 0.

    Parameters
    ----------
    dim : int
        Number of columns.
    loc, scale : float or array_like (dim,)
        Center and scale of each column; scale is positive.
    learnable : bool
        Whether these are parameters, which start there; what is stored is the logarithm of the scale.
    dtype : {"float32", "float64"}
    """

    def __init__(
        self,
        dim: int,
        loc: ArrayLike = 0.0,
        scale: ArrayLike = 1.0,
        *,
        learnable: bool = False,
        dtype: DTypeLike = "float32",
    ) -> None:
        self.dim, self.learnable = as_int(dim, "dim"), as_flag(learnable, "learnable")
        self.loc, self.scale = self._columns(loc, "loc"), self._columns(scale, "scale")
        if (self.scale <= 0).any():
            raise ValueError(f"scale must be positive, got {scale!r}")
        super().__init__(dim, [Parameter("loc", self.loc, self.learnable), self._first_scale()], dtype=dtype)

    def _first_scale(self) -> Parameter:
        """The parameter that the scales are stored as."""
        return Parameter("log_scale", np.log(self.scale), self.learnable)

    @staticmethod
    def _lower(q: NDArray[np.float64]) -> NDArray[np.float64]:
        """The cumulative distribution of q <= 0."""
        raise NotImplementedError

    @staticmethod
    def _lower_quantile(p: NDArray[np.float64]) -> NDArray[np.float64]:
        """The q <= 0 of which p, from 0 to 1/2, is the cumulative distribution."""
        raise NotImplementedError

    @property
    def center(self) -> NDArray[np.float64]:
        return self.parameters.views()["loc"].astype(np.float64)

    @property
    def _scale(self) -> NDArray[np.float64]:
        return np.exp(self.parameters.views()["log_scale"].astype(np.float64))

    def cdf(self, z: ArrayLike) -> NDArray[np.float64]:
        def of(z: NDArray[np.float64]) -> NDArray[np.float64]:
            q = (z - self.center) / self._scale
            lower = self._lower(-np.abs(q))
            return np.where(q > 0, 1 - lower, lower)

        return self._by_column(of, z, "z")

    def ppf(self, u: ArrayLike) -> NDArray[np.float64]:
        return self._by_column(self._quantile, u, "u")

    def _quantile(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        p = np.where((u >= 0) & (u <= 1), np.minimum(u, 1 - u), np.nan)
        with np.errstate(divide="ignore"):  # at 0
            lower = self._lower_quantile(p)
        return self.center + self._scale * np.where(u > 0.5, -lower, lower)

    def laws(self, n: int, rng: np.random.Generator) -> tuple[Law, ...]:
        at, columns = place(rng, "uniform", n * self.dim), np.arange(self.dim)
        return (Law("quantile", at, columns, self._scale, self.center, quantile=self._lower_quantile),)

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        values = n * self.dim
        u = select().uniforms(place(rng, "uniform", values), values).reshape(n, self.dim)
        return self._quantile(np.clip(u, LEAST, 1 - LEAST))


class Laplace(LocationScale):
    """Independent Laplace columns, of density exp(-abs(z - loc) / scale) / (2 scale).

    Parameters
    ----------
    dim, loc, scale, learnable, dtype
        As in `Normal`; loc is the center.
    """

    def operation(self) -> operations.Laplace:
        return operations.Laplace(self.dim)

    @staticmethod
    def _lower(q: NDArray[np.float64]) -> NDArray[np.float64]:
        return 0.5 * np.exp(q)

    @staticmethod
    def _lower_quantile(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.log(2 * p)


class Cauchy(LocationScale):
    """Independent Cauchy columns, of density 1 / (pi scale (1 + ((z - loc) / scale)^2)).

    Parameters
    ----------
    dim, loc, scale, learnable, dtype
        As in `Normal`; loc is the center.
    """

    def operation(self) -> operations.Cauchy:
        return operations.Cauchy(self.dim)

    @staticmethod
    def _lower(q: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.arctan2(1.0, -q) / np.pi

    @staticmethod
    def _lower_quantile(p: NDArray[np.float64]) -> NDArray[np.float64]:
        near = -np.tan(np.pi * (0.5 - np.maximum(p, 0.25)))
        return np.where(p < 0.25, -1 / np.tan(np.pi * np.minimum(p, 0.25)), near)


class Logistic(LocationScale):
    """Independent logistic columns, whose cumulative distribution is 1 / (1 + exp(-(z - loc) / scale)).

    Parameters
    ----------
    dim, loc, scale, learnable, dtype
        As in `Normal`; loc is the center.
    """

    def operation(self) -> operations.Logistic:
        return operations.Logistic(self.dim)

    @staticmethod
    def _lower(q: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp(q) / (1 + np.exp(q))

    @staticmethod
    def _lower_quantile(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.log(p) - np.log1p(-p)
