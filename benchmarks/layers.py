"""Each layer alone, in both directions, and the gradients through them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

import npflows

from .common import DTYPES, SIZES, few, make_data, perturbed

LAYERS = {
    "CouplingLayer": lambda dim, hidden, **options: npflows.CouplingLayer(np.arange(dim) % 2, hidden, **options),
    "MAFLayer": npflows.MAFLayer,
    "IAFLayer": npflows.IAFLayer,
    "SplineCouplingLayer": lambda dim, hidden, **options: npflows.SplineCouplingLayer(
        np.arange(dim) % 2, hidden, **options
    ),
    "SplineAutoregressiveLayer": lambda dim, hidden, **options: npflows.SplineAutoregressiveLayer(dim, hidden, **options),
    "LULinear": lambda dim, hidden, **options: npflows.LULinear(dim, **options),
    "QRLinear": lambda dim, hidden, dtype, rng: npflows.QRLinear(dim, dtype=dtype),
    "SVDLinear": lambda dim, hidden, dtype, rng: npflows.SVDLinear(dim, dtype=dtype),
    "Householder": lambda dim, hidden, dtype, rng: npflows.Householder(dim, dtype=dtype),
    "Permutation": lambda dim, hidden, **options: npflows.Permutation(dim, "random", **options),
    "Standardize": lambda dim, hidden, dtype, rng: npflows.Standardize(dim, dtype=dtype),
}


METHODS = ["forward", "inverse", "forward_vjp", "inverse_vjp"]


def prepared(layer: npflows.Layer, method: str, x: np.ndarray) -> Callable[[], object]:
    """A method of a layer with its arguments, called once."""
    cotangents = (x[::-1].copy(), np.ones(len(x))) if method.endswith("vjp") else ()
    call = partial(getattr(layer, method), x, *cotangents)
    call()
    return call


class Layers:
    """A layer's forward, inverse and their gradients, with respect to input and parameters."""

    params = (
        list(LAYERS),
        METHODS,
        few(*SIZES),
        few(256, 4096),
        few(*DTYPES),
    )
    param_names = ("layer", "method", "size", "batch", "dtype")
    timeout = 180

    def setup(self, layer: str, method: str, size: str, batch: int, dtype: str) -> None:
        dim, hidden = SIZES[size]
        made = perturbed(LAYERS[layer](dim, hidden, dtype=dtype, rng=0))
        self.call = prepared(made, method, make_data(batch, dim))

    def time_call(self, layer: str, method: str, size: str, batch: int, dtype: str) -> None:
        self.call()


class MaskedNetwork:
    """A `MADE` called on a batch."""

    params = (few(*SIZES), few(256, 4096), few(*DTYPES))
    param_names = ("size", "batch", "dtype")
    timeout = 180

    def setup(self, size: str, batch: int, dtype: str) -> None:
        dim, hidden = SIZES[size]
        self.made, self.x = npflows.MADE(dim, hidden, dtype=dtype, rng=0), make_data(batch, dim)
        self.made(self.x)

    def time_call(self, size: str, batch: int, dtype: str) -> None:
        self.made(self.x)
