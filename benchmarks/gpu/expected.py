"""What a GPU may be expected to take, computed: nothing runs on one.

    python benchmarks/gpu/expected.py        # needs numba-cuda[cu12], and neither a GPU nor a driver

Launches, copies and the products of dense layers are counted, on arrays that are none; instructions of the loops are those
of the machine code for compute capability 9.0 (benchmarks/RESULTS.md, "On a GPU").  Wide networks are counted as they run,
product by product, with npflows' own kernels and with cuBLAS; below, at which width and how many samples that is faster.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "backends" / "cuda"))

from machine_code import BACKEND, device, program
from no_gpu import NoGpu

from npflows import MAF, NeuralSplineFlow, RealNVP
from npflows.backends.cpu.kernels.matmul import PRODUCT
from npflows.backends.cuda import (
    adam,
    cublas,
    link,
    matrices,
    steps,
    sums,
    tensor_core_sums,
    tensor_cores,
    tensor_matrices,
    wide,
)
from npflows.backends.cuda.device_array import DeviceArray, strides_of
from npflows.backends.cuda.link import number_of
from npflows.backends.cuda.products import DEPTH, FEW, FEW_LANES, FEW_ROWS, HIGH, LANES
from npflows.backends.cuda.products import ROWS as ROWS_OF_TILE
from npflows.backends.cuda.texts import Texts
from npflows.core import evaluation

CLOCK, PROCESSORS, SCHEDULERS = 1.755e9, 132, 4
"""H100: clock in Hz, multiprocessors, and instructions of a warp that one issues in a clock."""
RESIDENT = 8
"""Warps of a layer's kernel that a multiprocessor holds: two blocks of four, with up to 255 registers a thread."""
LATENCY = 260
"""Clocks until a number comes from the second-level cache."""
HOST_LAUNCH, HOST_COPY = 10e-6, 15e-6
"""Seconds of the host for a launch from Python, and for a copy that it waits for: assumed."""
TURN, SLICE, TILE = (150, 82), (200, 170), (480, 380)
"""Instructions of a warp in a product of many and of few samples: for four columns of a tile, to bring a slice to shared
memory, and to begin and end a tile of 32 or 64 rows."""
OF_FEW_ROWS = 7
"""Instructions for each multiply-add of a product of few rows."""
OF_UNIT, OF_MAP, ALONE = 64, {"affine": 600, "additive": 300, "spline": 4100}, 2
"""Instructions of a thread beside narrow networks, forward and back, estimated from the machine code: for a unit's
activation, and for a value's map; clocks for each where a warp has a scheduler to itself."""
SUM_TURN, SUM_SLICE, SUM_TILE, SUM_ONES = 151, 315, 560, 65
"""Instructions of a warp in the kernel of weight gradients: for four samples of a tile, to bring a slice, for a tile, and
for a slice where rows alone are summed."""
SUM_RESIDENT = 20
"""Warps of it that a multiprocessor holds."""
GRID_TURN, GRID_SLICE, GRID_TILE, GRID_RESIDENT = (278, 85), (151, 113), (500, 380), (12, 16)
"""Instructions of a warp in the kernel of a whole product, with large and with small tiles: for four columns, for a slice,
and for a tile; resident warps."""
OF_UNITS, OF_VALUE, OF_ROW, OTHERS_RESIDENT = (500, 32), 1500, 100, 20
"""Instructions of a warp, estimated from the machine code: between products of a wide network, where a thread has units, at
the beginning and for each of them; around it, where a thread has a value; to fill a row.  Resident warps of these."""
READS = 4
"""How often such a warp waits for memory, besides once for each unit; with a value, three times as often."""
GRAPH_LAUNCH = 2e-6
"""Seconds from a kernel's end to the next one's start in a CUDA graph: assumed."""
TENSOR_SLICE, TENSOR_TILE, TENSOR_RESIDENT = 691, 2600, 12
"""Clocks of a warp in either kernel for tensor cores, for a slice, in which 96 instructions of theirs take 7.2 each while
it issues 677 or 681 others, and for a tile; resident warps."""
CUBLAS = 25e12
"""Multiply-adds of cuBLAS in a second: assumed, as for PyTorch."""


class Count(NamedTuple):
    """What a step does: launches, copies, rows and depth of the products of each layer's network, and the tiles of each
    layer's weight gradients, with how many of them sum rows alone; of wide networks the seconds of the products, and of all
    between and around them; the number of parameters; units and instructions of maps beside each narrow network."""

    launches: int
    copies: int
    products: list[list[tuple[int, int]]]
    tiles: list[tuple[int, int]]
    wide_products: float
    wide_rest: float
    size: int
    beside: list[tuple[int, int]]


