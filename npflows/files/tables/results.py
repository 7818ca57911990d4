"""Results of samplers in memory: dynesty, nautilus, emcee, UltraNest, bilby, GetDist and trees of ArviZ."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np

from npflows.core.frames import named_columns
from npflows.core.numbers import numbers_of
from npflows.core.units import unit_of
from npflows.files.tables.arrays import of_array
from npflows.files.tables.hdf5_layouts import first_kept, of_chains
from npflows.files.tables.source import Entry, Source, TableError, from_entries, from_matrix

CHAIN = "chain", "draw"
"""The dimensions of chains in trees of ArviZ."""


def of_object(given: Any, burn_in: float = 0.0) -> Source:
    """Whatever is no file as a source: an array, what names its columns, or the result of a sampler."""
    kind = type(given)
    what = kind.__name__
    source = _of_sampler(what, given, burn_in)
    if source is not None:
        return source
    _refuse_burn_in(what, burn_in)
    named = named_columns(given, rows=False)
    if named is None:
        return of_array(f"the {what}", numbers_of(given, f"the {what}"))
    units = [named.unit(i) or unit_of(named.column(i)) for i in range(len(named.labels))]
    entries = [Entry(str(label), unit=unit) for label, unit in zip(named.labels, units)]
    return from_entries(f"the {what}", entries, lambda places: [named.column(i) for i in places])


def _of_sampler(what: str, given: Any, burn_in: float) -> Source | None:
    """The result of a sampler as a source; None for anything else."""
    if hasattr(given, "results") and hasattr(given, "run_nested"):  # a sampler of dynesty
        given = given.results
    if hasattr(given, "mpi_rank") and isinstance(getattr(given, "results", None), Mapping):  # one of UltraNest
        given = given.results
    if isinstance(given, Mapping) and {"samples", "logwt", "logz"} <= set(given):
        given = SimpleNamespace(**{name: given[name] for name in ("samples", "logwt", "logz")})
    if hasattr(given, "logwt") and hasattr(given, "samples"):  # dynesty
        _refuse_burn_in(what, burn_in)
        log_weight = np.asarray(given.logwt) - float(np.asarray(given.logz)[-1])
        return from_matrix(what, np.asarray(given.samples), log_weight=log_weight)
    if hasattr(given, "posterior") and callable(given.posterior) and hasattr(given, "n_live"):  # nautilus
        _refuse_burn_in(what, burn_in)
        points, log_weight, _ = given.posterior()
        names = getattr(given.prior, "keys", None)
        return from_matrix(what, np.asarray(points), list(names) if names else None, log_weight=log_weight)
    if hasattr(given, "get_chain") and hasattr(given, "get_log_prob"):  # emcee
        chain = np.asarray(given.get_chain())
        return from_matrix(what, chain[first_kept(burn_in, len(chain)) :].reshape(-1, chain.shape[2]))
    if isinstance(given, Mapping) and {"weighted_samples", "paramnames"} <= set(given):  # UltraNest
        _refuse_burn_in(what, burn_in)
        weighted = given["weighted_samples"]
        return from_matrix(
            what, np.asarray(weighted["points"]), given["paramnames"], weight=np.asarray(weighted["weights"])
        )
    if hasattr(given, "search_parameter_keys") and hasattr(given, "posterior"):  # bilby
        _refuse_burn_in(what, burn_in)
        names = list(given.search_parameter_keys)
        return from_matrix(what, given.posterior[names].to_numpy(), names)
    if hasattr(given, "getParamNames") and hasattr(given, "weights"):  # GetDist
        return _of_getdist(what, given, burn_in)
    tree = getattr(given, "posterior", None) if not isinstance(given, Mapping) else _child(given, "posterior")
    tree = given if tree is None else tree
    variables = getattr(tree, "data_vars", None)
    if variables is None:
        return None
    if set(CHAIN) <= set(getattr(tree, "dims", ())):  # ArviZ
        found = {name: _ordered(variables[name], *CHAIN) for name in variables if set(CHAIN) <= set(variables[name].dims)}
        return of_chains(what, found, burn_in)
    stacked = _stacked(tree)
    if stacked is None:
        return None
    if burn_in:
        raise TableError(f"the {what} is of draws that were taken out of chains: leave burn_in out, or give the chains")
    found = {name: _ordered(variables[name], stacked)[None] for name in variables if stacked in variables[name].dims}
    return of_chains(what, found)


def _refuse_burn_in(what: str, burn_in: float) -> None:
    """Refuse a burn-in of what has no steps."""
    if burn_in:
        raise TableError(f"burn_in is for chains of samplers, and a {what} has no steps: leave the first rows out yourself")


def _of_getdist(what: str, given: Any, burn_in: float) -> Source:
    """The MCSamples of GetDist, each of its chains without its burn-in."""
    if getattr(given, "sampler", "") == "nested":
        _refuse_burn_in(what, burn_in)
    if given.samples is None:
        raise TableError(f"the {what} holds chains that were not put together: call its makeSingle() first")
    names = [parameter.name for parameter in given.getParamNames().names]
    derived = {p.name: "a derived parameter" for p in given.getParamNames().names if p.isDerived}
    x, offsets = np.asarray(given.samples), getattr(given, "chain_offsets", None)
    bounds = [0, len(x)] if offsets is None or offsets[-1] != len(x) else [int(i) for i in offsets]
    weight = None if given.weights is None else np.asarray(given.weights)
    if burn_in:
        kept = np.concatenate([np.arange(a + first_kept(burn_in, b - a), b) for a, b in pairwise(bounds)])
        x, weight = x[kept], None if weight is None else weight[kept]
    return from_matrix(what, x, names, weight=weight, aside=derived)


def _stacked(dataset: Any) -> str | None:
    """The dimension along which both chains and draws vary, as `arviz.extract` gives it; None if there is none."""
    chains, draws = ([*dataset.coords[name].dims] if name in dataset.coords else [] for name in CHAIN)
    return str(chains[0]) if len(chains) == 1 and chains == draws else None


def _child(given: Mapping[str, Any], name: str) -> Any:
    try:
        return given[name]
    except (KeyError, TypeError):
        return None


def _ordered(variable: Any, *first: str) -> np.ndarray:
    """The values of a variable of xarray, some dimensions first."""
    return np.asarray(variable.transpose(*first, ...))
