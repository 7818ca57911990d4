"""Six known densities in the plane
================================

Six densities in the plane that are known exactly, and what a neural spline flow learns of them from samples.

Each is drawn above the flow's density, on one scale, with KL(truth || flow) in nats: 0 is perfect, and 0.01 means that the
flow gives a new point 1 % less density than the truth does, in the geometric mean::

                   KL(truth || flow)    from new samples
    two moons                  0.0020    0.0019 +- 0.0002
    checkerboard               0.0070    0.0068 +- 0.0002
    rings                      0.0039    0.0037 +- 0.0002
    spirals                    0.0046    0.0047 +- 0.0003
    pinwheel                   0.0043    0.0040 +- 0.0002
    eight Gaussians            0.0019    0.0022 +- 0.0002

The formulas are normalized.  The sum of p log(p / q) over one random point in each cell of a grid gives the divergence,
and the sums of p and q themselves, printed too, must be 1.  The mean of log(p / q) over new samples gives it once more,
and shows that sampler and formula agree.  No continuous density follows the jumps of the checkerboard: most of its
divergence lies within 0.01 of its edges.  Samples cost nothing here, so there are 400,000.

As a script::

    python examples/two_dimensional.py [--quick] [-o two_dimensional.png]
"""

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.special import rel_entr

import npflows

BOX, SHOWN = 8.0, 4.5
"""Half a side of the grid, which holds all but nothing of each density, and of what the picture shows."""


class Target(NamedTuple):
    name: str
    density: Callable[[np.ndarray], np.ndarray]
    sample: Callable[[int, np.random.Generator], np.ndarray]


def gaussians(name: str, centers: np.ndarray, sigma: float | np.ndarray, twist: float = 0.0) -> Target:
    """Equal round Gaussians about complex `centers`, then turned about the origin by an angle of `twist` times the radius.

    The turn only moves each circle within itself, so that it keeps areas and the density needs no Jacobian.
    """
    sigma = np.broadcast_to(sigma, centers.shape)

    def density(x: np.ndarray) -> np.ndarray:
        z = x @ [1, 1j]
        z *= np.exp(-1j * twist * np.abs(z))
        total, a, b = np.zeros(len(z)), z.real.copy(), z.imag.copy()
        for c, s in zip(centers, sigma):
            total += np.exp(((a - c.real) ** 2 + (b - c.imag) ** 2) / (-2 * s**2)) / (2 * np.pi * s**2)
        return total / len(centers)

    def sample(n: int, rng: np.random.Generator) -> np.ndarray:
        which = rng.integers(len(centers), size=n)
        z = centers[which] + sigma[which] * (rng.standard_normal((n, 2)) @ [1, 1j])
        z *= np.exp(1j * twist * np.abs(z))
        return np.stack([z.real, z.imag], axis=1)

    return Target(name, density, sample)


def checkerboard(name: str) -> Target:
    """Uniform on eight squares of side 2."""

    def density(x: np.ndarray) -> np.ndarray:
        lit = np.floor(x / 2).sum(axis=1) % 2 == 0
        return np.where(lit & (np.abs(x) < 4).all(axis=1), 1 / 32, 0.0)

    def sample(n: int, rng: np.random.Generator) -> np.ndarray:
        row, column = rng.integers(-2, 2, size=n), rng.integers(2, size=n)
        return 2 * (np.stack([2 * column - 2 + row % 2, row], axis=1) + rng.random((n, 2)))

    return Target(name, density, sample)


def targets() -> list[Target]:
    def circle(n: int, turns: float = 1.0) -> np.ndarray:
        return np.exp(2j * np.pi * turns * (np.arange(n) + 0.5) / n)

    moon = 2.3 * circle(60, turns=0.5) - 1.15 - 0.6j
    arm = np.sqrt(np.linspace(0.02, 1, 120))  # equal steps along a spiral
    arm = 3.8 * arm * np.exp(3j * np.pi * arm)
    spoke = 3.5 * np.sqrt(np.linspace(0.03, 1, 40))
    return [
        gaussians("two moons", np.concatenate([moon, -moon]), 0.2),
        checkerboard("checkerboard"),
        gaussians("rings", np.concatenate([1.2 * k * circle(40 * k) for k in (1, 2, 3)]), 0.12),
        gaussians("spirals", np.concatenate([arm, -arm]), 0.15),
        gaussians("pinwheel", np.outer(circle(5), spoke).ravel(), np.tile(0.08 + 0.05 * spoke, 5), twist=0.55),
        gaussians("eight Gaussians", 3.1 * circle(8), 0.3),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few points, few epochs, a coarse grid")
    parser.add_argument("-o", "--output", default="two_dimensional.png", help="the picture")
    arguments = parser.parse_args()
    n, epochs, cells = (10_000, 4, 320) if arguments.quick else (400_000, 20, 1280)

    side = 2 * BOX / cells
    # fixed points would miss what the flow does within a fraction of a cell, at jumps: one random point in each cell
    corners = np.stack(np.meshgrid(*2 * [-BOX + side * np.arange(cells)]), axis=-1).reshape(-1, 2)
    grid = corners + side * np.random.default_rng(2).random(corners.shape)

    figure = Figure(figsize=(12, 4.5), dpi=110)
    figure.subplots_adjust(left=0.026, right=0.998, bottom=0.005, top=0.86, wspace=0.03, hspace=0.03)
    axes = figure.subplots(2, 6)
    started = time.perf_counter()
    print(f"{n:,} points each\n{'':16} KL(truth || flow)  from new samples   grid sums: truth, flow   seconds to fit")
    for (truth_ax, flow_ax), target in zip(axes.T, targets()):
        flow = npflows.NeuralSplineFlow(2, num_layers=4, hidden_dims=(64, 64, 64), num_bins=32,
                                        conditioner="autoregressive", rng=0)  # fmt: skip
        flow.fit(target.sample(n, np.random.default_rng(0)), max_epochs=epochs, batch_size=512, learning_rate=8e-3,
                 rng=0)  # fmt: skip
        p, q = target.density(grid), np.exp(flow.log_prob(grid))
        kl = rel_entr(p, q).sum() * side**2
        new = target.sample(100_000, np.random.default_rng(1))
        ratio = np.log(target.density(new)) - flow.log_prob(new)
        print(f"{target.name:16} {kl:17.4f}  {ratio.mean():7.4f} +- {ratio.std() / np.sqrt(len(new)):.4f}   "
              f"{p.sum() * side**2:16.4f}, {q.sum() * side**2:.4f}   {sum(flow.history['seconds']):14.1f}")  # fmt: skip
        for ax, density in ((truth_ax, p), (flow_ax, q)):
            pixels = density.reshape(cells // 2, 2, cells // 2, 2).mean(axis=(1, 3))
            ax.imshow(pixels, origin="lower", extent=(-BOX, BOX, -BOX, BOX), cmap="magma", vmin=0, vmax=1.1 * p.max())
            ax.set(xlim=(-SHOWN, SHOWN), ylim=(-SHOWN, SHOWN), xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        truth_ax.set_title(target.name, fontsize=15, pad=27)
        truth_ax.annotate(f"KL {kl:.4f}", (0.5, 1), xytext=(0, 8), xycoords="axes fraction", textcoords="offset points",
                          ha="center", fontsize=14, color="#5a6472")  # fmt: skip
    for ax, label in zip(axes[:, 0], ("truth", "flow")):
        ax.set_ylabel(label, fontsize=15)
    figure.savefig(arguments.output)
    print(f"{time.perf_counter() - started:.0f} s in all; drawn in {arguments.output}")


if __name__ == "__main__":
    main()
