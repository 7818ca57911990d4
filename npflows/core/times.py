"""Times: instants and durations of any library as numbers of a unit, and back.

A column of instants has a unit that names its epoch, "days since 2020-01-01", as in the CF conventions for climate and
forecast metadata (version 1.11, section 4.4).  "UTC" at the end says that they are instants of universal time, as those
with a time zone are; without it they are what a clock shows somewhere.  One can't become the other unasked.  Days have
86400 seconds: leap seconds do not count.
"""

from __future__ import annotations

import datetime
import re
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from npflows.core.absent import MASKED

SECONDS = {
    "d": 86400.0, "day": 86400.0, "days": 86400.0, "h": 3600.0, "hr": 3600.0, "hour": 3600.0, "hours": 3600.0,
    "min": 60.0, "minute": 60.0, "minutes": 60.0, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3,
    "millisecond": 1e-3, "milliseconds": 1e-3, "us": 1e-6, "microsecond": 1e-6, "microseconds": 1e-6, "ns": 1e-9,
    "nanosecond": 1e-9, "nanoseconds": 1e-9,
}  # fmt: skip
"""Units of time, in seconds."""
UTC = "UTC"
DURATION = "s"
"""The unit that durations give to a flow."""
EPOCH = np.datetime64("2000-01-01", "D")
"""The epoch of a column without a single instant."""
_SINCE = re.compile(r"(\w+) since (\S.*)\Z")
ARROW_AND_POLARS = ("timestamp[", "date32[", "date64[", "duration[", "Date", "Duration(")
"""How the names of their types of times begin."""
_INSTANT = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)(?:[T ](\d\d?):(\d\d)(?::(\d\d(?:\.\d{1,9})?))?)?(?: ?(Z|UTC|[+-]\d\d?(?::?\d\d)?))?\Z",
    re.ASCII,
)
"""An instant by ISO 8601, the separator a space perhaps, and its offset from universal time."""


class Times(NamedTuple):
    """Instants or durations.

    Attributes
    ----------
    values : ndarray of datetime64 or timedelta64
    zone : str
        "UTC" for instants of universal time, empty for others.
    """

    values: np.ndarray
    zone: str = ""

    @property
    def are_instants(self) -> bool:
        """Whether they are instants; otherwise they are durations."""
        return self.values.dtype.kind == "M"


class Since(NamedTuple):
    """The unit of a column of instants.

    Attributes
    ----------
    seconds : float
    epoch : datetime64
    zone : str
    """

    seconds: float
    epoch: np.datetime64
    zone: str


def since(unit: str | None) -> Since | None:
    """What a unit such as "days since 2020-01-01 UTC" says; None for other units."""
    found = _SINCE.match(unit) if unit else None
    if found is None or found.group(1).lower() not in SECONDS:
        return None
    epoch = instant(found.group(2))
    return None if epoch is None else Since(SECONDS[found.group(1).lower()], epoch[0], epoch[1])


def instant(text: str) -> tuple[np.datetime64, str] | None:
    """The instant that a text gives by ISO 8601, and its zone: universal time, or none; None for any other text."""
    found = _INSTANT.match(text.strip())
    if found is None:
        return None
    year, month, day, hour, minute, second, offset = found.groups()
    clock = "" if hour is None else f"T{hour:>02}:{minute}" + (f":{second}" if second else "")
    try:
        value = np.datetime64(f"{year}-{month:>02}-{day:>02}{clock}")
    except ValueError:  # there is no 30 February
        return None
    if offset is None:
        return value, ""
    if offset not in ("Z", "UTC"):
        hours, _, more = offset[1:].partition(":")
        hours, more = (hours[:2], hours[2:]) if len(hours) > 2 else (hours, more)
        minutes = 60 * int(hours) + int(more or 0)
        value = value - np.timedelta64(-minutes if offset[0] == "-" else minutes, "m")
    return value, UTC


