"""Times that astropy writes as two columns of Julian days, and time columns of FITS."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npflows.core.times import Times, times_of
from npflows.files.tables.source import Entry, TableError, package

SCALES = {
    "UTC": "utc", "GMT": "utc", "TAI": "tai", "IAT": "tai", "TT": "tt", "TDT": "tt", "ET": "tt", "TDB": "tdb", "TCB": "tcb",
    "TCG": "tcg", "LOCAL": "local",
}  # fmt: skip
"""Scales of time in FITS (FITS 4.0, table 30) by their names in astropy; UT1 and GPS convert by tables or offsets alone."""
OTHER_SCALES = frozenset({"UT1", "UT", "GPS"})
MJD = 2400000.5
"""The Julian day of the modified Julian day 0."""
Fetch = Callable[[Sequence[int]], Sequence[Any]]


def serialized_times(note: str) -> dict[str, tuple[bool, str]]:
    """The columns that a note of astropy says are times: whether they are instants, or else durations, and their scale."""
    found = re.findall(
        r"^[# ]*?([^\s:#][^\n:]*):\n[# ]+__class__: astropy\.time\.core\.(Time|TimeDelta)\n"
        r"(?:(?!__class__: astropy\.time).)*?^[# ]+scale: (\w+)",
        note,
        re.MULTILINE | re.DOTALL,
    )
    return {name.strip("'\""): (kind == "Time", scale) for name, kind, scale in found}


def with_times(entries: Sequence[Entry], fetch: Fetch, note: str) -> tuple[list[Entry], Fetch]:
    """Columns with each pair `name.jd1`, `name.jd2` of a note of astropy as the times that they are.

    Parameters
    ----------
    entries : sequence of Entry
    fetch : callable
        From places in `entries` to values.
    note : str
    """
    places = {entry.name: i for i, entry in enumerate(entries)}
    pairs = {
        places[f"{name}.jd1"]: (name, places[f"{name}.jd2"], *about)
        for name, about in serialized_times(note).items()
        if f"{name}.jd1" in places and f"{name}.jd2" in places
    }
    if not pairs:
        return list(entries), fetch
    seconds = {second for _, second, _, _ in pairs.values()}
    kept = [i for i in range(len(entries)) if i not in seconds]

    def together(which: Sequence[int]) -> list[Any]:
        wanted = [kept[i] for i in which]
        needed = sorted({*wanted, *(pairs[i][1] for i in wanted if i in pairs)})
        values = dict(zip(needed, fetch(needed)))
        return [
            values[i] if i not in pairs else of_days(values[i], values[pairs[i][1]], *pairs[i][2:]) for i in wanted
        ]  # fmt: skip

    return [Entry(pairs[i][0]) if i in pairs else entries[i] for i in kept], together


def of_days(first: np.ndarray, second: np.ndarray, are_instants: bool, scale: str) -> Times:
    """Times from two columns of Julian days, the sum of which is meant; NaN is not known."""
    time = package("astropy.time", "a column of times", "astropy")
    hidden = np.isnan(first) | np.isnan(second)
    kind = time.Time if are_instants else time.TimeDelta
    found = times_of(
        kind(np.where(hidden, MJD if are_instants else 0.0, first), np.where(hidden, 0.0, second), format="jd", scale=scale)
    )
    assert found is not None
    return Times(np.where(hidden, np.array("NaT", found.values.dtype), found.values), found.zone)


def of_fits(owner: str, name: str, values: np.ndarray, scale: str, unit: str | None, header: Any) -> Times:
    """A time column of FITS: days or seconds since the reference of the header, in two parts perhaps (FITS 4.0, 9.2).

    Raises
    ------
    TableError
        If the scale or the reference is none that is known, or the times are text.
    """
    seconds = {"d": 86400.0, "s": 1.0, "min": 60.0, "h": 3600.0}.get(unit or "s")
    reference = _reference(header)
    if scale not in SCALES or seconds is None or reference is None or values.dtype.kind not in "iuf":
        what = f"of the scale {scale}" if scale not in SCALES else "without a reference that is known"
        raise TableError(
            f"column {name!r} of {owner} holds times {what}: make numbers of it, for instance years since an epoch of your "
            f"choice"
        )
    days = np.asarray(values, np.float64) * (seconds / 86400.0)
    first, second = (days[:, 0], days[:, 1]) if days.ndim == 2 else (np.full(len(days), 0.0), days)
    return of_days(first + reference, second, True, SCALES[scale])


def _reference(header: Any) -> float | None:
    """The Julian day from which the header counts times."""
    for name, zero in (("MJDREF", MJD), ("JDREF", 0.0)):
        if name in header:
            return zero + float(header[name])
        if f"{name}I" in header:
            return zero + float(header[f"{name}I"]) + float(header.get(f"{name}F", 0.0))
    return None
