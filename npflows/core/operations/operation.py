"""The base class of operations: names, shapes and places of the parameters that each reads."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Shapes = dict[str, tuple[int, ...]]
"""Shapes of parameters by name, in the order in which they lie in the vector."""


def require(holds: bool, owner: object, expected: str) -> None:
    """Refuse an operation that makes no sense.

    Raises
    ------
    ValueError
        If the condition does not hold.
    """
    if not holds:
        raise ValueError(f"{type(owner).__name__} needs {expected}, got {owner!r}")


def are_flags(*values: object) -> bool:
    """Whether each value is True or False."""
    return all(isinstance(value, (bool, np.bool_)) for value in values)


class Operation:
    """Anything that reads parameters from a flat vector."""

    @property
    def shapes(self) -> Shapes:
        """Names and shapes of the parameters."""
        return {}

    @property
    def size(self) -> int:
        """Number of the parameters' entries."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def offsets(self) -> dict[str, int]:
        """Where each parameter begins."""
        result, position = {}, 0
        for name, shape in self.shapes.items():
            result[name] = position
            position += math.prod(shape)
        return result

    def views(self, theta: NDArray) -> dict[str, NDArray]:
        """Each parameter's view of the flat vector."""
        return {name: theta[start : start + math.prod(shape)].reshape(shape)
                for (name, shape), start in zip(self.shapes.items(), self.offsets.values())}  # fmt: skip


def prefixed_shapes(prefix: str, shapes: Shapes) -> Shapes:
    """The same shapes, each name with a prefix."""
    return {prefix + name: shape for name, shape in shapes.items()}
