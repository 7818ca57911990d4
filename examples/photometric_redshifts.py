"""Photometric redshifts
=====================

How far is a galaxy, given its brightness in six bands?  A density p(redshift | magnitudes and their errors).

A spectrum tells the redshift of a galaxy, but most galaxies have only been photographed.  A flow conditioned on the
photometry gives each of them a whole density, with two peaks where two distances fit.  For one column a flow is its own
distribution function: `forward` leads to a normal variable, whose Phi is the probability below the true redshift (uniform
if the densities are right), and `inverse` of a normal quantile is that quantile of redshift.

Colors, differences of neighboring bands, say the same as magnitudes and are easier to learn from; so are the logarithms
of errors.  Dropout keeps the densities from being too narrow: without it the intervals hold fewer galaxies than they say.

Without a path, 2,000 galaxies that come with the examples (data/README.txt) show how it goes; the numbers of the picture
in docs are of the full table.

As a script::

    python examples/photometric_redshifts.py [dc2_photometry.npz] [--quick] [-o photometric_redshifts.png]
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.special import ndtr, ndtri

import npflows

SUBSET = Path(__file__).with_name("data") / "dc2_subset.npz"
NOMINAL = np.array([0.5, 0.68, 0.9, 0.95])


def read(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Redshift (n, 1) and condition (n, 12) of the galaxies that were detected in every band; 99 says that one was not."""
    table = table[(table != 99).all(axis=1)].astype(np.float64)
    magnitudes, errors, redshift = np.split(table, [6, 12], axis=1)
    return redshift, np.column_stack([magnitudes[:, 3], -np.diff(magnitudes), np.log(errors)])


def covered(u: np.ndarray, nominal: np.ndarray) -> np.ndarray:
    """Share of the true redshifts, of probability u (n,), in the central interval of each nominal probability."""
    return (np.abs(2 * u - 1)[:, None] < nominal).mean(axis=0)


def draw(flow: npflows.NormalizingFlow, redshift: np.ndarray, condition: np.ndarray, u: np.ndarray) -> Figure:
    """Left the median against the truth, then how often intervals hold the truth, and five densities."""
    median, low, high = (flow.inverse(np.full_like(redshift, ndtri(q)), condition)[0][:, 0] for q in (0.5, 0.16, 0.84))
    figure = Figure(figsize=(10.5, 3.7), dpi=120)
    figure.subplots_adjust(left=0.055, right=0.98, bottom=0.14, top=0.91, wspace=0.24)
    left, middle, right = figure.subplots(1, 3)

    left.plot(redshift, median, ".", color="#3c4654", ms=1.5, alpha=0.4, mew=0, rasterized=True)
    left.plot([0, 3], [0, 3], color="#d9480f", lw=1)
    left.set(xlim=(0, 3), ylim=(0, 3), xlabel="true redshift", ylabel="median of the density", title="point estimates")

    nominal = np.linspace(0, 1, 201)
    middle.plot(100 * nominal, 100 * (covered(u, nominal) - nominal), color="#3c4654")
    middle.plot(100 * NOMINAL, 100 * (covered(u, NOMINAL) - NOMINAL), "o", color="#3c4654", ms=4)
    middle.axhspan(-2, 2, color="#dfe3e8", lw=0)
    middle.axhline(0, color="#d9480f", lw=1)
    middle.set(xlim=(0, 100), ylim=(-6, 6), xlabel="central interval (%)", ylabel="holds the truth, less nominal (points)",
               title="calibration")  # fmt: skip

    z = np.linspace(0, 3, 1501)
    shown = np.argsort(median)[(np.array([0.05, 0.3, 0.6, 0.9, 0.98]) * len(median)).astype(int)]
    for i, color in zip(shown, ("#3c4654", "#1971c2", "#2b8a3e", "#d9480f", "#862e9c")):
        density = np.exp(flow.log_prob(z[:, None], condition[i]))
        right.fill_between(z, density, color=color, alpha=0.25, lw=0)
        right.plot(z, density, color=color, lw=1)
        right.axvline(redshift[i, 0], color=color, ls=":", lw=1.2)
    right.set(xlim=(0, 3), yscale="log", ylim=(0.05, 60), xlabel="redshift", title="five galaxies; dotted: the truth")
    print(f"the middle 68 % of a density are {np.median(high - low):.3f} wide in redshift, in the median")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", default=SUBSET, help="npz with train and validation; see data/README.txt")
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    parser.add_argument("-o", "--output", default="photometric_redshifts.png", help="the picture")
    arguments = parser.parse_args()

    with np.load(arguments.table) as tables:
        (redshift, condition), (new_redshift, new_condition) = read(tables["train"]), read(tables["validation"])
    flow = npflows.NeuralSplineFlow(1, 3, (128, 128), tail_bound=5.0, dropout=0.15, condition_dim=12, rng=0)
    flow.fit(redshift, condition=condition, max_epochs=5 if arguments.quick else 60, learning_rate=5e-3, rng=0)
    print(f"{len(redshift):,} galaxies, {len(flow.history['epoch'])} epochs in {sum(flow.history['seconds']):.1f} s")

    log_prob = flow.log_prob(new_redshift, new_condition)
    u = ndtr(flow.forward(new_redshift, new_condition)[0][:, 0])
    print(f"mean conditional log-likelihood of {len(log_prob):,} others: {log_prob.mean():.3f} nats")
    for nominal, share in zip(NOMINAL, covered(u, NOMINAL)):
        print(f"  central {nominal:4.0%} interval holds the true redshift of {share:.1%}")
    median = flow.inverse(np.zeros_like(new_redshift), new_condition)[0]
    error = np.abs(median - new_redshift) / (1 + new_redshift)
    print(
        f"median against truth, over 1 + z: scatter {1.4826 * np.median(error):.4f}, {np.mean(error > 0.15):.1%} outliers"
    )
    draw(flow, new_redshift, new_condition, u).savefig(arguments.output)
    print(f"drawn in {arguments.output}")


if __name__ == "__main__":
    main()
