"""The map between the user's values and unconstrained ones that may come before a program."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from numpy.typing import NDArray

from npflows.core.operations import Supports


class Unconstrained(NamedTuple):
    """Samples in unconstrained coordinates.

    Attributes
    ----------
    t : ndarray (n, d)
        Their values.
    log_det : ndarray (n,)
        The log-determinant of getting there.
    inside : ndarray of bool (n,)
        Which rows lie in the support.  Values of the others are finite, and to be ignored.
    """

    t: NDArray
    log_det: NDArray
    inside: NDArray


class Bijection(Protocol):
    """An exact map, in float64, from the user's values to unconstrained ones."""

    def operation(self) -> Supports:
        """The map as plain data, for backends."""
        ...

    def to_unconstrained(self, x: NDArray) -> Unconstrained:
        """From the user's values (n, d)."""
        ...

    def from_unconstrained(self, t: NDArray) -> tuple[NDArray, NDArray]:
        """The user's values, with log |det dx/dt|."""
        ...

    def to_unconstrained_vjp(self, x: NDArray, dt: NDArray, dlog_det: NDArray) -> NDArray:
        """The gradient with respect to x, from those with respect to t and log_det."""
        ...

    def from_unconstrained_vjp(self, t: NDArray, dx: NDArray, dlog_det: NDArray) -> NDArray:
        """The gradient with respect to t, from those with respect to x and log_det."""
        ...
