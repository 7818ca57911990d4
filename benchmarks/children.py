"""What is measured in processes of their own, run as `python -m benchmarks.children FUNCTION ARGUMENT ...`.

Nothing heavy is imported up here, as imports are part of what is timed.
"""

from __future__ import annotations

import json
import re
import sys
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


def first_train_step(model: str) -> None:
    """Import, make a flow (D=8, 64x64), fit one batch of 256 rows: one train step, and the loss before it."""
    import numpy as np

    import npflows

    x = np.random.default_rng(0).standard_normal((256, 8))
    flow = getattr(npflows, model)(8, hidden_dims=(64, 64), rng=0)
    flow.fit(x, validation_fraction=0, batch_size=256, max_epochs=1, progress=False)
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


def _memory(name: str) -> int:
    """A figure of /proc/self/status in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
