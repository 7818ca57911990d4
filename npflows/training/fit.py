"""`fit`: a flow, a table, and the best parameters that were found."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from typing import Any

from numpy.typing import ArrayLike

from npflows.core.checks import SeedLike, as_choice, as_flag, as_int, warn_user
from npflows.core.table import with_roles
from npflows.core.tables import Headers
from npflows.distribution import on_gpu
from npflows.distribution.transformed import Flow
from npflows.files.tables import TableStream
from npflows.training.correlations import as_standardization
from npflows.training.data import as_training_rows, split
from npflows.training.dropout import as_dropout
from npflows.training.imputation import filled
from npflows.training.initialization import set_from_data
from npflows.training.likelihood import LikelihoodTrainer
from npflows.training.loop import run_rounds
from npflows.training.missing import MissingLike, as_missing
from npflows.training.mpi import among_ranks
from npflows.training.repeats import row_keys, warn_of_shared, without_copies
from npflows.training.settings import TrainingSettings
from npflows.training.shared import SharedTrainer
from npflows.training.sharing import agree, facts_of_flow
from npflows.training.streaming import (
    StreamedRows,
    StreamTrainer,
    batches_of_stream,
    streamed,
    streamed_if_large,
)

STEPS, SMALLEST_BATCH, LARGEST_BATCH = 200, 128, 512
"""By default an epoch has so many steps, unless that takes smaller or larger batches."""
ROWS_PER_COLUMN = 10
"""Rows that a table should at least be worth for each of its columns."""


@among_ranks
def fit(
    flow: Flow,
    x: ArrayLike | TableStream,
    *,
    sample_weight: ArrayLike | None = None,
    log_weight: ArrayLike | None = None,
    condition: ArrayLike | None = None,
    validation_fraction: float = 0.1,
    validation_data: ArrayLike | None = None,
    validation_weight: ArrayLike | None = None,
    validation_log_weight: ArrayLike | None = None,
    validation_condition: ArrayLike | None = None,
    standardize: bool | str = "auto",
    max_epochs: int = 100,
    max_seconds: float | None = None,
    batch_size: int | None = None,
    learning_rate: float = 3e-3,
    schedule: str = "cosine",
    warmup_steps: int | None = None,
    weight_decay: float = 0.0,
    dropout: float | str | None = "auto",
    clip_norm: float | None = 5.0,
    patience: int | None = 15,
    ema: float | None = 0.99,
    on_invalid: str = "raise",
    missing: MissingLike | None = None,
    on_missing: str = "drop",
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    rng: SeedLike = None,
    progress: bool | str = "auto",
    callbacks: Callable | Iterable[Callable] = (),
    comm: Any = None,
    exact: bool = True,
) -> Flow:
    """Fit the flow to a table by maximum likelihood, and return it.

    However it ends, by itself, by an error or by Ctrl-C, the flow holds the best parameters so far, and `flow.history`
    what each epoch gave: epoch, train_loss, validation_loss (mean negative log-likelihoods), clipped_loss (what chooses the
    best epoch), learning_rate, gradient_norm (of the last step), skipped_steps, seconds.  `flow.effective_rows` says how
    many rows of equal weight the distinct training rows are worth.  A second fit continues from the present parameters.

    Rows that equal others, condition included, are merged into one with their total weight, so that none is both trained
    on and validated with.  They are left as they are, and split like all others, where equal rows are to be expected: if
    all columns are whole numbers by their support, or pixels; if no column has more than 20 values and a distinct row
    stands for 10 or more on average; or if most rows that have equals also have neighbors, as on a grid that rows fill.

    A row whose loss is far beyond those of others, 50 times as far from the median as nine in ten are before the first
    step, weighs no more in a gradient than one at this bound.  A validation row counts as the bound at most where the best
    epoch is chosen, or `patience` and the schedule ask for improvement; below 500 rows it is nearer, at a tenth of their
    number, 8 at least.  A warning names such rows where they matter.

    Parameters
    ----------
    x : array_like (n, input_dim), or TableStream
        The table; any layout or numeric dtype, memory-mapped ones included, and for a flow on "cuda" arrays on the GPU.
        Data frames and other tables with names are taken by name where the flow has `columns`, and name its columns where
        it has none; so with units, and with the condition.  A table that `npflows.read_table` read brings its weights and
        its condition with it; one of `npflows.stream_table`, and a Dask array or data frame, is never in memory whole where
        it is large: see there.
    sample_weight : array_like (n,), optional
        Non-negative weights of the rows; only their ratios matter.
    log_weight : array_like (n,), optional
        Their logarithms instead, of any size, -inf for a weight of 0: what importance and nested sampling give.
    condition : array_like (n, condition_dim), optional
        Where the flow takes one.
    validation_fraction : float
        Share of the rows that is held out to choose the best parameters, 0 for none.
    validation_data, validation_weight, validation_log_weight, validation_condition : array_like, optional
        Rows to validate on instead, with weights, or their logarithms, and condition of their own.
    standardize : {"auto", "diagonal", "full"} or bool
        Set the flow's first layer from the training rows, unless an earlier fit has.  "diagonal" gives each column its
        own location and scale.  "full" also takes out correlations, by the Cholesky factor of the correlation matrix, in
        float64, for columns that are neither on a circle nor whole numbers.  "auto", or True, takes from those columns
        alone what the columns before them say that have less than 1 % of their variance left then, as in thin posteriors.
        False: leave the layer as it is.
    max_epochs : int
        Passes through the training rows at most; the length of the cosine schedule.
    max_seconds : float, optional
        Time for the run from the call on, with all that is compiled in it.  The first steps tell how many fit into it.  If
        these are fewer than those of `max_epochs`, the cosine schedule is as long as they are: the rate falls to 0 as the
        time ends, in the middle of an epoch if need be.  The bits then depend on the speed of the machine.  With `resume`
        it is the time of this call, and the schedule is that of the steps before it and those that fit.
    batch_size : int, optional
        Rows of a step, about: a pass is cut into batches of equal size.  By default a 200th of the training rows, but at
        least 128 and at most 512.
    learning_rate : float
        Adam's, at its highest.
    schedule : {"cosine", "constant", "plateau"}
        Plateau halves the rate after a quarter of `patience` without improvement.
    warmup_steps : int, optional
        Steps over which the rate rises from 0 first; with the cosine schedule by default a tenth of all steps, and 200 at
        most, with the others none.  Where `max_seconds` ends the run, a tenth of the steps that fit is the most.
    weight_decay : float
        Decoupled weight decay.
    dropout : float, "auto" or None
        Share of the hidden values of every network, but convolutions, that are set to 0 in each step, and never afterwards.
        None: what the networks were made with.  "auto": the same, but where they were made without, there are fewer
        distinct rows than parameters and the schedule is the cosine one, 20 d / n in the first third of the steps (Liu et
        al. 2023, arXiv:2303.01500), for d columns, condition included, and n rows; none where that is below 0.05.  Where
        it is more than 0.3, it is 0.3 in more steps: the third times the root of what is above, at most 0.8 of them.
    clip_norm : float or None
        Gradients of a larger global norm are scaled down to it.
    patience : int or None
        Stop after so many epochs without improvement.
    ema : float or None
        Decay of a moving average of the parameters, which is kept instead of the last ones; None for none.  After t steps
        it is (1 + t) / (10 + t) at most, so that short runs forget their first parameters too.
    on_invalid : {"raise", "drop"}
        Whether rows that have NaN or infinite values are an error or are left out.
    missing : float, "masked", "nan", sequence of them or mapping, optional
        What stands for a missing entry of x, the condition and what is validated on: a number as the table has it, before
        its unit is converted; "masked", which are masked entries, NA, None, null, NaT and empty fields of a file; "nan",
        which is every NaN, masked entries included; or several, [99.0, "masked"];
        or by column, {"u": 99.0}: the number of a column of x, the name of one of x or of the condition, or a pair,
        ("x", 0), ("condition", 0) or ("condition", "u"), which is needed for numbers of the condition and for a name that
        both have.  By default nothing is missing.
    on_missing : {"drop", "impute"}
        Rows that have missing entries are left out, which leaves the density of x given a complete condition what it is
        as long as the condition does not lack entries because of x; or, in x alone, each time one of them is used, it is
        given those of a complete row, drawn from the 10 training rows that are nearest in its other entries and its
        condition, so that the fit averages over what they might be.  The draws are fixed for validation and
        standardization.  This is right where what is missing could have been anything that such rows have, and wrong where
        entries are missing because of what they are: for what was too faint to be seen it puts what was bright enough.
        Conditions are not imputed, as a flow that was fitted so could not be asked about incomplete ones.
    checkpoint : path-like, optional
        Written after each epoch.
    resume : bool
        Continue from `checkpoint` if that file exists, with the same bits as without an interruption.  A larger
        `max_epochs` makes a run longer, a finished one too: with a constant or plateau schedule to the bits of a long run
        in one go, and the cosine schedule goes on as that of the new length, so that the rate rises again.  `patience` and
        `learning_rate` may also be others than before; everything else must be the same.
    rng : int, numpy.random.Generator or None
        Splits and shuffles.  The same seed gives the same bits for any number of threads.
    progress : bool or "auto"
        Show progress on standard error; by default only on a terminal.
    callbacks : callable or iterable of callable
        Each is called as callback(flow, record) after each epoch with what the history records; one that returns True
        ends the run.
    comm : mpi4py.MPI.Intracomm, optional
        Processes, the ranks of MPI, that fit together: each has a flow that was made alike, calls `fit` with the same
        arguments and gives the rows that it has, perhaps none, with their weights and condition, and has the fitted flow
        afterwards.  A batch is as many rows as in one process, and the bits are those of one that fits all rows, those of
        one rank after those of the other.  Of a batch of n rows about n / 256 ranks have something to do, of one of less
        than 2048 rows n / 128, and no more than 8 up to 8192.  Rank 0 writes the checkpoint, which any number of ranks may
        resume.
    exact : bool
        False: with `comm`, add up gradients in whatever order MPI does, which changes the last bits with the ranks.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, before anything is changed.
    TrainingError
        If the loss stays non-finite in spite of lower learning rates.
    """
    max_epochs = as_int(max_epochs, "max_epochs", 0)
    batch_size = None if batch_size is None else as_int(batch_size, "batch_size")
    as_choice(on_invalid, "on_invalid", ("raise", "drop"))
    exact = as_flag(exact, "exact")
    given = (x, sample_weight, log_weight, condition, validation_data, validation_weight, validation_log_weight,
             validation_condition)  # fmt: skip
    if on_gpu.concerns(flow, *given):
        (x, sample_weight, log_weight, condition, validation_data, validation_weight, validation_log_weight,
         validation_condition) = on_gpu.fetched(flow, *given)  # fmt: skip
    x = streamed_if_large(x, sample_weight=sample_weight, log_weight=log_weight, condition=condition, comm=comm)
    x, condition, sample_weight, log_weight = with_roles(x, condition, sample_weight, log_weight)
    validation_data, validation_condition, validation_weight, validation_log_weight = with_roles(
        validation_data, validation_condition, validation_weight, validation_log_weight
    )
    if isinstance(x, TableStream):
        first = x.read(0)
        headers = Headers.of(flow.headers, first, first.condition_table())
    else:
        headers = Headers.of(flow.headers, x, condition)
    declared = as_missing(headers, missing, on_missing)
    if declared is not None:
        headers.x.marks, headers.condition.marks = declared.values, declared.of_condition
    if comm is not None and comm.size > 1:
        agree(comm, facts_of_flow(flow) | {"max_epochs": max_epochs, "batch_size": batch_size, "standardize": standardize,
              "dropout": dropout, "on_invalid": on_invalid, "missing": missing, "on_missing": on_missing, "exact": exact,
              "validation_fraction": validation_fraction,
              "whether there is validation_data": validation_data is not None})  # fmt: skip
    settings = TrainingSettings(max_seconds, learning_rate, schedule, warmup_steps, weight_decay, clip_norm, patience, ema,
                      checkpoint, resume, rng, progress, callbacks, comm)  # fmt: skip
    saved = settings.saved()
    kind = as_standardization(standardize, flow)
    pieces: StreamedRows | None = None
    if isinstance(x, TableStream):
        share = validation_fraction if validation_data is None else 0.0
        pieces = streamed(flow, x, headers, on_invalid, declared, share)
        every, validation = pieces.look_through()
        keys, rows = row_keys(every), every
    else:
        every = as_training_rows(flow, x, sample_weight, condition, on_invalid, "x", declared, log_weight, headers, comm)
        keys = row_keys(every)
        rows = without_copies(flow, every, keys, "x")
        validation = None
    if saved is not None:
        rows = saved.merged_or_not(every, rows)
    if validation_data is not None:
        validation = as_training_rows(flow, validation_data, validation_weight, validation_condition, on_invalid,
                                      "validation_data", declared, validation_log_weight, headers, comm)  # fmt: skip
        warn_of_shared(flow, every, keys, validation, "validation_data")
        train = rows
    elif any(given is not None for given in (validation_weight, validation_log_weight, validation_condition)):
        raise ValueError("validation_weight, validation_log_weight and validation_condition belong to validation_data, "
                         "which is missing")  # fmt: skip
    elif pieces is not None:
        train = rows
    elif saved is not None:
        train, validation = saved.rows(rows)
    else:
        train, validation = split(rows, validation_fraction, settings.rng)
    train, validation = filled(flow, train, validation)
    n_train = len(train) if pieces is None else pieces.n
    effective = train.effective * n_train / max(1, len(train))

    def begin() -> None:
        flow.headers.take(headers)
        set_from_data(flow, every, train, validation, kind, settings.rng)
        flow.effective_rows = effective
        if flow.effective_rows < min(ROWS_PER_COLUMN * flow.latent_dim, n_train / 2):
            warn_user(
                f"the weights are worth {flow.effective_rows:.1f} rows only, of {n_train}: a few rows have most of the "
                f"weight, and the flow will fit these"
            )

    drop = as_dropout(dropout, flow, effective, settings.schedule)
    if batch_size is None:
        batch_size = min(max(n_train // STEPS, SMALLEST_BATCH), LARGEST_BATCH)
    n_batches = max(1, -(-n_train // batch_size))
    if pieces is not None:
        batch_size = min(batch_size, n_train)
        n_batches = batches_of_stream(n_train, batch_size)
    options = {"batch_size": batch_size, "dropout": drop, **settings.for_run(flow, max_epochs * n_batches)}
    trainer: LikelihoodTrainer
    if pieces is not None:
        trainer = StreamTrainer(flow, pieces, train, validation, **options)
    elif comm is not None and comm.size > 1:
        trainer = SharedTrainer(flow, train, validation, comm=comm, exact=exact, **options)
    else:
        trainer = LikelihoodTrainer(flow, train, validation, **options)
    run_rounds(trainer, max_epochs, settings, begin, saved)
    lost = sum(math.isinf(loss) for loss in flow.history.get("validation_loss", ()))
    if lost and flow.base.support is not None:
        warn_user(
            f"rows left the base's bounds in {lost} of {trainer.round} epochs, whose validation loss is infinite, so that "
            f"none of them can be the best: a base with bounds needs layers that keep them, for instance splines and "
            f"permutations with the base Uniform(input_dim, -tail_bound, tail_bound)"
        )
    return flow
