"""From operations to what the GPU's kernels read: the specs of the CPU, in which the numbers of functions stand where the
CPU has addresses; scratch memory for one lane; and which sums over samples are left for later."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npflows.backends.cpu.kernels import autoregressive, mlp, spline
from npflows.backends.cpu.kernels.matmul import PRODUCT
from npflows.backends.cpu.kernels.outer import OUTER
from npflows.backends.cpu.link import KERNELS, ONE_LANE_TWINS, Link, Scratch, scratch, temp_of_map
from npflows.backends.cuda.helpers import WITH_HELPERS
from npflows.backends.cuda.networks import TWINS as NETWORK_TWINS
from npflows.backends.cuda.products import FEW_ROWS, ROWS, TOGETHER, no_outer, product_of_few
from npflows.backends.cuda.texts import text_of
from npflows.core.operations import Conv1x1, ConvNet, Custom, Elementwise, Made, Mlp

Function = Callable[..., Any]


WIDE = 256
"""The units of a hidden layer from which on a network is wide, and runs by `npflows.backends.cuda.wide`.

It depends on nothing else, so that the same flow has the same bits on any GPU and in batches of any size.
"""
TWINS = NETWORK_TWINS | {function: twin for function, twin in ONE_LANE_TWINS.items() if function in spline.ROLES.values()}
"""What stands for functions of the CPU: networks with few places that multiply, and splines for a single lane, which are
shorter; its other functions for one lane are for vectors along rows."""


class Called(NamedTuple):
    """A function that kernels call by its number, which is one for the whole process."""

    text: Function
    kind: str
    dense: bool = False
    """Whether a dense or masked network multiplies with it: all samples by the same weights, and rows that stay where they
    are."""
    backward: bool = False
    """Whether gradients alone call it."""


_numbers: dict[Called, int] = {}


def number_of(one: Called) -> int:
    """The number of a function, the same in every process, as compiled kernels on disk know it."""
    if one not in _numbers:
        number = zlib.crc32(name_of(one).encode()) + 1
        if number in _numbers.values():
            raise RuntimeError(f"{name_of(one)} has the number of another function: rename one of them")
        _numbers[one] = number
    return _numbers[one]


def name_of(one: Called) -> str:
    """A function in words."""
    return f"{one.text.__module__}.{one.text.__qualname__} {one.kind}{' of a dense network' if one.dense else ''}"


class NumberingLink(Link):
    """Gives a layer the numbers of the functions that its kernels call, and keeps the set of them; where there are few
    samples (`products.FEW`) products are others."""

    def __init__(self, dtype: np.dtype, kernels: tuple[Function, ...], few: bool = False) -> None:
        super().__init__(dtype, kernels)
        self._called: set[Called] = set()
        self._products, self._rows = (WITH_HELPERS, FEW_ROWS) if few else (TOGETHER, ROWS)
        self._dense = self._backward = False
        self._together = autoregressive.inverse_vjp not in kernels  # it has no registers left for tiles

    def __call__(self, function: Function, kind: str, *users: Function) -> int:
        """The number of `function`; 0 if it is only for certain users and none of them is in use."""
        if users and not any(kernel in users for kernel in self.kernels):
            return 0
        text, dense = text_of(TWINS.get(function, function)), False
        if self._dense and (function is OUTER[0] or (function is PRODUCT[0] and self._together)):
            text, dense = no_outer if function is OUTER[0] else self._products[self.dtype], True
        elif function is PRODUCT[0] and not self._together and self.dtype == np.float64:
            text = product_of_few
        backward = self._backward or kind.endswith(("_vjp", "outer"))
        one = Called(text, kind, dense, backward)
        self._called.add(one)
        return number_of(one)

    def called(self, gradient: bool) -> tuple[Called, ...]:
        """The functions that the map's kernel calls, or that of its gradient, by their numbers."""
        return tuple(sorted((one for one in self._called if gradient or not one.backward), key=number_of))

    def network(self, operation: Any, role: str, *users: Function) -> int:
        """The number of a network's kernel."""
        self._backward = "vjp" in role
        number = super().network(operation, role, *users)
        self._backward = False
        return number

    def pack(self, network: Any) -> list[int]:
        """The spec of a network; products of dense and masked ones are of whole tiles, and what they multiply for their
        gradients stays in work and temp."""
        self._dense = isinstance(network, (Mlp, Made))
        spec = super().pack(network)
        if self._dense and self._together:
            merge_panels(spec, self._rows)
        self._dense = False
        return spec


