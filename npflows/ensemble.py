"""Several flows of one table as one density: their mixture, and how far they differ, an error of it at every row."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows._version import __version__
from npflows.core.atomic import atomic_write
from npflows.core.checks import SeedLike, as_choice, as_int, as_rng, as_weights, warn_user
from npflows.core.errors import TrainingError
from npflows.core.optional import required
from npflows.core.progress import Progress
from npflows.core.statistics import log_mean_exp
from npflows.core.tables import Headers
from npflows.core.threads import at_most_threads, get_num_threads
from npflows.core.underflow import ignore_underflow
from npflows.files.archive import FlowFileError, read_arrays, read_json, write_arrays
from npflows.files.flow_file import ENSEMBLE, pack, unpack
from npflows.flow import NormalizingFlow
from npflows.training.communicator import Alone, Communicator
from npflows.training.mpi import among_ranks
from npflows.training.sharing import agree, facts_of_flow, facts_of_generator, of_all_ranks

FORMAT = 1
"""Version of the format of files; the members within have that of flows."""
LARGEST_SEED = 1 << 31
MOST_MEMBERS = 10_000
"""Members that a file may have."""

Make = Callable[[int], NormalizingFlow]


class LogProbAndSpread(NamedTuple):
    """What `Ensemble.log_prob_and_spread` gives.

    Attributes
    ----------
    log_prob : ndarray (n,)
        Log-density of the mixture.
    spread : ndarray (n,)
        Standard deviation of the members' densities over the density of the mixture: its relative error where the members
        differ by what they were begun with, and by the rows that they were fitted to.  0 where none has density.
    """

    log_prob: NDArray[np.float64]
    spread: NDArray[np.float64]


class Ensemble:
    """The mixture, in equal parts, of flows that were fitted to the same table ("deep ensemble", Lakshminarayanan et al.
    2017, arXiv:1612.01474).

    Parameters
    ----------
    members : sequence of NormalizingFlow
        At least one; all of the same kind of samples, columns and condition.

    Attributes
    ----------
    members : list of NormalizingFlow
    """

    def __init__(self, members: Iterable[NormalizingFlow]) -> None:
        self.members = list(members)
        if not self.members:
            raise ValueError("an ensemble needs at least one member")
        first = self.members[0]
        for i, member in enumerate(self.members):
            if not isinstance(member, NormalizingFlow):
                raise TypeError(f"members must be flows, member {i} is a {type(member).__name__}")
            for name in ("input_shape", "condition_dim", "columns", "condition_columns"):
                ours, theirs = getattr(first, name), getattr(member, name)
                if ours != theirs:
                    raise ValueError(f"members must have the same {name}: member 0 has {ours}, member {i} has {theirs}")

    @classmethod
    @among_ranks
    def fit(
        cls,
        make: Make,
        x: ArrayLike,
        n: int = 8,
        *,
        bootstrap: str | None = None,
        sample_weight: ArrayLike | None = None,
        log_weight: ArrayLike | None = None,
        condition: ArrayLike | None = None,
        rng: SeedLike = None,
        processes: int | None = None,
        progress: bool | str = "auto",
        comm: Any = None,
        **options: Any,
    ) -> Ensemble:
        """Fit n flows to a table, several at a time.

        Each has first parameters, a split into training and validation rows, and batches of its own.  The same seed gives
        the same bits, whatever the number of processes is.

        Parameters
        ----------
        make : callable
            Is called with an integer for each member, a seed, and gives a flow that is not fitted yet:
            ``lambda seed: npflows.MAF(3, rng=seed)``.
        x : array_like (n_rows, input_dim)
            The table.
        n : int
            Number of members.
        bootstrap : {"rows"}, optional
            Fit each member to as many rows, drawn with replacement: a row that is drawn several times weighs so much more,
            so that none is both trained on and validated with.
        sample_weight, log_weight, condition : array_like (n_rows, ...), optional
            As in `NormalizingFlow.fit`.
        rng : int, numpy.random.Generator or None
            Draws the seeds, and the rows of `bootstrap`.
        processes : int, optional
            Members that are fitted at a time, each on one thread in a process of its own; by default as many as npflows
            uses threads.  With 1 they are fitted in this process, with all threads.
        progress : bool or "auto"
            Whether to show how many members are there, as in `NormalizingFlow.fit`.
        comm : mpi4py.MPI.Intracomm, optional
            Processes, the ranks of MPI, that the members are dealt to, instead of `processes`: each calls this with the
            same arguments and the rows that it has, perhaps none, and has the whole ensemble afterwards.  For the fit every
            rank holds the rows of all, one rank's after the other's.
        options
            Further arguments of `NormalizingFlow.fit`.

        Raises
        ------
        TrainingError
            If a member can't be fitted; the message says which.
        ImportError
            If joblib is missing and `processes` is not 1.
        """
        n, generator, ranks = as_int(n, "n"), as_rng(rng), Alone() if comm is None else comm
        if ranks.size > 1:
            agree(ranks, {"n": n, "bootstrap": bootstrap, "rng": facts_of_generator(rng)})
            generator = ranks.broadcast(generator) if rng is None else generator
        chosen = None if bootstrap is None else as_choice(bootstrap, "bootstrap", ("rows",))
        given = sorted({"resume", "checkpoint"} & set(options))
        if given:
            raise ValueError(
                f"{', '.join(given)}: an ensemble is fitted in one go; fit its members yourself, then Ensemble([...])"
            )
        seeds = generator.integers(LARGEST_SEED, size=(n, 2)).tolist()
        flows = [_made(make, int(seed)) for seed, _ in seeds]
        cls(flows)  # that they belong together is better known before than after the fit
        if ranks.size > 1:
            known = flows[0].headers
            x, condition, sample_weight, log_weight = of_all_ranks(ranks, known, x, condition, sample_weight, log_weight)
        n_rows = len(x)  # type: ignore[arg-type]
        weight = as_weights(sample_weight, n_rows, logarithms=log_weight)
        tasks = []
        for number, (flow, (_, seed)) in enumerate(zip(flows, seeds)):
            own = weight
            if chosen is not None:
                counts = np.bincount(generator.integers(n_rows, size=n_rows), minlength=n_rows)
                own = counts.astype(np.float64) if weight is None else counts * weight
            tasks.append(_Task(number, flow, own, seed))
        if condition is not None:
            options["condition"] = condition
        if ranks.size > 1:
            return cls(_dealt(tasks, x, options, ranks))
        at_once = min(n, get_num_threads() if processes is None else as_int(processes, "processes"))
        return cls(_fitted(tasks, x, options, at_once, Progress(progress)))

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[NormalizingFlow]:
        return iter(self.members)

    def __repr__(self) -> str:
        first = self.members[0]
        kind = f"{type(first).__name__}, {first.latent_dim} values, {first.num_params} parameters each"
        return f"Ensemble of {len(self)}: {kind}"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of a sample."""
        return self.members[0].input_shape

    @property
    def input_dim(self) -> int:
        """Values of a sample."""
        return self.members[0].input_dim

    @property
    def condition_dim(self) -> int:
        """Values of a condition, 0 without one."""
        return self.members[0].condition_dim

    @property
    def columns(self) -> list[str] | None:
        """Names of the columns."""
        return self.members[0].columns

    @property
    def headers(self) -> Headers:
        """The columns of samples and of conditions, with names and units where they have any."""
        return self.members[0].headers

    @property
    def history(self) -> list[dict[str, list[float]]]:
        """What each member's fit gave, epoch by epoch."""
        return [member.history for member in self.members]

    def _log_probs(self, x: ArrayLike, condition: ArrayLike | None, options: dict[str, Any]) -> NDArray[np.float64]:
        return np.array([member.log_prob(x, condition, **options) for member in self.members])

    def log_prob(self, x: ArrayLike, condition: ArrayLike | None = None, **options: Any) -> NDArray[np.float64]:
        """Log-density (n,) of the mixture; arguments as in `NormalizingFlow.log_prob`."""
        return log_mean_exp(self._log_probs(x, condition, options))[()]

    @ignore_underflow
    def log_prob_and_spread(self, x: ArrayLike, condition: ArrayLike | None = None, **options: Any) -> LogProbAndSpread:
        """Log-density (n,) of the mixture, and how far the members' densities are apart (n,), relative to it.

        An ensemble of one has spread NaN.
        """
        log_probs = self._log_probs(x, condition, options)
        log_prob = log_mean_exp(log_probs)
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = np.exp(log_probs - log_prob)  # of mean 1
            spread = np.sqrt(((shares - 1) ** 2).sum(axis=0) / (len(self) - 1))
        spread = np.where(np.isneginf(log_prob) & (len(self) > 1), 0.0, spread)
        return LogProbAndSpread(log_prob[()], spread[()])

    @ignore_underflow
    def log_prob_and_grad(
        self, x: ArrayLike, condition: ArrayLike | None = None, **options: Any
    ) -> tuple[NDArray[np.float64], ...]:
        """Log-density (n,) of the mixture and its gradient with respect to x; see `NormalizingFlow.log_prob_and_grad`."""
        found = [member.log_prob_and_grad(x, condition, **options) for member in self.members]
        log_probs = np.array([one[0] for one in found])
        log_prob = log_mean_exp(log_probs)
        with np.errstate(invalid="ignore"):
            shares = np.exp(log_probs - log_prob) / len(self)
        shares[:, ...] = np.where(np.isneginf(log_prob), 0.0, shares)
        gradients = []
        for parts in zip(*(one[1:] for one in found)):
            axes = (...,) + (None,) * (parts[0].ndim - log_prob.ndim)
            gradients.append(sum(share[axes] * part for share, part in zip(shares, parts)))
        return (log_prob[()], *gradients)

    def sample(
        self, n_samples: int, rng: SeedLike = None, temperature: float = 1.0, *, condition: ArrayLike | None = None
    ) -> NDArray[Any]:
        """Draw samples (n_samples, ...) of the mixture, each from a member at random; arguments as in
        `NormalizingFlow.sample`."""
        n, generator = as_int(n_samples, "n_samples", 0), as_rng(rng)
        which = generator.integers(len(self), size=n)
        rows = self.members[0].conditioning.finite_rows(condition, n, "sample")
        parts = []
        for i, member in enumerate(self.members):
            own = which == i
            given = None if rows is None else rows[own]
            parts.append(member.sample(int(own.sum()), generator, temperature, condition=given))
        samples = np.empty((n, *parts[0].shape[1:]), np.result_type(*parts))
        for i, part in enumerate(parts):
            samples[which == i] = part
        return samples

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all members to one .npz file, in full or not at all; `Ensemble.load` reads it."""
        about = {"format": FORMAT, "npflows": __version__, "class": "Ensemble", "members": len(self)}
        arrays = {ENSEMBLE: np.array(json.dumps(about))}
        for i, member in enumerate(self.members):
            arrays.update({f"{i}/{name}": array for name, array in pack(member).items()})
        with atomic_write(path) as file:
            write_arrays(file, arrays)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, dtype: DTypeLike | None = None, classes: Iterable[type] = ()
    ) -> Ensemble:
        """Read an ensemble that `save` wrote; arguments as in `npflows.load`.

        Raises
        ------
        FlowFileError
            If the file is damaged, or holds no ensemble.
        OSError
            If it can't be opened.
        """
        where, of_mine = os.fspath(path), list(classes)
        arrays = read_arrays(path, lambda name: name == ENSEMBLE or name.partition("/")[0].isdecimal())
        n = _members(arrays, where)
        flows = []
        for i in range(n):
            own = {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith(f"{i}/")}
            flows.append(unpack(own, f"member {i} of {where}", dtype, of_mine))
        try:
            return cls(flows)
        except (ValueError, TypeError) as error:
            raise FlowFileError(f"{where} is no ensemble: {error}") from None


def _members(arrays: dict[str, np.ndarray], where: str) -> int:
    """The number of members that a file says that it has."""
    if ENSEMBLE not in arrays:
        raise FlowFileError(f"{where} holds no ensemble: if it is one flow, read it with npflows.load")
    try:
        about = read_json(str(arrays[ENSEMBLE]))
        version, n = about["format"], about["members"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FlowFileError(f"{where} is no ensemble: its description can't be read ({error!r})") from None
    if version != FORMAT or type(n) is not int or not 1 <= n <= MOST_MEMBERS:
        raise FlowFileError(
            f"{where} is an ensemble of format {version!r} with {n!r} members, which this npflows can't read"
        )
    return n


def _made(make: Make, seed: int) -> NormalizingFlow:
    flow = make(seed)
    if not isinstance(flow, NormalizingFlow):
        raise TypeError(f"make must give a flow, got {type(flow).__name__}: make=lambda seed: npflows.MAF(3, rng=seed)")
    return flow


class _Task(NamedTuple):
    """A flow to fit, the weights of the rows, and a seed."""

    number: int
    flow: NormalizingFlow
    weight: NDArray[np.float64] | None
    seed: int


class _Done(NamedTuple):
    """A fitted flow, and what its fit warned of."""

    flow: NormalizingFlow
    warnings: list[str]


def _fit(task: _Task, x: Any, options: dict[str, Any]) -> _Done:
    """Fit a member; warnings come out with it, as those of other processes would be lost."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            flow = task.flow.fit(x, sample_weight=task.weight, rng=task.seed, progress=False, **options)
    except TrainingError as error:
        raise TrainingError(f"member {task.number}: {error}") from None
    return _Done(flow, [str(one.message) for one in caught if issubclass(one.category, UserWarning)])


