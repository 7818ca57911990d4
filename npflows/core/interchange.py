"""Columns of data frames that speak nothing but the data-frame interchange protocol."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from npflows.core.absent import MASKED

KINDS = {0: "i", 1: "u", 2: "f", 20: "b"}
"""Kinds of dtypes that are numbers, and NumPy's letters for them."""
NAN, SENTINEL, BITS, BYTES = 1, 2, 3, 4
"""How a column may say that a value is null."""


def interchange_column(frame: Any, i: int) -> np.ndarray:
    """One column of `__dataframe__()` as an array, NaN where it is null.

    Raises
    ------
    TypeError
        If it does not hold numbers.
    """
    name = list(frame.column_names())[i]
    parts = [_chunk(chunk.get_column_by_name(name)) for chunk in frame.get_chunks()]
    return np.concatenate(parts) if parts else np.empty(0)


def _chunk(column: Any) -> np.ndarray:
    kind, bits = column.dtype[:2]
    if int(kind) not in KINDS:
        raise TypeError(f"its dtype is {column.dtype[2]!r}")
    buffers, n, offset = column.get_buffers(), column.size(), column.offset
    how, null = column.describe_null
    if int(kind) == 20 and bits == 1:
        values: np.ndarray = _bits(buffers["data"][0], offset, n)
    else:
        values = _array(buffers["data"][0], np.dtype(f"{KINDS[int(kind)]}{bits // 8}"), offset, n)
    if int(how) == SENTINEL:
        return np.where(values == null, MASKED, values)
    if int(how) in (BITS, BYTES) and buffers["validity"] is not None:
        mask, dtype = buffers["validity"]
        flags = _bits(mask, offset, n) if int(how) == BITS else _array(mask, np.dtype(f"u{dtype[1] // 8}"), offset, n)
        is_null = flags == null
        return np.where(is_null, MASKED, values) if is_null.any() else values
    return values


def _array(buffer: Any, dtype: np.dtype, offset: int, n: int) -> np.ndarray:
    """A copy of n values of a buffer."""
    if not n:
        return np.empty(0, dtype)
    memory = (ctypes.c_char * ((offset + n) * dtype.itemsize)).from_address(buffer.ptr)
    return np.frombuffer(memoryview(memory), dtype, n, offset * dtype.itemsize).copy()


def _bits(buffer: Any, offset: int, n: int) -> np.ndarray:
    """n bits of a buffer, the lowest of each byte first."""
    whole = _array(buffer, np.dtype("u1"), 0, -(-(offset + n) // 8))
    return np.unpackbits(whole, bitorder="little")[offset : offset + n].astype(bool)
