"""A flow of npflows where pocoMC keeps its own, and the flow as a prior of pocoMC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from npflows.core.checks import SeedLike, as_int, as_rng
from npflows.core.optional import required
from npflows.flow import NormalizingFlow
from npflows.hosts.posterior import as_prior
from npflows.hosts.refitting import RefittedFlow
from npflows.models.neural_spline import NeuralSplineFlow
from npflows.support.groups import Group

if TYPE_CHECKING:
    from torch import Tensor


PATIENCE = 30
"""Epochs without improvement after which a fit ends."""

WIDER, WIDER_SHARE = 2.0, 0.1
"""How much further out some of the latent values are from which the evidence is estimated, and their share."""


def default_flow(n_dim: int, rng: np.random.Generator) -> NormalizingFlow:
    """The flow that pocoMC gets where none is given: splines, whose tails keep the error of the evidence small."""
    return NeuralSplineFlow(
        n_dim, num_layers=2, hidden_dims=(64,), num_bins=8, tail_bound=5.0, conditioner="autoregressive", rng=rng
    )


class PocomcFlow:
    """What `pocomc.Sampler` calls its flow, by npflows: made by `npflows.hosts.pocomc`.

    It takes and gives PyTorch tensors, as pocoMC does, without gradients.  It can be pickled, with all that it has learned,
    so that pocoMC's state files hold it.

    Attributes
    ----------
    flow : NormalizingFlow
        The flow as it is now.
    """

    def __init__(self, n_dim: int, rng: SeedLike, flow: NormalizingFlow | None, **options: Any) -> None:
        n, generator = as_int(n_dim, "n_dim"), as_rng(rng)
        chosen = default_flow(n, generator) if flow is None else flow
        self._refitted = RefittedFlow(n, chosen, generator, **{"patience": PATIENCE, **options})

    @property
    def flow(self) -> NormalizingFlow:
        return self._refitted.flow

    @property
    def n_dim(self) -> int:
        """Number of parameters."""
        return self._refitted.n_dim

    def fit(self, x: Tensor, weights: Tensor | None = None, **train_config: Any) -> dict[str, list[float]]:
        """Fit the flow to particles x (n, n_dim) with their weights (n,), from where it is.

        pocoMC's `train_config` is for its own flow and is not used: give `npflows.hosts.pocomc` what `fit` is to take.

        Returns
        -------
        dict of list
            loss and val_loss of each epoch.
        """
        history = self._refitted.fit(_array(x), None if weights is None else _array(weights))
        return {"loss": list(history["train_loss"]), "val_loss": list(history["validation_loss"])}

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latent values (n, n_dim) of x (n, n_dim), and log |det dz/dx| (n,)."""
        return _tensors(*self.flow.forward(_array(x)))

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """x (n, n_dim) of latent values u (n, n_dim), and log |det dx/du| (n,)."""
        return _tensors(*self.flow.inverse(_array(u)))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density (n,) of x (n, n_dim)."""
        return _tensors(self.flow.log_prob(_array(x)))[0]

    def sample(self, size: int = 1) -> tuple[Tensor, Tensor]:
        """Draw x (size, n_dim) with the log-densities (size,) of the proposal that they come from.

        pocoMC takes them to estimate the evidence, and for nothing else.  A tenth of them are carried from latent values
        twice as far out, and the density is that of the mixture (a defensive mixture; Hesterberg 1995, Technometrics 37,
        185), so that tails that the flow has too thin count as well.
        """
        return _tensors(*defensive_draws(self.flow, size, self._refitted.rng))


def defensive_draws(flow: NormalizingFlow, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """n draws, some of them from wider latent values, and the log-density of the mixture; of the flow alone where its base
    ends somewhere."""
    base = flow.base
    if base.support is not None:
        return flow.sample_and_log_prob(n, rng)
    z = np.where(rng.random((n, 1)) < WIDER_SHARE, base.sample(n, rng, WIDER), base.sample(n, rng))
    log_near, log_wide = base.log_prob(z), base.log_prob(z, WIDER)
    x, log_det = flow.inverse(z)
    return x, np.logaddexp(np.log1p(-WIDER_SHARE) + log_near, np.log(WIDER_SHARE) + log_wide) - log_det


def _array(x: Any) -> np.ndarray:
    """Of a tensor or an array: float64."""
    return np.asarray(x.detach() if hasattr(x, "detach") else x, np.float64)


def _tensors(*arrays: np.ndarray) -> tuple[Tensor, ...]:
    torch = required("torch", "npflows.hosts.pocomc", "PyTorch, as pocoMC does", "pip install pocomc")
    return tuple(torch.from_numpy(array) for array in arrays)


class PocomcPrior:
    """A flow as the prior of pocoMC: `pocomc.Sampler(prior=npflows.hosts.PocomcPrior(flow, rng=0), ...)`.

    Parameters
    ----------
    flow : NormalizingFlow
    condition : array_like (condition_dim,), optional
        Where it takes one.
    rng : int, numpy.random.Generator or None
        Draws the first particles.

    Raises
    ------
    ValueError
        If columns live in a group or hold whole numbers: pocoMC knows bounds of single columns alone, and its evidence is
        wrong where the prior is 0 inside of these.
    """

    def __init__(self, flow: NormalizingFlow, condition: ArrayLike | None = None, rng: SeedLike = None) -> None:
        self.flow, self.rng = as_prior(flow), as_rng(rng)
        given = flow.conditioning.finite_rows(condition, 1, "a prior")
        self.condition = None if given is None else given[0]
        for d, column in enumerate(flow.support or []):
            if column.is_integer or isinstance(column, Group):
                raise ValueError(
                    f"column {d} lives on {column!r}, and pocoMC knows bounds of single columns alone: use dynesty, "
                    f"UltraNest or nautilus"
                )

    @property
    def dim(self) -> int:
        """Number of parameters."""
        return self.flow.latent_dim

    @property
    def bounds(self) -> np.ndarray:
        """Bounds (d, 2) of the parameters, infinite where there are none."""
        if self.flow.support is None:
            return np.tile([-np.inf, np.inf], (self.dim, 1))
        return np.array([column.bounds for column in self.flow.support], np.float64)

    def logpdf(self, x: ArrayLike) -> np.ndarray:
        """Log-density (n,) of x (n, d)."""
        return self.flow.log_prob(x, self.condition)

    def rvs(self, size: int = 1) -> np.ndarray:
        """Draw x (size, d)."""
        return self.flow.sample(size, self.rng, condition=self.condition)
