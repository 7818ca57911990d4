"""The target of `fit_variational`, and a check that it returns what it should."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from npflows.core.checks import warn_user
from npflows.distribution.transformed import TransformedDistribution
from npflows.inference.importance import as_log_density

Target = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""x (n, d) to the log-density (n,) and its gradient (n, d)."""
CHECKED = 8
"""Samples at which the target's gradient is compared with differences."""


def check_target(flow: TransformedDistribution, target: Target) -> None:
    """Whether the target returns what it should; warns if its gradient is not that of its log-density.

    The same samples whatever the run's seed: central differences along random directions, a thousandth of the samples'
    spread long.
    """
    if not callable(target):
        raise TypeError(f"log_density_and_grad must be a function of x (n, {flow.latent_dim}), got {target!r}")
    rng = np.random.default_rng(0)
    z = flow.base.sample(CHECKED, rng)
    step = 1e-3 * z.std(axis=0) * rng.choice([-1.0, 1.0], z.shape)
    x, forth, back = flow.inverse(np.concatenate([z, z + step, z - step]))[0].reshape(3, CHECKED, flow.latent_dim)
    log_p, slope = _checked(target, x.copy())
    ahead, behind = as_log_density(target, np.concatenate([forth, back])).reshape(2, CHECKED)
    direction = (forth - back) / 2
    with np.errstate(invalid="ignore", over="ignore"):
        expected, given = (ahead - behind) / 2, (slope * direction).sum(axis=1)
        room = 0.05 * (abs(expected) + abs(given)) + 1e-6 * (1 + abs(log_p))
        wrong = np.flatnonzero(abs(expected - given) > room)
    if 2 * len(wrong) > CHECKED:
        i = wrong[0]
        warn_user(
            f"the gradient that log_density_and_grad returns does not seem to be that of its log-density: at "
            f"{np.array2string(x[i], precision=4, threshold=8)} the log-density changes by {expected[i]:.4g} over a small "
            f"step for which the gradient says {given[i]:.4g}"
        )


def _checked(target: Target, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The log-density and gradient that the target returns for some rows, after every check."""
    n, d = x.shape
    result = target(x.copy())
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise TypeError(
            f"log_density_and_grad must return two arrays, the log-density (n,) and its gradient (n, {d}), got "
            f"{type(result).__name__}"
        )
    log_p, slope = np.asarray(result[0]), np.asarray(result[1])
    if log_p.shape != (n,) or slope.shape != (n, d):
        raise ValueError(
            f"log_density_and_grad must return shapes ({n},) and ({n}, {d}) for x of shape ({n}, {d}), got {log_p.shape} "
            f"and {slope.shape}"
        )
    bad = np.flatnonzero(np.isfinite(log_p) & ~np.isfinite(slope).all(axis=1))
    if len(bad):
        raise ValueError(
            f"the gradient that log_density_and_grad returns must be finite, got {slope[bad[0]]} at x = {x[bad[0]]}"
        )
    return log_p.astype(np.float64), slope.astype(np.float64)
