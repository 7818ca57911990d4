"""npflows: normalizing flows on NumPy and Numba."""

import importlib
from typing import TYPE_CHECKING, Any

from npflows import backends, functional, networks, support, transformers  # noqa: F401 the first registers where flows run
from npflows._version import __version__ as __version__
from npflows.base import (
    Base,
    Beta,
    Cauchy,
    ConditionalGaussianMixture,
    Cylinder,
    GaussianMixture,
    Laplace,
    Logistic,
    Normal,
    StudentT,
    Uniform,
)
from npflows.core.backend import backend
from npflows.core.errors import CudaError, TrainingError
from npflows.core.table import Table
from npflows.core.threads import get_num_threads, set_num_threads
from npflows.density import Density, embed
from npflows.distribution.conditioning import one_hot
from npflows.files.configuration import ModelConfiguration, create
from npflows.files.flow_file import FlowFileError, load
from npflows.files.tables import TableError, TableStream, read_table, stream_table
from npflows.flow import NormalizingFlow
from npflows.inference.importance import ImportanceWeights
from npflows.layers import (
    MADE,
    ActNormLayer,
    AffineCouplingLayer,
    Autoregressive,
    Chain,
    Coupling,
    CouplingLayer,
    Elementwise,
    GlowBlock,
    Householder,
    IAFLayer,
    InvertibleConv1x1,
    Layer,
    LogTails,
    LULinear,
    MAFLayer,
    MonotoneAutoregressiveLayer,
    MonotoneCouplingLayer,
    MonotoneLayer,
    Permutation,
    QRLinear,
    Rotation,
    SplineAutoregressiveLayer,
    SplineCouplingLayer,
    SplineLayer,
    Split,
    Squeeze,
    Standardize,
    SVDLinear,
)
from npflows.models import IAF, MAF, ConditionalNormalizingFlow, ConditionalRealNVP, Glow, NeuralSplineFlow, RealNVP
from npflows.transformers.spline_transform import RationalQuadraticSplineTransform

if TYPE_CHECKING:
    from npflows import hosts
    from npflows.ensemble import Ensemble

__all__ = [
    "IAF",
    "MADE",
    "MAF",
    "ActNormLayer",
    "AffineCouplingLayer",
    "Autoregressive",
    "Base",
    "Beta",
    "Cauchy",
    "Chain",
    "ConditionalGaussianMixture",
    "ConditionalNormalizingFlow",
    "ConditionalRealNVP",
    "Coupling",
    "CouplingLayer",
    "CudaError",
    "Cylinder",
    "Density",
    "Elementwise",
    "Ensemble",
    "FlowFileError",
    "GaussianMixture",
    "Glow",
    "GlowBlock",
    "Householder",
    "IAFLayer",
    "ImportanceWeights",
    "InvertibleConv1x1",
    "LULinear",
    "Laplace",
    "Layer",
    "LogTails",
    "Logistic",
    "MAFLayer",
    "ModelConfiguration",
    "MonotoneAutoregressiveLayer",
    "MonotoneCouplingLayer",
    "MonotoneLayer",
    "NeuralSplineFlow",
    "Normal",
    "NormalizingFlow",
    "Permutation",
    "QRLinear",
    "RationalQuadraticSplineTransform",
    "RealNVP",
    "Rotation",
    "SVDLinear",
    "SplineAutoregressiveLayer",
    "SplineCouplingLayer",
    "SplineLayer",
    "Split",
    "Squeeze",
    "Standardize",
    "StudentT",
    "Table",
    "TableError",
    "TableStream",
    "TrainingError",
    "Uniform",
    "backend",
    "create",
    "embed",
    "functional",
    "get_num_threads",
    "hosts",
    "load",
    "networks",
    "one_hot",
    "read_table",
    "set_num_threads",
    "stream_table",
    "support",
    "transformers",
]

_WHEN_WANTED = {"Ensemble": "npflows.ensemble", "hosts": "npflows"}
"""Names that are imported when they are first used, and their modules."""


def __getattr__(name: str) -> Any:
    if name not in _WHEN_WANTED:
        raise AttributeError(f"module 'npflows' has no attribute {name!r}")
    module = _WHEN_WANTED[name]
    if module == __name__:
        return importlib.import_module(f"{module}.{name}")  # which binds the name here
    found = globals()[name] = getattr(importlib.import_module(module), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
