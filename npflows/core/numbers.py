"""Plain arrays of numbers from values of whatever kind: a NaN where a mask, NA or None is, and a sentence for all else."""

from __future__ import annotations

import datetime
import functools
import os
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from npflows.core import units
from npflows.core.absent import MASKED, matches, of_mark
from npflows.core.gpu_arrays import ON_HOST, is_on_gpu
from npflows.core.times import times_of

TIMES = "; make numbers of it, for instance years since an epoch of your choice"
"""Advice for dates."""
CLOCKS = frozenset({"Time", "TimeDelta", "Timestamp", "Timedelta", "Period", "NaTType"})
"""Names of classes of astropy and pandas that are dates or times."""


def numbers_of(
    values: Any,
    where: str,
    code: str = "",
    *,
    column: bool = False,
    unit: str | None = None,
    wanted: str | None = None,
    marks: Sequence[float] = (),
) -> np.ndarray:
    """A plain array of numbers from anything that does not name columns.

    Parameters
    ----------
    values
        What the user gave.
    where : str
        Subject of the messages.
    code : str
        How to write the values in Python; by default as the subject.
    column : bool
        Whether it is one column of a table.
    unit : str, optional
        The unit of the values, where they do not say it themselves.
    wanted : str, optional
        The unit that the numbers are to have.  Values without a unit have it already.
    marks : sequence of float
        Values that stand for missing entries, in the unit of the values: where that is converted, they become NaN that
        `npflows.core.absent.matches` knows.

    Raises
    ------
    TypeError
        If something is no number, or has a unit where none is wanted.
    ValueError
        If a unit does not convert into the one that is wanted.
    """
    if type(values) is not np.ndarray or unit is not None or values.dtype.kind in "mMO":
        given = units.unit_of(values)
        given, values = unit if given is None else given, computed(values)
        if given and wanted is None:
            raise TypeError(units.refusal(values, given, where, code or where))
        if given is not None and wanted is not None:
            if marks and given != wanted and times_of(values) is None:
                same = functools.partial(numbers_of, values, where, code, column=column, unit=unit)
                return _with_marks(same(wanted=wanted), same(wanted=given), marks)
            if units.unit_of(values) is None:  # the unit is that of the table
                values = numbers_of(values, where, code, column=column)
            elif units.is_named_alone(values):
                values = plain_array(values)
            values = units.converted(values, given, wanted, where)
    advice = "; leave the column out, or make numbers of it" if column else ""
    if isinstance(values, os.PathLike) or (isinstance(values, str) and not column):
        path = f"npflows.read_table({os.fspath(values)!r})"
        raise TypeError(f"{where} must be an array of numbers, got text; if it is the name of a file, pass {path}")
    try:
        if isinstance(values, (list, tuple)) and any(hasattr(type(value), "_fields") for value in values):
            raise TypeError(
                f"{where} must be an array of numbers, and is a list of named tuples, whose names would be lost: make a "
                f"data frame of it"
            )
        if isinstance(values, (list, tuple)) and any(map(_is_special, values)):
            values = [numbers_of(value, where, wanted=wanted, marks=marks) for value in values]
        array = plain_array(values)
    except Exception as error:  # each library has its own
        if str(error).startswith(where):
            raise
        if is_on_gpu(values):
            raise TypeError(f"{where} lies on a GPU: {ON_HOST}") from None
        dtype = getattr(values, "dtype", getattr(values, "type", None))
        what = f"; {type(values).__name__}{'' if dtype is None else f' of {dtype}'} can't be made into one"
        raise TypeError(f"{where} must be an array of numbers{what}{advice}") from None
    if array.dtype.kind == "O":
        if is_on_gpu(values):
            raise TypeError(f"{where} lies on a GPU: {ON_HOST}")
        if hasattr(values, "toarray"):
            raise TypeError(f"{where} must be an array of numbers, and is sparse: pass {code or where}.toarray()")
        array = _from_objects(array, where, advice)
    if array.dtype.kind not in "biuf":
        if array.dtype.kind in "mM":
            advice = TIMES
        raise TypeError(f"{where} must be an array of numbers, got dtype {array.dtype}{advice}")
    if array.dtype.itemsize > 8:  # longdouble, which no kernel and no linear algebra takes
        with np.errstate(over="ignore"):
            array = array.astype(np.float64)
    return array


