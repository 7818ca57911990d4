"""Five models of one table
========================

How good is a density?  Log-likelihood of held-out rows, in nats and in bits per dimension, of five models.

The mean log-likelihood of rows that no model has seen is the fair score of a density: its shortfall from the best possible
is KL(truth || model).  Bits per dimension is the same number, negative, shared out among the columns and in base 2: fewer
are better.  It is a length: whoever shares the density needs so many bits, plus the logarithm of one over the precision,
to write down a value, here ten more for a thousandth of a magnitude or so.  Like every density it changes with the units of
the columns, so that only scores of the same table can be compared.

A Gaussian and a mixture of Gaussians (scikit-learn) say what there is to gain on 20,000 simulated galaxies.

As a script::

    python examples/density_estimation.py [--quick] [-o density_estimation.png]
"""

import argparse
import time

import numpy as np
from matplotlib.figure import Figure
from sklearn.mixture import GaussianMixture

import npflows
from npflows.data import load_galaxies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rows, a few epochs only")
    parser.add_argument("-o", "--output", default="density_estimation.png", help="the picture")
    arguments = parser.parse_args()

    x, columns = load_galaxies()
    n = 2000 if arguments.quick else 18_000
    known, new = x[:n].astype(np.float64), x[18_000:].astype(np.float64)
    models = {
        "Gaussian": GaussianMixture(1),
        "20 Gaussians": GaussianMixture(20, tol=0.01, random_state=0),
        "RealNVP": npflows.RealNVP(7, num_coupling_layers=12, hidden_dims=(64, 64), activation="tanh", rng=0),
        "MAF": npflows.MAF(7, num_layers=8, hidden_dims=(64, 64), activation="tanh", rng=0),
        "NeuralSplineFlow": npflows.NeuralSplineFlow(7, num_layers=6, hidden_dims=(64, 64), tail_bound=5.0, rng=0),
    }
    bits, errors = {}, {}
    print(f"{len(known):,} galaxies to learn from, {len(new):,} held out, {x.shape[1]} columns")
    print(f"{'':18}{'nats of a galaxy':>18}{'bits per dimension':>22}{'bits of a value to 0.001':>28}{'seconds':>10}")
    for name, model in models.items():
        started = time.perf_counter()
        if isinstance(model, npflows.NormalizingFlow):
            model.fit(known, max_epochs=2 if arguments.quick else 60, batch_size=128, learning_rate=5e-3, rng=0)
            log_prob = model.log_prob(new)
        else:
            log_prob = model.fit(known).score_samples(new)
        per_bit = -x.shape[1] * np.log(2)
        bits[name], errors[name] = log_prob.mean() / per_bit, log_prob.std() / np.sqrt(len(new)) / -per_bit
        print(f"{name:18}{log_prob.mean():18.2f}{bits[name]:14.3f} +- {errors[name]:.3f}"
              f"{bits[name] + np.log2(1000):28.2f}{time.perf_counter() - started:10.1f}")  # fmt: skip

    flow = models["NeuralSplineFlow"]
    assert np.isclose(flow.bits_per_dim(new), bits["NeuralSplineFlow"])  # what the method gives
    samples = {"held-out galaxies": new, "20 Gaussians": models["20 Gaussians"].sample(len(new))[0],
               "spline flow": flow.sample(len(new), rng=1)}  # fmt: skip

    figure = Figure(figsize=(11, 3.5), dpi=120)
    left = figure.add_axes((0.13, 0.15, 0.17, 0.76))
    grid = figure.add_gridspec(1, 3, left=0.385, right=0.99, bottom=0.15, top=0.91, wspace=0.06)
    left.errorbar(list(bits.values()), list(bits), xerr=list(errors.values()), fmt="o", color="#d9480f")
    left.invert_yaxis()
    left.grid(axis="y", color="#dfe3e8")
    left.set(title="bits per dimension", ylim=(len(bits) - 0.5, -0.5))
    first = None
    for place, (name, rows) in enumerate(samples.items()):
        ax = figure.add_subplot(grid[place], sharey=first, xlabel="redshift")
        ax.plot(rows[:, 0], rows[:, 3] - rows[:, 4], ".", ms=2.2, mew=0, color="#d9480f" if place else "#3c4654")
        ax.set(title=name, xlim=(-0.1, 2.4), ylim=(-0.3, 1.6))
        if first is None:
            first = ax
            ax.set_ylabel(f"color {columns[3]} - {columns[4]}", labelpad=1)
        else:
            ax.tick_params(labelleft=False)
    figure.savefig(arguments.output)
    print(f"drawn in {arguments.output}")


if __name__ == "__main__":
    main()
