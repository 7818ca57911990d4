"""One flat buffer for all parameters of a flow, with named views.

`theta` holds what the kernels read: free parameters, the zeros that masks demand, and fixed constants.  What the user
sees as `params` is the packed vector of the free entries alone, and gradients are packed alike.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_left: ContextVar[list[int] | None] = ContextVar("npflows_left_to_allocate", default=None)


@contextmanager
def allowance(n: int) -> Iterator[None]:
    """Refuse, in this block, to make more than n numbers in all; what is made and dropped again counts too."""
    token = _left.set([n])
    try:
        yield
    finally:
        _left.reset(token)


def count(n: int) -> None:
    """Count n numbers that are about to be made.

    Raises
    ------
    ValueError
        If they are more than the `allowance`.
    """
    left = _left.get()
    if left is not None:
        left[0] -= n
        if left[0] < 0:
            raise ValueError("it would have more parameters than are there")


_lent: ContextVar[bool] = ContextVar("npflows_values_are_lent", default=False)


@contextmanager
def lent_values() -> Iterator[None]:
    """In this block a deep copy of a buffer reads the values of the original, until it is bound to a larger one."""
    token = _lent.set(True)
    try:
        yield
    finally:
        _lent.reset(token)


@dataclass(frozen=True)
class Parameter:
    """A named array in the flat buffer.

    Attributes
    ----------
    name : str
    value : ndarray
        The first values.
    free : ndarray of bool or bool, optional
        Which entries are parameters; the others keep their value for good (and must be 0 where a mask put them).
        None: all of them.
    """

    name: str
    value: np.ndarray
    free: np.ndarray | bool | None = None

    def free_mask(self) -> np.ndarray:
        """Which entries are free, as an array of the value's shape."""
        free = True if self.free is None else self.free
        return np.broadcast_to(np.asarray(free, bool), self.value.shape)

    def without_value(self) -> Parameter:
        """The same name, shape and mask, with zeros that take no memory."""
        return _valueless(self.name, self.value.shape, self.free)

    def __deepcopy__(self, memo: dict) -> Parameter:
        return self  # a copy of what takes no memory would take some

    def __reduce__(self) -> tuple:
        if self.value.ndim == 0 or any(self.value.strides):
            return Parameter, (self.name, self.value, self.free)
        return _valueless, (self.name, self.value.shape, self.free)


def _valueless(name: str, shape: tuple[int, ...], free: np.ndarray | bool | None) -> Parameter:
    return Parameter(name, np.broadcast_to(np.zeros(()), shape), free)


def prefixed(prefix: str, parameters: Iterable[Parameter]) -> list[Parameter]:
    """The same parameters, each name with a prefix."""
    return [replace(p, name=prefix + p.name) for p in parameters]


def writeable(array: np.ndarray) -> np.ndarray:
    """The array, copied where it is read-only, as joblib hands large ones over; compiled code takes none of these."""
    return array if array.flags.writeable else np.array(array)


class ParameterBuffer:
    """Parameters laid out one after the other in one array.

    Attributes
    ----------
    theta : ndarray
        The flat buffer, of the compute dtype; may be a slice of a larger one (`bind`).
    free : ndarray of bool
        Which entries of `theta` are free parameters.
    num_free : int
        How many they are.
    """

    def __init__(self, parameters: Iterable[Parameter], dtype: np.dtype) -> None:
        given = list(parameters)
        self.entries = [p.without_value() for p in given]
        self.dtype = np.dtype(dtype)
        size = sum(p.value.size for p in given)
        count(size)
        self.theta, self.free = np.zeros(size, self.dtype), np.zeros(size, bool)
        for p, view, free in zip(given, self.views().values(), self.views(self.free).values()):
            free[...] = p.free_mask()
            np.copyto(view, p.value, where=True if p.free is None or p.free is False else free)
        self.num_free = int(np.count_nonzero(self.free))

    def __deepcopy__(self, memo: dict) -> ParameterBuffer:
        new = copy.copy(self)  # which entries are free never changes
        if not _lent.get():
            new.theta = self.theta.copy()
        return new

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.theta, self.free = writeable(self.theta), writeable(self.free)

    def bind(self, part: np.ndarray) -> None:
        """Move the values into a slice of a larger buffer, and use that from now on."""
        part[:] = self.theta
        self.theta = part

    def views(self, flat: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Each parameter's view of `flat`, by default of `theta`."""
        flat = self.theta if flat is None else flat
        views, start = {}, 0
        for p in self.entries:
            views[p.name] = flat[start : start + p.value.size].reshape(p.value.shape)
            start += p.value.size
        return views

    def pack(self, flat: np.ndarray | None = None) -> np.ndarray:
        """The free entries of `flat` (by default of `theta`) as float64."""
        return (self.theta if flat is None else flat)[self.free].astype(np.float64)

    def unpack(self, packed: ArrayLike, what: str) -> None:
        """Set the free entries, after checking them."""
        values = np.asarray(packed, np.float64)
        if values.shape != (self.num_free,):
            raise ValueError(f"params of {what} has shape ({self.num_free},), got {values.shape}")
        with np.errstate(over="ignore"):
            narrowed = values.astype(self.dtype)
        if not np.isfinite(narrowed).all():
            bad = int((~np.isfinite(narrowed)).sum())
            raise ValueError(f"params of {what} must be finite in {self.dtype}, got {bad} values that are not")
        self.theta[self.free] = narrowed


class Parametrized:
    """Base class of everything with parameters; a subclass sets `parameters`."""

    parameters: ParameterBuffer

    def bind(self, part: np.ndarray) -> None:
        """Move the parameters into a slice of a larger buffer."""
        self.parameters.bind(part)

    @property
    def dtype(self) -> np.dtype:
        """The compute dtype, float32 or float64."""
        return self.parameters.dtype

    @property
    def theta_size(self) -> int:
        """Entries of the flat buffer, those that are not free included."""
        return self.parameters.theta.size

    @property
    def params(self) -> NDArray[np.float64]:
        """The free parameters as one float64 vector; reading gives a copy, assigning sets them after a check."""
        return self.parameters.pack()

    @params.setter
    def params(self, values: ArrayLike) -> None:
        self.parameters.unpack(values, type(self).__name__)

    @property
    def num_params(self) -> int:
        """How many free parameters there are; what a mask forbids does not count."""
        return self.parameters.num_free

    def named_params(self) -> dict[str, NDArray[Any]]:
        """Read-only views of the parameters by name, masked entries (zeros) and constants included."""
        views = self.parameters.views()
        for view in views.values():
            view.flags.writeable = False
        return views