def times_of(values: Any) -> Times | None:
    """Instants or durations of NumPy, Python, pandas, polars, pyarrow and astropy; None for all else.

    Raises
    ------
    ValueError
        If they are astropy's UT1, which no rule takes to universal time.
    """
    kind = type(values)
    if kind is np.ndarray:
        return _of_array(values)
    if kind is Times:
        return values
    if isinstance(values, np.ma.MaskedArray):
        found = _of_array(np.asarray(values.data))
        return None if found is None else Times(np.where(np.ma.getmaskarray(values), np.array("NaT", found.values.dtype),
                                                         found.values), found.zone)  # fmt: skip
    if isinstance(values, np.ndarray):  # a column of astropy
        return _of_array(np.asarray(values))
    if isinstance(values, (np.datetime64, np.timedelta64)):
        return Times(np.asarray(values))
    if isinstance(values, (datetime.date, datetime.timedelta)):  # pandas' own are among them
        return _of_objects(np.array([values], object), ())
    if isinstance(values, (list, tuple)):
        if values and isinstance(values[0], (datetime.date, datetime.timedelta, np.datetime64, np.timedelta64)):
            try:
                return _of_array(np.asarray(values, None if isinstance(values[0], np.generic) else object))
            except (TypeError, ValueError):
                return None
        return None
    if hasattr(kind, "jd1") and hasattr(kind, "jd2"):
        return _of_astropy(values)
    dtype = getattr(values, "dtype", getattr(values, "type", None))
    if hasattr(dtype, "pyarrow_dtype"):  # a column of pandas that pyarrow holds
        return times_of(getattr(values, "array", values).__arrow_array__())
    if isinstance(dtype, np.dtype) and dtype.kind in "mM" and hasattr(values, "to_numpy"):  # pandas and xarray
        return Times(np.asarray(values))
    if getattr(dtype, "kind", None) in ("m", "M") and hasattr(values, "to_numpy"):  # pandas, with a time zone
        zone, known = getattr(dtype, "tz", None), np.dtype(f"{dtype.kind}8[{getattr(dtype, 'unit', 'ns')}]")  # type: ignore[union-attr]
        return Times(np.asarray(values.to_numpy(known, na_value=np.array("NaT", known))), UTC if zone else "")
    if isinstance(dtype, np.dtype) and dtype.kind == "O" and hasattr(kind, "iloc"):
        return _of_array(np.asarray(values))
    name = str(dtype)
    if hasattr(kind, "__array__") and name.startswith(ARROW_AND_POLARS):
        zone = getattr(dtype, "tz", None) or getattr(dtype, "time_zone", None)  # pyarrow, polars
        array = np.asarray(values)
        return Times(array, UTC if zone else "") if array.dtype.kind in "mM" else _of_array(array)
    return None


def _of_array(array: np.ndarray) -> Times | None:
    if array.dtype.kind in "mM":
        return Times(array)
    return _of_objects(array.reshape(-1), array.shape) if array.dtype.kind == "O" else None


def _of_objects(flat: np.ndarray, shape: tuple[int, ...]) -> Times | None:
    """Python's and pandas' times in an array of objects, where all are of one kind."""
    is_time = (datetime.date, datetime.timedelta, np.datetime64, np.timedelta64)
    given = [value for value in flat if not _is_absent(value)]
    if not given or not all(isinstance(value, is_time) for value in given):
        return None
    plain = [_plain(value) for value in given]
    zones = {zone for _, zone in plain}
    if len({value.dtype.kind for value, _ in plain}) > 1 or len(zones) > 1:
        return None
    found = np.array([value for value, _ in plain])
    whole = np.full(len(flat), np.array("NaT", found.dtype))
    whole[[i for i, value in enumerate(flat) if not _is_absent(value)]] = found
    return Times(whole.reshape(shape), zones.pop())


def _is_absent(value: Any) -> bool:
    if value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, Decimal, np.generic)) and bool(value != value)


def _plain(value: Any) -> tuple[Any, str]:
    """A datetime64 or timedelta64, in universal time where the value has a time zone, and its zone."""
    zone = getattr(value, "tzinfo", None)
    if zone is not None:
        value = value.astimezone(datetime.timezone.utc) if not hasattr(value, "tz_convert") else value.tz_convert("UTC")
        value = value.replace(tzinfo=None) if not hasattr(value, "tz_localize") else value.tz_localize(None)
    for name in ("to_datetime64", "to_timedelta64"):
        if hasattr(value, name):
            return getattr(value, name)(), UTC if zone is not None else ""
    if isinstance(value, np.generic):
        return value, ""
    return (np.timedelta64(value) if isinstance(value, datetime.timedelta) else np.datetime64(value)), UTC if zone else ""


