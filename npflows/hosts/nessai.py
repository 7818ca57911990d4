"""A flow proposal for nessai: `FlowSampler(model, flow_proposal_class="npflows")`.

This module needs nessai 0.15; no other module imports it, but nessai itself, by the entry point `nessai.proposals`.
"""

from __future__ import annotations

import math
import os
from types import SimpleNamespace
from typing import Any

import numpy as np

from npflows.base import Normal
from npflows.core.checks import as_rng
from npflows.files.flow_file import load
from npflows.flow import NormalizingFlow
from npflows.hosts.refitting import RefittedFlow
from npflows.models.maf import MAF
from npflows.models.neural_spline import NeuralSplineFlow

try:
    import torch
    from nessai.flowmodel import FlowModel
    from nessai.proposal.flowproposal import FlowProposal
except ImportError as error:
    raise ImportError("npflows.hosts.nessai needs nessai: pip install 'nessai>=0.15,<0.16'") from error

__all__ = ["NpflowsModel", "NpflowsProposal"]

TRAINING = {
    "lr": "learning_rate",
    "clip_grad_norm": "clip_norm",
    "batch_size": "batch_size",
    "val_size": "validation_fraction",
    "max_epochs": "max_epochs",
    "patience": "patience",
}
"""Keys of nessai's `training_config` and the arguments of `NormalizingFlow.fit` that they stand for."""


PATIENCE = 10
"""Epochs without improvement after which a fit ends."""


def default_flow(n_dim: int, rng: np.random.Generator) -> NormalizingFlow:
    """The flow that nessai gets where none is given: smooth, so that rejection sampling keeps many of its samples."""
    if n_dim == 1:
        return NeuralSplineFlow(1, num_layers=2, rng=rng)
    return MAF(n_dim, num_layers=3, hidden_dims=(32,), activation="tanh", rng=rng)


