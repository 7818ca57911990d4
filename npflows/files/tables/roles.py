"""What the names of columns say: weights and log-densities of samplers, which are no values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

LOG_DENSITY, OWN = "a log-density of the sampler", "a column of the sampler's own"
WEIGHT, LOG_WEIGHT = "named as weights of the rows are", "named as logarithms of weights are"
"""Why a column is not taken unless it is asked for."""
LOG_DENSITIES = frozenset({
    "logl", "loglike", "log_like", "loglikelihood", "log_likelihood", "lnlike", "lnl", "minuslogpost", "minuslogprior",
    "-logl", "-loglike", "-logpost", "-2logl", "-2*logl", "-2loglike", "-2*loglike", "logprior", "log_prior", "lnprior",
    "logpost", "log_post", "logposterior", "log_posterior", "lnpost", "lnprob", "log_prob", "logprob", "log_probability",
    "lnprobability", "lp__",
})  # fmt: skip
"""Names that no column has but a log-density that a sampler noted."""
WEIGHTS = frozenset({
    "weights", "sample_weight", "sample_weights", "event_weight", "event_weights", "importance_weight",
    "importance_weights",
})  # fmt: skip
"""Names that no column has but the weights of rows."""
LOG_WEIGHTS = frozenset({"log_weights", "log_weight", "logw", "log_w", "logwt", "ln_weights"})
"""Names of columns and arrays of logarithms of weights."""
NO_VALUES = LOG_DENSITIES | WEIGHTS | LOG_WEIGHTS | {"weight"}
"""Names of arrays that are no table."""
DOUBTFUL = {"weight": "the weight of the rows", **dict.fromkeys(["chi2", "logp", "lp"], "a log-density of a sampler")}
"""Names of values as well as of what samplers note, and what they note by them."""


class Roles(NamedTuple):
    """What the names of columns say.

    Attributes
    ----------
    aside : dict of int to str
        Columns that are no values, and why.
    weight : int or None
        The column of the weights, where the columns begin as those of chains do.
    doubtful : list of int
        Columns whose names are those of values as well as of what samplers note.
    """

    aside: dict[int, str]
    weight: int | None
    doubtful: list[int]


def roles_of(names: Sequence[str]) -> Roles:
    """What the names of columns say; nothing where all of them would be no values."""
    lower = [name.lower() for name in names]
    is_density = [name in LOG_DENSITIES for name in lower]
    is_chain = lower[:1] in (["weight"], ["weights"]) and is_density[1:2] == [True]
    is_cobaya, is_stan = is_chain and lower[1] == "minuslogpost", lower[:1] == ["lp__"]
    weights = WEIGHTS | {"weight"} if any(is_density) else WEIGHTS
    aside: dict[int, str] = {}
    for i, name in enumerate(lower):
        if is_stan and name.endswith("__"):
            aside[i] = OWN
        elif is_density[i] or (is_cobaya and name.startswith(("chi2", "minuslog"))):
            aside[i] = LOG_DENSITY
        elif name in weights or name in LOG_WEIGHTS:
            aside[i] = LOG_WEIGHT if name in LOG_WEIGHTS else WEIGHT
    if len(aside) == len(names):
        return Roles({}, None, [])
    if is_chain:
        del aside[0]
    doubtful = [i for i, name in enumerate(lower) if name in DOUBTFUL and i not in aside and not (is_chain and i == 0)]
    return Roles(aside, 0 if is_chain else None, doubtful if len(aside) + len(doubtful) < len(names) else [])
