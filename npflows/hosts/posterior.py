"""What samplers call: the prior transform of a flow, log-likelihoods that they can take, and the posterior of both.

Objects of these classes can be pickled wherever the user's own function can, so that pools take them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.core.checks import SeedLike, as_flag, as_int, as_numeric, as_rng
from npflows.ensemble import Ensemble
from npflows.flow import NormalizingFlow
from npflows.hosts.functions import as_real
from npflows.inference.unconstrained import UnconstrainedDensity
from npflows.support import Below, Column, Interval, Periodic, Positive
from npflows.support.groups import Group

FLOOR = -1e100
"""A log-likelihood that stands for -inf where a sampler can't take it: no weight is above 0 with it."""
LikelihoodLike = NormalizingFlow | Callable[[Any], Any]
"""A function of parameters, or a flow whose log-density is the log-likelihood."""


class PriorTransform:
    """The map from the unit cube to samples of a flow: one point u (d,) or many u (n, d).

    Parameters
    ----------
    flow : NormalizingFlow
        The prior.
    condition : array_like (condition_dim,), optional
        Where it takes one.
    """

    def __init__(self, flow: NormalizingFlow, condition: ArrayLike | None = None) -> None:
        self.flow, self.condition = as_prior(flow), condition
        flow.from_unit_cube(np.full((1, flow.latent_dim), 0.5), condition)  # says now what it would say later

    @property
    def n_dim(self) -> int:
        """Number of parameters."""
        return self.flow.latent_dim

    def __call__(self, u: ArrayLike) -> NDArray[np.float64]:
        return np.asarray(self.flow.from_unit_cube(u, self.condition), np.float64)


class LogLikelihood:
    """A log-likelihood for samplers, of one point x (d,) or many x (n, d).

    Parameters
    ----------
    log_likelihood : callable or NormalizingFlow
        A function of x, or a flow, whose log-density is taken; or a `LogLikelihood`, which gets another
        floor.
    vectorized : bool
        Whether the function takes many points x (n, d) and gives n values; else it is called for one x (d,) after the
        other.
    floor : float or None
        The value that replaces -inf and everything below it; None leaves -inf as it is.
    condition : array_like (condition_dim,), optional
        Of a flow that takes one.
    """

    log_likelihood: LikelihoodLike
    condition: ArrayLike | None
    vectorized: bool

    def __init__(
        self,
        log_likelihood: LikelihoodLike,
        *,
        vectorized: bool = False,
        floor: float | None = FLOOR,
        condition: ArrayLike | None = None,
    ) -> None:
        if isinstance(log_likelihood, LogLikelihood):
            vectorized, condition = log_likelihood.vectorized, log_likelihood.condition if condition is None else condition
            log_likelihood = log_likelihood.log_likelihood
        self.is_flow = isinstance(log_likelihood, NormalizingFlow)
        if not self.is_flow and not callable(log_likelihood):
            advice = ": give its method log_prob" if hasattr(log_likelihood, "log_prob") else ""
            raise TypeError(f"log_likelihood must be a function or a flow, got {type(log_likelihood).__name__}{advice}")
        if condition is not None and not self.is_flow:
            raise ValueError("condition belongs to a flow as the log-likelihood, and a function was given")
        if floor is not None and not np.isfinite(floor):
            raise ValueError(f"floor must be a finite number or None, got {floor!r}")
        if isinstance(log_likelihood, NormalizingFlow):
            if log_likelihood.condition_dim and condition is None:
                raise ValueError(
                    f"the log-likelihood is a flow that needs a condition of {log_likelihood.condition_dim} values: give "
                    f"npflows.hosts.LogLikelihood(flow, condition=...)"
                )
            log_likelihood.conditioning.finite_rows(condition, 1, "a log-likelihood")
        self.log_likelihood, self.floor, self.condition = log_likelihood, floor, condition
        self.vectorized = as_flag(vectorized, "vectorized") or self.is_flow

    def for_prior(self, prior: NormalizingFlow) -> LogLikelihood:
        """This log-likelihood, after a check that a flow has as many columns as the prior."""
        likelihood = self.log_likelihood
        if isinstance(likelihood, NormalizingFlow) and likelihood.latent_dim != prior.latent_dim:
            raise ValueError(
                f"the log-likelihood is a flow of {likelihood.latent_dim} columns, and the prior has {prior.latent_dim}: "
                f"give a function that takes the columns it needs, such as lambda x: flow.log_prob(x[:1])"
            )
        return self

    def __call__(self, x: ArrayLike) -> Any:
        points = np.asarray(x, np.float64)
        rows = np.atleast_2d(points)
        function: Any = self.log_likelihood
        if self.is_flow:
            values = function.log_prob(rows, self.condition)
        elif self.vectorized:
            values = np.array(as_numeric(function(rows), "what the log-likelihood gives"), np.float64)
        else:
            values = np.array([as_real(function(row), "the log-likelihood") for row in rows])
        if values.shape != (len(rows),):
            raise ValueError(
                f"the log-likelihood must give one value for each point, got shape {values.shape} for {len(rows)} points"
            )
        bad = np.isnan(values) | np.isposinf(values)
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            raise ValueError(
                f"the log-likelihood is {values[first]} at x={rows[first].tolist()}: give -inf where the likelihood is 0"
            )
        if self.floor is not None:
            values = np.maximum(values, self.floor)
        return values if points.ndim == 2 else float(values[0])


