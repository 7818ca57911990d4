"""Activation normalisation (Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npflows.engine.params import Parameter
from npflows.kernels import vecmath
from npflows.kernels.blocks import copy, dot, shift_row, total
from npflows.kernels.jit import inlined, kernel
from npflows.layers.layer import Layer
from npflows.validation import as_int, as_rows, as_weights

# theta: the logarithms of the scales (n,), the biases (n,); work: the values on the latent side (n, lanes)

SMALLEST_SPREAD = 1e-6
"""A channel whose spread is smaller, relative to its size, is taken for constant and keeps its scale."""


@inlined
def sum_of_logs(theta, n):
    """log |det|."""
    result = 0.0
    for i in range(n):
        result += theta[i]
    return result


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    """y = (x + bias) exp(logs)."""
    n = block.shape[0]
    for i in range(n):
        scale, bias = vecmath.exp(theta[i]), theta[n + i]
        for t in range(block.shape[1]):
            block[i, t] = (block[i, t] + bias) * scale
    copy(block, work)
    shift_row(log_det, sum_of_logs(theta, n))


@kernel
def inverse(spec, theta, context, key, first, block, log_det, work, temp):
    """x = y exp(-logs) - bias."""
    n = block.shape[0]
    copy(block, work)
    for i in range(n):
        scale, bias = vecmath.exp(-theta[i]), theta[n + i]
        for t in range(block.shape[1]):
            block[i, t] = block[i, t] * scale - bias
    shift_row(log_det, -sum_of_logs(theta, n))


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    n, dlog = dblock.shape[0], total(dlog_det)
    for i in range(n):
        if dtheta.size > 0:
            dtheta[i] += dot(dblock[i], work[i]) + dlog
        scale = vecmath.exp(theta[i])
        for t in range(dblock.shape[1]):
            dblock[i, t] *= scale
        if dtheta.size > 0:
            dtheta[n + i] += total(dblock[i])


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    n, dlog = dblock.shape[0], total(dlog_det)
    for i in range(n):
        if dtheta.size > 0:
            dtheta[n + i] -= total(dblock[i])
        scale = vecmath.exp(-theta[i])
        for t in range(dblock.shape[1]):
            dblock[i, t] *= scale
        if dtheta.size > 0:
            dtheta[i] -= dot(dblock[i], work[i]) + dlog


class ActNormLayer(Layer):
    """y = (x + bias) exp(logs) with a bias and a scale for each channel, set from data once, then trained.

    It is the identity until `initialize` has set it so that its output has mean 0 and variance 1 in each channel.  `fit`
    does that once, for all such layers of a flow that are not initialised; a loaded flow stays as it was saved.

    Parameters
    ----------
    num_channels : int
        Columns of the samples.
    dtype : {"float32", "float64"}
        The compute dtype.

    Attributes
    ----------
    initialized : bool
        Whether `initialize` has been called, so that `fit` leaves the parameters what they are.
    """

    kernels = (forward, inverse, forward_vjp, inverse_vjp)

    def __init__(self, num_channels: int, *, dtype: object = "float32") -> None:
        n = self.num_channels = as_int(num_channels, "num_channels")
        self.initialized = False
        parameters = [Parameter("logs", np.zeros(n)), Parameter("bias", np.zeros(n))]
        super().__init__(n, parameters, work_rows=n, temp_rows=0, dtype=dtype)

    def initialize(self, x: object, sample_weight: object = None) -> None:
        """Set bias and scale so that the output at x has mean 0 and variance 1 in each channel.

        Parameters
        ----------
        x : array_like (n, num_channels)
            Finite values that enter the layer, at least one row.  A channel that is constant keeps its scale.
        sample_weight : array_like (n,), optional

        Raises
        ------
        ValueError
            If x is empty, or not finite, or a shape does not fit.
        """
        rows, _ = as_rows(x, (self.input_dim,), "x")
        rows = rows.astype(np.float64)
        if not len(rows) or not np.isfinite(rows).all():
            raise ValueError("ActNormLayer.initialize needs at least one row, and finite values only")
        weight = as_weights(sample_weight, len(rows))
        mean = np.average(rows, axis=0, weights=weight)
        spread = np.sqrt(np.average((rows - mean) ** 2, axis=0, weights=weight))
        constant = spread <= SMALLEST_SPREAD * np.abs(rows).max(axis=0)
        views = self._buffer.views()
        views["bias"][:] = -mean
        views["logs"][:] = -np.log(np.where(constant, 1.0, spread))
        self.initialized = True


def normalised(layers: Sequence[Layer]) -> list[Layer]:
    """The layers, each with an ActNormLayer before it."""
    return [part for layer in layers for part in (ActNormLayer(layer.input_dim, dtype=layer.dtype), layer)]
