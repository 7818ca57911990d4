"""Layers, embeddings and bases ready to run: their kernels, their specs on the GPU, and what is summed over samples."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cpu.link import KERNELS
from npflows.backends.cuda import kernels
from npflows.backends.cuda.device import to_device
from npflows.backends.cuda.link import Called, NumberingLink, own_sums, scratch_of_lane
from npflows.backends.cuda.sums import OuterProduct, Place, products_of, tiles
from npflows.core.operations import Placed

LAYER = ("spec", "theta", "context", "key", "first", "dblock", "dlog_det", "work", "temp", "dtheta", "dcontext")
NETWORK = ("spec", "theta", "context", "key", "first", "x", "dout", "dx", "work", "temp", "dtheta", "dcontext")
"""The arguments of a vjp kernel."""


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
    own : (int, int)
        See `npflows.backends.cuda.link.own_sums`.
    products : array (tiles, 10), optional
        On the GPU: see `npflows.backends.cuda.sums.tiles`.
    """

    operation: Any
    start: int
    end: int
    spec: Any
    run: Any
    run_vjp: Any
    own: tuple[int, int]
    products: Any


def prepare(
    placed: Placed, functions: tuple[Any, ...], dtype: np.dtype, context_rows: int, *, is_network: bool = False
) -> Step:  # fmt: skip
    """A layer, or an embedding, with its kernels in one direction: the map's, and its gradient's perhaps."""
    operation, start = placed
    link = NumberingLink(dtype, functions)
    packed = link.pack(operation) if is_network else KERNELS[type(operation)].pack(operation, link)
    spec = np.array(packed or [0], np.int64)
    make, make_vjp = (_network, _network_vjp) if is_network else (_layer, _layer_vjp)
    run, run_vjp, table = make(functions[0], link.called(False)), None, None
    if len(functions) > 1:
        called = link.called(True)
        run_vjp = make_vjp(functions[1], called)
        products = _products(operation, functions[1], spec, called, context_rows, is_network)
        table = to_device(tiles(products)) if products else None
    return Step(operation, start, start + operation.size, to_device(spec), run, run_vjp, own_sums(operation), table)


def own_rows(operation: Any) -> int:
    """Rows of the block in which threads add up gradients of their own: all of the layer's parameters where they have any
    to add, else one, as none would mean that no gradient is wanted."""
    first, last = own_sums(operation)
    return last if last > first else 1


def _products(
    operation: Any, function: Any, spec: NDArray[np.int64], called: tuple[Called, ...], context_rows: int, is_network: bool
) -> list[OuterProduct]:
    """All sums over samples after a layer's vjp."""
    first, last = own_sums(operation)
    own = [OuterProduct(Place("dtheta", first), None, first, 1, last - first, 1)] if last > first else []
    if (first, last) == (0, operation.size):
        return own
    size = scratch_of_lane(operation)
    rows = {"context": context_rows, "dcontext": context_rows, "work": size.work, "temp": size.temp}
    if is_network:
        rows |= {"x": operation.n_in, "dx": operation.n_in, "dout": operation.n_out}
        rows["context"] = rows["dcontext"] = 0
    else:
        rows["dblock"] = operation.dim
    blocks: dict[str, Any] = {name: np.zeros((count, 1)) for name, count in rows.items()}
    blocks |= {"spec": spec, "theta": np.zeros(operation.size), "key": 0, "first": 0}
    blocks |= {"dlog_det": np.zeros(1), "dtheta": np.zeros(operation.size)}
    return own + products_of(function, blocks, called, NETWORK if is_network else LAYER)


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
