"""Several flows of one table as one density: their mixture, and how far they differ, an error of it at every row."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from npflows.core.checks import SeedLike, as_choice, as_int, as_rng
from npflows.core.progress import Progress
from npflows.core.statistics import log_mean_exp
from npflows.core.tables import Headers
from npflows.core.threads import get_num_threads
from npflows.core.underflow import ignore_underflow
from npflows.files.archive import FlowFileError
from npflows.files.ensemble_file import load_ensemble, save_ensemble
from npflows.flow import NormalizingFlow
from npflows.support import Column
from npflows.training.communicator import Alone
from npflows.training.members import VALIDATION, Task, as_given, bootstrapped, facts_of_options, fit_members
from npflows.training.mpi import among_ranks
from npflows.training.sharing import agree, facts_of_generator

LARGEST_SEED = 1 << 31

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
        At least one; all of the same kind of samples: shape, support, columns, condition and units.

    Attributes
    ----------
    members : list of NormalizingFlow
    """

    def __init__(self, members: Iterable[NormalizingFlow]) -> None:
        if isinstance(members, NormalizingFlow):
            raise TypeError(f"members must be flows, got one {type(members).__name__}: Ensemble([flow, other])")
        self.members = list(members)
        if not self.members:
            raise ValueError("an ensemble needs at least one member")
        alike: dict[str, Any] = {}
        for i, member in enumerate(self.members):
            if not isinstance(member, NormalizingFlow):
                raise TypeError(f"members must be flows, member {i} is a {type(member).__name__}")
            found = _kind_of_samples(member)
            alike = alike or found
            for name, ours in alike.items():
                if ours != found[name]:
                    raise ValueError(f"members must have the same {name}: {_apart(ours, found[name], i)}")

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
            Is called with an integer for each member, a seed, and gives a new flow that is not fitted yet:
            ``lambda seed: npflows.MAF(3, rng=seed)``.
        x : array_like (n_rows, input_dim), or TableStream
            The table, of any kind that `NormalizingFlow.fit` takes, with the weights and the condition that it brings.
        n : int
            Number of members.
        bootstrap : {"rows"}, optional
            Fit each member to as many rows, drawn with replacement: a row that is drawn several times weighs so much more,
            so that none is both trained on and validated with.  Not for streams that are larger than memory.
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
            same arguments and the rows that it has, perhaps none, those to validate on too, and has the whole ensemble
            afterwards.  For the fit every rank holds the rows of all, one rank's after the other's.
        options
            Further arguments of `NormalizingFlow.fit`.

        Raises
        ------
        ValueError, TypeError
            If an argument does not fit, or `make` gives the same flow twice.
        TrainingError
            If a member can't be fitted; the message says which.
        ImportError
            If joblib is missing and `processes` is not 1.
        """
        n, generator, ranks = as_int(n, "n"), as_rng(rng), Alone() if comm is None else comm
        given = sorted({"resume", "checkpoint"} & set(options))
        if given:
            raise ValueError(
                f"{', '.join(given)}: an ensemble is fitted in one go; fit its members yourself, then Ensemble([...])"
            )
        agree(ranks, {"n": n, "bootstrap": bootstrap, "rng": facts_of_generator(rng), **facts_of_options(options)})
        generator = ranks.broadcast(generator) if rng is None else generator
        chosen = None if bootstrap is None else as_choice(bootstrap, "bootstrap", ("rows",))
        at_once = min(n, get_num_threads() if processes is None else as_int(processes, "processes"))
        seeds = generator.integers(LARGEST_SEED, size=(n, 2)).tolist()
        flows = _made(make, (seed for seed, _ in seeds))
        cls(flows)  # that they belong together is better known before than after the fit
        validation = {name: options.pop(name, None) for name in VALIDATION}
        rows = as_given(flows[0], ranks, x, condition, sample_weight, log_weight, validation)
        tasks = []
        for number, (flow, (_, seed)) in enumerate(zip(flows, seeds)):
            weight = rows.weight if chosen is None else bootstrapped(rows, generator)
            tasks.append(Task(number, flow, weight, seed))
        return cls(fit_members(tasks, rows, options, ranks, at_once, Progress(progress)))

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[NormalizingFlow]:
        return iter(self.members)

    def __repr__(self) -> str:
        first = self.members[0]
        kind = f"{type(first).__name__}, {first.latent_dim} values, {first.num_params} parameters each"
        return f"Ensemble of {len(self)}: {kind}"

    def __getattr__(self, name: str) -> Any:
        members = self.__dict__.get("members") or [None]
        hint = f": its members are flows, which have it: ensemble.members[0].{name}" * hasattr(members[0], name)
        raise AttributeError(f"an Ensemble has no attribute {name!r}{hint}", name=name, obj=self)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of a sample."""
        return self.members[0].input_shape

    @property
    def input_dim(self) -> int:
        """Values of a sample."""
        return self.members[0].input_dim

    @property
    def latent_dim(self) -> int:
        """Values of a sample on the latent side of the members."""
        return self.members[0].latent_dim

    @property
    def condition_dim(self) -> int:
        """Values of a condition, 0 without one."""
        return self.members[0].condition_dim

    @property
    def columns(self) -> list[str] | None:
        """Names of the columns."""
        return self.members[0].columns

    @property
    def condition_columns(self) -> list[str] | None:
        """Names of the values of the condition."""
        return self.members[0].condition_columns

    @property
    def units(self) -> list[str | None] | None:
        """Units of the columns; see `NormalizingFlow.units`."""
        return self.members[0].units

    @property
    def condition_units(self) -> list[str | None] | None:
        """Units of the values of the condition."""
        return self.members[0].condition_units

    @property
    def support(self) -> list[Column] | None:
        """Where each column lives; None where all are the whole line."""
        return self.members[0].support

    @property
    def dtype(self) -> np.dtype:
        """The compute dtype of the members, the widest where they differ."""
        return np.result_type(*(member.dtype for member in self.members))

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
        save_ensemble(self.members, path)

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
        flows = load_ensemble(path, dtype, classes)
        try:
            return cls(flows)
        except (ValueError, TypeError) as error:
            raise FlowFileError(f"{os.fspath(path)} is no ensemble: {error}") from None


