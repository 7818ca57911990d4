"""Held-out log-likelihoods with each kind of standardization: "diagonal", "auto" and "full".

    python benchmarks/standardize.py [--photometry TABLE.npz] [--quick]

prints a Markdown table.  `thin` has two columns with a correlation of 1 - 1e-8, whose log-likelihood is known; `household`
is that of worst_rows.py; galaxies are those of the package.  --photometry adds the 13 columns of photometric_redshifts.py's
table: six magnitudes, their errors and the redshift, rows with a 99 left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import npflows
from benchmarks.common import machine
from benchmarks.speed_table import table
from benchmarks.worst_rows import household
from npflows.data import load_galaxies

TRAIN, TEST = 10_000, 10_000
KINDS = ("diagonal", "auto", "full")
MODELS = {"spline": npflows.NeuralSplineFlow, "MAF": npflows.MAF}
LEFT = 2e-8
"""The share of the second column's variance that is left when the first is known."""


def thin(n: int, rng: np.random.Generator) -> np.ndarray:
    z = rng.standard_normal((n, 2))
    return np.column_stack([z[:, 0], np.sqrt(1 - LEFT) * z[:, 0] + np.sqrt(LEFT) * z[:, 1]])


def curved(n: int, rng: np.random.Generator) -> np.ndarray:
    """Four columns whose dependence is not linear."""
    z = rng.standard_normal((n, 4))
    z[:, 1] += z[:, 0] ** 2
    z[:, 2] = 0.2 * z[:, 2] + np.sin(2 * z[:, 0])
    z[:, 3] *= np.exp(0.5 * np.clip(z[:, 1], -3, 3))
    return z


def shuffled(x: np.ndarray) -> np.ndarray:
    return x[np.random.default_rng(0).permutation(len(x))][: TRAIN + TEST].astype(np.float64)


def tables(photometry: Path | None) -> dict[str, np.ndarray]:
    n = TRAIN + TEST
    made = {name: make(n, np.random.default_rng(1)) for name, make in
            {"thin": thin, "curved": curved, "household": household}.items()}  # fmt: skip
    made["galaxies"] = shuffled(load_galaxies()[0])
    if photometry is not None:
        with np.load(photometry) as arrays:
            rows = np.concatenate([arrays["train"], arrays["validation"]])
        made["photometry"] = shuffled(rows[(rows != 99).all(axis=1) & np.isfinite(rows).all(axis=1)])
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photometry", type=Path, metavar="TABLE.npz")
    parser.add_argument("--quick", action="store_true", help="one epoch of few rows, for CI")
    arguments = parser.parse_args()
    n, epochs = (1000, 1) if arguments.quick else (TRAIN, 40)
    lines = []
    for name, rows in tables(arguments.photometry).items():
        for model, make in MODELS.items():
            cells = []
            for kind in KINDS:
                print(f"{name}, {model}, {kind} ...", file=sys.stderr)
                started = time.process_time()
                flow = make(rows.shape[1], 5, (64, 64), rng=0)
                flow.fit(rows[:n], standardize=kind, max_epochs=epochs, progress=False, rng=0)
                seconds = time.process_time() - started
                cells.append(f"{flow.log_prob(rows[-TEST:]).mean():.3f} ({seconds:.1f} s)")
            lines.append([name, model, *cells])
    truth = -np.log(2 * np.pi) - 1 - 0.5 * np.log(LEFT)
    print(machine(), "\n")
    print(table(["table", "model", *KINDS], lines))
    print(f"\nThe truth of thin is {truth:.3f}.  In brackets the processor seconds of the fit, compilation included.")


if __name__ == "__main__":
    main()
