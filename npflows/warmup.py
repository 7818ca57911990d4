"""Compiling ahead, for container images and machines that have no time later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npflows.backends.cpu.compiler.jit import DISABLED, cache_directory
from npflows.core.checks import as_choice, as_dtype
from npflows.flow import NormalizingFlow
from npflows.models import IAF, MAF, Glow, NeuralSplineFlow, RealNVP

_SMALL = {"hidden_dims": (8, 8), "condition_dim": 1}
MODELS: dict[str, Callable[..., NormalizingFlow]] = {
    "maf": lambda **o: MAF(3, 2, **_SMALL, **o),
    "iaf": lambda **o: IAF(3, 2, **_SMALL, **o),
    "realnvp": lambda **o: RealNVP(3, 2, **_SMALL, **o),
    "spline": lambda **o: NeuralSplineFlow(3, 2, num_bins=4, **_SMALL, **o),
    "glow": lambda **o: Glow((4, 4, 1), 2, 1, levels=4, **_SMALL, **o),
}
"""A small flow of each kind that uses what those of its kind use; the compiled kernels serve any size."""


class Warmed(NamedTuple):
    """What `warmup` did.

    Attributes
    ----------
    seconds : dict of str to float
        By model, in the order in which they were compiled; what they have in common counts for the first.
    folder : pathlib.Path or None
        Where the compiled kernels are kept; None where nothing can be written, so that every process compiles anew.
    """

    seconds: dict[str, float]
    folder: Path | None


def warmup(models: Iterable[str] | str | None = None, dtype: object = "float32") -> Warmed:
    """Compile what models need to be fitted, evaluated and sampled, or load it where it has been compiled before.

    Parameters
    ----------
    models : iterable of {"maf", "iaf", "realnvp", "spline", "glow"}, optional
        All by default.
    dtype : {"float32", "float64"}

    Returns
    -------
    Warmed
    """
    names = list(MODELS) if models is None else [models] if isinstance(models, str) else list(models)
    chosen = {as_choice(name, "models", list(MODELS)): MODELS[name] for name in names}
    real, seconds = as_dtype(dtype).name, {}
    for name, make in chosen.items():
        started = time.perf_counter()
        _use(make(dtype=real, rng=0))
        seconds[name] = time.perf_counter() - started
    return Warmed(seconds, None if DISABLED else cache_directory())


def _use(flow: NormalizingFlow) -> None:
    """Call whatever compiles something."""
    rng = np.random.default_rng(0)
    x: Any = (
        rng.integers(0, 4, (32, flow.latent_dim)) if flow.input_shape != (flow.latent_dim,) else rng.normal(size=(32, 3))
    )
    condition = rng.normal(size=(32, 1))
    flow.fit(x, condition=condition, max_epochs=1, batch_size=16, rng=0, progress=False)
    flow.log_prob_and_grad(x, condition)
    z, _ = flow.forward(x, condition)
    flow.inverse_vjp(z, np.zeros_like(z), 0.0, condition)
    flow.sample_and_log_prob(2, 0, condition=condition[:1])
