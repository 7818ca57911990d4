"""The normal base distribution."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.base.base import Base
from npflows.core import operations
from npflows.core.backend import select
from npflows.core.checks import as_flag, as_int
from npflows.core.counters import place
from npflows.core.optional import scipy
from npflows.core.parameters import Parameter


class Normal(Base):
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
        scales = Parameter("log_scale", np.log(self.scale)) if self.learnable else Parameter("scale", self.scale, False)
        super().__init__(dim, [Parameter("loc", self.loc, self.learnable), scales], dtype=dtype)

    def operation(self) -> operations.Normal:
        return operations.Normal(self.dim, self.learnable)

    @functools.cached_property
    def _is_standard(self) -> bool:
        return not self.learnable and bool((self.loc == 0).all() and (self.scale == 1).all())

    @property
    def center(self) -> NDArray[np.float64]:
        return self.parameters.views()["loc"].astype(np.float64)

    @property
    def _scale(self) -> NDArray[np.float64]:
        views = self.parameters.views()
        return np.exp(views["log_scale"].astype(np.float64)) if self.learnable else views["scale"].astype(np.float64)

    def cdf(self, z: ArrayLike) -> NDArray[np.float64]:
        ndtr = scipy("special", "the cumulative distribution of Normal").ndtr
        return self._by_column(lambda z: ndtr((z - self.center) / self._scale), z, "z")

    def ppf(self, u: ArrayLike) -> NDArray[np.float64]:
        ndtri = scipy("special", "the quantile function of Normal").ndtri
        return self._by_column(lambda u: self.center + self._scale * ndtri(u), u, "u")

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        values = n * self.dim
        z = select().normals(place(rng, "normal", values), values).reshape(n, self.dim)
        if not self._is_standard:
            z *= self._scale
            z += self.center
        return z
