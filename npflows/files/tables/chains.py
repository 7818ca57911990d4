"""Chains of samplers in text and JSON: GetDist and CosmoMC, Cobaya, bilby."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npflows.core.checks import warn_user
from npflows.files.tables.hdf5_layouts import first_kept, of_posterior
from npflows.files.tables.roles import LOG_DENSITY
from npflows.files.tables.source import Source, TableError
from npflows.files.tables.text import layout_of, open_text, opened

ENDING = re.compile(r"(?:[_.]\d+|_equal_weights)\Z")
"""What follows the root name of chains: the number of one, or PolyChord's name of the samples of equal weights."""
ULTRANEST = ["logz", "logzerr", "logvol", "nlive", "logl"]
"""How the columns of chains/run.txt of UltraNest begin."""
DERIVED = "a derived parameter, which others determine"


def chain_files(root: Path) -> list[Path]:
    """The chains that belong to a root name: root_1.txt, root_2.txt, ..., or root.1.txt, ..., or root.txt."""
    if root.suffix == ".paramnames":
        root = root.with_suffix("")
    if not root.parent.is_dir():
        return []
    numbered = re.compile(re.escape(root.name) + r"[_.](\d+)\.txt\Z")
    found = {int(match.group(1)): file for file in root.parent.iterdir() if (match := numbered.match(file.name))}
    single = root.with_name(f"{root.name}.txt")
    return [found[i] for i in sorted(found)] or ([single] if single.is_file() else [])


def open_chains(root: Path, burn_in: float = 0.0) -> Source:
    """All chains of a root name, one after the other, each without its burn-in."""
    sources = [open_chain(file, burn_in) for file in chain_files(root)]
    first = sources[0]
    for file, source in zip(chain_files(root), sources):
        if source.names != first.names:
            raise TableError(f"{file} has other columns than {first.owner}: {', '.join(source.names)}")

    def fetch(places: Sequence[int]) -> list[np.ndarray]:
        parts = [source.fetch(places) for source in sources]
        return [np.concatenate(columns) for columns in zip(*parts)]

    return Source(
        str(root), first.names, fetch, first.has_names, first.units, first.aside, first.weight, doubt=first.doubt
    )  # fmt: skip


def open_chain(path: Path, burn_in: float = 0.0) -> Source:
    """One text file, with the names in the file .paramnames beside it if there is one."""
    known = _paramnames(path)
    layout = layout_of(path)
    warmup = 0
    if known is None:
        source = open_text(path, layout=layout)
        warmup = _warmup(path, layout.comments) if source.names[0] == "lp__" else 0
        if warmup:
            warn_user(f"{path}: left out the first {warmup} draws, the warm-up that CmdStan saved (save_warmup)")
        if source.names[:5] == ULTRANEST:
            raise TableError(f"{path} is UltraNest's record of a run, without its points: read weighted_post.txt beside it")
        if path.name == "weighted_post_untransformed.txt":
            source.doubt = f"{path} holds points of the unit cube: parameters are in weighted_post.txt beside it"
        if path.suffix == ".txt" and ENDING.search(path.stem) and not source.has_names and len(source.names) > 2:
            source.doubt = (
                f"{path} is named as chains of GetDist, CosmoMC and PolyChord are, which begin with the weight and -log of "
                f"the density, but has no file of .paramnames: all columns are taken for values; if it is one, give "
                f"columns=[2, ...] and weights=0"
            )
    else:
        names, derived = known
        source = open_text(path, ["weight", "-logl", *names], layout)
        source.weight = 0
        source.aside |= {1: LOG_DENSITY} | {i + 2: DERIVED for i in derived}
    if not (burn_in or warmup):
        return source
    fetch = source.fetch

    def without_burn_in(places: Sequence[int]) -> list[Any]:
        columns = [column[warmup:] for column in fetch(places)]
        return [column[first_kept(burn_in, len(column)) :] for column in columns]

    source.fetch = without_burn_in
    return source


def _warmup(path: Path, comments: Sequence[str]) -> int:
    """How many draws of the warm-up CmdStan wrote before the others, by the settings in its comments."""
    settings = {name: value for text in comments for name, value in re.findall(r"^(\w+)\s*=\s*(\S+)", text)}
    if settings.get("save_warmup") not in ("1", "true") or settings.get("algorithm") == "fixed_param":
        return 0
    try:
        return math.ceil(int(settings["num_warmup"]) / int(settings.get("thin", 1)))
    except (KeyError, ValueError, ZeroDivisionError):
        raise TableError(
            f"{path} has a warm-up (save_warmup), and its comments do not say of how many draws: leave it out of the file"
        ) from None


def _paramnames(path: Path) -> tuple[list[str], list[int]] | None:
    """The names of the parameters of a chain of GetDist, and which are derived: those with an asterisk."""
    if path.suffix != ".txt":
        return None
    roots = dict.fromkeys([path.stem, ENDING.sub("", path.stem)])
    beside = next((file for root in roots if (file := path.with_name(f"{root}.paramnames")).is_file()), None)
    if beside is None:
        return None
    lines = [line.split() for line in beside.read_text(encoding="utf-8").splitlines()]
    names = [words[0] for words in lines if words]
    return [name.rstrip("*") for name in names], [i for i, name in enumerate(names) if name.endswith("*")]


def open_json(path: Path) -> Source:
    """The JSON file of a result of bilby: its posterior, by default the parameters that were searched."""
    try:
        with opened(path) as file:
            about = json.load(file)
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise TableError(f"{path} looks like JSON, and can't be read as JSON ({error})") from None
    posterior = about.get("posterior") if isinstance(about, dict) else None
    content = posterior.get("content", posterior) if isinstance(posterior, dict) else None
    if isinstance(about, dict) and "insertion_order_MWW_test" in about:
        raise TableError(f"{path} is a summary of UltraNest's, without samples: read chains/weighted_post.txt")
    if not isinstance(content, dict) or "search_parameter_keys" not in about:
        raise TableError(f"{path} is JSON, but no result of bilby with a posterior; write the table as csv or Parquet")
    columns = {name: _numbers(values) for name, values in content.items()}
    numeric = {name: values for name, values in columns.items() if values is not None}
    return of_posterior(str(path), numeric, about["search_parameter_keys"] or ())


def _numbers(values: Any) -> np.ndarray | None:
    """A column of numbers, from a list or from what bilby writes for an array."""
    if isinstance(values, dict):
        values = values.get("content", ())
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        return None
    return array if array.ndim == 1 else None