def merge_panels(spec: list[int], rows: int) -> None:
    """Make panels of a network's spec as high as a tile of so many rows of a product, or higher; what they cover beyond the
    mask is 0."""
    for layer in range(spec[mlp.N_DENSE]):
        record = mlp.HEADER + mlp.RECORD * layer
        for place, count, reach in (
            (mlp.ROW_PANELS, mlp.N_ROW_PANELS, max), (mlp.COLUMN_PANELS, mlp.N_COLUMN_PANELS, min)
        ):  # fmt: skip
            first, merged = spec[record + place], 0
            for panel in range(spec[record + count]):
                begin, end, depth = spec[first + 3 * panel : first + 3 * panel + 3]
                last = first + 3 * (merged - 1)
                if merged and spec[last + 1] - spec[last] < rows:
                    spec[last + 1 : last + 3] = end, reach(spec[last + 2], depth)
                else:
                    spec[last + 3 : last + 6] = begin, end, depth
                    merged += 1
            spec[record + count] = merged


def conditioner_of(operation: Any) -> Any:
    """The network of an operation, or the operation if it is one; None where there is none."""
    return operation if isinstance(operation, (Mlp, Made, ConvNet)) else getattr(operation, "conditioner", None)


def is_wide(operation: Any, function: Function | None = None) -> bool:
    """Whether a layer, or an embedding, has a wide network and its kernel `function` is not in the sequential direction,
    which has products of few rows."""
    network = conditioner_of(operation)
    wide = isinstance(network, (Mlp, Made)) and max(network.hidden, default=0) >= WIDE
    return wide and function not in (autoregressive.inverse, autoregressive.inverse_vjp)


def is_narrow(operation: Any) -> bool:
    """Whether a layer, or an embedding, has a dense or masked network that is not wide."""
    return isinstance(conditioner_of(operation), (Mlp, Made)) and not is_wide(operation)


def rows_of_value(operation: Any) -> int:
    """Rows of scratch memory of one value of a layer with a wide network, where each value has a thread of its own."""
    return 3 + temp_of_map(operation.transformer, 1)


def values_of(operation: Any) -> int:
    """Values of such a layer that have threads of their own at the same time, or more; of an embedding none."""
    return operation.dim if is_wide(operation) and hasattr(operation, "transformer") else 0


def scratch_of_lane(operation: Any) -> Scratch:
    """Rows of scratch memory for blocks of one lane, where matrices lie in as many rows as they have entries."""
    work, temp = scratch(operation)
    network = conditioner_of(operation)
    if values_of(operation):
        temp += values_of(operation) * rows_of_value(operation)
    if isinstance(operation, Conv1x1):
        temp += 3 * operation.channels**2
    if isinstance(network, ConvNet):
        temp += max(math.prod(shape) for name, shape in network.shapes.items() if name.startswith("weight"))
        temp += max(network.channels)
    return Scratch(work, temp)


def own_sums(operation: Any) -> tuple[int, int]:
    """The range of an operation's parameters whose gradient each thread adds up for its own samples; the gradients of the
    others are products of rows that stay in work and temp, which are summed later."""
    network = conditioner_of(operation)
    scalar_map: Any = getattr(operation, "transformer", None)
    learned = 0 if scalar_map is None else scalar_map.theta_per_value
    if isinstance(operation, Elementwise):
        return (operation.dim * scalar_map.multiplier if learned else operation.size), operation.size
    if isinstance(network, (Mlp, Made)):
        return (network.size if learned else operation.size), operation.size
    return 0, operation.size


def functions_of(operation: Any, inverse: bool) -> tuple[Function, ...]:
    """The kernels of a layer in one direction: the map and its vjp, where it has one.

    Raises
    ------
    NotImplementedError
        If it is a layer of the user's own.
    """
    if isinstance(operation, Custom):
        raise NotImplementedError(
            f"{operation.name} is a layer of your own, compiled for the CPU: it has no CUDA kernel; use flow.to('cpu')"
        )
    functions = KERNELS[type(operation)].functions(operation)
    return tuple(functions[1::2] if inverse else functions[::2])
