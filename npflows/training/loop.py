"""The training loop: rounds of a run, one after the other, with history, progress, checkpoints and callbacks."""

from __future__ import annotations

import time
from collections.abc import Callable

from npflows.core.checks import warn_user
from npflows.training import checkpoint
from npflows.training.run import Run
from npflows.training.settings import TrainingSettings


def run_rounds(
    run: Run, max_rounds: int, settings: TrainingSettings, begin: Callable[[], None], saved: checkpoint.Saved | None = None
) -> None:  # fmt: skip
    """Go through the rounds of a run and leave the best parameters in its flow, however it ends.

    Parameters
    ----------
    run : Run
    max_rounds : int
        Rounds at most, those of a saved run included.
    settings : TrainingSettings
    begin : callable
        Sets from data what is to be set before the first round; not called where a saved run goes on.
    saved : Saved, optional
        The run to take up.
    """
    flow, progress = run.flow, settings.progress
    if saved is not None:
        saved.restore(run)
        run.budget.expect(sum(flow.history["seconds"]) / max(1, run.step))
    else:
        begin()
        flow.history = {}
        run.begin()
    progress.begin(max_rounds, run.unit, run.round)
    try:
        while run.round < max_rounds and not (run.budget.is_up or run.is_stuck):
            run.round += 1
            started = time.perf_counter()
            record = {run.unit: run.round, **run.run_round(), "seconds": time.perf_counter() - started}
            for name, value in record.items():
                flow.history.setdefault(name, []).append(value)
            progress.update(run.line(record), run.planned_rounds(max_rounds))
            if settings.checkpoint is not None:
                checkpoint.write(run, settings.checkpoint)
            wants_end = [callback(flow, record) is True for callback in settings.callbacks]  # every one is called
            run.budget.end_round()
            if any(wants_end):
                break
    finally:
        run.finish()
        progress.close()
    if run.round and not run.best_round:
        warn_user(
            f"no {run.unit} was better than the parameters that the run began with, and these are kept: lower "
            f"learning_rate, or look for what is unlike the rest of the data"
        )
    for message in run.messages():
        warn_user(message)
