"""Underflow, of which users with `np.seterr(under="raise")` shall not hear: a number too small to be held is 0 here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def ignore_underflow(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """A function of the package in which underflow is no error, whatever `np.seterr` says; not for one that calls the
    user's own."""

    @functools.wraps(function)
    def guarded(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with np.errstate(under="ignore"):
            return function(*args, **kwargs)

    return guarded
