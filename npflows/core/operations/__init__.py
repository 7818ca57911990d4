"""The operations of networks, scalar maps, layers and base distributions: the one language of all backends.

An operation is plain data.  It holds shapes, indices and constants, and the names and shapes of the parameters that it
reads, which lie one after the other in a flat vector; it knows neither their values nor who computes.  A `Program` puts
operations in order, each with the place where its parameters begin.

Formulas: `npflows.backends.reference` has them in NumPy, one obvious function each.
"""

from npflows.core.operations.bases import (
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
from npflows.core.operations.described import described, operation_of
from npflows.core.operations.layers import (
    PARAMETERIZATIONS,
    ActNorm,
    Autoregressive,
    Conv1x1,
    Coupling,
    Elementwise,
    Householder,
    LogTails,
    LULinear,
    MadeOutputs,
    Permutation,
    QRLinear,
    Rotation,
    SVDLinear,
)
from npflows.core.operations.networks import ACTIVATIONS, ConvNet, Made, Mlp, Network
from npflows.core.operations.operation import Operation, Shapes, prefixed_shapes
from npflows.core.operations.program import BASE_LAYER, EMBEDDING_LAYER, Custom, Placed, Program
from npflows.core.operations.scalar_maps import (
    CLIPS,
    SCALE_ACTIVATIONS,
    SPLINES,
    Additive,
    Affine,
    Bernstein,
    LogisticMixture,
    PiecewiseSpline,
    ScalarMap,
    Spline,
)
from npflows.core.operations.supports import EDGE, SUPPORT_KINDS, SupportPart, Supports

__all__ = [
    "ACTIVATIONS",
    "BASE_LAYER",
    "CLIPS",
    "EDGE",
    "EMBEDDING_LAYER",
    "PARAMETERIZATIONS",
    "SCALE_ACTIVATIONS",
    "SPLINES",
    "SUPPORT_KINDS",
    "ActNorm",
    "Additive",
    "Affine",
    "Autoregressive",
    "Bernstein",
    "Beta",
    "Cauchy",
    "ConditionalGaussianMixture",
    "Conv1x1",
    "ConvNet",
    "Coupling",
    "Custom",
    "Cylinder",
    "Elementwise",
    "GaussianMixture",
    "Householder",
    "LULinear",
    "Laplace",
    "LogTails",
    "Logistic",
    "LogisticMixture",
    "Made",
    "MadeOutputs",
    "Mlp",
    "Network",
    "Normal",
    "Operation",
    "Permutation",
    "PiecewiseSpline",
    "Placed",
    "Program",
    "QRLinear",
    "Rotation",
    "SVDLinear",
    "ScalarMap",
    "Shapes",
    "Spline",
    "StudentT",
    "SupportPart",
    "Supports",
    "Uniform",
    "described",
    "operation_of",
    "prefixed_shapes",
]
