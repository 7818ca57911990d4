"""What a flow is made of, as arrays, for the libraries that it goes to; what these have no counterpart of is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from npflows.base import Base
from npflows.convert.errors import ConversionError
from npflows.core.checks import as_dtype
from npflows.core.factors import reflections, signed_factors, triangle
from npflows.core.operations import Householder, LULinear, Made, Mlp, Operation, QRLinear, SVDLinear
from npflows.distribution.transformed import TransformedDistribution

Views = Mapping[str, NDArray]


@dataclass(frozen=True)
class Step:
    """An operation of a flow, its parameters by name, and what messages call it."""

    operation: Operation
    views: Views
    name: str


@dataclass(frozen=True)
class Parts:
    """What a flow is made of.

    Attributes
    ----------
    n : int
        Columns.
    dtype : str
        Of the flow to be made.
    loc, scale : ndarray (n,)
        Of the standardization, with its factor, or None.
    conditions : ndarray (3, c) or None
        Location and scale of the condition, and where its tails begin; None without a condition.
    steps : list of Step
        From data to latent.
    base : Base
    """

    n: int
    dtype: str
    loc: NDArray[np.float64]
    scale: NDArray[np.float64]
    factor: NDArray[np.float64] | None
    conditions: NDArray[np.float64] | None
    steps: list[Step]
    base: Base

    @property
    def condition_dim(self) -> int:
        return 0 if self.conditions is None else self.conditions.shape[1]

    @property
    def moves_conditions(self) -> bool:
        """Whether conditions are standardized at all."""
        return self.conditions is not None and not np.array_equal(
            self.conditions.T, np.tile([0.0, 1.0, np.inf], (self.condition_dim, 1))
        )


def parts_of(flow: TransformedDistribution, dtype: str | None) -> Parts:
    """What a flow is made of.

    Raises
    ------
    ConversionError
        If the flow has a support, an embedding, or samples that are no vectors.
    """
    if not isinstance(flow, TransformedDistribution):
        raise ConversionError(f"a flow of npflows is needed, got {type(flow).__name__}")
    if flow.preprocessing.has_support:
        raise ConversionError(f"the support {flow.support} has no counterpart there: only columns on the whole line can go")
    if flow.conditioning.embedding is not None:
        raise ConversionError("an embedding of the condition (embedding_dims) is not handed over")
    if len(flow.input_shape) != 1:
        raise ConversionError(f"samples of shape {flow.input_shape} are not handed over, only vectors")
    conditions = None
    if flow.condition_dim:
        table = flow.conditioning.table
        conditions = table.copy() if table.shape[1] else np.tile([[0.0], [1.0], [np.inf]], (1, flow.condition_dim))
    theta, steps = flow.parameters.theta.astype(np.float64), []
    for leaf, offset in flow.leaves:
        operation = leaf.operation()
        views = operation.views(theta[offset : offset + operation.size])
        steps.append(Step(operation, views, type(leaf).__name__))
    layer = flow.standardize
    made = flow.dtype.name if dtype is None else as_dtype(dtype).name
    return Parts(flow.latent_dim, made, layer.loc, layer.scale, layer.factor, conditions, steps, flow.base)


@dataclass(frozen=True)
class Network:
    """A network as arrays.

    Attributes
    ----------
    layers : list of (ndarray, ndarray)
        Weights (rows, columns) and biases of each dense layer; columns of the first one are features, then conditions.
    masks : list of ndarray or None
        Which weights there are, None for all.
    activation : str
    residual : {"all", "blocks", "inner"} or None
        Where a residual network has activations; layers 1 and 2, 3 and 4, ... are its blocks.
    sees_condition : bool
    """

    layers: list[tuple[NDArray, NDArray]]
    masks: list[NDArray[np.bool_] | None]
    activation: str
    residual: str | None
    sees_condition: bool

    def with_condition(self, condition_dim: int) -> Network:
        """The network with inputs for a condition: where it has none they are 0 for good, as others pass one to all."""
        if self.sees_condition or not condition_dim:
            return self
        (weight, bias), mask = self.layers[0], self.masks[0]
        blind = np.zeros((len(weight), condition_dim))
        allowed = np.ones(weight.shape, bool) if mask is None else mask
        return replace(self, layers=[(np.concatenate([weight, blind], axis=1), bias), *self.layers[1:]],
                       masks=[np.concatenate([allowed, blind > 0], axis=1), *self.masks[1:]])  # fmt: skip

    def in_order_of(self, order: NDArray[np.int64], multiplier: int) -> Network:
        """The network of features by their numbers, from that of features in an order."""
        n, (weight, bias) = len(order), self.layers[0]
        columns = np.r_[np.argsort(order), n : weight.shape[1]]
        rows = (np.argsort(order)[:, None] * multiplier + np.arange(multiplier)).ravel()
        layers, masks = [(weight[:, columns], bias), *self.layers[1:]], list(self.masks)
        masks[0] = None if masks[0] is None else masks[0][:, columns]
        layers[-1] = layers[-1][0][rows], layers[-1][1][rows]
        masks[-1] = None if masks[-1] is None else masks[-1][rows]
        return replace(self, layers=layers, masks=masks)

    def with_constants(self, values: NDArray[np.float64], places: tuple[int, ...], *, free: bool) -> Network:
        """The network with further outputs for each value, constants that no input moves.

        Parameters
        ----------
        values : ndarray (d, k)
            Constants of each of d values.
        places : tuple of int
            Where they lie among the outputs of a value, by their places among the old ones.
        free : bool
            Whether training may let them depend on the inputs.
        """
        (weight, bias), mask = self.layers[-1], self.masks[-1]
        d, width = len(values), weight.shape[1]
        weight, bias = weight.reshape(d, -1, width), bias.reshape(d, -1)
        allowed = np.ones(weight.shape, bool) if mask is None else mask.reshape(weight.shape)
        kept = allowed[:, :1] if free else np.zeros((d, 1, width), bool)
        for j, place in sorted(enumerate(places), key=lambda pair: -pair[1]):
            weight, allowed = np.insert(weight, place, 0.0, axis=1), np.insert(allowed, place, kept[:, 0], axis=1)
            bias = np.insert(bias, place, values[:, j], axis=1)
        last = None if mask is None and free else allowed.reshape(-1, width)
        return replace(self, layers=[*self.layers[:-1], (weight.reshape(-1, width), bias.ravel())],
                       masks=[*self.masks[:-1], last])  # fmt: skip

    def plus(self, offset: NDArray[np.float64]) -> Network:
        """The network whose outputs have an offset added."""
        weight, bias = self.layers[-1]
        return replace(self, layers=[*self.layers[:-1], (weight, bias + offset)])


def network_of(operation: object, views: Views, where: str, condition_dim: int) -> Network:
    """The network of a layer of a flow, whose features are in its own order.

    Raises
    ------
    ConversionError
        If no other library has one of this kind.
    """
    if not isinstance(operation, (Mlp, Made)):
        raise ConversionError(f"the network of {where}, {type(operation).__name__}, is not handed over")
    if operation.dropout:
        raise ConversionError(f"dropout={operation.dropout} ({where}) has no counterpart there")
    if operation.gated or (operation.condition_dim and operation.condition_layers != (0,)):
        raise ConversionError(f"residual blocks that see the condition ({where}) have no counterpart there")
    layers, masks = [], []
    for k in range(len(operation.hidden) + 1):
        weight = views[f"network.weight_{k}"]
        mask = operation.mask(k) if isinstance(operation, Made) else None
        if mask is not None:
            weight = np.where(mask, weight, 0.0)
        if operation.sees_condition(k):
            condition = views[f"network.{operation.condition_weight(k)}"]
            weight = np.concatenate([weight, condition], axis=1)
            mask = None if mask is None else np.concatenate([mask, np.ones(condition.shape, bool)], axis=1)
        layers.append((weight, views[f"network.bias_{k}"]))
        masks.append(mask)
    network = Network(layers, masks, operation.activation, _residual(operation), operation.condition_dim > 0)
    return network.with_condition(condition_dim)


def _residual(operation: Mlp | Made) -> str | None:
    """Where a residual network has activations; None for other networks."""
    if not operation.residual:
        return None
    return {0: "all", 1: "blocks"}.get(len(operation.linear), "inner")


def linear_factors(operation: Operation, views: Views) -> tuple[NDArray, NDArray, NDArray, NDArray] | None:
    """Order, L, U of either sign and shift of a linear operation y = L U x[order] + shift; None for other operations."""
    values = {name: view.astype(np.float64) for name, view in views.items()}
    if isinstance(operation, LULinear):
        packed, order = values["matrix"], np.array(operation.order)
        signs = np.array(operation.signs or (1,) * operation.dim)
    elif isinstance(operation, (Householder, QRLinear, SVDLinear)):
        packed, order, signs = signed_factors(_of_reflections(operation, values))
    else:
        return None
    lower, upper = triangular(packed)
    return order, lower, signs[:, None] * upper, values.get("shift", np.zeros(operation.dim))


def _of_reflections(operation: Householder | QRLinear | SVDLinear, values: Views) -> NDArray:
    """The matrix of a product with reflections."""
    if isinstance(operation, QRLinear):
        return reflections(values["vectors"]) @ triangle(values["upper"])
    if isinstance(operation, SVDLinear):
        return reflections(values["left"]) * np.exp(values["logs"]) @ reflections(values["right"])
    return reflections(values["vectors"])


def triangular(matrix: NDArray) -> tuple[NDArray, NDArray]:
    """L and U of a matrix that holds both, U's diagonal as its logarithm."""
    return np.tril(matrix, -1) + np.eye(len(matrix)), triangle(matrix)
