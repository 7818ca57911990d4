"""Types that all reference functions share: their inputs besides samples, and the gradients that they return."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.core.operations import Shapes


class Given(NamedTuple):
    """The inputs of an operation besides its samples.

    Attributes
    ----------
    context : ndarray (n, condition_dim)
        The condition that networks see.
    key : int
        The seed of random masks; 0, where there is no training, stands for no masks.
    first : int
        The number of the first sample, from which random masks follow.
    """

    context: NDArray
    key: int = 0
    first: int = 0


class Gradients(NamedTuple):
    """Gradients of a scalar with respect to what entered an operation.

    Attributes
    ----------
    x : ndarray (n, values)
    theta : ndarray (size,)
        That of the operation's own parameters.
    context : ndarray (n, condition_dim)
    """

    x: NDArray
    theta: NDArray
    context: NDArray


def packed(shapes: Shapes, gradients: dict[str, NDArray]) -> NDArray:
    """The gradients of named parameters as one vector, in the order of the shapes; 0 for those that are not given."""
    parts = [gradients[name].ravel() if name in gradients else np.zeros(np.prod(shape, dtype=int))
             for name, shape in shapes.items()]  # fmt: skip
    return np.concatenate([np.zeros(0), *parts])


def softplus(x: NDArray) -> NDArray:
    """log(1 + exp(x))."""
    return np.logaddexp(0.0, x)


def sigmoid(x: NDArray) -> NDArray:
    """1 / (1 + exp(-x)), without overflow."""
    return np.exp(-softplus(-x))
