"""The arguments of kernels as a driver takes them: each array is many numbers, in the order in which numba.cuda's kernels
have their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from npflows.backends.cuda.device_array import DeviceArray

SCALARS = {
    int: "int64", float: "float64", bool: "bool", np.int64: "int64", np.float64: "float64", np.float32: "float32",
    np.bool_: "bool",
}  # fmt: skip
"""The kinds of numbers, by their types."""
_TRUTH = {False: np.False_, True: np.True_}


def refused(argument: Any) -> TypeError:
    """The error for an argument that no kernel takes."""
    return TypeError(f"a kernel takes arrays on the GPU and numbers, got {type(argument).__name__}")


def flatten(arguments: Sequence[Any]) -> tuple[tuple[str, ...], list[Any]]:
    """The kinds of arguments, and what is given to a kernel for them, each number of the size of its parameter: an int has
    8 bytes, and so has a float."""
    kinds: list[str] = []
    values: list[Any] = []
    for one in arguments:
        if type(one) is DeviceArray:
            kinds.append(one.kind)
            values.extend(one.fields)
            continue
        kind = SCALARS.get(type(one))
        if kind is None:
            raise refused(one)
        kinds.append(kind)
        values.append(_TRUTH[one] if kind == "bool" else one)
    return tuple(kinds), values
