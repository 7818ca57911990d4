"""Training by maximum likelihood: a round is an epoch, one pass through the rows."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npflows.core.underflow import ignore_underflow
from npflows.distribution.transformed import TransformedDistribution
from npflows.training.bound import FarRows, LossBound
from npflows.training.dropout import AS_MADE, Dropout
from npflows.training.held import HeldRows
from npflows.training.rows import Rows
from npflows.training.run import Run

BOUNDS = ("train_bound", "validation_bound")
BOUND_ROWS = 2048
"""Training rows that the bound of their losses is set from, at most."""
Losses = tuple[np.ndarray, np.ndarray | None]
"""Losses (n,) of a piece of some rows, and their weights."""


@dataclass
class Judgment:
    """The rows that are beyond the bounds in an epoch."""

    train_far: FarRows = field(default_factory=FarRows)
    validation_far: FarRows = field(default_factory=FarRows)


class LikelihoodTrainer(Run):
    """The loss of a batch is the (weighted) mean negative log-likelihood of its rows.

    Rows with losses far beyond those of all others pull no more than others do, and don't decide which parameters are best:
    see `LossBound`.

    Parameters
    ----------
    train, validation : Rows
        Without validation rows the training loss decides which parameters are best.
    batch_size : int
    dropout : Dropout
    options
        As in `Run`.
    """

    unit = "epoch"

    def __init__(
        self,
        flow: TransformedDistribution,
        train: Rows,
        validation: Rows | None,
        *,
        batch_size: int,
        dropout: Dropout = AS_MADE,
        **options: Any,
    ) -> None:
        self.dropout = dropout
        self.train, self.validation = train.normalized(), validation and validation.normalized()
        self.batch_size, self.n_batches = batch_size, max(1, -(-self.n_rows // batch_size))
        sizes = self.batch_sizes()
        self._log_prob = np.zeros(max(sizes))
        self._dlog = {n: np.full(n, -1 / n) for n in sizes}
        self._held = self.held(flow)
        self.train_bound, self.validation_bound = LossBound(), LossBound()
        self._now = self._best = Judgment()
        super().__init__(flow, sizes, **options)

    @property
    def n_rows(self) -> int:
        """Rows of an epoch."""
        return len(self.train)

    def held(self, flow: TransformedDistribution) -> HeldRows | None:
        """The training rows where they stay on the GPU all the time."""
        return HeldRows.of(flow, self.train)

    def batch_sizes(self) -> set[int]:
        """Rows that a batch may have: a pass is cut into batches of equal size."""
        least, more = divmod(self.n_rows, self.n_batches)
        return {least, least + 1} if more else {least}

    def batches(self) -> Iterator[np.ndarray]:
        """The places in `train` of the rows of each batch of an epoch."""
        yield from np.array_split(self.rng.permutation(len(self.train)), self.n_batches)

    def begin(self) -> None:
        super().begin()
        few = np.unique(np.linspace(0, len(self.train) - 1, BOUND_ROWS).astype(np.intp))
        self.train_bound = self._bound(list(self._losses(self.theta, self.train.part(few))), judging=False)
        if self.validation is None:
            return
        losses = list(self._losses(self.theta, self.validation))
        self.validation_bound = self._bound(losses, judging=True)
        self.best_loss = self._mean(losses, self.validation)[1]
        if math.isnan(self.best_loss):
            self.best_loss = math.inf

    def _losses(self, theta: np.ndarray, rows: Rows) -> Iterator[Losses]:
        """Negative log-likelihoods of some rows, in pieces."""
        generator = np.random.default_rng(0)  # whole numbers lie at the same points of their cells each time
        for x, weight, condition in rows.pieces():
            x = self.flow.preprocessing.scatter(x, generator)
            log_prob = self.flow.transport(x, condition, theta, y=False, log_det=False, log_prob=True).log_prob
            yield -log_prob, weight

    @ignore_underflow
    def _bound(self, losses: list[Losses], *, judging: bool) -> LossBound:
        weights = [weight for _, weight in losses if weight is not None]
        every = np.concatenate([piece for piece, _ in losses])
        return LossBound.of(every, np.concatenate(weights) if weights else None, self.flow.latent_dim, judging=judging)

    @ignore_underflow
    def _mean(self, losses: Iterable[Losses], rows: Rows) -> tuple[float, float, FarRows]:
        """The mean loss of the validation rows, the same with none counted beyond the bound, and the rows that are."""
        total = clipped = 0.0
        far, start, bound = FarRows(), 0, self.validation_bound
        for piece, weight in losses:
            total += piece.sum() if weight is None else (piece * weight).sum()
            places = bound.far(piece)
            if len(places):
                far.add(bound, rows.index[start + places], piece[places], None if weight is None else weight[places])
                piece[places] = math.inf if self._must_stay_inside and np.isinf(piece).any() else bound.most
            clipped += piece.sum() if weight is None else (piece * weight).sum()
            start += len(piece)
        return float(total / len(rows)), float(clipped / len(rows)), far

    @property
    def _must_stay_inside(self) -> bool:
        """Whether parameters that put rows outside the base's bounds can't be the best, few though the rows may be."""
        return self.flow.base.support is not None

    def run_round(self) -> dict[str, float]:
        total, n_taken, norm, rate, skipped = 0.0, 0, 0.0, 0.0, 0
        self._now, excess = Judgment(), 0.0
        with self.stepping():
            for batch in self.batches():
                rate = self.next_rate()
                loss, taken, norm, beyond = self.run_step(batch, rate)
                if taken:
                    total, n_taken, excess = total + loss * len(batch), n_taken + len(batch), excess + beyond
                else:
                    skipped += 1
                if self.budget.end_step():
                    break
        train_loss = total / n_taken if n_taken else math.nan
        clipped_loss = (total - excess) / n_taken if n_taken else math.nan
        validation_loss = math.nan
        if self.validation is not None:
            losses = self._losses(self.kept, self.validation)
            validation_loss, clipped_loss, self._now.validation_far = self._mean(losses, self.validation)
        self.judge(clipped_loss, n_taken > 0)
        return {
            "train_loss": train_loss,
            "validation_loss": validation_loss,
            "clipped_loss": clipped_loss,
            "learning_rate": rate,
            "gradient_norm": norm,
            "skipped_steps": skipped,
        }

    @ignore_underflow
    def run_step(self, batch: np.ndarray, rate: float) -> tuple[float, bool, float, float]:
        """One step on some training rows: its loss, whether it was taken, the norm of its gradient, and the sum of what
        losses were beyond the bound."""
        n, dropout = len(batch), self.dropout.at(self.step, self.schedule.end)
        x, weight, condition = self.take(batch, dropout)
        dlog = self._dlog[n] if weight is None else weight / -n
        log_prob, excess = self._log_prob[:n], 0.0
        self.accumulate(x, condition, dlog, log_prob, dropout)
        loss = float((log_prob * dlog).sum())
        if not log_prob.min() >= -self.train_bound.most:
            losses, bound = -log_prob, self.train_bound
            far = bound.far(losses)
            excess = self._now.train_far.add(
                bound, self.train.index[batch[far]], losses[far], None if weight is None else weight[far]
            )
            if np.isfinite(losses[far]).all():
                dlog = dlog.copy()
                dlog[far] *= bound.shares(losses[far])
                self.accumulate(x, condition, dlog, log_prob, dropout)
        return loss, *self.take_step(n, loss, rate), excess

    def take(self, batch: np.ndarray, dropout: float | None) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """The rows of a batch as this step sees them, with their weights and conditions."""
        if self._held is not None:
            return self._held.take(batch, self.rng)
        x, weight, condition = self.train.take(batch, self.rng)
        return self.flow.preprocessing.scatter(x, self.rng), weight, condition

    def accumulate(
        self, x: np.ndarray, condition: np.ndarray | None, dlog: np.ndarray, log_prob: np.ndarray, dropout: float | None
    ) -> None:
        """Fill the gradient buffers and log_prob (n,), the log-densities of a batch, from what `take` gave."""
        self.flow.accumulate(x, condition, dlog, self.buffers[len(dlog)], log_prob=log_prob, key=self.step + 1,
                             dropout=dropout)  # fmt: skip

    def keep(self) -> None:
        super().keep()
        self._best = self._now

    def messages(self) -> list[str]:
        """What a user should know about the rows on which the result depends."""
        messages = []
        if self.budget.is_up and self.step < self.n_batches:
            messages.append(
                f"max_seconds was up after {self.step} of the {self.n_batches} steps of the first epoch, so that the flow "
                f"has not seen all rows: give it more time"
            )
        if self._must_stay_inside:
            return messages
        judged, bounds = self._best if self.best_round else self._now, (self.train_bound, self.validation_bound)
        lost = any(not math.isfinite(loss) for loss in judged.train_far.losses.values())
        consequence = f"in a gradient each of them weighs no more than a row at {bounds[0].most:.3g}"
        consequence += ", and steps without a finite loss are not taken" if lost else ""
        found = [judged.train_far.message("training rows of x", "training", self.n_rows, bounds[0], consequence)]
        if self.validation is not None:
            rows = "validation rows of x" if self.validation.x is self.train.x else "rows of validation_data"
            consequence = f"each of them counts as {bounds[1].most:.3g} where the best epoch is chosen"
            n = len(self.validation)
            found.append(judged.validation_far.message(rows, "validation", n, bounds[1], consequence))
        return messages + [message for message in found if message is not None]

    def line(self, record: dict[str, float]) -> str:
        text = f"train {record['train_loss']:.4f}"
        if self.validation is not None:
            text += f", validation {record['validation_loss']:.4f}"
        return text

    def advice(self) -> str:
        lost = [number for number, loss in self._now.train_far.losses.items() if not math.isfinite(loss)]
        which = f", in rows {', '.join(map(str, sorted(lost)[:5]))} for instance" if lost else ""
        return f"Look for outliers in x{which}, or lower learning_rate"

    @functools.cached_property
    def options(self) -> dict[str, Any]:
        return {
            "training data": f"{len(self.train)} rows, checksum {self.train.checksum():08x}",
            "validation data": "none"
            if self.validation is None
            else f"{len(self.validation)} rows, checksum {self.validation.checksum():08x}",
            "batch_size": self.batch_size,
            "dropout": self.dropout.share,
            "max_epochs": self.schedule.total_steps // self.n_batches,
            **super().options,
        }

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything that changes, with the rows and bounds, which are chosen before."""
        arrays, numbers = super().state()
        rows = np.zeros(0, np.int64) if self.validation is None else self.validation.index
        for name in BOUNDS:
            numbers.update({f"{name}_{part}": value for part, value in getattr(self, name)._asdict().items()})
        return {**arrays, "train": self.train.index, "validation": rows}, numbers

    def restore(self, arrays: dict[str, np.ndarray], numbers: dict[str, Any]) -> None:
        super().restore(arrays, numbers)
        self.schedule.total_steps -= self.round * self.n_batches - self.step  # of epochs that time cut short
        for name in BOUNDS:
            setattr(self, name, LossBound(*(numbers[f"{name}_{part}"] for part in LossBound._fields)))
