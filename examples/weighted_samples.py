"""Weighted samples
================

A flow from weighted samples, as nested sampling and importance sampling leave them.

Where is the transmitter?  Two receivers tell its distance, each with an error: two circles, which cross twice, so that the
posterior has two peaks.  Points of the prior, weighted with their likelihood, are samples of the posterior; `sample_weight`
takes them as they are.  The alternative, to draw points by their weights until there are enough, repeats the heavy ones
and loses many of the light ones: `fit` says so, and merges copies into weights again, as those that lie in training and
validation rows alike would hide from the validation loss that the flow learns them by heart.  A grid knows the exact
posterior.

As a script::

    python examples/weighted_samples.py [--quick] [-o weighted_samples.png]
"""

import argparse

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import rel_entr

import npflows
from npflows.core.statistics import effective_sample_size

RECEIVERS, DISTANCES, ERRORS = np.array([(-1.0, 0.0), (1.5, 0.5)]), np.array([2.0, 1.8]), np.array([0.1, 0.5])
SPREAD = 2.0
"""The prior is normal about the origin, in kilometers."""


def log_likelihood(x: np.ndarray) -> np.ndarray:
    """Of positions (n, 2), up to a constant."""
    distances = np.linalg.norm(x[:, None] - RECEIVERS, axis=2)
    return -0.5 * (((distances - DISTANCES) / ERRORS) ** 2).sum(axis=1)


def contours(ax: Axes, side: np.ndarray, density: np.ndarray, **style: object) -> None:
    """Around the smallest regions of 99, 90 and 50 %."""
    ordered = np.sort(density)[::-1]
    reached = np.cumsum(ordered) / ordered.sum()
    levels = [ordered[np.searchsorted(reached, share)] for share in (0.99, 0.9, 0.5)]
    ax.contour(side, side, density.reshape(len(side), -1), levels=levels, **style)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few points, few epochs")
    parser.add_argument("-o", "--output", default="weighted_samples.png", help="the picture")
    arguments = parser.parse_args()

    generator = np.random.default_rng(0)
    x = SPREAD * generator.standard_normal((20_000 if arguments.quick else 200_000, 2))
    log_weight = log_likelihood(x)
    used = log_weight > log_weight.max() - 12  # the others weigh nothing
    x, weight = x[used], np.exp(log_weight[used])
    ess = effective_sample_size(log_weight, log=True)
    print(f"{len(used):,} points of the prior, {len(x):,} of some weight, worth {ess:,.0f} samples of the posterior")

    side = np.linspace(-4, 4, 401)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    truth = np.exp(log_likelihood(grid) - 0.5 * (grid**2).sum(axis=1) / SPREAD**2)
    cell = (side[1] - side[0]) ** 2
    truth /= truth.sum() * cell

    drawn = x[generator.choice(len(x), len(x), p=weight / weight.sum())]
    flows = {}
    for name, rows, weights in (("sample_weight", x, weight), ("drawn by weight", drawn, None)):
        flow = npflows.NeuralSplineFlow(2, num_layers=6, hidden_dims=(64, 64), rng=0)
        flow.fit(rows, sample_weight=weights, max_epochs=10 if arguments.quick else 100, learning_rate=2e-3, rng=0)
        flows[name] = found = np.exp(flow.log_prob(grid))
        kl = rel_entr(truth, found).sum() * cell
        loss, best = flow.history["validation_loss"], int(np.argmin(flow.history["validation_loss"]))
        print(f"{name:16} validation loss {loss[best]:.3f} after {best + 1} epochs, KL(posterior || flow) {kl:.3f}")

    figure = Figure(figsize=(10, 3.7), dpi=120)
    figure.subplots_adjust(left=0.045, right=0.99, bottom=0.08, top=0.91, wspace=0.06)
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    shown = slice(6000)
    axes[0].scatter(*x[shown].T, s=12 * (weight / weight.max())[shown], color="#3c4654", lw=0)
    axes[0].set(title=f"{len(x):,} points, worth {ess:,.0f}", xlim=(-1.9, 2.7), ylim=(-2.75, 2.35))
    for ax, (name, found) in zip(axes[1:], flows.items()):
        ax.pcolormesh(side, side, found.reshape(401, 401), cmap="Greys", vmin=0, vmax=truth.max(), rasterized=True)
        contours(ax, side, truth, colors="#d9480f", linewidths=1.1)
        ax.set(title=f"flow, {name}")
    axes[1].plot([], [], color="#d9480f", label="exact: 50, 90, 99 %")
    axes[1].legend(loc="lower left", frameon=False)
    for ax in axes:
        ax.plot(*RECEIVERS.T, "^", color="#1971c2")
        ax.set_aspect("equal")
    axes[0].plot([], [], "^", color="#1971c2", label="receivers")
    axes[0].legend(loc="lower left", frameon=False)
    figure.savefig(arguments.output)
    print(f"drawn in {arguments.output}")


if __name__ == "__main__":
    main()
