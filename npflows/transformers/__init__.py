"""Scalar maps of layers of your own, `Coupling`, `Autoregressive` and `Elementwise`."""

from npflows.core.operations import Additive, Affine, Bernstein, LogisticMixture, PiecewiseSpline, Spline
from npflows.transformers.scalar_maps import spline

__all__ = ["Additive", "Affine", "Bernstein", "LogisticMixture", "PiecewiseSpline", "Spline", "spline"]
