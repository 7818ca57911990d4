"""Compilation ahead of use, for container images for instance."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from npflows.core.backend import require_training, select
from npflows.core.checks import as_choice, as_dtype, as_int
from npflows.core.processes import Processes
from npflows.core.threads import get_num_threads
from npflows.density import embed
from npflows.flow import NormalizingFlow
from npflows.models.table import MODELS

_TASK = "npflows.warmup:_do"


class Warmed(NamedTuple):
    """The result of `warmup`.

    Attributes
    ----------
    seconds : dict of str to float
        The time that each model took, that of all processes added up, in the order in which they were asked for.  Kernels
        that several models share count for the first one.
    folder : pathlib.Path or None
        The folder of the compiled kernels; None where nothing can be written, so that every process compiles anew.
    """

    seconds: dict[str, float]
    folder: Path | None


def warmup(
    models: Iterable[str] | str | None = None,
    dtype: DTypeLike = "float32",
    *,
    processes: int | None = None,
    target: str | None = None,
    into: str | os.PathLike | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Warmed:
    """Compile the kernels with which models are fitted, evaluated, sampled and embedded, where the cache lacks them.

    A kernel serves flows of any size.  Those of all activations, bases and conditioners are among them, and so of the flows
    that `npflows.hosts` gives to samplers.

    Parameters
    ----------
    models : iterable of {"maf", "spline", "realnvp", "iaf", "glow"}, optional
        All by default.
    dtype : {"float32", "float64"}
    processes : int, optional
        How many processes compile, at least 1; by default as many as npflows uses threads.  They end before this function
        returns.  Where nothing can be written, this process alone compiles, for itself.
    target : {"x86-64-v4", "x86-64-v3", "armv8-a"}, optional
        Compile for all CPUs of this level rather than for the one at hand, which must be of it.
    into : path, optional
        A folder to put the kernels in, made if need be; by default the one in which this process finds them.  It can serve
        as NUMBA_CACHE_DIR.  Either all that was asked for gets there, or nothing.
    progress : callable, optional
        Called with a model's name and seconds when all its kernels are there.

    Returns
    -------
    Warmed

    Raises
    ------
    ValueError
        For an unknown model or target, and for a target that this CPU can't run.
    OSError
        If `into` can't be written.
    RuntimeError
        If a process can't do its work, as where the folder has room no more or is read-only and lacks a kernel; or if there
        is nothing to put into `into`.
    NotImplementedError
        Where NumPy alone evaluates flows, and nothing is compiled.
    """
    require_training()

    names = list(MODELS) if models is None else [models] if isinstance(models, str) else list(models)
    chosen = list(dict.fromkeys(as_choice(name, "models", list(MODELS)) for name in names))
    real, tell = as_dtype(dtype).name, progress or (lambda name, seconds: None)
    n = get_num_threads() if processes is None else as_int(processes, "processes", 1)
    environment = select().target_environment(target)
    if into is None:
        folder = select().cache_folder()
        if target is not None and folder is None:
            raise OSError("there is no folder for compiled kernels that can be written: give `into`")
        if folder is None or not sys.executable:
            return Warmed(_warm_here(chosen, real, tell), folder)
        return Warmed(_warm(chosen, real, n, environment, tell), folder)
    return _warm_into(Path(into), chosen, real, n, environment, tell)


def _warm_into(
    into: Path, chosen: list[str], real: str, n: int, environment: dict[str, str], tell: Callable[[str, float], None]
) -> Warmed:
    """Compile into a folder of its own, inside `into` to be on the same disk, and move what is there when all is done."""
    try:
        into.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".npflows-", dir=into))
    except OSError as error:
        raise OSError(f"no kernels can be put into {into}: {error.strerror}") from error
    try:
        seconds = _warm(chosen, real, n, {**environment, "NUMBA_CACHE_DIR": str(work)}, tell)
        made = next(work.iterdir(), None)
        if made is None:
            raise RuntimeError(f"there is nothing to put into {into}: no model was given, or NUMBA_DISABLE_JIT is set")
        kept = into / made.name
        kept.mkdir(exist_ok=True)
        for file in made.iterdir():
            os.replace(file, kept / file.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Warmed(seconds, kept)


def _warm(
    chosen: list[str], real: str, n: int, environment: dict[str, str], tell: Callable[[str, float], None]
) -> dict[str, float]:
    """Have processes compile the kernels one by one, and then use the models as anyone would."""
    seconds = dict.fromkeys(chosen, 0.0)
    owners: dict[str, str] = {}
    for name in chosen:
        for variant in ({}, *MODELS[name].variants):
            flow = _small(name, real, **variant)
            for layers, base in ((True, True), (True, False), (False, True)):
                for part in select().parts(flow.program(with_layers=layers, with_base=base), flow.dtype):
                    owners.setdefault(part, name)
    with Processes(_TASK, n, environment) as crew:
        for (_, part, *_), spent in crew.run([("compile", part) for part in owners]):
            seconds[owners[part]] += spent
        for (_, name, *_), spent in crew.run([("use", name, real) for name in chosen]):
            seconds[name] += spent
            tell(name, seconds[name])
    return seconds


def _do(what: str, *which: str) -> None:
    """A task of a process."""
    if what == "compile":
        select().compile_part(*which)
    else:
        _use(*which)


def _warm_here(chosen: list[str], real: str, tell: Callable[[str, float], None]) -> dict[str, float]:
    """Use the models in this process."""
    seconds = {}
    for name in chosen:
        started = time.perf_counter()
        _use(name, real)
        seconds[name] = time.perf_counter() - started
        tell(name, seconds[name])
    return seconds


def _small(name: str, real: str, **variant: Any) -> NormalizingFlow:
    """A small flow that uses all that flows of a model use, by default or with other arguments."""
    model = MODELS[name]
    return model.build(**{**model.small, "hidden_dims": (8, 8), "condition_dim": 1, "dtype": real, "rng": 0, **variant})


def _use(name: str, real: str) -> None:
    """Call the methods that compile kernels."""
    flow, rng = _small(name, real), np.random.default_rng(0)
    shape = (32, flow.latent_dim)
    x = rng.normal(size=shape) if MODELS[name].for_tables else rng.integers(0, 4, shape)
    condition = rng.normal(size=(32, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one epoch need not be better than none
        flow.fit(x, condition=condition, max_epochs=1, batch_size=16, rng=0, progress=False)
    flow.log_prob_and_grad(x, condition)
    z, _ = flow.forward(x, condition)
    flow.inverse_vjp(z, np.zeros_like(z), 0.0, condition)
    flow.sample_and_log_prob(2, 0, condition=condition[:1])
    embed(flow)
