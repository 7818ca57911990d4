"""Layers, each usable alone."""

from npflows.layers.actnorm import ActNormLayer
from npflows.layers.autoregressive import Autoregressive, IAFLayer, MAFLayer
from npflows.layers.chain import Chain
from npflows.layers.conv1x1 import InvertibleConv1x1
from npflows.layers.coupling import Coupling, CouplingLayer
from npflows.layers.elementwise import Elementwise
from npflows.layers.glow import AffineCouplingLayer, GlowBlock
from npflows.layers.image import ImageLayer
from npflows.layers.layer import Layer
from npflows.layers.linear import LULinear
from npflows.layers.log_tails import LogTails
from npflows.layers.made import MADE
from npflows.layers.monotone import MonotoneAutoregressiveLayer, MonotoneCouplingLayer, MonotoneLayer
from npflows.layers.multiscale import Split, Squeeze
from npflows.layers.permutation import Permutation
from npflows.layers.reflections import Householder, QRLinear, SVDLinear
from npflows.layers.rotation import Rotation
from npflows.layers.spline import SplineAutoregressiveLayer, SplineCouplingLayer, SplineLayer
from npflows.layers.standardize import Standardize

__all__ = [
    "MADE",
    "ActNormLayer",
    "AffineCouplingLayer",
    "Autoregressive",
    "Chain",
    "Coupling",
    "CouplingLayer",
    "Elementwise",
    "GlowBlock",
    "Householder",
    "IAFLayer",
    "ImageLayer",
    "InvertibleConv1x1",
    "LULinear",
    "Layer",
    "LogTails",
    "MAFLayer",
    "MonotoneAutoregressiveLayer",
    "MonotoneCouplingLayer",
    "MonotoneLayer",
    "Permutation",
    "QRLinear",
    "Rotation",
    "SVDLinear",
    "SplineAutoregressiveLayer",
    "SplineCouplingLayer",
    "SplineLayer",
    "Split",
    "Squeeze",
    "Standardize",
]
