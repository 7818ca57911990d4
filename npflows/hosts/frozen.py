"""Flows with the methods of SciPy's frozen distributions: of one column, and of several."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.base import Base, Cauchy, Laplace, Logistic, Normal, StudentT, Uniform
from npflows.core.checks import SeedLike, as_int, as_numeric, as_rng
from npflows.core.optional import scipy
from npflows.core.tables import Header
from npflows.flow import NormalizingFlow
from npflows.hosts.functions import as_real

SYMMETRIC = (Normal, StudentT, Uniform, Laplace, Cauchy, Logistic)
"""Bases whose upper tail is the mirror image of the lower one."""
WITH_MOMENTS = (Normal, Uniform, Laplace, Logistic)
"""Bases under which every moment of a flow that is affine far out exists."""
FARTHEST, NODES = 37.0, 20001
"""Standard normal values between which moments are integrated, and the number of points."""
STATISTICS = "mvsk"
"""Mean, variance, skewness and excess kurtosis, as SciPy's `stats` calls them."""
Shape = int | tuple[int, ...] | None
RandomState = SeedLike | np.random.RandomState
"""What SciPy's `rvs` takes as `random_state`."""


class Frozen:
    """What distributions of one column and of several have in common: density, samples, entropy.

    Parameters
    ----------
    flow : NormalizingFlow
    condition : array_like (condition_dim,), optional
        Where the flow takes one.
    rng : int, numpy.random.Generator or None
        Draws samples where no other is given.
    """

    def __init__(self, flow: NormalizingFlow, condition: ArrayLike | None = None, rng: SeedLike = None) -> None:
        if not isinstance(flow, NormalizingFlow):
            raise TypeError(f"a frozen distribution is made of a flow of npflows, got {type(flow).__name__}")
        if len(flow.input_shape) > 1:
            raise ValueError(f"the flow must be one of rows of columns, got one of samples of shape {flow.input_shape}")
        self.flow = flow
        given = flow.conditioning.finite_rows(condition, 1, "a frozen distribution")
        self.condition = None if given is None else given[0]
        self.random_state = as_rng(rng)

    @property
    def dim(self) -> int:
        """Number of columns."""
        return self.flow.latent_dim

    def _rows(self, x: ArrayLike) -> tuple[np.ndarray, tuple[int, ...]]:
        """x as rows, and the shape that a number for each of them has."""
        points = _numbers(x, "x", self.flow.headers.x)
        if not points.shape or points.shape[-1] != self.dim:
            raise ValueError(f"x must have the shape (..., {self.dim}), got {points.shape}")
        return points.reshape(-1, self.dim), points.shape[:-1]

    def logpdf(self, x: ArrayLike) -> Any:
        """Log-density at x (..., d): an array (...); -inf outside the support."""
        rows, shape = self._rows(x)
        return self.flow.log_prob(rows, self.condition).reshape(shape)[()]

    def pdf(self, x: ArrayLike) -> Any:
        """Density at x (..., d): an array (...)."""
        return np.exp(self.logpdf(x))

    def _draw(self, size: Shape, random_state: RandomState) -> tuple[np.ndarray, tuple[int, ...]]:
        lengths = [] if size is None else np.asarray(size, object).ravel().tolist()
        shape = tuple(as_int(length, "size", 0) for length in lengths)
        generator = self.random_state if random_state is None else _generator(random_state)
        return self.flow.sample(math.prod(shape), generator, condition=self.condition), shape

    def entropy(self) -> float:
        """Differential entropy in nats, a mean over samples; `NormalizingFlow.entropy` gives its error too."""
        return self.flow.entropy(rng=0, condition=self.condition).value


class FrozenColumns(Frozen):
    """A flow of several columns with the methods of SciPy's frozen multivariate distributions."""

    def rvs(self, size: Shape = 1, random_state: RandomState = None) -> Any:
        """Draw samples of the shape `size` with an axis of d after it; of size 1 a single one, as SciPy does."""
        x, shape = self._draw(size, random_state)
        return x[0] if shape in ((), (1,)) else x.reshape(*shape, self.dim)


