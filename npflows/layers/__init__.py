"""Layers, each usable alone."""

from npflows.layers.actnorm import ActNormLayer
from npflows.layers.autoregressive import Autoregressive, IAFLayer, MAFLayer
from npflows.layers.coupling import Coupling, CouplingLayer
from npflows.layers.elementwise import Elementwise
from npflows.layers.layer import Layer
from npflows.layers.linear import LULinear
from npflows.layers.made import MADE
from npflows.layers.permutation import Permutation
from npflows.layers.rotation import Rotation
from npflows.layers.spline import SplineAutoregressiveLayer, SplineCouplingLayer, SplineLayer
from npflows.layers.standardize import Standardize

__all__ = [
    "MADE",
    "ActNormLayer",
    "Autoregressive",
    "Coupling",
    "CouplingLayer",
    "Elementwise",
    "IAFLayer",
    "LULinear",
    "Layer",
    "MAFLayer",
    "Permutation",
    "Rotation",
    "SplineAutoregressiveLayer",
    "SplineCouplingLayer",
    "SplineLayer",
    "Standardize",
]
