"""Layers with wide networks around these: a thread for each value of a lane.

To the kernels of such a layer each value is a layer of its own, which has it alone: as what the network sees, or as what
is moved by the map.  So they run the layer's own text, with a spec for each value that is made here from that of all; where
in scratch memory a value's numbers lie stands in its spec too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cpu.kernels import autoregressive, coupling
from npflows.backends.cpu.link import pack_map
from npflows.backends.cuda.link import rows_of_value, values_of
from npflows.core.operations import Coupling

PLACES = 4
"""Numbers before a value's network spec: the first row in work of what the network sees of it and the step to the next one;
the row of the value before the map; the first of its raw parameters."""


class Values(NamedTuple):
    """Values, each as a layer of its own.

    Attributes
    ----------
    specs : array of int
        Their specs, one after the other.
    table : array (values, 4) of int
        For each where its spec begins and ends, and where those of its map in the parameters of all maps, which are what
        kernels are given: theirs begin after the network's.
    """

    specs: NDArray[np.int64]
    table: NDArray[np.int64]


def start_of_layer(operation: Any) -> int:
    """The first row of the layer's own scratch in temp; before it are those of the values."""
    n_values = values_of(operation)
    return n_values * rows_of_value(operation) if n_values else 0


def seen_values(operation: Any, spec: Sequence[int], dx_row: int, function: Callable) -> Values:
    """The values that the network sees: of a coupling those that are kept, else all.

    Parameters
    ----------
    operation : Coupling or Autoregressive
    spec : sequence of int
        The layer's.
    dx_row : int
        Where in temp the network leaves their gradient.
    function : callable
        The text that takes it there.
    """
    if not isinstance(operation, Coupling):
        return _autoregressive(operation, spec, dx_row)
    n, m, found = spec[coupling.N_LINE], spec[coupling.N_CIRCLE], []
    for k, index in enumerate(operation.kept):
        header = list(spec[: coupling.HEADER])
        header[coupling.N_LINE], header[coupling.N_CIRCLE], header[coupling.N_MOVED] = int(k < n), int(k >= n), 0
        header[coupling.NETWORK_THETA] = 0
        step = 1 if k < n else m
        temp = _first_row(operation, k) + (2 if k >= n else 1) + int(function is coupling.inverse_vjp)
        places = [k, step, 0, 0]
        found.append(_one(coupling, header, [index], places, [dx_row + k - temp, step], [], (0, 0)))
    return _joined(found)


def mapped_values(operation: Any, spec: Sequence[int]) -> Values:
    """The values that the map moves: of a coupling those that are not kept, else all."""
    if not isinstance(operation, Coupling):
        return _autoregressive(operation, spec, 0)
    scalar_map, first = operation.transformer, operation.conditioner.n_in
    raw, m, found = first + len(operation.moved), scalar_map.multiplier, []
    for k, index in enumerate(operation.moved):
        header = list(spec[: coupling.HEADER])
        header[coupling.N_LINE], header[coupling.N_CIRCLE], header[coupling.N_MOVED] = 0, 0, 1
        start = k * scalar_map.theta_per_value
        header[coupling.NETWORK_THETA] = start
        own = start, start + scalar_map.theta_per_value
        places = [0, 1, first + k, raw + k * m]
        found.append(_one(coupling, header, [index], places, [0, 1], pack_map(scalar_map, k), own))
    return _joined(found)


def _autoregressive(operation: Any, spec: Sequence[int], dx_row: int) -> Values:
    """The values of an autoregressive layer, in their order."""
    scalar_map, network, found = operation.transformer, operation.conditioner, []
    seen, m = spec[autoregressive.SEEN], scalar_map.multiplier
    raw = seen + network.n_in
    for k, index in enumerate(operation.order):
        header, entered = list(spec[: autoregressive.HEADER]), network.entered[k]
        count, start = network.entered[k + 1] - entered, k * scalar_map.theta_per_value
        header[autoregressive.DIM], header[autoregressive.N_SEEN] = 1, count
        header[autoregressive.NETWORK_THETA] = start
        temp = _first_row(operation, k) + 1 + count
        places, own = [seen + entered, 1, k, raw + k * m], (start, start + scalar_map.theta_per_value)
        own_map = pack_map(scalar_map, k)
        indices = [index, 0, count, autoregressive.HEADER + 4 + PLACES + 2]
        found.append(_one(autoregressive, header, indices, places, [dx_row + entered - temp, 1], own_map, own))
    return _joined(found)


def _first_row(operation: Any, k: int) -> int:
    """Where the k-th value's scratch begins in temp."""
    return k * rows_of_value(operation)


def _one(
    names: Any,
    header: list[int],
    indices: list[int],
    places: list[int],
    network: list[int],
    scalar_map: list[int],
    own: tuple[int, int],
) -> tuple[list[int], tuple[int, int]]:
    """The spec of a value, and the range of its map's parameters."""
    header[names.NETWORK_SPEC] = len(header) + len(indices) + PLACES
    header[names.MAP_SPEC] = header[names.NETWORK_SPEC] + len(network)
    return [*header, *indices, *places, *network, *scalar_map], own


def _joined(found: Sequence[tuple[list[int], tuple[int, int]]]) -> Values:
    ends = np.cumsum([len(spec) for spec, _ in found])
    table = [(end - len(spec), end, *own) for (spec, own), end in zip(found, ends)]
    return Values(np.array([number for spec, _ in found for number in spec], np.int64), np.array(table, np.int64))
