"""Flows of flowjax made of what npflows has; imported by `to_flowjax` alone, as it needs JAX and flowjax."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.nn as jnn
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from flowjax import bijections as fb
from flowjax.distributions import Normal as JaxNormal
from flowjax.distributions import StandardNormal, Transformed
from flowjax.distributions import Uniform as JaxUniform
from numpy.typing import NDArray
from paramax import Parameterize

from npflows.base import Base, Normal, Uniform
from npflows.convert.errors import ConversionError
from npflows.convert.outward import Network, Parts, Step, linear_factors, network_of, parts_of, triangular
from npflows.core import operations
from npflows.core.factors import lu
from npflows.distribution.transformed import TransformedDistribution

ACTIVATIONS = {"relu": jnn.relu, "tanh": jnp.tanh, "silu": jnn.silu, "elu": jnn.elu, "leaky_relu": jnn.leaky_relu}


@dataclass(frozen=True)
class ScaleMap:
    """The scale of npflows' affine map from a raw value, and with "tanh_gain" a gain; see
    `npflows.core.operations.Affine`."""

    scale_activation: str
    least: float
    most: float

    def __call__(self, raw: Any, gain: Any = 1.0) -> Any:
        if self.scale_activation in ("tanh", "tanh_gain"):
            return jnp.exp(gain * jnp.tanh(raw))
        if self.scale_activation == "none":
            return jnp.exp(raw)
        if self.scale_activation in operations.CLIPS:
            return jnp.exp(self._clip(raw))
        if self.scale_activation == "sigmoid":
            scale = jnn.sigmoid(raw + operations.Affine.sigmoid_offset)
        else:
            scale = jnn.softplus(raw)
        return jnp.minimum(scale + self.least, self.most)

    def _clip(self, raw: Any) -> Any:
        bound = -math.log(self.least)
        if self.scale_activation == "soft_clip":
            return raw / (1 + jnp.abs(raw) / bound)
        if self.scale_activation == "hard_clip":
            return jnp.clip(raw, -bound, math.log(self.most))
        if self.scale_activation == "tanh_clip":
            return bound * jnp.tanh(raw)
        if self.scale_activation == "sigmoid_clip":
            return bound * (2 * jnn.sigmoid(raw) - 1)
        return operations.Affine.atan_factor * bound * jnp.arctan(raw)


class LogTails(fb.AbstractBijection):
    """npflows' logarithmic tails; see `npflows.layers.LogTails`."""

    bound: float
    shape: tuple[int, ...]
    cond_shape: Any = None

    def transform_and_log_det(self, x: Any, condition: Any = None) -> Any:
        size = jnp.abs(x)
        beyond = jnp.maximum(size - self.bound, 0)
        y = jnp.where(size > self.bound, jnp.sign(x) * (self.bound + jnp.arcsinh(beyond)), x)
        return y, -jnp.log1p(beyond**2).sum() / 2

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> Any:
        size = jnp.abs(y)
        beyond = jnp.sinh(jnp.maximum(size - self.bound, 0))
        x = jnp.where(size > self.bound, jnp.sign(y) * (self.bound + beyond), y)
        return x, jnp.log1p(beyond**2).sum() / 2


@dataclass(frozen=True)
class StandardizedCondition:
    """(c - loc) / scale, drawn in by a logarithm beyond `tails`."""

    loc: tuple[float, ...]
    scale: tuple[float, ...]
    tails: tuple[float, ...]

    def __call__(self, c: Any) -> Any:
        loc, scale, tails = (jnp.asarray(values, c.dtype) for values in (self.loc, self.scale, self.tails))
        c = (c - loc) / scale
        beyond = jnp.maximum(jnp.abs(c) - tails, 0)
        return jnp.where(jnp.abs(c) > tails, jnp.sign(c) * (tails + jnp.arcsinh(beyond)), c)


def made_of(flow: TransformedDistribution, dtype: str | None) -> Transformed:
    """The flow of flowjax."""
    parts = parts_of(flow, dtype)
    if (parts.dtype == "float64") != bool(jax.config.jax_enable_x64):
        mode = "True" if parts.dtype == "float64" else "False"
        raise ConversionError(f"JAX computes in another dtype than {parts.dtype}: call jax.config.update('jax_enable_x64', "
                              f"{mode}) first, or pass another dtype")  # fmt: skip
    return _Maker(parts).flow()


