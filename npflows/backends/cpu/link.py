"""From operations to what the compiled drivers read: addresses of kernels, and vectors of integers ("specs").

Each file of `kernels/` enters the kernels of its operation in `KERNELS`: what they are, how they are packed, how much
scratch they take.  A `Link` gives the addresses; where a block has a single lane it takes the twins that kernels have for
that, so that no kernel has to ask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from npflows.backends.cpu.compiler.calls import address
from npflows.core.operations import Placed

LANE_MULTIPLE = 16
"""Blocks are padded to a multiple of this: the lanes of the narrowest tile of a product (kernels/matmul.py).  A single
sample is carried in a block of one lane where all kernels of a program work on one."""

Function = Callable[..., Any]


class Scratch(NamedTuple):
    """Rows of scratch memory, values for each sample.

    Attributes
    ----------
    work : int
        Rows that the forward kernels leave for the vjp kernels.
    temp : int
        Rows that any kernel may use.
    """

    work: int = 0
    temp: int = 0


@dataclass(frozen=True)
class LayerKernels:
    """The kernels of a layer.

    Attributes
    ----------
    functions : callable
        Takes the operation; returns its kernels forward, inverse, forward_vjp and inverse_vjp.
    pack : callable
        Takes the operation and a `Link`; returns the spec, a list of integers.
    scratch : callable
        Takes the operation; returns its `Scratch`.
    one_lane : callable
        Takes the operation; returns whether the kernels also work on a block of one lane.
    """

    functions: Callable[[Any], tuple[Function, ...]]
    pack: Callable[[Any, Link], list[int]]
    scratch: Callable[[Any], Scratch]
    one_lane: Callable[[Any], bool] = lambda operation: True


@dataclass(frozen=True)
class NetworkKernels:
    """The kernels of a network.

    Attributes
    ----------
    roles : dict
        By role the kernel and its kind (compiler/calls.py): "forward", "vjp" and, for masked networks, "sequential_step",
        "sequential_step_vjp" and "weights_vjp".
    pack, scratch : callable
        As in `LayerKernels`.
    one_lane : bool
        Whether the kernels also work on a block of one lane, without gradients of parameters there.
    by_column : callable, optional
        The twin of "forward" for blocks of one lane and weights whose matrices lie by column.
    """

    roles: dict[str, tuple[Function, str]]
    pack: Callable[[Any, Link], list[int]]
    scratch: Callable[[Any], Scratch]
    one_lane: bool = True
    by_column: Function | None = None


@dataclass(frozen=True)
class MapKernels:
    """The kernels of a scalar map.

    Attributes
    ----------
    roles : callable
        Takes the operation; returns by role its kernels "forward", "inverse", "vjp" and "solve", which divides a gradient
        by dy/dx for the gradient of an inverse.
    pack : callable
        Takes the operation and None or k; returns the spec of the map for all values, or for the k-th alone.
    temp : callable
        Takes the operation and how many values there are; returns how many rows of scratch memory the kernels may use.
    """

    roles: Callable[[Any], dict[str, Function]]
    pack: Callable[[Any, int | None], list[int]]
    temp: Callable[[Any, int], int] = lambda operation, n: 0


@dataclass(frozen=True)
class BaseKernels:
    """The kernels of a base distribution.

    Attributes
    ----------
    functions : callable
        Takes the operation; returns its kernels log_prob and log_prob_vjp.
    pack : callable
        Takes the operation and a `Link`; returns the spec, which is empty by default.
    temp : callable
        Takes the operation; returns how many rows of scratch memory follow the samples in what the kernels are given.  The
        last of them are those that the network of the operation gives, where it has a `conditioner`: log_prob_vjp leaves
        their gradients there.
    """

    functions: Callable[[Any], tuple[Function, ...]]
    pack: Callable[[Any, Link], list[int]] = lambda operation, link: []
    temp: Callable[[Any], int] = lambda operation: 0


KERNELS: dict[type, Any] = {}
"""The kernels of each kind of operation."""

ONE_LANE_TWINS: dict[Function, Function] = {}
"""The functions that replace kernels where blocks have one lane: the same numbers, bit by bit, from loops along rows."""


class Link:
    """Gives a layer the addresses of what its kernels call, and compiles only what the kernels in use need.

    Parameters
    ----------
    dtype : numpy.dtype
    kernels : tuple of callable
        The layer's kernels that are in use.
    one_lane : bool
        Whether blocks have one lane.
    by_column : bool
        Whether weights lie by column on the way forward, where networks have kernels for that.

    Attributes
    ----------
    turned : list of operations
        The networks whose weights lie by column.
    """

    def __init__(
        self, dtype: np.dtype, kernels: tuple[Function, ...], one_lane: bool = False, by_column: bool = False
    ) -> None:  # fmt: skip
        self.dtype, self.kernels, self.one_lane, self.by_column = dtype, kernels, one_lane, by_column
        self.turned: list[Any] = []

    def __call__(self, function: Function, kind: str, *users: Function) -> int:
        """The address of `function`; 0 if it is only for certain users and none of them is in use."""
        if users and not any(kernel in users for kernel in self.kernels):
            return 0
        if self.one_lane:
            function = ONE_LANE_TWINS.get(function, function)
        return address(function, kind, self.dtype)

    @property
    def gradient(self) -> bool:
        """Whether the layer's vjp is in use."""
        return len(self.kernels) > 1

    @property
    def learns(self) -> bool:
        """Whether gradients of parameters are in use, which blocks of one lane have none of."""
        return self.gradient and not self.one_lane

    def network(self, operation: Any, role: str, *users: Function) -> int:
        """The address of a network's kernel."""
        table = KERNELS[type(operation)]
        function, kind = table.roles[role]
        if self.by_column and role == "forward" and table.by_column is not None:
            number = self(table.by_column, kind, *users)
            if number:
                self.turned.append(operation)
            return number
        return self(function, kind, *users)

    def scalar_map(self, operation: Any, role: str, *users: Function) -> int:
        """The address of a scalar map's kernel."""
        kind = "transformer" if role in ("forward", "inverse") else "transformer_vjp"
        return self(KERNELS[type(operation)].roles(operation)[role], kind, *users)

    def pack(self, network: Any) -> list[int]:
        """The spec of a network."""
        return KERNELS[type(network)].pack(network, self)


def scratch(operation: Any) -> Scratch:
    """The scratch of a layer or a network."""
    return KERNELS[type(operation)].scratch(operation)


def temp_of_base(placed: Placed | None) -> int:
    """Rows of scratch memory that follow the samples where they are given to the base distribution, if there is one."""
    table = None if placed is None else KERNELS[type(placed.operation)]
    return table.temp(placed.operation) if placed is not None and isinstance(table, BaseKernels) else 0


def pack_map(operation: Any, value: int | None = None) -> list[int]:
    """The spec of a scalar map, for all values or for one of them."""
    return KERNELS[type(operation)].pack(operation, value)


def temp_of_map(operation: Any, n: int) -> int:
    """Rows of scratch memory that the kernels of a scalar map may use for n values."""
    return KERNELS[type(operation)].temp(operation, n)


def bits(*numbers: float) -> list[int]:
    """The bits of float64 numbers, as integers of a spec; kernels read them by `as_real`."""
    return np.array(numbers, np.float64).view(np.int64).tolist()
