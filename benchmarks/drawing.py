"""Drawing samples of base distributions, beside NumPy's generator, and the share that it has of sampling a flow.

    python benchmarks/drawing.py [--threads N]

prints a Markdown table; all pieces of work take turns in one run.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import npflows
from benchmarks.common import few, interleaved, machine, repeated
from npflows import Normal, StudentT, Uniform

ROWS, COLUMNS = 4096, 8
BASES = {"Normal": Normal, "Uniform": Uniform, "StudentT": StudentT}
BY_NUMPY = {
    "Normal": lambda rng: rng.standard_normal((ROWS, COLUMNS)),
    "Uniform": lambda rng: rng.uniform(np.zeros(COLUMNS), np.ones(COLUMNS), (ROWS, COLUMNS)),
    "StudentT": lambda rng: rng.standard_t(np.full(COLUMNS, 5.0), (ROWS, COLUMNS)),
}
"""What draws the same with a Generator of NumPy."""


class Draw:
    """Samples (rows, 8) of a base distribution."""

    params = (list(BASES), few(1, 256, ROWS))
    param_names = ("base", "rows")

    def setup(self, base: str, rows: int) -> None:
        self.base, self.rng = BASES[base](COLUMNS), np.random.default_rng(0)
        self.base.sample(rows, self.rng)

    def time_sample(self, base: str, rows: int) -> None:
        self.base.sample(rows, self.rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=npflows.get_num_threads(), help="threads of npflows")
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    npflows.set_num_threads(given.threads)
    rng = np.random.default_rng(0)
    flow = npflows.MAF(COLUMNS, 5, (64, 64), rng=0)
    work = {"flow": lambda: flow.sample(ROWS, rng)}
    for name, base in BASES.items():
        work[name] = functools.partial(base(COLUMNS).sample, ROWS, rng)
        work[name, "NumPy"] = functools.partial(BY_NUMPY[name], rng)
    found = interleaved({name: repeated(call) for name, call in work.items()}, given.rounds, 2e-3)
    us = {name: 1e6 * float(np.median(seconds)) for name, seconds in found.items()}
    print(f"{machine()}, {given.threads} threads, {ROWS} rows of {COLUMNS} columns\n")
    print("| | npflows, us | NumPy, us | ratio |\n| --- | --- | --- | --- |")
    for name in BASES:
        print(f"| {name} | {us[name]:.0f} | {us[name, 'NumPy']:.0f} | {us[name, 'NumPy'] / us[name]:.1f} |")
    share, before = us["Normal"] / us["flow"], us["Normal", "NumPy"] / (us["flow"] - us["Normal"] + us["Normal", "NumPy"])
    print(f"\nMAF 64x64 draws samples in {us['flow']:.0f} us; drawing normals takes {share:.0%}, by NumPy {before:.0%}.")


if __name__ == "__main__":
    main()
