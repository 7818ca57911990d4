"""Every check of what comes from the user: one clear sentence that says what was expected and what came."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.core.columns import listed
from npflows.core.statistics import within_range
from npflows.core.tables import Header, as_array

SeedLike = int | np.integer | np.random.Generator | None
"""A seed, a generator, or None for a new one: the type of every `rng`."""
LARGEST_INT = 2**63 - 1
"""The largest whole number of arrays."""
_PACKAGE = __name__.partition(".")[0]


def warn_user(message: str) -> None:
    """Warn, naming the user's own line: the first one outside the package."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def as_int(value: object, name: str, low: int = 1) -> int:
    """A whole number of at least `low`, after a check."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise ValueError(f"{name} must be a whole number of at least {low}, got {_shown(value)}")
    if value > LARGEST_INT:
        raise ValueError(f"{name} must be a whole number of at most {LARGEST_INT}, got {_shown(value)}")
    return int(value)


def as_positive(value: Any, name: str, *, zero: bool = False) -> float:
    """A finite number above 0, or of at least 0 with `zero`, after a check."""
    ok = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not ok or not _is_finite(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name} must be a finite number {'of at least' if zero else 'above'} 0, got {_shown(value)}")
    return float(value)


def _is_finite(value: Any) -> bool:
    """Whether a number is finite as a float, which a whole number of 400 digits is not."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _shown(value: object) -> str:
    """A value for a message; Python prints no whole number of thousands of digits."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST_INT:
        return f"one of {value.bit_length()} bits"
    return repr(value)


def as_flag(value: object, name: str) -> bool:
    """True or False, also as 1 or 0 or NumPy's own, after a check."""
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, (int, np.integer)) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"{name} must be True or False, got {_shown(value)}")


