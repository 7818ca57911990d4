"""What known programs keep in HDF5: chains of emcee, results of bilby, trees of ArviZ, matrices of AnnData."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from npflows.files.tables.netcdf import decoded
from npflows.files.tables.roles import LOG_DENSITY
from npflows.files.tables.source import NOTED, Entry, Source, TableError, from_entries, from_matrix

Layout = Callable[[str, Any, str, float], "Source | None"]
"""From the name of a file, the open file, what is asked for and the burn-in to a table; None for another layout.

What is asked for is the name of a group or dataset of the file, or empty.
"""


def first_kept(burn_in: float, n: int) -> int:
    """The first of n steps of a chain that is kept: `burn_in` steps are left out, or their share if it is below 1."""
    return min(n, int(burn_in if burn_in >= 1 else burn_in * n))


def _emcee(owner: str, file: Any, wanted: str, burn_in: float) -> Source | None:
    """The file of `emcee.backends.HDFBackend`: chain (steps, walkers, d) and log_prob (steps, walkers)."""
    groups: list[str] = []

    def visit(name: str, node: Any) -> None:
        if hasattr(node, "keys") and {"chain", "log_prob", "accepted"} <= set(node):
            groups.append(name)

    file.visititems(visit)
    if wanted:
        groups = [name for name in groups if wanted in (name, f"{name}/chain")]
        owner = f"{owner}, {wanted}"
    if not groups:
        return None
    if len(groups) > 1:
        raise TableError(f"{owner} holds several chains of emcee ({', '.join(groups)}): say which by table= (--table)")
    group = file[groups[0]]
    done = int(group.attrs.get("iteration", len(group["chain"])))
    start = first_kept(burn_in, done)
    chain, log_prob = group["chain"][start:done], group["log_prob"][start:done]
    if not chain.size:
        raise TableError(f"{owner} has no step after a burn-in of {start} of {done} steps")
    return from_matrix(
        owner, chain.reshape(-1, chain.shape[2]), beside={"log_prob": log_prob.ravel()}, aside={"log_prob": NOTED}
    )


def _arviz(owner: str, file: Any, wanted: str, burn_in: float) -> Source | None:
    """The netCDF file of an ArviZ tree or dataset: variables (chain, draw, ...), by default those of the posterior."""
    node = file[wanted] if wanted else file.get("posterior", file)
    group = node if hasattr(node, "keys") else node.parent
    if not hasattr(group, "keys") or not {"chain", "draw"} <= set(group):
        return None
    lengths = len(group["chain"]), len(group["draw"])
    among = {name: group[name] for name in group if group is node or group[name] == node}
    variables = {name: values for name, values in among.items() if getattr(values, "shape", ())[:2] == lengths}
    if not variables:
        return None
    return of_chains(owner, {name: decoded(values) for name, values in variables.items()}, burn_in)


def of_chains(owner: str, variables: dict[str, np.ndarray], burn_in: float = 0.0) -> Source:
    """Variables (chain, draw, ...) as a source, all chains one after the other."""
    kept = {}
    for name, values in variables.items():
        after = values[:, first_kept(burn_in, values.shape[1]) :]
        kept[name] = after.reshape(after.shape[0] * after.shape[1], *after.shape[2:])
    names = list(kept)
    entries = [Entry(name, None if kept[name].ndim == 1 else int(np.prod(kept[name].shape[1:]))) for name in names]
    if not entries:
        raise TableError(f"{owner} has no variables of chains and draws")

    return from_entries(owner, entries, lambda places: [
        kept[names[i]] if kept[names[i]].ndim == 1 else kept[names[i]].reshape(len(kept[names[i]]), -1) for i in places
    ])  # fmt: skip


def _bilby(owner: str, file: Any, wanted: str, burn_in: float) -> Source | None:
    """The HDF5 file of a result of bilby: the parameters that were searched, in the group posterior."""
    if wanted not in ("", "posterior") or "search_parameter_keys" not in file or not hasattr(file.get("posterior"), "keys"):
        return None
    columns = {name: values[()] for name, values in file["posterior"].items() if getattr(values, "ndim", 0) == 1}
    columns = {name: values for name, values in columns.items() if values.dtype.kind in "biuf"}
    searched = [name.decode() if isinstance(name, bytes) else str(name) for name in file["search_parameter_keys"][()]]
    return of_posterior(owner, columns, searched)


def of_posterior(owner: str, columns: dict[str, np.ndarray], searched: Collection[str]) -> Source:
    """The posterior of a result of bilby as a source of the parameters that were searched."""
    if len({len(values) for values in columns.values()}) != 1:
        raise TableError(f"{owner}: the posterior has no columns of numbers of one length")
    aside = {name: "no parameter that was searched" for name in columns if searched and name not in searched}
    aside |= {name: LOG_DENSITY for name in columns if name.startswith("log_") and name in aside}
    return from_matrix(owner, np.column_stack(list(columns.values())), list(columns), aside=aside)


def _anndata(owner: str, file: Any, wanted: str, burn_in: float) -> Source | None:
    """The .h5ad file of AnnData: X (cells, genes), or another layer, with names in var."""
    if not {"X", "obs", "var"} <= set(file) or not (wanted in ("", "X") or wanted.startswith("layers/")):
        return None
    x, var = file[wanted or "X"], file["var"]
    if hasattr(x, "keys"):
        what = wanted or "X"
        raise TableError(
            f"{owner}: {what} is sparse, and flows take dense tables: choose some columns and save {what}.toarray()"
        )
    key = var.attrs.get("_index", "_index")
    key = key.decode() if isinstance(key, bytes) else key
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in var[key][()]] if key in var else None
    beside = {
        name: values[()]
        for name, values in file["obs"].items()
        if not hasattr(values, "keys") and values.dtype.kind in "biuf" and values.shape == (len(x),)
    }
    return from_matrix(owner, x[()], names, beside=beside)


def _not_tables(owner: str, file: Any, wanted: str, burn_in: float) -> Source | None:
    """Files of samplers that hold points which are no samples yet."""
    if "sampler" in file and any(name.startswith("bound_") for name in file):
        raise TableError(f"{owner} is a checkpoint of nautilus, whose points are in the unit cube: read_table(sampler)")
    if "points" in file and "ncalls" in file.attrs:
        raise TableError(f"{owner} is the point store of UltraNest: read chains/weighted_post.txt, or read_table(result)")
    return None


LAYOUTS: tuple[Layout, ...] = (_not_tables, _emcee, _bilby, _arviz, _anndata)
"""What is tried before a file is taken for one of tables."""
WITH_STEPS = (_emcee, _arviz)
"""Those that leave out a burn-in."""
