"""Base distributions of `dim` independent columns."""

from __future__ import annotations

import math
from dataclasses import dataclass

from npflows.core.operations.operation import Operation, Shapes


@dataclass(frozen=True)
class Normal(Operation):
    """Normal columns; with `learnable`, what is stored is the logarithm of the scale."""

    dim: int
    learnable: bool = False

    @property
    def shapes(self) -> Shapes:
        return {"loc": (self.dim,), "log_scale" if self.learnable else "scale": (self.dim,)}


@dataclass(frozen=True)
class StudentT(Operation):
    """Student's t columns; what is stored is the logarithm of the degrees of freedom, which lie in [0.1, 1e6]: heavier
    tails have no use, lighter ones are normal."""

    dim: int
    log_df_bounds = math.log(0.1), math.log(1e6)

    @property
    def shapes(self) -> Shapes:
        return {"log_df": (self.dim,)}


@dataclass(frozen=True)
class Uniform(Operation):
    """Uniform columns."""

    dim: int

    @property
    def shapes(self) -> Shapes:
        return {"low": (self.dim,), "high": (self.dim,)}


@dataclass(frozen=True)
class Cylinder(Operation):
    """Standard normal columns on the line, uniform ones on circles [-bound, bound]."""

    circular: tuple[bool, ...]

    @property
    def dim(self) -> int:
        return len(self.circular)

    @property
    def shapes(self) -> Shapes:
        return {"bound": (1,)}
