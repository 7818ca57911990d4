"""Flows of flowjax from files of their leaves, without JAX; nothing is executed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npflows.base import Base, Normal
from npflows.convert.errors import ConversionError
from npflows.convert.flowjax_layers import Step, Transformer, affine, layer_of, spline
from npflows.convert.linear import assembled, permutation
from npflows.flow import NormalizingFlow
from npflows.layers.layer import Layer

OTHERS = "holds no leaves of a flow of masked_autoregressive_flow or coupling_flow"


def read_leaves(path: str) -> list[NDArray]:
    """The arrays of a file that `equinox.tree_serialise_leaves` wrote, in their order, without JAX; nothing is executed.

    Raises
    ------
    ConversionError
        If the file is something else, or is damaged.
    """
    found = []
    with open(path, "rb") as file:
        end = os.fstat(file.fileno()).st_size
        while file.tell() < end:
            try:
                found.append(np.load(file, allow_pickle=False))
            except (ValueError, EOFError, OSError) as error:
                what = "no arrays one after the other, as equinox.tree_serialise_leaves writes them"
                raise ConversionError(f"{path} holds {what} ({error})") from None
            if not isinstance(found[-1], np.ndarray):
                raise ConversionError(f"{path} is an archive, and no file of leaves")
    return found


def flow_of_leaves(path: str, told: Mapping[str, Any], dtype: str | None) -> NormalizingFlow:
    """A flow from the file of its leaves, and from what is told of it besides.

    Raises
    ------
    ConversionError
        If the file holds other leaves, or their shapes do not fit each other.
    """
    leaves = read_leaves(path)
    arrays = [a for a in leaves if a.ndim]
    if not leaves or not arrays or leaves[0].ndim or leaves[0].dtype.kind not in "iu" or leaves[0] < 1:
        raise ConversionError(f"{path} {OTHERS}")
    n, real = int(leaves[0]), np.float64 if any(a.dtype == np.float64 for a in arrays) else np.float32
    own = np.dtype(real).name if dtype is None else dtype
    base, arrays = _base_of_leaves(arrays, n, own)
    orders, arrays = _orders_of_leaves(arrays, n, path)
    steps = _steps_of_leaves(arrays, n, path)
    if len(orders) not in (0, len(steps)):
        raise ConversionError(f"{path} has {len(orders)} permutations for {len(steps)} layers")
    taken = _transformer(path, steps[0].layers[-1][1].size, n - steps[0].n_kept, told, real)
    invert, layers = told["invert"], list[Layer]()
    for k in range(len(steps)) if invert else reversed(range(len(steps))):
        both = [layer_of(steps[k], taken, told["activation"], n, not invert, own)]
        if orders or n == 2:
            order = np.asarray(orders[k] if orders else [1, 0])
            both.append(permutation(order if invert else np.argsort(order), own))
        layers += both if invert else both[::-1]
    return assembled(layers, base, own)


def _transformer(path: str, outputs: int, moved: int, told: Mapping[str, Any], real: type) -> Transformer:
    """The scalar map of a network with so many outputs for so many values."""
    each, rest = divmod(outputs, moved)
    if told["transformer"] == "affine":
        if rest or each != 2:
            what = f"{outputs} for {moved} values instead of 2 for each"
            raise ConversionError(f"{path} has other outputs than those of transformer='affine': {what}")
        return Transformer(_inverse_softplus([0.0], [1 - told["min_scale"]], real), affine(told["min_scale"]))
    knots, more = divmod(each - 4, 3)
    if rest or more or knots < 1 or told["interval"] is None:
        raise ConversionError(f"{path} has {outputs} outputs for {moved} values: splines have 3 knots + 4 of each, and "
                              f"need interval=")  # fmt: skip
    interval, least = told["interval"], told["min_width"]
    if least * (knots + 1) >= 2 * interval:
        most = 2 * interval / (knots + 1)
        raise ConversionError(f"min_width must be below {most:g}, the width of {knots + 1} equal bins, got {least}")
    first = _inverse_softplus(np.zeros(2 * knots + 2), np.full(knots + 2, 1 - told["min_derivative"]), real)
    return Transformer(first, spline(knots, interval, least, told["min_derivative"]))


def _inverse_softplus(
    zeros: Sequence[float] | NDArray, values: Sequence[float] | NDArray, real: type
) -> NDArray[np.float64]:
    """The raw values of an initial map: zeros, and the inverse of softplus, in the dtype of the flow."""
    given: NDArray = np.asarray(values, real)
    return np.r_[np.asarray(zeros, float), (np.log(-np.expm1(-given)) + given).astype(float)]


def _base_of_leaves(arrays: list[NDArray], n: int, dtype: str) -> tuple[Base, list[NDArray]]:
    """The base, from location and raw scale of a Normal at the beginning, or none; and the other arrays."""
    if len(arrays) > 1 and all(a.shape == (n,) and a.dtype.kind == "f" for a in arrays[:2]):
        loc, scale = arrays[0].astype(float), np.logaddexp(0, arrays[1].astype(float))
        return Normal(n, loc, scale, learnable=True, dtype=dtype), arrays[2:]
    return Normal(n, dtype=dtype), arrays


def _orders_of_leaves(arrays: list[NDArray], n: int, path: str) -> tuple[list[NDArray], list[NDArray]]:
    """The permutations at the end, which flows of more than 2 values have with their inverses, and the other arrays."""
    if n <= 2:
        return [], arrays
    both = arrays[-2:]
    if len(both) < 2 or any(a.dtype.kind not in "iu" or a.ndim != 2 or a.shape[1] != n for a in both):
        raise ConversionError(f"{path} {OTHERS}: those have permutations of {n} values at their end")
    orders, inverses = both
    if orders.shape != inverses.shape or not np.array_equal(np.argsort(orders), inverses):
        raise ConversionError(f"{path} has permutations at its end that are not the inverses of each other")
    if not np.array_equal(np.sort(orders), np.tile(np.arange(n), (len(orders), 1))):
        raise ConversionError(f"{path} has permutations at its end that are none of 0..{n - 1}")
    return list(orders), arrays[:-2]


def _steps_of_leaves(arrays: list[NDArray], n: int, path: str) -> list[Step]:
    """The layers, from masks, weights and biases, or weights and biases alone, of all layers one after the other."""
    is_masked = bool(arrays) and arrays[0].dtype == np.bool_
    each = 3 if is_masked else 2
    groups = [arrays[k : k + each] for k in range(0, len(arrays), each)]
    if not is_masked and n < 2:
        raise ConversionError(f"{path} {OTHERS}: a coupling of one value has nothing to keep")
    if not groups or any(len(group) != each for group in groups):
        raise ConversionError(f"{path} {OTHERS}")
    n_kept = 0 if is_masked else n // 2
    count, columns = groups[0][-1].shape[0], None
    for number, group in enumerate(groups):
        *masks, weight, bias = group
        if weight.ndim != 3 or bias.ndim != 2 or not all(a.dtype.kind == "f" for a in (weight, bias)):
            raise ConversionError(f"{path} {OTHERS}")
        wanted = count, bias.shape[1], weight.shape[2] if columns is None else columns
        if len(bias) != count or any(a.shape != wanted for a in (*masks, weight)) or any(m.dtype != bool for m in masks):
            shapes = " and ".join(str(a.shape) for a in group)
            raise ConversionError(f"{path} has {shapes} in layer {number} of its networks, which do not fit each other or "
                                  f"the layer before")  # fmt: skip
        columns = bias.shape[1]
    seen = n if is_masked else n_kept
    if groups[0][-2].shape[2] < seen:
        raise ConversionError(f"{path} has networks that see {groups[0][-2].shape[2]} values, fewer than {seen}")
    steps = []
    for k in range(count):
        weights = [(g[-2][k], g[-1][k]) for g in groups]
        steps.append(Step(weights, [g[0][k] for g in groups] if is_masked else None, n_kept))
    return steps
