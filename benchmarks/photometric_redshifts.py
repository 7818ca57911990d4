"""p(redshift | six magnitudes and their errors): how good, how well calibrated, in how many seconds, beside zuko.

    python benchmarks/photometric_redshifts.py [TABLE.npz] [--zuko-python PATH] [--rounds N] [--choose] [--quick]

prints Markdown tables.  TABLE.npz holds `train` and `validation`, whose columns are six magnitudes, the errors of these and
the redshift; rows with a 99 in any column are left out.  Flows are fitted to `train` and judged on `validation`, by which
nothing is decided.  Without a table the 2,000 rows of the examples are used, whose figures do not compare with those of a
whole table.

PATH is a Python that has torch and zuko; they run in processes of their own.  In each round, which has its own seed, every
flow takes its turn.  `zuko` and `same` are one architecture with one budget on the same rows, standardized, in float32.
Seconds are those of training alone: a throw-away fit comes first, and what compilation and imports take is a table of its
own.  Processor seconds, those of all threads together, are less disturbed by other work on the machine.

--choose fits candidates for the other configurations to four fifths of `train` and prints what they say of the fifth that
they have not seen, in the first FOLDS of five such splits; `validation` is not used.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from scipy.special import logsumexp, ndtr

import npflows
from benchmarks.common import in_fresh_process, machine
from benchmarks.speed_table import table

SUBSET = Path(__file__).parents[1] / "examples" / "data" / "dc2_subset.npz"
NOMINAL = np.array([0.5, 0.68, 0.9, 0.95])
PERCENT = [f"{100 * p:.0f} %" for p in NOMINAL]
MAGNITUDES, COLORS = "magnitudes", "colors"
SAME_FLOW = {"num_layers": 3, "hidden_dims": (128, 128), "num_bins": 8, "tail_bound": 5.0, "affine_ends": False,
             "log_tails": None}  # fmt: skip
"""zuko's has the same layers, and its splines the same bound."""
SAME_FIT = {"max_epochs": 60, "batch_size": 256, "learning_rate": 1e-3, "ema": None, "warmup_steps": 0}
FIT = {"patience": None, "validation_fraction": 0}
UNCLIPPED = {"clip_norm": None}  # as zuko's steps are
FOLDS = 5


class Configuration(NamedTuple):
    """Conditional spline flows and how they are fitted; more than one are mixed with equal weights."""

    features: str
    flow: Mapping[str, Any] = {}
    fit: Mapping[str, Any] = {}
    members: int = 1

    def make(self, n_features: int, seed: int) -> npflows.NeuralSplineFlow:
        return npflows.NeuralSplineFlow(1, condition_dim=n_features, rng=seed, **{**SAME_FLOW, **self.flow})

    def describe(self) -> str:
        mixed = f"{self.members} flows, " if self.members > 1 else ""
        return ", ".join([mixed + self.features, *(f"{k}={v!r}" for k, v in {**self.flow, **self.fit}.items())])