class FrozenColumn(Frozen):
    """A flow of one column with the methods of SciPy's frozen continuous distributions.

    The cumulative distribution is the base's at the latent value, so that it and its inverse are as accurate as the flow's
    dtype.  On a circle it begins at the lower end.
    """

    def __init__(self, flow: NormalizingFlow, condition: ArrayLike | None = None, rng: SeedLike = None) -> None:
        super().__init__(flow, condition, rng)
        column = flow.support[0] if flow.support else None
        if column is not None and column.is_integer:
            raise ValueError("a column of whole numbers has no continuous distribution: use the flow's log_prob and sample")
        self._base = flow.base_under(flow.conditioning.rows(self.condition, 1))
        self._low, self._high = (-math.inf, math.inf) if column is None else column.bounds
        self._circle = column is not None and column.is_periodic
        self._start = float(self.flow.to_unit_cube([[self._low]], self.condition)[0, 0]) if self._circle else 0.0
        ends = self.flow.inverse([[-0.5], [0.5]], self.condition)[0][:, 0] if not self._circle else np.arange(2)
        self._rises = bool(ends[1] > ends[0])
        if flow.base.support is not None and column is None:
            reached = self.flow.inverse(np.array(flow.base.support), self.condition)[0][:, 0]
            self._low, self._high = float(reached.min()), float(reached.max())

    def _rows(self, x: ArrayLike) -> tuple[np.ndarray, tuple[int, ...]]:
        points = _numbers(x, "x")
        return points.reshape(-1, 1), points.shape

    def rvs(self, size: Shape = None, random_state: RandomState = None) -> Any:
        """Draw samples of the shape `size`; one number where it is None."""
        x, shape = self._draw(size, random_state)
        return x[0, 0] if size is None else x[:, 0].reshape(shape)

    def support(self) -> tuple[float, float]:
        """The ends between which all values lie."""
        return self._low, self._high

    def cdf(self, x: ArrayLike) -> Any:
        """The probability of values up to x."""
        return self._tail(x, upper=False)

    def sf(self, x: ArrayLike) -> Any:
        """The probability of values above x, to full accuracy where it is small and the base symmetric."""
        return self._tail(x, upper=True)

    def logcdf(self, x: ArrayLike) -> Any:
        """The logarithm of `cdf`."""
        with np.errstate(divide="ignore"):
            return np.log(self.cdf(x))

    def logsf(self, x: ArrayLike) -> Any:
        """The logarithm of `sf`."""
        with np.errstate(divide="ignore"):
            return np.log(self.sf(x))

    def _tail(self, x: ArrayLike, upper: bool) -> Any:
        rows, shape = self._rows(x)
        values = rows[:, 0]
        below, above = values <= self._low, values >= self._high
        result = np.where(below, 1.0 if upper else 0.0, np.where(above, 0.0 if upper else 1.0, np.nan))
        inside = ~(below | above | np.isnan(values))
        if inside.any():
            z = self.flow.forward(rows[inside], self.condition)[0]
            if self._circle:
                share = np.mod(_lower_tail(self._base, z)[:, 0] - self._start, 1.0)
                result[inside] = 1 - share if upper else share
            else:
                tail = _lower_tail if upper != self._rises else _upper_tail
                result[inside] = tail(self._base, z)[:, 0]
        return result.reshape(shape)[()]

    def ppf(self, q: ArrayLike) -> Any:
        """The value below which a share q of the probability lies; NaN for q outside 0 and 1."""
        return self._quantile(q, upper=False)

    def isf(self, q: ArrayLike) -> Any:
        """The value above which a share q of the probability lies; NaN for q outside 0 and 1."""
        return self._quantile(q, upper=True)

    def _quantile(self, q: ArrayLike, upper: bool) -> Any:
        shares = _numbers(q, "q")
        flat = shares.ravel()
        ends = (self._high, self._low) if upper else (self._low, self._high)
        result = np.where(flat == 0, ends[0], np.where(flat == 1, ends[1], np.nan))
        inside = (flat > 0) & (flat < 1)
        if inside.any():
            u = flat[inside, None]
            if self._circle:
                turned = np.mod((1 - u if upper else u) + self._start, 1.0)
                result[inside] = self.flow.from_unit_cube(turned, self.condition)[:, 0]
            else:
                quantile = _lower_quantile if upper != self._rises else _upper_quantile
                result[inside] = self.flow.inverse(quantile(self._base, u), self.condition)[0][:, 0]
        return result.reshape(shares.shape)[()]

    def median(self) -> float:
        """The value with half of the probability on either side."""
        return float(self.ppf(0.5))

    def interval(self, confidence: ArrayLike) -> tuple[Any, Any]:
        """The ends of the interval around the median with this probability and equal tails."""
        inner = _numbers(confidence, "confidence")
        if ((inner < 0) | (inner > 1)).any():
            raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")
        tail = (1 - inner) / 2
        return self.ppf(tail), self.isf(tail)

    def expect(self, function: Any = None) -> float:
        """The mean of function(x), of x itself by default, by quadrature.

        Parameters
        ----------
        function : callable, optional
            Of x (n,), to an array (n,); or, which takes longer, of one number.

        Raises
        ------
        ValueError
            If it does not give a number for each x.
        NotImplementedError
            If the base has tails for which means may not exist, Student's t for instance.
        """
        if not isinstance(self.flow.base, WITH_MOMENTS) and not self._circle:
            raise NotImplementedError(
                f"means over a flow whose base is {type(self.flow.base).__name__} may not exist: average over rvs()"
            )
        t = np.linspace(-FARTHEST, FARTHEST, NODES)
        share = scipy("special", "FrozenColumn.expect").ndtr(-np.abs(t))  # of the nearer tail
        x = np.where(t < 0, self.ppf(share), self.isf(share))
        weight = np.exp(-0.5 * t * t)
        values = x if function is None else _each(function, x)
        used = weight > 0
        return float((weight[used] * values[used]).sum() / weight.sum())

    def mean(self) -> float:
        """The mean; see `expect`."""
        return self.expect()

    def var(self) -> float:
        """The variance; see `expect`."""
        mean = self.expect()
        return self.expect(lambda x: (x - mean) ** 2)

    def std(self) -> float:
        """The standard deviation; see `expect`."""
        return math.sqrt(self.var())

    def moment(self, order: int) -> float:
        """The mean of x**order; see `expect`."""
        power = as_int(order, "order", 0)
        return self.expect(lambda x: x**power)

    def stats(self, moments: str = "mv") -> Any:
        """Mean "m", variance "v", skewness "s" and excess kurtosis "k", those whose letters are given; see `expect`.

        Returns
        -------
        float or tuple of float
            In the order of "mvsk"; one number for one letter.
        """
        if not isinstance(moments, str) or not moments or set(moments) - set(STATISTICS):
            raise ValueError(f"moments must be some of the letters of {STATISTICS!r}, got {moments!r}")
        mean, std = self.expect(), self.std()
        found = {"m": mean, "v": std**2}
        for name, power, normal in (("s", 3, 0.0), ("k", 4, 3.0)):
            if name in moments:
                found[name] = self.expect(lambda x, power=power: ((x - mean) / std) ** power) - normal
        chosen = tuple(found[name] for name in STATISTICS if name in moments)
        return chosen[0] if len(chosen) == 1 else chosen


