"""The normal base distribution."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.base.location_scale import LocationScale
from npflows.core import operations
from npflows.core.backend import select
from npflows.core.counters import Law, place
from npflows.core.optional import scipy
from npflows.core.parameters import Parameter


class Normal(LocationScale):
    """Independent normal columns.

    Parameters
    ----------
    dim : int
        Number of columns.
    loc, scale : float or array_like (dim,)
        Mean and standard deviation of each column; scale is positive.
    learnable : bool
        Whether these are parameters, which start there; what is stored then is the logarithm of the scale.
    dtype : {"float32", "float64"}
    """

    def _first_scale(self) -> Parameter:
        return super()._first_scale() if self.learnable else Parameter("scale", self.scale, False)

    def operation(self) -> operations.Normal:
        return operations.Normal(self.dim, self.learnable)

    @functools.cached_property
    def _is_standard(self) -> bool:
        return not self.learnable and bool((self.loc == 0).all() and (self.scale == 1).all())

    @property
    def _scale(self) -> NDArray[np.float64]:
        return super()._scale if self.learnable else self.parameters.views()["scale"].astype(np.float64)

    def cdf(self, z: ArrayLike) -> NDArray[np.float64]:
        ndtr = scipy("special", "the cumulative distribution of Normal").ndtr
        return self._by_column(lambda z: ndtr((z - self.center) / self._scale), z, "z")

    def ppf(self, u: ArrayLike) -> NDArray[np.float64]:
        ndtri = scipy("special", "the quantile function of Normal").ndtri
        return self._by_column(lambda u: self.center + self._scale * ndtri(u), u, "u")

    def laws(self, n: int, rng: np.random.Generator) -> tuple[Law, ...]:
        return (Law("normal", place(rng, "normal", n * self.dim), np.arange(self.dim), self._scale, self.center),)

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        values = n * self.dim
        z = select().normals(place(rng, "normal", values), values).reshape(n, self.dim)
        if not self._is_standard:
            z *= self._scale
            z += self.center
        return z
