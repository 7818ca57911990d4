"""`NormalizingFlow`, what every model is: an exact density made of invertible layers and a base distribution."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from npflows.backends.cpu.program import CHUNK
from npflows.base.base import Base
from npflows.core.backend import IDENTITY, Cotangents
from npflows.core.checks import (
    as_condition,
    as_dtype,
    as_int,
    as_positive,
    as_rng,
    as_rows,
    as_shape,
    as_vector,
    as_weights,
    as_widths,
)
from npflows.core.registry import construct
from npflows.core.statistics import log_mean_exp
from npflows.distribution.transformed import Assembled
from npflows.files.configuration import ModelConfiguration, configuration_of
from npflows.files.flow_file import save
from npflows.inference.grid_density import conditional, marginal
from npflows.inference.importance import importance_weights
from npflows.inference.information import entropy, kl_divergence
from npflows.inference.mode import mode
from npflows.inference.unit_cube import from_unit_cube, to_unit_cube
from npflows.layers.layer import Layer
from npflows.networks.embedding import Embedding
from npflows.training.fit import fit
from npflows.training.initialization import initialize
from npflows.training.variational import fit_variational

if TYPE_CHECKING:
    from typing_extensions import Self

    from npflows.verify import VerificationReport


class SampleAndLogProb(NamedTuple):
    """Samples (n, d) and their log-density (n,)."""

    x: np.ndarray
    log_prob: np.ndarray


class NormalizingFlow(Assembled):
    """An exact, trainable density: layers that carry data to a base distribution, and back.

    Whatever the compute dtype, methods take arrays of any layout or numeric dtype and return float64.  Where they take
    samples (n, input_dim), one sample without its axis is taken as well, and the result comes without it too.

    Parameters
    ----------
    layers : sequence of Layer
        From data to latent.  The flow takes copies and puts a `Standardize` first where there is none.  What a `Split`
        leaves behind is left alone by the layers after it.
    base_distribution : {"normal", "uniform", "student_t"} or Base
        The distribution on the latent side.
    condition_dim : int, optional
        Width of the condition; that of the layers by default, and needed with `embedding_dims`.
    embedding_dims : sequence of int
        Where given, a dense network with these hidden units, the last its output and as wide as the layers' condition,
        is trained between the condition and the layers.
    support : sequence or mapping of npflows.support columns, optional
        Where each column lives, all on the whole line by default: `npflows.support.real()`, `positive()`, `interval()`,
        `periodic()`, `integer()`, one for each column, or by number or name for some.  Samples never leave it.
    columns : sequence of str, optional
        Names of the columns.
    input_shape : (int,) or (int, int, int), optional
        The shape (height, width, channels) of images; by default that of what the first layer takes.
    dtype : {"float32", "float64"}
        The compute dtype, that of every layer.
    rng : int, numpy.random.Generator or None
        Draws the embedding's first weights.

    Attributes
    ----------
    input_dim, latent_dim : int
        Values of a sample on either side.
    flow_layers : list of Layer
        The layers, which work on the flow's own parameters.
    base : Base
        The base distribution, with `log_prob` and `sample`.
    history : dict of list
        What the last `fit` recorded after each epoch, or `fit_variational` after each round.
    verification : VerificationReport or None
        What `verify` found last; it is saved with the flow.
    effective_rows : float or None
        How many rows of equal weight the rows of the last `fit` were worth: (sum of weights)^2 / (sum of their squares);
        None before the first one.
    columns, condition_columns : list of str or None
        Names of the columns and of the values of the condition, yours to set; they are saved with the flow.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        base_distribution: str | Base = "normal",
        *,
        condition_dim: int | None = None,
        embedding_dims: Sequence[int] = (),
        support: object = None,
        columns: Sequence[str] | None = None,
        input_shape: Sequence[int] | None = None,
        dtype: object = "float32",
        rng: object = None,
    ) -> None:
        given = list(layers) if isinstance(layers, Sequence) else []
        if not given or not all(isinstance(layer, Layer) for layer in given):
            raise ValueError(f"layers must be a sequence of at least one Layer, got {layers!r}")
        self.base_distribution, self.embedding_dims = base_distribution, as_widths(embedding_dims, "embedding_dims")
        embedding = None
        if self.embedding_dims:
            width = as_int(condition_dim, "condition_dim (with embedding_dims)")
            embedding = Embedding(width, self.embedding_dims, dtype=as_dtype(dtype), rng=as_rng(rng))
        shape = given[0].sample_shape if input_shape is None else as_shape(input_shape, "input_shape")
        self._assemble(given, shape, base_distribution, as_dtype(dtype), embedding,
                       support=support, columns=columns)  # fmt: skip
        if condition_dim not in (None, self.condition_dim):
            raise ValueError(f"condition_dim is {condition_dim!r}, and the layers take {self.condition_dim} values")

    @property
    def layers(self) -> list[Layer]:
        """What the constructor would take to make this flow again: `flow_layers`."""
        return self.flow_layers

    @property
    def arguments(self) -> dict[str, Any]:
        values = super().arguments
        if len(self.input_shape) == 1 and "input_shape" in values:
            values["input_shape"] = None  # told by the layers
        return values

    @property
    def config(self) -> ModelConfiguration:
        """What `npflows.create` builds a flow of this kind from."""
        return configuration_of(self)

    def forward(self, x: object, condition: object = None) -> tuple[np.ndarray, np.ndarray]:
        """Data to latent.

        Parameters
        ----------
        x : array_like (n, input_dim)
        condition : array_like (condition_dim,) or (n, condition_dim), optional
            One for all samples or one for each, where the flow has `condition_dim`.

        Returns
        -------
        z : ndarray (n, latent_dim)
        log_det : ndarray (n,)
            log |det dz/dx|.  Outside the support both are NaN; whole numbers are taken for the middle of their cells.

        Raises
        ------
        ValueError
            If a shape does not fit, or a condition is missing or not wanted.
        TypeError
            If x is not numeric.
        """
        rows, context, single = self._inputs(x, condition)
        z, log_det, _ = self._transport(rows, context)
        return self._shaped(z, single), log_det[0] if single else log_det

    def inverse(self, z: object, condition: object = None) -> tuple[np.ndarray, np.ndarray]:
        """Latent to data: x (n, input_dim) and log |det dx/dz| (n,), for z (n, latent_dim); see `forward`."""
        rows, context, single = self._inputs(z, condition, "z")
        x, log_det, _ = self._transport(rows, context,
                                                   inverse=True)  # fmt: skip
        return self._shaped(x, single, "x"), log_det[0] if single else log_det

    def forward_vjp(self, x: object, dz: object, dlog_det: object = 0.0, condition: object = None) -> Cotangents:
        """Gradients of a scalar L through `forward` at x, from dL/dz (n, d) and dL/dlog_det (n,)."""
        return self._pull(x, dz, dlog_det, condition, False)

    def inverse_vjp(self, z: object, dx: object, dlog_det: object = 0.0, condition: object = None) -> Cotangents:
        """Gradients of a scalar L through `inverse` at z, from dL/dx (n, d) and dL/dlog_det (n,)."""
        return self._pull(z, dx, dlog_det, condition, True)

    def _pull(self, x: object, dy: object, dlog_det: object, condition: object, inverse: bool) -> Cotangents:
        rows, context, single = self._inputs(x, condition, "z" if inverse else "x")
        cotangents, _ = as_rows(dy, self.input_shape, "dx" if inverse else "dz")
        if len(cotangents) != len(rows):
            raise ValueError(f"cotangents must have one row for each of the {len(rows)} samples, got {len(cotangents)}")
        result = self._pullback(
            rows,
            context,
            dy=cotangents,
            dlog=as_vector(dlog_det, len(rows), "dlog_det"),
            inverse=inverse,
            input=True,
            with_base=False,
        )
        return Cotangents(self._shaped(result.dx, single), result.gradient[self.parameters.free],
                          result.dcondition if self.condition_dim else None)  # fmt: skip

    def log_prob(
        self, x: object, condition: object = None, *, draws: int = 16, rng: object = 0
    ) -> np.ndarray:  # fmt: skip
        """Log-density of x, in the units of x.

        With `integer` columns it is the logarithm of a mass: that of x's cell, a mean of the density at random points of
        it, which is right on average before the logarithm is taken and the closer the more of them there are.

        Parameters
        ----------
        x : array_like (n, input_dim)
            A row with NaN gives NaN; one outside the support, or what the flow can represent, infinity included, gives
            -inf.
        condition : array_like, optional
            See `forward`.
        draws : int
            Points of each cell of whole numbers; without integer columns nothing is drawn.
        rng : int, numpy.random.Generator or None
            Draws them; the same ones each time by default.

        Returns
        -------
        ndarray (n,)
        """
        rows, context, single = self._given(x, condition)
        log_probs = [
            self._transport(points, context, y=False, log_det=False, log_prob=True).log_prob
            for points in self._cells(rows, draws, rng)
        ]
        log_prob = log_probs[0] if len(log_probs) == 1 else log_mean_exp(np.array(log_probs))
        return log_prob[0] if single else log_prob

    def log_prob_and_grad(
        self, x: object, condition: object = None, *, draws: int = 16, rng: object = 0
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Log-density (n,) of x and its gradient with respect to x (n, input_dim), in the units of x; see `log_prob`.

        The gradient is 0 where the log-density is -inf, or so small that the gradient leaves the range of the compute
        dtype, so that a sampler meets no NaN; and in integer columns.
        """
        rows, context, single = self._given(x, condition)
        results = [
            self._pullback(points, context, dlog=np.ones(len(rows)), input=True, gradient=False)
            for points in self._cells(rows, draws, rng)
        ]
        log_prob, dx = results[0].log_prob, results[0].dx
        if len(results) > 1:
            log_probs = np.array([result.log_prob for result in results])
            log_prob = log_mean_exp(log_probs)
            with np.errstate(invalid="ignore"):
                shares = np.exp(log_probs - log_prob) / len(results)
            dx = sum(share[:, None] * result.dx for share, result in zip(shares, results))
            dx[:, self._support.integer] = 0  # type: ignore[union-attr]
        lost = np.isneginf(log_prob) | ~np.isfinite(dx).all(axis=1)
        dx[lost & ~np.isnan(log_prob)] = 0
        return (log_prob[0] if single else log_prob), self._shaped(dx, single)

    def nll_and_grad(
        self, x: object, sample_weight: object = None, condition: object = None
    ) -> tuple[float, np.ndarray]:  # fmt: skip
        """Mean negative log-likelihood of x and its gradient (num_params,) in the order of `params`.

        With weights it is the weighted mean.  Made for optimisers: assign `params`, return this.  Whole numbers are placed
        at random in their cells, the same way each time, which gives a bound from above.
        """
        rows, context, _ = self._given(x, condition)
        if not len(rows):
            raise ValueError("x must have at least one row")
        if self._support is not None and self._support.has_integers:
            rows = self._support.scatter(rows, np.random.default_rng(0))
        weights = as_weights(sample_weight, len(rows))
        if weights is None:
            weights = np.full(len(rows), 1 / len(rows))
        weights = weights / weights.sum()
        result = self._pullback(rows, context, dlog=-weights,
                                           skip_zero=True)  # fmt: skip
        used = weights > 0
        return float(-(weights[used] * result.log_prob[used]).sum()), result.gradient[self.parameters.free]

    def bits_per_dim(self, x: object, condition: object = None, *, draws: int = 16, rng: object = 0) -> float:
        """Mean negative log-likelihood of x in bits, for each of the `input_dim` values; see `log_prob`."""
        log_prob = np.atleast_1d(self.log_prob(x, condition, draws=draws, rng=rng))
        if not log_prob.size:
            raise ValueError("x must have at least one row")
        return float(-log_prob.mean() / (self.latent_dim * math.log(2)))

    def sample(
        self, n_samples: int, rng: object = None, temperature: float = 1.0, *, condition: object = None
    ) -> np.ndarray:  # fmt: skip
        """Draw samples.

        Parameters
        ----------
        n_samples : int
            How many, 0 included.
        rng : int, numpy.random.Generator or None
        temperature : float
            Multiplies the distance from the base distribution's centre, where latent samples are drawn; above 0.
        condition : array_like, optional
            One for all samples or one for each.

        Returns
        -------
        ndarray (n_samples, input_dim)
        """
        n = as_int(n_samples, "n_samples", 0)
        context = as_condition(condition, n, self.condition_dim)
        z = self.base.sample(n, rng, temperature)
        result = self._transport(z, context, inverse=True,
                                            log_det=False)  # fmt: skip
        return self._shaped(result.y, False, "x")

    generate = sample

    def sample_each(
        self, n_samples: int, condition: object, rng: object = None, temperature: float = 1.0
    ) -> np.ndarray:  # fmt: skip
        """Draw `n_samples` for each of m conditions (m, condition_dim): an array (m, n_samples, input_dim)."""
        n, generator = as_int(n_samples, "n_samples", 0), as_rng(rng)
        if not self.condition_dim:
            raise ValueError("this flow takes no condition (condition_dim=0): use sample")
        if condition is None:
            raise ValueError(f"sample_each needs conditions (m, {self.condition_dim}), got None")
        rows, _ = as_rows(condition, (self.condition_dim,), "condition")
        result = np.empty((len(rows), n, *self.input_shape), self.sample(0, generator, condition=rows[:0]).dtype)
        at_once = max(1, CHUNK // max(n, 1))
        for start in range(0, len(rows), at_once):
            part = np.repeat(rows[start : start + at_once], n, axis=0)
            samples = self.sample(len(part), generator, temperature, condition=part)
            several = result[start : start + at_once]
            several[:] = samples.reshape(several.shape)
        return result

    def sample_and_log_prob(
        self, n_samples: int, rng: object = None, temperature: float = 1.0, *, condition: object = None
    ) -> SampleAndLogProb:
        """Draw samples with the log-density of what was drawn, temperature included; see `sample` and `log_prob`."""
        n = as_int(n_samples, "n_samples", 0)
        temperature = as_positive(temperature, "temperature")
        context = as_condition(condition, n, self.condition_dim)
        z = self.base.sample(n, rng, temperature)
        result = self._transport(z, context, inverse=True)
        x = self._shaped(result.y, False, "x")
        if self._support is not None and self._support.has_integers:
            if temperature != 1:
                raise ValueError("sample_and_log_prob of integer columns needs temperature=1")
            return SampleAndLogProb(x, self.log_prob(x, context))
        return SampleAndLogProb(x, self.base.log_prob(z, temperature) - result.log_det)

    def __call__(self, x: object, condition: object = None) -> dict[str, np.ndarray]:
        """z, logdet, log_prob (of z under the base) and log_prob_x (of x under the flow, as `log_prob` gives it)."""
        rows, context, single = self._inputs(x, condition)
        z, log_det, log_prob_x = self._transport(rows, context,
                                                            log_prob=True)  # fmt: skip
        if self._support is not None and self._support.has_integers:
            log_prob_x = np.atleast_1d(self.log_prob(x, condition))
        values = {"logdet": log_det, "log_prob": self.base.log_prob(z), "log_prob_x": log_prob_x}
        return {"z": self._shaped(z, single), **{name: v[0] if single else v for name, v in values.items()}}

    def loss_fn(self, batch: object, outputs: dict[str, np.ndarray]) -> dict[str, Any]:
        """The loss of a batch from what calling the flow on it gave: loss, nll_loss, log_prob (n,) and avg_log_prob."""
        log_prob = np.atleast_1d(outputs["log_prob_x"])
        rows, _ = as_rows(batch, self.input_shape, "batch")
        if len(rows) != len(log_prob):
            raise ValueError(f"outputs are of {len(log_prob)} samples, the batch has {len(rows)}")
        if not len(rows):
            raise ValueError("batch must have at least one row")
        average = float(log_prob.mean())
        return {"loss": -average, "nll_loss": -average, "log_prob": log_prob, "avg_log_prob": average}

    initialize = initialize

    def verify(self, x: object, condition: object = None, rng: object = None, **options: Any) -> VerificationReport:
        """A certificate of exactness at rows of x: see `npflows.verify.verify`; it is kept as `verification`, and saved."""
        from npflows.verify import verify

        self.verification = verify(self, x, condition, rng, **options)
        return self.verification

    fit = fit
    fit_variational = fit_variational
    importance_weights = importance_weights
    to_unit_cube, from_unit_cube = to_unit_cube, from_unit_cube
    marginal, conditional = marginal, conditional
    mode, entropy, kl_divergence = mode, entropy, kl_divergence

    def reset(self, rng: object = None) -> Self:
        """Start afresh: new first weights, no standardisation, no history."""
        fresh = self._again(as_rng(rng))
        self.parameters.theta[:] = fresh.parameters.theta
        self.standardize.set(0.0, 1.0)
        self._condition_front = IDENTITY
        self._support, self._programs = fresh._support, {}
        self._is_standardized = False
        for layer in self._set_from_data:
            layer.initialized = False
        self.history, self.effective_rows = {}, None
        return self

    def _again(self, rng: np.random.Generator) -> NormalizingFlow:
        """A flow of the same configuration with new first weights."""
        return construct(type(self), self.arguments, rng)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the flow to one .npz file, in full or not at all; `npflows.load` reads it."""
        save(self, path)

    def __repr__(self) -> str:
        lines = [super().__repr__()]
        lines.append(f"  {self.latent_dim} values, {self.num_params} parameters, {self.dtype.name}")
        loc, scale = self.standardize.loc, self.standardize.scale
        state = "the identity"
        if (loc != 0).any() or (scale != 1).any():
            state = f"loc {_brief(loc)}, scale {_brief(scale)}"
        lines.append(f"  0  Standardize ({state})")
        lines += [f"  {i}  {layer!r}" for i, layer in enumerate(self.flow_layers) if i]
        return "\n".join([*lines, f"  base  {self.base!r}"])


def _brief(values: np.ndarray) -> str:
    shown = ", ".join(f"{v:.4g}" for v in values[:4])
    return f"[{shown}{', ...' if len(values) > 4 else ''}]"
