"""zuko's conditional spline flow on one column, run by photometric_redshifts.py with a Python that has torch and zuko.

    python zuko_redshifts.py IN.npz OUT.npz '{"layers": 3, "hidden": [128, 128], ...}'

IN.npz holds x (n, 1) and condition (n, c) to train on, new_x and new_condition to judge by, all float32 and standardized.
OUT.npz gets log_prob (m,) of the new rows in the same units, their value u (m,) of the fitted distribution function, the
seconds and processor seconds of training alone, and the number of parameters.  It knows nothing of npflows.
"""

from __future__ import annotations

import json
import math
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # asv imports every file here, where they may be missing
    import torch


def fit(flow: torch.nn.Module, x: torch.Tensor, condition: torch.Tensor, options: dict) -> tuple[float, float]:
    """Seconds and processor seconds of Adam with a cosine schedule; rows are gathered by index, without a loader."""
    import torch

    n, batch_size = len(x), options["batch_size"]
    steps = options["max_epochs"] * -(-n // batch_size)
    optimizer = torch.optim.Adam(flow.parameters(), lr=options["learning_rate"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    started, processor_started = time.perf_counter(), time.process_time()
    for _ in range(options["max_epochs"]):
        for batch in torch.tensor_split(torch.randperm(n), -(-n // batch_size)):
            loss = -flow(condition[batch]).log_prob(x[batch]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return time.perf_counter() - started, time.process_time() - processor_started


def main() -> None:
    import torch
    import zuko

    source, target, text = sys.argv[1:]
    options = json.loads(text)
    torch.set_num_threads(options["threads"])
    torch.manual_seed(options["seed"])
    with np.load(source) as arrays:
        x, condition, new_x, new_condition = (
            torch.from_numpy(arrays[name]) for name in ("x", "condition", "new_x", "new_condition")
        )

    def make() -> torch.nn.Module:
        return zuko.flows.NSF(1, condition.shape[1], transforms=options["layers"], hidden_features=options["hidden"],
                              bins=options["bins"])  # fmt: skip

    fit(make(), x[:512], condition[:512], {**options, "max_epochs": 1})  # what only the first steps cost is left out
    flow = make()
    seconds, processor_seconds = fit(flow, x, condition, options)
    with torch.no_grad():
        distribution = flow(new_condition)
        log_prob = distribution.log_prob(new_x).double().numpy()
        z = distribution.transform(new_x)[:, 0].double().numpy()
    u = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in z])
    n_parameters = sum(p.numel() for p in flow.parameters())
    np.savez(target, log_prob=log_prob, u=u, seconds=seconds, processor_seconds=processor_seconds,
             n_parameters=n_parameters)  # fmt: skip
    print(f"torch {torch.__version__}, zuko {zuko.__version__}")


if __name__ == "__main__":
    main()
