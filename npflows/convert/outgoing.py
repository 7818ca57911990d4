"""Flows of npflows as live objects of other libraries, for those who go on training there."""

from __future__ import annotations

from typing import Any

from npflows.core.optional import required
from npflows.distribution.transformed import TransformedDistribution


def to_zuko(flow: TransformedDistribution, *, dtype: str | None = None) -> Any:
    """A flow as one of zuko 1.6 that gives its numbers and trains on with PyTorch.

    Affine and spline layers, masked and coupled, go with their residual or plain networks and a condition, and so do
    permutations, matrices, `ActNormLayer`, `SplineLayer` and `LogTails`, on a normal or uniform base.  Standardization
    becomes a first affine transform, that of conditions a part of the flow.  Supports, embeddings, dropout, gates, circles,
    images and other bases have no counterpart.

    Parameters
    ----------
    flow : NormalizingFlow
        A copy is made of its numbers.
    dtype : {"float32", "float64"}, optional
        Of the tensors, by default the flow's.

    Returns
    -------
    zuko.flows.Flow
        ``zuko_flow(condition).log_prob(x)`` is ``flow.log_prob(x, condition)``.  Scalar maps that zuko has are zuko's own;
        others are of classes of npflows, which has to be installed where a pickle of the object is read.  `from_zuko`
        takes the object back.

    Raises
    ------
    ConversionError
        If something has no counterpart there; the message names it.
    ImportError
        If zuko can't be imported.
    """
    required("zuko", "to_zuko", "zuko", "pip install zuko")
    return required("npflows.convert.in_zuko", "to_zuko", "zuko 1.6", "pip install 'zuko>=1.6'").made_of(flow, dtype)


def to_flowjax(flow: TransformedDistribution, *, dtype: str | None = None) -> Any:
    """A flow as one of flowjax 19.1 that gives its numbers and trains on with JAX.

    As `to_zuko`; residual networks, `SplineLayer` and matrices of a negative determinant are not handed over.

    Parameters
    ----------
    flow : NormalizingFlow
        A copy is made of its numbers.
    dtype : {"float32", "float64"}, optional
        Of the arrays, by default the flow's.  float64 needs ``jax.config.update("jax_enable_x64", True)`` before.

    Returns
    -------
    flowjax.distributions.Transformed
        ``made.log_prob(x, condition)`` is ``flow.log_prob(x, condition)``.  `from_flowjax` takes the object back.

    Raises
    ------
    ConversionError
        If something has no counterpart there, or JAX is not in the mode that the dtype needs; the message names it.
    ImportError
        If flowjax can't be imported.
    """
    required("flowjax", "to_flowjax", "flowjax", "pip install flowjax")
    module = required("npflows.convert.in_flowjax", "to_flowjax", "flowjax 19.1", "pip install 'flowjax>=19.1'")
    return module.made_of(flow, dtype)
