"""A mixture of normal distributions as base, for data in several parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.base.base import Base
from npflows.base.mixture_numbers import MixtureNumbers
from npflows.core import operations
from npflows.core.backend import select
from npflows.core.checks import SeedLike, as_flag, as_int, as_rng, as_vector
from npflows.core.counters import Law, place
from npflows.core.parameters import Parameter


class MixtureBase(Base, abstract=True):
    """Base class of mixtures of normal distributions; a subclass writes `_mixtures`."""

    def _mixtures(self, n: int) -> Iterator[tuple[slice, MixtureNumbers]]:
        """Parts of n samples, and the mixtures of each."""
        raise NotImplementedError

    @property
    def center(self) -> NDArray[np.float64]:
        """The mean (dim,), or that of each sample (n, dim)."""
        means = np.concatenate([mixtures.mean for _, mixtures in self._mixtures(self._n_means)])
        return means[0] if self._n_means == 1 else means

    _n_means = 1
    """How many means there are."""

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        u = select().uniforms(place(rng, "uniform", n), n)
        z = select().normals(place(rng, "normal", n * self.dim), n * self.dim).reshape(n, self.dim)
        for part, mixtures in self._mixtures(n):
            z[part] = mixtures.drawn(u[part], z[part])
        return z

    def cdf(self, z: ArrayLike) -> NDArray[np.float64]:
        return self._by_column(lambda z: self._in_parts(MixtureNumbers.cdf, z), z, "z")

    def ppf(self, u: ArrayLike) -> NDArray[np.float64]:
        return self._by_column(lambda u: self._in_parts(MixtureNumbers.ppf, u), u, "u")

    def _in_parts(
        self, function: Callable[[MixtureNumbers, NDArray[np.float64]], NDArray[np.float64]], values: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        result = np.empty_like(values)
        for part, mixtures in self._mixtures(len(values)):
            result[part] = function(mixtures, values[part])
        return result


class GaussianMixture(MixtureBase):
    """A mixture of normal distributions, each of independent columns: sum_k weights_k N(z; loc_k, diag(scale_k^2)).

    The columns depend on each other: `cdf` and `ppf` of a column are given those before it, so that `cdf` maps samples to
    the unit cube (Rosenblatt 1952, Annals of Mathematical Statistics 23, 470).

    Parameters
    ----------
    dim : int
        Number of columns.
    n_components : int
        Number of normal distributions.
    loc : array_like (n_components, dim), optional
        Their means; drawn from the standard normal distribution by default.
    scale : float or array_like (n_components, dim)
        Their standard deviations, positive.
    weights : array_like (n_components,), optional
        Their weights, positive, whatever their sum; equal by default.
    learnable : bool
        Whether means, standard deviations and weights are parameters, which start there; what is stored is the logarithms
        of the last two.
    dtype : {"float32", "float64"}
    rng : int, numpy.random.Generator or None
        Draws the means that are not given.

    Raises
    ------
    ValueError
        If a shape does not fit, a mean is not finite, or a standard deviation or a weight not positive.
    """

    def __init__(
        self,
        dim: int,
        n_components: int = 2,
        loc: ArrayLike | None = None,
        scale: ArrayLike = 1.0,
        weights: ArrayLike | None = None,
        *,
        learnable: bool = True,
        dtype: DTypeLike = "float32",
        rng: SeedLike = None,
    ) -> None:
        self.dim, self.n_components = as_int(dim, "dim"), as_int(n_components, "n_components")
        self.learnable = as_flag(learnable, "learnable")
        shape = self.n_components, self.dim
        drawn = as_rng(rng).standard_normal(shape) if loc is None else loc
        self.loc, self.scale = _table(drawn, shape, "loc"), _table(scale, shape, "scale")
        self.weights = np.full(self.n_components, 1 / self.n_components)
        if weights is not None:
            self.weights = as_vector(weights, self.n_components, "weights")
        if (self.scale <= 0).any() or (self.weights <= 0).any():
            raise ValueError(f"scale and weights must be positive, got {scale!r} and {weights!r}")
        values = {"logits": np.log(self.weights), "loc": self.loc, "log_scale": np.log(self.scale)}
        super().__init__(dim, [Parameter(name, value, self.learnable) for name, value in values.items()], dtype=dtype)

    def operation(self) -> operations.GaussianMixture:
        return operations.GaussianMixture(self.dim, self.n_components)

    def laws(self, n: int, rng: np.random.Generator) -> tuple[Law, ...]:
        chosen, drawn, columns = place(rng, "uniform", n), place(rng, "normal", n * self.dim), np.arange(self.dim)
        _, numbers = next(self._mixtures(n))
        return (
            Law("normal", drawn, columns, np.ones(self.dim), np.zeros(self.dim)),
            Law("mixture", chosen, columns, numbers.scale[0], numbers.loc[0], numbers.bounds[0]),
        )

    def _mixtures(self, n: int) -> Iterator[tuple[slice, MixtureNumbers]]:
        views = self.parameters.views().values()
        yield slice(0, n), MixtureNumbers.of(*(view.astype(np.float64)[None] for view in views))


def _table(value: ArrayLike, shape: tuple[int, int], name: str) -> NDArray[np.float64]:
    """Finite numbers of a shape (components, columns), or one for all."""
    array = np.asarray(value, np.float64)
    if array.shape not in ((), shape) or not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite numbers of shape {shape}, got {value!r}")
    return np.broadcast_to(array, shape).copy()