def _fit_alone(task: _Task, x: Any, options: dict[str, Any]) -> _Done:
    """On one thread, in a process among others."""
    with at_most_threads(1):
        return _fit(task, x, options)


def _run(tasks: Sequence[_Task], x: Any, options: dict[str, Any], at_once: int) -> Iterator[_Done]:
    """Fit the members; they come in order."""
    if at_once == 1:
        return (_fit(task, x, options) for task in tasks)
    joblib = required("joblib", "Ensemble.fit in several processes", "joblib", "pip install joblib, or processes=1")
    work = (joblib.delayed(_fit_alone)(task, x, options) for task in tasks)
    return joblib.Parallel(n_jobs=at_once, return_as="generator")(work)


def _dealt(tasks: Sequence[_Task], x: Any, options: dict[str, Any], ranks: Communicator) -> list[NormalizingFlow]:
    """The fitted flows, of which each rank has fitted some; those of the same seeds are the same on all."""
    agree(ranks, {f"member {task.number}": facts_of_flow(task.flow) for task in tasks})
    mine = tasks[ranks.rank :: ranks.size]
    parts = ranks.share([_fit(task, x, options) for task in mine])
    done = [parts[task.number % ranks.size][task.number // ranks.size] for task in tasks]
    _tell_once(done)
    return [one.flow for one in done]


def _tell_once(done: Sequence[_Done]) -> None:
    """Each warning of all members once, with the first one that it is of."""
    told: dict[str, int] = {}
    for number, one in enumerate(done):
        for message in one.warnings:
            told.setdefault(message, number)
    for message, number in told.items():
        warn_user(f"{message} (member {number})")


def _fitted(
    tasks: Sequence[_Task], x: Any, options: dict[str, Any], at_once: int, progress: Progress
) -> list[NormalizingFlow]:
    """The fitted flows, with progress, and each warning once."""
    found: list[_Done] = []
    progress.begin(len(tasks), "member")
    try:
        for done in _run(tasks, x, options, at_once):
            found.append(done)
            loss = done.flow.history["validation_loss"][-1:] or [float("nan")]
            progress.update(f"validation {loss[0]:.4f}", len(tasks))
    finally:
        progress.close()
    _tell_once(found)
    return [done.flow for done in found]
