"""Layers without networks: diagonal ones, matrices and permutations; and flows of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.base import Base
from npflows.convert.errors import ConversionError
from npflows.core.factors import signed_factors
from npflows.flow import NormalizingFlow
from npflows.layers import ActNormLayer, LULinear, Permutation, Standardize
from npflows.layers.layer import Layer


def diagonal(slope: ArrayLike, shift: ArrayLike, n: int, dtype: str) -> list[Layer]:
    """y = slope x + shift."""
    slope, shift = (np.broadcast_to(np.asarray(v, float), (n,)) for v in (slope, shift))
    if not (slope > 0).all():
        return matrix(np.diag(slope), shift, n, dtype)
    layer = ActNormLayer(n, dtype=dtype)
    views = layer.parameters.views()
    views["logs"][:], views["bias"][:] = np.log(slope), shift / slope
    layer.initialized = True
    return [layer]


def matrix(weight: ArrayLike, shift: ArrayLike, n: int, dtype: str) -> list[Layer]:
    """y = W x + shift, for any matrix with a determinant, by its factors.

    Raises
    ------
    ConversionError
        If the determinant is 0.
    """
    try:
        with np.errstate(divide="ignore", invalid="ignore"):  # of a matrix whose determinant is 0
            packed, order, signs = signed_factors(np.asarray(weight, np.float64))
    except ValueError as error:
        raise ConversionError(f"a linear transform is not taken over: {error}") from None
    layer = LULinear(n, order, signs if (signs < 0).any() else None, dtype=dtype)
    views = layer.parameters.views()
    views["matrix"][...], views["shift"][:] = packed, shift
    return [layer]


def permutation(order: ArrayLike, dtype: str) -> Layer:
    """y[k] = x[order[k]]."""
    order = np.asarray(order, int)
    return Permutation(len(order), order.tolist(), dtype=dtype)


def assembled(layers: Sequence[Layer], base: Base | str, dtype: str, **options: object) -> NormalizingFlow:
    """A flow of layers, whose location and scale later fits leave alone.

    Raises
    ------
    ConversionError
        If the layers do not fit each other.
    """
    try:
        flow = NormalizingFlow(list(layers), base, dtype=dtype, **options)  # type: ignore[arg-type]
    except ValueError as error:
        raise ConversionError(f"the flow is not taken over: {error}") from None
    flow.preprocessing.mark_standardized()  # a later fit goes on from these units
    return flow


def standardize(loc: ArrayLike, scale: ArrayLike, n: int, dtype: str) -> Layer:
    """y = (x - loc) / scale, in float64; the first layer of a flow alone."""
    loc, scale = (np.broadcast_to(np.asarray(v, float), (n,)) for v in (loc, scale))
    return Standardize(n, loc, scale, dtype=dtype)


def dtype_of(arrays: Mapping[str, NDArray]) -> str:
    """The dtype of a flow's numbers."""
    return "float64" if any(a.dtype == np.float64 and a.ndim for a in arrays.values()) else "float32"