def _numbers(values: ArrayLike, name: str, header: Header | None = None) -> NDArray[np.float64]:
    """An array of float64."""
    return as_numeric(values, name, header).astype(np.float64, copy=False)


def _generator(random_state: RandomState) -> np.random.Generator:
    """A generator of what `rvs` is given; SciPy's older one draws its seed."""
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(np.iinfo(np.int64).max, dtype=np.int64))
    return as_rng(random_state, "random_state")


def _each(function: Callable, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values (n,) of a function at x (n,), which is given all of x at once, or one after the other if it takes no
    arrays."""
    try:
        values = function(x)
    except (TypeError, ValueError):  # such as of `if x > 1`, and of `math.log`
        values = None
    if np.shape(values) == x.shape:
        return _numbers(values, "what the function gives")
    return np.array([as_real(function(value), "the function") for value in x])


def _mirrored(base: Base, values: np.ndarray) -> np.ndarray:
    return 2 * base.center - values


def _lower_tail(base: Base, z: np.ndarray) -> NDArray[np.float64]:
    return base.cdf(z)


def _upper_tail(base: Base, z: np.ndarray) -> NDArray[np.float64]:
    return base.cdf(_mirrored(base, z)) if isinstance(base, SYMMETRIC) else 1 - base.cdf(z)


def _lower_quantile(base: Base, u: np.ndarray) -> NDArray[np.float64]:
    return base.ppf(u)


def _upper_quantile(base: Base, u: np.ndarray) -> NDArray[np.float64]:
    return _mirrored(base, base.ppf(u)) if isinstance(base, SYMMETRIC) else base.ppf(1 - u)
