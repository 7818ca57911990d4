"""Layers that are made of layers."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npflows.core.parameters import Parameter
from npflows.layers.layer import Layer
from npflows.layers.standardize import Standardize


class Chain(Layer):
    """Layers one after the other as one saved layer, on one parameter buffer; a program runs them one by one.

    Parameters
    ----------
    layers : sequence of Layer
        In the direction data -> latent, each for what the one before it gives; the chain takes copies.
    names : sequence of str, optional
        Names of the layers, which those of their parameters begin with; by default their numbers.

    Raises
    ------
    ValueError
        If there is no layer, shapes, widths of conditions or dtypes differ, or a layer has its place in a flow's own list:
        `Standardize`, and `Split` or another that does not pass on all values.
    """

    def __init__(self, layers: Sequence[Layer], names: Sequence[str] | None = None) -> None:
        copies = _checked(layers)
        self.names = tuple(map(str, range(len(copies)) if names is None else names))
        if len(set(self.names)) != len(copies):
            raise ValueError(f"names must be {len(copies)} different ones, got {names!r}")
        self.parts = dict(zip(self.names, copies))
        parameters = [
            Parameter(f"{name}.{p.name}", part.parameters.views()[p.name], p.free)
            for name, part in self.parts.items()
            for p in part.parameters.entries
        ]
        condition_dim = max(part.condition_dim for part in copies)
        super().__init__(copies[0].input_dim, parameters, condition_dim=condition_dim, dtype=copies[0].dtype)
        self._bind_parts()

    @property
    def layers(self) -> list[Layer]:
        """The layers, which work on their shares of the chain's parameters."""
        return list(self.parts.values())

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.layers[0].sample_shape

    def bind(self, part: NDArray) -> None:
        super().bind(part)
        self._bind_parts()

    def share(self, other: Layer) -> None:
        super().share(other)
        assert isinstance(other, Chain)
        for mine, theirs in zip(self.parts.values(), other.parts.values()):
            mine.share(theirs)

    def _bind_parts(self) -> None:
        """Let the parts work on their shares of the chain's parameters."""
        start = 0
        for part in self.parts.values():
            end = start + part.theta_size
            part.bind(self.parameters.theta[start:end])
            start = end

    def leaves(self) -> list[tuple[Layer, int]]:
        result, start = [], 0
        for part in self.parts.values():
            result += [(leaf, start + at) for leaf, at in part.leaves()]
            start += part.theta_size
        return result

    @property
    def initialized(self) -> bool | None:
        """Whether everything in it that is set from data has been set; None where nothing is."""
        states = [part.initialized for part in self.parts.values() if part.initialized is not None]
        return all(states) if states else None

    @initialized.setter
    def initialized(self, value: bool | None) -> None:
        for part in self.parts.values():
            if part.initialized is not None and value is not None:
                part.initialized = value

    def initialize(self, x: ArrayLike, sample_weight: ArrayLike | None = None, condition: ArrayLike | None = None) -> None:
        """Set each part in turn from what enters it when rows x enter the chain; see `ActNormLayer.initialize`."""
        entering = x
        for part in self.layers:
            context = condition if part.condition_dim else None
            if part.initialized is not None:
                part.initialize(entering, sample_weight, context)
            entering, _ = part.forward(entering, context)

    @property
    def circle_bound(self) -> float | None:
        bounds = {bound for part in self.layers if (bound := part.circle_bound) is not None}
        if len(bounds) > 1:
            raise ValueError(f"all layers with circular values must have one bound, got {sorted(bounds)}")
        return bounds.pop() if bounds else None

    def keep_circles(self, circles: NDArray[np.bool_]) -> NDArray[np.bool_]:
        for part in self.layers:
            circles = part.keep_circles(circles)
        return circles

    @property
    def result_shape(self) -> tuple[int, ...]:
        return self.layers[-1].result_shape

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bind_parts()


def _checked(layers: Sequence[Layer]) -> list[Layer]:
    """Copies of the layers, each made for what the one before it gives."""
    copies: list[Layer] = []
    if not layers:
        raise ValueError("a Chain needs at least one layer")
    shape, dtype = layers[0].sample_shape, layers[0].dtype
    for i, layer in enumerate(layers):
        name = f"layer {i} ({type(layer).__name__})"
        if layer.dtype != dtype:
            raise ValueError(f"{name} has dtype {layer.dtype} where the first one has {dtype}")
        if isinstance(layer, Standardize) or layer.takes_all_values or math.prod(layer.onward_shape) != layer.input_dim:
            raise ValueError(f"{name} has its place in the list of a flow, not in a Chain")
        try:
            copies.append(copy.deepcopy(layer).for_shape(shape))
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
        given, shape = shape, copies[-1].result_shape
        if len(shape) == 1 and math.prod(shape) == math.prod(given):
            shape = given  # a layer of vectors leaves the shape of images as it is
    widths = {layer.condition_dim for layer in copies} - {0}
    if len(widths) > 1:
        raise ValueError(f"all layers with a condition must have the same condition_dim, got {sorted(widths)}")
    return copies