def _kind_of_samples(flow: NormalizingFlow) -> dict[str, Any]:
    """What flows must have in common for the mean of their densities to be a density."""
    names = ("input_shape", "condition_dim", "columns", "condition_columns", "units", "condition_units")
    texts = {id(column): repr(column) for column in flow.support or ()}
    support = [texts[id(column)] for column in flow.support or ()] or ["Real()"] * flow.latent_dim
    return {**{name: getattr(flow, name) for name in names}, "support": support}


def _apart(ours: Any, theirs: Any, i: int) -> str:
    """How member i differs from the first one, of columns in the first that differs."""
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        d = next(d for d, (one, other) in enumerate(zip(ours, theirs)) if one != other)
        return f"of column {d} member 0 has {ours[d]}, member {i} has {theirs[d]}"
    return f"member 0 has {ours}, member {i} has {theirs}"


def _made(make: Make, seeds: Iterable[int]) -> list[NormalizingFlow]:
    """The flows that are to be fitted, each an object of its own."""
    example = "make=lambda seed: npflows.MAF(3, rng=seed)"
    if isinstance(make, NormalizingFlow) or not callable(make):
        raise TypeError(f"make must be a function that gives a flow, got {type(make).__name__}: {example}")
    flows: list[NormalizingFlow] = []
    seen: set[int] = set()
    for seed in seeds:
        flow = make(seed)
        if not isinstance(flow, NormalizingFlow):
            raise TypeError(f"make must give a flow, got {type(flow).__name__}: {example}")
        if id(flow.parameters) in seen:
            raise ValueError(f"make must give a new flow each time it is called, and it gave the same one twice: {example}")
        seen.add(id(flow.parameters))
        flows.append(flow)
    return flows
