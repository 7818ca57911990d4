"""Base distributions."""

from __future__ import annotations

import copy

import numpy as np

from npflows.base.base import Base
from npflows.base.beta import Beta
from npflows.base.conditional_mixture import ConditionalGaussianMixture
from npflows.base.cylinder import Cylinder
from npflows.base.gaussian_mixture import GaussianMixture
from npflows.base.location_scale import Cauchy, Laplace, LocationScale, Logistic
from npflows.base.normal import Normal
from npflows.base.student_t import StudentT
from npflows.base.uniform import Uniform
from npflows.core.checks import as_choice

__all__ = [
    "BASES",
    "Base",
    "Beta",
    "Cauchy",
    "ConditionalGaussianMixture",
    "Cylinder",
    "GaussianMixture",
    "Laplace",
    "Logistic",
    "Normal",
    "StudentT",
    "Uniform",
    "as_base",
]

BASES: dict[str, type[LocationScale] | type[Uniform] | type[StudentT]] = {
    "normal": Normal,
    "uniform": Uniform,
    "student_t": StudentT,
    "laplace": Laplace,
    "cauchy": Cauchy,
    "logistic": Logistic,
}
"""The bases that `base_distribution` may name."""


def as_base(base: str | Base, dim: int, dtype: np.dtype) -> Base:
    """A base of its own from a name, or a copy of the one given, after checking that it fits."""
    if isinstance(base, Base):
        if base.dim != dim or base.dtype != dtype:
            raise ValueError(
                f"base_distribution has {base.dim} columns of {base.dtype} where the flow has {dim} of {dtype}"
            )
        return copy.deepcopy(base)
    return BASES[as_choice(base, "base_distribution", list(BASES))](dim, dtype=dtype)
