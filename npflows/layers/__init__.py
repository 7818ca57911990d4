"""Layers, each usable alone."""

from npflows.layers.autoregressive import Autoregressive, IAFLayer, MAFLayer
from npflows.layers.coupling import Coupling, CouplingLayer
from npflows.layers.layer import Layer
from npflows.layers.made import MADE
from npflows.layers.permutation import Permutation
from npflows.layers.standardize import Standardize

__all__ = [
    "MADE",
    "Autoregressive",
    "Coupling",
    "CouplingLayer",
    "IAFLayer",
    "Layer",
    "MAFLayer",
    "Permutation",
    "Standardize",
]
