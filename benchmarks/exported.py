"""Time per row of a flow here, in onnxruntime, as C, and on NumPy alone; needs onnx, onnxruntime and a C compiler.

    python benchmarks/exported.py [--quick]

One thread each.  A MAF of 7 columns, five layers of (128, 128) hidden units in float32, and a spline flow of the same
columns, eight couplings of (128, 128) hidden units.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import npflows
from npflows.backends.reference import BACKEND as REFERENCE
from npflows.core import evaluation

SIZES = (1, 256, 65536)


def seconds(call: Callable[[], object], least: float) -> float:
    """CPU time of a call, the shortest of several rounds of calls, so that what else runs on the machine matters little."""
    call()
    start = time.process_time()
    call()
    repeats = max(1, int(0.05 * least / max(time.process_time() - start, 1e-6)))
    best, began = np.inf, time.process_time()
    while time.process_time() - began < least:
        start = time.process_time()
        for _ in range(repeats):
            call()
        best = min(best, (time.process_time() - start) / repeats)
    return best


def in_c(flow: npflows.NormalizingFlow, folder: Path) -> Callable[[np.ndarray], Callable[[], object]]:
    """The log-density of rows in C, the loop over them included."""
    flow.to_c(folder / "flow.c")
    loop = """#include <stddef.h>
double flow_log_prob(const double *x, const double *condition);
void rows(const double *x, double *result, int n, int d)
{
    int i;
    for (i = 0; i < n; i++)
        result[i] = flow_log_prob(x + (size_t)i * d, NULL);
}
"""
    (folder / "loop.c").write_text(loop)
    compiler = shutil.which("cc") or "gcc"
    subprocess.run([compiler, "-std=c99", "-O2", "-march=native", "-fPIC", "-shared", "-o", folder / "flow.so",
                    folder / "flow.c", folder / "loop.c", "-lm"], check=True)  # fmt: skip
    library = ctypes.CDLL(str(folder / "flow.so"))

    def prepared(x: np.ndarray) -> Callable[[], object]:
        result = np.empty(len(x))
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, result)]
        return lambda: library.rows(*pointers, len(x), x.shape[1])

    return prepared


def measure(name: str, flow: npflows.NormalizingFlow, sizes: tuple[int, ...], least: float) -> None:
    """Print a line for each number of rows."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        flow.to_onnx(folder / "flow.onnx")
        onnxruntime = importlib.import_module("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(folder / "flow.onnx"), options, providers=["CPUExecutionProvider"])
        c = in_c(flow, folder)
        reference = REFERENCE.compile(flow.program(), flow.dtype)
        for n in sizes:
            x = np.random.default_rng(0).normal(size=(n, flow.input_dim))
            calls = {
                "here": lambda x=x: flow.log_prob(x),
                "onnxruntime": lambda x=x: session.run(None, {"x": x}),
                "C": c(x),
                "NumPy": lambda x=x: evaluation.transport(reference, flow.state(), x, None, y=False, log_det=False,
                                                          log_prob=True),
            }  # fmt: skip
            times = {kind: 1e6 * seconds(call, least) / n for kind, call in calls.items()}
            print(f"| {name} | {n:,} | " + " | ".join(f"{t:.3g}" for t in times.values()) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    quick = parser.parse_args().quick
    npflows.set_num_threads(1)
    hidden = (16,) if quick else (128, 128)
    flows = {
        "MAF": npflows.MAF(7, 5, hidden, rng=0),
        "spline couplings": npflows.NeuralSplineFlow(7, 8, hidden, rng=0),
    }
    print("| flow | rows | here | onnxruntime | C | NumPy alone |\n| --- | --- | --- | --- | --- | --- |")
    for name, flow in flows.items():
        flow.params = flow.params + 0.05 * np.random.default_rng(1).normal(size=flow.num_params)
        measure(name, flow, SIZES[:2] if quick else SIZES, 0.05 if quick else 1.0)


if __name__ == "__main__":
    main()