DROPOUT = {"dropout": 0.1}
RECIPE = {"learning_rate": 5e-3, "ema": 0.99}
DEEP = {"hidden_dims": (128,), "residual_blocks": 2, **DROPOUT}
CONFIGURATIONS = {
    "same": Configuration(MAGNITUDES, fit=UNCLIPPED),
    "same-colors": Configuration(COLORS, fit=UNCLIPPED),
    "fast": Configuration(COLORS, DROPOUT, {**RECIPE, "max_epochs": 10}),
    "recipe": Configuration(COLORS, DROPOUT, RECIPE),
    "ensemble": Configuration(COLORS, DROPOUT, RECIPE, members=8),
    "deep": Configuration(COLORS, DEEP, {**RECIPE, "learning_rate": 3e-3}),
    "deep-ensemble": Configuration(COLORS, DEEP, {**RECIPE, "learning_rate": 3e-3}, members=8),
}
CANDIDATES = {
    "recipe": CONFIGURATIONS["recipe"],
    "same-colors": CONFIGURATIONS["same-colors"],
    "magnitudes": Configuration(MAGNITUDES, DROPOUT, RECIPE),
    "no dropout": Configuration(COLORS, {}, RECIPE),
    "dropout=0.05": Configuration(COLORS, {"dropout": 0.05}, RECIPE),
    "dropout=0.15": Configuration(COLORS, {"dropout": 0.15}, RECIPE),
    "dropout=0.2": Configuration(COLORS, {"dropout": 0.2}, RECIPE),
    "tail_bound=3": Configuration(COLORS, {**DROPOUT, "tail_bound": 3.0}, RECIPE),
    "learning_rate=1e-3": Configuration(COLORS, DROPOUT, {"ema": 0.99}),
    "learning_rate=1e-2": Configuration(COLORS, DROPOUT, {**RECIPE, "learning_rate": 1e-2}),
    "no ema": Configuration(COLORS, DROPOUT, {"learning_rate": 5e-3}),
    "best epoch of a held-out tenth": Configuration(COLORS, DROPOUT, {**RECIPE, "validation_fraction": 0.1}),
    "early stopping": Configuration(COLORS, {}, {**RECIPE, "validation_fraction": 0.1, "patience": 10}),
    "30 epochs": Configuration(COLORS, DROPOUT, {**RECIPE, "max_epochs": 30}),
    "120 epochs": Configuration(COLORS, DROPOUT, {**RECIPE, "max_epochs": 120}),
    "16 bins": Configuration(COLORS, {**DROPOUT, "num_bins": 16}, RECIPE),
    "5 layers": Configuration(COLORS, {**DROPOUT, "num_layers": 5}, RECIPE),
    "256x256": Configuration(COLORS, {"dropout": 0.2, "hidden_dims": (256, 256)}, {**RECIPE, "learning_rate": 3e-3}),
    "deep": CONFIGURATIONS["deep"],
    "4 members": Configuration(COLORS, DROPOUT, RECIPE, members=4),
    "8 members": CONFIGURATIONS["ensemble"],
}
"""The configurations that `--choose` compares."""


class Rows(NamedTuple):
    """Redshift (n, 1), and the conditions (n, 12) by what they are made of."""

    redshift: np.ndarray
    conditions: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, rows: np.ndarray) -> Rows:
        rows = rows[(rows != 99).all(axis=1)].astype(np.float64)
        magnitudes, errors, redshift = np.split(rows, [6, 12], axis=1)
        colors = np.column_stack([magnitudes[:, 3], -np.diff(magnitudes)])  # i, u - g, g - r, r - i, i - z, z - y
        return cls(redshift, {MAGNITUDES: np.column_stack([magnitudes, np.log(errors)]),
                              COLORS: np.column_stack([colors, np.log(errors)])})  # fmt: skip

    def __getitem__(self, which: Any) -> Rows:  # type: ignore[override]
        return Rows(self.redshift[which], {name: condition[which] for name, condition in self.conditions.items()})


class Result(NamedTuple):
    """Log-density of each new redshift, its value of the distribution function, seconds of training, parameters."""

    log_prob: np.ndarray
    u: np.ndarray
    seconds: float
    processor_seconds: float
    n_parameters: int


def covered(u: np.ndarray) -> np.ndarray:
    """Share of the true redshifts, of probability u (n,), in the central interval of each nominal probability."""
    return (np.abs(2 * u - 1)[:, None] < NOMINAL).mean(axis=0)


def measure(configuration: Configuration, train: Rows, new: Rows, seed: int) -> Result:
    x, condition, new_condition = train.redshift, *(rows.conditions[configuration.features] for rows in (train, new))
    log_prob, u, seconds, processor_seconds, n_parameters = [], [], 0.0, 0.0, 0
    for member in range(configuration.members):
        flow = configuration.make(condition.shape[1], 1000 * seed + member)
        options = {**SAME_FIT, **FIT, **configuration.fit}
        started, processor_started = time.perf_counter(), time.process_time()
        flow.fit(x, condition=condition, progress=False, rng=1000 * seed + member, **options)
        seconds += time.perf_counter() - started
        processor_seconds += time.process_time() - processor_started
        log_prob.append(flow.log_prob(new.redshift, new_condition))
        u.append(ndtr(flow.forward(new.redshift, new_condition)[0][:, 0]))
        n_parameters += flow.num_params
    return Result(logsumexp(log_prob, axis=0) - np.log(len(log_prob)), np.mean(u, axis=0), seconds, processor_seconds,
                  n_parameters)  # fmt: skip


