"""Random hostile calls: `python tests/fuzz/calls.py [N] [SEED] [SECONDS]` makes N of them, or as many as there is time for,
and says what came of them.

Models of the registry with tame and wild parameters are asked everything, with values from ordinary to infinite, of all
shapes and types.  A call must answer or raise a ValueError or TypeError of npflows' own, within its time and without a
warning of NumPy; a log-density may be NaN only where its row or condition is, or where the parameters are too wild for the
compute dtype; and one row alone must have the density that it has among others.
"""

from __future__ import annotations

import random
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from registry import MODELS, build, condition, data

VALUES = np.array([0.0, 1.0, -1.0, 0.5, 3.0, 1e-300, 5e-324, 1e30, -1e30, 1e39, -1e200, 1e308, np.inf, -np.inf, np.nan])
ODD = [None, "x", b"x", True, 1.5, -1, 0, 10**400, [], [[]], {}, [[1, 2], [3]], [None], ["a"], 1j, object(), np.nan, (1, 2),
       np.zeros((2, 0)), np.zeros((0, 3)), np.zeros(3, complex), np.zeros((1, 1, 1, 1)), np.array("x"),
       np.array([1, 2], object), float("inf")]  # fmt: skip
QUESTIONS = ["log_prob"] * 4 + ["forward", "inverse", "log_prob_and_grad", "nll_and_grad", "vjp", "call", "sample",
                                "sample_and_log_prob", "unit", "cube"]  # fmt: skip
SLOWEST = 60.0
"""Seconds of the processor that a call may take, compiling included."""


class Calls:
    """The calls on one flow."""

    def __init__(self, name: str, wild: float, seed: int) -> None:
        self.name, self.wild = name, wild
        self.flow = build(name, "float32" if seed % 3 else "float64")
        self.rng, self.draw = np.random.default_rng(seed), random.Random(seed)
        self.x, self.context = data(self.flow, 50).reshape(50, -1), condition(self.flow, 50)
        if wild:
            self.flow.params = self.rng.normal(0, wild, self.flow.num_params)

    def rows(self, n: int) -> np.ndarray:
        """Rows, ordinary ones with some values replaced by hostile ones."""
        rows = self.x[self.rng.integers(0, 50, n)].astype(np.float64)
        hostile = self.rng.random(rows.shape) < self.draw.choice([0.0, 0.0, 0.05, 0.5])
        return np.where(hostile, self.rng.choice(VALUES, rows.shape), rows)

    def conditions(self, n: int) -> np.ndarray | None:
        if self.context is None:
            return None
        rows = np.asarray(self.context)[self.rng.integers(0, 50, n)].astype(np.float64)
        hostile = self.rng.random(rows.shape) < self.draw.choice([0.0, 0.0, 0.2])
        return np.where(hostile, self.rng.choice(VALUES, rows.shape), rows)

    def given(self, value):
        """An argument, seldom an odd one, or in another layout."""
        if self.draw.random() < 0.04:
            return self.draw.choice(ODD)
        if isinstance(value, np.ndarray):
            kind = self.draw.randrange(8)
            if kind == 0:
                return np.asfortranarray(value)
            if kind == 1:
                return value.tolist()
            if kind == 2:
                return value[::-1]
            if kind == 3:
                with np.errstate(all="ignore"):
                    return value.astype(np.float32)
            if kind == 4:
                return value.astype(np.longdouble)
        return value

    def call(self) -> str:
        """Make one call; its name."""
        flow, n = self.flow, self.draw.choice([0, 1, 1, 2, 3, 17])
        x, c = self.given(self.rows(n)), self.given(self.conditions(n))
        what = self.draw.choice(QUESTIONS)
        if what == "log_prob":
            self.check_density(x, c, flow.log_prob(x, c))
        elif what == "sample":
            flow.sample(self.given(n), self.given(1), self.given(1.0), condition=c)
        elif what == "sample_and_log_prob":
            flow.sample_and_log_prob(self.given(n), 1, condition=c)
        elif what == "unit":
            flow.to_unit_cube(x, c)
        elif what == "cube":
            u = self.rng.random((n, flow.latent_dim))
            found = np.asarray(flow.from_unit_cube(self.given(u), c))
            assert np.isfinite(found).all(), "from_unit_cube gives what is not finite"
        elif what == "call":
            flow(x, c)
        elif what == "vjp":
            flow.forward_vjp(x, np.ones((n, flow.latent_dim)), condition=c)
        elif what == "nll_and_grad":
            flow.nll_and_grad(x, condition=c)
        else:
            getattr(flow, what)(x, c)
        return what

    def check_density(self, x, c, log_prob) -> None:
        """NaN where the row or the condition is, and nowhere else with tame parameters; rows are independent."""
        if not isinstance(x, np.ndarray) or x.ndim != 2 or not (c is None or isinstance(c, np.ndarray)) or not len(x):
            return
        log_prob = np.atleast_1d(log_prob)
        unknown = np.isnan(x).any(axis=1)
        if c is not None and c.ndim == 2 and len(c) == len(x):
            lost = self.flow.conditioning.lost(c)
            unknown |= False if lost is None else lost
            assert np.isnan(log_prob[unknown]).all(), "a number where the row or its condition is NaN"
            if not self.wild:
                assert not np.isnan(log_prob[~unknown]).any(), "NaN where neither row nor condition is"
            i = self.draw.randrange(len(x))
            alone = self.flow.log_prob(x[i : i + 1], c[i : i + 1])
        elif c is None and self.context is None:
            assert np.isnan(log_prob[unknown]).all(), "a number where the row is NaN"
            if not self.wild:
                assert not np.isnan(log_prob[~unknown]).any(), "NaN where the row is not"
            i = self.draw.randrange(len(x))
            alone = self.flow.log_prob(x[i : i + 1])
        else:
            return
        assert np.array_equal(alone, log_prob[i : i + 1], equal_nan=True), "a row alone has another density"


