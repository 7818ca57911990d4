"""Flows drawn by `fit_variational` to densities whose integral is known, and how near they come.

    python benchmarks/variational.py [--quick] [--only NAME ...]

prints a Markdown table.  KL is KL(flow || target), the log-evidence less the ELBO of 100,000 new samples, with its standard
error; their importance weights estimate the log-evidence, and ESS is the share of them that counts.  Such an estimate
knows nothing of what the flow leaves out: see the rows funnel-spline, which misses a tail, and modes-untempered.

Seconds are those of `fit_variational` without compilation: a throw-away flow of the same kind takes a few steps first.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logsumexp

import npflows
from benchmarks.common import machine
from benchmarks.speed_table import table
from npflows.inference.importance import ImportanceWeights

LOG_2PI = math.log(2 * math.pi)
Values = tuple[np.ndarray, np.ndarray]
"""Log-densities (n,) and their gradients (n, d)."""


class Gaussian:
    """Ten columns of different scales, neighbors correlated by 0.8; known up to its constant."""

    name, dim = "10-D Gaussian, correlated", 10

    def __init__(self) -> None:
        index, scale = np.arange(self.dim), np.linspace(0.5, 2, self.dim)
        covariance = 0.8 ** np.abs(index[:, None] - index) * np.outer(scale, scale)
        self.mean, self.precision = np.linspace(-1, 1, self.dim), np.linalg.inv(covariance)
        self.log_evidence = 0.5 * (self.dim * LOG_2PI + np.linalg.slogdet(covariance)[1])

    def __call__(self, x: np.ndarray) -> Values:
        slope = (self.mean - x) @ self.precision
        return 0.5 * ((x - self.mean) * slope).sum(axis=1), slope


class Funnel:
    """The first column is normal, v ~ N(0, 3^2), nine others are N(0, exp(v)) (Neal 2003, section 8)."""

    name, dim, log_evidence = "10-D funnel (Neal)", 10, 0.0

    def __call__(self, x: np.ndarray) -> Values:
        v, others = x[:, 0], x[:, 1:]
        precision, n = np.exp(-v), self.dim - 1
        squares = precision * (others**2).sum(axis=1)
        log_p = -0.5 * (v**2 / 9 + n * v + squares + self.dim * LOG_2PI) - math.log(3)
        return log_p, np.column_stack([-v / 9 - 0.5 * n + 0.5 * squares, -precision[:, None] * others])


class TwoModes:
    """Two round Gaussians in four columns, 6 apart: 30 % with deviation 0.5, 70 % with deviation 1."""

    name, dim, log_evidence = "4-D, two modes", 4, 0.0
    weights, means, deviations = np.array([0.3, 0.7]), np.array([-1.5, 1.5]), np.array([0.5, 1.0])

    def __call__(self, x: np.ndarray) -> Values:
        away = (x[:, None, :] - self.means[:, None]) / self.deviations[:, None]
        logs = np.log(self.weights) - 0.5 * (away**2).sum(axis=2) - self.dim * (np.log(self.deviations) + 0.5 * LOG_2PI)
        log_p = logsumexp(logs, axis=1)
        share = np.exp(logs - log_p[:, None]) / self.deviations
        return log_p, -(share[:, :, None] * away).sum(axis=1)

    def note(self, found: ImportanceWeights) -> str:
        first = found.x.sum(axis=1) < 0
        return (f"{first.mean():.4f} of the samples in the mode that holds {self.weights[0]}, "
                f"{found.weights[first].sum():.4f} of their importance weights")  # fmt: skip


class LogisticRegression:
    """Posterior of an intercept and two coefficients, 40 rows, prior N(0, 3^2); the evidence is a sum over a grid."""

    name, dim, prior = "logistic regression, 3 coefficients", 3, 3.0

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.rows = np.column_stack([np.ones(40), rng.standard_normal((40, 2))])
        self.signs = np.where(rng.random(40) < expit(self.rows @ [-0.5, 2.0, -1.0]), 1.0, -1.0)
        self.log_evidence = self.sum_over_grid(0.5)

    def __call__(self, b: np.ndarray) -> Values:
        margin = self.signs * (b @ self.rows.T)
        log_prior = -0.5 * (b**2).sum(axis=1) / self.prior**2 - self.dim * (math.log(self.prior) + 0.5 * LOG_2PI)
        return log_prior + log_expit(margin).sum(axis=1), (self.signs * expit(-margin)) @ self.rows - b / self.prior**2

    def sum_over_grid(self, step: float, reach: float = 14.0) -> float:
        """Log of the trapezoid sum, in units of the posterior's spread at its mode; half the step gives the same."""

        def loss(b: np.ndarray) -> tuple[float, np.ndarray]:
            log_p, slope = self(b[None])
            return -log_p[0], -slope[0]

        mode = minimize(loss, np.zeros(self.dim), jac=True, method="BFGS").x
        p = expit(self.rows @ mode)
        spread = np.linalg.cholesky(np.linalg.inv((self.rows.T * (p * (1 - p))) @ self.rows + np.eye(3) / self.prior**2))
        side = np.arange(-reach, reach + step / 2, step)
        sheet = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
        sheets = [self(mode + np.column_stack([np.full(len(sheet), t), sheet]) @ spread.T)[0] for t in side]
        return float(logsumexp(sheets)) + math.log(step**3 * np.linalg.det(spread))


