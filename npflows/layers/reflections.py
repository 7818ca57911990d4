"""Linear layers whose orthogonal factors are products of Householder reflections."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

from npflows.core import operations
from npflows.core.checks import as_int
from npflows.core.parameters import Parameter, ParameterBuffer
from npflows.layers.layer import Layer


class Householder(Layer):
    """y = H_k ... H_1 x with Householder reflections H_j = 1 - 2 v_j v_j^T / abs(v_j)^2, an orthogonal map.

    Its log-determinant is 0, and its inverse takes the reflections the other way round (Tomczak and Welling 2016,
    arXiv:1611.09630, equation 6).  Two reflections turn a plane; with the default number, every rotation is among the maps.

    Parameters
    ----------
    input_dim : int
        Number of features.
    num_reflections : int, optional
        By default the largest even number up to `input_dim`, and at least 2.
    dtype : {"float32", "float64"}
        The compute dtype.

    Notes
    -----
    Vectors start as those of the axes, each of them twice, so that an even number of reflections is the identity; the last
    of an odd number changes the sign of one feature.  The length of a vector has no effect, and must not be 0.
    """

    def __init__(
        self, input_dim: int, num_reflections: int | None = None, *, dtype: DTypeLike = "float32"
    ) -> None:  # fmt: skip
        n = as_int(input_dim, "input_dim")
        k = self.num_reflections = _number(num_reflections, n)
        super().__init__(n, [_vectors("vectors", k, n)], dtype=dtype)
        _along_axes(self.parameters, "vectors")

    def operation(self) -> operations.Householder:
        return operations.Householder(self.input_dim, self.num_reflections)


class QRLinear(Layer):
    """y = Q R x + shift, with the reflections Q of a `Householder` layer and an upper triangular factor R.

    R's diagonal is kept positive by its logarithm, whose sum is the log-determinant, so the layer can't become singular.

    Parameters
    ----------
    input_dim : int
        Number of features.
    num_reflections : int, optional
        As in `Householder`.
    dtype : {"float32", "float64"}
        The compute dtype.

    Notes
    -----
    The layer starts as its reflections do, with R = 1.
    """

    def __init__(
        self, input_dim: int, num_reflections: int | None = None, *, dtype: DTypeLike = "float32"
    ) -> None:  # fmt: skip
        n = as_int(input_dim, "input_dim")
        k = self.num_reflections = _number(num_reflections, n)
        parameters = [Parameter("upper", np.broadcast_to(0.0, (n, n))), _vectors("vectors", k, n), _shift(n)]
        super().__init__(n, parameters, dtype=dtype)
        self._fix_at_zero({"upper": np.tri(n, k=-1, dtype=bool)})
        _along_axes(self.parameters, "vectors")

    def operation(self) -> operations.QRLinear:
        return operations.QRLinear(self.input_dim, self.num_reflections)


class SVDLinear(Layer):
    """y = Q_1 D Q_2 x + shift, with the reflections Q_1 and Q_2 of two `Householder` layers and a positive diagonal D.

    D is kept by its logarithms, whose sum is the log-determinant.  With the default number of reflections, every matrix of
    positive determinant is among the maps.

    Parameters
    ----------
    input_dim : int
        Number of features.
    num_reflections : int, optional
        Of each of the two factors, as in `Householder`.
    dtype : {"float32", "float64"}
        The compute dtype.

    Notes
    -----
    The layer starts as the identity.
    """

    def __init__(
        self, input_dim: int, num_reflections: int | None = None, *, dtype: DTypeLike = "float32"
    ) -> None:  # fmt: skip
        n = as_int(input_dim, "input_dim")
        k = self.num_reflections = _number(num_reflections, n)
        parameters = [_vectors("left", k, n), Parameter("logs", np.zeros(n)), _vectors("right", k, n), _shift(n)]
        super().__init__(n, parameters, dtype=dtype)
        _along_axes(self.parameters, "left")
        _along_axes(self.parameters, "right")

    def operation(self) -> operations.SVDLinear:
        return operations.SVDLinear(self.input_dim, self.num_reflections)


def _number(num_reflections: int | None, n: int) -> int:
    """The number of reflections, after a check."""
    return max(2, n - n % 2) if num_reflections is None else as_int(num_reflections, "num_reflections")


def _vectors(name: str, k: int, n: int) -> Parameter:
    """Vectors that take no memory yet."""
    return Parameter(name, np.broadcast_to(0.0, (k, n)))


def _shift(n: int) -> Parameter:
    return Parameter("shift", np.zeros(n))


def _along_axes(parameters: ParameterBuffer, name: str) -> None:
    """Let the vectors of a name be those of the axes, each of them twice."""
    vectors: NDArray = parameters.views()[name]
    k, n = vectors.shape
    vectors[np.arange(k), np.arange(k) // 2 % n] = 1
