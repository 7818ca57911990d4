"""How far a fit with nothing given is from the best of many settings, over a public set of tables.

    NPFLOWS_NUM_THREADS=1 python benchmarks/defaults.py RESULTS.jsonl [--seconds S] [--settings N] [--tables NAME ...]
    python benchmarks/defaults.py RESULTS.jsonl --report

fits `NeuralSplineFlow(d).fit(x)`, `FlowDensity().fit(x)`, and N random settings of NeuralSplineFlow and `fit` to each
table.  Every fit sees the training rows alone, of which it holds out what it wants.  The setting with the highest mean
log-likelihood of the validation rows is the best one; it and the defaults are judged by the test rows, over several seeds,
each of which makes or splits the table anew and draws other first weights.  The report says how many nats per column a
default falls short of the best one, with the standard error over the seeds, and how many times its processor time it took.

Each fit appends a line to RESULTS.jsonl, and none that is there already is done again: a command goes on where the last one
ended, after S seconds at the latest.  A setting depends on its number and the table alone.  Each process has one thread;
`--share 0/2` and `--share 1/2` are two processes with one file.  `--label NAME` files the defaults under another name, to
compare them before and after a change: settings are fitted once.  `--photometry TABLE.npz` adds two tables from the file
of photometric_redshifts.py.

Whole numbers and rounded values are dequantized, so that every table has a density.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from scipy import stats
from scipy.special import logsumexp

import npflows
from benchmarks.common import machine
from benchmarks.speed_table import table
from npflows.data import load_galaxies
from npflows.sklearn import FlowDensity

MOST_ROWS = 20_000
"""Rows that a fit sees at most."""
JUDGED = 5_000
"""Rows to choose by, and to judge by, where rows can be drawn at will."""
SEEDS, FEW_ROWS = 3, 1_000
"""Seeds of the defaults and the best setting; below so many rows, twice as many, and of every setting."""
MAX_SECONDS = 600.0
"""A fit of a random setting ends then."""

Columns = tuple[np.ndarray, "np.ndarray | None"]
"""Rows (n, d), and conditions (n, c) or None."""


class Table(NamedTuple):
    """Rows to be drawn or permuted with a generator, how many to train on, and the true log-density where it is known."""

    rows: Callable[[np.random.Generator], Columns]
    n_train: int
    log_density: Callable[..., np.ndarray] | None = None

    @property
    def search_seeds(self) -> int:
        """Seeds with which each setting is tried."""
        return 2 * SEEDS if self.n_train < FEW_ROWS else 1

    @property
    def seeds(self) -> int:
        return max(SEEDS, self.search_seeds)


# ---- tables with known densities


def moons(rng: np.random.Generator, n: int) -> Columns:
    t, lower = rng.uniform(0, np.pi, n), rng.random(n) < 0.5
    return _moon(t, lower) + MOON_NOISE * rng.standard_normal((n, 2)), None


MOON_NOISE = 0.1


def _moon(t: np.ndarray, lower: np.ndarray | bool) -> np.ndarray:
    arc = np.column_stack([np.cos(t), np.sin(t)])
    return np.where(np.reshape(lower, (-1, 1)), [1.0, 0.5] - arc, arc)


def moons_log_density(x: np.ndarray) -> np.ndarray:
    t = np.linspace(0, np.pi, 401)[:-1] + np.pi / 800
    points = np.concatenate([_moon(t, False), _moon(t, True)])
    squares = ((x[:, None] - points) ** 2).sum(axis=2) / MOON_NOISE**2
    return logsumexp(-0.5 * squares, axis=1) - np.log(len(points)) - np.log(2 * np.pi * MOON_NOISE**2)


RADII, RING_NOISE = np.array([0.5, 1.0, 1.5]), 0.05


def rings(rng: np.random.Generator, n: int) -> Columns:
    radius = rng.choice(RADII, n) + RING_NOISE * rng.standard_normal(n)
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]), None


def rings_log_density(x: np.ndarray) -> np.ndarray:
    radius = np.hypot(*x.T)
    return logsumexp(stats.norm.logpdf(radius[:, None], RADII, RING_NOISE), axis=1) - np.log(6 * np.pi * radius)


THIN = np.linalg.cholesky(0.001 * np.eye(6) + 0.999)


def thin(rng: np.random.Generator, n: int) -> Columns:
    return rng.standard_normal((n, 6)) @ THIN.T, None


def thin_log_density(x: np.ndarray) -> np.ndarray:
    return stats.multivariate_normal(np.zeros(6), THIN @ THIN.T).logpdf(x)


SCALES = np.array([0.3, 0.6, 1.0])


def heavy(rng: np.random.Generator, n: int) -> Columns:
    """Three lognormal columns, of which each depends on the one before, and two of Student's t with three degrees."""
    normal = rng.standard_normal((n, 3))
    return np.column_stack([np.exp(SCALES * _cumulative(normal)), rng.standard_t(3, (n, 2))]), None


