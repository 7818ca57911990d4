"""The arguments with which a sampler takes a flow as its prior: emcee, dynesty, UltraNest and nautilus.

Each function gives a dictionary of keyword arguments of the sampler's own class, and does not import the sampler.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from npflows.flow import NormalizingFlow
from npflows.hosts.posterior import (
    FLOOR,
    LikelihoodLike,
    LogLikelihood,
    LogPosterior,
    PriorTransform,
    as_prior,
    transforms_of,
)


def emcee(
    prior: NormalizingFlow,
    log_likelihood: LikelihoodLike | None = None,
    *,
    vectorized: bool = False,
    unconstrained: bool | None = None,
    condition: ArrayLike | None = None,
) -> dict[str, Any]:
    """Arguments of `emcee.EnsembleSampler` for a flow as prior (emcee 3.1).

    `emcee.EnsembleSampler(n_walkers, **npflows.hosts.emcee(flow, f))`; the result's `log_prob_fn` has two more methods:
    `start(n_walkers, rng)` gives the places where walkers begin, samples of the prior, and `from_walkers(chain)` the
    parameters in the prior's units.

    Parameters
    ----------
    prior : NormalizingFlow
    log_likelihood : callable or NormalizingFlow, optional
        A function of x, asked only where the prior has a density; or a flow.  -inf means that the likelihood is 0.  None:
        the prior alone is sampled.
    vectorized : bool
        Whether the function takes many points x (n, d) and gives n values.  Else, or with a pool, emcee calls it for one x
        (d,) after the other.
    unconstrained : bool, optional
        For a prior with bounded columns: True has walkers walk in coordinates without bounds, named by the result's
        `log_prob_fn.transforms`, with the Jacobian; False in the prior's own, where steps across a bound are rejected.
    condition : array_like (condition_dim,), optional
        Of the prior.

    Returns
    -------
    dict
        ndim, log_prob_fn, vectorize.

    Raises
    ------
    ValueError
        If a column has bounds and `unconstrained` doesn't say what to do with them, or has whole numbers.
    """
    for name, column in zip(as_prior(prior).columns or range(prior.latent_dim), prior.support or []):
        if column.is_integer:
            raise ValueError(f"column {name} has whole numbers, which emcee can't walk on: use dynesty or nautilus")
    bounded = transforms_of(prior)
    if bounded and unconstrained is None:
        which = ", ".join(f"{name} by {words}" for name, words in bounded.items())
        raise ValueError(
            f"emcee walks on the whole line, and the prior has columns with bounds: pass unconstrained=True to walk in "
            f"coordinates without bounds ({which}), or unconstrained=False to have steps across a bound rejected"
        )
    likelihood = None if log_likelihood is None else LogLikelihood(log_likelihood, vectorized=vectorized, floor=None)
    function = LogPosterior(prior, likelihood, condition, False if unconstrained is None else unconstrained)
    return {
        "ndim": function.n_dim,
        "log_prob_fn": function,
        "vectorize": likelihood is None or likelihood.vectorized,
    }


def dynesty(
    prior: NormalizingFlow, log_likelihood: LikelihoodLike, *, condition: ArrayLike | None = None
) -> dict[str, Any]:  # fmt: skip
    """Arguments of `dynesty.NestedSampler` or `DynamicNestedSampler` for a flow as prior (dynesty 3.1).

    `dynesty.NestedSampler(**npflows.hosts.dynesty(flow, f))`.  dynesty asks for one point at a time; both functions go
    through its pools.

    Parameters
    ----------
    prior : NormalizingFlow
    log_likelihood : callable or NormalizingFlow
        A function of x (d,), or a flow.
    condition : array_like (condition_dim,), optional
        Of the prior.

    Returns
    -------
    dict
        loglikelihood, prior_transform, ndim.
    """
    transform = PriorTransform(prior, condition)
    return {
        "loglikelihood": LogLikelihood(log_likelihood).for_prior(prior),
        "prior_transform": transform,
        "ndim": transform.n_dim,
    }


def ultranest(
    prior: NormalizingFlow,
    log_likelihood: LikelihoodLike,
    *,
    vectorized: bool = False,
    floor: float = FLOOR,
    condition: ArrayLike | None = None,
) -> dict[str, Any]:
    """Arguments of `ultranest.ReactiveNestedSampler` for a flow as prior (UltraNest 4.6).

    `ultranest.ReactiveNestedSampler(**npflows.hosts.ultranest(flow, f))`.  UltraNest stops with an error where the
    log-likelihood of one of its first points is -inf; such values are replaced.

    Parameters
    ----------
    prior : NormalizingFlow
        The names of its columns become those of the parameters; x0, x1, ... where it has none.
    log_likelihood : callable or NormalizingFlow
        A function of x, or a flow.
    vectorized : bool
        Whether the function takes many points x (n, d) and gives n values.
    floor : float
        What replaces -inf.
    condition : array_like (condition_dim,), optional
        Of the prior.

    Returns
    -------
    dict
        param_names, loglike, transform, vectorized.
    """
    transform = PriorTransform(prior, condition)
    return {
        "param_names": list(prior.columns or (f"x{d}" for d in range(transform.n_dim))),
        "loglike": LogLikelihood(log_likelihood, vectorized=vectorized, floor=floor).for_prior(prior),
        "transform": transform,
        "vectorized": True,
    }


def nautilus(
    prior: NormalizingFlow,
    log_likelihood: LikelihoodLike,
    *,
    vectorized: bool = False,
    condition: ArrayLike | None = None,
) -> dict[str, Any]:
    """Arguments of `nautilus.Sampler` for a flow as prior (nautilus 1.0).

    `nautilus.Sampler(**npflows.hosts.nautilus(flow, f), pool=4)`.  nautilus needs two parameters at least.

    Parameters
    ----------
    prior : NormalizingFlow
    log_likelihood : callable or NormalizingFlow
        A function of x, or a flow.
    vectorized : bool
        Whether the function takes many points x (n, d) and gives n values.
    condition : array_like (condition_dim,), optional
        Of the prior.

    Returns
    -------
    dict
        prior, likelihood, n_dim, vectorized, pass_dict.
    """
    transform = PriorTransform(prior, condition)
    return {
        "prior": transform,
        "likelihood": LogLikelihood(log_likelihood, vectorized=vectorized).for_prior(prior),
        "n_dim": transform.n_dim,
        "vectorized": True,
        "pass_dict": False,
    }
