"""Writes tests/golden: a tiny flow of each model as this version saves it, and what it computes.

Every later version must read these files and compute the same.  Add a flow here when there is a new model, or a new file
when the format changes, and run `python tests/make_golden.py NAME`; never write an old file again.
"""

import json
import sys
from pathlib import Path

import numpy as np

import npflows

FOLDER = Path(__file__).parent / "golden"
X = np.array([[1.0, -2.0, 30.0], [1.5, -2.2, 28.0], [0.0, 1.0, 35.0], [3.0, 0.0, 15.0]])
Z = np.array([[0.0, 0.0, 0.0], [1.0, -1.0, 0.5], [-2.0, 0.3, 1.5]])


def layers():
    rng = np.random.default_rng(7)
    return npflows.NormalizingFlow(
        [
            npflows.Permutation(3, "random", rng=rng),
            npflows.MAFLayer(3, (6,), [1, 0, 2], rng=rng),
            npflows.CouplingLayer([0, 1, 0], (5,), "none", activation="elu", rng=rng),
            npflows.IAFLayer(3, (4,), rng=rng),
        ],
        npflows.Normal(3, [0.5, 0.0, -0.5], [1.0, 2.0, 0.5]),
    )


FLOWS = {
    "maf": lambda: npflows.MAF(3, 2, (8,), activation="tanh", rng=1),
    "iaf": lambda: npflows.IAF(3, 2, (8, 6), orders="random", activation="silu", rng=2),
    "realnvp": lambda: npflows.RealNVP(3, 3, (8,), activation="leaky_relu", base_distribution="student_t", rng=3),
    "layers": layers,
}


def make(name):
    """A flow with parameters and units that are nowhere the default."""
    flow = FLOWS[name]()
    rng = np.random.default_rng(len(name))
    table = rng.normal(size=(100, 3)) * [0.5, 1.0, 4.0] + [1.0, -2.0, 30.0]
    flow.fit(table, max_epochs=2, rng=0, progress=False)
    flow.params = flow.params + rng.normal(0, 0.3, flow.num_params)
    flow.columns = ["a", "b", "c"]
    return flow


def expected(flow):
    """What the tests compare."""
    z, log_det = flow.forward(X)
    return {
        "log_prob": flow.log_prob(X).tolist(),
        "z": z.tolist(),
        "log_det": log_det.tolist(),
        "x of z": flow.inverse(Z)[0].tolist(),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or FLOWS:
        if (FOLDER / f"{name}.npz").exists():
            sys.exit(f"{name}.npz is there already; old files stay as they are")
        flow = make(name)
        flow.save(FOLDER / f"{name}.npz")
        (FOLDER / f"{name}.json").write_text(json.dumps(expected(flow)) + "\n")
