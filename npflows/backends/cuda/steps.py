"""Layers, embeddings and bases ready to run: their kernels, their specs on the GPU, and what is summed over samples."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cpu.kernels import autoregressive, coupling, mlp
from npflows.backends.cpu.link import KERNELS
from npflows.backends.cuda import kernels, wide, wide_kernels
from npflows.backends.cuda.device import to_device
from npflows.backends.cuda.link import TWINS, Called, NumberingLink, is_wide, own_sums, rows_of_value, scratch_of_lane
from npflows.backends.cuda.matrices import Matrices
from npflows.backends.cuda.memory import Memory
from npflows.backends.cuda.products import FEW_LANES, LANES, SHARED, SHARED_OF_FEW
from npflows.backends.cuda.sums import OuterProduct, Place, products_of, tiles
from npflows.backends.cuda.values import mapped_values, seen_values, start_of_layer
from npflows.backends.cuda.wide import Around, WideRun
from npflows.core.operations import Autoregressive, Placed

LAYER = ("spec", "theta", "context", "key", "first", "dblock", "dlog_det", "work", "temp", "dtheta", "dcontext")
NETWORK = ("spec", "theta", "context", "key", "first", "x", "dout", "dx", "work", "temp", "dtheta", "dcontext")
"""The arguments of a vjp's text."""
LAYER_FORWARD = ("spec", "theta", "context", "key", "first", "block", "log_det", "work", "temp")
NETWORK_FORWARD = ("spec", "theta", "context", "key", "first", "x", "out", "work", "temp")
"""The arguments of a map's or a network's text."""
_PLACED = ("spec", "theta", "start", "end")
GIVEN = {
    LAYER_FORWARD: (*_PLACED, *LAYER_FORWARD[2:]),
    LAYER: (*_PLACED, *LAYER[2:-2], "own", "own_start", "own_rows", "dcontext"),
    NETWORK_FORWARD: (*_PLACED, *NETWORK_FORWARD[3:]),
    NETWORK: (*_PLACED, *NETWORK[3:-2], "own", "own_rows"),
}
"""The arguments of kernels, by those of the text that each runs (kernels.py)."""


class Step(NamedTuple):
    """A layer, or the embedding, ready to run in one direction.

    Attributes
    ----------
    operation : Operation
    start, end : int
        Where its parameters lie.
    spec : array
        On the GPU.
    run, run_vjp : kernel
    lanes, shared_bytes : int
        Of blocks of threads that multiply together in them; 0 where each thread is by itself.
    own : (int, int)
        See `own_block`.
    products : array (tiles, 10), optional
        On the GPU: see `npflows.backends.cuda.sums.tiles`.
    outer : list of OuterProduct
        The sums over samples that are not in `products`, as `matrices` takes them.
    matrices : Matrices, optional
        What multiplies, where the network is wide: then `run` and `run_vjp` are of `npflows.backends.cuda.wide`.
    """

    operation: Any
    start: int
    end: int
    spec: Any
    run: Any
    run_vjp: Any
    lanes: int
    shared_bytes: int
    own: tuple[int, int]
    products: Any
    outer: list[OuterProduct]
    matrices: Matrices | None


def prepare(
    placed: Placed,
    functions: tuple[Any, ...],
    dtype: np.dtype,
    context_rows: int,
    memory: Memory,
    few: bool,
    *,
    is_network: bool = False,
) -> Step:
    """A layer, or an embedding, with its kernels in one direction for many or few samples: the map's, and its gradient's
    perhaps."""
    operation, start = placed
    by_products = is_wide(operation, functions[0])
    link = NumberingLink(dtype, functions, few and not by_products)
    packed = link.pack(operation) if is_network else KERNELS[type(operation)].pack(operation, link)
    spec = np.array(packed or [0], np.int64)
    make: Any = _network if is_network else _layer
    make_vjp: Any = _network_vjp if is_network else _layer_vjp
    matrices = wide.chosen(dtype) if by_products else None
    blocks = _blocks(operation, spec, context_rows, is_network, 0 if matrices is None else start_of_layer(operation))
    if matrices is not None:
        make = make_vjp = functools.partial(_made_wide, operation, matrices, memory, blocks, is_network)
    else:
        functions = tuple(TWINS.get(function, function) for function in functions)
    own = own_block(operation, matrices is not None)
    lanes = shared = 0
    if kernels.multiplies_together(link.called(True)):
        lanes, shared = (FEW_LANES, SHARED_OF_FEW) if kernels.few_lanes(link.called(True)) else (LANES, SHARED)
    run, run_vjp = make(functions[0], link.called(False)), None
    left: list[OuterProduct] = []
    outer: list[OuterProduct] = []
    if len(functions) > 1:
        called = link.called(True)
        run_vjp = make_vjp(functions[1], called)
        left = _products(operation, functions[1], blocks, called, is_network, own[0])
        if matrices is not None:
            left, outer = matrices.leave(left)
    end, table = start + operation.size, to_device(tiles(left)) if left else None
    return Step(operation, start, end, to_device(spec), run, run_vjp, lanes, shared * dtype.itemsize, own, table, outer,
                matrices)  # fmt: skip


