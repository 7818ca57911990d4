"""A posterior without Markov chains
=================================

A posterior without Markov chains: a flow is drawn to it along its gradient, and tells the evidence as well.

Logistic regression: did a patient recover, given dose and age?  All that `fit_variational` asks for is the log-posterior
up to a constant and its gradient, five lines written by hand.  Importance weights then say how good the flow is, and what
the constant is: the evidence, by which models are compared.  With three coefficients a grid can check both.

As a script::

    python examples/posterior.py [--quick] [-o posterior.png]
"""

import argparse

import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit, log_expit, logsumexp

import npflows
from npflows.inference.importance import ImportanceWeights

NAMES = ("intercept", "coefficient of dose", "coefficient of age")
PRIOR = 3.0
"""Standard deviation of each coefficient before any patient is seen."""

generator = np.random.default_rng(1)
PATIENTS = np.column_stack([np.ones(20), generator.uniform(0, 2, 20), generator.standard_normal(20)])
OUTCOMES = np.where(generator.random(20) < expit(PATIENTS @ [-2.0, 2.5, -1.0]), 1.0, -1.0)


def log_posterior(b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logarithm of likelihood times prior for coefficients b (n, 3), and its gradient (n, 3)."""
    margin = OUTCOMES * (b @ PATIENTS.T)
    log_likelihood = log_expit(margin).sum(axis=1)
    log_prior = (-0.5 * (b / PRIOR) ** 2 - np.log(PRIOR * np.sqrt(2 * np.pi))).sum(axis=1)
    gradient = (OUTCOMES * expit(-margin)) @ PATIENTS - b / PRIOR**2
    return log_likelihood + log_prior, gradient


def on_grid(sides: list[np.ndarray]) -> tuple[float, np.ndarray]:
    """The log-evidence, and the posterior's density on a grid."""
    b = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1)
    log_p = log_posterior(b.reshape(-1, 3))[0].reshape(b.shape[:3])
    log_evidence = logsumexp(log_p) + np.log(np.prod([side[1] - side[0] for side in sides]))
    return log_evidence, np.exp(log_p - log_evidence)


def draw(history: dict, found: ImportanceWeights, sides: list[np.ndarray], density: np.ndarray) -> Figure:
    """Left the ELBO, step by step; right two coefficients: samples in gray, the exact posterior in orange."""
    figure = Figure(figsize=(9, 3.9), dpi=120)
    left = figure.add_axes((0.085, 0.13, 0.38, 0.83))
    left.plot(history["step"], history["validation_elbo"], color="#3c4654", label="ELBO")
    left.axhline(found.log_evidence, color="#d9480f", ls="--", label="log-evidence, by importance weights")
    left.set(xlabel="step", ylabel="nats", ylim=(found.log_evidence - 1.0, found.log_evidence + 0.15))
    left.legend(loc="lower right", frameon=False)

    joint = density.sum(axis=2)  # over the coefficient of age
    middle = figure.add_axes((0.54, 0.13, 0.36, 0.68))
    middle.plot(*found.x[:5000, :2].T, ".", color="#b4bcc7", ms=1.5)
    ordered = np.sort(joint, axis=None)[::-1]
    levels = [ordered[np.searchsorted(ordered.cumsum(), share * joint.sum())] for share in (0.99, 0.9, 0.5)]
    middle.contour(sides[0], sides[1], joint.T, levels=levels, colors="#d9480f", linewidths=1.2)
    middle.set(xlabel=NAMES[0], ylabel=NAMES[1])
    middle.plot([], [], ".", color="#b4bcc7", label="samples of the flow")
    middle.plot([], [], color="#d9480f", label="exact: 50, 90, 99 %")
    middle.legend(loc="upper right", frameon=False)
    top = figure.add_axes((0.54, 0.82, 0.36, 0.15), sharex=middle)
    side = figure.add_axes((0.905, 0.13, 0.08, 0.68), sharey=middle)
    for k, ax, orientation in ((0, top, "vertical"), (1, side, "horizontal")):
        ax.hist(found.x[:, k], bins=80, density=True, color="#b4bcc7", orientation=orientation)
        curve = joint.sum(axis=1 - k) / joint.sum() / (sides[k][1] - sides[k][0])
        ax.plot(*((sides[k], curve) if ax is top else (curve, sides[k])), color="#d9480f", lw=1.2)
        ax.axis("off")
    low, high = np.quantile(found.x, [0.0005, 0.9995], axis=0)
    middle.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps only")
    parser.add_argument("-o", "--output", default="posterior.png", help="the picture")
    arguments = parser.parse_args()

    flow = npflows.NeuralSplineFlow(3, num_layers=4, hidden_dims=(32, 32), tail_bound=5.0, rng=0)
    flow.standardize.set(0.0, PRIOR)  # it starts as the prior
    flow.fit_variational(log_posterior, max_steps=500 if arguments.quick else 3000, learning_rate=3e-3, ema=0.99, rng=0)
    found = flow.importance_weights(100_000, rng=1)

    low, high = found.x.min(axis=0), found.x.max(axis=0)
    sides = [np.linspace(a, b, 81) for a, b in zip(low, high)]
    log_evidence, density = on_grid(sides)
    print(f"{flow.num_params:,} parameters, {flow.history['step'][-1]:,} steps in {sum(flow.history['seconds']):.1f} s")
    print(f"log-evidence {found.log_evidence:.5f} +- {found.log_evidence_error:.5f}, on a grid {log_evidence:.5f}")
    print(f"ELBO         {found.elbo:.5f}")
    print(f"{len(found.x):,} samples are worth {found.ess:,.0f} of the posterior itself")
    means = found.weights @ found.x
    spreads = np.sqrt(found.weights @ (found.x - means) ** 2)
    for name, mean, spread in zip(NAMES, means, spreads):
        print(f"  {name:20} {mean:6.2f} +- {spread:.2f}")
    draw(flow.history, found, sides, density).savefig(arguments.output)
    print(f"drawn in {arguments.output}")


if __name__ == "__main__":
    main()