class Zuko:
    """zuko's flow in a process of its own."""

    def __init__(self, python: str, max_epochs: int) -> None:
        self.python, self.fit, self.versions = python, {**SAME_FIT, "max_epochs": max_epochs}, ""

    def measure(self, features: str, threads: int, train: Rows, new: Rows, seed: int) -> Result:
        options = {"layers": SAME_FLOW["num_layers"], "hidden": SAME_FLOW["hidden_dims"], "bins": SAME_FLOW["num_bins"],
                   **self.fit, "seed": seed, "threads": threads}  # fmt: skip
        pairs = {"x": (train.redshift, new.redshift), "condition": (train.conditions[features], new.conditions[features])}
        arrays = {}
        for name, (rows, new_rows) in pairs.items():
            mean, std = rows.mean(axis=0), rows.std(axis=0)
            arrays[name] = ((rows - mean) / std).astype(np.float32)
            arrays[f"new_{name}"] = ((new_rows - mean) / std).astype(np.float32)
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "in.npz"), Path(folder, "out.npz")
            np.savez(source, **arrays)
            child = Path(__file__).with_name("zuko_redshifts.py")
            command = [self.python, str(child), str(source), str(target), json.dumps(options)]
            self.versions = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
            with np.load(target) as found:
                return Result(found["log_prob"] - np.log(train.redshift.std()), found["u"], float(found["seconds"]),
                              float(found["processor_seconds"]), int(found["n_parameters"]))  # fmt: skip


Fit = Callable[[Rows, Rows, int], Result]
"""A measurement: rows to train on, rows to judge by, and a seed give a result."""


def fits(configurations: Mapping[str, Configuration], zuko: Zuko | None, threads: Iterable[int]) -> dict[str, Fit]:
    """By name, in the order of a round."""
    found: dict[str, Fit] = {}
    if zuko is not None:
        for features, n in itertools.product((MAGNITUDES, COLORS), threads):
            name = f"zuko{'' if features == MAGNITUDES else '-colors'}, {n} thread{'s' if n > 1 else ''}"
            found[name] = partial(zuko.measure, features, n)
    return {**found, **{name: partial(measure, c) for name, c in configurations.items()}}


def compare(work: Mapping[str, Fit], train: Rows, new: Rows, rounds: int) -> dict[str, list[Result]]:
    """Results of all rounds, by name."""
    results: dict[str, list[Result]] = {name: [] for name in work}
    for seed, (name, fit) in itertools.product(range(rounds), work.items()):
        results[name].append(fit(train, new, seed))
        print(f"{name}: {results[name][-1].log_prob.mean():.3f} in {results[name][-1].seconds:.1f} s", file=sys.stderr)
    return results


def compared(results: Mapping[str, list[Result]], name: str) -> list[str]:
    """A line of the table of `compare`."""
    found = results[name]
    means = [result.log_prob.mean() for result in found]
    error = np.mean([result.log_prob.std(ddof=1) / np.sqrt(len(result.log_prob)) for result in found])
    shares = np.mean([covered(result.u) for result in found], axis=0)
    seconds = [np.median([values(r) for r in found]) for values in (attrgetter("seconds"), attrgetter("processor_seconds"))]
    same = np.median([mine.seconds / its.seconds for mine, its in zip(found, results.get("same", found))])
    return [name, f"{found[0].n_parameters:,}", f"{np.mean(means):.3f}", f"{min(means):.3f} to {max(means):.3f}",
            f"{error:.3f}", *(f"{100 * share:.1f}" for share in shares), *(f"{value:.1f}" for value in seconds),
            f"{same:.2f}"]  # fmt: skip


def choose(train: Rows, candidates: Mapping[str, Configuration], folds: int) -> str:
    """A table of what each candidate says of the fifths of the training rows that it has not seen."""
    order = np.random.default_rng(0).permutation(len(train.redshift))
    results: dict[str, list[Result]] = {name: [] for name in candidates}
    for left_out in np.array_split(order, FOLDS)[:folds]:
        work = fits(candidates, None, ())
        for name, found in compare(work, train[np.setdiff1d(order, left_out)], train[left_out], 1).items():
            results[name] += found
    log_prob = {name: np.concatenate([result.log_prob for result in found]) for name, found in results.items()}
    reference, lines = next(iter(log_prob.values())), []
    for name, found in results.items():
        gain = log_prob[name] - reference
        shares = covered(np.concatenate([result.u for result in found]))
        lines.append([name, f"{log_prob[name].mean():.3f}", f"{gain.mean():+.3f}",
                      f"{gain.std(ddof=1) / np.sqrt(len(gain)):.3f}", *(f"{100 * share:.1f}" for share in shares),
                      f"{np.median([result.processor_seconds for result in found]):.1f}"])  # fmt: skip
    head = ["candidate", "mean log-likelihood of unseen rows of `train`", "over the first", "standard error of that",
            *PERCENT, "processor seconds"]  # fmt: skip
    return table(head, lines)


