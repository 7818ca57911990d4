"""`fit_variational`: a flow drawn toward a density that is known up to a constant."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from npflows.core.checks import SeedLike, as_flag, as_int, as_positive
from npflows.core.statistics import effective_sample_size
from npflows.core.underflow import ignore_underflow
from npflows.distribution.transformed import Flow, TransformedDistribution
from npflows.training.communicator import Alone, Communicator, cuts, lengths
from npflows.training.loop import run_rounds
from npflows.training.mpi import among_ranks
from npflows.training.run import Run
from npflows.training.settings import TrainingSettings
from npflows.training.shared import SharedGradient, buffer_counts, same_parameters
from npflows.training.sharing import agree, facts_of_flow
from npflows.training.target import Target, check_target

ROUNDS = 100
"""Rounds of a run, unless `steps_per_round` says otherwise."""


class VariationalTrainer(Run):
    """Training toward a target: a round is a number of steps.

    The loss of a batch of samples x of the flow q is the mean of log q(x) - log p(x).

    Parameters
    ----------
    target : callable
        x (n, d) to log p (n,) and its gradient (n, d).
    batch_size, max_steps, steps_per_round : int
    planned_steps : int
        What `max_steps` was when the run began.
    tempering_steps : int
        Steps over which the exponent of the target rises from 0 to 1, unless there is time for fewer than planned.
    sticking : bool
        Whether the gradient is that of the path alone.
    noise : ndarray (n, d)
        Latent samples that judge the parameters after each round; without any the loss does.
    comm : Communicator, optional
        Ranks that share out the samples of each step.
    exact : bool
        See `SharedGradient`.
    options
        As in `Run`.
    """

    unit = "round"
    numbers = (*Run.numbers, "planned_steps", "tempering_end")

    def __init__(
        self,
        flow: TransformedDistribution,
        target: Target,
        *,
        batch_size: int,
        max_steps: int,
        planned_steps: int,
        steps_per_round: int,
        tempering_steps: int,
        sticking: bool,
        noise: np.ndarray,
        comm: Communicator | None = None,
        exact: bool = True,
        **options: Any,
    ) -> None:
        self.target, self.batch_size, self.max_steps, self.planned_steps = target, batch_size, max_steps, planned_steps
        self.steps_per_round, self.tempering_steps, self.sticking = steps_per_round, tempering_steps, sticking
        self.tempering_end: float = tempering_steps
        self.noise = noise
        self._trouble, self._beta = "", 1.0
        self.errors: Any = np.geterr()  # the user's own, for the user's function
        super().__init__(flow, {batch_size}, **options)
        self.comm: Communicator = Alone() if comm is None else comm
        self.shared: SharedGradient | None = None
        if self.comm.size > 1:
            self.shared = SharedGradient(self.comm, exact, buffer_counts(flow, {batch_size}), self.theta)

    def begin(self) -> None:
        super().begin()
        self._take_over()
        if len(self.noise) and not self.tempering_steps:
            first = self._evaluate()[0]
            self.best_loss = -first if math.isfinite(first) else math.inf

    def _take_over(self) -> None:
        """Mark the flow as learned from this target."""
        self.flow.preprocessing.mark_standardized()  # a later fit goes on from what is learned here
        for layer in self.flow.data_dependent_layers:
            layer.initialized = True
        self.flow.target = self.target

    def run_round(self) -> dict[str, float]:
        elbos, norm, skipped = [], math.nan, 0
        rate = beta = 0.0
        with self.stepping():
            for _ in range(min(self.steps_per_round, self.max_steps - self.step)):
                rate, beta = self.next_rate(), self._exponent()
                elbo, taken, norm = self.run_step(rate, beta)
                if taken:
                    elbos.append(elbo)
                else:
                    skipped += 1
                if self.budget.end_step():
                    break
        self._beta = beta
        if self.shared is not None:
            same_parameters(self, self.comm)
        elbo = float(np.mean(elbos)) if elbos else math.nan
        judged, ess = self._evaluate() if len(self.noise) else (elbo, math.nan)
        if beta < 1:  # the target is not yet the one that counts
            self.keep()
            self.schedule.end_epoch(0)
        else:
            self.judge(-judged, bool(elbos))
        return {
            "step": self.step,
            "elbo": elbo,
            "validation_elbo": judged if len(self.noise) else math.nan,
            "ess": ess,
            "tempering": beta,
            "learning_rate": rate,
            "gradient_norm": norm,
            "skipped_steps": skipped,
        }

    def _exponent(self) -> float:
        """The exponent of the target in this step."""
        done, end = self.step + 1, self.schedule.end
        if done < self.tempering_end and end < self.schedule.total_steps:
            self.tempering_end = self.tempering_steps / self.planned_steps * end
        return min(1.0, done / self.tempering_end) if self.tempering_end else 1.0

    def messages(self) -> list[str]:
        """What a user should know about a run that time ended too early."""
        if not self.budget.is_up or (self.step and self._beta == 1):
            return []
        return [
            f"max_seconds was up after {self.step} of {self.max_steps} steps, before the flow was drawn toward the target "
            f"itself: give it more time"
        ]

    @ignore_underflow
    def run_step(self, rate: float, beta: float) -> tuple[float, bool, float]:
        """One step: the ELBO of its samples, whether it was taken, and the norm of its gradient."""
        n, flow = self.batch_size, self.flow
        places = [0, n] if self.shared is None else self.shared.places(flow.executable(), n)
        start, stop = places[self.comm.rank], places[self.comm.rank + 1]
        z = flow.base.sample(n, self.rng)[start:stop]
        x, log_det, _ = flow.transport(z, None, inverse=True)
        log_q = flow.base.log_prob(z) - log_det
        log_p, slope = self._call(x)
        finite = np.isfinite(log_p) & np.isfinite(slope).all(axis=1)
        tempered = log_p
        if beta < 1:
            first = flow.pullback(x, None, with_layers=False, dlog=np.ones(len(z)), input=True, gradient=False)
            tempered = beta * log_p + (1 - beta) * first.log_prob
            slope = beta * slope + (1 - beta) * first.dx
        if self.sticking:
            path = flow.pullback(x, None, dlog=np.ones(len(z)), input=True, gradient=False)
            dx, dlog = (path.dx - slope) / n, np.zeros(len(z))
        else:
            dx, dlog = -slope / n, np.full(len(z), -1 / n)
        columns = np.column_stack([log_q, log_p, tempered, finite])
        every_q, every_p, every_tempered, every_finite = self.comm.gather(columns, lengths(places)).T.copy()
        loss = float((every_q - every_tempered).mean())
        if math.isfinite(loss):
            more: dict[str, Any] = {} if self.shared is None else {"share": self.shared.share(n), "origin": start}
            buffers = self.buffers[n] if self.shared is None else self.shared.buffers(n)
            if len(z):
                flow.accumulate(z, None, dlog, buffers, log_prob=np.empty(len(z)), dy=dx, inverse=True, **more)
        if not (math.isfinite(loss) and every_finite.all()):
            self._note(x, finite, int(n - every_finite.sum()))
        return float((every_p - every_q).mean()), *self.take_step(n, loss, rate)

    def gradient(self, n: int) -> Any:
        return super().gradient(n) if self.shared is None else self.shared.sum(n)

    def _call(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not len(x):  # of more ranks than there are samples for
            return np.empty(0), np.empty(x.shape)
        with np.errstate(**self.errors):
            result = self.target(x.copy())  # its own, as what is drawn is used again
        log_p, slope = (np.asarray(values, np.float64) for values in result)
        if log_p.shape != (len(x),) or slope.shape != x.shape:
            raise ValueError(f"the target must give ({len(x)},) and {x.shape}, got {log_p.shape} and {slope.shape}")
        return log_p, slope

    def _note(self, x: np.ndarray, finite: np.ndarray, n_bad: int) -> None:
        """Remember where the target is not finite."""
        bad = [rows[0] for rows in self.comm.share(x[~finite][:1]) if len(rows)]
        if bad:
            self._trouble = (
                f"The target's log-density or its gradient is not finite at {n_bad} of {self.batch_size} samples, at "
                f"{np.array2string(bad[0], precision=4, threshold=8)} for instance: it must be finite everywhere; give "
                f"the flow a support= if parameters are bounded. "
            )

    @ignore_underflow
    def _evaluate(self) -> tuple[float, float]:
        """ELBO and effective share of the samples that the fixed noise makes."""
        places = cuts(len(self.noise), self.comm.size)
        noise = self.noise[places[self.comm.rank] : places[self.comm.rank + 1]]
        x, log_det, _ = self.flow.transport(noise, None, self.kept, inverse=True)
        log_weights = self._call(x)[0] - self.flow.base.log_prob(noise) + log_det
        log_weights = self.comm.gather(log_weights, lengths(places))
        return float(log_weights.mean()), effective_sample_size(log_weights, log=True) / len(log_weights)

    def line(self, record: dict[str, float]) -> str:
        text = f"ELBO {record['elbo']:.4f}"
        if len(self.noise):
            text = f"ELBO {record['validation_elbo']:.4f}, ESS {record['ess']:.1%}"
        return text if record["tempering"] == 1 else f"{text}, tempering {record['tempering']:.2f}"

    def advice(self) -> str:
        return f"{self._trouble}Lower learning_rate, or temper"

    @property
    def options(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "max_steps": self.max_steps,
            "steps_per_round": self.steps_per_round,
            "tempering_steps": self.tempering_steps,
            "sticking_the_landing": self.sticking,
            "validation_size": len(self.noise),
            **super().options,
        }

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        arrays, numbers = super().state()
        return {**arrays, "noise": self.noise}, numbers

    def restore(self, arrays: dict[str, np.ndarray], numbers: dict[str, Any]) -> None:
        super().restore(arrays, numbers)
        self.noise = arrays["noise"]
        self._take_over()


@among_ranks
def fit_variational(
    flow: Flow,
    log_density_and_grad: Target,
    *,
    max_steps: int = 5000,
    max_seconds: float | None = None,
    batch_size: int = 256,
    sticking_the_landing: bool = True,
    tempering: float = 0.0,
    validation_size: int = 1024,
    steps_per_round: int | None = None,
    learning_rate: float = 1e-3,
    schedule: str = "cosine",
    warmup_steps: int = 0,
    weight_decay: float = 0.0,
    clip_norm: float | None = 5.0,
    patience: int | None = None,
    ema: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    rng: SeedLike = None,
    progress: bool | str = "auto",
    callbacks: Callable | Iterable[Callable] = (),
    comm: Any = None,
    exact: bool = True,
) -> Flow:
    """Fit the flow to a density that is known up to a constant, a posterior for instance, and return the flow.

    It minimizes KL(flow || target), by gradients through the flow's samples (Rezende and Mohamed 2015, arXiv:1505.05770,
    equation 15).  Afterwards `importance_weights` tells how good it is, and what the constant is.

    However it ends, by itself, by an error or by Ctrl-C, the flow holds the best parameters so far, and `flow.history`
    what each round of steps gave: round, step, elbo (mean of log p - log q over the round's samples: a bound from below
    on the log-evidence), validation_elbo and ess (the same and the effective share of fixed samples, after the round),
    tempering, learning_rate, gradient_norm (of the last step), skipped_steps, seconds.  A second call continues from the
    present parameters; a first one starts from the base distribution, and `flow.standardize.set(loc, scale)` before it
    moves that to where the target is.  A learning rate of 3e-3 and `ema=0.99` come closest to a target with one mode; for
    several, 1e-3, a base wide enough to hold all of them, and tempering.  Dropout is not applied, and parameters of the
    base distribution stay as they are.

    Parameters
    ----------
    log_density_and_grad : callable
        x (n, input_dim) to the target's log-density (n,), up to a constant, and its gradient (n, input_dim); both finite
        everywhere.  x is float64 and read-only.
    max_steps : int
        Steps at most; the length of the cosine schedule.
    max_seconds : float, optional
        Time for the run, which ends it as in `fit`: the cosine schedule and tempering are then as long as there is time.
    batch_size : int
        Samples of a step.
    sticking_the_landing : bool
        Leave the score out of the gradient: its mean is 0, and without it the gradient's noise vanishes as the flow
        approaches the target (Roeder et al. 2017, arXiv:1703.09194, equation 6).
    tempering : float
        Share of the steps, 0 to 1, during which the target is base^(1 - t) target^t with t rising from 0 to 1, so that
        the flow has not settled on one mode when the others appear.  The base is taken in the units of x.  A run that is
        made longer with `resume` tempers as long as it was to at first.
    validation_size : int
        Samples that judge the parameters after each round; their noise is the same each time.  With 0 the round's own
        samples do.
    steps_per_round : int, optional
        By default a hundredth of `max_steps`, whatever there is time for; a run that is made longer with `resume` keeps
        its rounds.
    learning_rate, schedule, warmup_steps, weight_decay, clip_norm, ema, checkpoint, resume, rng, progress, callbacks
        As in `fit`, with rounds for epochs.
    patience : int, optional
        Stop after so many rounds without improvement.
    comm : mpi4py.MPI.Intracomm, optional
        Processes that fit together, as in `fit`: each calls the target for its share of the samples of a step.  The bits
        are those of one process if those of the target for a sample do not depend on what other samples it is given.
    exact : bool
        As in `fit`.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, or the target does not return what it should, before anything is changed.
    TrainingError
        If the loss stays non-finite in spite of lower learning rates.
    """
    max_steps, batch_size = as_int(max_steps, "max_steps", 0), as_int(batch_size, "batch_size")
    validation_size = as_int(validation_size, "validation_size", 0)
    if steps_per_round is not None:
        steps_per_round = as_int(steps_per_round, "steps_per_round")
    tempering = as_positive(tempering, "tempering", zero=True)
    if tempering > 1:
        raise ValueError(f"tempering is a share of the steps, between 0 and 1, got {tempering!r}")
    if flow.preprocessing.has_integers:
        raise ValueError("fit_variational needs densities with gradients, and this flow has integer columns")
    if flow.condition_dim:
        raise ValueError("fit_variational takes flows without a condition; this one has condition_dim="
                         f"{flow.condition_dim}")  # fmt: skip
    sticking, exact = as_flag(sticking_the_landing, "sticking_the_landing"), as_flag(exact, "exact")
    settings = TrainingSettings(max_seconds, learning_rate, schedule, warmup_steps, weight_decay, clip_norm, patience, ema,
                      checkpoint, resume, rng, progress, callbacks, comm)  # fmt: skip
    if settings.comm.size > 1:
        agree(settings.comm, facts_of_flow(flow) | {"max_steps": max_steps, "batch_size": batch_size,
              "tempering": tempering, "sticking_the_landing": sticking, "validation_size": validation_size,
              "steps_per_round": steps_per_round, "exact": exact})  # fmt: skip
    saved = settings.saved()
    planned = max_steps if saved is None else saved.numbers["planned_steps"] or max_steps  # of rounds and tempering
    if steps_per_round is None:
        steps_per_round = max(1, planned // ROUNDS)
    noise = flow.base.sample(validation_size, settings.rng)
    check_target(flow, log_density_and_grad)
    free = flow.parameters.free.copy()
    free[flow.base_part] = False  # nor does weight decay move them
    trainer = VariationalTrainer(
        flow,
        log_density_and_grad,
        batch_size=batch_size,
        max_steps=max_steps,
        planned_steps=planned,
        steps_per_round=steps_per_round,
        tempering_steps=round(tempering * planned),
        sticking=sticking,
        noise=noise,
        comm=settings.comm,
        exact=exact,
        **settings.for_run(flow, max_steps, free),
    )
    done = (0, 0) if saved is None else (saved.numbers.get("round", 0), saved.numbers.get("step", 0))
    run_rounds(trainer, done[0] - (done[1] - max_steps) // steps_per_round, settings, lambda: None, saved)
    return flow
