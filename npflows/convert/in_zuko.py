"""Flows of zuko made of what npflows has; imported by `to_zuko` alone, as it needs PyTorch and zuko."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import zuko
from numpy.typing import NDArray
from torch import nn
from zuko.flows import ElementWiseTransform, Flow, GeneralCouplingTransform, MaskedAutoregressiveTransform
from zuko.flows.spline import CircularRQSTransform
from zuko.lazy import LazyComposedTransform, LazyTransform, UnconditionalDistribution, UnconditionalTransform
from zuko.nn import Linear, MaskedLinear, Residual
from zuko.transforms import LULinearTransform, MonotonicAffineTransform, MonotonicRQSTransform, PermutationTransform

from npflows.base import Base, Normal, Uniform
from npflows.convert.errors import ConversionError
from npflows.convert.outward import Network, Parts, Step, linear_factors, network_of, parts_of, triangular
from npflows.core import operations
from npflows.core.factors import lu
from npflows.distribution.transformed import TransformedDistribution

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU, "elu": nn.ELU, "leaky_relu": nn.LeakyReLU}


@dataclass(frozen=True)
class AffineMap:
    """npflows' affine map as a univariate transformation of zuko; see `npflows.core.operations.Affine`.

    It takes shift, raw scale, and with "tanh_gain" the gain.  A slope of infinity leaves zuko's log-scale what it is.
    """

    scale_activation: str
    least: float
    most: float
    shift_first: bool

    def __call__(self, shift: Any, raw: Any, gain: Any = 1.0) -> Any:
        log_scale = gain * self._log_scale(raw)
        if self.shift_first:
            return MonotonicAffineTransform(-shift * torch.exp(-log_scale), -log_scale, slope=math.inf)
        return MonotonicAffineTransform(shift, log_scale, slope=math.inf)

    def _log_scale(self, raw: Any) -> Any:
        if self.scale_activation in ("tanh", "tanh_gain"):
            return torch.tanh(raw)
        if self.scale_activation == "none":
            return raw
        if self.scale_activation in operations.CLIPS:
            return self._clip(raw)
        if self.scale_activation == "sigmoid":
            raw = raw + operations.Affine.sigmoid_offset
            if not self.least:
                return nn.functional.logsigmoid(raw)
        scale = nn.functional.softplus(raw) if self.scale_activation == "softplus" else torch.sigmoid(raw)
        return torch.log(scale + self.least).clamp(max=math.log(self.most))

    def _clip(self, raw: Any) -> Any:
        bound = -math.log(self.least)
        if self.scale_activation == "soft_clip":
            return raw / (1 + abs(raw) / bound)
        if self.scale_activation == "hard_clip":
            return raw.clamp(-bound, math.log(self.most))
        if self.scale_activation == "tanh_clip":
            return bound * torch.tanh(raw)
        if self.scale_activation == "sigmoid_clip":
            return bound * (2 * torch.sigmoid(raw) - 1)
        return operations.Affine.atan_factor * bound * torch.atan(raw)


@dataclass(frozen=True)
class SplineMap:
    """npflows' rational-quadratic spline as a univariate transformation of zuko, with least sizes of bins and softplus
    derivatives; see `npflows.core.operations.Spline`."""

    bound: float
    min_bin_width: float
    min_bin_height: float
    min_derivative: float
    derivative_shift: float

    def __call__(self, widths: Any, heights: Any, derivatives: Any) -> Any:
        slopes = self.min_derivative + nn.functional.softplus(derivatives + self.derivative_shift)
        return MonotonicRQSTransform(_log_shares(widths, self.min_bin_width), _log_shares(heights, self.min_bin_height),
                                     torch.log(slopes), bound=self.bound, slope=math.inf)  # fmt: skip


def _log_shares(raw: Any, least: float) -> Any:
    """Logarithms of the shares of all bins in the interval, of which zuko takes the softmax."""
    return torch.log(least + (1 - raw.shape[-1] * least) * torch.softmax(raw, dim=-1))


class LogTails(torch.distributions.Transform):
    """npflows' logarithmic tails; see `npflows.layers.LogTails`."""

    domain = torch.distributions.constraints.real
    codomain = torch.distributions.constraints.real
    bijective = True
    sign = +1

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def _call(self, x: Any) -> Any:
        beyond = (abs(x) - self.bound).clamp(min=0)
        return torch.where(abs(x) > self.bound, torch.sign(x) * (self.bound + torch.asinh(beyond)), x)

    def _inverse(self, y: Any) -> Any:
        beyond = (abs(y) - self.bound).clamp(min=0)
        return torch.where(abs(y) > self.bound, torch.sign(y) * (self.bound + torch.sinh(beyond)), y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return -torch.log1p((abs(x) - self.bound).clamp(min=0) ** 2) / 2


class StandardizedCondition(nn.Module):
    """(c - loc) / scale, drawn in by a logarithm beyond `tails`."""

    def __init__(self, loc: Any, scale: Any, tails: Any) -> None:
        super().__init__()
        for name, values in (("loc", loc), ("scale", scale), ("tails", tails)):
            self.register_buffer(name, values)

    def forward(self, c: Any) -> Any:
        c = (c - self.loc) / self.scale
        beyond = (abs(c) - self.tails).clamp(min=0)
        return torch.where(abs(c) > self.tails, torch.sign(c) * (self.tails + torch.asinh(beyond)), c)


class ConditionedFlow(Flow):
    """A flow whose condition is standardized first, as npflows does."""

    def __init__(self, transform: Any, base: Any, condition: StandardizedCondition) -> None:
        super().__init__(transform, base)
        self.condition = condition

    def forward(self, c: Any = None) -> Any:
        return super().forward(None if c is None else self.condition(c))


def made_of(flow: TransformedDistribution, dtype: str | None) -> Flow:
    """The flow of zuko."""
    parts = parts_of(flow, dtype)
    with torch.random.fork_rng(devices=[]):  # constructors draw weights
        return _Maker(parts).flow()


class _Maker:
    """Makes transforms in the dtype of a flow."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.dtype = parts, getattr(torch, parts.dtype)

    def flow(self) -> Flow:
        parts = self.parts
        transforms = self._standardization()
        for step in parts.steps:
            transforms += self._step(step)
        composed, base = LazyComposedTransform(*transforms), self._base(parts.base)
        if parts.conditions is not None and parts.moves_conditions:
            flow = ConditionedFlow(composed, base, StandardizedCondition(*map(self._tensor, parts.conditions)))
        else:
            flow = Flow(composed, base)
        return flow.to(self.dtype).eval()

    def _tensor(self, values: Any) -> Any:
        return torch.as_tensor(np.array(values), dtype=self.dtype)

    def _fixed(self, kind: Callable, *, trained: bool = False, **values: Any) -> Any:
        return UnconditionalTransform(kind, buffer=not trained, **{k: self._tensor(v) for k, v in values.items()})

    def _standardization(self) -> list[LazyTransform]:
        parts = self.parts
        found: list[LazyTransform] = []
        if (parts.loc != 0).any() or (parts.scale != 1).any():
            found.append(self._fixed(torch.distributions.AffineTransform, loc=parts.loc, scale=parts.scale).inv)
        if parts.factor is not None:
            found.append(self._fixed(LULinearTransform, LU=parts.factor).inv)
        return found

    def _base(self, base: Base) -> Any:
        views = base.parameters.views()
        if isinstance(base, Normal):
            scale = np.exp(views["log_scale"].astype(float)) if base.learnable else views["scale"]
            return UnconditionalDistribution(zuko.distributions.DiagNormal, buffer=not base.learnable,
                                             loc=self._tensor(views["loc"]), scale=self._tensor(scale))  # fmt: skip
        if isinstance(base, Uniform):
            return UnconditionalDistribution(zuko.distributions.BoxUniform, lower=self._tensor(views["low"]),
                                             upper=self._tensor(views["high"]), buffer=True)  # fmt: skip
        raise ConversionError(f"the base distribution {type(base).__name__} is not handed over; Normal and Uniform can be")

    def _step(self, step: Step) -> list[LazyTransform]:
        operation, views = step.operation, step.views
        if isinstance(operation, operations.Permutation):
            return [self._permutation(operation.order)]
        if isinstance(operation, operations.ActNorm) and operation.channels == operation.dim:
            return [self._affine(views["bias"] * np.exp(views["logs"]), np.exp(views["logs"]))]
        linear = linear_factors(operation, views)
        if linear is not None:
            order, lower, upper, shift = linear
            matrix = self._lower_upper(lower, upper)
            return [self._permutation(order), matrix, self._affine(shift, np.ones(self.parts.n))]
        if isinstance(operation, operations.Conv1x1) and operation.channels == operation.dim:
            if operation.parameterization == "plu":
                return [self._lower_upper(*triangular(views["matrix"]))]
            rows, lower, upper = lu(views["matrix"])
            return [self._lower_upper(lower, upper), self._permutation(rows.argmax(axis=1))]
        if isinstance(operation, operations.LogTails):
            return [UnconditionalTransform(LogTails, bound=operation.bound)]
        if isinstance(operation, operations.Elementwise) and isinstance(operation.transformer, operations.Spline):
            univariate, shapes = _univariate(operation.transformer, step.name)
            made = self._elementwise(views["raw"], univariate, shapes)
            return [made.inv if operation.inverted else made]
        if isinstance(operation, operations.Autoregressive):
            return [self._autoregressive(operation, step)]
        if isinstance(operation, operations.Coupling) and not operation.n_circles:
            return [self._coupling(operation, step)]
        raise ConversionError(f"{step.name} has no counterpart in zuko")

    def _permutation(self, order: Any) -> LazyTransform:
        return UnconditionalTransform(PermutationTransform, order=torch.as_tensor(np.array(order)), buffer=True)

    def _affine(self, loc: NDArray, scale: NDArray) -> LazyTransform:
        return self._fixed(torch.distributions.AffineTransform, trained=True, loc=loc, scale=scale)

    def _lower_upper(self, lower: NDArray, upper: NDArray) -> LazyTransform:
        """L U x, where zuko's U has a diagonal of 1."""
        diagonal = np.diag(upper)
        factors = np.tril(lower * diagonal) + np.triu(upper / diagonal[:, None], 1)
        return self._fixed(LULinearTransform, trained=True, LU=factors)

    def _elementwise(self, raw: NDArray, univariate: Any, shapes: list[tuple[int, ...]]) -> LazyTransform:
        """A map of each feature by itself; zuko passes a condition to all, which moves nothing at first."""
        if self.parts.condition_dim:
            made = ElementWiseTransform(len(raw), self.parts.condition_dim, univariate, shapes, hidden_features=())
            made.hyper = nn.Sequential(self._dense((np.zeros((raw.size, self.parts.condition_dim)), raw.ravel()), None))
            return made
        made = ElementWiseTransform(len(raw), univariate=univariate, shapes=shapes)
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        for parameter, values in zip(made.phi, np.split(raw, ends[:-1], axis=1)):
            parameter.data = self._tensor(values.reshape(parameter.shape))
        return made

    def _autoregressive(self, operation: operations.Autoregressive, step: Step) -> LazyTransform:
        n, order = operation.dim, np.array(operation.order)
        if len(set(operation.conditioner.feature_rows) - {1}):
            raise ConversionError(f"values on circles ({step.name}) have no counterpart in zuko")
        network = network_of(operation.conditioner, step.views, step.name, self.parts.condition_dim)
        gains = step.views.get("gain")
        network = network.in_order_of(order, operation.transformer.multiplier)
        if gains is not None:
            network = network.with_constants(gains[np.argsort(order), None], (2,), free=False)
        univariate, shapes = _univariate(operation.transformer, step.name)
        if n > 1:
            made = MaskedAutoregressiveTransform(n, self.parts.condition_dim, order=torch.as_tensor(np.argsort(order)),
                                                 univariate=univariate, shapes=shapes,
                                                 hidden_features=(n,))  # fmt: skip
            made.hyper = self._network(network)
        else:
            made = self._of_one_feature(network, univariate, shapes)
        return made.inv if operation.inverted else made

    def _of_one_feature(self, network: Network, univariate: Any, shapes: Any) -> LazyTransform:
        """The map of a single feature, whose network sees the condition alone, if there is one."""
        first, *rest = network.layers
        blind = replace(network, layers=[(first[0][:, 1:], first[1]), *rest], masks=[None] * len(network.layers))
        if self.parts.condition_dim:
            made = ElementWiseTransform(1, self.parts.condition_dim, univariate, shapes, hidden_features=())
            made.hyper = self._network(blind)
            return made
        with torch.no_grad():
            raw = self._network(blind)(torch.zeros(1, 0, dtype=self.dtype))
            if len(shapes[0]) == 0:
                made = univariate(*raw.unbind(-1))
                return self._affine(made.shift.numpy(), made.scale.numpy())
        return self._elementwise(raw.double().numpy(), univariate, shapes)

    def _coupling(self, operation: operations.Coupling, step: Step) -> LazyTransform:
        scalar_map, inverted = operation.transformer, operation.inverted
        if isinstance(scalar_map, operations.Affine) and scalar_map.shift_first:
            scalar_map, inverted = _turned_round(scalar_map), not inverted
        network = network_of(operation.conditioner, step.views, step.name, self.parts.condition_dim)
        if "gain" in step.views:
            network = network.with_constants(step.views["gain"][:, None], (2,), free=False)
        mask = np.zeros(operation.dim, bool)
        mask[list(operation.kept)] = True
        univariate, shapes = _univariate(scalar_map, step.name)
        made = GeneralCouplingTransform(operation.dim, self.parts.condition_dim, torch.as_tensor(mask), univariate,
                                        shapes, hidden_features=())  # fmt: skip
        made.hyper = self._network(network)
        return made.inv if inverted else made

    def _network(self, network: Network) -> Any:
        """Dense layers and activations, as zuko's own networks are."""
        dense = [self._dense(layer, mask) for layer, mask in zip(network.layers, network.masks)]
        activation = ACTIVATIONS[network.activation]
        if network.residual is None:
            return nn.Sequential(*[part for layer in dense for part in (layer, activation())][:-1])
        first, *inner, last = dense
        outer = [] if network.residual == "inner" else [activation()]
        blocks = [Residual(*(activation() for _ in outer), a, activation(), b) for a, b in zip(inner[::2], inner[1::2])]
        end = [activation()] if network.residual == "all" else []
        return nn.Sequential(first, *blocks, *end, last)

    def _dense(self, layer: tuple[NDArray, NDArray], mask: NDArray | None) -> Any:
        weight, bias = layer
        made = Linear(1, 1) if mask is None else MaskedLinear(torch.as_tensor(mask))
        made.weight, made.bias = nn.Parameter(self._tensor(weight)), nn.Parameter(self._tensor(bias))
        made.out_features, made.in_features = weight.shape
        return made


def _turned_round(scalar_map: operations.Affine) -> operations.Affine:
    return operations.Affine(scalar_map.scale_activation, shift_first=False, n_gains=scalar_map.n_gains,
                             least=scalar_map.least, most=scalar_map.most)  # fmt: skip


def _univariate(scalar_map: Any, where: str) -> tuple[Any, list[tuple[int, ...]]]:
    """A univariate transformation of zuko, and the shapes of its parameters: zuko's own where it has the map."""
    if isinstance(scalar_map, operations.Affine):
        kind, least = scalar_map.scale_activation, scalar_map.least
        if kind in ("soft_clip", "none") and not scalar_map.shift_first:
            slope = least if kind == "soft_clip" else math.inf
            return partial(MonotonicAffineTransform, slope=slope), [(), ()]
        made = AffineMap(kind, least, scalar_map.most, scalar_map.shift_first)
        return made, [()] * (3 if kind == "tanh_gain" else 2)
    if isinstance(scalar_map, operations.Spline):
        bins = scalar_map.num_bins
        shapes: list[tuple[int, ...]] = [(bins,), (bins,), (bins - 1,)]
        least_sizes = scalar_map.min_bin_width, scalar_map.min_bin_height, scalar_map.min_derivative
        if any(scalar_map.circular) or scalar_map.free_ends:
            raise ConversionError(f"splines on circles or with learned slopes at their ends ({where}) are not in zuko")
        if scalar_map.least_slope > 0 and not any(least_sizes):
            if not scalar_map.turned:
                options = {"bound": scalar_map.tail_bound, "slope": scalar_map.least_slope}
                return partial(MonotonicRQSTransform, **options), shapes
            if scalar_map.tail_bound == math.pi:
                return partial(CircularRQSTransform, slope=scalar_map.least_slope), shapes
        if not scalar_map.least_slope and not scalar_map.turned:
            return SplineMap(scalar_map.tail_bound, *least_sizes, scalar_map.derivative_shift), shapes
    raise ConversionError(f"the scalar map {scalar_map} ({where}) has no counterpart in zuko")
