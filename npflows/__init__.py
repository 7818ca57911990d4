"""npflows: normalizing flows on NumPy and Numba."""

from npflows import backends, functional, hosts, support  # noqa: F401 the first registers where flows run
from npflows._version import __version__ as __version__
from npflows.base import Base, Cylinder, Normal, StudentT, Uniform
from npflows.core.backend import backend
from npflows.core.errors import CudaError, TrainingError
from npflows.core.table import Table
from npflows.core.threads import get_num_threads, set_num_threads
from npflows.density import Density, embed
from npflows.distribution.conditioning import one_hot
from npflows.ensemble import Ensemble
from npflows.files.configuration import ModelConfiguration, create
from npflows.files.flow_file import FlowFileError, load
from npflows.files.tables import TableError, TableStream, read_table, stream_table
from npflows.flow import NormalizingFlow
from npflows.inference.importance import ImportanceWeights
from npflows.layers import (
    MADE,
    ActNormLayer,
    AffineCouplingLayer,
    CouplingLayer,
    GlowBlock,
    IAFLayer,
    InvertibleConv1x1,
    Layer,
    LogTails,
    LULinear,
    MAFLayer,
    Permutation,
    Rotation,
    SplineAutoregressiveLayer,
    SplineCouplingLayer,
    SplineLayer,
    Split,
    Squeeze,
    Standardize,
)
from npflows.models import IAF, MAF, ConditionalNormalizingFlow, ConditionalRealNVP, Glow, NeuralSplineFlow, RealNVP
from npflows.transformers.spline_transform import RationalQuadraticSplineTransform

__all__ = [
    "IAF",
    "MADE",
    "MAF",
    "ActNormLayer",
    "AffineCouplingLayer",
    "Base",
    "ConditionalNormalizingFlow",
    "ConditionalRealNVP",
    "CouplingLayer",
    "CudaError",
    "Cylinder",
    "Density",
    "Ensemble",
    "FlowFileError",
    "Glow",
    "GlowBlock",
    "IAFLayer",
    "ImportanceWeights",
    "InvertibleConv1x1",
    "LULinear",
    "Layer",
    "LogTails",
    "MAFLayer",
    "ModelConfiguration",
    "NeuralSplineFlow",
    "Normal",
    "NormalizingFlow",
    "Permutation",
    "RationalQuadraticSplineTransform",
    "RealNVP",
    "Rotation",
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
    "one_hot",
    "read_table",
    "set_num_threads",
    "stream_table",
    "support",
]