def computed(values: Any) -> Any:
    """What a lazy array gives: that of Dask may have a mask, which its conversion to a plain array loses."""
    if hasattr(type(values), "to_dataset") and hasattr(type(values), "data"):  # xarray
        values = values.data
    return values.compute() if hasattr(type(values), "dask") and hasattr(type(values), "compute") else values


def _with_marks(numbers: np.ndarray, as_given: np.ndarray, marks: Sequence[float]) -> np.ndarray:
    """Numbers of one unit with NaN for the marks among them as they were given, in another unit.

    Others that the new unit makes equal to a mark are taken off it, by one rounding.
    """
    numbers = numbers if numbers.dtype.kind == "f" else numbers.astype(np.float64)
    for place, mark in enumerate(marks):
        if mark == mark:
            numbers = np.where(matches(numbers, mark, place), np.nextafter(numbers, np.inf, dtype=numbers.dtype), numbers)
            numbers = np.where(matches(as_given, mark), of_mark(place), numbers)
    return numbers


def plain_array(values: Any) -> np.ndarray:
    """A plain array of any dtype, with a NaN where an entry is masked."""
    if isinstance(values, np.ndarray):
        if type(values) is np.ndarray:
            return values
        if isinstance(values, np.ma.MaskedArray) or hasattr(values, "unmasked"):
            bare = np.asarray(values.data if isinstance(values, np.ma.MaskedArray) else values.unmasked)
            mask = np.asarray(getattr(values, "mask", False))
            if not mask.any() or bare.dtype.kind not in "biufO":
                return bare
            return np.where(mask, np.array(None) if bare.dtype.kind == "O" else MASKED, bare)
        return np.asarray(values)
    dtype = getattr(values, "dtype", None)
    kind = getattr(dtype, "kind", None)
    if kind is not None and not isinstance(dtype, np.dtype) and kind in "biuf" and hasattr(values, "to_numpy"):
        return values.to_numpy(np.float64, na_value=MASKED)  # pandas with NA
    array = np.asarray(values)
    if array.dtype.kind in "biuf" and hasattr(type(values), "is_null") and hasattr(type(values), "null_count"):
        null = np.asarray(values.is_null(), bool)  # polars and pyarrow
        array = np.where(null, MASKED, array) if null.any() else array
    return array


def _is_special(value: Any) -> bool:
    """Whether a mask or a unit would be lost where the value becomes part of an array."""
    if isinstance(value, (list, tuple)):
        return any(map(_is_special, value))
    return isinstance(value, np.ndarray) and type(value) is not np.ndarray


def _from_objects(array: np.ndarray, where: str, advice: str) -> np.ndarray:
    """Numbers from an array of objects; a NaN for None and NA."""
    numbers = np.empty(array.shape)
    flat = numbers.reshape(-1)
    for i, value in enumerate(array.reshape(-1)):
        if value is None or type(value).__name__ == "NAType" or value is np.ma.masked:
            flat[i] = MASKED
        elif isinstance(value, (Real, Decimal, np.bool_)):
            flat[i] = _as_float(value, where)
        else:
            what = "text" if isinstance(value, (str, bytes)) else f"a {type(value).__name__}"
            is_clock = isinstance(value, (datetime.date, datetime.time, datetime.timedelta))
            if is_clock or type(value).__name__ in CLOCKS:
                what, advice = "dates or times", TIMES
            elif (unit := units.unit_of(value)) is not None:
                if unit:
                    raise TypeError(units.refusal(value, unit, where, where))
            elif isinstance(value, (np.ndarray, list, tuple)):
                what = f"several values in a cell (a {type(value).__name__})"
                advice = "; make a column of each of them" + (", or leave the column out" if advice else "")
            if hasattr(value, "collect") and hasattr(value, "columns"):
                advice = f"; pass {where}.collect()"
            shown = f" ({value!r})" if isinstance(value, (str, bytes)) and len(value) < 40 else ""
            raise TypeError(f"{where} must be an array of numbers, and holds {what}{shown}{advice}")
    return numbers


def _as_float(value: Any, where: str) -> float:
    """A number as a float, which a whole number of 400 digits can't be."""
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{where} holds a number beyond the range of float64, about 1.8e308: give its logarithm") from None