def _cumulative(normal: np.ndarray) -> np.ndarray:
    mixed = normal.copy()
    for d in (1, 2):
        mixed[:, d] = 0.8 * mixed[:, d - 1] + 0.6 * normal[:, d]
    return mixed


def heavy_log_density(x: np.ndarray) -> np.ndarray:
    mixed = np.log(x[:, :3]) / SCALES
    normal = mixed.copy()
    normal[:, 1:] = (mixed[:, 1:] - 0.8 * mixed[:, :-1]) / 0.6
    slopes = np.log(SCALES).sum() + 2 * np.log(0.6) + np.log(x[:, :3]).sum(axis=1)
    return stats.norm.logpdf(normal).sum(axis=1) - slopes + stats.t.logpdf(x[:, 3:], 3).sum(axis=1)


CENTERS = np.random.default_rng(5).uniform(-1, 1, (6, 4))
WIDTHS, SHARES = np.array([0.02, 0.02, 0.05, 0.1, 0.3, 0.5]), np.array([0.1, 0.1, 0.2, 0.2, 0.2, 0.2])


def narrow(rng: np.random.Generator, n: int) -> Columns:
    """A mixture of normal distributions in four dimensions, of which some are narrow."""
    which = rng.choice(len(SHARES), n, p=SHARES)
    return CENTERS[which] + WIDTHS[which, None] * rng.standard_normal((n, 4)), None


def narrow_log_density(x: np.ndarray) -> np.ndarray:
    each = stats.norm.logpdf(x[:, None], CENTERS, WIDTHS[:, None]).sum(axis=2)
    return logsumexp(each + np.log(SHARES), axis=1)


def funnel(rng: np.random.Generator, n: int) -> Columns:
    """A normal column, the logarithm of the scale of four others."""
    first = rng.standard_normal((n, 1))
    return np.hstack([first, np.exp(first) * rng.standard_normal((n, 4))]), None


def funnel_log_density(x: np.ndarray) -> np.ndarray:
    scale = np.exp(x[:, :1])
    return stats.norm.logpdf(x[:, 0]) + stats.norm.logpdf(x[:, 1:], scale=scale).sum(axis=1)


def conditional(rng: np.random.Generator, n: int) -> Columns:
    """Two columns whose mean, spread and skewness depend on three conditions, of which one is without effect."""
    condition = rng.uniform(-1, 1, (n, 3))
    mean, scale = _moments(condition)
    first = mean + scale * rng.standard_normal(n)
    second = first**2 + np.sin(4 * condition[:, 1]) + 0.2 * rng.standard_normal(n)
    return np.column_stack([first, second]), condition


