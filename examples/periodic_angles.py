"""A density of angles
===================

Angles have no ends: a density on a torus, learned with `support=periodic` and, for comparison, without.

The two torsion angles of a peptide gather in a few shapes, one of them across the seam where 180 and -180 degrees meet.
Told that the columns are circles, the flow is continuous there.  On the line it sees one cloud cut into four pieces, puts
some density where there are no angles at all, and jumps at the seam.  Each component is a von Mises distribution of phi
times one of psi whose center moves with phi, so that the truth is known exactly.  The picture runs from 0 to 360 degrees,
so that the seam lies in its middle.

As a script::

    python examples/periodic_angles.py [--quick] [-o periodic_angles.png]
"""

import argparse

import numpy as np
from matplotlib.figure import Figure
from scipy.special import i0e, rel_entr

import npflows
from npflows.support import periodic

# share, centers of phi and psi, how far psi's center moves with the sine of phi, concentrations of phi and psi
SHAPES = np.array([
    (0.45, np.radians(-150), np.radians(165), 1.5, 4.0, 12.0),  # extended: across the seam of both angles
    (0.35, np.radians(-65), np.radians(-40), -1.0, 20.0, 20.0),  # right-handed helix
    (0.12, np.radians(55), np.radians(45), -0.9, 25.0, 20.0),  # left-handed helix
    (0.08, np.radians(70), np.radians(-170), 0.5, 15.0, 8.0),
])  # fmt: skip


def von_mises(angle: np.ndarray, kappa: np.ndarray) -> np.ndarray:
    """Density at an angle from the center."""
    return np.exp(kappa * (np.cos(angle) - 1)) / (2 * np.pi * i0e(kappa))


def density(angles: np.ndarray) -> np.ndarray:
    """The true density at angles (n, 2) in radians."""
    share, phi, psi, turn, kappa_phi, kappa_psi = SHAPES.T
    phi, psi = angles[:, :1] - phi, angles[:, 1:] - psi
    return (share * von_mises(phi, kappa_phi) * von_mises(psi - turn * np.sin(phi), kappa_psi)).sum(axis=1)


def sample(n: int, rng: np.random.Generator) -> np.ndarray:
    """Angles (n, 2) between -pi and pi."""
    _, phi, psi, turn, kappa_phi, kappa_psi = SHAPES[rng.choice(len(SHAPES), n, p=SHAPES[:, 0])].T
    a = rng.vonmises(0, kappa_phi)
    b = rng.vonmises(turn * np.sin(a), kappa_psi)
    return np.mod(np.stack([phi + a, psi + b], axis=1) + np.pi, 2 * np.pi) - np.pi


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few angles, few epochs")
    parser.add_argument("-o", "--output", default="periodic_angles.png", help="the picture")
    arguments = parser.parse_args()

    x = sample(4000 if arguments.quick else 40_000, np.random.default_rng(0))
    circle = periodic(-np.pi, np.pi)
    options = {"num_layers": 4, "hidden_dims": (64, 64), "num_bins": 8, "linear": "permutation", "rng": 0}
    flows = {
        "flow on circles": npflows.NeuralSplineFlow(2, support=[circle, circle], **options),
        "flow on the line": npflows.NeuralSplineFlow(2, **options),
    }

    pixels = 240
    cell = 2 * np.pi / pixels
    side = cell * (np.arange(pixels) + 0.5)
    shown = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    grid = np.where(shown > np.pi, shown - 2 * np.pi, shown)
    truth = density(grid)
    pictures = {"truth": truth}
    around = np.linspace(-np.pi, np.pi, 100, endpoint=False)
    below, above = (np.stack([np.full(100, edge), around], axis=1) for edge in (np.pi - 1e-6, -np.pi))
    print(f"{len(x):,} pairs of angles; the true density adds up to {truth.sum() * cell**2:.4f}")
    for name, flow in flows.items():
        flow.fit(x, max_epochs=5 if arguments.quick else 30, rng=0)
        pictures[name] = found = np.exp(flow.log_prob(grid))
        jump = np.abs(np.exp(flow.log_prob(below)) - np.exp(flow.log_prob(above))).max()
        print(f"{name:16}  KL(truth || flow) {rel_entr(truth, found).sum() * cell**2 + 1 - truth.sum() * cell**2:.4f}"
              f"   on the torus {found.sum() * cell**2:.4f}   largest jump at the seam {jump:.5f}"
              f"   {sum(flow.history['seconds']):.1f} s")  # fmt: skip

    figure = Figure(figsize=(10, 3.7), dpi=110)
    figure.subplots_adjust(left=0.085, right=0.985, bottom=0.14, top=0.92, wspace=0.1)
    axes = figure.subplots(1, 3, sharey=True)
    for ax, (name, values) in zip(axes, pictures.items()):
        ax.imshow(np.sqrt(values.reshape(pixels, pixels)), origin="lower", extent=(0, 360, 0, 360), cmap="magma", vmin=0,
                  vmax=np.sqrt(truth.max()))  # fmt: skip
        ax.axhline(180, color="white", lw=0.7, ls=":")
        ax.axvline(180, color="white", lw=0.7, ls=":")
        ticks = np.arange(0, 361, 90)
        ax.set(title=name, xlabel="$\\phi$ (degrees)", xticks=ticks, yticks=ticks)
        ax.set_xticklabels(labels := ["0", "90", "±180", "-90", "0"])
        ax.set_yticklabels(labels)
    axes[0].set_ylabel("$\\psi$ (degrees)")
    figure.savefig(arguments.output)
    print(f"drawn in {arguments.output}")


if __name__ == "__main__":
    main()
