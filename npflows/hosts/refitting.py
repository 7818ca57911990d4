"""A flow that a sampler fits again and again: how it is fitted, and what it keeps from one fit to the next."""

from __future__ import annotations

import warnings
from inspect import signature
from typing import Any

import numpy as np

from npflows.core.checks import SeedLike, as_rng, as_rows, as_weights, warn_user
from npflows.core.errors import TrainingError
from npflows.core.statistics import effective_sample_size
from npflows.core.threads import at_most_threads
from npflows.flow import NormalizingFlow
from npflows.training.moments import moments

FIT: dict[str, Any] = {
    "validation_fraction": 0.25,
    "max_epochs": 300,
    "batch_size": 256,
    "learning_rate": 3e-3,
    "schedule": "constant",
    "ema": 0.95,
    "dropout": None,
    "progress": False,
}
"""How it is fitted, arguments of `NormalizingFlow.fit`: a few hundred to a few thousand points, until the points that are
held out get no likelier."""
REFIT: dict[str, Any] = {"learning_rate": 2e-3}
"""What is different in all fits but the first, which begin with the parameters of the fit before."""
SMALLEST_SPREAD = 1e-14
"""Standard deviations below this share of the largest value are rounding: the column is constant."""
GIVEN = frozenset({"flow", "x", "sample_weight", "log_weight", "condition", "standardize", "rng"})
"""Arguments of `NormalizingFlow.fit` that are not the user's to give."""


class RefittedFlow:
    """A flow, with the fit that suits samplers.

    Before each fit the points are standardized anew, correlations included, so that the parameters of the fit before are
    those of nearly the same shape, even where the points have drawn together to a small part of the space.  The fit begins
    with them, and runs on one thread: it is too small for more.

    Parameters
    ----------
    n_dim : int
        Number of parameters of the sampler's problem.
    flow : NormalizingFlow
        Without supports and without a condition.
    rng : int, numpy.random.Generator or None
        Draws splits, shuffles and samples.
    options
        Arguments of `NormalizingFlow.fit` that replace or add to those of `FIT`.

    Attributes
    ----------
    flow : NormalizingFlow
        The flow as it is now.
    n_fits : int
        How often it has been fitted.
    """

    def __init__(self, n_dim: int, flow: NormalizingFlow, rng: SeedLike = None, **options: Any) -> None:
        self.n_dim, self.rng, self.options, self.n_fits = n_dim, as_rng(rng), options, 0
        self.flow = _checked(flow, n_dim)
        given = sorted(set(options) & GIVEN)
        if given:
            raise ValueError(f"{', '.join(given)}: the sampler gives these itself; leave them out")
        unknown = sorted(set(options) - set(signature(NormalizingFlow.fit).parameters))
        if unknown:
            raise TypeError(f"NormalizingFlow.fit takes no {', '.join(unknown)}")

    def fit(self, x: np.ndarray, weight: np.ndarray | None = None) -> dict[str, list[float]]:
        """Fit the flow to points x (n, n_dim) with weights (n,), from where it is; returns `flow.history`.

        The flow holds the best parameters that were found, those of the fit before where nothing was better.

        Raises
        ------
        ValueError
            If x is not finite or of another shape, or the weights are not as many, finite and at least 0.
        """
        x, weight = as_rows(x, (self.n_dim,), "x")[0], as_weights(weight, len(x), "weights")
        lost = np.flatnonzero(~np.isfinite(x).all(axis=1))
        if lost.size or not len(x):
            what = f"row {lost[0]} of {len(x)} is {x[lost[0]].tolist()}" if lost.size else "there are no rows"
            raise ValueError(f"the sampler's points x must be finite, but {what}")
        standardize(self.flow, x, weight)
        settings = {**FIT, **(REFIT if self.n_fits else {}), **self.options}
        self.n_fits += 1
        try:
            with warnings.catch_warnings(), at_most_threads(1):
                # that nothing was better, or that some points are far from others, is nothing that a user can act on here
                warnings.simplefilter("ignore", UserWarning)
                self.flow.fit(x, sample_weight=weight, standardize=False, rng=self.rng, **settings)
        except TrainingError as error:
            warn_user(f"fit {self.n_fits} of the sampler's flow ended early, and the sampler goes on with it: {error}")
        return self.flow.history


def standardize(flow: NormalizingFlow, x: np.ndarray, weight: np.ndarray | None = None) -> None:
    """Set the flow's first layer from points x (n, d) with weights (n,), with correlations where the points suffice."""
    weight = np.ones(len(x)) if weight is None else weight / weight.mean()
    loc, scale, _, _ = moments(lambda: iter([(x, weight)]), len(x))
    scale = np.where(scale > SMALLEST_SPREAD * np.abs(x).max(axis=0), scale, 1.0)
    factor = None
    if effective_sample_size(weight) > 2 * len(scale):
        u = (x - loc) / scale
        correlations = (weight[:, None] * u).T @ u / len(x)
        np.fill_diagonal(correlations, 1.0)
        try:
            factor = np.linalg.cholesky(correlations)
        except np.linalg.LinAlgError:  # one column is a combination of others
            factor = None
    flow.standardize.set(loc, scale, factor)


def _checked(flow: NormalizingFlow, n_dim: int) -> NormalizingFlow:
    if not isinstance(flow, NormalizingFlow):
        raise TypeError(f"flow must be a NormalizingFlow, got {type(flow).__name__}")
    if flow.latent_dim != n_dim:
        raise ValueError(f"flow must have {n_dim} columns, as the problem has, got {flow.latent_dim}")
    if flow.condition_dim:
        raise ValueError("flow must take no condition: the sampler has none to give")
    if flow.support is not None:
        raise ValueError("flow must have no support: samplers map their parameters to the whole line by themselves")
    return flow
