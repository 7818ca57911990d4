"""The affine map from the user's units: u = (x - location) / scale, and y with F y = u where there is a factor F.

`table` (3, d) or (3 + d, d) is as `npflows.core.backend.State` describes it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npflows.core.special import drawn_in


def standardized(table: NDArray, x: NDArray) -> NDArray:
    """y = F^-1 (x - location) / scale."""
    u = (x - table[0]) / table[1]
    return np.linalg.solve(table[3:], u.T).T if len(table) > 3 else u


def standardized_vjp(table: NDArray, dy: NDArray) -> NDArray:
    """dx = F^-T dy / scale."""
    du = np.linalg.solve(table[3:].T, dy.T).T if len(table) > 3 else dy
    return du / table[1]


def standardized_condition(table: NDArray, condition: NDArray) -> NDArray:
    """c = (condition - location) / scale, and sign(c) (tail + arsinh(|c| - tail)) beyond its tail."""
    if not table.shape[1]:
        return condition
    return drawn_in((condition - table[0]) / table[1], table[2])


def standardized_condition_vjp(table: NDArray, condition: NDArray, dc: NDArray) -> NDArray:
    """dcondition = dc / scale, divided by sqrt(1 + (|c| - tail)^2) beyond the tail."""
    if not table.shape[1]:
        return dc
    beyond = np.maximum(np.abs((condition - table[0]) / table[1]) - table[2], 0)
    return dc / table[1] / np.sqrt(1 + beyond**2)


def from_standardized(table: NDArray, y: NDArray) -> NDArray:
    """x = scale F y + location."""
    u = y @ table[3:].T if len(table) > 3 else y
    return u * table[1] + table[0]


def from_standardized_vjp(table: NDArray, dx: NDArray) -> NDArray:
    """dy = F^T (scale dx)."""
    du = dx * table[1]
    return du @ table[3:] if len(table) > 3 else du
