"""Compilation ahead of use, for container images for instance."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from npflows.core.backend import require_training, select
from npflows.core.checks import as_choice, as_dtype
from npflows.flow import NormalizingFlow
from npflows.models.table import MODELS


class Warmed(NamedTuple):
    """The result of `warmup`.

    Attributes
    ----------
    seconds : dict of str to float
        The time that each model took, in the order in which they were compiled.  Kernels that several models share count
        for the first one.
    folder : pathlib.Path or None
        The folder of the compiled kernels; None where nothing can be written, so that every process compiles anew.
    """

    seconds: dict[str, float]
    folder: Path | None


def warmup(models: Iterable[str] | str | None = None, dtype: DTypeLike = "float32") -> Warmed:
    """Compile the kernels with which models are fitted, evaluated and sampled, or load them where they are in the cache.

    A kernel serves flows of any size.

    Parameters
    ----------
    models : iterable of {"maf", "spline", "realnvp", "iaf", "glow"}, optional
        All by default.
    dtype : {"float32", "float64"}

    Returns
    -------
    Warmed

    Raises
    ------
    NotImplementedError
        Where NumPy alone evaluates flows, and nothing is compiled.
    """
    require_training()

    names = list(MODELS) if models is None else [models] if isinstance(models, str) else list(models)
    chosen = {as_choice(name, "models", list(MODELS)): MODELS[name] for name in names}
    real, seconds = as_dtype(dtype).name, {}
    for name, model in chosen.items():
        started = time.perf_counter()
        _use(model.build(**model.small, hidden_dims=(8, 8), condition_dim=1, dtype=real, rng=0), model.for_tables)
        seconds[name] = time.perf_counter() - started
    return Warmed(seconds, select().cache_folder())


def _use(flow: NormalizingFlow, real_valued: bool) -> None:
    """Call the methods that compile kernels."""
    rng, shape = np.random.default_rng(0), (32, flow.latent_dim)
    x = rng.normal(size=shape) if real_valued else rng.integers(0, 4, shape)
    condition = rng.normal(size=(32, 1))
    flow.fit(x, condition=condition, max_epochs=1, batch_size=16, rng=0, progress=False)
    flow.log_prob_and_grad(x, condition)
    z, _ = flow.forward(x, condition)
    flow.inverse_vjp(z, np.zeros_like(z), 0.0, condition)
    flow.sample_and_log_prob(2, 0, condition=condition[:1])