class LogPosterior:
    """The log-density of a flow as prior, plus a log-likelihood, for samplers that walk on the whole line.

    The likelihood is asked only where the prior has a density.

    Parameters
    ----------
    flow : NormalizingFlow
        The prior.
    log_likelihood : LogLikelihood or None
        None for the prior alone.
    condition : array_like (condition_dim,), optional
        Of the prior.
    unconstrained : bool
        Whether columns with bounds are sampled in the coordinates t that `transforms` names, with the Jacobian's
        logarithm added.
    """

    def __init__(
        self,
        flow: NormalizingFlow,
        log_likelihood: LogLikelihood | None = None,
        condition: ArrayLike | None = None,
        unconstrained: bool = False,
    ) -> None:
        if not isinstance(log_likelihood, (LogLikelihood, type(None))):
            raise TypeError(f"log_likelihood must be a LogLikelihood or None, got {type(log_likelihood).__name__}")
        self.flow = as_prior(flow)
        self.log_likelihood = None if log_likelihood is None else log_likelihood.for_prior(self.flow)
        self.unconstrained = as_flag(unconstrained, "unconstrained")
        self.condition = flow.conditioning.finite_rows(condition, 1, "a prior")

    @property
    def n_dim(self) -> int:
        """Number of parameters."""
        return self.flow.latent_dim

    @property
    def _density(self) -> UnconstrainedDensity:
        return UnconstrainedDensity(self.flow, self.condition, joint=True)

    def __call__(self, t: ArrayLike) -> Any:
        points = np.asarray(t, np.float64)
        rows, every = np.atleast_2d(points), np.arange(self.n_dim)
        if self.unconstrained:
            x, log_slope = self._density.from_unconstrained(rows, every)
            values = self.flow.log_prob(x, self.condition) + log_slope.sum(axis=1)
        else:
            x, values = rows, np.array(self.flow.log_prob(rows, self.condition))
        values[np.isnan(values) & ~np.isnan(rows).any(axis=1)] = -np.inf  # so far out that nothing is left to compute with
        known = np.isfinite(values)
        if self.log_likelihood is not None and known.any():
            values[known] += self.log_likelihood(x[known])
        return values if points.ndim == 2 else float(values[0])

    def from_walkers(self, t: ArrayLike) -> NDArray[np.float64]:
        """Parameters x (..., d) of the coordinates t (..., d) in which walkers walk: a chain, or samples of it."""
        points = np.asarray(t, np.float64)
        if points.shape[-1:] != (self.n_dim,):
            raise ValueError(f"t must have the shape (..., {self.n_dim}), got {points.shape}")
        if not self.unconstrained:
            return points
        rows = points.reshape(-1, self.n_dim)
        return self._density.from_unconstrained(rows, np.arange(self.n_dim))[0].reshape(points.shape)

    def start(self, n_walkers: int, rng: SeedLike = None) -> NDArray[np.float64]:
        """Coordinates (n_walkers, d) where walkers begin: samples of the prior of finite posterior density.

        Raises
        ------
        ValueError
            If too few of many samples have a finite one.
        """
        n_walkers, generator, found = as_int(n_walkers, "n_walkers"), as_rng(rng), np.empty((0, self.n_dim))
        for _ in range(100):
            x = self.flow.sample(max(2 * n_walkers, 16), generator, condition=self._one_condition)
            t = self._density.to_unconstrained(x, np.arange(self.n_dim))[0] if self.unconstrained else x
            t = t[np.isfinite(t).all(axis=1)]
            found = np.concatenate([found, t[np.isfinite(self(t))]])[:n_walkers]
            if len(found) == n_walkers:
                return found
        raise ValueError(
            f"only {len(found)} of the {n_walkers} walkers found a place with a posterior density above 0 among samples of "
            f"the prior: begin where the likelihood is above 0"
        )

    @property
    def _one_condition(self) -> NDArray[np.float64] | None:
        """The condition (condition_dim,), if any."""
        return None if self.condition is None else self.condition[0]

    @property
    def transforms(self) -> dict[str, str]:
        """By the name or number of each column with bounds: the coordinate that has none, in words."""
        return transforms_of(self.flow)


def as_prior(flow: NormalizingFlow) -> NormalizingFlow:
    """A flow that can be the prior of continuous parameters, after a check."""
    if not isinstance(flow, NormalizingFlow):
        advice = ", which can't be one: give one of its members" if isinstance(flow, Ensemble) else ""
        raise TypeError(f"the prior must be a flow of npflows, got {type(flow).__name__}{advice}")
    if len(flow.input_shape) > 1:
        raise ValueError(f"the prior must be a flow of rows of columns, got one of samples of shape {flow.input_shape}")
    return flow


def transforms_of(flow: NormalizingFlow) -> dict[str, str]:
    """By the name or number of each column with bounds: the coordinate that has none, in words."""
    names = flow.columns or [str(d) for d in range(flow.latent_dim)]
    return {name: words for name, column in zip(names, flow.support or []) if (words := _in_words(column)) is not None}


def _in_words(column: Column) -> str | None:
    if isinstance(column, Group):
        return f"the free coordinates of {column!r}"
    if isinstance(column, Positive):
        return f"log(x - {column.lower:g})" if column.lower else "log(x)"
    if isinstance(column, Below):
        return f"-log({column.upper:g} - x)"
    if isinstance(column, (Interval, Periodic)):
        return f"log((x - {column.low:g}) / ({column.high:g} - x))"
    return None
