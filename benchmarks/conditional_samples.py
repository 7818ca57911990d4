"""How many samples of a spline flow miss their condition, by the bound of its splines and the affine layers at its ends.

    python benchmarks/conditional_samples.py [--quick]

prints a Markdown table.  Three columns are their conditions, between -3 and 3, plus normal noise of 0.1.  200,000 samples
are drawn for 200 conditions inside; the truth puts 1.7e-6 of them more than 5 standard deviations off in some column.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import npflows
from benchmarks.common import machine
from benchmarks.speed_table import table

NOISE, TRUTH = 0.1, 3 * (np.log(10) - 0.5 * np.log(2 * np.pi * np.e))
FIT = {"max_epochs": 30, "batch_size": 512, "progress": False, "rng": 0}


def rows(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    condition = rng.uniform(-3, 3, (n, 3))
    return condition + NOISE * rng.standard_normal((n, 3)), condition


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one epoch of few rows, for CI")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    n, fit = (500, {**FIT, "max_epochs": 1}) if arguments.quick else (20_000, FIT)
    (x, condition), (x_new, condition_new) = rows(n, rng), rows(n, rng)
    asked = np.repeat(rng.uniform(-2.9, 2.9, (200, 3)), 10 if arguments.quick else 1000, axis=0)
    lines = []
    for affine_ends in (False, True):
        for bound in (3.0, 4.0, 5.0, 7.0, 10.0):
            flow = npflows.NeuralSplineFlow(3, 5, tail_bound=bound, affine_ends=affine_ends, condition_dim=3, rng=0)
            flow.fit(x, condition=condition, **fit)
            off = np.abs(flow.sample(len(asked), 1, condition=asked) - asked) / NOISE
            lines.append(["yes" if affine_ends else "no", f"{bound:g}", f"{flow.log_prob(x_new, condition_new).mean():.3f}",
                          f"{(off > 5).any(axis=1).mean():.1e}", f"{off.max():.0f}",
                          ", ".join(f"{w:.3f}" for w in np.sqrt((off**2).mean(axis=0)))])  # fmt: skip
    print(machine(), "\n")
    head = ["affine_ends", "tail_bound", "mean log-density of held-out rows", "samples beyond 5 sigma",
            "the farthest, in sigma", "widths, in sigma"]  # fmt: skip
    print(table(head, lines))
    print(f"\nThe truth has a mean log-density of {TRUTH:.3f}, and widths of 1.")


if __name__ == "__main__":
    main()
