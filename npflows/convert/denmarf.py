"""Densities of denmarf 0.3, from objects."""

from __future__ import annotations

from typing import Any

import numpy as np

from npflows.convert.arguments import checked
from npflows.convert.errors import ConversionError
from npflows.convert.linear import assembled, diagonal, dtype_of, permutation
from npflows.convert.networks import autoregressive, chain, masked_dense
from npflows.convert.state_dict import arrays_of, refuse_files
from npflows.convert.tensors import Tensors
from npflows.flow import NormalizingFlow
from npflows.layers.layer import Layer
from npflows.support import interval

BLOCK = ("MADE", "BatchNormFlow", "Reverse")


def from_denmarf(density: Any, *, dtype: str | None = None) -> NormalizingFlow:
    """A density of denmarf as a flow of npflows that gives its numbers; bounds become a support.

    Parameters
    ----------
    density : denmarf.DensityEstimate
        A fitted one.
    dtype : {"float32", "float64"}, optional
        float32 by default, as denmarf's.

    Returns
    -------
    NormalizingFlow

    Raises
    ------
    ConversionError
        If it is something else, or not fitted.

    Notes
    -----
    Batch normalization becomes a diagonal layer with the numbers of evaluation.  denmarf rounds what its logit gives, and
    sums log-determinants, in float32.  It moves a row on a bound inside by 1e-4, and npflows gives it no density.
    """
    refuse_files(density, "from_denmarf", "as pickle.load gives it where denmarf is installed")
    dtype = checked(dtype=dtype)["dtype"]
    model = getattr(density, "model", None)
    if type(density).__module__.split(".")[0] != "denmarf" or model is None:
        raise ConversionError(f"{type(density).__module__}.{type(density).__name__} is no fitted density of denmarf")
    kinds = [type(part).__name__ for part in model.children()]
    if any(kind not in BLOCK for kind in kinds):
        raise ConversionError(f"the layers {', '.join(sorted(set(kinds) - set(BLOCK)))} of denmarf are not taken over")
    arrays = arrays_of(model)
    own = dtype_of(arrays) if dtype is None else dtype
    n = int(density.num_features)
    layers: list[Layer] = []
    for number, kind in enumerate(kinds):
        layers += _layers(kind, arrays.below(f"{number}."), n, own)
    arrays.refuse_rest()
    bounds = None
    if density.bounded:
        ends = (np.broadcast_to(np.asarray(a, float), (n,)) for a in
                (density.transformation.lower_bounds, density.transformation.upper_bounds))  # fmt: skip
        bounds = [interval(low, high) for low, high in zip(*ends)]
    return assembled(layers, "normal", own, support=bounds)


def _layers(kind: str, part: Tensors, n: int, dtype: str) -> list[Layer]:
    """One layer of denmarf."""
    if kind == "Reverse":
        return [permutation(np.arange(n)[::-1], dtype)]
    if kind == "BatchNormFlow":
        names = ("log_gamma", "beta", "running_mean", "running_var")
        log_gamma, beta, mean, variance = (part.take(name, n).astype(float) for name in names)
        slope = np.exp(log_gamma) / np.sqrt(variance)
        return diagonal(slope, beta - slope * mean, n, dtype)
    places = ("joiner", "trunk.1", "trunk.3")
    weights = chain(part, [f"{place}.linear" for place in places], n, 2 * n, 0)
    masks = [part.take(f"{place}.mask", *weight.shape) for place, (weight, _) in zip(places, weights)]
    owners = np.tile(np.arange(n), 2)  # all shifts, then all log-scales
    network, order = masked_dense(weights, masks, n, owners, "tanh", None)
    network = network.with_outputs(np.stack([order, order + n], axis=1).ravel())
    return [autoregressive(network, order, {"scale_activation": "none", "shift_first": True}, dtype)]
