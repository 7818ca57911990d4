"""A posterior as the next prior
=============================

Yesterday's posterior is today's prior: a flow carries what a first experiment found into the analysis of a second.

A source decays as a * exp(-k t).  The first experiment counts late, and leaves a and k on a bent ridge; the second counts
early.  Of the first there are only samples of a Markov chain, as is usual, and Bayes' rule needs their density: a flow on
positive columns, fitted to the samples, has it as `log_prob`.  The same sampler then multiplies it with the second
likelihood.  With two parameters a grid knows the exact answer from both experiments together, and a Gaussian through the
first samples, the customary summary, shows what a bent ridge costs it.  The second experiment's evidence comes along: the
mean of its likelihood over samples of the prior.

As a script::

    python examples/posterior_as_prior.py [--quick] [-o posterior_as_prior.png]
"""

import argparse
from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure
from scipy.special import gammaln, logsumexp
from scipy.stats import multivariate_normal

import npflows
from npflows.support import positive

generator = np.random.default_rng(5)
TIMES = np.linspace(1.5, 2.5, 5), np.array([0.0, 0.1])
COUNTS = [generator.poisson(20.0 * np.exp(-0.6 * t)) for t in TIMES]


def log_prior(x: np.ndarray) -> np.ndarray:
    """Log-normal: 20 for a and 0.5 for k, give or take a factor e, of x (n, 2)."""
    u = np.log(np.maximum(x, 1e-300)) - np.log([20.0, 0.5])
    return np.where(x > 0, -0.5 * u**2 - np.log(np.maximum(x, 1e-300)), -np.inf).sum(axis=1)


def log_likelihood(x: np.ndarray, experiment: int) -> np.ndarray:
    """Poisson counts of one experiment, given x (n, 2)."""
    a, k = np.maximum(x, 1e-12)[:, :, None].transpose(1, 0, 2)
    n, log_rate = COUNTS[experiment], np.log(a) - k * TIMES[experiment]
    return (n * log_rate - np.exp(log_rate) - gammaln(n + 1)).sum(axis=1)


def ensemble(log_prob: Callable, start: np.ndarray, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Samples (n, 2) by stretch moves of many walkers (Goodman and Weare 2010); the first half of the steps is left out."""
    halves = [start[::2].copy(), start[1::2].copy()]
    values, kept = [log_prob(half) for half in halves], []
    for step in range(steps):
        for i in (0, 1):
            half, partner = halves[i], halves[1 - i][rng.integers(len(halves[1 - i]), size=len(halves[i]))]
            stretch = (1 + rng.random(len(half))) ** 2 / 2  # density ~ 1 / sqrt(stretch) from 1/2 to 2
            proposal = partner + stretch[:, None] * (half - partner)
            value = log_prob(proposal)
            accepted = np.log(rng.random(len(half))) < np.log(stretch) + value - values[i]
            half[accepted], values[i][accepted] = proposal[accepted], value[accepted]
        if step >= steps // 2 and step % 5 == 0:
            kept += [half.copy() for half in halves]
    return np.concatenate(kept)


def summary(x: np.ndarray, weight: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column."""
    mean = np.average(x, axis=0, weights=weight)
    return mean, np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short chains, few epochs")
    parser.add_argument("-o", "--output", default="posterior_as_prior.png", help="the picture")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    start, steps = np.array([20.0, 0.6]) * rng.uniform(0.5, 1.5, (400, 2)), 100 if arguments.quick else 600

    first = ensemble(lambda x: log_prior(x) + log_likelihood(x, 0), start, steps, rng)
    flow = npflows.NeuralSplineFlow(2, num_layers=4, hidden_dims=(32, 32), support=[positive(), positive()], rng=0)
    rows, counts = np.unique(first, axis=0, return_counts=True)  # a walker that rejects stays where it is
    flow.fit(rows, sample_weight=counts, max_epochs=5 if arguments.quick else 60, learning_rate=2e-3, rng=0)
    gaussian = multivariate_normal(first.mean(axis=0), np.cov(first.T))
    print(f"{len(first):,} samples of the first posterior, {len(flow.history['epoch'])} epochs in "
          f"{sum(flow.history['seconds']):.1f} s")  # fmt: skip

    sides = np.linspace(0, 200, 801)[1:], np.linspace(0, 3, 801)[1:]
    grid = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, 2)
    cell = sides[0][0] * sides[1][0]
    on_grid = [log_prior(grid) + log_likelihood(grid, 0)]
    on_grid.append(on_grid[0] + log_likelihood(grid, 1))
    exact = [np.exp(values - logsumexp(values)) / cell for values in on_grid]
    evidence = logsumexp(on_grid[1]) - logsumexp(on_grid[0])
    truth, spread = summary(grid, exact[1])
    print(f"{'':22}{'a':>16}{'k':>18}   log-evidence of the second")
    print(f"{'exact, on a grid':22}{truth[0]:8.3f} +- {spread[0]:.3f}{truth[1]:10.4f} +- {spread[1]:.4f}{evidence:12.3f}")
    second = {}
    for name, prior, drawn in (
        ("flow as prior", flow.log_prob, flow.sample(20_000, rng=1)),
        ("Gaussian as prior", gaussian.logpdf, gaussian.rvs(20_000, random_state=1)),
    ):
        second[name] = x = ensemble(lambda x, prior=prior: prior(x) + log_likelihood(x, 1), first[-400:], steps, rng)
        mean, deviation = summary(x)
        evidence = logsumexp(log_likelihood(drawn, 1)) - np.log(len(drawn))
        print(f"{name:22}{mean[0]:8.3f} +- {deviation[0]:.3f}{mean[1]:10.4f} +- {deviation[1]:.4f}{evidence:12.3f}")

    levels = []  # around the smallest regions of 99, 90 and 50 %
    for density in exact:
        ordered = np.sort(density)[::-1]
        levels.append([ordered[np.searchsorted(ordered.cumsum() * cell, share)] for share in (0.99, 0.9, 0.5)])
    figure = Figure(figsize=(10, 3.9), dpi=120)
    figure.subplots_adjust(left=0.06, right=0.99, bottom=0.13, top=0.92, wspace=0.16)
    axes = figure.subplots(1, 3)
    panels = (("first experiment", first, 0), ("both, flow as prior", second["flow as prior"], 1),
              ("both, Gaussian as prior", second["Gaussian as prior"], 1))  # fmt: skip
    for ax, (name, x, which) in zip(axes, panels):
        ax.plot(*x[rng.permutation(len(x))[:5000]].T, ".", color="#8f99a6", ms=1.8, mew=0)
        ax.contour(*sides, exact[which].reshape(800, 800).T, levels=levels[which], colors="#d9480f", linewidths=1.2)
        ax.set(title=name, xlabel="a", xlim=((0, 130), (5, 35))[which], ylim=((0, 2), (0, 1.4))[which])
    flow_density = np.exp(flow.log_prob(grid)).reshape(800, 800).T
    axes[0].contour(*sides, flow_density, levels=levels[0], colors="#1971c2", linewidths=1.2, linestyles="--")
    axes[0].set_ylabel("k", labelpad=0)
    axes[0].plot([], [], ".", color="#8f99a6", label="samples of the chain")
    axes[0].plot([], [], color="#d9480f", label="exact: 50, 90, 99 %")
    axes[0].plot([], [], "--", color="#1971c2", label="flow, same levels")
    axes[0].legend(loc="lower right", frameon=False)
    figure.savefig(arguments.output)
    print(f"drawn in {arguments.output}")


if __name__ == "__main__":
    main()
