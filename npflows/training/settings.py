"""The arguments that every way of training takes, checked."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from npflows.core.atomic import check_replaceable
from npflows.core.backend import require_training
from npflows.core.checks import SeedLike, as_choice, as_flag, as_int, as_positive, as_rng
from npflows.core.progress import Progress
from npflows.distribution.transformed import TransformedDistribution
from npflows.training.budget import Budget
from npflows.training.checkpoint import Saved, read
from npflows.training.communicator import Alone, Communicator
from npflows.training.schedules import SCHEDULES, Schedule
from npflows.training.sharing import agree, facts_of_generator


class TrainingSettings:
    """The keyword arguments that `fit` and `fit_variational` have in common; `npflows.training.fit.fit` explains them."""

    def __init__(
        self,
        max_seconds: float | None,
        learning_rate: float,
        schedule: str,
        warmup_steps: int | None,
        weight_decay: float,
        clip_norm: float | None,
        patience: int | None,
        ema: float | None,
        checkpoint: str | os.PathLike[str] | None,
        resume: bool,
        rng: SeedLike,
        progress: bool | str,
        callbacks: Callable | Iterable[Callable],
        comm: Communicator | None = None,
    ) -> None:
        require_training()
        self.comm: Communicator = Alone() if comm is None else comm
        self.max_seconds = None if max_seconds is None else as_positive(max_seconds, "max_seconds")
        self.budget = Budget(math.inf if self.max_seconds is None else self.max_seconds, self.comm)
        self.learning_rate = as_positive(learning_rate, "learning_rate")
        self.schedule = as_choice(schedule, "schedule", SCHEDULES)
        self.warmup_steps = None if warmup_steps is None else as_int(warmup_steps, "warmup_steps", 0)
        self.weight_decay = as_positive(weight_decay, "weight_decay", zero=True)
        self.clip_norm = None if clip_norm is None else as_positive(clip_norm, "clip_norm")
        self.patience = None if patience is None else as_int(patience, "patience")
        self.ema = None if ema is None else as_positive(ema, "ema")
        if self.ema is not None and self.ema >= 1:
            raise ValueError(f"ema must lie between 0 and 1, got {self.ema!r}")
        resume = as_flag(resume, "resume")
        if resume and checkpoint is None:
            raise ValueError("resume=True needs checkpoint=, the file to continue from")
        if checkpoint is not None and not os.access(os.path.dirname(os.path.realpath(checkpoint)), os.W_OK):
            where = os.fspath(checkpoint)
            raise OSError(f"checkpoint {where!r} can't be written: its folder is missing or read-only")
        if checkpoint is not None:
            check_replaceable(checkpoint)
        self.checkpoint, self.resume = checkpoint, resume
        self.callbacks: list[Callable]
        if isinstance(callbacks, Iterable) and not callable(callbacks):
            self.callbacks = list(callbacks)
        else:
            self.callbacks = [callbacks]
        for callback in self.callbacks:
            if not callable(callback):
                raise TypeError(f"callbacks must be functions of (flow, record), got {callback!r}")
        self.progress = Progress(progress if self.comm.rank == 0 else False)
        self.rng = self._generator(rng)

    def _generator(self, rng: SeedLike) -> np.random.Generator:
        """The generator, after a check that all ranks have the same settings; one that is new is that of rank 0."""
        generator = as_rng(rng)
        if self.comm.size > 1:
            names = (
                "max_seconds",
                "learning_rate",
                "schedule",
                "warmup_steps",
                "weight_decay",
                "clip_norm",
                "patience",
                "ema",
            )
            facts = {name: getattr(self, name) for name in names} | {"rng": facts_of_generator(rng), "resume": self.resume}
            agree(self.comm, {**facts, "whether there is a checkpoint": self.checkpoint is not None})
            generator = self.comm.broadcast(generator) if rng is None else generator
        return generator

    def saved(self) -> Saved | None:
        """The run to go on with, if there is one; of several ranks the first one reads it."""
        if not self.resume or self.checkpoint is None:
            return None
        return self.comm.broadcast(read(self.checkpoint) if self.comm.rank == 0 else None)

    def for_run(
        self, flow: TransformedDistribution, total_steps: int, free: np.ndarray | None = None
    ) -> dict[str, Any]:  # fmt: skip
        """The keyword arguments that a `Run` of so many steps takes.

        `free` says which entries of theta may change; by default all free parameters.
        """
        plateau = max(1, (self.patience or 15) // 4)
        parameters = flow.parameters
        free = parameters.free if free is None else free
        return {
            "schedule": Schedule(self.schedule, self.learning_rate, total_steps, self.warmup_steps, plateau),
            "optimizer": flow.executable().optimizer(parameters.theta, free, self.weight_decay, self.clip_norm),
            "budget": self.budget,
            "ema": self.ema,
            "rng": self.rng,
            "patience": self.patience,
        }
