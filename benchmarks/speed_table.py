"""The speeds that npflows promises, measured on this machine.

    python benchmarks/speed_table.py [--quick]

prints two Markdown tables: times with the aim of each, and train steps beside the least time that their arithmetic takes,
at the rate of npflows' own products and at that of a large product by NumPy.
Two threads, float32.  What runs in this process is timed in turn, round by round: medians, and quartiles as the spread.
The spline map's kernels overwrite their parameters: copying these is timed by itself and subtracted (spline_map.py).
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import npflows
from benchmarks import loops, products, spline_map
from benchmarks.common import Repeat, TrainStep, in_fresh_process, interleaved, machine, make_data, make_flow, repeated
from npflows.backends.cpu.compiler.calls import address
from npflows.backends.cpu.kernels.matmul import PRODUCT

THREADS = 2


class Step(NamedTuple):
    """A train step."""

    model: str
    size: str
    batch: int
    aim: str = ""

    def __str__(self) -> str:
        return f"train step {self.model} {self.size}, {LAYERS[self.model]}, B={self.batch}"


LAYERS = {
    "MAF": "5 layers",
    "RealNVP": "8 layers, mask half",
    "coupling spline": "8 layers, 8 bins",
    "autoregressive spline": "5 layers, 8 bins",
}


STEPS = [
    Step("MAF", "D=8, 64x64", 256, "0.5 ms"),
    Step("MAF", "D=8, 64x64", 4096, "3.3 ms"),
    Step("MAF", "D=64, 512x512", 256, "17 ms"),
    Step("MAF", "D=64, 512x512", 4096),
    Step("RealNVP", "D=8, 64x64", 256, "0.9 ms"),
    Step("RealNVP", "D=8, 64x64", 4096),
    Step("MAF", "D=8, 128x128", 256),
    Step("MAF", "D=8, 128x128", 4096),
    Step("RealNVP", "D=8, 128x128", 256),
    Step("RealNVP", "D=8, 128x128", 4096),
    Step("RealNVP", "D=64, 512x512", 256),
    Step("RealNVP", "D=64, 512x512", 4096),
    Step("autoregressive spline", "D=7, 128x128", 512, "6 ms"),
    Step("coupling spline", "D=7, 128x128", 512, "5 ms"),
]
ONE_ROW, LOG_PROB, SAMPLE, PRODUCTS, SGEMM = "one row", "log_prob", "sample", "products", "sgemm"
SPLINES, N_DRAWN = ("autoregressive spline", "coupling spline"), 100_000
MAPS = {spline_map.FORWARD: "25 ns", spline_map.INVERSE: "30 ns", spline_map.VJP: ""}


class Row(NamedTuple):
    """A row of the table: what each round gave."""

    work: str
    aim: str
    values: np.ndarray
    unit: str = "s"

    def cells(self) -> list[str]:
        low, median, high = np.percentile(self.values, [25, 50, 75])
        spread = f"{in_unit(low, self.unit)} to {in_unit(high, self.unit)}" if len(self.values) > 1 else ""
        return [self.work, self.aim, in_unit(median, self.unit), spread]


def in_unit(value: float, unit: str) -> str:
    """A number for people: seconds get a prefix."""
    if unit == "s":
        factor, unit = next(((f, u) for f, u in ((1, "s"), (1e3, "ms")) if value * f >= 1), (1e6, "us"))
        value *= factor
    digits = max(0, 2 - int(np.floor(np.log10(max(abs(value), 1e-3)))))
    return f"{value:.{digits}f} {unit}"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


M, K, LANES, AT_ONCE = 512, 512, 128, 64


def products_on_all_threads() -> Repeat:
    """Large products, float32, 64 of them shared out among as many threads as npflows uses."""
    number = address(*PRODUCT, np.dtype("float32"))
    operands = [products.operands("product", M, K, LANES, "float32") for _ in range(npflows.get_num_threads())]
    pool = ThreadPoolExecutor(len(operands))

    def run(repeats: int) -> None:
        pieces = itertools.count()

        def work(mine: tuple) -> None:
            while next(pieces) < repeats * AT_ONCE:
                loops.own_product(number, *mine, 1)

        list(pool.map(work, operands))

    return run


SIDE = 2048


def sgemm() -> Repeat:
    """NumPy's product of two large matrices, float32, with the threads that its BLAS has."""
    a, b = (np.random.default_rng(i).standard_normal((SIDE, SIDE), dtype=np.float32) for i in range(2))
    out = np.empty_like(a)
    return repeated(lambda: np.matmul(a, b, out=out))


def free_weights(flow: npflows.NormalizingFlow) -> int:
    """Weights of the networks, without what the masks forbid."""
    return sum(int(p.free_mask().sum()) for p in flow.parameters.entries if "weight" in p.name)


def sampling_and_log_prob(model: str) -> dict[tuple[str, str], Repeat]:
    """Drawing samples from a spline flow, and scoring as many."""
    flow, rng = make_flow(model, "D=7, 128x128"), np.random.default_rng(0)
    drawn = flow.sample(N_DRAWN, rng=rng)
    return {
        (SAMPLE, model): repeated(lambda: flow.sample(N_DRAWN, rng=rng)),
        (LOG_PROB, model): repeated(lambda: flow.log_prob(drawn)),
    }