class NpflowsModel(FlowModel):
    """nessai's interface to its flow, by npflows.

    nessai draws latent values within a radius, beyond which a flow that fits the live points well has a few of them: what
    lies there would never be found, and narrow parts be lost for good.  So the normal distribution of latent values is
    wider than the flow's own, and has `volume` times its volume.

    Of `training_config` the keys lr, clip_grad_norm, batch_size, val_size, max_epochs and patience are used where you give
    them, with npflows' defaults for samplers instead of nessai's otherwise.  Of `flow_config` the key `flow` may be a
    function of (n_inputs, rng) that makes a `NormalizingFlow`; the others, which describe nessai's own flows, are refused.
    Subclasses of other proposals of nessai use it with `_FlowModelClass = NpflowsModel`.
    """

    volume = 2.0
    """The volume of the proposal in units of that of the flow's own distribution; 1 for the flow as it is."""

    def setup_from_input_dict(self, flow_config: dict[str, Any] | None, training_config: dict[str, Any] | None) -> None:
        given = dict(training_config or {})
        unknown = sorted(set(given) - set(TRAINING) - {"device_tag"})
        if unknown:
            raise ValueError(f"npflows takes {', '.join(TRAINING)} of training_config, got {', '.join(unknown)}")
        unknown = sorted(set(flow_config or {}) - {"n_inputs", "flow"})
        if unknown:
            raise ValueError(f"npflows takes flow of flow_config, a function that makes a flow, got {', '.join(unknown)}")
        self._options: dict[str, Any] = {"patience": PATIENCE}
        self._options.update((TRAINING[name], value) for name, value in given.items() if name in TRAINING)
        super().setup_from_input_dict({k: v for k, v in (flow_config or {}).items() if k != "flow"}, given)
        self._make = (flow_config or {}).get("flow") or default_flow

    def initialise(self) -> None:
        n, rng = self.flow_config["n_inputs"], as_rng(self.rng)
        self._refitted = RefittedFlow(n, self._make(n, rng), rng, **self._options)
        base = self._refitted.flow.base
        if not isinstance(base, Normal) or base.learnable or base.loc.any() or (base.scale != 1).any():
            raise ValueError(
                f"nessai draws latent values from the standard normal, which must be the flow's base, got {base!r}"
            )
        self.model = SimpleNamespace(base_distribution_log_prob=self._base_log_prob, device=torch.device("cpu"))
        self.device = self.inference_device = torch.device("cpu")
        self.initialised = True

    def train(
        self,
        samples: np.ndarray,
        weights: np.ndarray | None = None,
        conditional: np.ndarray | None = None,
        max_epochs: int | None = None,
        patience: int | None = None,
        output: str | None = None,
        val_size: float | None = None,
        plot: bool = True,
    ) -> dict[str, list[float]]:
        """Fit the flow to samples (n, n_inputs) with weights (n,), from where it is; the losses of each epoch."""
        _no(conditional)
        if not self.initialised:
            self.initialise()
        output = self.output if output is None else output
        os.makedirs(output, exist_ok=True)
        changed = {"max_epochs": max_epochs, "patience": patience, "validation_fraction": val_size}
        self._refitted.options = {**self._options, **{k: v for k, v in changed.items() if v is not None}}
        found = self._refitted.fit(np.asarray(samples, np.float64), weights)
        self.save_weights(os.path.join(output, "model.npz"))
        history = {"loss": list(found["train_loss"]), "val_loss": list(found["validation_loss"])}
        if plot:
            from nessai.plot import plot_loss

            plot_loss(len(history["loss"]), history, filename=os.path.join(output, "loss.png"))
        return history

    def save_weights(self, weights_file: str) -> None:
        """Write the flow to a file of npflows, in full or not at all."""
        self._refitted.flow.save(weights_file)
        self.weights_file = weights_file

    def load_weights(self, weights_file: str) -> None:
        """Read a flow that `save_weights` has written; the next fit begins with it."""
        if not self.initialised:
            self.initialise()
        self._refitted.flow = load(weights_file)
        self._refitted.n_fits = max(1, self._refitted.n_fits)
        self.weights_file = weights_file

    def reset_model(self, weights: bool = True, permutations: bool = False) -> None:
        """Begin the next fit with new first weights."""
        if weights or permutations:
            self._refitted.flow.reset(self._refitted.rng)
            self._refitted.n_fits = 0

    def forward_and_log_prob(self, x: np.ndarray, conditional: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Latent values (n, d) of x (n, d), and the log-density (n,) of x."""
        _no(conditional)
        z, log_det = self._refitted.flow.forward(x)
        return z / self._spread, self._refitted.flow.base.log_prob(z, self._spread) + log_det

    def inverse(self, z: np.ndarray, conditional: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """x (n, d) of latent values z (n, d), and log |det dx/dz| (n,)."""
        _no(conditional)
        x, log_det = self._refitted.flow.inverse(self._spread * np.asarray(z, np.float64))
        return x, log_det + math.log(self.volume)

    def log_prob(self, x: np.ndarray, conditional: np.ndarray | None = None) -> np.ndarray:
        """Log-density (n,) of x (n, d)."""
        return self.forward_and_log_prob(x, conditional)[1]

    def sample(self, n: int = 1, conditional: np.ndarray | None = None) -> np.ndarray:
        """Draw x (n, d)."""
        _no(conditional)
        return self._refitted.flow.sample(int(n), self._refitted.rng, self._spread)

    def sample_latent_distribution(self, n: int = 1) -> np.ndarray:
        """Draw latent values (n, d)."""
        return self._refitted.flow.base.sample(int(n), self._refitted.rng)

    def sample_and_log_prob(
        self,
        N: int = 1,
        z: np.ndarray | None = None,
        alt_dist: Any = None,
        conditional: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Samples x (n, d) and their log-densities (n,), of new latent values or of z (n, d), drawn from `alt_dist`."""
        _no(conditional)
        if z is None:
            return tuple(self._refitted.flow.sample_and_log_prob(int(N), self._refitted.rng, self._spread))
        z = np.asarray(z, np.float64)
        x, log_det = self.inverse(z)
        if alt_dist is None:
            return x, self._refitted.flow.base.log_prob(z) - log_det
        log_p = alt_dist.log_prob(torch.from_numpy(z).type(torch.get_default_dtype()))
        return x, log_p.numpy().astype(np.float64) - log_det

    @property
    def _spread(self) -> float:
        """The factor by which every latent value is farther from 0 in the flow than nessai knows."""
        return self.volume ** (1 / self._refitted.n_dim)

    def move_to(self, device: Any, update_default: bool = False) -> None:
        """Nothing: flows of npflows run on the CPU."""

    def finalise(self) -> None:
        """Nothing: flows of npflows are ready after a fit."""

    def _base_log_prob(self, z: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._refitted.flow.base.log_prob(z.numpy().astype(np.float64)))


class NpflowsProposal(FlowProposal):
    """nessai's flow proposal with a flow of npflows.

    Chosen by its name, `FlowSampler(model, flow_proposal_class="npflows")`, or as a class.  It takes the arguments of
    `nessai.proposal.FlowProposal`.
    """

    _FlowModelClass = NpflowsModel


def _no(conditional: np.ndarray | None) -> None:
    if conditional is not None:
        raise NotImplementedError("npflows.hosts.nessai has no conditional flows: use proposals that give no condition")
