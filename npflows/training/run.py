"""A training run of any kind: rounds of steps, the best parameters so far, and recovery when numbers stop being finite."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import numpy as np

from npflows.core.backend import Optimizer
from npflows.core.errors import TrainingError
from npflows.core.gpu_arrays import StaysOnGpu
from npflows.distribution.transformed import TransformedDistribution
from npflows.training.budget import Budget
from npflows.training.schedules import Schedule

PATIENCE_FOR_BAD_STEPS = 5
"""Steps in a row that may fail before the run goes back to its best parameters."""
MAX_RECOVERIES = 5
"""How often it goes back, at half the learning rate each time, before it gives up."""


class Run:
    """Steps with Adam that lower a loss, in rounds after each of which the parameters are judged.

    A subclass says what a round is.

    Parameters
    ----------
    flow : TransformedDistribution
        Its parameters move with every step; `finish` leaves the best ones.
    batch_sizes : set of int
        Samples that a step may have.
    schedule : Schedule
    optimizer : Optimizer
    ema : float or None
        Decay of a moving average of the parameters, which then is what is judged and kept; while it is young, after t
        steps, the decay is (1 + t) / (10 + t) at most, so that the first parameters are soon forgotten.
    rng : numpy.random.Generator
        Draws everything that the run draws.
    patience : int or None
        Rounds without improvement after which the run is stuck.
    budget : Budget
        The time that it may take; no limit by default.
    """

    unit: ClassVar[str]
    """The name of a round."""
    may_change: ClassVar[frozenset[str]] = frozenset({"max_epochs", "max_steps", "patience", "learning_rate"})
    """Names of the options that a run may go on with other values of."""
    numbers: ClassVar[tuple[str, ...]] = (
        "best_loss", "best_round", "round", "step", "waited", "bad_in_row", "recoveries", "averaged"
    )  # fmt: skip
    """Names of the attributes that change during a run and are numbers."""

    def __init__(
        self,
        flow: TransformedDistribution,
        batch_sizes: set[int],
        *,
        schedule: Schedule,
        optimizer: Optimizer,
        ema: float | None,
        rng: np.random.Generator,
        patience: int | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.flow, self.schedule, self.optimizer = flow, schedule, optimizer
        self.ema, self.rng, self.patience, self.budget = ema, rng, patience, budget or Budget()
        self.theta = flow.parameters.theta
        self.average, self.best = self.theta.copy(), self.theta.copy()
        self.best_loss, self.best_round = math.inf, 0
        self.round, self.step, self.waited, self.bad_in_row, self.recoveries, self.averaged = 0, 0, 0, 0, 0, 0
        self.buffers = flow.executable().gradient_buffers(batch_sizes, self.theta)

    @property
    def kept(self) -> np.ndarray:
        """The parameters to judge and keep: the present ones, or their moving average."""
        return self.theta if self.ema is None else self.average

    @property
    def is_stuck(self) -> bool:
        """Whether patience is at an end."""
        return self.patience is not None and self.waited >= self.patience

    def planned_rounds(self, most: int) -> int:
        """Rounds of the whole run as far as is known: `most`, or as many as there is time for."""
        if not self.step or self.schedule.end >= self.schedule.total_steps:
            return most
        if self.budget.is_up:
            return self.round
        return min(most, math.ceil(self.round * self.schedule.end / self.step))

    def begin(self) -> None:
        """Before the first round; the first parameters are kept if nothing is better."""
        self.average[:], self.best[:] = self.theta, self.theta

    def run_round(self) -> dict[str, float]:
        """Steps, then judgment; returns the record for the history."""
        raise NotImplementedError

    def line(self, record: dict[str, float]) -> str:
        """A record for people."""
        raise NotImplementedError

    def advice(self) -> str:
        """The advice for the case that steps keep failing."""
        raise NotImplementedError

    def messages(self) -> list[str]:
        """What a user should know about a run that is over."""
        return []

    def next_rate(self) -> float:
        """The learning rate of the next step."""
        return self.schedule.rate(self.step, self.budget.steps_left())

    def take_step(self, n: int, loss: float, rate: float) -> tuple[bool, float]:
        """A step along the gradient in `buffers[n]`: whether it was taken, and the gradient's norm."""
        taken, norm = False, math.nan
        if math.isfinite(loss):
            taken, norm = self.optimizer.step(self.gradient(n), rate, *self._averaging())
        self.step += 1
        if not taken:
            self._after_bad_step()
            return False, norm
        self.bad_in_row = 0
        self.averaged += self.ema is not None
        return True, norm

    def stepping(self) -> AbstractContextManager[None]:
        """A context for steps, within which a GPU keeps the parameters to itself: `theta` and `average` are up to date
        after it."""
        return self.optimizer.staying() if isinstance(self.optimizer, StaysOnGpu) else nullcontext()

    def gradient(self, n: int) -> Any:
        """The buffers whose sum is the gradient of a step with n samples."""
        return self.buffers[n]

    def _averaging(self) -> tuple[np.ndarray | None, float]:
        """The moving average, None for none, and the share of the parameters after the next step in it."""
        if self.ema is None:
            return None, 0.0
        age = self.averaged + 1
        return self.average, 1 - min(self.ema, (1 + age) / (10 + age))

    def judge(self, loss: float, stepped: bool) -> None:
        """At the end of a round: keep the parameters if their loss is the lowest so far."""
        self.waited += stepped  # a round without a step proves nothing
        if loss < self.best_loss:
            self.best_loss, self.waited = loss, 0
            self.keep()
        if stepped:
            self.schedule.end_epoch(self.waited)

    def keep(self) -> None:
        """These parameters are the best so far."""
        self.best_round = self.round
        self.best[:] = self.kept

    def _after_bad_step(self) -> None:
        """After too many failures in a row: the best parameters again, at half the learning rate; then give up."""
        self.bad_in_row += 1
        if self.bad_in_row < PATIENCE_FOR_BAD_STEPS:
            return
        if self.recoveries == MAX_RECOVERIES:
            raise TrainingError(
                f"{self.unit} {self.round}: loss or gradient was not finite in {self.bad_in_row} steps in a row, and going "
                f"back to the best parameters at half the learning rate failed {self.recoveries} times; the flow holds its "
                f"parameters of {self.unit} {self.best_round}. {self.advice()}"
            )
        self.recoveries += 1
        self.bad_in_row = 0
        self.schedule.factor *= 0.5
        self.optimizer.forget()  # first: it may bring parameters to the host
        self.theta[:] = self.best
        self.average[:], self.averaged = self.best, 0

    def finish(self) -> None:
        """Leave the best parameters in the flow."""
        self.theta[:] = self.best

    @property
    def options(self) -> dict[str, Any]:
        """The settings that a run that continues this one must have in common with it, but for `may_change`."""
        return {
            "learning_rate": self.schedule.peak,
            "schedule": self.schedule.kind,
            "warmup_steps": self.schedule.warmup_steps,
            "weight_decay": self.optimizer.weight_decay,
            "clip_norm": self.optimizer.clip_norm,
            "ema": self.ema,
            "patience": self.patience,
            "generator": type(self.rng.bit_generator).__name__,
        }

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything that changes during a run: arrays, and numbers."""
        arrays = {
            "now": self.theta,
            "best": self.best,
            "average": self.average,
            "m": self.optimizer.m,
            "v": self.optimizer.v,
        }
        numbers = {name: getattr(self, name) for name in self.numbers}
        numbers.update(
            options=self.options,
            factor=self.schedule.factor,
            adam_steps=self.optimizer.steps,
            generator=self.rng.bit_generator.state,
        )
        return arrays, numbers

    def restore(self, arrays: dict[str, np.ndarray], numbers: dict[str, Any]) -> None:
        """Set the arrays and numbers that `state` gave."""
        for name in self.numbers:
            setattr(self, name, numbers[name])
        self.schedule.factor, self.optimizer.steps = numbers["factor"], numbers["adam_steps"]
        self.rng.bit_generator.state = numbers["generator"]
        self.theta[:], self.best[:], self.average[:] = arrays["now"], arrays["best"], arrays["average"]
        self.optimizer.m[:], self.optimizer.v[:] = arrays["m"], arrays["v"]