class _Maker:
    """Makes bijections, from data to latent."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.key = parts, jr.key(0)

    def flow(self) -> Transformed:
        parts = self.parts
        found = self._standardization()
        for step in parts.steps:
            found += self._step(step)
        bijection: Any = fb.Chain(found or [fb.Identity((parts.n,))])
        if parts.conditions is not None and parts.moves_conditions:
            standardized = StandardizedCondition(*(tuple(row) for row in parts.conditions.tolist()))
            bijection = fb.EmbedCondition(bijection, standardized, (parts.condition_dim,))
        return Transformed(self._base(parts.base), fb.Invert(bijection))

    def _standardization(self) -> list[Any]:
        parts, found = self.parts, []
        if (parts.loc != 0).any() or (parts.scale != 1).any():
            found.append(fb.Invert(fb.Affine(_array(parts.loc), _array(parts.scale))))
        if parts.factor is not None:
            found.append(fb.Invert(fb.TriangularAffine(jnp.zeros(parts.n), _array(parts.factor))))
        return found

    def _base(self, base: Base) -> Any:
        views = {name: view.astype(np.float64) for name, view in base.parameters.views().items()}
        if isinstance(base, Normal):
            scale = np.exp(views["log_scale"]) if base.learnable else views["scale"]
            if not base.learnable and (views["loc"] == 0).all() and (scale == 1).all():
                return StandardNormal((self.parts.n,))
            return JaxNormal(_array(views["loc"]), _array(scale))
        if isinstance(base, Uniform):
            return JaxUniform(_array(views["low"]), _array(views["high"]))
        raise ConversionError(f"the base distribution {type(base).__name__} is not handed over; Normal and Uniform can be")

    def _step(self, step: Step) -> list[Any]:
        operation, views = step.operation, step.views
        if isinstance(operation, operations.Permutation):
            return _permuted(operation.order)
        if isinstance(operation, operations.ActNorm) and operation.channels == operation.dim:
            return [fb.Affine(_array(views["bias"] * np.exp(views["logs"])), _array(np.exp(views["logs"])))]
        linear = linear_factors(operation, views)
        if linear is not None:
            order, lower, upper, shift = linear
            return [*_permuted(order), *self._lower_upper(lower, upper, shift, step.name)]
        if isinstance(operation, operations.Conv1x1) and operation.channels == operation.dim:
            if operation.parameterization == "plu":
                return self._lower_upper(*triangular(views["matrix"]), np.zeros(self.parts.n), step.name)
            rows, lower, upper = lu(views["matrix"])
            return [*self._lower_upper(lower, upper, np.zeros(self.parts.n), step.name), *_permuted(rows.argmax(axis=1))]
        if isinstance(operation, operations.LogTails):
            return [LogTails(operation.bound, (self.parts.n,))]
        if isinstance(operation, operations.Autoregressive):
            return self._autoregressive(operation, step)
        if isinstance(operation, operations.Coupling) and not operation.n_circles:
            return self._coupling(operation, step)
        raise ConversionError(f"{step.name} has no counterpart in flowjax")

    def _lower_upper(self, lower: NDArray, upper: NDArray, shift: NDArray, where: str) -> list[Any]:
        if (np.diag(upper) < 0).any():
            raise ConversionError(f"the matrix of {where} has factors of a negative diagonal, which flowjax has not")
        return [fb.TriangularAffine(jnp.zeros(self.parts.n), _array(upper), lower=False),
                fb.TriangularAffine(_array(shift), _array(lower))]  # fmt: skip

    def _autoregressive(self, operation: operations.Autoregressive, step: Step) -> list[Any]:
        """A masked layer takes features in the order of their numbers, so that they are permuted before and after."""
        n, order = operation.dim, np.array(operation.order)
        if len(set(operation.conditioner.feature_rows) - {1}):
            raise ConversionError(f"values on circles ({step.name}) have no counterpart in flowjax")
        network, transformer = _of_flowjax(operation, step, n, self.parts.condition_dim)
        width = {"nn_width": 1, "nn_depth": max(1, len(network.layers) - 1), "cond_dim": self.parts.condition_dim or None}
        if n == 1 and not self.parts.condition_dim:
            raise ConversionError(f"a masked layer of one column without a condition ({step.name}) is not in flowjax")
        made = fb.MaskedAutoregressive(self.key, transformer=transformer, dim=n, **width)
        made = eqx.tree_at(lambda part: part.masked_autoregressive_mlp, made, self._network(network))
        made = fb.Invert(made) if operation.inverted else made
        return [*_permuted(order), made, *_permuted(np.argsort(order))]

    def _coupling(self, operation: operations.Coupling, step: Step) -> list[Any]:
        """A coupling keeps the first values, so that they are permuted before and after."""
        order, n_kept = np.array(operation.kept + operation.moved), len(operation.kept)
        network, transformer = _of_flowjax(operation, step, len(operation.moved), self.parts.condition_dim)
        made = fb.Coupling(self.key, transformer=transformer, untransformed_dim=n_kept, dim=operation.dim,
                           cond_dim=self.parts.condition_dim or None, nn_width=1, nn_depth=1)  # fmt: skip
        made = eqx.tree_at(lambda part: part.conditioner, made, self._network(network))
        made = fb.Invert(made) if operation.inverted else made
        return [*_permuted(order), made, *_permuted(np.argsort(order))]

    def _network(self, network: Network) -> eqx.nn.MLP:
        first, last = network.layers[0][0], network.layers[-1][0]
        depth, width = len(network.layers) - 1, len(first)
        made = eqx.nn.MLP(first.shape[1], len(last), width, depth, ACTIVATIONS[network.activation], key=self.key)
        dense = tuple(self._dense(layer, mask) for layer, mask in zip(network.layers, network.masks))
        return eqx.tree_at(lambda part: part.layers, made, dense)

    def _dense(self, layer: tuple[NDArray, NDArray], mask: NDArray | None) -> Any:
        weight, bias = map(_array, layer)
        made = eqx.nn.Linear(weight.shape[1], weight.shape[0], key=self.key)
        given = weight if mask is None else Parameterize(jnp.where, jnp.asarray(mask), weight, 0)
        return eqx.tree_at(lambda part: (part.weight, part.bias), made, (given, bias))


def _array(values: Any) -> Any:
    return jnp.asarray(np.array(values, np.float64))  # of JAX's own dtype


def _permuted(order: Any) -> list[Any]:
    order = np.array(order)
    return [] if (order == np.arange(len(order))).all() else [fb.Permute(jnp.asarray(order))]


def _of_flowjax(operation: Any, step: Step, n: int, condition_dim: int) -> tuple[Network, Any]:
    """The network with the outputs that flowjax's transformer takes for n values, and the transformer."""
    scalar_map, conditioner = operation.transformer, operation.conditioner
    network = network_of(conditioner, step.views, step.name, condition_dim)
    if network.residual is not None:
        raise ConversionError(f"residual networks ({step.name}) have no counterpart in flowjax")
    if isinstance(scalar_map, operations.Affine):
        gains = step.views.get("gain")
        if gains is not None:
            network = network.with_constants(gains[:, None], (2,), free=False)
        function = ScaleMap(scalar_map.scale_activation, scalar_map.least, scalar_map.most)
        raw = jnp.zeros(()), *([] if gains is None else [jnp.zeros(())])
        made: Any = eqx.tree_at(lambda part: part.scale, fb.Affine(), Parameterize(function, *raw))
        return network, fb.Invert(made) if scalar_map.shift_first else made
    if isinstance(scalar_map, operations.Spline):
        bins, least = scalar_map.num_bins, scalar_map.min_bin_width
        is_other = any(scalar_map.circular) or scalar_map.is_clipped
        if is_other or least != scalar_map.min_bin_height or not least or bins < 2:
            what = "which needs two bins or more of one least size above 0, and softplus derivatives"
            raise ConversionError(f"the spline {scalar_map} ({step.name}) has no counterpart in flowjax, {what}")
        made = fb.RationalQuadraticSpline(knots=bins - 1, interval=scalar_map.tail_bound,
                                          min_width=2 * scalar_map.tail_bound * least,
                                          min_derivative=scalar_map.min_derivative)  # fmt: skip
        if not scalar_map.free_ends:  # slopes of 1, as flowjax begins with
            network = network.with_constants(np.zeros((n, 2)), (2 * bins, 3 * bins - 1), free=True)
        offset = np.zeros((n, 3 * bins + 1))
        inner = slice(2 * bins, None) if scalar_map.free_ends else slice(2 * bins + 1, -1)
        offset[:, inner] = scalar_map.derivative_shift - np.asarray(made.derivatives.args[0], float)[0]
        return network.plus(offset.ravel()), made
    raise ConversionError(f"the scalar map {scalar_map} ({step.name}) has no counterpart in flowjax")
