"""Measurements in processes of their own, run as `python -m benchmarks.children FUNCTION ARGUMENT ...`.

Nothing heavy is imported up here, as imports are part of what is timed.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from pathlib import Path


def import_beyond_numba() -> None:
    """Seconds that `import npflows` takes after `import numba`."""
    import numba  # noqa: F401

    started = time.perf_counter()
    import npflows  # noqa: F401

    print(time.perf_counter() - started)


def first_log_prob(path: str) -> None:
    """Import, load a flow, score one row."""
    import numpy as np

    import npflows

    flow = npflows.load(path)
    print(flow.log_prob(np.zeros(flow.input_dim)))


def first_embedded_call(path: str) -> None:
    """Seconds in which a flow that was loaded is embedded and called once, after the imports."""
    import numpy as np

    import npflows

    flow = npflows.load(path)
    started = time.perf_counter()
    density = npflows.embed(flow)
    density.log_prob(np.zeros(flow.input_dim))
    print(time.perf_counter() - started)


def first_train_step(model: str) -> None:
    """Import, make a flow (D=8, 64x64; a Glow for images of 32x32x1, 3 scales x 4 blocks, width 64), fit one batch of 256
    rows or 32 images: one train step, and the loss before it."""
    import numpy as np

    import npflows

    if model == "Glow":
        flow = npflows.Glow((32, 32, 1), 3, 4, (64, 64), rng=0)
    else:
        flow = getattr(npflows, model)(8, hidden_dims=(64, 64), rng=0)
    n = 32 if model == "Glow" else 256
    x = np.random.default_rng(0).standard_normal((n, *flow.input_shape))
    flow.fit(x, validation_fraction=0, batch_size=n, max_epochs=1, progress=False)
    print(flow.history["train_loss"][0])


def first_conditional_step() -> None:
    """Import, make a spline flow of one column with 12 conditions (3 layers, 128x128), fit one batch of 256 rows."""
    import numpy as np

    import npflows

    rows = np.random.default_rng(0).standard_normal((256, 13))
    flow = npflows.NeuralSplineFlow(1, 3, (128, 128), tail_bound=5.0, condition_dim=12, rng=0)
    flow.fit(rows[:, :1], condition=rows[:, 1:], validation_fraction=0, batch_size=256, max_epochs=1, progress=False)
    print(flow.history["train_loss"][0])


def train_step_memory(batch_size: str) -> None:
    """Bytes that a train step of a MAF, D=64, 512x512, needs: gradient buffers, the batch itself (its rows gathered, and
    in float64), and by how much more it raises the peak of resident memory (scratch).  Linux only."""
    from benchmarks.common import TrainStep, make_flow

    n = int(batch_size)
    TrainStep(make_flow("MAF", "D=8, 64x64"), 1024)()  # kernels are loaded, threads started
    step = TrainStep(make_flow("MAF", "D=64, 512x512"), n, n_batches=1)
    trainer = step.trainer
    buffers = trainer.buffers[n]
    for array in (trainer.optimizer.m, trainer.optimizer.v, trainer.optimizer.gradient, buffers):
        array[:] = 0  # the system gives memory when it is first written to
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    before = _memory("VmRSS")
    step()
    batch = n * trainer.flow.input_dim * (trainer.theta.itemsize + 8) + 2 * 8 * n
    scratch = _memory("VmHWM") - before - batch
    print(json.dumps({"buffers": buffers.nbytes, "batch": batch, "scratch": scratch}))


def glow_memory(size: str, batch_size: str) -> None:
    """Bytes of a train step of a Glow, the flow itself and its optimizer included, above what the process holds after its
    imports; and how many of them are the flow, the optimizer and the gradient buffers.  Linux only."""
    import npflows.training.likelihood  # noqa: F401
    from benchmarks.common import TrainStep, make_glow

    before = _memory("VmRSS")
    step = TrainStep(make_glow(size), int(batch_size), n_batches=2)
    step()
    step()
    optimizer, trainer = step.trainer.optimizer, step.trainer
    arrays = (trainer.theta, trainer.average, trainer.best, optimizer.m, optimizer.v, optimizer.gradient)
    buffers = next(iter(trainer.buffers.values()))
    parameters = sum(a.nbytes for a in arrays) + buffers.nbytes
    print(json.dumps({"peak": _memory("VmHWM") - before, "parameters": parameters}))


def write_table(path: str, n: str) -> None:
    """A float32 table (n, 8), written piece by piece."""
    import numpy as np

    table = np.lib.format.open_memmap(path, "w+", np.float32, (int(n), 8))
    rng = np.random.default_rng(0)
    for start in range(0, len(table), 1 << 16):
        part = table[start : start + (1 << 16)]
        part[:] = rng.standard_normal(part.shape, np.float32)
    table.flush()
    print(table.nbytes)


def mapped_log_prob_memory(path: str) -> None:
    """Bytes of anonymous memory that log_prob of a memory-mapped table takes at its peak, beyond its result: a MAF, 64x64,
    that has scored a few rows before.  Pages of the file are not counted.  Linux only."""
    import numpy as np

    from benchmarks.common import make_flow

    flow, x = make_flow("MAF", "D=8, 64x64"), np.load(path, mmap_mode="r")
    flow.log_prob(x[:16])
    before, peak, done = _memory("RssAnon"), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(1e-3):
            peak = max(peak, _memory("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    log_prob = flow.log_prob(x)
    done.set()
    watcher.join()
    peak = max(peak, _memory("RssAnon"))
    print(json.dumps({"anonymous": peak - before - log_prob.nbytes, "result": log_prob.nbytes}))


def train_for(seconds: str) -> None:
    """Train steps of a MAF, D=8, 64x64, B=256, on one thread, from the moment a line comes in: how many there were, and the
    seconds and CPU seconds that they took."""
    import npflows
    from benchmarks.common import TrainStep, make_flow

    npflows.set_num_threads(1)
    step, n = TrainStep(make_flow("MAF", "D=8, 64x64"), 256), 0
    step()
    print("ready", flush=True)
    sys.stdin.readline()
    started, cpu_started = time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - started) < float(seconds):
        step()
        n += 1
    print(json.dumps([n, elapsed, time.process_time() - cpu_started]))


def be_busy(cpu: str) -> None:
    """Hold a CPU (-1: any) until the input ends."""
    if int(cpu) >= 0:
        os.sched_setaffinity(0, {int(cpu)})
    ended = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    print("ready", flush=True)
    while not ended.is_set():
        pass


def _memory(name: str) -> int:
    """A figure of /proc/self/status in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
