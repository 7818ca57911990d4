"""One training run: steps, epochs, what is best so far, and what to do when numbers stop being finite."""

from __future__ import annotations

import functools
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from npflows.engine.program import buffer_count
from npflows.errors import TrainingError
from npflows.training.adam import Adam
from npflows.training.data import Rows
from npflows.training.schedules import Schedule

if TYPE_CHECKING:
    from npflows.flow import NormalizingFlow

PATIENCE_FOR_BAD_STEPS = 5
"""Steps in a row that may fail before the run goes back to its best parameters."""
MAX_RECOVERIES = 5
"""How often it goes back, at half the learning rate each time, before it gives up."""


class Trainer:
    """Maximum likelihood with Adam, the loss of a batch being the (weighted) mean negative log-likelihood.

    Parameters
    ----------
    flow : NormalizingFlow
        Its parameters move with every step; `finish` leaves the best ones.
    train, validation : Rows
        Without validation rows the training loss decides which parameters are best.
    batch_size : int
    schedule : Schedule
    optimizer : Adam
    ema : float or None
        Decay of a moving average of the parameters, which then is what is validated and kept.
    rng : numpy.random.Generator
        Shuffles the rows.
    patience : int or None
        Epochs without improvement after which the run is stuck.
    """

    def __init__(
        self,
        flow: NormalizingFlow,
        train: Rows,
        validation: Rows | None,
        *,
        batch_size: int,
        schedule: Schedule,
        optimizer: Adam,
        ema: float | None,
        rng: np.random.Generator,
        patience: int | None = None,
    ) -> None:
        self.flow, self.train, self.validation = flow, train.normalised(), validation and validation.normalised()
        self.batch_size, self.schedule, self.optimizer, self.ema, self.rng = batch_size, schedule, optimizer, ema, rng
        self.patience = patience
        self.theta = flow._buffer.theta
        self.average = self.theta.copy()
        self.best = self.theta.copy()
        self.best_loss, self.best_epoch = math.inf, 0
        self.epoch, self.step, self.waited, self.bad_in_row, self.recoveries = 0, 0, 0, 0, 0
        self.n_batches = max(1, -(-len(train) // batch_size))
        sizes = {len(part) for part in np.array_split(np.arange(len(train)), self.n_batches)}
        counts = {n: buffer_count(n, self.theta.nbytes) for n in sizes}
        memory = np.zeros((max(counts.values()), self.theta.size), self.theta.dtype)
        self._buffers = {n: memory[:count] for n, count in counts.items()}
        self._log_prob = np.zeros(max(sizes))

    @property
    def is_stuck(self) -> bool:
        """Whether patience is at an end."""
        return self.patience is not None and self.waited >= self.patience

    def begin(self) -> None:
        """Know what the first parameters are worth to the validation rows, so that they are kept if nothing is better."""
        if self.validation is None:
            return
        self.best_loss = self._loss(self.theta, self.validation)
        if math.isnan(self.best_loss):
            self.best_loss = math.inf

    def _loss(self, theta: np.ndarray, rows: Rows) -> float:
        """Mean negative log-likelihood of some rows."""
        program, table = self.flow._compiled(), self.flow.standardize.table
        total = 0.0
        for x, weight, condition in rows.pieces():
            log_prob = program.transport(theta, table, x, condition, y=False, log_det=False, log_prob=True).log_prob
            total -= log_prob.sum() if weight is None else (log_prob * weight).sum()
        return float(total / len(rows))

    def run_epoch(self) -> dict[str, float]:
        """Go through the training rows once and judge the result; returns what the history records."""
        self.epoch += 1
        started = time.perf_counter()
        shuffled = self.rng.permutation(len(self.train))
        total, n_taken, norm, skipped = 0.0, 0, 0.0, 0
        rate = self.schedule.rate(self.step)
        for batch in np.array_split(shuffled, self.n_batches):
            rate = self.schedule.rate(self.step)
            loss, taken, norm = self.run_step(batch, rate)
            if taken:
                total, n_taken = total + loss * len(batch), n_taken + len(batch)
            else:
                skipped += 1
        train_loss = total / n_taken if n_taken else math.nan
        judged = train_loss
        if self.validation is not None:
            judged = self._loss(self.theta if self.ema is None else self.average, self.validation)
        self.waited += n_taken > 0  # an epoch without a step proves nothing
        if judged < self.best_loss:
            self.best_loss, self.best_epoch, self.waited = judged, self.epoch, 0
            self.best[:] = self.theta if self.ema is None else self.average
        if n_taken:
            self.schedule.end_epoch(self.waited)
        return {
            "epoch": self.epoch,
            "train_loss": train_loss,
            "validation_loss": judged if self.validation is not None else math.nan,
            "learning_rate": rate,
            "gradient_norm": norm,
            "skipped_steps": skipped,
            "seconds": time.perf_counter() - started,
        }

    def run_step(self, batch: np.ndarray, rate: float) -> tuple[float, bool, float]:
        """One step on some training rows: its loss, whether it was taken, and the norm of its gradient."""
        x, weight, condition = self.train.take(batch)
        n = len(batch)
        dlog = np.full(n, -1 / n) if weight is None else weight / -n
        buffers, log_prob = self._buffers[n], self._log_prob[:n]
        self.flow._compiled().accumulate(self.theta, self.flow.standardize.table, x, condition, dlog, buffers,
                                         log_prob=log_prob, key=self.step + 1)  # fmt: skip
        loss = float((log_prob * dlog).sum())
        taken, norm = False, math.nan
        if math.isfinite(loss):
            taken, norm = self.optimizer.step(buffers, rate)
        self.step += 1
        if not taken:
            self._after_bad_step()
            return loss, False, norm
        self.bad_in_row = 0
        if self.ema is not None:
            self.average *= self.theta.dtype.type(self.ema)
            self.average += self.theta.dtype.type(1 - self.ema) * self.theta
        return loss, True, norm

    def _after_bad_step(self) -> None:
        """After too many failures in a row: the best parameters again, at half the learning rate; then give up."""
        self.bad_in_row += 1
        if self.bad_in_row < PATIENCE_FOR_BAD_STEPS:
            return
        if self.recoveries == MAX_RECOVERIES:
            raise TrainingError(
                f"epoch {self.epoch}: loss or gradient was not finite in {self.bad_in_row} steps in a row, and going back "
                f"to the best parameters at half the learning rate failed {self.recoveries} times; the flow holds its "
                f"parameters of epoch {self.best_epoch}. Look for outliers in x, or lower learning_rate"
            )
        self.recoveries += 1
        self.bad_in_row = 0
        self.schedule.factor *= 0.5
        self.theta[:] = self.best
        self.average[:] = self.best
        self.optimizer.forget()

    def finish(self) -> None:
        """Leave the best parameters in the flow."""
        self.theta[:] = self.best

    @functools.cached_property
    def options(self) -> dict[str, Any]:
        """What a run that continues this one must have in common with it."""
        schedule = self.schedule
        return {
            "training data": f"{len(self.train)} rows, checksum {self.train.checksum():08x}",
            "validation data": "none"
            if self.validation is None
            else f"{len(self.validation)} rows, checksum {self.validation.checksum():08x}",
            "batch_size": self.batch_size,
            "learning_rate": schedule.peak,
            "schedule": schedule.kind,
            "max_epochs": schedule.total_steps // self.n_batches,
            "warmup_steps": schedule.warmup_steps,
            "weight_decay": self.optimizer.weight_decay,
            "clip_norm": self.optimizer.clip_norm,
            "ema": self.ema,
            "patience": self.patience,
            "generator": type(self.rng.bit_generator).__name__,
        }

    _NUMBERS = ("best_loss", "best_epoch", "epoch", "step", "waited", "bad_in_row", "recoveries")

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """All that changes during a run."""
        validation = np.zeros(0, np.int64) if self.validation is None else self.validation.index
        arrays = {
            "now": self.theta,
            "best": self.best,
            "average": self.average,
            "m": self.optimizer.m,
            "v": self.optimizer.v,
            "train": self.train.index,
            "validation": validation,
        }
        numbers = {name: getattr(self, name) for name in self._NUMBERS}
        numbers.update(
            options=self.options,
            factor=self.schedule.factor,
            adam_steps=self.optimizer.steps,
            generator=self.rng.bit_generator.state,
        )
        return arrays, numbers

    def restore(self, arrays: dict[str, np.ndarray], numbers: dict[str, Any]) -> None:
        """Set what `state` gave, but for the rows, which are chosen before."""
        for name in self._NUMBERS:
            setattr(self, name, numbers[name])
        self.schedule.factor, self.optimizer.steps = numbers["factor"], numbers["adam_steps"]
        self.rng.bit_generator.state = numbers["generator"]
        self.theta[:], self.best[:], self.average[:] = arrays["now"], arrays["best"], arrays["average"]
        self.optimizer.m[:], self.optimizer.v[:] = arrays["m"], arrays["v"]
