"""Columns of masks, which astropy writes beside the columns that they mask."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from npflows.core.absent import MASKED
from npflows.files.tables.clocks import Fetch
from npflows.files.tables.source import MASK, Entry

SUFFIX = ".mask"
"""What the name of a mask adds to that of its column."""


def masks_beside(names: Collection[str], booleans: Collection[str]) -> dict[str, str]:
    """The names of masks by those of the columns that they mask: a boolean `name.mask` beside `name`."""
    return {name: f"{name}{SUFFIX}" for name in names if f"{name}{SUFFIX}" in booleans}


def with_masks(entries: Sequence[Entry], fetch: Fetch, booleans: Collection[str]) -> tuple[list[Entry], Fetch]:
    """Columns that are NaN where the mask beside them says that they are masked, and the masks left aside.

    Parameters
    ----------
    entries : sequence of Entry
    fetch : callable
        From places in `entries` to values.
    booleans : collection of str
        The names of columns of truth values.
    """
    places = {entry.name: i for i, entry in enumerate(entries)}
    masks = {places[name]: places[mask] for name, mask in masks_beside(places, booleans).items()}
    if not masks:
        return list(entries), fetch

    def masked(which: Sequence[int]) -> list[Any]:
        needed = sorted({*which, *(masks[i] for i in which if i in masks)})
        values = dict(zip(needed, fetch(needed)))
        return [hidden(values[i], values[masks[i]]) if i in masks else values[i] for i in which]

    aside = set(masks.values())
    return [entry._replace(aside=MASK) if i in aside else entry for i, entry in enumerate(entries)], masked


def hidden(values: Any, mask: Any) -> Any:
    """Values (n,) or (n, k), NaN where a mask of their shape, or of a single value in each row, is true."""
    is_masked = np.asarray(mask, bool)
    if not is_masked.any():
        return values
    if np.ndim(values) == 2 and is_masked.ndim == 1:
        is_masked = np.repeat(is_masked[:, None], np.shape(values)[1], axis=1)
    if type(values) is np.ndarray and values.dtype.kind in "biuf":
        return np.where(is_masked, MASKED, values)
    return np.ma.array(values, mask=np.ma.getmaskarray(values) | is_masked)
