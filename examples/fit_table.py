"""A table from beginning to end
=============================

A table from beginning to end: fit a flow, score rows, draw samples, save, load, and look at it.

The table is 20,000 simulated galaxies, redshift and six magnitudes.  Rows to which the flow gives a low density are
unusual galaxies; samples are galaxies that could have been in the table.

As a script::

    python examples/fit_table.py [--quick] [-o fit_table.png]
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import npflows
from npflows.data import load_galaxies
from npflows.plotting import corner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    parser.add_argument("-o", "--output", default="fit_table.png", help="the picture")
    arguments = parser.parse_args()

    x, columns = load_galaxies()
    known, new = x[:18000], x[18000:]

    flow = npflows.MAF(x.shape[1], num_layers=8, hidden_dims=(64, 64), activation="tanh", rng=1)
    flow.fit(known, max_epochs=5 if arguments.quick else 60, learning_rate=7e-3, batch_size=128, rng=1)
    flow.columns = columns  # saved with it
    print(f"{flow.num_params:,} parameters, {len(flow.history['epoch'])} epochs in {sum(flow.history['seconds']):.1f} s")

    log_prob = flow.log_prob(new)
    print(f"mean log-density of {len(new):,} new galaxies: {log_prob.mean():.2f} nats")
    strange = new[np.argmin(log_prob)]
    print("the most unusual of them:", ", ".join(f"{c} {v:.2f}" for c, v in zip(columns, strange)))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "galaxies.npz")
        flow.save(path)
        flow = npflows.load(path)  # in another process, on another machine
    assert np.array_equal(flow.log_prob(new), log_prob)

    samples = flow.sample(10_000, rng=2)
    corner(x, samples, columns=columns, labels=("galaxies", "samples of the flow")).savefig(arguments.output)
    print(f"data and samples are drawn in {arguments.output}")


if __name__ == "__main__":
    main()
