"""The base distribution of tables with columns on circles."""

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


class Cylinder(Base):
    """Independent columns, standard normal on the line and uniform on circles.

    Parameters
    ----------
    dim : int
        Number of columns.
    periodic : array_like of bool (dim,)
        Which columns are on a circle: the interval [-bound, bound], whose ends are the same point.
    bound : float
    dtype : {"float32", "float64"}
    """

    def __init__(self, dim: int, periodic: ArrayLike, bound: float, *, dtype: DTypeLike = "float32") -> None:
        self.dim, self.bound = as_int(dim, "dim"), as_positive(bound, "bound")
        self.periodic = np.asarray(periodic, bool)
        if self.periodic.shape != (self.dim,):
            raise ValueError(f"periodic must say for each of {self.dim} columns whether it is, got {periodic!r}")
        super().__init__(dim, [Parameter("bound", np.array([self.bound]), False)], dtype=dtype)

    def operation(self) -> operations.Cylinder:
        return operations.Cylinder(tuple(self.periodic.tolist()))

    @property
    def tempered(self) -> NDArray[np.bool_]:
        return ~self.periodic

    def laws(self, n: int, rng: np.random.Generator) -> tuple[Law, ...]:
        lines, circles = np.flatnonzero(~self.periodic), np.flatnonzero(self.periodic)
        bounds = np.full(len(circles), self.bound)
        return (
            Law("normal", place(rng, "normal", n * len(lines)), lines, np.ones(len(lines)), np.zeros(len(lines))),
            Law("uniform", place(rng, "uniform", n * len(circles)), circles, 2 * bounds, -bounds),
        )

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        z, circles = np.empty((n, self.dim)), n * int(self.periodic.sum())
        lines = z.size - circles
        z[:, ~self.periodic] = select().normals(place(rng, "normal", lines), lines).reshape(n, -1)
        u = select().uniforms(place(rng, "uniform", circles), circles).reshape(n, -1)
        z[:, self.periodic] = self.bound * (2 * u - 1)
        return z

    def cdf(self, z: ArrayLike) -> NDArray[np.float64]:
        ndtr = scipy("special", "the cumulative distribution of Cylinder").ndtr
        on_circle = lambda z: np.clip((z + self.bound) / (2 * self.bound), 0.0, 1.0)  # noqa: E731
        return self._by_column(lambda z: np.where(self.periodic, on_circle(z), ndtr(z)), z, "z")

    def ppf(self, u: ArrayLike) -> NDArray[np.float64]:
        ndtri = scipy("special", "the quantile function of Cylinder").ndtri
        return self._by_column(lambda u: np.where(self.periodic, self.bound * (2 * u - 1), ndtri(u)), u, "u")
