"""A table of angles, intervals, half-lines and whole numbers: a million samples, none outside, and no seam to be seen.

    python benchmarks/mixed_table.py [--quick]

prints Markdown tables.  The table is made up from fixed seeds: three angles in three units, each with much of its mass
around its seam and tied to the others, and seven columns that depend on the angles.  A `NeuralSplineFlow` with
`support=` is fitted to 600,000 rows and compared with 100,000 others.

Samples outside the support are counted with plain comparisons.  Around each seam samples and held-out rows are compared
after half a turn, which puts the seam into the middle of a stretch of ordinary numbers: the shares just left and just right
of it (chi-square test), and the distribution of the angle within a tenth of the circle on either side (Kolmogorov-Smirnov
test), also of those rows alone whose next angle lies around its own seam.  A p-value below 0.001 is a failure.  Jumps are
those of the flow's log-density, and of its slope per circumference, from one end of the circle to the other, the largest at
1,000 held-out rows moved there.  The command ends with status 1 if a sample is outside or a p-value is a failure.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from scipy import stats

import npflows
from benchmarks.common import machine
from benchmarks.speed_table import table
from npflows.support import Column, integer, interval, periodic, positive

SUPPORT: dict[str, Column] = {
    "phase": periodic(0.0, 360.0),
    "energy": positive(),
    "share": interval(0.0, 1.0),
    "direction": periodic(-np.pi, np.pi),
    "count": integer(0, 10),
    "width": positive(2.0),
    "hour": periodic(0.0, 24.0),
    "cosine": interval(-1.0, 1.0),
    "flag": integer(0, 1),
    "percent": interval(0.0, 100.0),
}
ANGLES = [name for name, column in SUPPORT.items() if column.is_periodic]
FLOW = {"num_layers": 6, "hidden_dims": (64, 64), "num_bins": 8, "linear": "permutation"}
FIT = {"max_epochs": 8, "batch_size": 512, "learning_rate": 2e-3, "patience": None}
ROWS, HELD_OUT, SAMPLES = 600_000, 100_000, 1_000_000
FAILURE = 1e-3
STRIP, WINDOW = 0.01, 0.1
"""Shares of the circle on either side of the seam."""


def make_table(n: int, seed: int) -> np.ndarray:
    """n rows with the columns of `SUPPORT`."""
    rng = np.random.default_rng(seed)
    phase = rng.vonmises(-0.2, 1.5, n)
    direction = np.pi + phase + rng.vonmises(0.3, 4.0, n)
    hour = 0.5 * np.sin(direction) + rng.vonmises(0.0, 3.0, n)
    energy = np.exp(0.8 * np.cos(direction) + 0.5 * rng.standard_normal(n))
    logit = 1.5 * np.sin(phase) + 0.7 * rng.standard_normal(n)
    share = 1 / (1 + np.exp(-logit))
    columns = {
        "phase": np.rad2deg(phase) % 360,
        "energy": energy,
        "share": share,
        "direction": (direction + np.pi) % (2 * np.pi) - np.pi,
        "count": rng.binomial(10, share),
        "width": 2 + rng.gamma(2 + energy, 0.3),
        "hour": (hour * 12 / np.pi) % 24,
        "cosine": np.tanh(np.cos(hour - phase) + 0.6 * rng.standard_normal(n)),
        "flag": rng.random(n) < energy / (1 + energy),
        "percent": 100 * rng.beta(1 + 2 * share, 1.5),
    }
    return np.column_stack([columns[name] for name in SUPPORT])


def n_outside(x: np.ndarray, column: Column) -> int:
    """How many values are not where the column says."""
    if column.is_integer:
        inside = np.isin(x, np.arange(column.low, column.high + 1))
    elif column.is_periodic:
        inside = (x >= column.low) & (x < column.high)
    elif hasattr(column, "high"):
        inside = (x > column.low) & (x < column.high)
    else:
        inside = (x > column.lower) & np.isfinite(x)
    return int((~inside).sum())


def from_seam(x: np.ndarray, name: str) -> np.ndarray:
    """Angles as shares of the circle, from -0.5 to 0.5, with the seam at 0."""
    column, values = SUPPORT[name], x[:, list(SUPPORT).index(name)]
    return ((values - column.low) / (column.high - column.low) + 0.5) % 1 - 0.5


def strips(a: np.ndarray) -> list[int]:
    """How many lie just left and just right of the seam, and elsewhere."""
    left, right = int(((a < 0) & (a >= -STRIP)).sum()), int(((a >= 0) & (a < STRIP)).sum())
    return [left, right, len(a) - left - right]


def jumps(flow: npflows.NormalizingFlow, x: np.ndarray, name: str) -> tuple[float, float]:
    """The largest difference of log-density, and of its slope per circumference, between the ends of a circle."""
    d, column, ends = list(SUPPORT).index(name), SUPPORT[name], []
    for value in (column.low, np.nextafter(column.high, column.low)):
        moved = x.copy()
        moved[:, d] = value
        log_prob, slope = flow.log_prob_and_grad(moved)
        ends.append((log_prob, slope[:, d] * (column.high - column.low)))
    return float(abs(ends[0][0] - ends[1][0]).max()), float(abs(ends[0][1] - ends[1][1]).max())


def compare(flow: npflows.NormalizingFlow, held_out: np.ndarray, samples: np.ndarray) -> tuple[list[list[str]], float]:
    """A line for each angle, and the smallest p-value."""
    lines, smallest = [], 1.0
    for name, following in zip(ANGLES, ANGLES[1:] + ANGLES[:1]):
        data, drawn = from_seam(held_out, name), from_seam(samples, name)
        counts = [strips(data), strips(drawn)]
        both = [
            abs(a) < WINDOW if alone else (abs(a) < WINDOW) & (abs(from_seam(x, following)) < WINDOW)
            for alone in (True, False)
            for x, a in ((held_out, data), (samples, drawn))
        ]
        p_values = [
            stats.chi2_contingency(counts)[1],
            stats.ks_2samp(data[both[0]], drawn[both[1]]).pvalue,
            stats.ks_2samp(data[both[2]], drawn[both[3]]).pvalue,
        ]
        smallest = min(smallest, *p_values)
        shares = [f"{c[0] / sum(c):.3%} and {c[1] / sum(c):.3%}" for c in counts]
        jump = jumps(flow, held_out[:1000], name)
        lines.append([name, *shares, *(f"{p:.3f}" for p in p_values), *(f"{j:.1g}" for j in jump)])
    return lines, smallest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rows and two epochs, for CI; p-values don't count")
    quick = parser.parse_args().quick
    n_rows, n_held_out, n_samples = (4000, 2000, 50_000) if quick else (ROWS, HELD_OUT, SAMPLES)
    fit = {**FIT, "max_epochs": 2} if quick else FIT
    x, held_out = make_table(n_rows, 0), make_table(n_held_out, 1)
    flow = npflows.NeuralSplineFlow(len(SUPPORT), support=SUPPORT, columns=list(SUPPORT), rng=0, **FLOW)
    started = time.perf_counter()
    flow.fit(x, rng=0, progress=False, **fit)
    fitted = time.perf_counter()
    samples = flow.sample(n_samples, 2)
    drawn = time.perf_counter()
    print(machine())
    options = ", ".join(f"{name}={value!r}" for name, value in {**FLOW, **fit}.items())
    print(f"\nNeuralSplineFlow: {options}; {n_rows:,} rows in {fitted - started:.0f} s, compilation included")
    print(f"{n_samples:,} samples in {drawn - fitted:.1f} s; mean log-likelihood of {n_held_out:,} held-out rows "
          f"{flow.log_prob(held_out).mean():.3f}\n")  # fmt: skip
    outside = {name: n_outside(samples[:, d], column) for d, (name, column) in enumerate(SUPPORT.items())}
    ranges = [f"{low:.6g} to {high:.6g}" for low, high in zip(samples.min(axis=0), samples.max(axis=0))]
    lines = [[name, repr(SUPPORT[name]), ranges[d], str(n)] for d, (name, n) in enumerate(outside.items())]
    print(table(["column", "support", "samples from, to", "outside"], lines))
    lines, smallest = compare(flow, held_out, samples)
    head = ["angle", "held out, left and right of the seam", "samples", "p of these shares", "p around the seam",
            "p around two seams", "jump of log p", "jump of its slope"]  # fmt: skip
    print(f"\n{table(head, lines)}")
    if any(outside.values()) or (smallest < FAILURE and not quick):
        sys.exit(f"failed: {sum(outside.values())} values outside, smallest p-value {smallest:.2g}")


if __name__ == "__main__":
    main()
