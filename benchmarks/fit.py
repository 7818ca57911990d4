"""`fit` from end to end on a real table."""

from __future__ import annotations

import math
import time

import numpy as np

from .common import MODELS, QUICK, few


def galaxies() -> np.ndarray:
    """The table that npflows ships; something like it for commits that have none."""
    try:
        from npflows.data import load_galaxies
    except ImportError:
        rng = np.random.default_rng(0)
        return (rng.standard_normal((20000, 7)) @ rng.standard_normal((7, 7))).astype("float32")
    return load_galaxies()[0]


class Fit:
    """Seconds of an epoch of `fit` on 20,000 rows (4,000 in a quick pass), all that it does counted: checks, split,
    shuffles, steps, validation."""

    params = (list(MODELS), few((64, 64), (128, 128)), few(256, 1024))
    param_names = ("model", "hidden", "batch_size")
    unit = "s"
    timeout = 300
    epochs = 1 if QUICK else 5

    def setup(self, model: str, hidden: tuple[int, ...], batch_size: int) -> None:
        self.x = galaxies()[: 4000 if QUICK else None]
        self.flow = MODELS[model](self.x.shape[1], hidden, rng=0)
        self._fit(batch_size, 1)

    def _fit(self, batch_size: int, epochs: int) -> None:
        self.flow.fit(self.x, batch_size=batch_size, max_epochs=epochs, patience=None, progress=False, rng=0)

    def track_epoch(self, model: str, hidden: tuple[int, ...], batch_size: int) -> float:
        started = time.perf_counter()
        self._fit(batch_size, self.epochs)
        return (time.perf_counter() - started) / self.epochs


class FitToLogLikelihood:
    """Seconds of `fit` until the held-out rows' mean log-likelihood has reached 2, in the table's units (a quick pass: one
    epoch); NaN where 60 epochs do not get there."""

    params = (list(MODELS), few((64, 64), (128, 128)), few(256, 1024))
    param_names = ("model", "hidden", "batch_size")
    unit = "s"
    timeout = 600
    target = -math.inf if QUICK else 2.0

    def setup(self, model: str, hidden: tuple[int, ...], batch_size: int) -> None:
        self.x = galaxies()[: 4000 if QUICK else None]
        self._fit(model, hidden, batch_size, -math.inf)  # compiles

    def _fit(self, model: str, hidden: tuple[int, ...], batch_size: int, target: float) -> bool:
        """Whether it got there."""
        flow = MODELS[model](self.x.shape[1], hidden, rng=0)
        flow.fit(self.x, batch_size=batch_size, max_epochs=60, patience=None, learning_rate=3e-3, schedule="constant",
                 progress=False, rng=0, callbacks=lambda flow, record: -record["validation_loss"] >= target)  # fmt: skip
        return -flow.history["validation_loss"][-1] >= target

    def track_seconds(self, model: str, hidden: tuple[int, ...], batch_size: int) -> float:
        started = time.perf_counter()
        reached = self._fit(model, hidden, batch_size, self.target)
        return time.perf_counter() - started if reached else math.nan
