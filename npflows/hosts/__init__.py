"""Flows inside other people's programs: samplers, and whatever takes a distribution of SciPy.

Nothing here imports the other program before it is used.  `npflows.hosts.nessai`, `npflows.hosts.jax` and
`npflows.hosts.pytensor`, modules, are imported by their names.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from npflows.core.checks import SeedLike
from npflows.flow import NormalizingFlow
from npflows.hosts.frozen import FrozenColumn, FrozenColumns
from npflows.hosts.pocomc_flow import PocomcFlow, PocomcPrior
from npflows.hosts.posterior import LogLikelihood, LogPosterior, PriorTransform
from npflows.hosts.samplers import dynesty, emcee, nautilus, ultranest

__all__ = [
    "FrozenColumn",
    "FrozenColumns",
    "LogLikelihood",
    "LogPosterior",
    "PocomcFlow",
    "PocomcPrior",
    "PriorTransform",
    "dynesty",
    "emcee",
    "frozen",
    "nautilus",
    "pocomc",
    "ultranest",
]


def pocomc(n_dim: int, rng: SeedLike = None, *, flow: NormalizingFlow | None = None, **options: Any) -> PocomcFlow:
    """A flow of npflows in the place of pocoMC's own (pocoMC 1.2).

    `sampler.flow = npflows.hosts.pocomc(n_dim, rng=0)`, between `pocomc.Sampler(...)` and `sampler.run()`.  pocoMC's state
    files hold it, so that a run resumes as with its own flow: `pocomc.Sampler(...)` with the same arguments, then
    `sampler.run(resume_state_path=...)`.

    Parameters
    ----------
    n_dim : int
        Number of parameters of the problem.
    rng : int, numpy.random.Generator or None
        Draws first weights, splits, shuffles and samples; pocoMC's `random_state` draws everything else.
    flow : NormalizingFlow, optional
        One of your own instead of the default, without supports and without a condition.
    options
        Arguments of `NormalizingFlow.fit` that replace the defaults for samplers, max_epochs=1000 for instance.  pocoMC's
        `train_config` is for its own flow and is not used.

    Raises
    ------
    ValueError, TypeError
        If the flow or an option does not fit.
    """
    return PocomcFlow(n_dim, rng, flow, **options)


def frozen(flow: NormalizingFlow, condition: ArrayLike | None = None, rng: SeedLike = None) -> FrozenColumn | FrozenColumns:
    """A flow with the methods of SciPy's frozen distributions.

    Parameters
    ----------
    flow : NormalizingFlow
    condition : array_like (condition_dim,), optional
        Where the flow takes one; finite.
    rng : int, numpy.random.Generator or None
        Draws samples where `rvs` is given no `random_state`.

    Returns
    -------
    FrozenColumn or FrozenColumns
        Of one column: pdf, cdf, ppf, rvs and others of `scipy.stats.rv_continuous`; of several: pdf, logpdf, rvs.
    """
    return (FrozenColumn if getattr(flow, "latent_dim", 2) == 1 else FrozenColumns)(flow, condition, rng)
