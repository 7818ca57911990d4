"""Training by maximum likelihood: a round is an epoch, one pass through the rows."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from npflows.core.underflow import ignore_underflow
from npflows.distribution.transformed import TransformedDistribution
from npflows.training.rows import Rows
from npflows.training.run import Run


class LikelihoodTrainer(Run):
    """The loss of a batch is the (weighted) mean negative log-likelihood of its rows.

    Parameters
    ----------
    train, validation : Rows
        Without validation rows the training loss decides which parameters are best.
    batch_size : int
    options
        As in `Run`.
    """

    unit = "epoch"

    def __init__(
        self, flow: TransformedDistribution, train: Rows, validation: Rows | None, *, batch_size: int, **options: Any
    ) -> None:
        self.train, self.validation = train.normalized(), validation and validation.normalized()
        self.batch_size, self.n_batches = batch_size, max(1, -(-len(train) // batch_size))
        sizes = {len(part) for part in np.array_split(np.arange(len(train)), self.n_batches)}
        self._log_prob = np.zeros(max(sizes))
        self._dlog = {n: np.full(n, -1 / n) for n in sizes}
        super().__init__(flow, sizes, **options)

    def begin(self) -> None:
        super().begin()
        if self.validation is None:
            return
        self.best_loss = self._loss(self.theta, self.validation)
        if math.isnan(self.best_loss):
            self.best_loss = math.inf

    @ignore_underflow
    def _loss(self, theta: np.ndarray, rows: Rows) -> float:
        """Mean negative log-likelihood of some rows."""
        total, generator = 0.0, np.random.default_rng(0)  # whole numbers lie at the same points of their cells each time
        for x, weight, condition in rows.pieces():
            x = self.flow.preprocessing.scatter(x, generator)
            log_prob = self.flow.transport(x, condition, theta, y=False, log_det=False, log_prob=True).log_prob
            total -= log_prob.sum() if weight is None else (log_prob * weight).sum()
        return float(total / len(rows))

    def run_round(self) -> dict[str, float]:
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
        validation_loss = math.nan if self.validation is None else self._loss(self.kept, self.validation)
        self.judge(train_loss if self.validation is None else validation_loss, n_taken > 0)
        return {
            "train_loss": train_loss,
            "validation_loss": validation_loss,
            "learning_rate": rate,
            "gradient_norm": norm,
            "skipped_steps": skipped,
        }

    @ignore_underflow
    def run_step(self, batch: np.ndarray, rate: float) -> tuple[float, bool, float]:
        """One step on some training rows: its loss, whether it was taken, and the norm of its gradient."""
        x, weight, condition = self.train.take(batch, self.rng)
        x = self.flow.preprocessing.scatter(x, self.rng)
        n = len(batch)
        dlog = self._dlog[n] if weight is None else weight / -n
        log_prob = self._log_prob[:n]
        self.flow.accumulate(x, condition, dlog, self.buffers[n], log_prob=log_prob, key=self.step + 1)
        loss = float((log_prob * dlog).sum())
        return loss, *self.take_step(n, loss, rate)

    def line(self, record: dict[str, float]) -> str:
        text = f"train {record['train_loss']:.4f}"
        if self.validation is not None:
            text += f", validation {record['validation_loss']:.4f}"
        return text

    def advice(self) -> str:
        return "Look for outliers in x, or lower learning_rate"

    @functools.cached_property
    def options(self) -> dict[str, Any]:
        return {
            "training data": f"{len(self.train)} rows, checksum {self.train.checksum():08x}",
            "validation data": "none"
            if self.validation is None
            else f"{len(self.validation)} rows, checksum {self.validation.checksum():08x}",
            "batch_size": self.batch_size,
            "max_epochs": self.schedule.total_steps // self.n_batches,
            **super().options,
        }

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything that changes, with the rows, which are chosen before."""
        arrays, numbers = super().state()
        rows = np.zeros(0, np.int64) if self.validation is None else self.validation.index
        return {**arrays, "train": self.train.index, "validation": rows}, numbers
