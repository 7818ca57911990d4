"""The operations of networks, scalar maps, layers and base distributions: the one language of all backends.

An operation is plain data.  It holds shapes, indices and constants, and the names and shapes of the parameters that it
reads, which lie one after the other in a flat vector; it knows neither their values nor who computes.  A `Program` puts
operations in order, each with the place where its parameters begin.

Formulas: `npflows.backends.reference` has them in NumPy, one obvious function each.
"""

from npflows.core.operations.bases import Cylinder, Normal, StudentT, Uniform
from npflows.core.operations.layers import (
    PARAMETERIZATIONS,
    ActNorm,
    Autoregressive,
    Conv1x1,
    Coupling,
    Elementwise,
    LogTails,
    LULinear,
    MadeOutputs,
    Permutation,
    Rotation,
)
from npflows.core.operations.networks import ACTIVATIONS, ConvNet, Made, Mlp, Network
from npflows.core.operations.operation import Operation, Shapes, prefixed_shapes
from npflows.core.operations.program import EMBEDDING_LAYER, Custom, Placed, Program
from npflows.core.operations.scalar_maps import SCALE_ACTIVATIONS, Additive, Affine, ScalarMap, Spline
from npflows.core.operations.supports import EDGE, SUPPORT_KINDS, SupportPart, Supports

__all__ = [
    "ACTIVATIONS",
    "EDGE",
    "EMBEDDING_LAYER",
    "PARAMETERIZATIONS",
    "SCALE_ACTIVATIONS",
    "SUPPORT_KINDS",
    "ActNorm",
    "Additive",
    "Affine",
    "Autoregressive",
    "Conv1x1",
    "ConvNet",
    "Coupling",
    "Custom",
    "Cylinder",
    "Elementwise",
    "LULinear",
    "LogTails",
    "Made",
    "MadeOutputs",
    "Mlp",
    "Network",
    "Normal",
    "Operation",
    "Permutation",
    "Placed",
    "Program",
    "Rotation",
    "ScalarMap",
    "Shapes",
    "Spline",
    "StudentT",
    "SupportPart",
    "Supports",
    "Uniform",
    "prefixed_shapes",
]
