"""`TransformedDistribution`: an exact density made of invertible layers and a base distribution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.core.backend import Cotangents
from npflows.core.checks import (
    SeedLike,
    as_choice,
    as_flag,
    as_int,
    as_numeric,
    as_positive,
    as_rng,
    as_rows,
    as_vector,
    as_weights,
)
from npflows.core.columns import listed
from npflows.core.counters import in_pieces
from npflows.core.frames import FRAMES, to_frame
from npflows.core.statistics import log_mean_exp
from npflows.core.underflow import ignore_underflow
from npflows.distribution import on_gpu
from npflows.distribution.assembly import Assembly

CHUNK = 65536
"""Samples that `sample_each` draws at a time."""


class SampleAndLogProb(NamedTuple):
    """Samples (n, d) and their log-density (n,)."""

    x: Any
    log_prob: NDArray[np.float64]


class TransformedDistribution(Assembly, abstract=True):
    """The density of a flow: its map, log-density, gradients and samples, in the user's units.

    Inference, training, files and diagnostics take flows by this class; `npflows.flow.NormalizingFlow` adds them as
    methods.  Attributes are those of `Assembly`.

    On "cuda", `forward`, `inverse`, `log_prob`, their gradients and `fit` also take arrays that lie on the GPU, and then
    give such ones; gradients of the parameters are arrays of NumPy, as the parameters are.
    """

    def forward(self, x: ArrayLike, condition: ArrayLike | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Data to latent.

        Parameters
        ----------
        x : array_like (n, input_dim)
        condition : array_like (condition_dim,) or (n, condition_dim), optional
            One for all samples or one for each, where the flow has `condition_dim`; by default that which a table of
            `npflows.read_table` brings with it.  Where one has NaN or an infinite value, z and log_det are NaN.

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
        if on_gpu.concerns(self, x, condition):
            return on_gpu.mapped(self, x, condition)
        rows, context, single = self._inputs(x, condition)
        z, log_det, _ = self.transport(rows, context)
        return self._shaped(z, single), log_det[0] if single else log_det

    def inverse(self, z: ArrayLike, condition: ArrayLike | None = None) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Latent to data: x (n, input_dim) and log |det dx/dz| (n,), for z (n, latent_dim); see `forward`."""
        if on_gpu.concerns(self, z, condition):
            return on_gpu.mapped(self, z, condition, inverse=True)
        rows, context, single = self._inputs(z, condition, "z")
        x, log_det, _ = self.transport(rows, context, inverse=True)
        return self._shaped(x, single, "x"), log_det[0] if single else log_det

    def forward_vjp(
        self, x: ArrayLike, dz: ArrayLike, dlog_det: ArrayLike = 0.0, condition: ArrayLike | None = None
    ) -> Cotangents:
        """Gradients of a scalar L through `forward` at x, from dL/dz (n, d) and dL/dlog_det (n,)."""
        return self._pull(x, dz, dlog_det, condition, False)

    def inverse_vjp(
        self, z: ArrayLike, dx: ArrayLike, dlog_det: ArrayLike = 0.0, condition: ArrayLike | None = None
    ) -> Cotangents:
        """Gradients of a scalar L through `inverse` at z, from dL/dx (n, d) and dL/dlog_det (n,)."""
        return self._pull(z, dx, dlog_det, condition, True)

    def _pull(
        self, x: ArrayLike, dy: ArrayLike, dlog_det: ArrayLike, condition: ArrayLike | None, inverse: bool
    ) -> Cotangents:
        if on_gpu.concerns(self, x, dy, dlog_det, condition):
            return on_gpu.pulled(self, x, dy, dlog_det, condition, inverse)
        rows, context, single = self._inputs(x, condition, "z" if inverse else "x")
        cotangents, _ = as_rows(dy, self.input_shape, "dx" if inverse else "dz")
        if len(cotangents) != len(rows):
            raise ValueError(f"cotangents must have one row for each of the {len(rows)} samples, got {len(cotangents)}")
        result = self.pullback(
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
        self, x: ArrayLike, condition: ArrayLike | None = None, *, draws: int = 16, rng: SeedLike = 0
    ) -> NDArray[np.float64]:  # fmt: skip
        """Log-density of x, in the units of x.

        With `integer` columns it is the logarithm of a mass: that of x's cell, a mean of the density at random points of
        it, which is right on average before the logarithm is taken and the closer the more of them there are.

        Parameters
        ----------
        x : array_like (n, input_dim)
            A row with NaN gives NaN; one outside the support, or what the flow can represent, infinity included, gives
            -inf.  Data frames and other tables with names are taken by name where the flow has `columns`.  Chains
            (n_draws, n_chains, input_dim) give an array (n_draws, n_chains).
        condition : array_like, optional
            See `forward`; one with NaN or an infinite value gives NaN.  That of chains has one row, or their shape.
        draws : int
            Points of each cell of whole numbers; without integer columns nothing is drawn.
        rng : int, numpy.random.Generator or None
            Draws them; the same ones each time by default.

        Returns
        -------
        ndarray (n,)
        """
        axes = self._chains(x)
        if axes is not None:
            x, condition = _as_rows_of_chains(x, condition, axes)
            return self.log_prob(x, condition, draws=draws, rng=rng).reshape(axes)
        if on_gpu.concerns(self, x, condition):
            return on_gpu.log_prob(self, x, condition, draws, rng)
        rows, context, single = self._given(x, condition)
        log_probs = [
            self.transport(points, context, y=False, log_det=False, log_prob=True).log_prob
            for points in self.preprocessing.cells(rows, draws, rng)
        ]
        log_prob = log_probs[0] if len(log_probs) == 1 else log_mean_exp(np.array(log_probs))
        return log_prob[0] if single else log_prob

    @ignore_underflow
    def log_prob_and_grad(
        self,
        x: ArrayLike,
        condition: ArrayLike | None = None,
        *,
        wrt: str = "x",
        draws: int = 16,
        rng: SeedLike = 0,
    ) -> tuple[NDArray[np.float64], ...]:
        """Log-density (n,) of x and its gradient with respect to x (n, input_dim), in the units of x; see `log_prob`.

        The gradient is 0 where the log-density is -inf, or so small that the gradient leaves the range of the compute
        dtype, so that a sampler meets no NaN; and in integer columns.  It is NaN where the log-density is.

        Parameters
        ----------
        x, condition, draws, rng
            As in `log_prob`.
        wrt : {"x", "both"}
            With "both" the gradient with respect to the condition (n, condition_dim) comes third.
        """
        both = as_choice(wrt, "wrt", ("x", "both")) == "both"
        axes = self._chains(x)
        if axes is not None:
            x, condition = _as_rows_of_chains(x, condition, axes)
            found = self.log_prob_and_grad(x, condition, wrt=wrt, draws=draws, rng=rng)
            return tuple(values.reshape(*axes, *values.shape[1:]) for values in found)
        if both and not self.condition_dim:
            raise ValueError("wrt='both' needs a flow with a condition (condition_dim=0 here): leave wrt out")
        if on_gpu.concerns(self, x, condition):
            return on_gpu.log_prob_and_grad(self, x, condition, wrt, draws, rng)
        rows, context, single = self._given(x, condition)
        results = [
            self.pullback(points, context, dlog=np.ones(len(rows)), input=True, gradient=False)
            for points in self.preprocessing.cells(rows, draws, rng)
        ]
        log_prob, dx, dcondition = results[0].log_prob, results[0].dx, results[0].dcondition
        if len(results) > 1:
            log_probs = np.array([result.log_prob for result in results])
            log_prob = log_mean_exp(log_probs)
            with np.errstate(invalid="ignore"):
                shares = np.exp(log_probs - log_prob) / len(results)
                dx = sum(share[:, None] * result.dx for share, result in zip(shares, results))
                if both:
                    dcondition = sum(share[:, None] * result.dcondition for share, result in zip(shares, results))
        gradients = [dx, dcondition] if both else [dx]
        if not (np.isfinite(log_prob).all() and all(np.isfinite(gradient).all() for gradient in gradients)):
            lost = np.any([~np.isfinite(gradient).all(axis=1) for gradient in gradients], axis=0)
            for gradient in gradients:
                gradient[lost | np.isneginf(log_prob)] = 0
                gradient[np.isnan(log_prob)] = np.nan
        if self.preprocessing.has_integers:
            dx[:, self.preprocessing.integer] = 0
        answer = (log_prob[0] if single else log_prob), self._shaped(dx, single)
        return (*answer, dcondition[0] if single else dcondition) if both else answer

    @ignore_underflow
    def nll_and_grad(
        self,
        x: ArrayLike,
        sample_weight: ArrayLike | None = None,
        condition: ArrayLike | None = None,
        *,
        log_weight: ArrayLike | None = None,
    ) -> tuple[float, NDArray[np.float64]]:
        """Mean negative log-likelihood of x and its gradient (num_params,) in the order of `params`.

        With weights (n,), or `log_weight`, their logarithms, it is the weighted mean.  Made for optimizers: assign
        `params`, return this.  Whole numbers are placed at random in their cells, the same way each time, which gives a
        bound from above.
        """
        if on_gpu.concerns(self, x, condition, sample_weight, log_weight):
            return on_gpu.nll_and_grad(self, x, sample_weight, condition, log_weight)
        rows, context, _ = self._given(x, condition)
        if not len(rows):
            raise ValueError("x must have at least one row")
        rows = self.preprocessing.scatter(rows, np.random.default_rng(0))
        weights = as_weights(sample_weight, len(rows), logarithms=log_weight)
        if weights is None:
            weights = np.full(len(rows), 1 / len(rows))
        weights = weights / weights.sum()
        result = self.pullback(rows, context, dlog=-weights, skip_zero=True)
        used = weights > 0
        return float(-(weights[used] * result.log_prob[used]).sum()), result.gradient[self.parameters.free]

    def bits_per_dim(
        self, x: ArrayLike, condition: ArrayLike | None = None, *, draws: int = 16, rng: SeedLike = 0
    ) -> float:
        """Mean negative log-likelihood of x in bits, for each of the `input_dim` values; see `log_prob`."""
        log_prob = np.atleast_1d(self.log_prob(x, condition, draws=draws, rng=rng))
        if not log_prob.size:
            raise ValueError("x must have at least one row")
        return float(-log_prob.mean() / (self.latent_dim * math.log(2)))

    def sample(
        self,
        n_samples: int,
        rng: SeedLike = None,
        temperature: float = 1.0,
        *,
        condition: ArrayLike | None = None,
        as_frame: bool | str = False,
    ) -> Any:
        """Draw samples.

        Parameters
        ----------
        n_samples : int
            How many, 0 included.
        rng : int, numpy.random.Generator or None
            A Generator gives a key alone, four numbers (eight where columns are on circles) whatever `n_samples` is, and
            every value follows from the key and its place: fewer samples are the first of more.
        temperature : float
            Multiplies the distance from the base distribution's center, where latent samples are drawn; above 0.
        condition : array_like, optional
            One for all samples or one for each, finite.
        as_frame : bool or {"pandas", "polars", "pyarrow", "astropy"}
            Give a table of that library, of pandas with True, with the names in `columns`, or x0, x1, ... where there are
            none, and with the `units`, which astropy and pyarrow keep; columns whose unit has an
            epoch become instants.

        Returns
        -------
        ndarray (n_samples, input_dim), or a data frame

        Raises
        ------
        ValueError
            If a condition is NaN or infinite, which has no samples.
        """
        n, kind = as_int(n_samples, "n_samples", 0), self._frame(as_frame)
        if on_gpu.concerns(self, condition):
            return on_gpu.sample(self, n, rng, temperature, condition, as_frame)
        context = self.conditioning.finite_rows(condition, n, "sample")
        if self.device != "cpu" and on_gpu.stays(self):
            x = on_gpu.sampled(self, n, rng, temperature, context)
        else:
            z = self._latent(n, rng, temperature, context)
            x = self.transport(z, context, inverse=True, log_det=False).y
        return self._framed(self._shaped(x, False, "x"), kind)

    generate = sample

    def sample_each(
        self, n_samples: int, condition: ArrayLike, rng: SeedLike = None, temperature: float = 1.0
    ) -> NDArray[Any]:  # fmt: skip
        """Draw `n_samples` for each of m finite conditions (m, condition_dim): an array (m, n_samples, input_dim)."""
        n, generator = as_int(n_samples, "n_samples", 0), in_pieces(as_rng(rng))
        if not self.condition_dim:
            raise ValueError("this flow takes no condition (condition_dim=0): use sample")
        if condition is None:
            raise ValueError(f"sample_each needs conditions (m, {self.condition_dim}), got None")
        rows = self.conditioning.each(condition, "sample_each")
        result = np.empty((len(rows), n, *self.input_shape), self.sample(0, generator, condition=rows[:0]).dtype)
        at_once = max(1, CHUNK // max(n, 1))
        for start in range(0, len(rows), at_once):
            part = np.repeat(rows[start : start + at_once], n, axis=0)
            samples = self.sample(len(part), generator, temperature, condition=part)
            several = result[start : start + at_once]
            several[:] = samples.reshape(several.shape)
        return result

    def sample_and_log_prob(
        self,
        n_samples: int,
        rng: SeedLike = None,
        temperature: float = 1.0,
        *,
        condition: ArrayLike | None = None,
        as_frame: bool | str = False,
    ) -> SampleAndLogProb:
        """Draw samples with the log-density of what was drawn, temperature included; see `sample` and `log_prob`."""
        n, kind = as_int(n_samples, "n_samples", 0), self._frame(as_frame)
        temperature = as_positive(temperature, "temperature")
        context = self.conditioning.finite_rows(condition, n, "sample_and_log_prob")
        z = self._latent(n, rng, temperature, context)
        result = self.transport(z, context, inverse=True)
        x = self._shaped(result.y, False, "x")
        if self.preprocessing.has_integers:
            if temperature != 1:
                raise ValueError("sample_and_log_prob of integer columns needs temperature=1")
            return SampleAndLogProb(self._framed(x, kind), self.log_prob(x, context))
        log_prob = self.base_under(context).log_prob(z, temperature) - result.log_det
        return SampleAndLogProb(self._framed(x, kind), log_prob)

    def _latent(
        self, n: int, rng: SeedLike, temperature: float, context: np.ndarray | None
    ) -> NDArray[np.float64]:  # fmt: skip
        """Samples (n, latent_dim) of the base, drawn where the flow runs."""
        if self.device != "cpu":
            return on_gpu.latent(self, n, rng, temperature, context)
        return self.base_under(context).sample(n, rng, temperature)

    def __call__(self, x: ArrayLike, condition: ArrayLike | None = None) -> dict[str, NDArray[np.float64]]:
        """z, logdet, log_prob (of z under the base) and log_prob_x (of x under the flow, as `log_prob` gives it)."""
        rows, context, single = self._inputs(x, condition)
        z, log_det, log_prob_x = self.transport(rows, context, log_prob=True)
        if self.preprocessing.has_integers:
            log_prob_x = np.atleast_1d(self.log_prob(x, condition))
        values = {"logdet": log_det, "log_prob": self.base_under(context).log_prob(z), "log_prob_x": log_prob_x}
        return {"z": self._shaped(z, single), **{name: v[0] if single else v for name, v in values.items()}}

    def loss_fn(self, batch: ArrayLike, outputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """The loss of a batch from what calling the flow on it gave: loss, nll_loss, log_prob (n,) and avg_log_prob."""
        log_prob = np.atleast_1d(outputs["log_prob_x"])
        rows, _ = self.preprocessing.rows(batch, self.input_shape, "batch")
        if len(rows) != len(log_prob):
            raise ValueError(f"outputs are of {len(log_prob)} samples, the batch has {len(rows)}")
        if not len(rows):
            raise ValueError("batch must have at least one row")
        average = float(log_prob.mean())
        return {"loss": -average, "nll_loss": -average, "log_prob": log_prob, "avg_log_prob": average}

    def __repr__(self) -> str:
        lines = [super().__repr__()]
        lines.append(f"  {self.latent_dim} values, {self.num_params} parameters, {self.dtype.name}")
        for name, header in zip(("columns", "condition"), self.headers):
            if header.names is not None or header.units is not None:
                lines.append(f"  {name}: {listed(header.labels)}")
        loc, scale = self.standardize.loc, self.standardize.scale
        state = "the identity"
        if (loc != 0).any() or (scale != 1).any():
            state = f"loc {_brief(loc)}, scale {_brief(scale)}"
        if self.standardize.factor is not None:
            state += ", without correlations"
        if self.robust_columns:
            state += f"; robust: {', '.join(self.robust_columns)}"
        lines.append(f"  0  Standardize ({state})")
        lines += [f"  {i}  {layer!r}" for i, layer in enumerate(self.flow_layers) if i]
        return "\n".join([*lines, f"  base  {self.base!r}"])

    def _frame(self, as_frame: bool | str) -> bool | str:
        """The kind of data frame that is wanted, after a check; False for none."""
        kind = as_choice(as_frame, "as_frame", FRAMES) if isinstance(as_frame, str) else as_flag(as_frame, "as_frame")
        if kind and len(self.input_shape) > 1:
            raise ValueError(f"as_frame needs samples that are rows of columns, those of this flow are {self.input_shape}")
        return kind

    def _framed(self, x: np.ndarray, kind: bool | str) -> Any:
        """Samples as the data frame that is wanted, if any is."""
        names = self.columns or [f"x{i}" for i in range(self.latent_dim)]
        return x if kind is False else to_frame(x, names, kind, self.units)

    def _given(self, x: ArrayLike, condition: ArrayLike | None) -> tuple[np.ndarray, np.ndarray | None, bool]:
        """Rows as they are, their condition, and whether there is one row without its axis."""
        rows, single = self.preprocessing.rows(x, self.input_shape)
        self.preprocessing.check(rows, "x")
        return rows, self.conditioning.of_rows(x, condition, len(rows)), single

    def _chains(self, x: ArrayLike) -> tuple[int, int] | None:
        """The first two axes of an array of chains (n_draws, n_chains, input_dim); None for what is no such array."""
        shape: tuple[int, ...] = getattr(x, "shape", ())
        if len(shape) != 3 or len(self.input_shape) > 1 or shape[2] != self.input_dim:
            return None
        return int(shape[0]), int(shape[1])

    def _inputs(
        self, x: ArrayLike, condition: ArrayLike | None, name: str = "x"
    ) -> tuple[np.ndarray, np.ndarray | None, bool]:
        """Rows, whole numbers in the middle of their cells, with their condition, and whether there is a single one."""
        if name == "x":
            rows, context, single = self._given(x, condition)
            return self.preprocessing.center(rows), context, single
        rows, single = as_rows(x, self.input_shape, name)
        return rows, self.conditioning.rows(condition, len(rows)), single

    def _shaped(self, rows: np.ndarray, single: bool, name: str = "z") -> np.ndarray:
        """(n, latent_dim) in the shape of samples, whole numbers where x has them."""
        if name == "x":
            rows = self.preprocessing.round(rows)
        rows = rows.reshape(len(rows), *self.input_shape)
        return rows[0] if single else rows


def _as_rows_of_chains(x: Any, condition: Any, axes: tuple[int, int]) -> tuple[np.ndarray, Any]:
    """Chains as rows, draw after draw, with their conditions, where each has one."""
    n = axes[0] * axes[1]
    rows = as_numeric(x, "x")
    if np.ndim(condition) == 3 and np.shape(condition)[:2] == axes:
        condition = as_numeric(condition, "condition").reshape(n, condition.shape[-1])
    return rows.reshape(n, x.shape[-1]), condition


Flow = TypeVar("Flow", bound=TransformedDistribution)
"""A flow that a function takes and returns."""


def _brief(values: np.ndarray) -> str:
    shown = ", ".join(f"{v:.4g}" for v in values[:4])
    return f"[{shown}{', ...' if len(values) > 4 else ''}]"