def _of_astropy(values: Any) -> Times | None:
    """A Time or TimeDelta of astropy."""
    scale = getattr(values, "scale", None)
    hidden = np.asarray(getattr(values, "mask", False))
    if not hasattr(type(values), "sidereal_time"):  # a TimeDelta
        seconds = values.to_value("sec")
        seconds = np.where(hidden, 0.0, np.asarray(getattr(seconds, "unmasked", seconds), np.float64))
        step, ticks = _ticks(float(np.abs(seconds).max(initial=0.0)))
        array: np.ndarray = np.rint(seconds * ticks).astype(f"m8[{step}]")
        return Times(np.where(hidden, np.array("NaT", array.dtype), array))
    if scale == "ut1":
        raise ValueError("times of the scale UT1 need tables of the Earth's rotation: pass time.utc")
    given = values if scale in ("utc", "local") else values.utc
    array = given.datetime64
    array = np.asarray(getattr(array, "unmasked", array))
    return Times(np.where(hidden, np.array("NaT", array.dtype), array), "" if scale == "local" else UTC)


def unit_for(times: Times) -> str:
    """The unit in which a flow that has none takes times: days since the day of the first one, or seconds."""
    if not times.are_instants:
        return DURATION
    given = times.values[~np.isnat(times.values)]
    epoch = given.min().astype("M8[D]") if given.size else EPOCH
    return f"days since {epoch}{' ' + times.zone if times.zone else ''}"


def in_unit(times: Times, unit: str) -> np.ndarray | None:
    """Times as numbers of a unit, NaN for those that are not known; None where the unit is none of them."""
    known = since(unit)
    if times.are_instants:
        if known is None or known.zone != times.zone:
            return None
        return _divided(times.values - known.epoch, known.seconds)
    return None if known is not None or unit not in SECONDS else _divided(times.values, SECONDS[unit])


def _divided(durations: np.ndarray, seconds: float) -> np.ndarray:
    """Durations as numbers of some seconds, rounded once; masked where they are not known."""
    step, count = np.datetime_data(durations.dtype)
    if step in ("Y", "M"):  # neither has a length; the difference of instants never has them
        durations, (step, count) = durations.astype("m8[s]"), ("s", 1)
    if step == "generic":
        durations, (step, count) = durations.astype("m8[ns]"), ("ns", 1)
    lengths = {"W": 604800.0, "D": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9,
               "ps": 1e-12, "fs": 1e-15, "as": 1e-18}  # fmt: skip
    ticks, unit = durations.astype(np.int64), lengths[step] * count
    a_unit = seconds / unit
    if a_unit >= 1 and abs(a_unit - round(a_unit)) < 1e-6 * a_unit and a_unit < 2**62:
        whole, rest = np.divmod(ticks, round(a_unit))
        found: np.ndarray = whole + rest / round(a_unit)
    else:
        found = ticks * (unit / seconds) if a_unit >= 1 else ticks * round(unit / seconds)
    return np.where(np.isnat(durations), MASKED, found)


def between(numbers: Any, unit: str, wanted: str) -> np.ndarray | None:
    """Numbers of one unit of time in another, both with an epoch or none; None where they do not convert."""
    given, other = since(unit), since(wanted)
    values = np.asarray(numbers, np.float64)
    if given is None and other is None:
        return values * (SECONDS[unit] / SECONDS[wanted]) if unit in SECONDS and wanted in SECONDS else None
    if given is None or other is None or given.zone != other.zone:
        return None
    apart = _divided(np.asarray(given.epoch - other.epoch), other.seconds)
    return values * (given.seconds / other.seconds) + apart


def instants(numbers: np.ndarray, unit: str | None) -> Times | None:
    """The instants of numbers of a unit with an epoch, to the nanosecond where there is room for that; None for others."""
    known = since(unit)
    if known is None:
        return None
    values = np.asarray(numbers, np.float64)
    is_known = np.isfinite(values)
    values = np.where(is_known, values, 0.0)
    whole = np.floor(values)
    most = np.abs(values).max(initial=0.0) * known.seconds + abs(float((known.epoch - EPOCH) / np.timedelta64(1, "s")))
    step, ticks = _ticks(most)
    seconds = int(known.seconds) if known.seconds >= 1 else 0
    if seconds:
        rest = np.rint((values - whole) * known.seconds * ticks)
        count = whole.astype(np.int64) * (seconds * int(ticks)) + rest.astype(np.int64)
    else:
        count = np.rint(values * (known.seconds * ticks)).astype(np.int64)
    found = known.epoch.astype(f"M8[{step}]") + count.astype(f"m8[{step}]")
    return Times(np.where(is_known, found, np.array("NaT", found.dtype)), known.zone)


def _ticks(most: float) -> tuple[str, float]:
    """The step in which times of so many seconds at most are counted, and how many of them a second has."""
    return ("ns", 1e9) if most < 2**62 / 1e9 else ("us", 1e6)
