"""What the attributes of netCDF say of the numbers of a dataset: packing, missing values, valid ranges and units.

The conventions are those of CF 1.11, sections 2.5.1 and 8.1, and of the NetCDF Users Guide, appendix A.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npflows.core.absent import MASKED
from npflows.core.times import since
from npflows.files.tables.source import TableError

CALENDARS = ("standard", "gregorian", "proleptic_gregorian")
"""Calendars that NumPy has (CF conventions 1.11, section 4.4.1)."""
MISSING = ("_FillValue", "missing_value")
"""Attributes that say which values are missing."""
PACKING = ("scale_factor", "add_offset")
DEFAULT_FILL = {
    "i2": -32767, "u2": 65535, "i4": -2147483647, "u4": 4294967295, "i8": -9223372036854775806, "u8": 18446744073709551614,
    "f4": 9.969209968386869e36, "f8": 9.969209968386869e36,
}  # fmt: skip
"""What netCDF fills entries with that were never written, where no attribute says otherwise; bytes have no such value."""
NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable"
"""How the attribute NAME begins of a dataset that only notes the length of a dimension."""


def text_of(value: Any) -> str:
    """A text of HDF5, which h5py gives as bytes, as a string, or as an array of one of them; empty where it is empty."""
    if getattr(value, "shape", ()) is None:  # h5py.Empty
        return ""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def is_variable(dataset: Any) -> bool:
    """Whether a dataset holds values; others only note the length of a dimension."""
    return not text_of(dataset.attrs.get("NAME", "")).startswith(NO_VARIABLE)


def is_count(dataset: Any) -> bool:
    """Whether a dataset only counts the entries of a dimension from 0, as xarray writes the index of a data frame."""
    is_scale = text_of(dataset.attrs.get("CLASS", "")) == "DIMENSION_SCALE" and "units" not in dataset.attrs
    return is_scale and dataset.dtype.kind in "iu" and np.array_equal(dataset[()], np.arange(len(dataset)))


def decoded(dataset: Any) -> np.ndarray:
    """The values of a dataset in its unit, NaN where they are missing or outside of the valid range.

    Raises
    ------
    TableError
        If they are times of a calendar that NumPy does not have.
    """
    calendar = text_of(dataset.attrs.get("calendar", CALENDARS[0]))
    if calendar not in CALENDARS and since(unit_of_attributes(dataset)) is not None:
        raise TableError(
            f"{dataset.name} holds times of the calendar {calendar}, which has no dates of others: make numbers of it"
        )
    values = dataset[()]
    if values.dtype.kind not in "iuf":
        return values
    given = {name: _numbers(dataset.attrs[name]) for name in dataset.attrs}
    values = _with_sign(values, text_of(dataset.attrs.get("_Unsigned", "")).lower())
    scale, offset = (None if given.get(name) is None else float(given[name][0]) for name in PACKING)
    hidden = _missing(values, dataset.fillvalue, [given[name] for name in MISSING if given.get(name) is not None])
    unpacked = values
    if scale is not None or offset is not None:
        unpacked = values * (1.0 if scale is None else scale) + (0.0 if offset is None else offset)
    low, high = _valid(given)
    for bound, is_outside in ((low, np.less), (high, np.greater)):
        if bound is not None:
            is_packed = bound.dtype.kind in "iu" or values.dtype.kind == "f"
            hidden = hidden | is_outside(values if is_packed else unpacked, _with_sign_of(bound, values)[0])
    return np.where(hidden, MASKED, unpacked) if np.any(hidden) else unpacked


def _numbers(value: Any) -> Any:
    """The numbers of an attribute, None where it holds others or none."""
    array = np.ravel(np.asarray(value)) if isinstance(value, (np.ndarray, np.generic, int, float)) else np.empty(0, "U1")
    return array if array.size and array.dtype.kind in "iuf" else None


def _with_sign(values: np.ndarray, is_unsigned: str) -> np.ndarray:
    """Whole numbers with or without a sign as the attribute _Unsigned says, which older formats have no type for."""
    kind = {"true": "u", "false": "i"}.get(is_unsigned, values.dtype.kind)
    return values if values.dtype.kind not in "iu" else values.view(values.dtype.str.replace(values.dtype.kind, kind))


def _with_sign_of(attribute: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The numbers of an attribute with the sign of values of their size, and rounded as these are."""
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return attribute.astype(values.dtype)
    if attribute.dtype.kind in "iu" and attribute.dtype.itemsize == values.dtype.itemsize:
        return attribute.view(attribute.dtype.str.replace(attribute.dtype.kind, values.dtype.kind))
    return attribute


def _missing(values: np.ndarray, fill: Any, marks: list[np.ndarray]) -> Any:
    """Where values are one of the marks, or were never written."""
    hidden: Any = False
    for mark in marks:
        for one in _with_sign_of(mark, values):
            hidden = hidden | (values == one)
    default = DEFAULT_FILL.get(values.dtype.str[1:])
    if default is not None and values.dtype.type(default) == fill:
        hidden = hidden | (values == fill)
    return hidden


def _valid(given: dict[str, Any]) -> tuple[Any, Any]:
    """The smallest and the largest valid value, None where there is none."""
    both = given.get("valid_range")
    if both is not None and both.size == 2:
        return both[:1], both[1:]
    return given.get("valid_min"), given.get("valid_max")


def unit_of_attributes(dataset: Any) -> str | None:
    """The unit that the attributes of a dataset give it."""
    return next((text_of(dataset.attrs[name]) or None for name in ("units", "unit") if name in dataset.attrs), None)
