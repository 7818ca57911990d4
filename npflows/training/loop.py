"""The training loop: rounds of a run, one after the other, with history, progress, checkpoints and callbacks."""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections.abc import Callable, Iterator

from npflows.core.checks import warn_user
from npflows.distribution.transformed import TransformedDistribution
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

    Raises
    ------
    RuntimeError
        If the flow is being fitted already.
    """
    with _alone(run.flow):
        _begin(run, settings, begin, saved)
        settings.progress.begin(max_rounds, run.unit, run.round)
        try:
            _go(run, max_rounds, settings)
        finally:  # a second time, where an interrupt came before the best parameters were in their place
            run.finish()
            settings.progress.close()
    if run.round and not run.best_round:
        warn_user(
            f"no {run.unit} was better than the parameters that the run began with, and these are kept: lower "
            f"learning_rate, or look for what is unlike the rest of the data"
        )
    for message in run.messages():
        warn_user(message)


class _Fit:
    """Stands for a fit that is under way; it is gone with it, however it ends."""


_under_way: dict[int, weakref.ref[_Fit]] = {}
"""The fit of each flow that is being fitted, by the flow's identity."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_under_way.clear)


@contextlib.contextmanager
def _alone(flow: TransformedDistribution) -> Iterator[None]:
    """Refuse to fit a flow that is being fitted, whose steps would mix with these."""
    mine = _Fit()
    found = _under_way.setdefault(id(flow), weakref.ref(mine))()
    if found is None:  # an interrupt took the last one out on its way in
        _under_way[id(flow)] = weakref.ref(mine)
    elif found is not mine:
        raise RuntimeError(
            "this flow is being fitted already, by another thread or by the fit that this callback belongs to: fit a copy "
            "(copy.deepcopy)"
        )
    try:
        yield
    finally:
        _under_way.pop(id(flow), None)


def _begin(run: Run, settings: TrainingSettings, begin: Callable[[], None], saved: checkpoint.Saved | None) -> None:
    """Before the first round, or where a saved run was left."""
    if saved is not None:
        saved.restore(run)
        run.budget.expect(sum(run.flow.history["seconds"]) / max(1, run.step))
    else:
        begin()
        run.flow.history = {}
        run.begin()


def _go(run: Run, max_rounds: int, settings: TrainingSettings) -> None:
    """Round after round; the best parameters are left in the flow, however it ends."""
    flow, progress = run.flow, settings.progress
    try:
        while run.round < max_rounds and not (run.budget.is_up or run.is_stuck):
            run.round += 1
            started = time.perf_counter()
            record = {run.unit: run.round, **run.run_round(), "seconds": time.perf_counter() - started}
            for name, value in record.items():
                flow.history.setdefault(name, []).append(value)
            progress.update(run.line(record), run.planned_rounds(max_rounds))
            if settings.checkpoint is not None:
                checkpoint.write(run, settings.checkpoint, settings.comm.rank == 0)
            wants_end = [callback(flow, record) is True for callback in settings.callbacks]  # every one is called
            run.budget.end_round()
            if any(settings.comm.share(any(wants_end))):
                break
    finally:
        run.finish()