def as_choice(value: object, name: str, choices: Sequence[str]) -> str:
    """One of the choices, after a check."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return str(value)


def as_widths(value: Any, name: str = "hidden_dims") -> tuple[int, ...]:
    """Hidden sizes: whole numbers of at least 1; an int stands for one hidden layer."""
    values = [value] if isinstance(value, (int, np.integer)) else value
    try:
        return tuple(as_int(v, name) for v in values)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be whole numbers of at least 1, for instance (128, 128), got {value!r}") from None


def as_shape(value: object, name: str) -> tuple[int, ...]:
    """(dim,) or (height, width, channels)."""
    if isinstance(value, (tuple, list)) and len(value) in (1, 3):
        return tuple(as_int(n, name) for n in value)
    if isinstance(value, (tuple, list)):
        raise ValueError(f"{name} must be a number or a shape (height, width, channels), got {value!r}")
    return (as_int(value, name),)


def as_dtype(value: Any) -> np.dtype:
    """float32 or float64, after a check."""
    try:
        dtype: np.dtype | None = np.dtype(value)
    except TypeError:
        dtype = None
    if dtype is None or dtype not in (np.float32, np.float64) or value is None:
        raise ValueError(f"dtype must be 'float32' or 'float64', got {value!r}")
    return dtype


def as_rng(rng: SeedLike, name: str = "rng") -> np.random.Generator:
    """A generator from an int, a Generator or None, and nothing else."""
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None or (isinstance(rng, (int, np.integer)) and not isinstance(rng, bool) and rng >= 0):
        return np.random.default_rng(rng)
    raise TypeError(f"{name} must be a non-negative int, a numpy.random.Generator or None, got {rng!r}")


def as_order(order: ArrayLike, n: int, name: str = "order") -> np.ndarray:
    """A permutation of 0..n-1."""
    values = np.asarray(order)
    if values.shape != (n,) or not np.array_equal(np.sort(values), np.arange(n)):
        raise ValueError(f"{name} must be a permutation of 0..{n - 1}, got {order!r}")
    return values.astype(np.int64)


def given_order(order: ArrayLike, n: int, named: dict[str, Callable[[], np.ndarray]]) -> np.ndarray:
    """A permutation of 0..n-1, given or by name."""
    if isinstance(order, str):
        return named[as_choice(order, "order", list(named))]().astype(np.int64)
    return as_order(order, n)


def as_mask(mask: ArrayLike) -> np.ndarray:
    """A mask of zeros and ones with at least one of each, flat."""
    values = np.asarray(mask).ravel()
    if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        raise ValueError("mask must hold only 0 (transformed) and 1 (unchanged, conditions the others)")
    if values.size < 2 or values.all() or not values.any():
        raise ValueError(
            f"mask must hold at least one 0 (transformed) and one 1 (unchanged), got {values.astype(int).tolist()}"
        )
    return values.astype(np.int64)


def as_numeric(values: ArrayLike, name: str, header: Header | None = None) -> np.ndarray:
    """A plain array of real numbers, without a copy where it is one already; see `npflows.core.tables.as_array`.

    Masked entries and NA of data frames become NaN.  With a header, columns that have names are taken by name.
    """
    if type(values) is np.ndarray and values.dtype.kind in "biuf" and values.dtype.itemsize <= 8:
        return values
    array, left_out = as_array(values, name, header)
    if left_out:
        warn_user(f"{name}: left out columns that the flow does not take: {listed(left_out)}")
    return array


def as_rows(
    values: ArrayLike, shape: tuple[int, ...], name: str, header: Header | None = None
) -> tuple[np.ndarray, bool]:  # fmt: skip
    """(n, dim) samples of a sample shape, and whether a single one was given without its axis.

    A sample of several axes may also come flat.  With a header, columns that have names are taken by name.
    """
    is_plain = type(values) is np.ndarray and values.dtype.kind == "f" and values.dtype.itemsize <= 8
    array: np.ndarray = values if is_plain else as_numeric(values, name, header)  # type: ignore[assignment]
    dim = shape[0] if len(shape) == 1 else math.prod(shape)
    if array.ndim == 2 and array.shape[1] == dim:
        return array, False
    if array.shape == shape or array.shape == (dim,):
        return array.reshape(1, dim), True
    if array.ndim == len(shape) + 1 and array.shape[1:] == shape:
        return array.reshape(len(array), dim), False
    wanted = f"(n, {', '.join(map(str, shape))})" + (f" or (n, {dim})" if len(shape) > 1 else "")
    hint = ""
    if array.ndim == 1:
        hint = f"; one sample has length {dim}" + (
            f", and {array.size} samples of it are {name}.reshape(-1, 1)" if dim == 1 else ""
        )
    elif array.ndim == 3 and array.shape[2] == dim and len(shape) == 1:
        hint = f"; of chains (draw, chain, {dim}) take {name}.reshape(-1, {dim})"
    elif array.ndim == 2:
        hint = f"; it has {array.shape[1]} columns where {dim} are expected"
    elif shape[2:] == (1,) and array.shape[-2:] == shape[:2]:
        hint = f"; give the one channel an axis: {name}[..., None]"
    raise ValueError(f"{name} must have shape {wanted}, got {array.shape}{hint}")


def as_names(names: Iterable[Any] | None, n: int, name: str, owner: str) -> list[str] | None:
    """n names, or None for none."""
    if isinstance(names, str) or not (names is None or isinstance(names, Iterable)):
        raise TypeError(f"{name} must be a sequence of names, got {names!r}")
    given = None if names is None else [str(v) for v in names]
    if given is not None and len(given) != n:
        wanted = f"{n} names, one for each value of {owner}" if n else "None"
        raise ValueError(f"{name} must be {wanted}, got {given!r}")
    return given


def as_vector(values: ArrayLike, n: int, name: str) -> NDArray[np.float64]:
    """n finite numbers as float64."""
    with np.errstate(over="ignore"):
        array = as_numeric(values, name).astype(np.float64)
    if array.ndim == 0:
        array = np.full(n, array)
    if array.shape != (n,):
        raise ValueError(f"{name} must have length {n}, one for each row, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite; entry {int(np.flatnonzero(~np.isfinite(array))[0])} is not")
    return array


def as_weights(
    values: ArrayLike | None, n: int, name: str = "sample_weight", logarithms: ArrayLike | None = None
) -> NDArray[np.float64] | None:
    """Non-negative weights that are not all zero, given as they are or as their logarithms.

    Only their ratios mean anything: logarithms give weights of at most 1, and weights near an end of the range of floats
    are multiplied by a power of 2, so that no sum of them or of their squares leaves it.
    """
    if logarithms is not None:
        return _from_logarithms(values, logarithms, n, name)
    if values is None:
        return None
    numbers = as_numeric(values, name)
    if numbers.ndim == 0:
        raise ValueError(f"{name} must have length {n}, one for each row, got a single number")
    weights = as_vector(numbers, n, name)
    if (weights < 0).any():
        first = int(np.argmax(weights < 0))
        raise ValueError(
            f"{name} must not be negative; entry {first} is {weights[first]:g}, and {(weights < 0).sum()} of {n} are "
            f"negative: a density can't be fitted to less than no rows, so leave these out or set them to 0"
        )
    if n and not weights.any():
        raise ValueError(f"{name} must not be all zero")
    return within_range(weights)


def _from_logarithms(values: ArrayLike | None, logarithms: ArrayLike, n: int, name: str) -> NDArray[np.float64]:
    log_name = name.replace("validation_weight", "validation_log_weight").replace("sample_weight", "log_weight")
    if values is not None:
        raise ValueError(f"give {name} or {log_name}, not both")
    logs = as_numeric(logarithms, log_name).astype(np.float64)
    if logs.shape != (n,):
        raise ValueError(f"{log_name} must have length {n}, one for each row, got shape {logs.shape}")
    wrong = np.isnan(logs) | (logs == math.inf)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ValueError(f"{log_name} must be finite, or -inf for a weight of 0; entry {first} is {logs[first]}")
    highest = logs.max(initial=-math.inf)
    if n and highest == -math.inf:
        raise ValueError(f"{log_name} must not be -inf for all rows: no row would have any weight")
    with np.errstate(under="ignore"):
        return np.exp(logs - highest)


def as_condition(
    condition: ArrayLike | None, n: int, dim: int, header: Header | None = None, name: str = "condition"
) -> np.ndarray | None:
    """(n, dim) conditions, one row for all samples or one for each; None exactly where a flow takes none."""
    if dim == 0:
        if condition is not None:
            raise ValueError("this flow takes no condition (condition_dim=0), but one was given")
        return None
    if condition is None:
        raise ValueError(f"this flow needs a condition of {dim} values for each sample: pass condition=")
    rows, single = as_rows(condition, (dim,), name, header)
    if single or (len(rows) == 1 and n != 1):
        return np.broadcast_to(rows, (n, dim))
    if len(rows) != n:
        each = f", or one for each of the {n} samples" if n != 1 else ""
        raise ValueError(f"{name} must have one row{each}, got {len(rows)}")
    return rows