def prepare_network(
    placed: Placed, gradient: bool, dtype: np.dtype, context_rows: int, memory: Memory, few: bool
) -> Step:  # fmt: skip
    """An embedding, or the network of a base, with its kernels."""
    roles = KERNELS[type(placed.operation)].roles
    functions = (roles["forward"][0], roles["vjp"][0])[: 1 + gradient]
    return prepare(placed, functions, dtype, context_rows, memory, few, is_network=True)


def _made_wide(
    operation: Any,
    matrices: Matrices,
    memory: Memory,
    blocks: dict[str, Any],
    is_network: bool,
    function: Any,
    called: tuple[Called, ...],
) -> WideRun:
    """What runs a layer with a wide network, or an embedding that is one, or the gradient of either."""
    backward = function in (mlp.forward_vjp, coupling.forward_vjp, coupling.inverse_vjp, autoregressive.forward_vjp)
    arguments = (LAYER_FORWARD, LAYER, NETWORK_FORWARD, NETWORK)[2 * is_network + backward]
    traced = wide.trace(function, blocks, called, _of_text(arguments))
    around: list[Around] = []
    rows = start = 0
    if not is_network:
        start = operation.conditioner.size
        own, spec = tuple(one for one in called if one.kind in wide_kernels.OF_LAYERS), blocks["spec"].tolist()
        seen, mapped = seen_values(operation, spec, traced.dx_row, function), mapped_values(operation, spec)
        make, rows = wide_kernels.make_values_vjp if backward else wide_kernels.make_values, rows_of_value(operation)
        in_order = (mapped, seen) if backward else (seen, mapped)
        around = [Around.of(make(function, own, after == 1), values) for after, values in enumerate(in_order)]
    units = wide_kernels.make_units(tuple(one for one in called if one.kind in wide_kernels.OF_UNITS), backward)
    return WideRun(GIVEN[arguments], around, rows, start, traced, units, backward, matrices, memory)


def _of_text(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The names of what the text of a layer is given."""
    return tuple("temp of the layer" if name == "temp" else name for name in arguments)


def own_block(operation: Any, wide: bool) -> tuple[int, int]:
    """The rows of the block in which threads add up gradients of their own: as many as the layer has parameters, or where
    its network is run product by product those alone."""
    first, last = own_sums(operation)
    return (0, last - first) if wide else (first, last)


def own_rows(own: tuple[int, int]) -> int:
    """Rows of that block: one where they have none to add, as none would mean that no gradient is wanted."""
    return own[1] if own[1] > own[0] else 1


def most_own_rows(operation: Any) -> int:
    """The most rows of it in either direction."""
    wide = is_wide(operation) and not isinstance(operation, Autoregressive)
    return own_rows(own_block(operation, wide))


def _blocks(
    operation: Any, spec: NDArray[np.int64], context_rows: int, is_network: bool, layer_row: int
) -> dict[str, Any]:  # fmt: skip
    """The arguments of the kernels and texts of a layer, or of an embedding, by name, of one lane; the layer's own rows of
    temp begin with `layer_row`."""
    size = scratch_of_lane(operation)
    rows = {"context": context_rows, "dcontext": context_rows, "work": size.work, "temp": size.temp}
    if is_network:
        rows |= {"x": operation.n_in, "dx": operation.n_in, "out": operation.n_out, "dout": operation.n_out}
        rows["context"] = rows["dcontext"] = 0
    else:
        rows |= {"block": operation.dim, "dblock": operation.dim}
    blocks: dict[str, Any] = {name: np.zeros((count, 1)) for name, count in rows.items()}
    blocks |= {"spec": spec, "theta": np.zeros(operation.size), "key": 0, "first": 0}
    blocks["temp of the layer"] = blocks["temp"][layer_row:]
    return blocks | {"log_det": np.zeros(1), "dlog_det": np.zeros(1), "dtheta": np.zeros(operation.size)}


def _products(
    operation: Any, function: Any, blocks: dict[str, Any], called: tuple[Called, ...], is_network: bool, own_row: int
) -> list[OuterProduct]:  # fmt: skip
    """All sums over samples after a layer's vjp, where gradients that threads add up begin in a row of their block."""
    first, last = own_sums(operation)
    own = [OuterProduct(Place("dtheta", own_row), None, first, 1, last - first, 1)] if last > first else []
    if (first, last) == (0, operation.size):
        return own
    return own + products_of(function, blocks, called, _of_text(NETWORK if is_network else LAYER))


_layer, _layer_vjp = functools.cache(kernels.layer), functools.cache(kernels.layer_vjp)
_network, _network_vjp = functools.cache(kernels.network), functools.cache(kernels.network_vjp)
_base, _base_vjp = functools.cache(kernels.base), functools.cache(kernels.base_vjp)


@functools.cache
def sums_of_own(rows: int) -> Any:
    """The table of the sums of gradients that threads added up for themselves."""
    return to_device(tiles([OuterProduct(Place("dtheta", 0), None, 0, 1, rows, 1)]))


def base_kernel(base: Any, dtype: np.dtype, gradient: bool) -> tuple[Any, NDArray]:
    """The kernel of a base distribution, or of its gradient, and its spec."""
    table = KERNELS[type(base)]
    log_prob, log_prob_vjp = table.functions(base)
    spec = np.array(table.pack(base, NumberingLink(dtype, (log_prob,))) or [0], np.int64)
    return (_base_vjp(log_prob_vjp) if gradient else _base(log_prob)), spec