def starts(zuko: Zuko | None, train: Rows, quick: bool) -> str:
    """A table of seconds from the start of a process to the end of its first train step."""
    lines = []
    if not quick:
        with tempfile.TemporaryDirectory() as cache:
            seconds = in_fresh_process("first_conditional_step", cache=cache)[0]
        lines.append(["npflows, empty cache of kernels", f"{seconds:.1f}"])
    in_fresh_process("first_conditional_step")
    lines.append(["npflows, warm cache", f"{in_fresh_process('first_conditional_step')[0]:.1f}"])
    if zuko is not None:
        started = time.perf_counter()
        zuko.measure(MAGNITUDES, 1, train[:256], train[:256], 0)
        lines.append(["zuko", f"{time.perf_counter() - started:.1f}"])
    return table(["from the start of a process to the end of its first train step", "seconds"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", type=Path, default=SUBSET, help=".npz file with train and validation")
    parser.add_argument("--zuko-python", metavar="PATH", help="a Python with torch and zuko, to run zuko beside npflows")
    parser.add_argument("--zuko-threads", nargs="+", type=int, metavar="N",
                        default=sorted({1, npflows.get_num_threads()}),
                        help="of torch, one fit for each; with more than one it waits for busy processors")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="how often each flow is fitted, with other seeds")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join(CONFIGURATIONS)}, or of the candidates")
    parser.add_argument("--choose", action="store_true", help="compare candidates on parts of train instead")
    parser.add_argument("--folds", type=int, default=FOLDS, choices=range(1, FOLDS + 1), help="of --choose")
    parser.add_argument("--quick", action="store_true", help="two epochs, one round, for CI")
    arguments = parser.parse_args()
    configurations = CANDIDATES if arguments.choose else CONFIGURATIONS
    if unknown := set(arguments.only or ()) - set(configurations):
        parser.error(f"--only knows {', '.join(configurations)}, not {', '.join(sorted(unknown))}")
    configurations = {name: configurations[name] for name in arguments.only or configurations}
    with np.load(arguments.table) as tables:
        train, new = Rows.of(tables["train"]), Rows.of(tables["validation"])
    rounds, max_epochs = arguments.rounds, SAME_FIT["max_epochs"]
    if arguments.quick:
        rounds, max_epochs = 1, 2
        configurations = {
            name: c._replace(fit={**c.fit, "max_epochs": 2}, members=min(c.members, 2))
            for name, c in configurations.items()
        }
    for configuration in configurations.values():  # compiles
        measure(configuration._replace(fit={**configuration.fit, "max_epochs": 1}, members=1), train[:512], new[:512], 0)
    if arguments.choose:
        found = choose(train, configurations, arguments.folds)
        print(f"{machine()}\n{len(train.redshift):,} rows, {arguments.folds} of {FOLDS} splits\n\n{found}\n")
    else:
        zuko = None if arguments.zuko_python is None else Zuko(arguments.zuko_python, max_epochs)
        results = compare(fits(configurations, zuko, arguments.zuko_threads), train, new, rounds)
        first_steps = starts(zuko, train, arguments.quick)
        print(machine() + ("" if zuko is None else f", {zuko.versions}"))
        print(f"{len(train.redshift):,} rows to train on, {len(new.redshift):,} to judge by, {rounds} rounds\n")
        head = ["fit", "parameters", "mean log-likelihood of `validation`", "lowest and highest round", "standard error",
                *PERCENT, "seconds", "processor seconds", "seconds over those of `same`"]  # fmt: skip
        print(table(head, [compared(results, name) for name in results]))
        print(f"\n{first_steps}\n")
    options = ", ".join(f"{name}={value!r}" for name, value in {**SAME_FLOW, **SAME_FIT, **FIT}.items())
    print(f"Where a fit does not say otherwise: {options}.\n")
    for name, configuration in configurations.items():
        print(f"* {name}: {configuration.describe()}")


if __name__ == "__main__":
    main()
