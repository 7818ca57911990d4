"""Student's t as base distribution, for heavy tails (Jaini et al. 2020, arXiv:1907.04481)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.base.base import Base
from npflows.core import operations
from npflows.core.backend import select
from npflows.core.checks import as_flag, as_int
from npflows.core.counters import FARTHEST, Law, place
from npflows.core.optional import scipy
from npflows.core.parameters import Parameter


def density(v: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
    gammaln = scipy("special", "the density of StudentT").gammaln
    constant = gammaln(0.5 * (v + 1)) - gammaln(0.5 * v) - 0.5 * np.log(math.pi * v)
    return np.exp(constant - 0.5 * (v + 1) * np.log1p(t * t / v))


def lower_half(v: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cumulative distribution at t <= 0; near 0 the distance from 1/2 is computed by itself, which stdtr does not."""
    special = scipy("special", "the cumulative distribution of StudentT")
    near = 0.5 - 0.5 * special.betainc(0.5, 0.5 * v, t * t / (v + t * t))
    return np.where(t > -1, near, special.stdtr(v, t))


def lower_quantile(v: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
    """The t <= 0 with `lower_half(v, t)` = p <= 1/2.

    In the utmost tail, where SciPy's has no right digit, by p ~ constant |t|^-v; else SciPy's, which has 8 digits in some
    releases, and one step of Newton's method.
    """
    special = scipy("special", "the quantile function of StudentT")
    gammaln = special.gammaln
    log_constant = gammaln(0.5 * (v + 1)) - gammaln(0.5 * v) - 0.5 * math.log(math.pi) + (0.5 * v - 1) * np.log(v)
    utmost = -np.exp(np.minimum((log_constant - np.log(p)) / v, math.log(FARTHEST)))
    t = np.where(utmost < -1e8 * np.sqrt(v), utmost, -np.abs(special.stdtrit(v, p)))
    step = (lower_half(v, t) - p) / density(v, t)
    t = np.where(np.abs(step) < 1e-6 * (1 - t), t - step, t)
    return np.where(p == 0, -np.inf, np.where(p == 0.5, 0.0, np.minimum(t, 0.0)))


class StudentT(Base):
    """Independent columns with Student's t distribution.

    Parameters
    ----------
    dim : int
        Number of columns.
    df : float or array_like (dim,)
        Degrees of freedom of each column, between 0.1 and 1e6: where they start, if they are learned.
    learnable : bool
        Whether the degrees of freedom are parameters; what is stored is their logarithm.
    dtype : {"float32", "float64"}
    """

    def __init__(
        self, dim: int, df: ArrayLike = 5.0, *, learnable: bool = True, dtype: DTypeLike = "float32"
    ) -> None:  # fmt: skip
        self.dim = as_int(dim, "dim")
        self.df, self.learnable = self._columns(df, "df"), as_flag(learnable, "learnable")
        if (self.df < 0.1).any() or (self.df > 1e6).any():
            raise ValueError(f"df must lie between 0.1 and 1e6, got {df!r}")
        super().__init__(dim, [Parameter("log_df", np.log(self.df), self.learnable)], dtype=dtype)

    def operation(self) -> operations.StudentT:
        return operations.StudentT(self.dim)

    @property
    def degrees_of_freedom(self) -> NDArray[np.float64]:
        """The present degrees of freedom (dim,)."""
        return np.exp(np.clip(self.parameters.views()["log_df"].astype(np.float64), *operations.StudentT.log_df_bounds))

    def __repr__(self) -> str:
        fixed = "" if self.learnable else ", learnable=False"
        return f"StudentT(dim={self.dim}, df={self.degrees_of_freedom.round(4).tolist()}{fixed})"

    def cdf(self, z: ArrayLike) -> NDArray[np.float64]:
        def of(z: NDArray[np.float64]) -> NDArray[np.float64]:
            lower = lower_half(self.degrees_of_freedom, -np.abs(z))
            return np.where(z > 0, 1 - lower, lower)

        return self._by_column(of, z, "z")

    def ppf(self, u: ArrayLike) -> NDArray[np.float64]:
        def of(u: NDArray[np.float64]) -> NDArray[np.float64]:
            t = lower_quantile(self.degrees_of_freedom, np.where((u >= 0) & (u <= 1), np.minimum(u, 1 - u), np.nan))
            return np.where(u > 0.5, -t, t)

        return self._by_column(of, u, "u")

    def laws(self, n: int, rng: np.random.Generator) -> tuple[Law, ...]:
        at, df = place(rng, "student_t", n * self.dim), self.degrees_of_freedom
        return (Law("student_t", at, np.arange(self.dim), df, np.zeros(self.dim)),)

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        return select().student_ts(place(rng, "student_t", n * self.dim), n, self.degrees_of_freedom)