def is_our_own(error: Exception) -> bool:
    """Whether an error was raised by a line of npflows that says `raise`, or by NumPy in reading an argument."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if "/npflows/" in frame.filename]
    return bool(inside) and "raise" in (inside[-1].line or "") and frames[-1] is inside[-1]


def calls(n: int, seed: int = 0, seconds: float = np.inf) -> int:
    """Make n calls, or as many as there is time for; the number of failures."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "hidden_dims=", UserWarning)
    draw, counts, failures, done, started = random.Random(seed), Counter(), {}, 0, time.monotonic()
    names = list(MODELS)
    while done < n and time.monotonic() - started < seconds:
        name, wild = draw.choice(names), draw.choice([0.0, 0.0, 1.0, 10.0])
        one = Calls(name, wild, draw.randrange(1 << 30))
        for _ in range(min(500, n - done)):
            done += 1
            before = time.process_time()
            try:
                what = one.call()
                counts[f"{what}: answered"] += 1
            except (ValueError, TypeError) as error:
                if is_our_own(error):
                    counts["refused"] += 1
                else:
                    _note(failures, name, wild, error)
            except Exception as error:
                _note(failures, name, wild, error)
            if time.process_time() - before > SLOWEST:
                _note(failures, name, wild, TimeoutError(f"{time.process_time() - before:.1f} s"))
    n_failed = sum(count for count, _ in failures.values())
    print(f"{done:,} random calls in {time.monotonic() - started:.0f} s (seed {seed}): {n_failed} failures")
    for name, count in sorted(counts.items()):
        print(f"  {count:9,} {name}")
    for key, (count, where) in sorted(failures.items())[:30]:
        print(f"  FAILED {count} times: {key}\n    {where}")
    return n_failed


def _note(failures: dict, name: str, wild: float, error: Exception) -> None:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/npflows/" in f.filename]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "the harness"
    key = f"{type(error).__name__} at {place}: {str(error)[:90]}"
    count, where = failures.get(key, (0, f"{name}, parameters {wild}"))
    failures[key] = count + 1, where


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    sys.exit(calls(*(given or [10000])) > 0)
