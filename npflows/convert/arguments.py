"""The arguments of converters: what a file does not tell is checked here, before anything is computed with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from npflows.convert.errors import ConversionError
from npflows.convert.networks import ACTIVATIONS
from npflows.core.checks import as_choice, as_dtype, as_flag, as_int, as_positive

UNIVARIATE = ("affine", "additive", "spline", "circular spline", "bounded bernstein", "bernstein")
TRANSFORMERS = ("affine", "spline")
SPLINES = ("rational_quadratic", "linear", "quadratic", "cubic")
ORDERS = ("linear", "quadratic")
SCALES = ("wide", "sigmoid", "softplus")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _number(value: Any, name: str) -> float:
    """A number, perhaps infinite."""
    if not _is_number(value) or math.isnan(value):
        raise ValueError(f"{name} must be a number, got {value!r}")
    return float(value)


def _share(value: Any, name: str) -> float:
    """A least scale or slope of a map whose raw value 0 stands for 1."""
    if not _is_number(value) or not 0 <= value < 1:
        raise ValueError(f"{name} must be a number of at least 0 and below 1, got {value!r}")
    return float(value)


def _slope(value: Any, name: str) -> float:
    """zuko's least slope: infinity stands for none."""
    if not _is_number(value) or not (0 < value < 1 or value == math.inf):
        raise ValueError(f"{name} must be a number above 0 and below 1, or infinity for no least slope, got {value!r}")
    return float(value)


def _glasflow_scale(value: Any, name: str) -> str | float:
    if isinstance(value, str) and value in SCALES:
        return value
    if not _is_number(value) or not 0 < value < math.inf:
        choices = ", ".join(map(repr, SCALES))
        raise ValueError(f"{name} must be {choices} or a finite number above 0, got {value!r}")
    return float(value)


def _dtype(value: Any, name: str) -> str:
    return as_dtype(value).name


def _choice(*choices: str) -> Callable[[Any, str], str]:
    return lambda value, name: as_choice(value, name, choices)


CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "activation": _choice(*sorted(set(ACTIVATIONS.values()))),
    "bound": as_positive,
    "dim": partial(as_int, low=-(2**31)),
    "dtype": _dtype,
    "epsilon": partial(as_positive, zero=True),
    "identity": as_flag,
    "interval": as_positive,
    "inverse": as_flag,
    "invert": as_flag,
    "log_scale_max_clip": _number,
    "log_scale_min_clip": _number,
    "min_derivative": _share,
    "min_scale": _share,
    "min_width": partial(as_positive, zero=True),
    "order": _choice(*ORDERS),
    "scale": _glasflow_scale,
    "slope": _slope,
    "spline": _choice(*SPLINES),
    "split_dim": as_int,
    "stable": as_flag,
    "tail_bound": as_positive,
    "transformer": _choice(*TRANSFORMERS),
    "univariate": _choice(*UNIVARIATE),
}
"""What each argument may be, by its name, which has one meaning in all converters."""
OPTIONAL = ("bound", "dtype", "interval", "tail_bound", "univariate")
"""Those of which None says that they are not given."""


def checked(where: str = "", **given: Any) -> dict[str, Any]:
    """Arguments after a check; None stays for those that are not given.

    Parameters
    ----------
    where : str
        What they belong to, for messages.
    **given
        Arguments by their names.

    Raises
    ------
    ConversionError
        If a value is not one of its argument.
    """
    result = {}
    for name, value in given.items():
        try:
            result[name] = None if value is None and name in OPTIONAL else CHECKS[name](value, name)
        except (ValueError, TypeError) as error:
            raise ConversionError(f"{error}{f' ({where})' if where else ''}") from None
    return result