TARGETS: dict[str, Callable[[], Any]] = {
    "gaussian": Gaussian, "funnel": Funnel, "modes": TwoModes, "logistic": LogisticRegression
}  # fmt: skip
BUDGET = {"max_steps": 4000, "batch_size": 256, "learning_rate": 5e-3, "ema": 0.99}
"""Options of `fit_variational` where a fit names no others: Adam with cosine decay."""
NETWORK = {"hidden_dims": (32, 32), "activation": "silu"}


class Fit(NamedTuple):
    """A flow and how it is drawn to a target."""

    target: str
    model: str
    flow: Mapping[str, Any]
    options: Mapping[str, Any] = {}
    spread: float = 1.0
    """Deviation of the base distribution in the units of x."""

    def make(self, dim: int) -> npflows.NormalizingFlow:
        flow = getattr(npflows, self.model)(dim, rng=0, **{**NETWORK, **self.flow})
        flow.standardize.set(0.0, self.spread)
        return flow


SPLINES = {"num_layers": 4, "tail_bound": 5.0}
MODES = {"learning_rate": 1e-3, "clip_norm": None}
"""Rare samples between the modes say how much each of them holds: their large gradients are not clipped."""
FITS = {
    "gaussian-spline": Fit("gaussian", "NeuralSplineFlow", SPLINES),
    "gaussian-realnvp": Fit("gaussian", "RealNVP", {"num_coupling_layers": 8}),
    "gaussian-maf": Fit("gaussian", "MAF", {"num_layers": 5}),
    "gaussian-iaf": Fit("gaussian", "IAF", {"num_layers": 5}),
    "funnel-spline": Fit(
        "funnel", "NeuralSplineFlow", {"num_layers": 6, "num_bins": 16, "tail_bound": 8.0}, {"learning_rate": 2e-3}, 4.0
    ),
    "funnel-maf": Fit("funnel", "MAF", {"num_layers": 3}),
    "modes-spline": Fit("modes", "NeuralSplineFlow", SPLINES, {**MODES, "tempering": 0.5}, 2.5),
    "modes-untempered": Fit("modes", "NeuralSplineFlow", SPLINES, MODES, 2.5),
    "logistic-spline": Fit("logistic", "NeuralSplineFlow", SPLINES),
}


def measure(fit: Fit, target: Any, n_samples: int) -> tuple[list[str], str]:
    """Cells of the table, and what else there is to say."""
    flow = fit.make(target.dim)
    started = time.perf_counter()
    flow.fit_variational(target, progress=False, rng=0, **{**BUDGET, **fit.options})
    seconds = time.perf_counter() - started
    found = flow.importance_weights(n_samples, rng=1)
    error = found.log_weights.std(ddof=1) / math.sqrt(n_samples)
    cells = [
        f"{flow.history['step'][-1]:,}",
        f"{seconds:.1f}",
        f"{found.elbo:.5f}",
        f"{target.log_evidence - found.elbo:.5f} ± {error:.5f}",
        f"{found.log_evidence:.5f} ± {found.log_evidence_error:.5f}",
        f"{target.log_evidence:.5f}",
        f"{found.ess / n_samples:.2%}",
    ]
    return cells, target.note(found) if hasattr(target, "note") else ""


def describe(fit: Fit) -> str:
    options = {**NETWORK, **fit.flow, **BUDGET, **fit.options}
    if fit.spread != 1:
        options["spread"] = fit.spread
    return f"{fit.model}: {', '.join(f'{name}={value!r}' for name, value in options.items())}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(FITS), default=list(FITS), metavar="NAME",
                        help=f"of {', '.join(FITS)}")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="few steps, for CI")
    arguments = parser.parse_args()
    chosen = {name: FITS[name] for name in arguments.only}
    few, n_samples = {"max_steps": 10}, 2000 if arguments.quick else 100_000
    if arguments.quick:
        chosen = {name: fit._replace(options={**fit.options, **few}) for name, fit in chosen.items()}
    targets = {name: TARGETS[name]() for name in dict.fromkeys(fit.target for fit in chosen.values())}
    print(machine(), end="\n\n")
    for name, fit in chosen.items():
        print(f"* {name}: {describe(fit)}")
    lines, notes = [], []
    for name, fit in chosen.items():
        target = targets[fit.target]
        measure(fit._replace(options={**fit.options, **few}), target, 2000)
        print(f"{name} ...", file=sys.stderr)
        cells, note = measure(fit, target, n_samples)
        lines.append([name, target.name, *cells])
        notes += [f"* {name}: {note}"] if note else []
    head = ["fit", "target", "steps", "seconds", "ELBO", "KL", "log-evidence", "true", "ESS"]
    print("\n" + table(head, lines))
    if notes:
        print("", *notes, sep="\n")


if __name__ == "__main__":
    main()