def _moments(condition: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.sin(3 * condition[:, 0]), np.exp(condition[:, 1] - 1)


def conditional_log_density(x: np.ndarray, condition: np.ndarray) -> np.ndarray:
    mean, scale = _moments(condition)
    return stats.norm.logpdf(x[:, 0], mean, scale) + stats.norm.logpdf(
        x[:, 1], x[:, 0] ** 2 + np.sin(4 * condition[:, 1]), 0.2
    )


# ---- tables of measurements


def dequantized(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each column with uniform noise as wide as the last decimal place that it has, six at most."""
    x = np.array(x, np.float64)
    for column in x.T:
        places = next((k for k in range(6) if np.allclose(column, np.round(column, k), rtol=0, atol=1e-9)), 6)
        column += rng.uniform(-0.5, 0.5, len(column)) * 10.0**-places
    return x


def measured(load: Callable[[], np.ndarray], rng: np.random.Generator) -> Columns:
    return dequantized(rng.permutation(load()), rng), None


def of_sklearn(name: str) -> np.ndarray:
    from sklearn import datasets  # here, for the sake of --help

    options = {"scaled": False} if name == "diabetes" else {}
    return getattr(datasets, f"load_{name}")(return_X_y=True, **options)[0]


def digits(rng: np.random.Generator) -> Columns:
    pixels = rng.permutation(of_sklearn("digits"))
    return pixels + rng.random(pixels.shape), None


def principal(rng: np.random.Generator) -> Columns:
    """The ten first principal components of digits."""
    x, _ = digits(rng)
    _, _, directions = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    return (x - x.mean(axis=0)) @ directions[:10].T, None


def galaxies(rng: np.random.Generator) -> Columns:
    return rng.permutation(load_galaxies()[0]), None


def photometry(path: Path, given: bool, rng: np.random.Generator) -> Columns:
    """Redshift and six magnitudes; or the redshift, given colors and errors."""
    with np.load(path) as arrays:
        rows = np.concatenate([arrays["train"], arrays["validation"]])
    rows = rng.permutation(rows[(rows != 99).all(axis=1)].astype(np.float64))
    magnitudes, errors, redshift = np.split(rows, [6, 12], axis=1)
    if not given:
        return np.column_stack([redshift, magnitudes]), None
    return redshift, np.column_stack([magnitudes[:, 3], -np.diff(magnitudes), np.log(errors)])


def drawn(
    draw: Callable[[np.random.Generator, int], Columns], n: int, log_density: Callable[..., np.ndarray]
) -> Table:  # fmt: skip
    return Table(lambda rng: draw(rng, n + 2 * JUDGED), n, log_density)


def shipped(name: str, n: int) -> Table:
    """Seven tenths of a table of n rows to train on."""
    return Table(partial(measured, partial(of_sklearn, name)), n * 7 // 10)


TABLES: dict[str, Table] = {
    "galaxies": Table(galaxies, 14_000),
    "moons": drawn(moons, 1_000, moons_log_density),
    "rings": drawn(rings, 5_000, rings_log_density),
    "thin": drawn(thin, 2_000, thin_log_density),
    "heavy": drawn(heavy, 10_000, heavy_log_density),
    "narrow": drawn(narrow, 20_000, narrow_log_density),
    "funnel": drawn(funnel, 5_000, funnel_log_density),
    "conditional": drawn(conditional, 5_000, conditional_log_density),
    "iris": shipped("iris", 150),
    "wine": shipped("wine", 178),
    "breast_cancer": shipped("breast_cancer", 569),
    "diabetes": shipped("diabetes", 442),
    "digits": Table(digits, 1_257),
    "digits-10": Table(principal, 1_257),
}


# ---- fits


class Split(NamedTuple):
    """Rows to train on, to choose by, and to judge by."""

    train: Columns
    validation: Columns
    test: Columns

    @classmethod
    def of(cls, source: Table, seed: int, most: int) -> Split:
        x, condition = source.rows(np.random.default_rng([seed, 1]))
        a = source.n_train
        b = (a + len(x)) // 2

        def part(start: int, end: int) -> Columns:
            return x[start:end], None if condition is None else condition[start:end]

        return cls(part(0, min(a, most)), part(a, b), part(b, len(x)))

    def head(self, n: int) -> Columns:
        x, condition = self.train
        return x[:n], None if condition is None else condition[:n]


Setting = Mapping[str, Mapping[str, Any]]
"""Arguments of the flow, and of its `fit`."""


def random_setting(name: str, number: int) -> Setting:
    """The setting of this number for a table."""
    rng = np.random.default_rng([number, zlib.crc32(name.encode())])

    def log_uniform(low: float, high: float) -> float:
        return float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.3g}")

    flow = {
        "num_layers": int(rng.integers(3, 11)),
        "hidden_dims": (int(rng.choice([32, 64, 128, 192, 256])),) * int(rng.integers(1, 4)),
        "num_bins": int(rng.choice([4, 8, 12, 16, 24])),
        "tail_bound": round(float(rng.uniform(3, 10)), 1),
        "linear": str(rng.choice(["lu", "lu", "permutation"])),
        "conditioner": str(rng.choice(["coupling", "coupling", "autoregressive"])),
    }
    fit = {
        "learning_rate": log_uniform(3e-4, 1e-2),
        "batch_size": int(2 ** rng.integers(7, 12)),
        "max_epochs": int(rng.choice([30, 60, 100, 200])),
        "weight_decay": log_uniform(1e-3, 3.0) if rng.random() < 0.5 else 0.0,
        "dropout": float(rng.choice([0.0, 0.0, 0.05, 0.1, 0.2, 0.3])),
        "ema": [None, 0.9, 0.99, 0.995, 0.999][rng.integers(5)],
    }
    return {"flow": flow, "fit": fit}


class Job(NamedTuple):
    """A fit: `what` is the name of a setting or a default, `setting` None for defaults."""

    table: str
    what: str
    seed: int
    setting: Setting | None

    @property
    def key(self) -> tuple[str, str, int]:
        return self.table, self.what, self.seed


def fitted(job: Job, train: Columns, shorter: Mapping[str, Any]) -> npflows.NormalizingFlow:
    x, condition = train
    if job.setting is None and job.what.startswith("FlowDensity"):
        return FlowDensity(random_state=job.seed, **shorter).fit(x).flow_
    condition_dim = 0 if condition is None else condition.shape[1]
    flow, fit = (
        ({}, {}) if job.setting is None else (job.setting["flow"], {"max_seconds": MAX_SECONDS, **job.setting["fit"]})
    )
    model = npflows.NeuralSplineFlow(x.shape[1], condition_dim=condition_dim, rng=job.seed, **flow)
    return model.fit(x, condition=condition, progress=False, rng=job.seed, **{**fit, **shorter})


def measure(job: Job, source: Table, most: int, shorter: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the file."""
    split = Split.of(source, job.seed, most)
    fitted(job, split.head(64), {**shorter, "max_epochs": 1})  # compiles
    started = time.process_time()
    flow = fitted(job, split.train, shorter)
    seconds = time.process_time() - started
    scores = {name: float(flow.log_prob(*rows).mean()) for name, rows in zip(("validation", "test"), split[1:])}
    if source.log_density is not None:
        scores["truth"] = float(source.log_density(*(part for part in split.test if part is not None)).mean())
    return {"table": job.table, "what": job.what, "seed": job.seed, **scores, "columns": split.train[0].shape[1],
            "rows": len(split.train[0]), "seconds": round(seconds, 3), "epochs": len(flow.history["epoch"]),
            "setting": job.setting}  # fmt: skip


Results = dict[tuple[str, str, int], dict[str, Any]]


def read(path: Path) -> Results:
    """The lines of a file, by the keys of their jobs."""
    found = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return {(line["table"], line["what"], line["seed"]): line for line in found}


def defaults(name: str, label: str) -> list[str]:
    """What is fitted to a table with nothing given."""
    models = ["NeuralSplineFlow"] if name in CONDITIONED else ["NeuralSplineFlow", "FlowDensity"]
    return [f"{model} {label}".strip() for model in models]


CONDITIONED = ("conditional", "redshift")


def best_setting(results: Results, name: str, source: Table) -> str | None:
    """The name of the setting with the highest validation score, of those tried with all seeds of the search."""
    scores: dict[str, list[float]] = {}
    for (of, what, seed), line in results.items():
        if of == name and line["setting"] is not None and seed < source.search_seeds:
            scores.setdefault(what, []).append(line["validation"])
    means = {what: np.mean(values) for what, values in scores.items() if len(values) == source.search_seeds}
    return max(means, key=lambda what: means[what]) if means else None


def jobs(tables: Mapping[str, Table], settings: int, label: str) -> Iterator[Job]:
    """Defaults first, then settings, each for every table."""
    for seed in range(2 * SEEDS):
        for name, source in tables.items():
            if seed < source.seeds:
                yield from (Job(name, what, seed, None) for what in defaults(name, label))
    for number in range(settings):
        for name, source in tables.items():
            setting = random_setting(name, number)
            yield from (Job(name, f"setting {number}", seed, setting) for seed in range(source.search_seeds))


def best_jobs(results: Results, tables: Mapping[str, Table]) -> Iterator[Job]:
    """The best setting of each table with the seeds that are left."""
    for name, source in tables.items():
        what = best_setting(results, name, source)
        if what is not None:
            setting = random_setting(name, int(what.split()[1]))
            yield from (Job(name, what, seed, setting) for seed in range(source.seeds))


def report(results: Results, tables: Mapping[str, Table]) -> str:
    """A line for each default of each table."""
    lines, chosen = [], []
    for name, source in tables.items():
        best = best_setting(results, name, source)
        whats = {what: None for (of, what, _), line in results.items() if of == name and line["setting"] is None}
        if best is None:
            continue
        setting = results[name, best, 0]["setting"]
        of_best = ", ".join(f"{k}={v!r}" for part in setting.values() for k, v in part.items())
        tried = len({what for (of, what, _), line in results.items() if of == name and line["setting"] is not None})
        chosen.append(f"* {name}, {best} of {tried}: {of_best}")
        for what in whats:
            seeds = [s for s in range(source.seeds) if (name, what, s) in results and (name, best, s) in results]
            if not seeds:
                continue
            mine, its = ([results[name, who, s] for s in seeds] for who in (what, best))
            short = np.array([(b["test"] - a["test"]) / a["columns"] for a, b in zip(mine, its)])
            error = short.std(ddof=1) / np.sqrt(len(short)) if len(short) > 1 else np.nan
            seconds = [np.mean([line["seconds"] for line in found]) for found in (mine, its)]
            truth = [(b["truth"] - b["test"]) / b["columns"] for b in its if "truth" in b]
            lines.append([name, f"{mine[0]['rows']:,} x {mine[0]['columns']}", what, f"{short.mean():+.3f}", f"{error:.3f}",
                          f"{np.mean(truth):.3f}" if truth else "", f"{seconds[0]:.1f}", f"{seconds[0] / seconds[1]:.2f}",
                          str(len(seeds))])  # fmt: skip
    head = ["table", "rows x columns", "default", "nats per column short of the best setting", "standard error",
            "the best one short of the truth", "processor seconds", "times those of the best", "seeds"]  # fmt: skip
    return "\n".join([table(head, lines), "", "The best settings:", "", *chosen])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=Path, help="a file of JSON lines, made if it is missing")
    parser.add_argument("--photometry", type=Path, metavar="TABLE.npz", help="adds the tables photometry and redshift")
    parser.add_argument("--tables", nargs="+", metavar="NAME", help=f"of {', '.join(TABLES)}, photometry, redshift")
    parser.add_argument("--settings", type=int, default=40, metavar="N", help="random settings for each table")
    parser.add_argument("--seconds", type=float, default=np.inf, metavar="S", help="begin no fit after this time")
    parser.add_argument("--share", default="0/1", metavar="I/N", help="every Nth fit, from the Ith")
    parser.add_argument("--label", default="", metavar="NAME", help="what the defaults are filed under")
    parser.add_argument("--report", action="store_true", help="print the Markdown table of what is there, and fit nothing")
    parser.add_argument("--quick", action="store_true", help="one epoch of few rows of three tables, for CI")
    arguments = parser.parse_args()
    started, tables = time.monotonic(), dict(TABLES)
    if arguments.photometry is not None:
        tables["photometry"] = Table(partial(photometry, arguments.photometry, False), MOST_ROWS)
        tables["redshift"] = Table(partial(photometry, arguments.photometry, True), 10_000)
    if unknown := set(arguments.tables or ()) - set(tables):
        parser.error(f"--tables knows {', '.join(tables)}, not {', '.join(sorted(unknown))}")
    tables = {name: tables[name] for name in arguments.tables or tables}
    settings, most, shorter = arguments.settings, MOST_ROWS, {}
    if arguments.quick:
        tables = {name: tables[name] for name in ("moons", "conditional", "wine")}
        settings, most, shorter = 1, 256, {"max_epochs": 1}
    elif arguments.results is None:
        parser.error("RESULTS.jsonl is missing")
    npflows.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "quick.jsonl") if arguments.quick else arguments.results
        if not arguments.report:
            first, every = map(int, arguments.share.split("/"))
            for work in (jobs(tables, settings, arguments.label), best_jobs(read(path), tables)):
                for i, job in enumerate(work):
                    if i % every != first or job.key in read(path):
                        continue
                    if time.monotonic() - started > arguments.seconds:
                        break
                    line = measure(job, tables[job.table], most, shorter)
                    with path.open("a") as file:
                        file.write(json.dumps(line) + "\n")
                    print(f"{' '.join(map(str, job.key))}: {line['test']:.3f} in {line['seconds']:.1f} s", file=sys.stderr)
        print(f"{machine()}\n\n{report(read(path), tables)}")


if __name__ == "__main__":
    main()
