"""Base distributions of `dim` independent columns."""

from __future__ import annotations

import math
from dataclasses import dataclass

from npflows.core.operations.networks import Mlp
from npflows.core.operations.operation import Operation, Shapes, require


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


@dataclass(frozen=True)
class Beta(Operation):
    """Columns with density proportional to (1 - (z / bound)^2)^(shape - 1) on [-bound, bound]: a beta distribution of two
    equal shapes, shifted and scaled."""

    dim: int
    shape: float

    @property
    def shapes(self) -> Shapes:
        return {"bound": (1,)}

    @property
    def log_constant(self) -> float:
        """The logarithm of the density at 0 where bound is 1."""
        a = self.shape
        return math.lgamma(2 * a) - 2 * math.lgamma(a) - (2 * a - 1) * math.log(2)


@dataclass(frozen=True)
class _LocationScale(Operation):
    """Columns q scale + loc, each q of one density; what is stored is the logarithm of the scale."""

    dim: int

    @property
    def shapes(self) -> Shapes:
        return {"loc": (self.dim,), "log_scale": (self.dim,)}


@dataclass(frozen=True)
class Laplace(_LocationScale):
    """Laplace columns, q of density exp(-|q|) / 2."""


@dataclass(frozen=True)
class Cauchy(_LocationScale):
    """Cauchy columns, q of density 1 / (pi (1 + q^2))."""


@dataclass(frozen=True)
class Logistic(_LocationScale):
    """Logistic columns, q of density exp(-q) / (1 + exp(-q))^2."""


@dataclass(frozen=True)
class GaussianMixture(Operation):
    """A mixture of normal distributions of `dim` independent columns each, weighted by the softmax of `logits`; what is
    stored of the scales is their logarithm."""

    dim: int
    n_components: int

    @property
    def shapes(self) -> Shapes:
        table = (self.n_components, self.dim)
        return {"logits": (self.n_components,), "loc": table, "log_scale": table}


@dataclass(frozen=True)
class ConditionalGaussianMixture(Operation):
    """A mixture of normal distributions of `dim` independent columns each, whose numbers are those that a network gives for
    the condition: logits of the weights, locations and logarithms of the scales, in the order of `GaussianMixture`."""

    dim: int
    n_components: int
    conditioner: Mlp

    def __post_init__(self) -> None:
        wanted = self.n_components * (2 * self.dim + 1)
        require(self.conditioner.n_out == wanted, self, "a network with 2 dim + 1 outputs for each component")
        require(self.conditioner.condition_dim == 0, self, "a network whose input is the condition")

    @property
    def shapes(self) -> Shapes:
        return self.conditioner.shapes
