"""Units of columns: what unit values have, and the same numbers in another one.

npflows computes with plain numbers.  A unit is a string that travels with a column's name; what converts one into another
is the library that the values come from, astropy, pint or unyt, and astropy where a file or a table says no more than the
name of the unit.  Instants have a unit that names their epoch: see `npflows.core.times`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npflows.core import times
from npflows.core.optional import required


def unit_of(values: Any) -> str | None:
    """The unit of a quantity of astropy, pint or unyt, or of a column that has one; empty for the unit one, None for none.

    Instants have that in which a flow without units takes them, days since the day of the first one, and durations seconds.
    """
    kind, dtype = type(values), getattr(values, "dtype", None)
    if kind is np.ndarray and values.dtype.kind not in "mMO":
        return None
    found = times.times_of(values)
    if found is not None:
        return times.unit_for(found)
    if kind is np.ndarray:
        return None
    if hasattr(kind, "unit"):
        unit = getattr(values, "unit", None)
    elif hasattr(kind, "units") or hasattr(kind, "to_value"):  # pint, and unyt, whose class does not have it
        unit = getattr(values, "units", None)
    elif hasattr(kind, "attrs") and hasattr(kind, "dims"):  # xarray, with the attribute of CF
        unit = {"1": ""}.get(values.attrs.get("units"), values.attrs.get("units"))
    else:
        unit = None if isinstance(dtype, np.dtype) else getattr(dtype, "units", None)
    if unit is None:
        return None
    is_unity = getattr(unit, "is_unity", None)
    return "" if (is_unity() if callable(is_unity) else str(unit) == "dimensionless") else str(unit)


def is_named_alone(values: Any) -> bool:
    """Whether values have the name of a unit, and can't be converted by themselves: columns of astropy, and xarray's."""
    kind = type(values)
    return not hasattr(kind, "to_value") and (hasattr(kind, "unit") or (hasattr(kind, "attrs") and hasattr(kind, "dims")))


def converted(values: Any, unit: str, wanted: str, where: str) -> Any:
    """Values of a unit in another one, without it.

    Parameters
    ----------
    values
        A quantity, or numbers without a unit.
    unit, wanted : str
        The unit that they have, and the one that they are to have.
    where : str
        Subject of the message.

    Raises
    ------
    ValueError
        If the one unit does not convert into the other.
    ImportError
        If astropy is needed for it and missing.
    """
    kind = type(values)
    found = times.times_of(values)
    if found is not None:
        numbers = times.in_unit(found, wanted)
    else:
        numbers = times.between(values, unit, wanted) if unit != wanted and _is_plain(values) else None
    if numbers is not None:
        return numbers
    if found is not None or (times.since(wanted) is not None and unit != wanted):
        raise ValueError(_refusal_of_times(found, where, unit, wanted))
    try:
        if hasattr(kind, "to_value"):  # astropy, unyt
            return values.to_value(wanted)
        if hasattr(kind, "magnitude"):  # pint
            return values.to(wanted).magnitude
        if hasattr(getattr(values, "dtype", None), "units"):  # pint within pandas
            return values.pint.to(wanted).pint.magnitude
    except Exception as error:  # each library has its own
        raise ValueError(_refusal(where, unit, wanted)) from error
    if unit == wanted:
        return values
    units = required(
        "astropy.units", f"{where}, in {unit} where the flow takes {wanted},", "astropy", "pip install astropy"
    )
    try:
        return units.Unit(unit).to(units.Unit(wanted), np.asarray(values, np.float64))
    except (ValueError, TypeError, units.UnitsError) as error:
        raise ValueError(_refusal(where, unit, wanted)) from error


def _is_plain(values: Any) -> bool:
    """Whether values are numbers without a unit of their own."""
    return isinstance(values, (np.ndarray, float)) and not hasattr(type(values), "to_value")


def _refusal_of_times(found: times.Times | None, where: str, unit: str, wanted: str) -> str:
    """The sentence for times that the flow's column does not take, or for numbers that are not its times."""
    known = times.since(wanted)
    given = found if found is not None else times.since(unit)
    if known is None or given is None or (found is not None and not found.are_instants):
        what = f"the unit {unit}" if found is None else "times" if found.are_instants else "durations"
        return f"{where} has {what}, which do not convert into the unit of the flow, {wanted}: pass numbers in it"
    aware, naive = ("times of a time zone", "times without one") if given.zone else ("times without a time zone", "UTC")
    how = "give the table's times their zone" if known.zone else "take the zone off, if they are meant as such"
    return f"{where} has {aware}, and the flow's, {wanted}, are {naive}: {how}"


def refusal(values: Any, unit: str, where: str, code: str) -> str:
    """The sentence for a unit where plain numbers are taken, with the way out.

    Parameters
    ----------
    where : str
        Subject of the sentence.
    code : str
        How to write the values in Python.
    """
    kind = type(values)
    if times.times_of(values) is not None:
        return (
            f"{where} holds dates or times ({unit}), and numbers are taken here: make numbers of them, for instance days "
            f"since an epoch of your choice, or set the units of the flow"
        )
    if hasattr(kind, "to_value"):
        how = f"{code}.to_value({unit!r})"
    elif hasattr(kind, "quantity"):
        how = f"{code}.quantity.to_value({unit!r})"
    else:
        how = "its magnitudes in a unit of your choice"
    return f"{where} has the unit {unit}, and flows take plain numbers: pass {how}"


def _refusal(where: str, unit: str, wanted: str) -> str:
    what = f"has the unit {unit}" if unit else "has the unit one (is dimensionless)"
    return f"{where} {what}, which does not convert into that of the flow, {wanted}: pass it in {wanted}"