class CountingLibrary:
    """Stands for cuBLAS, and counts multiply-adds."""

    def __init__(self, multiplied: Any) -> None:
        self._multiplied = multiplied

    def multiply(self, dtype: Any, stream: int, left: int, right: int, m: int, n: int, k: int, *rest: Any) -> None:
        self._multiplied(m * n * k / CUBLAS)


def counted(flow: Any, n: int, training: bool, by: str = "npflows") -> Count:
    """One train step, or the samples of n rows, on arrays that are none; wide networks by "npflows", "cuBLAS" or "tensor
    cores", and npflows' other kernels where these are not used."""
    numbers: dict[str, Any] = {"launches": 0, "copies": 0, "products": 0.0, "rest": 0.0, "wide": False}
    products: list[list[tuple[int, int]]] = []
    beside: list[tuple[int, int]] = []
    n_tiles: list[tuple[int, int]] = []
    found, tiles_of = sums.products_of, sums.tiles

    def launch(*_: Any, **__: Any) -> None:
        numbers["launches"] += 1

    def launch_tiles(function: Any, grid: tuple[int, int], threads: int, table: Any, *_: Any, **__: Any) -> None:
        numbers["launches"] += 1
        if function is cublas.fill_rows:
            numbers["rest"] += others_seconds(grid[0] * grid[1], OF_ROW, 1)
        else:
            small = function is matrices._made(np.float32, matrices.SHAPES[np.dtype(np.float32)][1])
            numbers["products"] += grid_seconds(table.owner[:, 7], grid[0], small)

    def launch_tensor(function: Any, grid: tuple[int, int], threads: int, table: Any, *_: Any, **__: Any) -> None:
        numbers["launches"] += 1
        if function is tensor_cores.multiply:
            slices = -(-table.owner[:, 7] // tensor_cores.DEPTH)
            numbers["products"] += tensor_seconds(float(slices.mean()), grid[0] * grid[1])
        else:
            slices = -(-n // (grid[1] * tensor_core_sums.DEPTH))
            numbers["products"] += tensor_seconds(slices, grid[0] * grid[1])

    def launch_rows(function: Any, grid: tuple[int, int], *_: Any, **__: Any) -> None:
        numbers["launches"] += 1
        units, of_values = wide.wide_kernels.UNITS, function.py_func.__name__.startswith("carry")
        work = (OF_VALUE, 3 * READS) if of_values else (OF_UNITS[0] + units * OF_UNITS[1], READS + units)
        numbers["rest"] += others_seconds(grid[0] * grid[1], *work)

    def launch_by(library: Any) -> None:
        numbers["launches"] += 1
        library(1)

    def multiplied(seconds: float) -> None:
        numbers["products"] += seconds

    def is_wide(operation: Any, function: Any = None) -> bool:
        numbers["wide"] = link.is_wide(operation, function)
        return numbers["wide"]

    class Counted(NoGpu):
        """Counts what is copied."""

        def to_device(self, array: Any, stream: int) -> DeviceArray:  # type: ignore[override]
            """An array that has the one of the host for its owner."""
            return DeviceArray(0, array.shape, strides_of(array.shape, array.dtype.itemsize), array.dtype, array)

        def __getattribute__(self, name: str) -> Any:
            numbers["copies"] += name in ("to_device", "to_host", "copy")
            return super().__getattribute__(name)

    def products_of(function: Any, blocks: Any, called: Any, arguments: Any) -> list[Any]:
        if numbers["wide"]:
            return found(function, blocks, called, arguments)
        products.append([])
        beside.append((0, 0))
        kinds = {number_of(one): one for one in called}
        theirs = {number_of(one) for one in called if one.kind == PRODUCT[1]}

        class Counting(Texts):
            def __init__(self, compile: Any, choose: Any, replaced: Any, call: Any, numpy: Any) -> None:
                def counts(number: int, given: tuple) -> None:
                    one = kinds[int(number)]
                    units = given[0].shape[0] if one.kind == "activation_vjp" else 0
                    values = given[2].shape[0] if one.kind == "transformer_vjp" else 0
                    steps = values * OF_MAP.get(one.text.__module__.rpartition(".")[2], 0)
                    beside[-1] = beside[-1][0] + units, beside[-1][1] + steps
                    if int(number) in theirs:
                        products[-1].append((int(given[5]), int(given[6])))
                    else:
                        call(number, given)

                super().__init__(compile, choose, replaced, counts, numpy)

        sums.Texts = Counting
        try:
            return found(function, blocks, called, arguments)
        finally:
            sums.Texts = Texts

    def tiles(given: Any) -> Any:
        table = tiles_of(given)
        n_tiles.append((len(table), int((table[:, 2] == sums.ONES).sum())))
        return table

    device.driver = Counted()
    steps.products_of, steps.tiles = products_of, tiles
    program.launch = program.launch_blocks = adam.launch = adam.launch_blocks = device.launch_blocks = launch
    cublas.launch_blocks = matrices.launch_blocks = launch_tiles
    wide.launch, wide.launch_blocks, cublas.launch_by, steps.is_wide = launch, launch_rows, launch_by, is_wide
    cublas.address_of, library = lambda array: 0, CountingLibrary(multiplied)
    cublas.find = lambda: library if by == "cuBLAS" else None  # type: ignore[assignment]
    os.environ["NPFLOWS_TENSOR_CORES"] = str(int(by == "tensor cores"))
    tensor_matrices.launch_blocks = launch_tensor
    made = BACKEND.compile(flow.program(with_base=training), flow.dtype)
    x = np.zeros((n, flow.input_dim))
    theta, free = flow.parameters.theta, flow.parameters.free
    optimizer, buffers = made.optimizer(theta, free, 0.0, None), made.gradient_buffers({n}, theta)[n]

    def step() -> None:
        if training:
            evaluation.accumulate(made, flow.state(), x, None, np.ones(n), buffers, log_prob=np.zeros(n))
            optimizer.step(buffers, 0.1)
        else:
            made._prepared(True, True, n)  # whose products are counted
            evaluation.transport(made, flow.state(), x, None, inverse=True, log_det=False)

    with np.errstate(all="ignore"), optimizer.staying():
        step()  # which prepares
        numbers.update(launches=0, copies=0, products=0.0, rest=0.0)
        step()
    return Count(numbers["launches"], numbers["copies"], products, n_tiles, numbers["products"], numbers["rest"],
                 theta.size, beside)  # fmt: skip


def clocks_of(warps: int, resident: int, instructions: float, waits: float) -> float:
    """Of one multiprocessor with so many warps, so many of them at a time: issuing instructions, or one warp's waiting."""
    clocks = 0.0
    while warps > 0:
        some = min(warps, resident)
        clocks += max(some * instructions / SCHEDULERS, instructions + waits)
        warps -= some
    return clocks


def layer_seconds(products: list[tuple[int, int]], n: int) -> float:
    """A kernel of a layer, by its products alone."""
    few = n <= FEW
    lanes, rows = (FEW_LANES, FEW_ROWS) if few else (LANES, ROWS_OF_TILE)
    warps = LANES // 32 * -(-n // (lanes * PROCESSORS))
    clocks = 0.0
    for m, k in products:
        tiles, slices = -(-m // rows), -(-k // DEPTH)
        if m < HIGH:
            clocks += clocks_of(warps, RESIDENT, OF_FEW_ROWS * m * k, LATENCY)
        else:
            instructions = tiles * (-(-k // 4) * TURN[few] + slices * SLICE[few] + TILE[few])
            clocks += clocks_of(warps, RESIDENT, instructions, tiles * slices * LATENCY)
    return clocks / CLOCK


def beside_seconds(units: int, maps: int, n: int) -> float:
    """A layer's activations and maps, forward and back; where there are few samples a block shares the activations."""
    few = n <= FEW
    warps = -(-n // ((FEW_LANES if few else LANES) * PROCESSORS)) * (1 if few else LANES // 32)
    instructions = units * OF_UNIT / (LANES // FEW_LANES if few else 1) + maps
    return clocks_of(warps, RESIDENT, instructions, (ALONE - 1) * instructions) / CLOCK


def grid_seconds(depths: Any, times: int, small: bool) -> float:
    """The kernel of a whole product, by the depths of its tiles and how many of each there are."""
    warps, clocks = matrices.THREADS // 32 * -(-len(depths) * times // PROCESSORS), 0.0
    for k in sorted(set(depths.tolist())):
        slices = -(-k // DEPTH)
        instructions = -(-k // 4) * GRID_TURN[small] + slices * GRID_SLICE[small] + GRID_TILE[small]
        share = float((depths == k).mean())
        clocks += share * clocks_of(warps, GRID_RESIDENT[small], instructions, 2 * LATENCY)
    return clocks / CLOCK


def tensor_seconds(slices: float, blocks: int) -> float:
    """A kernel for tensor cores, whose blocks have so many slices each on average."""
    warps = tensor_cores.THREADS // 32 * -(-blocks // PROCESSORS)
    return clocks_of(warps, TENSOR_RESIDENT, slices * TENSOR_SLICE + TENSOR_TILE, 2 * LATENCY) / CLOCK


def others_seconds(blocks: int, instructions: float, reads: int) -> float:
    """A kernel whose threads read so often, one time after the other."""
    warps = LANES // 32 * -(-blocks // PROCESSORS)
    return clocks_of(warps, OTHERS_RESIDENT, instructions, reads * LATENCY) / CLOCK


def sums_seconds(tiles: int, of_ones: int, n: int, size: int) -> float:
    """The kernel of a layer's weight gradients."""
    pieces = sums.pieces_of(n, size)
    slices = -(-n // (pieces * sums.DEPTH))
    clocks = 0.0
    for count, turns in ((tiles - of_ones, sums.DEPTH // 4 * SUM_TURN), (of_ones, SUM_ONES)):
        warps = sums.THREADS // 32 * -(-count * pieces // PROCESSORS)
        clocks += clocks_of(warps, SUM_RESIDENT, slices * (turns + SUM_SLICE) + SUM_TILE, slices * LATENCY)
    return clocks / CLOCK


ROWS = {
    "train step MAF D=8 64x64, 5 layers, B=4096": (lambda: MAF(8, 5, (64, 64), rng=0), 4096, True),
    "train step coupling spline D=7 128x128, 8 layers, B=4096": (
        lambda: NeuralSplineFlow(7, 8, (128, 128), 8, rng=0), 4096, True),
    "sampling 100,000 rows, autoregressive spline D=7 128x128, 5 layers": (
        lambda: NeuralSplineFlow(7, 5, (128, 128), 8, conditioner="autoregressive", rng=0), 100_000, False),
    "train step RealNVP D=64 512x512, 8 layers, B=4096": (
        lambda: RealNVP(64, 8, (512, 512), mask_type="half", rng=0), 4096, True),
}  # fmt: skip


def seconds_of(count: Count, n: int, training: bool) -> tuple[float, float, float, float, float]:
    """The host's, and the GPU's for products, for weight gradients, for the rest of wide networks, and for activations and
    maps of narrow ones."""
    host = count.launches * HOST_LAUNCH + count.copies * HOST_COPY
    products = (1 + training) * sum(layer_seconds(one, n) for one in count.products) + count.wide_products
    gradients = training * sum(sums_seconds(*one, n, count.size) for one in count.tiles)
    beside = sum(beside_seconds(*one, n) for one in count.beside) * (1 if training else 0.5)
    return host, products, gradients, count.wide_rest, beside


def compare_routes() -> None:
    """Milliseconds of the GPU for a train step with networks run lane by lane and product by product, by width."""
    print("\n| hidden units | samples | lane by lane, ms | product by product, ms | in a graph, ms |")
    print("| --- | --- | --- | --- | --- |")
    least = link.WIDE
    for width in (128, 256, 512):
        for n in (256, 4096, 65536):
            times = []
            for link.WIDE in (1 << 30, 1):
                count = counted(RealNVP(16, 4, (width, width), mask_type="half", rng=0), n, True)
                on_gpu = 1e3 * sum(seconds_of(count, n, True)[1:])
                times.append((on_gpu, on_gpu + 1e3 * count.launches * GRAPH_LAUNCH))
            (one, first), (other, second) = times
            print(f"| {width}x{width} | {n:,} | {one:.2g} | {other:.2g} | {first:.2g}, {second:.2g} |", flush=True)
    link.WIDE = least


def main() -> None:
    print("| work, float32 | launches | copies | host, ms | products, ms | weight gradients, ms | rest of wide layers, ms "
          "| activations and maps, ms | in a graph, ms | without these, ms |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, (make, n, training) in ROWS.items():
        for by in ("npflows", "cuBLAS", "tensor cores"):
            count = counted(make(), n, training, by)
            if by != "npflows" and not count.wide_products:
                continue
            seconds = seconds_of(count, n, training)
            in_graph = sum(seconds[1:]) + count.launches * GRAPH_LAUNCH
            columns = (*seconds, *([in_graph, in_graph - seconds[-1]] * training))
            times = " | ".join(f"{1e3 * one:.2g}" for one in columns) + " | - | -" * (not training)
            title = name if by == "npflows" else f"{name}, by {by}"
            print(f"| {title} | {count.launches} | {count.copies} | {times} |", flush=True)
    compare_routes()


if __name__ == "__main__":
    main()
