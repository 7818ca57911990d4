"""Two moons
=========

A density that no Gaussian fits: two moons, and what RealNVP, MAF and IAF learn of them.

Each flow is fitted to the same 10,000 points; the picture shows its density, on one scale, beside the points.
A density integrates to one: the grid of the picture says how nearly.

As a script::

    python examples/two_moons.py [--quick] [-o two_moons.png]
"""

import argparse

import numpy as np
from matplotlib.figure import Figure

import npflows

BOX = (-1.6, 2.6, -1.2, 1.7)


def two_moons(n: int, rng: np.random.Generator) -> np.ndarray:
    """Two half circles, one upside down, with noise (n, 2)."""
    angle, lower = np.pi * rng.random(n), rng.random(n) < 0.5
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points[lower] = [1.0, 0.5] - points[lower]
    return points + 0.08 * rng.standard_normal((n, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    parser.add_argument("-o", "--output", default="two_moons.png", help="the picture")
    arguments = parser.parse_args()

    x = two_moons(10_000, np.random.default_rng(0))
    flows = {
        "RealNVP": npflows.RealNVP(2, num_coupling_layers=12, hidden_dims=(64, 64), activation="tanh", rng=0),
        "MAF": npflows.MAF(2, num_layers=8, hidden_dims=(64, 64), activation="tanh", rng=0),
        "IAF": npflows.IAF(2, num_layers=8, hidden_dims=(64, 64), activation="tanh", rng=0),
    }
    edges = np.linspace(*BOX[:2], 301), np.linspace(*BOX[2:], 301)
    centers = [0.5 * (e[1:] + e[:-1]) for e in edges]
    grid = np.stack(np.meshgrid(*centers), axis=-1).reshape(-1, 2)
    cell = (edges[0][1] - edges[0][0]) * (edges[1][1] - edges[1][0])

    figure = Figure(figsize=(12, 2.4), dpi=120)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=0.9, wspace=0.02)
    axes = figure.subplots(1, 4)
    axes[0].plot(*x.T, ",", color="#3c4654")
    axes[0].set_title(f"{len(x):,} points")
    for ax, (name, flow) in zip(axes[1:], flows.items()):
        flow.fit(x, max_epochs=10 if arguments.quick else 100, learning_rate=5e-3, rng=0)
        density = np.exp(flow.log_prob(grid))
        print(f"{name:8} held-out log-density {-min(flow.history['validation_loss']):.3f}, "
              f"the density integrates to {density.sum() * cell:.4f}")  # fmt: skip
        ax.imshow(density.reshape(300, 300), origin="lower", extent=BOX, cmap="magma", vmin=0, vmax=0.9)
        ax.set_title(name)
    for ax in axes:
        ax.set(xlim=BOX[:2], ylim=BOX[2:], xticks=[], yticks=[], aspect="equal")
    figure.savefig(arguments.output)
    print(f"points and densities are drawn in {arguments.output}")


if __name__ == "__main__":
    main()
