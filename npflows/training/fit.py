"""`fit`: a flow, a table, and the best parameters that were found."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from npflows.training import checkpoint as checkpoints
from npflows.training.adam import Adam
from npflows.training.data import as_training_rows, split, standardization
from npflows.training.progress import Progress
from npflows.training.schedules import SCHEDULES, Schedule
from npflows.training.trainer import Trainer
from npflows.validation import as_choice, as_int, as_positive, as_rng, warn_user

if TYPE_CHECKING:
    from npflows.flow import NormalizingFlow


def fit(
    flow: NormalizingFlow,
    x: object,
    *,
    sample_weight: object = None,
    condition: object = None,
    validation_fraction: float = 0.1,
    validation_data: object = None,
    validation_weight: object = None,
    validation_condition: object = None,
    standardize: bool = True,
    max_epochs: int = 100,
    max_seconds: float | None = None,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    schedule: str = "cosine",
    warmup_steps: int = 0,
    weight_decay: float = 0.0,
    clip_norm: float | None = 5.0,
    patience: int | None = 20,
    ema: float | None = None,
    on_invalid: str = "raise",
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    rng: object = None,
    progress: bool | str = "auto",
    callbacks: Callable | Iterable[Callable] = (),
) -> NormalizingFlow:
    """Fit the flow to a table by maximum likelihood, and return it.

    However it ends, by itself, by an error or by Ctrl-C, the flow holds the best parameters so far, and `flow.history`
    what each epoch gave: epoch, train_loss, validation_loss (mean negative log-likelihoods), learning_rate,
    gradient_norm (of the last step), skipped_steps, seconds.  A second fit continues from the present parameters.

    Parameters
    ----------
    x : array_like (n, input_dim)
        The table; any layout or numeric dtype, memory-mapped ones included.
    sample_weight : array_like (n,), optional
        Non-negative weights of the rows.
    condition : array_like (n, condition_dim), optional
        Where the flow takes one.
    validation_fraction : float
        Share of the rows that is held out to choose the best parameters, 0 for none.
    validation_data, validation_weight, validation_condition : array_like, optional
        Rows to validate on instead, with weights and condition of their own.
    standardize : bool
        Set the flow's first layer from the training rows, unless an earlier fit has.
    max_epochs : int
        Passes through the training rows at most; the length of the cosine schedule.
    max_seconds : float, optional
        Stop after the epoch in which this time is up.
    batch_size : int
        Rows of a step, about: a pass is cut into batches of equal size.
    learning_rate : float
        Adam's, at its highest.
    schedule : {"cosine", "constant", "plateau"}
        Plateau halves the rate after a quarter of `patience` without improvement.
    warmup_steps : int
        Steps over which the rate rises from 0 first.
    weight_decay : float
        Decoupled weight decay.
    clip_norm : float or None
        Gradients of a larger global norm are scaled down to it.
    patience : int or None
        Stop after so many epochs without improvement.
    ema : float, optional
        Decay, for instance 0.999, of a moving average of the parameters to keep instead of the last ones.
    on_invalid : {"raise", "drop"}
        What to do with rows that have NaN or infinite values.
    checkpoint : path-like, optional
        Written after each epoch.
    resume : bool
        Continue from `checkpoint` if that file exists, with the same bits as without an interruption; everything else
        must be given as before.
    rng : int, numpy.random.Generator or None
        Splits and shuffles.  The same seed gives the same bits for any number of threads.
    progress : bool or "auto"
        Show progress on standard error; by default only on a terminal.
    callbacks : callable or iterable of callable
        Each is called as callback(flow, record) after each epoch with what the history records; one that returns True
        ends the run.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, before anything is changed.
    TrainingError
        If the loss stays non-finite in spite of lower learning rates.
    """
    as_choice(schedule, "schedule", SCHEDULES)
    as_choice(on_invalid, "on_invalid", ("raise", "drop"))
    max_epochs, batch_size = as_int(max_epochs, "max_epochs", 0), as_int(batch_size, "batch_size")
    learning_rate = as_positive(learning_rate, "learning_rate")
    weight_decay = as_positive(weight_decay, "weight_decay", zero=True)
    clip_norm = None if clip_norm is None else as_positive(clip_norm, "clip_norm")
    patience = None if patience is None else as_int(patience, "patience")
    limit = np.inf if max_seconds is None else as_positive(max_seconds, "max_seconds")
    if ema is not None and not 0 < as_positive(ema, "ema") < 1:
        raise ValueError(f"ema must lie between 0 and 1, got {ema!r}")
    if resume and checkpoint is None:
        raise ValueError("resume=True needs checkpoint=, the file to continue from")
    if checkpoint is not None and not os.access(Path(checkpoint).resolve().parent, os.W_OK):
        raise OSError(f"checkpoint {os.fspath(checkpoint)!r} can't be written: its folder is missing or read-only")
    callbacks = [callbacks] if callable(callbacks) else list(callbacks)
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(f"callbacks must be functions of (flow, record), got {callback!r}")
    display = Progress(progress, max_epochs)
    generator = as_rng(rng)
    started = time.monotonic()

    saved = checkpoints.read(checkpoint) if resume else None  # type: ignore[arg-type]
    rows = as_training_rows(flow, x, sample_weight, condition, on_invalid, "x")
    if validation_data is not None:
        validation = as_training_rows(flow, validation_data, validation_weight, validation_condition, on_invalid,
                                      "validation_data")  # fmt: skip
        train = rows
    elif validation_weight is not None or validation_condition is not None:
        raise ValueError("validation_weight and validation_condition belong to validation_data, which is missing")
    elif saved is not None:
        train, validation = saved.rows(rows)
    else:
        train, validation = split(rows, validation_fraction, generator)
    n_batches = max(1, -(-len(train) // batch_size))
    trainer = Trainer(
        flow,
        train,
        validation,
        batch_size=batch_size,
        schedule=Schedule(schedule, learning_rate, max_epochs * n_batches, as_int(warmup_steps, "warmup_steps", 0),
                          max(1, (patience or 20) // 4)),
        optimizer=Adam(flow._buffer.theta, flow._buffer.free, weight_decay, clip_norm),
        ema=None if ema is None else float(ema),
        rng=generator,
        patience=patience,
    )  # fmt: skip
    if saved is not None:
        saved.restore(trainer)
    else:
        if standardize and not flow._is_standardized:
            flow.standardize.set(*standardization(trainer.train, trainer.validation, flow.base.support))
            flow._is_standardized = True
        flow.history = {}
        trainer.begin()
    display.begin(trainer.epoch)
    try:
        while trainer.epoch < max_epochs and time.monotonic() - started < limit:
            if trainer.is_stuck:
                break
            record = trainer.run_epoch()
            for name, value in record.items():
                flow.history.setdefault(name, []).append(value)
            display.update(_line(record))
            if checkpoint is not None:
                checkpoints.write(trainer, checkpoint)
            wants_end = [callback(flow, record) is True for callback in callbacks]  # every one is called
            if any(wants_end):
                break
    finally:
        trainer.finish()
        display.close()
    lost = sum(math.isinf(loss) for loss in flow.history.get("validation_loss", ()))
    if lost and flow.base.support is not None:
        warn_user(
            f"rows left the base's bounds in {lost} of {trainer.epoch} epochs, whose validation loss is infinite, so that "
            f"none of them can be the best: a base with bounds needs layers that keep them, splines for instance"
        )
    return flow


def _line(record: dict[str, float]) -> str:
    text = f"train {record['train_loss']:.4f}"
    if record["validation_loss"] == record["validation_loss"]:
        text += f", validation {record['validation_loss']:.4f}"
    return text
