"""Layers with wide networks: each product of the network is the work of the whole GPU.

The kernel of a layer has a block of threads for some lanes, which runs through all rows of each product; while there are
fewer such blocks than the GPU has multiprocessors, most of it waits.  So a wide network is driven from here: its text is
run once on the host, on one lane and without its arithmetic, which tells the products, in their order, and where units are
activated between them (`trace`).  For each set of products that do not depend on each other there is a launch over rows
and lanes (matrices.py); for the rest of a hidden layer one in which a thread has a few units of a lane (wide_kernels.py).

The layer's own text, which surrounds the network, runs for each value by itself (values.py): before the network without
the map, and after it with the map; a gradient, before it the map's alone, and after it what the network leaves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.backends.cpu.kernels import mlp
from npflows.backends.cpu.kernels.matmul import PRODUCT
from npflows.backends.cuda import cublas, tensor_matrices, wide_kernels
from npflows.backends.cuda.device import launch, launch_blocks, to_device
from npflows.backends.cuda.link import Called, number_of
from npflows.backends.cuda.matrices import Matrices, Product, Tiles
from npflows.backends.cuda.memory import Memory
from npflows.backends.cuda.products import LANES
from npflows.backends.cuda.texts import Texts, text_of
from npflows.backends.cuda.values import Values


def chosen(dtype: np.dtype) -> Matrices:
    """How wide networks multiply: on tensor cores where these are as exact (tensor_matrices.py), else by cuBLAS where it is
    found, unless ``NPFLOWS_CUBLAS=0`` is in the environment, else by npflows' own kernels."""
    library = None if os.environ.get("NPFLOWS_CUBLAS") == "0" else cublas.find()
    plain: Matrices = Tiles(dtype) if library is None else cublas.Cublas(library, dtype)
    return tensor_matrices.TensorCores(plain) if tensor_matrices.are_used(dtype) else plain


class Multiply(NamedTuple):
    """Products that do not depend on each other, of two blocks by their names."""

    b: str
    c: str
    products: tuple[Product, ...]


class Units(NamedTuple):
    """What happens to a hidden layer between products, or to its gradient."""

    layer: int
    rows: int


class Trace(NamedTuple):
    """What a network does.

    Attributes
    ----------
    spec : array of int
        The network's.
    work_row, temp_row : int
        Where its scratch begins in the kernel's.
    dx_row : int
        Where in temp the gradient of what it sees is left.
    parts : list of Multiply and Units
    """

    spec: NDArray[np.int64]
    work_row: int
    temp_row: int
    dx_row: int
    parts: list[Multiply | Units]


def trace(function: Callable, blocks: Mapping[str, Any], called: Sequence[Called], arguments: Sequence[str]) -> Trace:
    """Run the text of a layer, or of a network, on one lane without its arithmetic, and note what its network does.

    Parameters
    ----------
    function : callable
        The kernel.
    blocks : dict
        Those of the kernel by name, of one lane: blocks (rows, 1) and vectors, and parts of them that the text is given.
    called : sequence of Called
        What it calls by their numbers.
    arguments : sequence of str
        The names of the text's, in order.
    """
    parts: list[Multiply | Units] = []
    networks: list[tuple[Any, ...]] = []
    known = {number_of(one): one for one in called}

    def place(array: NDArray) -> tuple[str, int]:
        for name, block in blocks.items():
            if isinstance(block, np.ndarray) and np.shares_memory(array, block):
                return name, (array.ctypes.data - block.ctypes.data) // block.itemsize
        raise ValueError("a product of what is no argument of the kernel")

    def multiply(a: Any, a_row: Any, a_column: Any, b: Any, c: Any, m: Any, k: Any, start: Any, bias: Any) -> None:
        if m > 0:
            of_c, c_row = place(c)
            of_b, b_row = place(b) if k > 0 else (of_c, c_row)
            of_bias = place(bias)[1] if bias.size > 0 else 0
            of_a = place(a)[1] if a.size > 0 else 0
            numbers = (of_a, a_row, a_column, of_bias, b_row, c_row, m, k, start)
            add_to(parts, of_b, of_c, Product(*map(int, numbers)))

    def units(spec: Any, layer: Any) -> None:
        parts.append(Units(int(layer), int(spec[text_of(mlp.record)(spec, layer) + mlp.ROWS])))

    def call(number: int, given: tuple) -> None:
        one = known[int(number)]
        if one.kind.startswith("network"):
            networks.append((given[0], *(given[-2:] if one.kind == "network" else given[-4:-2]), given[-5]))
            texts.again(one.text)(*given)
        elif one.kind == PRODUCT[1]:
            multiply(*given)

    replaced = {
        mlp.activate: lambda spec, layer, *_: units(spec, layer),
        mlp.activation_vjp: lambda spec, key, first, layer, *_: units(spec, layer),
    }
    replaced |= dict.fromkeys((mlp.apply_gate, mlp.add_skip, mlp.apply_dropout, mlp.add_lane_sums), _nothing)
    texts = Texts(lambda text: text, lambda single, double: double, replaced, call, {})
    with np.errstate(all="ignore"):
        texts.again(text_of(function))(*(blocks[name] for name in arguments))
    if not networks:
        return Trace(np.array(blocks["spec"]), 0, 0, 0, parts)
    spec, work, temp, dx = networks[0]
    dx_row = place(dx)[1] if "dtheta" in arguments else 0
    return Trace(np.array(spec), place(work)[1], place(temp)[1], dx_row, parts)


