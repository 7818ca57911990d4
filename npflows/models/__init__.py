"""Models: which layers, in which order."""

from npflows.models.conditional import ConditionalNormalizingFlow, ConditionalRealNVP
from npflows.models.glow import Glow
from npflows.models.maf import IAF, MAF
from npflows.models.neural_spline import NeuralSplineFlow
from npflows.models.realnvp import RealNVP

__all__ = ["IAF", "MAF", "ConditionalNormalizingFlow", "ConditionalRealNVP", "Glow", "NeuralSplineFlow", "RealNVP"]