def in_this_process(rounds: int, at_least: float) -> tuple[list[Row], str, list[list[str]]]:
    """Rows of the first table, what its floors are, and the second table."""
    flows = {step: make_flow(step.model, step.size) for step in STEPS}
    small, large = make_flow("MAF", "D=8, 64x64"), make_flow("MAF", "D=64, 512x512")
    row, rng = make_data(1, 8)[0], np.random.default_rng(0)
    drawn = large.sample(4096, rng=rng)
    work = {step: repeated(TrainStep(flow, step.batch)) for step, flow in flows.items()}
    work[ONE_ROW] = repeated(lambda: small.log_prob(row))
    work[LOG_PROB] = repeated(lambda: large.log_prob(drawn))
    work[SAMPLE] = repeated(lambda: large.sample(4096, rng=rng))
    work[PRODUCTS], work[SGEMM] = products_on_all_threads(), sgemm()
    for model in SPLINES:
        work.update(sampling_and_log_prob(model))
    work.update(spline_map.Own(LANES, spline_map.BINS, "float32").work())
    seconds = interleaved(work, rounds, at_least)
    rows = [Row(str(step), step.aim, seconds[step]) for step in STEPS]
    rows += [
        Row("MAF log_prob of one row, D=8, 64x64, 5 layers, public API", "18 us", seconds[ONE_ROW]),
        Row("MAF sampling 4096 rows, D=64, 512x512, over its own log_prob", "1.5", seconds[SAMPLE] / seconds[LOG_PROB],
            "times"),
        Row("the sampling itself", "", seconds[SAMPLE]),
    ]  # fmt: skip
    for model in SPLINES:
        what = f"{model} sampling {N_DRAWN:,} rows, D=7, 128x128, {LAYERS[model]}, over its own log_prob"
        rows += [Row(what, "1.5", seconds[SAMPLE, model] / seconds[LOG_PROB, model], "times"),
                 Row("the sampling itself", "", seconds[SAMPLE, model])]  # fmt: skip
    maps = spline_map.nanoseconds(seconds, LANES)
    rows += [
        Row(f"spline map from raw parameters, {name}, {spline_map.BINS} bins, per value, one thread", aim, maps[name], "ns")
        for name, aim in MAPS.items()
    ]
    rate = 2 * M * K * LANES * AT_ONCE / np.median(seconds[PRODUCTS])
    numpy_rate = 2 * SIDE**3 / np.median(seconds[SGEMM])
    floors = []
    for step in STEPS:
        n_weights = free_weights(flows[step])
        work_done, reached = 6 * n_weights * step.batch, float(np.median(seconds[step]))
        floors.append([str(step), f"{n_weights:,}", in_unit(1e-9 * work_done, "GFLOP"), in_unit(work_done / rate, "s"),
                       in_unit(work_done / numpy_rate, "s"), in_unit(reached, "s"), f"{reached * rate / work_done:.2f}",
                       f"{reached * numpy_rate / work_done:.2f}"])  # fmt: skip
    said = (
        f"Floors: 6 x weights x B operations at the rate of npflows' own {M}x{K}x{LANES} products on all threads "
        f"({rate * 1e-9:.0f} GFLOP/s) and at that of NumPy's {SIDE}x{SIDE}x{SIDE} matmul, with the threads that its BLAS "
        f"has ({numpy_rate * 1e-9:.0f} GFLOP/s), both measured in the same rounds."
    )
    return rows, said, floors


def in_own_processes(rounds: int, empty_rounds: int) -> list[Row]:
    rows = []
    for batch in (1024, 65536):
        found = json.loads(in_fresh_process("train_step_memory", batch)[1])
        megabytes = {name: f"{value / 1e6:.1f} MB" for name, value in found.items()}
        work = (f"memory of a train step, MAF D=64, 512x512, B={batch}, beyond the batch itself ({megabytes['batch']}) and "
                f"the gradient buffers ({megabytes['buffers']})")  # fmt: skip
        rows.append(Row(work, "independent of B", np.array([found["scratch"] / 1e6]), "MB"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "flow.npz")
        make_flow("MAF", "D=8, 64x64").save(file)
        warm = [in_fresh_process("first_log_prob", file)[0] for _ in range(1 + rounds)][1:]
    rows.append(Row("fresh process, warm cache: import, load, first log_prob", "0.7 s", np.array(warm)))
    empty = []
    for _ in range(empty_rounds):
        with tempfile.TemporaryDirectory() as cache:
            empty.append(in_fresh_process("first_train_step", "MAF", cache=cache)[0])
    rows.append(Row("empty cache: import to the end of the first MAF train step, through fit", "12 s", np.array(empty)))
    imports = [float(in_fresh_process("import_beyond_numba")[1]) for _ in range(rounds)]
    return [*rows, Row("import npflows after import numba", "0.15 s", np.array(imports))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, for CI")
    quick = parser.parse_args().quick
    npflows.set_num_threads(THREADS)
    rows, said, floors = in_this_process(*(2, 1e-3) if quick else (25, 0.05))
    rows += in_own_processes(*(1, 1) if quick else (15, 3))
    print(machine(), end="\n\n")
    print(table(["work", "aim", "median", "quartiles"], [row.cells() for row in rows]), end="\n\n")
    print(said, end="\n\n")
    print(table(["train step", "weights", "work", "floor", "floor by sgemm", "reached", "reached / floor",
                 "reached / floor by sgemm"], floors))  # fmt: skip


if __name__ == "__main__":
    main()