def _nothing(*given: Any) -> None:
    """Stands for arithmetic."""


def add_to(parts: list[Multiply | Units], b: str, c: str, product: Product) -> None:
    """Add a product to the last of the parts, if it neither reads nor writes what that writes, else as a new one."""
    last = parts[-1] if parts else None
    if isinstance(last, Multiply) and (last.b, last.c) == (b, c):
        written = set().union(*(range(one.c_row, one.c_row + one.m) for one in last.products))
        rows = set(range(product.c_row, product.c_row + product.m))
        rows |= set(range(product.b_row, product.b_row + product.k)) if b == c else set()
        if not rows & written:
            parts[-1] = Multiply(b, c, (*last.products, product))
            return
    parts.append(Multiply(b, c, (product,)))


class Around(NamedTuple):
    """A launch of a layer's text for each of some values, on the GPU."""

    kernel: Any
    specs: Any
    table: Any
    n_values: int

    @classmethod
    def of(cls, kernel: Any, values: Values) -> Around:
        """With the values' specs on the GPU."""
        return cls(kernel, to_device(values.specs), to_device(values.table), len(values.table))


class WideRun:
    """What is launched in place of a kernel, with the arguments that the kernel has.

    Parameters
    ----------
    names : sequence of str
        The names of the kernel's arguments.
    around : sequence of Around
        Before and after the network, where it is a layer's.
    rows, start : int
        Rows of scratch memory of a value, and where in the layer's parameters those of the maps begin.
    traced : Trace
    units : kernel
        Of `wide_kernels.make_units`.
    backward : bool
        Whether it is a gradient.
    matrices : Matrices
    memory : Memory
    """

    def __init__(
        self,
        names: Sequence[str],
        around: Sequence[Around],
        rows: int,
        start: int,
        traced: Trace,
        units: Any,
        backward: bool,
        matrices: Matrices,
        memory: Memory,
    ) -> None:
        self._names, self._around, self._rows, self._start = names, around, rows, start
        self._units, self._backward = units, backward
        self._matrices, self._memory = matrices, memory
        self._spec, self._work_row, self._temp_row = to_device(traced.spec), traced.work_row, traced.temp_row
        self._parts: list[tuple[Multiply | Units, Any]] = [
            (part, matrices.prepare(part.products) if isinstance(part, Multiply) else None) for part in traced.parts
        ]

    def launch(self, n: int, *arguments: Any) -> None:
        """Launch all of it for n samples."""
        given = dict(zip(self._names, arguments, strict=True))
        if self._around:
            self._launch_values(self._around[0], given, given.get("own_rows"))
        for part, prepared in self._parts:
            if isinstance(part, Multiply):
                self._matrices.multiply(prepared, given["theta"], given["start"], given[part.b], given[part.c])
            else:
                self._finish(part, given)
        if self._around:
            log_dets = self._launch_values(self._around[1], given, 0)  # what the map's parameters have stays
            if not self._backward:
                launch(wide_kernels.add_values, n, log_dets, given["log_det"])

    def _launch_values(self, one: Around, given: Mapping[str, Any], own_rows: int | None) -> Any:
        """The launch of a layer's text for each value; returns their log-determinants on the way forward."""
        lanes = given["work"].shape[1]
        start, others = given["start"] + self._start, (given[name] for name in ("end", "context", "key", "first"))
        ahead = [one.specs, one.table, given["theta"], start, *others]
        scratch = given["work"], given["temp"], self._rows
        if self._backward:
            launch_blocks(one.kernel, (lanes // LANES, one.n_values), LANES, *ahead, given["dblock"], given["dlog_det"],
                          *scratch, given["own"], own_rows, given["dcontext"])  # fmt: skip
            return None
        log_dets = self._memory.block("log_det of values", one.n_values, lanes, np.float64)
        launch_blocks(one.kernel, (lanes // LANES, one.n_values), LANES, *ahead, given["block"], log_dets, *scratch)
        return log_dets

    def _finish(self, part: Units, given: Mapping[str, Any]) -> None:
        """The launch of the units of a hidden layer."""
        scratch = [given["work"], self._work_row]
        if self._backward:
            scratch += [given["temp"], self._temp_row]
        grid = given["work"].shape[1] // LANES, -(-part.rows // wide_kernels.UNITS)
        launch_blocks(self._units, grid, LANES, self._spec, given["key"], given["first"], part.layer, part.rows, *scratch)
