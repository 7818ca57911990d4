"""The arithmetic of affine coupling flows on plain arrays, for those who build their own loop.

Dinh et al. 2017 (arXiv:1605.08803), equations 3 to 8.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.core.checks import as_numeric


def affine_coupling(x: ArrayLike, scale: ArrayLike, shift: ArrayLike) -> NDArray[np.float64]:
    """y = x exp(scale) + shift, for the half of the values that a coupling transforms.

    Parameters
    ----------
    x, scale, shift : array_like (batch, half)

    Returns
    -------
    ndarray (batch, half)
    """
    x, scale, shift = _halves(x=x, scale=scale, shift=shift)
    return x * np.exp(scale) + shift


def inverse_affine_coupling(y: ArrayLike, scale: ArrayLike, shift: ArrayLike) -> NDArray[np.float64]:
    """x = (y - shift) exp(-scale), which undoes `affine_coupling`; all (batch, half)."""
    y, scale, shift = _halves(y=y, scale=scale, shift=shift)
    return (y - shift) * np.exp(-scale)


def log_det_jacobian(scale: ArrayLike) -> NDArray[np.float64]:
    """log |det dy/dx| (batch,) of an affine coupling, the sum of its log-scales (batch, half)."""
    return _halves(scale=scale)[0].sum(axis=1)


def total_log_det_jacobian(scales: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """log |det dy/dx| (batch,) of couplings one after the other, from the log-scales (batch, half) of each."""
    if not len(scales):
        raise ValueError("scales must hold the log-scales of at least one coupling")
    totals = [log_det_jacobian(scale) for scale in scales]
    if len({len(total) for total in totals}) > 1:
        raise ValueError(f"all scales must have the same batch, got {[len(total) for total in totals]}")
    return np.sum(totals, axis=0)


def log_probability(z: ArrayLike, total_log_det: ArrayLike) -> NDArray[np.float64]:
    """Log-density (batch,) of data with latent values z (batch, dim) under a standard normal base, by the change of
    variables, from log |det dz/dx| (batch,)."""
    z = _halves(z=z)[0]
    log_det = as_numeric(total_log_det, "total_log_det").astype(np.float64)
    if log_det.shape != (len(z),):
        raise ValueError(f"total_log_det must have shape ({len(z)},), one for each row of z, got {log_det.shape}")
    return -0.5 * (z**2).sum(axis=1) - 0.5 * z.shape[1] * np.log(2 * np.pi) + log_det


def nll_loss(z: ArrayLike, total_log_det: ArrayLike) -> float:
    """Mean negative log-density of a batch; see `log_probability`."""
    values = log_probability(z, total_log_det)
    if not len(values):
        raise ValueError("z must have at least one row")
    return float(-values.mean())


def _halves(**arrays: ArrayLike) -> list[np.ndarray]:
    """Arrays (batch, half) as float64, after checking that they fit each other."""
    converted = {name: as_numeric(array, name).astype(np.float64) for name, array in arrays.items()}
    first, shape = next((name, array.shape) for name, array in converted.items())
    if len(shape) != 2:
        raise ValueError(f"{first} must have shape (batch, half), got {shape}")
    for name, array in converted.items():
        if array.shape != shape:
            raise ValueError(f"{name} must have the shape of {first}, {shape}, got {array.shape}")
    return list(converted.values())
