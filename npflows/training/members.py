"""Fits of several flows to one table: in this process, in several at a time, or dealt to the ranks of MPI."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npflows.core.checks import as_weights, warn_user
from npflows.core.errors import TrainingError
from npflows.core.optional import required
from npflows.core.progress import Progress
from npflows.core.table import with_roles
from npflows.core.tables import Headers
from npflows.core.threads import at_most_threads
from npflows.distribution import on_gpu
from npflows.distribution.transformed import TransformedDistribution
from npflows.files.tables import TableStream
from npflows.training.communicator import Communicator
from npflows.training.data import as_whole_table
from npflows.training.fit import fit
from npflows.training.sharing import agree, facts_of_flow
from npflows.training.streaming import streamed_if_large

VALIDATION = ("validation_data", "validation_condition", "validation_weight", "validation_log_weight")
"""The arguments of `fit` that are rows to validate on."""
OF_A_RANK = {*VALIDATION, "x", "condition", "sample_weight", "log_weight", "rng", "progress", "callbacks", "checkpoint",
             "resume", "comm"}  # fmt: skip
"""The arguments of `fit` in which ranks may differ, or that are looked at elsewhere."""


class Task(NamedTuple):
    """A flow to fit, the weights of the rows, and a seed."""

    number: int
    flow: Any
    weight: NDArray[np.float64] | None
    seed: int


class Done(NamedTuple):
    """A fitted flow, and what its fit warned of."""

    flow: Any
    warnings: list[str]


class Given(NamedTuple):
    """What members are fitted to: a table of plain numbers or a stream, its condition, and the weights of its rows."""

    x: Any
    condition: Any
    weight: NDArray[np.float64] | None
    validation: dict[str, Any]


def as_given(
    flow: TransformedDistribution,
    ranks: Communicator,
    x: Any,
    condition: Any,
    sample_weight: Any,
    log_weight: Any,
    validation: Mapping[str, Any],
) -> Given:
    """The rows of all ranks that `fit` would make of these arguments for a flow like the members, every table that it takes
    included."""
    given = (x, condition, sample_weight, log_weight, *(validation.get(name) for name in VALIDATION))
    if on_gpu.concerns(flow, *given):
        given = on_gpu.fetched(flow, *given)
    (x, condition, sample_weight, log_weight), beside = given[:4], given[4:]
    comm = ranks if ranks.size > 1 else None
    x = streamed_if_large(x, sample_weight=sample_weight, log_weight=log_weight, condition=condition, comm=comm)
    if isinstance(x, TableStream):
        return Given(x, None, None, dict(zip(VALIDATION, beside)))
    parts = with_roles(x, condition, sample_weight, log_weight)
    headers = Headers.of(flow.headers, *parts[:2])
    agree(ranks, {"whether there is validation_data": beside[0] is not None})
    table, condition, sample_weight, log_weight = as_whole_table(flow, ranks, headers, "x", *parts)
    if beside[0] is not None:
        beside = as_whole_table(flow, ranks, headers, "validation_data", *with_roles(*beside))
    weight = as_weights(sample_weight, len(table), logarithms=log_weight)
    return Given(table, condition, weight, dict(zip(VALIDATION, beside)))


def facts_of_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the arguments of a fit on several ranks must have in common, where one leaves them out too."""
    known = inspect.signature(fit).parameters
    return {name: options.get(name, p.default) for name, p in known.items() if name not in {"flow", *OF_A_RANK}}


def bootstrapped(given: Given, generator: np.random.Generator) -> NDArray[np.float64]:
    """The weights of as many rows as there are, drawn with replacement.

    Raises
    ------
    ValueError
        If the rows are those of a stream.
    """
    if isinstance(given.x, TableStream):
        raise ValueError("bootstrap needs a table in memory, and a stream of this size is not: leave bootstrap out")
    n = len(given.x)
    counts = np.bincount(generator.integers(n, size=n), minlength=n)
    return counts.astype(np.float64) if given.weight is None else counts * given.weight


def fit_members(
    tasks: Sequence[Task], given: Given, options: dict[str, Any], ranks: Communicator, at_once: int, progress: Progress
) -> list[Any]:
    """The fitted flows; each warning comes once, with the first member that it is of."""
    rest = {"condition": given.condition, **given.validation, **options}
    done = _dealt(tasks, given.x, rest, ranks) if ranks.size > 1 else _in_turn(tasks, given.x, rest, at_once, progress)
    told: dict[str, int] = {}
    for number, one in enumerate(done):
        for message in one.warnings:
            told.setdefault(message, number)
    for message, number in told.items():
        warn_user(f"{message} (member {number})")
    return [one.flow for one in done]


def _fit(task: Task, x: Any, options: dict[str, Any]) -> Done:
    """Fit a member; warnings come out with it, as those of other processes would be lost."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            flow = fit(task.flow, x, sample_weight=task.weight, rng=task.seed, progress=False, **options)
    except TrainingError as error:
        raise TrainingError(f"member {task.number}: {error}") from None
    return Done(flow, [str(one.message) for one in caught if issubclass(one.category, UserWarning)])


def _fit_alone(task: Task, x: Any, options: dict[str, Any]) -> Done:
    """On one thread, in a process among others."""
    with at_most_threads(1):
        return _fit(task, x, options)


def _run(tasks: Sequence[Task], x: Any, options: dict[str, Any], at_once: int) -> Iterator[Done]:
    """Fit the members; they come in order."""
    if at_once == 1:
        return (_fit(task, x, options) for task in tasks)
    joblib = required("joblib", "Ensemble.fit in several processes", "joblib", "pip install joblib, or processes=1")
    work = (joblib.delayed(_fit_alone)(task, x, options) for task in tasks)
    return joblib.Parallel(n_jobs=at_once, return_as="generator")(work)


def _in_turn(tasks: Sequence[Task], x: Any, options: dict[str, Any], at_once: int, progress: Progress) -> list[Done]:
    """The fits of one process and those that it starts, with progress."""
    found: list[Done] = []
    progress.begin(len(tasks), "member")
    try:
        for done in _run(tasks, x, options, at_once):
            found.append(done)
            loss = done.flow.history["validation_loss"][-1:] or [float("nan")]
            progress.update(f"validation {loss[0]:.4f}", len(tasks))
    finally:
        progress.close()
    return found


def _dealt(tasks: Sequence[Task], x: Any, options: dict[str, Any], ranks: Communicator) -> list[Done]:
    """The fits of all ranks, of which each has some; those of the same seeds are the same on all."""
    agree(ranks, {f"member {task.number}": facts_of_flow(task.flow) for task in tasks})
    mine = tasks[ranks.rank :: ranks.size]
    parts = ranks.share([_fit(task, x, options) for task in mine])
    return [parts[task.number % ranks.size][task.number // ranks.size] for task in tasks]
