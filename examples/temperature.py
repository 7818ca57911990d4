"""The temperature of samples
==========================

Temperature: samples nearer to the typical ones than the data are, or farther out, and what that means.

`sample(n, temperature=t)` multiplies the latent samples' distance from the center by t before the flow maps them to data.
Below 1 they leave the tails; above 1 they reach beyond.  This is no power of the density, and less is not always better:
samples gather where the flow has its latent center, which here lies between the arms, so that at 0.5 more of them are in
places that hardly any point of the data has than at 0.8.

`sample_and_log_prob` tells the density of what was drawn, temperature included, so that weights lead back to temperature 1,
or to any other density.  That makes a warm flow a safe proposal for importance sampling: with t above 1 no weight exceeds
t to the power of the number of columns, and with t below 1 they have no bound.

As a script::

    python examples/temperature.py [--quick] [-o temperature.png]
"""

import argparse

import numpy as np
from matplotlib.figure import Figure

import npflows
from npflows.core.statistics import effective_sample_size

TEMPERATURES = 0.5, 0.8, 1.0, 1.3


def pinwheel(n: int, rng: np.random.Generator) -> np.ndarray:
    """Five bent arms (n, 2)."""
    radius, across = 1.6 + 0.5 * rng.standard_normal(n), 0.12 * rng.standard_normal(n)
    angle = 2 * np.pi * rng.integers(5, size=n) / 5 + 0.8 * radius
    return np.stack([radius * np.cos(angle) - across * np.sin(angle), radius * np.sin(angle) + across * np.cos(angle)], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few points, a few epochs only")
    parser.add_argument("-o", "--output", default="temperature.png", help="the picture")
    arguments = parser.parse_args()

    x = pinwheel(5000 if arguments.quick else 50_000, np.random.default_rng(0))
    flow = npflows.NeuralSplineFlow(2, num_layers=5, hidden_dims=(64, 64), num_bins=12, rng=0)
    flow.fit(x, max_epochs=4 if arguments.quick else 40, learning_rate=4e-3, rng=0)
    edge = np.quantile(flow.log_prob(x), 0.05)  # 5 % of the data lie where the density is lower
    print("temperature   mean log-density   below the lowest 5 % of the data   weights to 1: largest, worth of 20,000")

    figure = Figure(figsize=(11, 3.05), dpi=120)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.015, top=0.9, wspace=0.03)
    for ax, temperature in zip(figure.subplots(1, 4), TEMPERATURES):
        samples, drawn = flow.sample_and_log_prob(20_000, rng=1, temperature=temperature)
        log_prob = flow.log_prob(samples)
        ess = effective_sample_size(log_prob - drawn, log=True)
        print(f"{temperature:11}{log_prob.mean():19.2f}{(log_prob < edge).mean():35.1%}"
              f"{np.exp((log_prob - drawn).max()):32.2f}{ess:18,.0f}")  # fmt: skip
        ax.plot(*x[:4000].T, ".", color="#c9cfd6", ms=2.5, mew=0)
        ax.plot(*samples[:4000].T, ".", color="#d9480f", ms=2, mew=0)
        ax.set(title=f"temperature {temperature}", xlim=(-3.7, 3.7), ylim=(-3.7, 3.7), xticks=[], yticks=[], aspect="equal")
    figure.axes[0].legend(["data", "samples"], loc="lower right", frameon=False, markerscale=5, handletextpad=0,
                          borderaxespad=0.1)  # fmt: skip
    figure.savefig(arguments.output)
    print(f"data (gray) and samples are drawn in {arguments.output}")


if __name__ == "__main__":
    main()
