"""The log-densities of held-out rows far out, with tails that are drawn in by a logarithm and without.

    python benchmarks/worst_rows.py [--draw PICTURE.png] [--quick]

prints a Markdown table: mean and median of the log-densities of 10,000 held-out rows, the mean without the worst 0.1 %, and
the worst ones, for each table and model.  PICTURE shows the worst 0.1 %, ranked.

Two tables are drawn as real ones look: `household` has currents that follow from powers, meters that rest at whole numbers,
and rare peaks; `cells` has five populations in units of light, whose brightest cells lie far out.  The third are the 20,000
galaxies of the package.  The last two ways of each table differ in `log_tails` alone; the first one is a fit with nothing
against rows far out: neither these tails, nor a standardization without correlations, nor an average of the parameters.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import npflows
from benchmarks.common import machine
from benchmarks.speed_table import table
from npflows.data import load_galaxies

TEST = 10_000
WORST = TEST // 1000
FIT = {"max_epochs": 30, "progress": False, "rng": 0}
BARE = {"standardize": "diagonal", "ema": None, "warmup_steps": 0, "learning_rate": 1e-3}
WAYS: dict[str, tuple[float | None, dict[str, Any]]] = {"bare": (None, BARE), "no tails": (None, {}), "tails": (5.0, {})}
"""`log_tails`, and options of `fit`."""
MODELS: dict[str, Callable[..., npflows.NormalizingFlow]] = {
    "MAF": npflows.MAF,
    "RealNVP": npflows.RealNVP,
    "spline": lambda dim, **options: npflows.NeuralSplineFlow(dim, 5, **options),
}


def household(n: int, rng: np.random.Generator) -> np.ndarray:
    """Active and reactive power, voltage, current, and three meters."""

    def meter(levels: list[float], shares: list[float]) -> np.ndarray:
        return rng.choice(levels, n, p=shares) + 0.9 * rng.random(n)

    first = meter([0, 1, 2, 37, 38, 70], [0.93, 0.035, 0.014, 0.0105, 0.007, 0.0035])
    second = meter([0, 1, 2, 3, 36, 70], [0.75, 0.15, 0.0625, 0.02, 0.0125, 0.005])
    third = np.where(rng.random(n) < 0.35, rng.normal(17.5, 0.8, n), rng.choice([0.0, 1.0], n, p=[0.7, 0.3]))
    active = np.exp(rng.normal(-0.9, 0.5, n)) + 0.06 * (first + second + third)
    active += np.where(rng.random(n) < 0.01, rng.exponential(2.0, n), 0.0)
    reactive = np.where(rng.random(n) < 0.2, 0.0, np.abs(rng.normal(0.12, 0.1, n))) + 0.002 * rng.random(n)
    voltage = rng.normal(241, 3.2, n) - 0.8 * active
    current = 1020 * active / voltage + 0.2 * rng.random(n)
    return np.column_stack([active, reactive, voltage, current, first, second, third])


def cells(n: int, rng: np.random.Generator) -> np.ndarray:
    """Five populations of cells, their light in six channels, noise included, up to the detector's limit."""
    of_all = np.random.default_rng(5)
    center, spread = of_all.normal(5, 1.5, (5, 6)), of_all.normal(0, 0.3, (5, 6, 6))
    kind = rng.choice(5, n, p=[0.5, 0.25, 0.15, 0.08, 0.02])
    light = np.exp(center[kind] + np.einsum("nij,nj->ni", spread[kind], rng.standard_normal((n, 6))))
    return np.minimum(light + rng.normal(0, 30, (n, 6)), 2.0**18)


def tables(quick: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows to train on and rows to judge by."""
    n = 1000 if quick else 20_000
    galaxies = load_galaxies()[0]
    galaxies = galaxies[np.random.default_rng(0).permutation(len(galaxies))].astype(np.float64)
    made = {
        "household": household(n + TEST, np.random.default_rng(1)),
        "cells": cells(n * 2 // 5 + TEST, np.random.default_rng(1)),
        "galaxies": galaxies,
    }
    return {name: (rows[:-TEST][:n], rows[-TEST:]) for name, rows in made.items()}


def draw(path: Path, ranked: dict[tuple[str, str], dict[str, np.ndarray]]) -> None:
    """The worst 0.1 % of each fit, ranked, tables in rows and models in columns."""
    import matplotlib.pyplot as plt

    names, models = list(dict.fromkeys(name for name, _ in ranked)), list(MODELS)
    figure, axes = plt.subplots(len(names), len(models), figsize=(9, 7), sharex=True, layout="constrained")
    for (name, model), of_ways in ranked.items():
        axis = axes[names.index(name), models.index(model)]
        for (way, lowest), color in zip(of_ways.items(), ("tab:gray", "tab:blue", "tab:orange")):
            axis.plot(np.arange(1, WORST + 1), -lowest, "o-", color=color, ms=4, label=way)
        axis.set_yscale("log")
        axis.set_title(f"{name}, {model}", fontsize=10)
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.supxlabel(f"rank among {TEST:,} held-out rows, from the worst")
    figure.supylabel("nats below a density of 1")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", type=Path, metavar="PICTURE.png")
    parser.add_argument("--quick", action="store_true", help="one epoch of few rows, for CI")
    arguments = parser.parse_args()
    fit = {**FIT, **({"max_epochs": 1} if arguments.quick else {})}
    lines, ranked = [], {}
    for name, (train, test) in tables(arguments.quick).items():
        for model, make in MODELS.items():
            for way, (bound, options) in WAYS.items():
                print(f"{name}, {model}, {way} ...", file=sys.stderr)
                flow = make(train.shape[1], log_tails=bound, rng=0).fit(train, **{**fit, **options})
                log_prob = np.sort(flow.log_prob(test))
                ranked.setdefault((name, model), {})[way] = log_prob[:WORST]
                lines.append([name, model, way, f"{log_prob.mean():.3f}", f"{np.median(log_prob):.3f}",
                              f"{log_prob[WORST:].mean():.3f}", f"{log_prob[0]:,.0f}", f"{log_prob[4]:,.1f}",
                              f"{log_prob[WORST - 1]:,.1f}"])  # fmt: skip
    print(machine(), "\n")
    head = ["table", "model", "fit", "mean", "median", "mean without the worst 0.1 %", "worst", "5th", "10th"]
    print(table(head, lines))
    if arguments.draw is not None:
        draw(arguments.draw, ranked)


if __name__ == "__main__":
    main()
